"""What happens without them: R4, R5, R13."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.causal.effect import Effect
from mechreward.causal.intervene import zero
from mechreward.paper.split import bare
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.transfer import overlap
from mechreward.results import Row, rows_from
from mechreward.rollouts.sample import sample_arms
from mechreward.stats import Interval
from mechreward.tasks import Problem


def R4(effect: Effect, about: dict[str, Any]) -> list[Row]:
    """Causal: the ablation beside every control, with paired tests and the damage meter."""
    n = len(effect.problems)
    base = stats.proportion(int(effect.baseline.outcomes.sum()), n)
    rows = rows_from(about, [("baseline", "accuracy", base, {"detectable_drop": effect.power()})])
    rows += _damage(about, "baseline", effect.baseline.damage, n, {})
    for op in effect.ops:
        s = effect.summary(op)
        tests = {key: s[key] for key in ("rank", "draws", "p_rank", "p_mcnemar", "match_error", "matched")}
        own = effect.draws("value", op)[0]
        rows += rows_from(
            about,
            [
                ("value", "accuracy", s["accuracy"], {"op": op, "neurons": len(effect.neurons)} | tests),
                ("value", "change", s["change"], {"op": op}),
                ("value", "change_beyond_matched", s["beyond_matched"], {"op": op}),
            ],
        )
        rows += _damage(about, "value", own.damage, n, {"op": op})
        for name in ("matched", "random", "sink_free_random"):
            arms = effect.draws(name, op)
            mean = np.mean([arm.outcomes for arm in arms], axis=0)
            over = stats.cluster_bootstrap(np.mean, mean, np.array(effect.problems), seed=about["seed"])
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


def R5(
    model: Any,
    problems: Sequence[Problem],
    sets: Mapping[str, NeuronSet],
    about: dict[str, Any],
    what: str | None = None,
) -> list[Row]:
    """The target matters: zero the set that each target's probe chose, on shared problems with shared random numbers.

    `sets` by target, of one site and size. `gap` is accuracy without the `terminal` set minus accuracy without the
    other's (the paper's Appendix A has -8.8 against -38 points): above 0, the other's neurons matter more. The
    overlap of each set with the terminal one stands beside it.
    """
    names = list(sets)
    arms = [(), *((zero(sets[name]).check(model).edit(),) for name in names)]
    runs = sample_arms(model, problems, arms, seed=about["seed"], what=what)
    outcomes = {name: np.array(found.rewards) for name, found in zip(("baseline", *names), runs, strict=True)}
    ids, n = np.array([run.problem_id for run in runs[0]]), len(runs[0])
    rows = []
    for name, right in outcomes.items():
        detail = {} if name == "baseline" else {"op": "zero", "neurons": len(sets[name])}
        rows += rows_from(about, [(name, "accuracy", stats.proportion(int(right.sum()), n), detail)])
    for name in names:
        if name == "terminal":
            continue
        gap = stats.paired_difference(outcomes["terminal"], outcomes[name], ids, seed=about["seed"])
        p = stats.mcnemar(outcomes["terminal"], outcomes[name])
        rows += rows_from(about, [(name, "gap", gap, {"beyond": "terminal", "p_mcnemar": p})])
        both = overlap(sets[name], sets["terminal"])
        detail = {"with": "terminal", "shared": both.shared, "expected": both.expected, "p": both.p}
        rows += rows_from(about, [(name, "iou", bare(both.iou, both.width), detail)])
    return rows


def R13(R2_rows: Sequence[Row], R4_rows: Sequence[Row]) -> list[Row]:
    """MLP neurons: what R2 and R4 gave at an `mlp` site, under this experiment's own name."""
    return [
        Row(**{**vars(row), "experiment": "R13", "detail": row.detail | {"as": row.experiment}})
        for row in (*R2_rows, *R4_rows)
    ]


def _damage(about: dict[str, Any], arm: str, damage: dict[str, float], n: int, detail: dict[str, Any]) -> list[Row]:
    """The damage meter has no interval: it is a meter of one set on these problems."""
    return rows_from(about, [(arm, key, bare(value, n), detail) for key, value in damage.items()])
