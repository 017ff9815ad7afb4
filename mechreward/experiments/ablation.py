"""What happens without them: R4, R5, R13."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.causal.effect import Effect
from mechreward.experiments.rows import Row, rows_from
from mechreward.experiments.split import bare
from mechreward.stats import Interval


def R4(effect: Effect, about: dict[str, Any]) -> list[Row]:
    """Causal: the ablation beside every control, with paired tests and the damage meter."""
    n = len(effect.problems)
    base = stats.proportion(int(effect.baseline.outcomes.sum()), n)
    rows = rows_from(about, [("baseline", "accuracy", base, {"detectable_drop": effect.power()})])
    rows += _damage(about, "baseline", effect.baseline.damage, n, {})
    for op in effect.ops:
        s = effect.summary(op)
        tests = {
            key: s[key]
            for key in ("rank", "draws", "p_rank", "p_mcnemar", "match_error", "matched")
        }
        own = effect.draws("value", op)[0]
        rows += rows_from(
            about,
            [
                (
                    "value",
                    "accuracy",
                    s["accuracy"],
                    {"op": op, "neurons": len(effect.neurons)} | tests,
                ),
                ("value", "change", s["change"], {"op": op}),
                ("value", "change_beyond_matched", s["beyond_matched"], {"op": op}),
            ],
        )
        rows += _damage(about, "value", own.damage, n, {"op": op})
        for name in ("matched", "random", "sink_free_random"):
            arms = effect.draws(name, op)
            mean = np.mean([arm.outcomes for arm in arms], axis=0)
            over = stats.cluster_bootstrap(
                np.mean, mean, np.array(effect.problems), seed=about["seed"]
            )
            rows += rows_from(about, [(name, "accuracy", over, {"op": op, "sets": len(arms)})])
            for arm in arms:
                one = stats.proportion(int(arm.outcomes.sum()), n)
                rows += rows_from(about, [(name, "accuracy", one, {"op": op, "draw": arm.draw})])
            for key in own.damage:
                each = np.array([arm.damage[key] for arm in arms])
                spread = Interval(float(each.mean()), float(each.min()), float(each.max()), n)
                detail = {"op": op, "sets": len(arms), "interval": "lowest and highest draw"}
                rows += rows_from(about, [(name, key, spread, detail)])
    return rows


def R13(R2_rows: Sequence[Row], R4_rows: Sequence[Row]) -> list[Row]:
    """MLP neurons: what R2 and R4 gave at an `mlp` site, under this experiment's own name."""
    return [
        Row(**{**vars(row), "experiment": "R13", "detail": row.detail | {"as": row.experiment}})
        for row in (*R2_rows, *R4_rows)
    ]


def _damage(
    about: dict[str, Any], arm: str, damage: dict[str, float], n: int, detail: dict[str, Any]
) -> list[Row]:
    """The damage meter has no interval: it is a meter of one set on these problems."""
    return rows_from(about, [(arm, key, bare(value, n), detail) for key, value in damage.items()])
