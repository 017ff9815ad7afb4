"""What a rule returns, and how every rule picks its rows and corrects its p-values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mechreward import stats
from mechreward.experiments.rows import Row


@dataclass(frozen=True)
class Finding:
    """A sentence about rows, and whether what it speaks of holds by its rule.

    Attributes
    ----------
    holds : bool
        True puts the sentence among what was found, False among what was not.
    sentence : str
        The numbers in words, ending with the experiment they come from.
    """

    holds: bool
    sentence: str


def with_detail(rows: Iterable[Row], **wanted: object) -> list[Row]:
    """Rows whose detail holds all of `wanted`."""
    return [row for row in rows if wanted.items() <= row.detail.items()]


def first(rows: Sequence[Row]) -> Row | None:
    """The first of the rows; None of none."""
    return rows[0] if rows else None


def with_holm(rows: Sequence[Row], key: str = "p_mcnemar") -> list[tuple[Row, float]]:
    """Every row with its p-value `detail[key]` after Holm over all of the rows."""
    if not rows:
        return []
    adjusted = stats.holm([row.detail[key] for row in rows])
    return list(zip(rows, adjusted.tolist(), strict=True))
