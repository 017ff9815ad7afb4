"""The probe's target matters: R5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.causal.intervene import zero
from mechreward.experiments.rows import Row, rows_from
from mechreward.experiments.split import bare
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.overlap import overlap
from mechreward.rollouts.sample import sample_arms
from mechreward.tasks import Problem


def R5(
    model: Any,
    problems: Sequence[Problem],
    sets: Mapping[str, NeuronSet],
    about: dict[str, Any],
    what: str | None = None,
) -> list[Row]:
    """The target matters: zero the set that each target's probe chose, on shared problems with
    shared random numbers.

    `sets` by target, of one site and size. `gap` is accuracy without the `terminal` set minus
    accuracy without the other's (the paper's Appendix A has -8.8 against -38 points): above 0, the
    other's neurons matter more. The overlap of each set with the terminal one stands beside it.
    """
    names = list(sets)
    arms = [(), *((zero(sets[name]).check(model).edit(),) for name in names)]
    runs = sample_arms(model, problems, arms, seed=about["seed"], what=what)
    outcomes = {
        name: np.array(found.rewards)
        for name, found in zip(("baseline", *names), runs, strict=True)
    }
    ids, n = np.array([run.problem_id for run in runs[0]]), len(runs[0])
    rows = []
    for name, right in outcomes.items():
        detail = {} if name == "baseline" else {"op": "zero", "neurons": len(sets[name])}
        rows += rows_from(
            about, [(name, "accuracy", stats.proportion(int(right.sum()), n), detail)]
        )
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
