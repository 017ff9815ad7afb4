"""The probe's target matters: R5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.causal.intervene import zero
from mechreward.experiments.rows import Detail, Row, Setting, bare, row_of
from mechreward.models.policy import Policy
from mechreward.models.row_edits import Edit
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.overlap import overlap
from mechreward.rollouts.continuations import answer_arms
from mechreward.tasks import Problem

TERMINAL = "terminal"  # the target that all others are held against


def targets(
    model: Any,
    problems: Sequence[Problem],
    sets: Mapping[str, NeuronSet],
    setting: Setting,
    progress: bool | str = False,
    policy: Policy | None = None,
) -> list[Row]:
    """R5: zero the set that each target's probe chose, on shared problems with shared random
    numbers.

    `gap` is accuracy without the `terminal` set minus accuracy without the other's (the paper's
    Appendix A has -8.8 against -38 points): above 0, the other's neurons matter more. The overlap
    of each set with the terminal one stands beside it.

    Args:
        sets: by target, of one site and size.
        progress: whether bars are shown, or their title (default False).
        policy: how answers are drawn (default the model's own distribution).
    """
    seed = setting["seed"]
    arms: list[tuple[Edit, ...]] = [()]
    for neurons in sets.values():
        change = zero(neurons).check(model)
        arms.append((change.edit(),))
    reward = answer_arms(model, problems, arms, seed, policy, progress).reward
    outcomes = dict(zip(("baseline", *sets), reward, strict=True))

    rows = []
    for name, right in outcomes.items():
        accuracy = stats.proportion(int(right.sum()), len(right))
        detail = Detail()
        if name in sets:
            detail = Detail(op="zero", neurons=len(sets[name]))
        rows.append(row_of(setting, name, "accuracy", accuracy, detail))
    ids = np.array([problem.id for problem in problems])
    for name, neurons in sets.items():
        if name == TERMINAL:
            continue
        terminal = outcomes[TERMINAL]
        gap = stats.paired_difference(terminal, outcomes[name], ids, seed=seed)
        p = stats.mcnemar(terminal, outcomes[name])
        detail = Detail(beyond=TERMINAL, p_mcnemar=p)
        rows.append(row_of(setting, name, "gap", gap, detail))
        rows.append(_overlap_row(setting, name, neurons, sets[TERMINAL]))
    return rows


def _overlap_row(
    setting: Setting,
    name: str,
    neurons: NeuronSet,
    terminal: NeuronSet,
) -> Row:
    """The overlap of a target's set with the terminal one."""
    both = overlap(neurons, terminal)
    detail = Detail(
        {
            "with": TERMINAL,
            "shared": both.shared,
            "expected": both.expected,
            "p": both.p,
        }
    )
    return row_of(setting, name, "iou", bare(both.iou, both.width), detail)
