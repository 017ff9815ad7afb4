"""From rows to sentences: what was found and what was not. Every sentence follows from a rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mechreward import stats
from mechreward.experiments.rows import Results, Row
from mechreward.report.select import RANKED, curve_rows, held, kind_of
from mechreward.report.words import WORDS, bounds, cite

RANKINGS = (
    "magnitude",
    "mean_difference",
    "correlation",
    "l1_penalised",
    "gradient_x_activation",
    "td_over_tokens",
)


def _readable(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    told = []
    rows = [row for row in results.where(experiment="R1", arm="value") if kind_of(row) == kind]
    if not rows:
        return []
    paper_like = [
        row for row in rows if row.detail.get("target") == "mc" and row.detail.get("shape") == "mlp"
    ]
    for metric, words, chance in (
        ("spearman", "V-hat is readable: Spearman", 0.0),
        ("auroc_s0", "The final verdict is readable at s_0: AUROC", 0.5),
        ("auroc_last", "The final verdict is readable at the last state: AUROC", 0.5),
        ("auroc_within", "The final verdict is readable among answers to one problem: AUROC", 0.5),
    ):
        row = next((row for row in paper_like if row.metric == metric), None)
        if row is None or np.isnan(row.estimate):
            continue
        good = row.low > chance
        phrase = words if good else words.replace("is readable", "is not shown to be readable")
        told.append((good, f"{phrase} {row.interval}, from {name} at {row.site} (R1)."))
    return told + _learnt(results, paper_like, name)


def _learnt(results: Results, trained: Sequence[Row], name: str) -> list[tuple[bool, str]]:
    """Does a model of random weights show as much of V-hat?"""
    told = []
    for row in (row for row in trained if row.metric == "spearman"):
        others = results.where(
            experiment="R1", arm="random_weights", metric="spearman", site=row.site
        )
        for other in (other for other in others if other.detail["shape"] == row.detail["shape"]):
            good = row.low > other.high
            words = "more" if good else "not shown to be more"
            told.append(
                (
                    good,
                    f"What {name} at {row.site} show of V-hat (Spearman {row.interval}) is {words} than a model of "
                    f"random weights shows when it reads the same answers ({other.interval}; R1).",
                )
            )
    return told


def _sparse(
    results: Results, experiment: str, kind: str, name: str, arm: str
) -> list[tuple[bool, str]]:
    rows = [
        row
        for row in results.where(experiment=experiment, metric="spearman")
        if kind_of(row) == kind
    ]
    rows = curve_rows(rows, "mlp")
    if not rows:
        return []
    few = max(row.detail["ratio"] for row in rows)
    here = [row for row in rows if row.detail["ratio"] == few]
    own = next(row for row in here if row.arm == arm)
    nulls = [row for row in here if row.arm in ("random", "rotated")]
    nobody = max(nulls, key=lambda row: row.estimate)
    draws = min([sum(row.arm == null for row in nulls) for null in {row.arm for row in nulls}])
    full = next(row for row in rows if row.arm == arm and row.detail["ratio"] == 0.0)
    above = own.low > nobody.estimate
    words = "Sparser than chance" if above else "No sparser than chance"
    if above and draws < RANKED:
        words = f"Above {draws} draws of every null, too few to call it sparser than chance ({RANKED} are needed)"
    text = (
        f"{own.detail['neurons']} of the {name} at {own.site} read {'delta' if arm == 'dopamine' else 'V-hat'} with "
        f"Spearman {own.interval}; all together {bounds(full)}, the best random subset or basis of that size "
        f"{bounds(nobody)}"
    )
    other = ", ".join(
        f"{row.arm.replace('_', ' ')} {bounds(row)}" for row in here if row.arm in RANKINGS
    )
    text += f"; the best by other rankings: {other}" if other else ""
    told = [(above and draws >= RANKED, f"{words}: {text} ({cite(results, experiment, kind)}).")]
    for row in results.where(experiment=experiment, metric="sparsity"):
        if kind_of(row) == kind:
            told.append(_evidence(results, row, name))
    return told


def _evidence(results: Results, row: Row, name: str) -> tuple[bool, str]:
    d = row.detail
    beyond = "is not defined" if np.isnan(row.estimate) else str(row.interval)
    full, few = (
        bounds(same) if (same := held(results, row, d[key])) else f"{d[key]:.3f}"
        for key in ("full", "few")
    )
    return d["reading"] == "sparse", (
        f"A linear probe calls V-hat in {name} at {row.site} {WORDS[d['reading']]}: all read it with Spearman "
        f"{full} (p={d['p']:.2g} among shuffles), the {d['neurons']} that correlate best with {few}, as many random "
        f"ones on average {d['random']:.3f}, the best {d['neurons']} coordinates of random bases on average "
        f"{d['rotated']:.3f}; sparsity beyond redundancy {beyond} ({cite(results, 'R2', kind_of(row))})."
    )


def _surface(results: Results) -> list[tuple[bool, str]]:
    rows = [row for row in results.where(experiment="R7") if row.detail["known"] == "before"]
    if not rows:
        return []
    own = next(row for row in rows if row.arm == "value")
    best = max((row for row in rows if row.arm != "value"), key=lambda row: row.estimate)
    good = own.low > best.estimate
    words = "knows more than" if good else "is not shown to know more than"
    return [
        (
            good,
            f"Before the first token the value read-out (AUROC {own.interval}) {words} "
            f"{best.arm.replace('_', ' ')} ({best.interval}) (R7).",
        )
    ]


def _adds(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = [
        row for row in results.where(experiment="R1", metric="increment") if kind_of(row) == kind
    ]
    return [
        (
            row.low > 0,
            f"The read-out of {name} at {row.site} adds {row.interval} to the AUROC that the surface of the answer so "
            f"far (length, difficulty, position, entropy, log-probability) gives at every state (R1).",
        )
        for row in rows
    ]


def _target(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = [row for row in results.where(experiment="R5", metric="gap") if kind_of(row) == kind]
    if not rows:
        return []
    p = stats.holm([row.detail["p_mcnemar"] for row in rows])
    told = []
    for row, value in zip(rows, p, strict=True):
        good = bool(value < 0.05 and row.estimate > 0)
        words, target = (
            "is lower" if good else "is not shown to be lower",
            row.arm.replace("_", " "),
        )
        text = (
            f"Accuracy without the {name} of the {target} target {words} than without those of the terminal target: "
            f"difference {row.interval}, McNemar p={value:.2g} after Holm (R5)."
        )
        told += [(good, text)] if target in ("td", "td over tokens") else []
    return told


def _token(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = [row for row in results.where(experiment="R6") if kind_of(row) == kind]
    if not rows:
        return []
    p = stats.holm([row.detail["p"] for row in rows])
    said = "; ".join(
        f"top {row.detail['share']:.0%}: IoU {row.estimate:.2f}, chance {row.detail['expected']:.2f}, p={value:.2g}"
        for row, value in zip(rows, p, strict=True)
    )
    good = bool((p <= 0.05).any())
    words = "overlap" if good else "are not shown to overlap"
    return [
        (
            good,
            f"Value sets of {name} {words} more than chance with next-token sets ({said}; Holm; R6).",
        )
    ]
