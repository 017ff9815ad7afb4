"""What value neurons are good for: R7."""

from __future__ import annotations

from mechreward.experiments.rows import Detail, Row, Setting, row_of
from mechreward.probing.activations import Activations
from mechreward.probing.probe import ValueProbe
from mechreward.rollouts.trajectory import Rollouts
from mechreward.uses.confidence import confidence

BEFORE = ("value", "problem_length", "difficulty")  # known before there is an answer


def confidence_at_start(
    probe: ValueProbe,
    acts: Activations,
    runs: Rollouts,
    setting: Setting,
) -> list[Row]:
    """R7: AUROC of the value read-out at s_0, beside what the surface of problem and answer
    gives."""
    rows = []
    for arm, score in confidence(probe, acts, runs).items():
        detail = Detail(known="before" if arm in BEFORE else "after")
        rows.append(row_of(setting, arm, "auroc_s0", score, detail))
    return rows
