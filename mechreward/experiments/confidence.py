"""What value neurons are good for: R7."""

from __future__ import annotations

from typing import Any

from mechreward.experiments.rows import Row, rows_from
from mechreward.probing.probe import ValueProbe
from mechreward.rollouts.trajectory import Rollouts
from mechreward.uses.confidence import confidence


def R7(probe: ValueProbe, acts: Any, runs: Rollouts, about: dict[str, Any]) -> list[Row]:
    """Confidence: AUROC of the value read-out at s_0, beside what the surface of problem and answer
    gives."""
    scores = confidence(probe, acts, runs)
    known = {"value": "before", "problem_length": "before", "difficulty": "before"}
    numbers = [
        (arm, "auroc_s0", score, {"known": known.get(arm, "after")})
        for arm, score in scores.items()
    ]
    return rows_from(about, numbers)
