"""What happens without them: R4, and what R2 and R4 say of MLP neurons: R13."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mechreward import stats
from mechreward.causal.effect import Arm, Effect
from mechreward.experiments.rows import (
    Detail,
    Row,
    Setting,
    by_meter,
    damage_rows,
    over_draws,
    row_of,
)
from mechreward.stats import Interval

CONTROLS = ("matched", "random", "sink_free_random")


def ablation(effect: Effect, setting: Setting) -> list[Row]:
    """R4: the ablation beside every control, with paired tests and the damage meter."""
    n = len(effect.problems)
    detail = Detail(detectable_drop=effect.power())
    rows = [row_of(setting, "baseline", "accuracy", _accuracy(effect.baseline), detail)]
    rows += damage_rows(setting, "baseline", effect.baseline.damage, n)
    for op in effect.ops:
        rows += _set_rows(effect, op, setting)
        for control in CONTROLS:
            rows += _control_rows(effect, op, control, setting)
    return rows


def mlp_neurons(pruning_rows: Sequence[Row], ablation_rows: Sequence[Row]) -> list[Row]:
    """R13: what R2 and R4 gave at an `mlp` site, under this experiment's own name."""
    rows = []
    for row in (*pruning_rows, *ablation_rows):
        detail = row.detail | Detail({"as": row.experiment})
        rows.append(replace(row, experiment="R13", detail=detail))
    return rows


def _set_rows(effect: Effect, op: str, setting: Setting) -> list[Row]:
    """The set itself under one operation."""
    summary = effect.summary(op)
    (arm,) = effect.draws("value", op)
    tests = Detail(
        op=op,
        neurons=len(effect.neurons),
        rank=summary["rank"],
        draws=summary["draws"],
        p_rank=summary["p_rank"],
        p_mcnemar=summary["p_mcnemar"],
        match_error=summary["match_error"],
        matched=summary["matched"],
    )
    detail = Detail(op=op)
    beyond = summary["beyond_matched"]
    return [
        row_of(setting, "value", "accuracy", summary["accuracy"], tests),
        row_of(setting, "value", "change", summary["change"], detail),
        row_of(setting, "value", "change_beyond_matched", beyond, detail),
        *damage_rows(setting, "value", arm.damage, len(effect.problems), detail),
    ]


def _control_rows(effect: Effect, op: str, control: str, setting: Setting) -> list[Row]:
    """One kind of control set: the mean over its draws, every draw, and their damage."""
    arms = effect.draws(control, op)
    problems = np.array(effect.problems)
    mean = np.mean([arm.outcomes for arm in arms], axis=0)
    accuracy = stats.cluster_bootstrap(np.mean, mean, problems, seed=setting["seed"], span=(0, 1))
    detail = Detail(op=op, sets=len(arms))
    rows = [row_of(setting, control, "accuracy", accuracy, detail)]
    for arm in arms:
        drawn = Detail(op=op, draw=arm.draw)
        rows.append(row_of(setting, control, "accuracy", _accuracy(arm), drawn))
    detail = detail | Detail(interval="lowest and highest draw")
    damage = by_meter([arm.damage for arm in arms])
    for meter, values in damage.items():
        spread = replace(over_draws(values), n=len(problems))
        rows.append(row_of(setting, control, meter, spread, detail))
    return rows


def _accuracy(arm: Arm) -> Interval:
    return stats.proportion(int(arm.outcomes.sum()), len(arm.outcomes))
