"""Rules about the probe's target: which reads V-hat best (R1), whose neurons cost more (R5).

Two read-outs are told apart only where their 95% intervals do not meet. Both are measured on the
same problems, so that this is stricter than a test of their difference: "not told apart" does not
say equal.
"""

from __future__ import annotations

from itertools import combinations

from mechreward.experiments.rows import Results
from mechreward.report.findings.finding import Finding, with_detail, with_holm
from mechreward.report.select import LEVEL, apart, of
from mechreward.report.words import bounds

TD = ("td", "td over tokens")  # of R5's targets those that a sentence is written about


def compared(results: Results, kind: str, name: str) -> list[Finding]:
    """R1: Spearman with V-hat of the paper's net by target, all pairs."""
    rows = of(results.where(experiment="R1", arm="value", metric="spearman"), kind)
    rows = with_detail(rows, shape="mlp")
    if len(rows) < 2:
        return []

    pairs = list(combinations(rows, 2))
    above = []
    for a, b in pairs:
        side = apart(a, b)
        if side > 0:
            above.append(f"{a.detail['target']} above {b.detail['target']}")
        elif side < 0:
            above.append(f"{b.detail['target']} above {a.detail['target']}")
    holds = bool(above)

    scores = ", ".join(f"{row.detail['target']} {bounds(row)}" for row in rows)
    if holds:
        told_apart = (
            f"told apart (intervals do not meet): {', '.join(above)}; of {len(pairs)} pairs"
        )
    else:
        told_apart = f"none of {len(pairs)} pairs is told apart (their intervals meet)"
    sentence = (
        f"Spearman with V-hat by target, from {name} at {rows[0].site}: {scores}; "
        f"{told_apart} (R1)."
    )
    return [Finding(holds, sentence)]


def matters(results: Results, kind: str, name: str) -> list[Finding]:
    """R5: accuracy without the neurons of a TD target beside those of the terminal target."""
    rows = of(results.where(experiment="R5", metric="gap"), kind)
    findings = []
    for row, p in with_holm(rows):
        target = row.arm.replace("_", " ")
        if target not in TD:
            continue

        holds = p < LEVEL and row.estimate > 0

        is_lower = "is lower" if holds else "is not shown to be lower"
        sentence = (
            f"Accuracy without the {name} of the {target} target {is_lower} than without those "
            f"of the terminal target: difference {row.interval}, McNemar p={p:.2g} after Holm (R5)."
        )
        findings.append(Finding(holds, sentence))
    return findings
