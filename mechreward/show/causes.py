"""Pictures of what happens without neurons, and with more of them: ablation and dose."""

from __future__ import annotations

from typing import Any

import numpy as np

from mechreward.base.errors import one_of, require
from mechreward.show.choices import in_points
from mechreward.show.curve import Curve, Line
from mechreward.show.forest import Estimate, Forest
from mechreward.show.frames import Frame, at_one, frame_of, interval_of, some, where
from mechreward.show.picture import Panel, Picture
from mechreward.show.style import NULLS, Reference, order
from mechreward.stats import Interval

BOUNDS = ("low", "high")
# Damage: what each meter is, and the factor that makes its numbers short.
METERS = {
    "kl": ("KL from the model as it is", "nats a token", 1.0),
    "parse_rate": ("Answers that can be read", "share of answers", 1.0),
    "premature_rate": ("Answers that stop too early", "share of answers", 1.0),
    "length": ("Length of answers", "tokens", 1.0),
}
STEERED = {"value": ("matched", "random"), "dopamine": ("matched_dopamine",)}


def ablation(results: Any, op: str = "zero", *, site: str | None = None) -> Picture:
    """What changes without the value set (R4), in points, beside every draw of every control, and
    the damage beside it.

    Parameters
    ----------
    results : Results, DataFrame or sequence of Row
        Of one model and task.
    op : {"zero", "mean", "resample"}
        What is put in place of the neurons.
    site : str or None, default None
        Which, such as "2.resid_post"; None where there is one.

    Returns
    -------
    Picture

    Raises
    ------
    MechRewardError
        No such rows, or rows of several models, tasks or sites.
    """
    frame = some(frame_of(results), "R4", "accuracy", "change", *METERS)
    elsewhere = frame[["detail.on", "detail.at", "detail.layers"]].notna().any(axis=1)
    rows = frame[~elsewhere]
    rows = rows[rows["site"].isin(rows[rows["metric"] == "change"]["site"])]
    require(len(rows) > 0, "no row of R4 is the change of a set: there is nothing to draw.")
    rows = at_one(rows, site)
    base = rows[(rows["arm"] == "baseline") & (rows["metric"] == "accuracy")]
    require(len(base) == 1, f"need one baseline row of accuracy; {len(base)} were given.")
    one_of("operation", op, list(rows["detail.op"].dropna().unique()))
    here = rows[rows["detail.op"] == op]
    start = float(base["estimate"].iloc[0])
    changes = []
    for arm in sorted(here[here["metric"] == "accuracy"]["arm"].unique(), key=order):
        changes.append(_change(here, arm, start))
    value = changes[0]
    reference = Reference(0.0, f"as it is: {100 * start:.1f}%")
    panels: list[Panel] = [
        Forest("Change of accuracy", {"": changes}, "points", reference, wide=True)
    ]
    for meter, (title, xlabel, _) in METERS.items():
        lines = _damage(here, meter)
        whole = rows[(rows["arm"] == "baseline") & (rows["metric"] == meter)]
        still = 0.0 if meter == "kl" else float(whole["estimate"].mean())
        if lines:
            at = Reference(still, "as it is") if np.isfinite(still) else None
            panels.append(Forest(title, {"": lines}, xlabel, at))
    home = f"{where(rows)}, {rows['site'].iloc[0]}"
    caption = (
        f"Accuracy without the set ({op} ablation at every position) minus that of the model as it "
        f"is, on the same {int(base['n'].iloc[0])} problems, in points. Bar: 95% interval of the "
        "paired change. Large dots of controls: means over draws; small dots: single draws. Rank: "
        "among the set and its matched draws, 1 the lowest. Below, the damage meter of the same "
        "answers; its small dots are the lowest and the highest draw."
    )
    alt = f"Without the value set accuracy changes by {value.text}.".replace("\n", "; ")
    return Picture(f"Ablation: {home}", panels, caption, alt, columns=2)


def _change(rows: Frame, arm: str, start: float) -> Estimate:
    """A line: change in points, paired where it is kept, and the draws."""
    mine = rows[(rows["arm"] == arm) & (rows["metric"] == "accuracy")]
    is_draw = mine["detail.draw"].notna()
    draws = tuple(100 * (float(number) - start) for number in mine[is_draw]["estimate"])
    whole = mine[~is_draw]
    paired = rows[(rows["arm"] == arm) & (rows["metric"] == "change")]
    if len(paired):
        line = paired.iloc[0].to_dict()
        score = interval_of(line, "estimate", int(line["n"]), 100.0, BOUNDS)
    else:
        mean = float(whole["estimate"].iloc[0]) - start if len(whole) else np.mean(draws) / 100
        score = Interval(float(100 * mean), np.nan, np.nan, int(mine["n"].iloc[0]))
    text = in_points(score)
    if len(whole) and np.isfinite(whole["detail.p_rank"].iloc[0]):
        sets = int(whole["detail.draws"].iloc[0]) + 1
        rank = int(whole["detail.rank"].iloc[0])
        text += f"\nrank {rank} of {sets}, p {whole['detail.p_rank'].iloc[0]:.2g}"
    if draws:
        text += f" ({len(draws)} draws)"
    return Estimate(arm.replace("_", " "), score, arm, draws, text=text)


def _damage(rows: Frame, meter: str) -> list[Estimate]:
    """A line for the set and each control: the meter, and its extreme draws."""
    lines = []
    mine = rows[rows["metric"] == meter]
    for arm in sorted({"value", *NULLS} & set(mine["arm"]), key=order):
        line = mine[mine["arm"] == arm].iloc[0]
        score = Interval(float(line["estimate"]), np.nan, np.nan, int(line["n"]))
        draws = tuple(float(line[end]) for end in BOUNDS if np.isfinite(line[end]))
        text = _short(score.estimate)
        lines.append(Estimate(arm.replace("_", " "), score, arm, draws, text=text))
    return lines


def _short(number: float) -> str:
    """Three figures."""
    return f"{number:.3g}".replace("-", "−") if np.isfinite(number) else "–"


def dose(results: Any, *, site: str | None = None, place: str = "all") -> Picture:
    """Accuracy while a set is steered down and up (R14), beside its matched sets and the damage;
    and while more and more neurons of the ranking are steered.

    Parameters
    ----------
    results : Results, DataFrame or sequence of Row
        Of one model and task.
    site : str or None, default None
        Which, such as "2.resid_post"; None where there is one.
    place : {"all", "early", "late"}
        Positions that are steered.

    Returns
    -------
    Picture

    Raises
    ------
    MechRewardError
        No such rows, or rows of several models, tasks or sites.
    """
    rows = at_one(some(frame_of(results), "R14", "change", "kl", "contrast_at_share"), site)
    steered = rows[rows["detail.strength"].notna() & (rows["arm"] != "baseline")]
    require(len(steered) > 0, "no row of R14 has a strength: there is nothing to draw.")
    one_of("place", place, list(steered["detail.place"].dropna().unique()))
    steered = steered[steered["detail.place"] == place]
    panels: list[Panel] = []
    told = []
    xlabel = "strength, standard deviations"
    for arm, controls in STEERED.items():
        for metric, ylabel, times in (
            ("change", "change of accuracy, points", 100.0),
            ("kl", "KL, nats a token", 1.0),
        ):
            part = steered[steered["metric"] == metric]
            lines = _lines(part, (arm, *controls), "detail.strength", times)
            if not lines or lines[0].arm != arm:
                continue
            what = "accuracy" if metric == "change" else "damage"
            still = [Reference(0.0, "as it is")]
            panels.append(Curve(f"{arm} set: {what}", lines, xlabel, ylabel, still))
            if metric == "change":
                low, high = lines[0].y[0], lines[0].y[-1]
                told.append(f"{arm}: {low:+.1f} points steered down, {high:+.1f} up")
    shares = rows[(rows["metric"] == "contrast_at_share") & rows["detail.share"].notna()]
    lines = _lines(shares, ("value", "matched"), "detail.share", 100.0)
    if lines:
        ticks = {float(share): f"{100 * share:.3g}%" for share in lines[0].x}
        curve = Curve(
            "More and more neurons: up minus down",
            lines,
            "share of the site's neurons, best first",
            "accuracy up minus down, points",
            [Reference(0.0, "no difference")],
            ticks,
            logarithmic=True,
        )
        panels.append(curve)
    require(bool(panels), "no row of R14 is of a value or dopamine set: there is nothing to draw.")
    home = f"{where(rows)}, {rows['site'].iloc[0]}"
    caption = (
        f"Steering at {place} positions: change of accuracy on shared problems, paired, in points, "
        "against the strength in standard deviations toward high V-hat or delta. Bands: 95% "
        "intervals of a set's paired change. Controls: the line is the mean over draws, small dots "
        "the lowest and the highest draw. Damage: KL from the model as it is, on clean text. Last, "
        "the same contrast over the share of neurons that is steered by one unit."
    )
    return Picture(
        f"Dose: {home}", panels, caption, f"Dose-response. {'; '.join(told)}.", columns=2
    )


def _lines(rows: Frame, arms: tuple[str, ...], key: str, times: float) -> list[Line]:
    """A line an arm over `key`; of controls the extreme draws as dots."""
    lines = []
    for arm in arms:
        mine = rows[rows["arm"] == arm].sort_values(key)
        if not len(mine):
            continue
        x = mine[key].to_numpy(float)
        y = times * mine["estimate"].to_numpy(float)
        ends = [times * mine[end].to_numpy(float) for end in BOUNDS]
        dots = []
        if mine["detail.sets"].notna().any():
            for end in ends:
                dots += list(zip(x.tolist(), end.tolist(), strict=True))
            ends = [np.full(len(x), np.nan)] * 2
        lines.append(Line(arm.replace("_", " "), x, y, ends[0], ends[1], arm, draws=dots))
    return lines


__all__ = ["ablation", "dose"]
