"""The numbers of one home as Markdown tables: what the sentences of `findings` do not say. Nothing
is tested here."""

from __future__ import annotations

from collections.abc import Sequence

from mechreward.experiments.rows import Results, Row
from mechreward.probing.probe import CONSTANT
from mechreward.report.select import index, shared_n, sites
from mechreward.report.tables_causal import TABLES as CAUSAL
from mechreward.report.words import NONE, cell, number, p_value, table, words

SCORES = ("spearman", "auroc_s0", "auroc_all", "auroc_last", "auroc_within", "spread")


def numbers(results: Results) -> list[str]:
    """Lines of a folded block with one table for each experiment that left rows; none without any.

    A cell is an estimate with its interval as the row holds it; it says its own n where that
    differs from the line's. Means over draws stand between the lowest and the highest draw.
    P-values are those of the rows: not corrected.
    """
    tables = [line for make in TABLES for line in make(results)]
    if not tables:
        return []
    note = "P-values in these tables are not corrected for how many there are; those of the sentences above are, where "
    note += "they say so. Intervals are 95%; n counts problems unless a table says otherwise."
    return ["<details><summary>Numbers</summary>", "", note, "", *tables, "</details>", ""]


def _probes(results: Results) -> list[str]:
    rows = [row for row in results.where(experiment="R1") if "target" in row.detail]
    at = index(rows, lambda row: (*_probe(row), row.metric))
    lines = []
    for site, arm, target, shape in dict.fromkeys(map(_probe, rows)):
        found = [at.get((site, arm, target, shape, metric)) for metric in SCORES]
        n = shared_n(found)
        cells = [cell(row, n) for row in found]
        spread = found[-1]
        if spread is not None and spread.estimate < CONSTANT:
            cells[-1] += ", near constant"
        lines.append(
            [site, target if arm == "value" else f"{target}, {words(arm)}", shape, *cells, str(n)]
        )
    return table(
        "R1, probes on test. Shuffled: the same probe fitted to targets of other problems; same length: of other "
        "answers of equal length, which shows what length and step tell. Spread: standard deviation of the read-out "
        f"over that of V-hat; below {CONSTANT} a probe says nearly the same of every state.",
        "at | target | shape | Spearman with V-hat | AUROC of the verdict at s_0 | at every state | at the last | "
        "within a problem | spread | n",
        lines,
    )


def _surfaces(results: Results) -> list[str]:
    rows = [row for row in results.where(experiment="R1") if {"fitted", "beyond"} & set(row.detail)]
    at = index(rows, lambda row: (row.site, row.arm, row.metric))
    lines = []
    for site in sites(rows):
        keys = (
            ("surface", "auroc_all"),
            ("surface_and_value", "auroc_all"),
            ("value", "increment"),
        )
        found = [at.get((site, *key)) for key in keys]
        n = shared_n(found)
        lines.append([site, *(cell(row, n) for row in found), str(n)])
    return table(
        "R1, AUROC of the verdict at every state from the surface of the answer so far, fitted on validation.",
        "at | surface | surface and read-out | increment | n",
        lines,
    )


def _grid(results: Results) -> list[str]:
    rows = results.where(experiment="R3", metric="spearman")
    shares = sorted({row.detail["share"] for row in rows}, reverse=True)
    at = index(rows, lambda row: (row.site, row.detail.get("split"), row.detail["share"]))
    lines = []
    for site, split in dict.fromkeys((row.site, row.detail.get("split")) for row in rows):
        found = [at.get((site, split, share)) for share in shares]
        n = shared_n(found)
        lines.append([site, split or "validation", *(_tested(row, n) for row in found), str(n)])
    return table(
        "R3, Spearman with V-hat at every site, by the share of neurons; on test with p after Holm over the grid.",
        " | ".join(
            ["at", "split", *("all" if share == 1 else f"top {share:.0%}" for share in shares), "n"]
        ),
        lines,
    )


def _tested(row: Row | None, n: int) -> str:
    return cell(row, n) + (
        "" if row is None or "p_holm" not in row.detail else f" p={p_value(row, 'p_holm')}"
    )


def transfers(rows: Sequence[Row]) -> list[str]:
    """R12 at one site, folded: every transfer with its intervals, as the matrices have no room for
    them."""
    at = index(rows, lambda row: (*_homes(row), row.arm, row.metric))
    lines = []
    for source, goal in dict.fromkeys(map(_homes, rows)):
        iou = at.get((source, goal, "value", "iou"))
        cells = [f"{source} in {goal}", cell(iou, shared_n([iou]))]
        cells += [NONE if iou is None else number(iou.detail["expected"]), p_value(iou, "p")]
        for metric in ("iou", "spearman", "auroc_all"):
            own, other = (at.get((source, goal, arm, metric)) for arm in ("value", "matched"))
            unmatched = other is not None and other.detail.get("is_matched") is False
            beside = cell(other, shared_n([other])) + (" unmatched" if unmatched else "")
            cells += (
                [beside, p_value(other, "p")]
                if metric == "iou"
                else [cell(own, shared_n([own])), beside]
            )
        lines.append([*cells, str(shared_n([at.get((source, goal, "value", "spearman"))]))])
    made = table(
        "R12, every transfer. Matched: mean over sets, between the lowest and the highest. An IoU has no sampling "
        "interval. Chance of any neurons is hypergeometric; chance of neurons as large is that of the home where the "
        "set is used, its mean with 2.5% to 97.5% of its law; p of an overlap so large or larger, not corrected.",
        "set of, used in | IoU | chance, any neurons | p | chance, as large | p | Spearman with V-hat | matched | "
        "AUROC of the verdict | matched | n",
        lines,
    )
    return ["<details><summary>Numbers</summary>", "", *made, "</details>", ""] if made else []


def _homes(row: Row) -> tuple[str, str]:
    return f"{row.detail['from_model']} {row.detail['from_task']}", f"{row.model} {row.task}"


def _tokens(results: Results) -> list[str]:
    return table(
        "R6, overlap of the value set with the next-token set of its size; p: hypergeometric, as large or larger.",
        "at | share | neurons | shared | IoU | chance | p | of neurons",
        [
            [
                *(
                    row.site,
                    f"{row.detail['share']:.0%}",
                    str(row.detail["neurons"]),
                    str(row.detail["shared"]),
                ),
                *(
                    number(row.estimate),
                    number(row.detail["expected"]),
                    p_value(row, "p"),
                    str(row.n),
                ),
            ]
            for row in results.where(experiment="R6", metric="iou")
        ],
    )


def _confidence(results: Results) -> list[str]:
    rows = results.where(experiment="R7")
    return table(
        "R7, AUROC of the verdict: from what is known before the first token, and after the answer.",
        "from | known | AUROC | n",
        [
            [
                f"value read-out at {row.site}, s_0" if row.arm == "value" else words(row.arm),
                *(row.detail["known"], cell(row, row.n), str(row.n)),
            ]
            for row in rows
        ],
    )


def _surprise(results: Results) -> list[str]:
    def key(row: Row) -> tuple[str, ...]:
        return (
            row.site,
            row.detail["fitted"],
            row.detail["tested"],
            row.detail.get("z", "the training split"),
        )

    rows = [row for row in results.where(experiment="R8", arm="dopamine") if "fitted" in row.detail]
    at = index(rows, lambda row: (*key(row), row.metric))
    lines = []
    for place in dict.fromkeys(map(key, rows)):
        plain = at.get((*place, "spearman")) or at.get((*place, "spearman_z"))
        fixed = at.get((*place, "spearman_disattenuated"))
        n = shared_n([plain, fixed])
        reliable = NONE if fixed is None else number(fixed.detail["reliability"])
        parts = (part.replace("|", r"\|") for part in place)
        lines.append([*parts, cell(plain, n), cell(fixed, n), reliable, str(n)])
    return table(
        "R8, Spearman of the dopamine read-out with delta. Disattenuated: over the square root of delta's reliability. "
        "Standardised over the response, a neuron sees the future; running, only what has been said so far.",
        "at | fitted on | tested on | standardised over | Spearman | disattenuated | reliability of delta | n",
        lines,
    )


def _single(results: Results) -> list[str]:
    rows = [row for row in results.where(experiment="R9") if row.metric != "trace"]
    at = index(rows, lambda row: (row.site, row.arm, row.metric))
    lines = []
    for site in sites(rows):
        own = at.get((site, "dopamine", "spearman"))
        most, null = (at.get((site, arm, "max_spearman")) for arm in ("dopamine", "shuffled"))
        named = (
            [NONE, NONE]
            if own is None
            else [str(own.detail["neuron"]), number(own.detail["train"])]
        )
        n = shared_n([own])
        width = NONE if most is None else f"{number(most.estimate)} of {most.n}"
        shuffles = NONE if null is None else cell(null, null.n)
        lines.append([site, *named, cell(own, n), width, shuffles, p_value(most, "p"), str(n)])
    return table(
        "R9, one neuron chosen on train; and the largest |Spearman| of all on test, with its rank p among the largest "
        "under shuffles among answers of equal length (mean, 2.5% to 97.5% of shuffles).",
        "at | neuron | train, absolute | its Spearman on test | largest on test | largest under shuffles | p of the "
        "largest | n",
        lines,
    )


TABLES = (_probes, _surfaces, _grid, _tokens, _confidence, _surprise, _single, *CAUSAL)


def _probe(row: Row) -> tuple[str, str, str, str]:
    return row.site, row.arm, row.detail["target"], row.detail["shape"]
