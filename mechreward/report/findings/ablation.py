"""From the rows of ablations (R4, R10) to sentences, by the rules of `findings`, and what these
sentences share."""

from __future__ import annotations

import numpy as np

from mechreward import stats
from mechreward.experiments.rows import Results, Row
from mechreward.report.findings.td_error import _depends
from mechreward.report.select import RANKED, kind_of, of, of_matched
from mechreward.report.words import bounds, cite, few, span


def ablated(results: Results) -> list[tuple[bool, str]]:
    """R4: one sentence for each operation and kind of neuron."""
    rows = results.where(experiment="R4", arm="value", metric="accuracy")
    if not rows:
        return []
    adjusted = stats.holm(np.array([row.detail["p_mcnemar"] for row in rows]))
    told = []
    for row, p in zip(rows, adjusted, strict=True):
        d = row.detail
        change = next(
            r
            for r in results.where(experiment="R4", arm="value", metric="change", site=row.site)
            if r.detail["op"] == d["op"]
        )
        good = p < 0.05 and d["rank"] == 1 and d["draws"] >= RANKED and d["matched"]
        match = (
            "" if d["matched"] else f"; the controls do not match (error {d['match_error']:.2f})"
        )
        told.append(
            (
                bool(good),
                f"{d['op'].capitalize()} ablation of {d['neurons']} value neurons at {row.site} changes accuracy by "
                f"{change.interval}; McNemar p={p:.3g} after Holm over {len(rows)} ablations; rank {d['rank']} of "
                f"{d['draws'] + 1} among matched sets (p={d['p_rank']:.2g}, not corrected for {len(rows)} "
                f"ablations){few(d['draws'])}{match}{_unread(results, row)} ({cite(results, 'R4', kind_of(row))}).",
            )
        )
    return told


def _unread(results: Results, ablated: Row) -> str:
    """What an ablation is about where the clean probe does not read V-hat; nothing where it does,
    or is not there."""
    for row in results.where(experiment="R1", arm="value", metric="spearman", site=ablated.site):
        mc = row.detail.get("target") == "mc" and row.detail.get("shape") == "mlp"
        if mc and not row.low > 0:
            return (
                f"; V-hat is not shown to be readable there (Spearman {row.interval}), so this is about these "
                "neurons, not about value"
            )
    return ""


def _rankings(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = [
        row for row in of(results.where(experiment="R4", metric="gap"), kind) if "p" in row.detail
    ]
    if not rows:
        return []
    p = stats.holm(np.array([row.detail["p"] for row in rows]))
    zeroed = [
        (row, value) for row, value in zip(rows, p, strict=True) if row.detail["op"] == "zero"
    ]
    good = all(row.estimate > 0 and value < 0.05 for row, value in zeroed)
    said = "; ".join(
        f"{row.arm.replace('_', ' ')} {bounds(row)} (p={value:.2g})" for row, value in zeroed
    )
    words = (
        "costs more accuracy than zeroing"
        if good
        else "is not shown to cost more accuracy than zeroing each of"
    )
    return [
        (
            good,
            f"Zeroing the value neurons ({name}) {words} as many of other rankings: {said}; McNemar, Holm over "
            f"{len(rows)} ({cite(results, 'R4', kind)}).",
        )
    ]


def _elsewhere(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = of(results.where(experiment="R4", arm="value", metric="change_elsewhere"), kind)
    if not rows:
        return []
    p = stats.holm(np.array([row.detail["p_mcnemar"] for row in rows]))
    said, good, seen, sets = [], False, [], []
    for row, value in zip(rows, p, strict=True):
        beside = results.where(experiment="R4", metric="accuracy_elsewhere", site=row.site)
        same = {
            one.arm: one
            for one in beside
            if one.detail.get("op") == row.detail["op"] and _on(one) == _on(row)
        }
        own, other = same["value"], same["matched"]
        lower = bool(value < 0.05 and own.estimate < other.low)
        good = good or (lower and other.detail["sets"] >= RANKED)
        seen += [_on(row)] if lower else []
        sets += [other.detail["sets"]] if lower else []
        said.append(
            f"{_on(row)}, {row.detail['op']} {bounds(row)} (p={value:.2g}) to {own.estimate:.2f} [{own.low:.2f}, "
            f"{own.high:.2f}], {other.detail['sets']} matched sets to {span(other)}"
        )
    words = "is felt" if good else "is not shown to be felt"
    low = ""
    if seen and not good:
        low = f"; lower, and below each matched set, on {', '.join(dict.fromkeys(seen))}{few(min(sets))}"
    low = "; the rank is not corrected for tasks" if good else low
    return [
        (
            good,
            f"Ablating the value neurons ({name}) {words} on other tasks: {'; '.join(said)}; Holm{low} "
            f"({cite(results, 'R4', kind)}).",
        )
    ]


def _on(row: Row) -> str:
    return row.detail["on"]


def _repaired(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = of(results.where(experiment="R4", arm="value", metric="restored"), kind)
    if not rows:
        return []
    last = max(int(row.detail["at"].partition(".")[0]) for row in rows)
    rows = [row for row in rows if row.detail["at"].startswith(f"{last}.")]
    beside = [of_matched(results, row, "restored", "at") for row in rows]
    p = stats.holm(np.array([_rank_p(row, other) for row, other in zip(rows, beside, strict=True)]))
    said = []
    for row, other in zip(rows, beside, strict=True):
        sets = f", {other.detail['sets']} matched sets up to {other.high:.2f}" if other else ""
        rank = (
            f" (rank p={other.detail['p_rank']:.2g})" if other and "p_rank" in other.detail else ""
        )
        said.append(f"{row.site} {row.estimate:.2f} [{row.low:.2f}, {row.high:.2f}]{sets}{rank}")
    good = bool(p.min() <= 0.05)
    return [
        (
            good,
            f"Self-repair: the part that layer {last} has undone of what zeroing the value {name} of an earlier layer "
            f"takes from the read-out of V-hat, by layer: {'; '.join(said)}; {'' if good else 'not '}shown to be above "
            f"0 and above matched sets: smallest rank p={p.min():.2g} after Holm over {len(rows)} layers "
            f"({cite(results, 'R4', kind)}).",
        )
    ]


def _rank_p(row: Row, other: Row | None) -> float:
    """Rank p of what lies above 0 among its matched sets; 1 where it does not, or was not
    ranked."""
    return other.detail.get("p_rank", 1.0) if other and row.low > 0 else 1.0


CAUSAL = (_rankings, _elsewhere, _repaired, _depends)
