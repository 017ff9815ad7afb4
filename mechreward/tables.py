"""The numbers of one home as Markdown tables: what the sentences of `findings` do not say. Nothing is tested here."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from mechreward.probing.probe import CONSTANT
from mechreward.results import Results, Row

NONE = "–"
SCORES = ("spearman", "auroc_s0", "auroc_all", "auroc_last", "auroc_within", "spread")
ARMS = {"baseline": "nothing", "value": "value", "value_apart": "value without dopamine coordinates"}


def numbers(results: Results) -> list[str]:
    """Lines of a folded block with one table for each experiment that left rows; none without any.

    A cell is an estimate with its interval as the row holds it; it says its own n where that differs from the line's.
    Means over draws stand between the lowest and the highest draw. P-values are those of the rows: not corrected.
    """
    tables = [line for make in TABLES for line in make(results)]
    if not tables:
        return []
    note = "P-values in these tables are not corrected for how many there are; those of the sentences above are, where "
    note += "they say so. Intervals are 95%; n counts problems unless a table says otherwise."
    return ["<details><summary>Numbers</summary>", "", note, "", *tables, "</details>", ""]


def _probes(results: Results) -> list[str]:
    rows = [row for row in results.where(experiment="R1") if "target" in row.detail]
    at = _index(rows, lambda row: (*_probe(row), row.metric))
    lines = []
    for site, arm, target, shape in dict.fromkeys(map(_probe, rows)):
        found = [at.get((site, arm, target, shape, metric)) for metric in SCORES]
        n = _n(found)
        cells = [_cell(row, n) for row in found]
        spread = found[-1]
        if spread is not None and spread.estimate < CONSTANT:
            cells[-1] += ", near constant"
        lines.append([site, target if arm == "value" else f"{target}, {_words(arm)}", shape, *cells, str(n)])
    return _table(
        "R1, probes on test. Shuffled: the same probe fitted to targets of other problems. Spread: standard deviation "
        f"of the read-out over that of V-hat; below {CONSTANT} a probe says nearly the same of every state.",
        "at | target | shape | Spearman with V-hat | AUROC of the verdict at s_0 | at every state | at the last | "
        "within a problem | spread | n",
        lines,
    )


def _surfaces(results: Results) -> list[str]:
    rows = [row for row in results.where(experiment="R1") if {"fitted", "beyond"} & set(row.detail)]
    at = _index(rows, lambda row: (row.site, row.arm, row.metric))
    lines = []
    for site in _sites(rows):
        keys = (("surface", "auroc_all"), ("surface_and_value", "auroc_all"), ("value", "increment"))
        found = [at.get((site, *key)) for key in keys]
        n = _n(found)
        lines.append([site, *(_cell(row, n) for row in found), str(n)])
    return _table(
        "R1, AUROC of the verdict at every state from the surface of the answer so far, fitted on validation.",
        "at | surface | surface and read-out | increment | n",
        lines,
    )


def _ablations(results: Results) -> list[str]:
    rows = results.where(experiment="R4")
    at = _index(
        (row for row in rows if "draw" not in row.detail and "on" not in row.detail),
        lambda row: (row.site, row.detail.get("op"), row.arm, row.metric),
    )
    lines = []
    for row in (row for row in rows if (row.arm, row.metric) == ("value", "accuracy")):
        op = row.detail["op"]
        found = [at.get((row.site, None, "baseline", "accuracy")), row]
        found += [at.get((row.site, op, "value", metric)) for metric in ("change", "change_beyond_matched")]
        found += [at.get((row.site, op, arm, "accuracy")) for arm in ("matched", "random", "sink_free_random")]
        lines.append([row.site, op, *(_cell(one, row.n) for one in found), str(row.n)])
    return _table(
        "R4, accuracy without the value neurons and without as many others (mean over sets).",
        "at | ablation | accuracy before | without value | change | change beyond matched | without matched | "
        "without random | without random, no sinks | n",
        lines,
    )


def _rankings(results: Results) -> list[str]:
    rows = [row for row in results.where(experiment="R4") if "shared" in row.detail]
    at = _index(rows, lambda row: (row.site, row.detail["op"], row.arm, row.metric))
    lines = []
    for site, op, arm in dict.fromkeys((row.site, row.detail["op"], row.arm) for row in rows):
        without, gap = (at.get((site, op, arm, metric)) for metric in ("accuracy", "gap"))
        n, detail = _n([without, gap]), (gap or without or rows[0]).detail
        sets = f" ({detail['sets']} sets)" if "sets" in detail else ""
        shared = f"{detail['shared']:g} of {detail['neurons']}"
        lines.append([site, op, _words(arm) + sets, shared, _cell(without, n), _cell(gap, n), _p(gap, "p"), str(n)])
    return _table(
        "R4, other rankings' sets. Gap: accuracy without that set minus accuracy without the value neurons; above 0 "
        "the value neurons matter more.",
        "at | ablation | ranking | shared with value | accuracy without | gap | McNemar p | n",
        lines,
    )


def _elsewhere(results: Results) -> list[str]:
    rows = [row for row in results.where(experiment="R4") if "on" in row.detail]
    at = _index(rows, lambda row: (row.site, row.detail["on"], row.detail.get("op"), row.arm, row.metric))
    lines = []
    for site, on in dict.fromkeys((row.site, row.detail["on"]) for row in rows):
        base = at.get((site, on, None, "baseline", "accuracy_elsewhere"))
        here = [row for row in rows if (row.site, row.detail["on"]) == (site, on)]
        for op in dict.fromkeys(row.detail["op"] for row in here if "op" in row.detail) or [None]:
            own, other = (at.get((site, on, op, arm, "accuracy_elsewhere")) for arm in ("value", "matched"))
            change = at.get((site, on, op, "value", "change_elsewhere"))
            n = _n([base, own, change])
            cells = [_cell(base, n), _cell(own, n), _cell(change, n), _p(change, "p_mcnemar")]
            sets = NONE if other is None else f"{_cell(other, other.n)} ({other.n} sets)"
            lines.append([site, on, op or "not ablated: too little to lose", *cells, sets, str(n)])
    return _table(
        "R4, other tasks. Matched: mean over sets, between the lowest and the highest.",
        "at | task | ablation | accuracy before | without value | change | McNemar p | without matched | n",
        lines,
    )


def _targets(results: Results) -> list[str]:
    rows = results.where(experiment="R5")
    at = _index(rows, lambda row: (row.site, row.arm, row.metric))
    lines = []
    for site, arm in dict.fromkeys((row.site, row.arm) for row in rows):
        accuracy, gap, both = (at.get((site, arm, metric)) for metric in ("accuracy", "gap", "iou"))
        n = _n([accuracy, gap])
        cells = [_cell(accuracy, n), _cell(gap, n), _p(gap, "p_mcnemar")]
        shared = NONE if both is None else _number(both.estimate)
        chance = NONE if both is None else _number(both.detail["expected"])
        lines.append([site, ARMS.get(arm, arm), *cells, shared, chance, _p(both, "p"), str(n)])
    return _table(
        "R5, zeroing the set that each target's probe chose. Gap: accuracy without the terminal set minus accuracy "
        "without this one; above 0 this one matters more.",
        "at | zeroed set of | accuracy without | gap | McNemar p | IoU with the terminal set | chance | its p | n",
        lines,
    )


def _tokens(results: Results) -> list[str]:
    return _table(
        "R6, overlap of the value set with the next-token set of its size; p: hypergeometric, as large or larger.",
        "at | share | neurons | shared | IoU | chance | p | of neurons",
        [
            [
                *(row.site, f"{row.detail['share']:.0%}", str(row.detail["neurons"]), str(row.detail["shared"])),
                *(_number(row.estimate), _number(row.detail["expected"]), _p(row, "p"), str(row.n)),
            ]
            for row in results.where(experiment="R6", metric="iou")
        ],
    )


def _confidence(results: Results) -> list[str]:
    rows = results.where(experiment="R7")
    return _table(
        "R7, AUROC of the verdict: from what is known before the first token, and after the answer.",
        "from | known | AUROC | n",
        [
            [
                f"value read-out at {row.site}, s_0" if row.arm == "value" else _words(row.arm),
                *(row.detail["known"], _cell(row, row.n), str(row.n)),
            ]
            for row in rows
        ],
    )


def _surprise(results: Results) -> list[str]:
    def key(row: Row) -> tuple[str, ...]:
        return row.site, row.detail["fitted"], row.detail["tested"], row.detail.get("z", "the training split")

    rows = [row for row in results.where(experiment="R8", arm="dopamine") if "fitted" in row.detail]
    at = _index(rows, lambda row: (*key(row), row.metric))
    lines = []
    for place in dict.fromkeys(map(key, rows)):
        plain = at.get((*place, "spearman")) or at.get((*place, "spearman_z"))
        fixed = at.get((*place, "spearman_disattenuated"))
        n = _n([plain, fixed])
        reliable = NONE if fixed is None else _number(fixed.detail["reliability"])
        words = (part.replace("|", r"\|") for part in place)
        lines.append([*words, _cell(plain, n), _cell(fixed, n), reliable, str(n)])
    return _table(
        "R8, Spearman of the dopamine read-out with delta. Disattenuated: over the square root of delta's reliability. "
        "Standardised over the response, a neuron sees the future; running, only the steps so far.",
        "at | fitted on | tested on | standardised over | Spearman | disattenuated | reliability of delta | n",
        lines,
    )


def _single(results: Results) -> list[str]:
    rows = [row for row in results.where(experiment="R9") if row.metric != "trace"]
    at = _index(rows, lambda row: (row.site, row.arm, row.metric))
    lines = []
    for site in _sites(rows):
        own = at.get((site, "dopamine", "spearman"))
        most, null = (at.get((site, arm, "max_spearman")) for arm in ("dopamine", "shuffled"))
        named = [NONE, NONE] if own is None else [str(own.detail["neuron"]), _number(own.detail["train"])]
        n = _n([own])
        width = NONE if most is None else f"{_number(most.estimate)} of {most.n}"
        shuffles = NONE if null is None else _cell(null, null.n)
        lines.append([site, *named, _cell(own, n), width, shuffles, _p(most, "p"), str(n)])
    return _table(
        "R9, one neuron chosen on train; and the largest |Spearman| of all on test, with its rank p among the largest "
        "under shuffles (mean, 2.5% to 97.5% of shuffles).",
        "at | neuron | train, absolute | its Spearman on test | largest on test | largest under shuffles | p of the "
        "largest | n",
        lines,
    )


def _below(results: Results) -> list[str]:
    rows = results.where(experiment="R10")
    lines = []
    for site in _sites(rows):
        here = [row for row in rows if row.site == site]
        beyond = next((row for row in here if row.metric == "beyond_matched"), None)
        for arm in dict.fromkeys(row.arm for row in here):
            mine = [row for row in here if row.arm == arm]
            rho, change = ([row for row in mine if row.metric == metric] for metric in ("spearman", "change"))
            zeroed = next((str(row.detail["zeroed"]) for row in mine if "zeroed" in row.detail), NONE)
            n, more, rank = mine[0].n, NONE, NONE
            if arm == "value" and beyond is not None:
                more, d = _cell(beyond, n), beyond.detail
                rank = f"{d['rank']} of {d['draws'] + 1} (p={d['p_rank']:.2g})"
            name = f"matched, {len(rho)} draws" if arm == "matched" else ARMS.get(arm, arm)
            lines.append([site, name, zeroed, *(_drawn(each, arm, n) for each in (rho, change)), more, rank, str(n)])
    return _table(
        "R10, Spearman with delta read off the dopamine neurons while neurons of earlier layers are zeroed. Matched: "
        "mean over draws, between the lowest and the highest.",
        "read at | zeroed | neurons zeroed | Spearman | change | change beyond matched | rank among matched | n",
        lines,
    )


TABLES = (
    *(_probes, _surfaces, _ablations, _rankings, _elsewhere, _targets, _tokens, _confidence),
    *(_surprise, _single, _below),
)


def _table(title: str, header: str, lines: Sequence[Sequence[str]]) -> list[str]:
    if not lines:
        return []
    rule = "|" + " --- |" * len(lines[0])
    return [f"**{title}**", "", f"| {header} |", rule, *(f"| {' | '.join(line)} |" for line in lines), ""]


def _index(rows: Iterable[Row], key: Callable[[Row], Hashable]) -> dict[Hashable, Row]:
    return {key(row): row for row in rows}


def _probe(row: Row) -> tuple[str, str, str, str]:
    return row.site, row.arm, row.detail["target"], row.detail["shape"]


def _sites(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row.site for row in rows))


def _n(rows: Iterable[Row | None]) -> int:
    return next((row.n for row in rows if row is not None), 0)


def _drawn(rows: Sequence[Row], arm: str, n: int) -> str:
    """One row as it is; the draws of a control as their mean between the lowest and the highest."""
    if arm != "matched" or not rows:
        return _cell(rows[0] if rows else None, n)
    each = [row.estimate for row in rows]
    return f"{_number(float(np.mean(each)))} [{_number(min(each))}, {_number(max(each))}]"


def _cell(row: Row | None, n: int) -> str:
    if row is None or np.isnan(row.estimate):
        return NONE
    bounds = "" if np.isnan(row.low) or np.isnan(row.high) else f" [{_number(row.low)}, {_number(row.high)}]"
    return f"{_number(row.estimate)}{bounds}" + ("" if row.n == n else f" n={row.n}")


def _number(value: float) -> str:
    return NONE if np.isnan(value) else f"{round(value, 3) + 0.0:.3f}"  # no -0.000


def _p(row: Row | None, key: str) -> str:
    return NONE if row is None or key not in row.detail else f"{row.detail[key]:.2g}"


def _words(name: str) -> str:
    return name.replace("_", " ")
