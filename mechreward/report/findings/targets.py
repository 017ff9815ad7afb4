"""Sentences that set two read-outs beside each other: targets (R1), the paper's cut and its
z-scores (R8).

Two are told apart only where their 95% intervals do not meet. Both are measured on the same
problems, so that this is stricter than a test of their difference: "not told apart" does not say
equal.
"""

from __future__ import annotations

from itertools import combinations

from mechreward.experiments.rows import Results, Row
from mechreward.report.select import apart, of
from mechreward.report.words import bounds


def _targets(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    """R1: Spearman with V-hat of the paper's net by target, all pairs."""
    rows = of(results.where(experiment="R1", arm="value", metric="spearman"), kind)
    rows = [row for row in rows if row.detail.get("shape") == "mlp"]
    if len(rows) < 2:
        return []
    pairs = [(a, b) if apart(a, b) > 0 else (b, a) for a, b in combinations(rows, 2) if apart(a, b)]
    each = ", ".join(f"{row.detail['target']} {bounds(row)}" for row in rows)
    above = ", ".join(f"{_target(a)} above {_target(b)}" for a, b in pairs)
    count = len(rows) * (len(rows) - 1) // 2
    said = (
        f"told apart (intervals do not meet): {above}; of {count} pairs"
        if pairs
        else f"none of {count} pairs is"
    )
    said += "" if pairs else " told apart (their intervals meet)"
    return [
        (
            bool(pairs),
            f"Spearman with V-hat by target, from {name} at {rows[0].site}: {each}; {said} (R1).",
        )
    ]


def _target(row: Row) -> str:
    return row.detail["target"]
