"""Both directions (R14): value and dopamine sets steered up and down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.base.progress import tell
from mechreward.causal.effect import CleanText
from mechreward.causal.steering import Push, matched_pushes, own_push, random_pushes
from mechreward.experiments.rows import (
    Detail,
    Row,
    Setting,
    at_site,
    by_meter,
    damage_rows,
    over_draws,
    row_of,
    rows_of,
)
from mechreward.experiments.split import SEEN, Split
from mechreward.experiments.steering_run import (
    BESIDE,
    ArmPlan,
    Cell,
    Trial,
    Where,
    arm_plans,
    run_arm,
)
from mechreward.probing.activations import Activations, Recording, record
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.continuations import Answers
from mechreward.rollouts.trajectory import Rollouts
from mechreward.stats import Interval
from mechreward.tasks import Problem

STRENGTHS = (-3, -2, -1, 1, 2, 3)
PLACES = ("all", "early", "late")


def steering(
    model: Any,
    problems: Sequence[Problem],
    pushes: Sequence[Push],
    setting: Setting,
    *,
    runs: Rollouts,
    tokens: Mapping[str, Activations],
    strengths: Sequence[int | float] = STRENGTHS,
    places: Sequence[str] = PLACES,
    k: int = 4,
    states: int = 24,
    progress: bool | str = False,
) -> list[Row]:
    """R14: steer each set by every strength, up and down, and see what it should move.

    Read-outs, for each arm, strength and place, on shared problems with common random numbers:
    `accuracy`, and its `change` against strength 0 (paired); `back`, the share of answers that turn
    back; the damage meter (parse, end and truncation rate, length; at all positions KL on clean
    text and the norm of the change as well); and `value`, V-hat of the continuation from states in
    the middle of clean answers, steered from their last token on. `early` and `late` are the
    positions before and behind the middle of a clean answer (median). `contrast` is accuracy under
    each strength minus that under its opposite. The baseline's `detectable_drop` is what so many
    problems can show (`stats.detectable_effect`).

    The rows of arms of several draws, which have one displacement with the set they stand for, are
    means over them, between the lowest and the highest: matched sets over the first `CURVE`; random
    ones, and V-hat, KL and the norm of the change of both, at the middle strength alone. Where the
    contrast of the set itself is told from 0 (McNemar, p <= `SEEN`, not corrected), at any strength
    and place, all draws are run there and the contrast of the matched sets holds its `p_rank`: a
    set that moves nothing needs no more controls to be told so (our choice).

    Args:
        pushes: the directions (`causal.steering`); pushes of one arm are draws of it, a set before
            its draws.
        runs: clean rollouts, for states and for the damage meter.
        tokens: their activations at every token, by site, for the norm of the change.
        strengths: in units of a push (default -3 to 3).
        places: positions that sets are steered at (default all, early, late).
        k: continuations of each state (default 4).
        states: at most so many (default 24).
        progress: whether bars are shown, or their title (default False).
    """
    trial = Trial.of(model, problems, runs, setting["seed"], k, states, progress)
    base = trial.answers([()])[0]
    see = stats.detectable_effect(len(problems), float(base.reward.mean()))
    tell(
        progress,
        "steering",
        f"accuracy {base.reward.mean():.2f}; "
        f"with n={len(problems)} problems {stats.can_see(see, 'change')}",
    )
    rows = _baseline_rows(trial, base, see, setting)
    text = CleanText(model, runs)
    contrasts: dict[str, dict[Where, Contrast]] = {}  # of sets, by arm
    for plan in arm_plans(pushes, strengths, places):
        here = at_site(setting, plan.site)
        cells = run_arm(plan, trial, text, tokens[plan.site])
        if plan.is_set:
            for where, cell in cells.items():
                rows += _set_rows(plan, where, cell, base, trial, here)
            contrasts[plan.arm] = _set_contrasts(cells, trial)
            rows += _set_contrast_rows(plan, contrasts[plan.arm], here)
        else:
            for where, cell in cells.items():
                rows += _draws_rows(plan, where, cell, base, here)
            of_the_set = contrasts.get(BESIDE.get(plan.arm, ""), {})
            rows += _draws_contrast_rows(plan, cells, of_the_set, trial, here)
    return rows


def steering_arms(
    model: Any,
    train: Split,
    value: NeuronSet,
    dopamine: NeuronSet,
    draws: int = 19,
    randoms: int = 3,
    seed: int = 0,
) -> tuple[list[Push], Recording]:
    """R14's arms: `value` toward V-hat and `dopamine` toward delta, by one standard deviation of
    each neuron over the training split's states or steps; beside each, `draws` sets matched in rms
    (`matched`, `matched_dopamine`), and `randoms` beside the value neurons, all at the displacement
    of the set they stand for. Also the activations at every token of the training rollouts, at both
    sites."""
    tokens = record(
        model, train.runs, list({value.site, dopamine.site}), rows="tokens", progress=False
    )
    at_value = tokens[str(value.site)]
    states = train.at_states[str(value.site)]
    push = own_push(value, states, train.toward)
    pushes = [push]
    pushes += matched_pushes(push, at_value, states, train.toward, draws, seed)
    pushes += random_pushes(push, at_value, states, train.toward, randoms, seed)

    steps = train.over_steps[str(dopamine.site)]
    delta = train.values.delta[train.values.is_step]
    push = own_push(dopamine, steps, delta, "dopamine")
    pushes.append(push)
    for control in matched_pushes(push, tokens[str(dopamine.site)], steps, delta, draws, seed):
        pushes.append(replace(control, arm="matched_dopamine"))
    return pushes, tokens


@dataclass(frozen=True)
class Contrast:
    """Accuracy of a set steered up minus down, with its exact p."""

    gap: Interval
    p: float


def _baseline_rows(trial: Trial, base: Answers, see: float, setting: Setting) -> list[Row]:
    """The model as it is."""
    detail = Detail(strength=0, detectable_drop=see)
    rows = _outcome_rows(setting, "baseline", base, base, trial, detail)
    value = _mean_value(trial.onward([None])[0], trial)
    rows.append(row_of(setting, "baseline", "value", value, Detail(strength=0, k=trial.k)))
    return rows


def _outcome_rows(
    setting: Setting,
    arm: str,
    answers: Answers,
    base: Answers,
    trial: Trial,
    detail: Detail,
) -> list[Row]:
    """Accuracy, its change, the share that turns back, and the damage; `answers` [problem]."""
    n = len(answers.reward)
    numbers = {
        "accuracy": stats.proportion(int(answers.reward.sum()), n),
        "change": _gap(answers, base, trial),
        "back": stats.proportion(int(answers.back.sum()), n),
    }
    rows = rows_of(setting, arm, numbers, detail)
    return rows + damage_rows(setting, arm, answers.damage(base), n, detail)


def _set_rows(
    plan: ArmPlan,
    where: Where,
    cell: Cell,
    base: Answers,
    trial: Trial,
    setting: Setting,
) -> list[Row]:
    """A set at one strength and place."""
    detail = plan.detail(where)
    rows = _outcome_rows(setting, plan.arm, cell.answers[0], base, trial, detail)
    for meters in cell.meters:
        rows += damage_rows(setting, plan.arm, meters, 0, detail)
    for values in cell.values:
        value = _mean_value(values, trial)
        rows.append(row_of(setting, plan.arm, "value", value, detail | Detail(k=trial.k)))
    return rows


def _draws_rows(
    plan: ArmPlan,
    where: Where,
    cell: Cell,
    base: Answers,
    setting: Setting,
) -> list[Row]:
    """The draws of a control at one strength and place: means between the lowest and the
    highest."""
    accuracy = cell.answers.reward.mean(1)
    numbers = {
        "accuracy": accuracy.tolist(),
        "change": (accuracy - base.reward.mean()).tolist(),
        "back": cell.answers.back.mean(1).tolist(),
    }
    if len(cell.values):
        numbers["value"] = [float(values.mean()) for values in cell.values]
    draws = range(len(plan.tried))
    numbers |= by_meter([cell.answers[draw].damage(base) for draw in draws])
    numbers |= by_meter(cell.meters)
    detail = plan.detail(where)
    detail["sets"] = len(plan.tried)
    detail["interval"] = "lowest and highest draw"
    rows = []
    for metric, values in numbers.items():
        rows.append(row_of(setting, plan.arm, metric, over_draws(values), detail))
    return rows


def _set_contrasts(cells: Mapping[Where, Cell], trial: Trial) -> dict[Where, Contrast]:
    """The contrast of a set at every place and size of strength."""
    contrasts = {}
    for where, (up, down) in _opposed(cells).items():
        p = stats.mcnemar(down.reward[0], up.reward[0])
        contrasts[where] = Contrast(_gap(up[0], down[0], trial), p)
    return contrasts


def _set_contrast_rows(
    plan: ArmPlan,
    contrasts: Mapping[Where, Contrast],
    setting: Setting,
) -> list[Row]:
    rows = []
    for (place, strength), contrast in contrasts.items():
        detail = Detail(strength=strength, place=place, sets=1, p_mcnemar=contrast.p)
        rows.append(row_of(setting, plan.arm, "contrast", contrast.gap, detail))
    return rows


def _draws_contrast_rows(
    plan: ArmPlan,
    cells: Mapping[Where, Cell],
    of_the_set: Mapping[Where, Contrast],
    trial: Trial,
    setting: Setting,
) -> list[Row]:
    """The contrasts of a control's draws: of all of them, with the rank of the set, where the set
    has a contrast; else of those that were tried."""
    draws = {where: _contrasts(up, down) for where, (up, down) in _opposed(cells).items()}
    seen = {}
    for where, contrast in of_the_set.items():
        if contrast.p <= SEEN:
            place, strength = where
            every = trial.steered(plan.draws, (-strength, strength), place)
            draws[where] = _contrasts(every[strength], every[-strength])
            seen[where] = contrast.gap.estimate
    error = float(np.mean([push.error for push in plan.draws]))
    rows = []
    for where, values in draws.items():
        place, strength = where
        detail = Detail(strength=strength, place=place, sets=len(values))
        if where in seen:
            detail["p_rank"] = stats.rank_among(seen[where], np.array(values), tail="high")[1]
        detail["rms_match_error"] = error
        rows.append(row_of(setting, plan.arm, "contrast", over_draws(values), detail))
    return rows


def _opposed(cells: Mapping[Where, Cell]) -> dict[Where, tuple[Answers, Answers]]:
    """Answers steered up and down, for every strength that has its opposite."""
    pairs = {}
    for (place, strength), cell in cells.items():
        opposite = cells.get((place, -strength))
        if strength > 0 and opposite is not None:
            pairs[place, strength] = (cell.answers, opposite.answers)
    return pairs


def _contrasts(up: Answers, down: Answers) -> list[float]:
    """Accuracy steered up minus down, for each draw."""
    return (up.reward - down.reward).mean(1).tolist()


def _gap(answers: Answers, base: Answers, trial: Trial) -> Interval:
    """Accuracy beyond that of other answers to the same problems, [problem] both."""
    return stats.paired_difference(answers.reward, base.reward, trial.ids, seed=trial.seed)


def _mean_value(values: np.ndarray, trial: Trial) -> Interval:
    """Mean V-hat of the states in the middle."""
    return stats.cluster_bootstrap(np.mean, values, trial.owners, seed=trial.seed, span=(0, 1))
