"""Rules about V-hat: is it readable, learnt, sparse, beyond the surface (R1, R2, R6, R7)?"""

from __future__ import annotations

from collections import Counter

import numpy as np

from mechreward.experiments.rows import Results, Row
from mechreward.report.findings.finding import Finding, first, with_detail, with_holm
from mechreward.report.select import LEVEL, RANKED, curve_rows, held, kind_of, of
from mechreward.report.words import WORDS, bounds, cite

# Metric of R1: what is said of it, and what it is by chance.
READ = {
    "spearman": ("V-hat {is_readable}: Spearman", 0.0),
    "auroc_s0": ("The final verdict {is_readable} at s_0: AUROC", 0.5),
    "auroc_last": ("The final verdict {is_readable} at the last state: AUROC", 0.5),
    "auroc_within": ("The final verdict {is_readable} among answers to one problem: AUROC", 0.5),
}
RANKINGS = (
    "magnitude",
    "mean_difference",
    "correlation",
    "l1_penalised",
    "gradient_x_activation",
    "td_over_tokens",
)
NULLS = ("random", "rotated")


def readable(results: Results, kind: str, name: str) -> list[Finding]:
    """R1: V-hat and the final verdict, read by the paper's net from all neurons."""
    findings = []
    for metric, (template, chance) in READ.items():
        rows = of(results.where(experiment="R1", arm="value", metric=metric), kind)
        row = first(with_detail(rows, target="mc", shape="mlp"))
        if row is None or np.isnan(row.estimate):
            continue

        holds = row.low > chance

        is_readable = "is readable" if holds else "is not shown to be readable"
        score = template.format(is_readable=is_readable)
        sentence = f"{score} {row.interval}, from {name} at {row.site} (R1)."
        findings.append(Finding(holds, sentence))
    return findings


def learnt(results: Results, kind: str, name: str) -> list[Finding]:
    """R1: does a model of random weights show as much of V-hat to the same net?"""
    findings = []
    trained = of(results.where(experiment="R1", arm="value", metric="spearman"), kind)
    for row in with_detail(trained, target="mc", shape="mlp"):
        untrained = results.where(
            experiment="R1", arm="random_weights", metric="spearman", site=row.site
        )
        for other in with_detail(untrained, shape="mlp"):
            holds = row.low > other.high

            more = "more" if holds else "not shown to be more"
            sentence = (
                f"What {name} at {row.site} show of V-hat (Spearman {row.interval}) is {more} "
                "than a model of random weights shows when it reads the same answers "
                f"({other.interval}; R1)."
            )
            findings.append(Finding(holds, sentence))
    return findings


def sparse_value(results: Results, kind: str, name: str) -> list[Finding]:
    """R2: the few neurons left at the smallest share, for V-hat."""
    return sparse(results, "R2", "value", "V-hat", kind, name)


def sparse(
    results: Results, experiment: str, arm: str, target: str, kind: str, name: str
) -> list[Finding]:
    """A pruning curve at its smallest share beside every random subset and basis.

    Parameters
    ----------
    experiment, arm, target : str
        Where the curve is (R2 or R8), the arm of the set that is spoken of, what it reads.
    """
    rows = curve_rows(of(results.where(experiment=experiment, metric="spearman"), kind), "mlp")
    if not rows:
        return []
    curve = [row for row in rows if row.arm == arm]
    most_pruned = max(row.detail["ratio"] for row in rows)
    whole = with_detail(curve, ratio=0.0)[0]
    few = with_detail(curve, ratio=most_pruned)[0]
    beside = with_detail(rows, ratio=most_pruned)
    nulls = [row for row in beside if row.arm in NULLS]
    best_null = max(nulls, key=lambda row: row.estimate)
    draws = min(Counter(row.arm for row in nulls).values())

    above = few.low > best_null.estimate
    holds = above and draws >= RANKED

    if holds:
        verdict = "Sparser than chance"
    elif above:
        verdict = (
            f"Above {draws} draws of every null, too few to call it sparser than chance "
            f"({RANKED} are needed)"
        )
    else:
        verdict = "No sparser than chance"
    sentence = (
        f"{verdict}: {few.detail['neurons']} of the {name} at {few.site} read {target} with "
        f"Spearman {few.interval}; all together {bounds(whole)}, the best random subset or basis "
        f"of that size {bounds(best_null)}{_other_rankings(beside)} "
        f"({cite(results, experiment, kind)})."
    )
    return [Finding(holds, sentence)]


def _other_rankings(rows: list[Row]) -> str:
    """What the best neurons by other rankings read; nothing where there are none."""
    scores = []
    for row in rows:
        if row.arm in RANKINGS:
            scores.append(f"{row.arm.replace('_', ' ')} {bounds(row)}")
    return f"; the best by other rankings: {', '.join(scores)}" if scores else ""


def evidence(results: Results, kind: str, name: str) -> list[Finding]:
    """R2: what a linear probe calls V-hat, and by which numbers."""
    findings = []
    for row in of(results.where(experiment="R2", metric="sparsity"), kind):
        detail = row.detail
        holds = detail["reading"] == "sparse"

        sparsity = "is not defined" if np.isnan(row.estimate) else str(row.interval)
        sentence = (
            f"A linear probe calls V-hat in {name} at {row.site} {WORDS[detail['reading']]}: "
            f"step, position and prompt length alone read it with Spearman "
            f"{detail['told']:.3f}; beyond them all neurons {_score(results, row, 'full')} "
            f"(p={detail['p']:.2g}), the {detail['neurons']} chosen alone "
            f"with {_score(results, row, 'few')}, as many random ones on average "
            f"{detail['random']:.3f}, the best {detail['neurons']} coordinates of random bases on "
            f"average {detail['rotated']:.3f}; sparsity beyond redundancy {sparsity} "
            f"({cite(results, 'R2', kind_of(row))})."
        )
        findings.append(Finding(holds, sentence))
    return findings


def _score(results: Results, row: Row, key: str) -> str:
    """A score of the evidence with its interval, if there is a row of it."""
    score = row.detail[key]
    point = held(results, row, score)
    return f"{score:.3f}" if point is None else bounds(point)


def surface(results: Results) -> list[Finding]:
    """R7: the value read-out before the first token beside the best surface baseline."""
    rows = with_detail(results.where(experiment="R7", metric="auroc_s0"), known="before")
    if not rows:
        return []
    value = next(row for row in rows if row.arm == "value")
    # Rows of older runs name no role, and no baseline that another split has chosen.
    baselines = []
    for row in rows:
        if row.arm != "value" and row.detail.get("role", "surface") == "surface":
            baselines.append(row)
    chosen = [row for row in baselines if row.arm == value.detail.get("best")]
    best = first(chosen) or max(baselines, key=lambda row: row.estimate)
    beyond = first(results.where(experiment="R7", metric="increment_s0", arm="value"))

    holds = value.low > best.estimate if beyond is None else beyond.low > 0

    knows_more = "knows more than" if holds else "is not shown to know more than"
    paired = "" if beyond is None else f"; paired difference {beyond.interval}"
    sentence = (
        f"Before the first token the value read-out (AUROC {value.interval}) {knows_more} "
        f"{best.arm.replace('_', ' ')} ({best.interval}{paired}{_among_matched(value)}) (R7)."
    )
    return [Finding(holds, sentence)]


def _among_matched(value: Row) -> str:
    """Its rank among sets of neurons as large, where they were read too."""
    if "rank" not in value.detail:
        return ""
    rank, sets = value.detail["rank"], value.detail["sets"]
    return f"; rank {rank} of {sets + 1} with sets of neurons as large"


def adds(results: Results, kind: str, name: str) -> list[Finding]:
    """R1: what the read-out adds to the surface at every state."""
    findings = []
    for row in of(results.where(experiment="R1", metric="increment"), kind):
        holds = row.low > 0

        sentence = (
            f"The read-out of {name} at {row.site} adds {row.interval} to the AUROC that the "
            "surface of the answer so far (length, difficulty, position, entropy, "
            "log-probability) gives at every state (R1)."
        )
        findings.append(Finding(holds, sentence))
    return findings


def next_token(results: Results, kind: str, name: str) -> list[Finding]:
    """R6: the value sets' overlap with next-token sets of the same sizes."""
    rows = of(results.where(experiment="R6"), kind)
    if not rows:
        return []

    overlaps = with_holm(rows, "p")
    smallest = min(p for _, p in overlaps)
    holds = smallest <= LEVEL

    shares = []
    for row, p in overlaps:
        shares.append(
            f"top {row.detail['share']:.0%}: IoU {row.estimate:.2f}, "
            f"chance {row.detail['expected']:.2f}, p={p:.2g}"
        )
    overlap = "overlap" if holds else "are not shown to overlap"
    sentence = (
        f"Value sets of {name} {overlap} more than chance with next-token sets "
        f"({'; '.join(shares)}; Holm; R6)."
    )
    return [Finding(holds, sentence)]
