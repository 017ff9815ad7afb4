"""Sentences that set two read-outs beside each other: targets (R1), the paper's cut and its z-scores (R8).

Two are told apart only where their 95% intervals do not meet. Both are measured on the same problems, so that this is
stricter than a test of their difference: "not told apart" does not say equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from mechreward.findings_causal import bounds, kind_of, of
from mechreward.results import Results, Row

UNCUT = "all steps"


def apart(a: Row, b: Row) -> int:
    """1 where the interval of `a` lies above that of `b`, -1 where below, 0 where they meet or one is missing."""
    return 1 if a.low > b.high else -1 if a.high < b.low else 0


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
    said = f"told apart (intervals do not meet): {above}; of {count} pairs" if pairs else f"none of {count} pairs is"
    said += "" if pairs else " told apart (their intervals meet)"
    return [(bool(pairs), f"Spearman with V-hat by target, from {name} at {rows[0].site}: {each}; {said} (R1).")]


def _target(row: Row) -> str:
    return row.detail["target"]


def _cut(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    """R8: fitted and tested with the paper's cut, and without it."""
    rows = _steps(results, kind, "spearman")
    cut = next((row for row in rows if UNCUT not in (row.detail["fitted"], row.detail["tested"])), None)
    plain = next((row for row in rows if row.detail["fitted"] == row.detail["tested"] == UNCUT), None)
    if cut is None or plain is None:
        return []
    mixed = next((row for row in rows if row.detail["fitted"] != UNCUT == row.detail["tested"]), None)
    also = f"; fitted with the cut but tested without it: {mixed.interval}" if mixed else ""
    side = {1: "higher with the cut", -1: "lower with the cut", 0: "not told apart"}[apart(cut, plain)]
    return [
        (
            side != "not told apart",
            f"With the paper's cut ({cut.detail['fitted']}, fitted and tested), Spearman with delta from {name} at "
            f"{cut.site} is {cut.interval}, without it {plain.interval}{also}: {side} (R8).",
        )
    ]


def _future(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    """R8: standardised over the whole response, which holds the future, and over what has been said so far."""
    rows = [row for row in _steps(results, kind, "spearman_z") if row.detail["tested"] == UNCUT]
    ways = {row.detail["z"]: row for row in rows}
    if not {"response", "running"} <= set(ways):
        return []
    whole, running = ways["response"], ways["running"]
    plain = [row for row in _steps(results, kind, "spearman") if row.detail["fitted"] == row.detail["tested"] == UNCUT]
    also = "".join(f", on the training split, which sees no future either, {row.interval}" for row in plain)
    above = apart(whole, running) > 0
    leak = above and all(apart(whole, row) > 0 for row in plain)
    side = "higher with the future in it: a leak, which no online reader has" if leak else "not told apart"
    if above and not leak:
        side = "higher than running, where the first step of an answer is 0 by construction; not told from the other"
    return [
        (
            leak,
            f"Standardised over the whole response, as in the paper, Spearman with delta from {name} at {whole.site} "
            f"is {whole.interval}, over no more than what has been said so far {running.interval}{also}: {side} (R8).",
        )
    ]


def _steps(results: Results, kind: str, metric: str) -> Sequence[Row]:
    """R8's rows that say what they were fitted and tested on."""
    rows = results.where(experiment="R8", arm="dopamine", metric=metric)
    return [row for row in rows if kind_of(row) == kind and {"fitted", "tested"} <= set(row.detail)]


COMPARED = (_targets, _cut, _future)
