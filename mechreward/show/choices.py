"""Pictures of choices: sibling steps, searches, and early exits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mechreward.base.errors import of_kind, require
from mechreward.show.curve import Curve, Line
from mechreward.show.forest import Estimate, Forest
from mechreward.show.frames import Frame, check_one, frame_of, interval_of, some, where
from mechreward.show.picture import Panel, Picture
from mechreward.show.style import Reference, percent
from mechreward.uses.early_exit import EarlyExit
from mechreward.uses.siblings import CHANCE, HALF, Siblings

# Colours that a scorer has in every picture of a choice.
SCORERS = {
    "dopamine neurons": "dopamine",
    "value neurons": "value",
    "matched neurons": "matched",
    "value probe": "mean_difference",
    "logprob": "baseline",
    "random": "random",
    "oracle": "rotated",
    "majority": "magnitude",
    "value": "value",
    "whole_site": "mean_difference",
    HALF: "rotated",
}
RATES = {
    "rate": ("All pairs", "prefers the better sibling"),
    "clear": ("Clearly different pairs", "prefers the better sibling"),
    "gain": ("What the choice is worth", "V-hat of the chosen step minus the mean of all"),
}


def siblings(made: Siblings) -> Picture:
    """Of the steps that may follow one state, how often does each scorer prefer the better one?

    A dot with its interval a scorer: of all pairs, of clearly different ones, and what choosing the
    step with the best score gains. The last line, the other half of the continuations, is what
    noise leaves to be had.

    Parameters
    ----------
    made : Siblings
        What `mechreward.siblings` drew.

    Returns
    -------
    Picture

    Raises
    ------
    MechRewardError
        No siblings, or no state with two different steps.
    """
    of_kind("made", made, Siblings, "what mr.siblings(...) gives")
    rates = made.rates()
    panels: list[Panel] = []
    for part, (title, xlabel) in RATES.items():
        lines = []
        chance = 0.5
        for line in rates.to_dict("records"):
            if line["scorer"] == CHANCE:
                chance = line[part]
                continue
            score = interval_of(line, part, line["states"])
            lines.append(Estimate(_name(line["scorer"]), score, _look(line["scorer"])))
        counted = "clear_pairs" if part == "clear" else "pairs"
        if part != "gain":
            title = f"{title} (n = {int(rates[counted].iloc[0])})"
        reference = Reference(chance, "chance" if part != "gain" else "any step")
        panels.append(_forest(title, {"": lines}, xlabel, reference))
    first = rates.iloc[0]
    caption = (
        f"Sibling steps of {len(made.problem_ids)} states: {made.k} next steps were drawn at each, "
        "so that all share the problem and the answer so far. Dots: how often a scorer prefers the "
        "step with the higher V-hat, and what the step with its best score is worth beyond the "
        "mean; bars: 95% intervals, bootstrap by problem. One half of the continuations says which "
        "pairs count, the other judges. Other half: the choice of V-hat itself from half of the "
        "continuations, which noise keeps from 1. Upright line: chance."
    )
    alt = (
        f"Rates of {len(rates) - 1} scorers on sibling steps. {first['scorer']}: "
        f"{first['rate']:.2f} of all pairs, {first['clear']:.2f} of clear ones; chance 0.50."
    )
    return Picture(
        f"Sibling steps: which one is better? {made.model_id.name}", panels, caption, alt
    )


def search(results: Any) -> Picture:
    """Accuracy against generated tokens (R11), a panel a scorer, and what each search gains.

    Every panel has the same backdrop: an oracle and chance among as many answers. The gains are
    paired by problem and seed.

    Parameters
    ----------
    results : Results, DataFrame or sequence of Row
        Of `mechreward paper search`, or its `frame()`. Rows of other experiments are left out.

    Returns
    -------
    Picture

    Raises
    ------
    MechRewardError
        Other things, no row with an accuracy and its tokens, or several models or tasks.
    """
    rows = some(frame_of(results), "R11", "accuracy", "gain")
    for column in ("model", "task"):
        check_one(rows, column, "select rows of one")
    costs = rows[(rows["metric"] == "accuracy") & rows["detail.tokens"].notna()]
    require(
        len(costs) > 0,
        "no row of search (R11) has an accuracy with its tokens: there is nothing to draw.",
    )
    whole = costs[costs["detail.algorithm"].isin(["best_of_n", "majority"])]
    beams = costs[costs["detail.algorithm"] == "beam"]
    backdrop = []
    for arm in ("oracle", "random"):
        part = whole[whole["arm"] == arm]
        if len(part):
            label = "oracle" if arm == "oracle" else "chance"
            backdrop.append(_costs(label, part, SCORERS[arm]))
    greedy = costs[costs["detail.algorithm"] == "greedy"]
    references = []
    for line in greedy.head(1).to_dict("records"):
        references.append(Reference(line["estimate"], "greedy", dashed=False))
    top = float(np.nanmax(costs["high"].fillna(costs["estimate"])))
    low = float(np.nanmin(costs["low"].fillna(costs["estimate"])))
    span = (max(low - 0.03, -0.02), min(top + 0.03, 1.02))
    ticks = _token_ticks(costs)
    panels: list[Panel] = []
    for arm in _ordered(costs["arm"]):
        lines = []
        for algorithm, part in (("best of n", whole), ("step beam", beams)):
            rows_of_arm = part[part["arm"] == arm]
            is_backdrop = algorithm == "best of n" and arm in ("oracle", "random")
            if len(rows_of_arm) and not is_backdrop:
                label = "votes" if arm == "majority" else algorithm
                hollow = algorithm == "step beam"
                lines.append(_costs(label, rows_of_arm, _look(arm), hollow))
        if not lines:
            continue
        curve = Curve(
            _name(arm),
            [*lines, *backdrop],
            "generated tokens a problem",
            "accuracy",
            references=references,
            ticks=ticks,
            logarithmic=True,
            span=span,
            bars=True,
        )
        panels.append(curve)
    if not panels:
        curve = Curve("Best of n", backdrop, "generated tokens a problem", "accuracy", bars=True)
        panels.append(curve)
    gains = rows[rows["metric"] == "gain"]
    groups = _gains(gains)
    if groups:
        reference = Reference(0.0, "no gain")
        title = "What step beams gain, paired by problem and seed"
        panels.append(_forest(title, groups, "gain of accuracy, points", reference, wide=True))
    caption = (
        "Guided search: accuracy against generated tokens, those of dropped candidates included. "
        "Filled: the best of n answers by a scorer, over n; hollow: beams of steps; bars: 95% "
        "intervals, bootstrap by problem over seeds. Every panel has the same backdrop: an oracle "
        "and chance among n answers, and the greedy answer. Below, the gain of each beam over the "
        "same beam by chance and over other uses of as many tokens, paired by problem, with p "
        "after Holm."
    )
    best = gains.sort_values("estimate").tail(1).to_dict("records") if len(gains) else []
    told = ""
    for line in best:
        told = (
            f" Largest gain: {line['arm']} over {line['detail.beyond']}, "
            f"{_points(line['estimate'])} points."
        )
    alt = f"Accuracy against tokens of {len(panels)} panels.{told}"
    return Picture(f"Guided search: {where(rows)}", panels, caption, alt)


def exits(made: EarlyExit) -> Picture:
    """Accuracy against the tokens that early exit saves, a panel a signal beside random stops.

    Parameters
    ----------
    made : EarlyExit
        Of whole rollouts with a verifier.

    Returns
    -------
    Picture

    Raises
    ------
    MechRewardError
        No early exit, a live one, one without a verifier, or one that read no signal.
    """
    of_kind("made", made, EarlyExit, "what mr.early_exit(...) gives")
    made.need_whole("a picture of early exit")
    signals = [name for name in made.points.signals if name != "random"]
    require(bool(signals), "no signal was read but random: there is nothing to draw.")
    direction = made.rules[0].direction if made.rules else "below"
    whole = Reference(float(made.full_reward.mean()), "whole rollouts", dashed=False)
    chance = []
    if "random" in made.points.signals:
        chance = [_saving(made, "random", direction, "random stops", "random")]
    panels: list[Panel] = []
    for signal in signals:
        lines = [_saving(made, signal, direction, signal.replace("_", " "), _look(signal))]
        lines += chance
        rules = [rule.signal for rule in made.rules]
        if rules == [signal]:
            at, height, none = [made.saved], [made.accuracy], [np.nan]
            lines.append(Line("the rule", at, height, none, none, "dopamine"))
        curve = Curve(_name(signal), lines, "share of tokens saved", "accuracy", references=[whole])
        panels.append(curve)
    if chance:
        table = made.compare(signals, direction=direction)
        groups: dict[str, list[Estimate]] = {}
        for line in table.dropna(subset=["gap"]).to_dict("records"):
            score = interval_of(line, "gap", len(made.rollouts), 100.0)
            label = _name(line["signal"])
            estimate = Estimate(label, score, _look(line["signal"]), text=in_points(score))
            groups.setdefault(f"{line['saved']:.0%} saved", []).append(estimate)
        if groups:
            title = "Beyond random stops that save as much"
            reference = Reference(0.0, "no gain")
            panels.append(_forest(title, groups, "accuracy, points", reference, wide=True))
    caption = (
        f"Early exit of {len(made.rollouts)} answers by thresholds on a signal; a rollout that is "
        f"stopped {direction} a threshold "
        + ("is abandoned and counts as wrong. " if direction == "below" else "answers at once. ")
        + "Lines: accuracy against the share of tokens saved, what was charged taken off, over all "
        "thresholds. Below, accuracy beyond random stops at the same share of tokens, paired; "
        "bars: 95% intervals, bootstrap by problem."
    )
    alt = (
        f"Accuracy against tokens saved of {len(signals)} signals; whole rollouts "
        f"{percent(whole.at)}. The rule saves {percent(made.saved)} at {percent(made.accuracy)}."
    )
    name = made.rollouts.model_id.name
    return Picture(f"Early exit: accuracy against tokens saved, {name}", panels, caption, alt)


def _saving(made: EarlyExit, signal: str, direction: str, label: str, look: str) -> Line:
    table = made.curve(signal, direction).sort_values("saved")
    nothing = np.full(len(table), np.nan)
    columns = table["saved"].to_numpy(float), table["accuracy"].to_numpy(float)
    return Line(label, *columns, nothing, nothing, look, dense=True)


def _costs(label: str, rows: Frame, look: str, hollow: bool = False) -> Line:
    """A line over tokens."""
    rows = rows.sort_values("detail.tokens")
    names = ("detail.tokens", "estimate", "low", "high")
    columns = [rows[name].to_numpy(float) for name in names]
    return Line(label, *columns, arm=look, hollow=hollow)


def _token_ticks(rows: Frame) -> dict[float, str]:
    """Where the axis of tokens has names: doublings that lie in it."""
    low, high = rows["detail.tokens"].min(), rows["detail.tokens"].max()
    ticks = {}
    for power in range(31):
        if low * 0.9 <= 2**power <= high * 1.1:
            ticks[float(2**power)] = str(2**power)
    return ticks


def _gains(rows: Frame) -> dict[str, list[Estimate]]:
    groups: dict[str, list[Estimate]] = {}
    for line in rows.to_dict("records"):
        heading = f"over {line['detail.beyond'].replace('_', ' ')}"
        score = interval_of(line, "estimate", line["n"], 100.0, ("low", "high"))
        text = in_points(score)
        if np.isfinite(line.get("detail.p_holm", np.nan)):
            text += f", p {line['detail.p_holm']:.2g}"
        estimate = Estimate(_name(line["arm"]), score, _look(line["arm"]), text=text)
        groups.setdefault(heading, []).append(estimate)
    return groups


def _forest(
    title: str,
    groups: dict[str, list[Estimate]],
    xlabel: str,
    reference: Reference,
    wide: bool = False,
) -> Panel:
    return Forest(title, groups, xlabel, reference, wide=wide)


def in_points(score: Any) -> str:
    """Points with their interval."""
    numbers = [_points(number / 100) for number in (score.estimate, score.low, score.high)]
    if not np.isfinite(score.low) or not np.isfinite(score.high):
        return numbers[0]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def _points(share: float) -> str:
    """A difference of shares in points."""
    if not np.isfinite(share):
        return "–"
    return f"{100 * share:+.1f}".replace("-", "−")


def _ordered(names: Sequence[str] | Frame) -> list[str]:
    """Scorers each once: those with a colour first, in its order."""
    every = list(dict.fromkeys(names))
    known = [name for name in SCORERS if name in every]
    return known + [name for name in every if name not in SCORERS]


def _look(name: str) -> str:
    return SCORERS.get(name, name)


def _name(name: str) -> str:
    return name.replace("_", " ")


__all__ = ["exits", "in_points", "search", "siblings"]
