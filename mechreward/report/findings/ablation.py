"""Rules about ablated value neurons (R4): accuracy here and on other tasks, beside other rankings,
and self-repair."""

from __future__ import annotations

from mechreward import stats
from mechreward.experiments.rows import Results, Row
from mechreward.report.findings.finding import Finding, with_detail, with_holm
from mechreward.report.select import LEVEL, RANKED, kind_of, of, of_matched
from mechreward.report.words import bounds, cite, few, span


def ablated(results: Results) -> list[Finding]:
    """R4: a sentence for each operation and kind of neuron."""
    rows = results.where(experiment="R4", arm="value", metric="accuracy")
    findings = []
    for row, p in with_holm(rows):
        detail = row.detail
        rank = detail["rank"]
        draws = detail["draws"]
        changes = results.where(experiment="R4", arm="value", metric="change", site=row.site)
        change = with_detail(changes, op=detail["op"])[0]

        holds = costs_more(row, p)

        match = ""
        if not detail["matched"]:
            match = f"; the controls do not match (error {detail['match_error']:.2f})"
        sentence = (
            f"{detail['op'].capitalize()} ablation of {detail['neurons']} value neurons at "
            f"{row.site} changes accuracy by {change.interval}; McNemar p={p:.3g} after Holm over "
            f"{len(rows)} ablations; rank {rank} of {draws + 1} among matched sets "
            f"(p={detail['p_rank']:.2g}, not corrected for {len(rows)} ablations){few(draws)}"
            f"{match}{_not_about_value(results, row)} ({cite(results, 'R4', kind_of(row))})."
        )
        findings.append(Finding(holds, sentence))
    return findings


def costs_more(row: Row, p: float) -> bool:
    """Whether an ablation changes accuracy, p after Holm, and lies below every matched draw."""
    detail = row.detail
    is_first = detail["rank"] == 1 and detail["draws"] >= RANKED
    return bool(p < LEVEL and is_first and detail["matched"])


def _not_about_value(results: Results, ablation: Row) -> str:
    """What an ablation is about where the clean probe does not read V-hat; nothing where it does,
    or is not there."""
    read_outs = results.where(experiment="R1", arm="value", metric="spearman", site=ablation.site)
    for row in with_detail(read_outs, target="mc", shape="mlp"):
        if not row.low > 0:  # a missing bound shows nothing
            return (
                f"; V-hat is not shown to be readable there (Spearman {row.interval}), so this is "
                "about these neurons, not about value"
            )
    return ""


def by_layer(results: Results, kind: str, name: str) -> list[Finding]:
    """The paper's Table 2, of every layer that was looked at."""
    every = results.where(experiment="ablation_by_layer", arm="value", metric="accuracy")
    rows = of(every, kind)
    if not rows:
        return []

    told = []
    lower = []
    for row in rows:
        detail = row.detail
        layer = row.site.partition(".")[0]
        change = results.where(
            experiment="ablation_by_layer", arm="value", metric="change", site=row.site
        )[0]
        first = detail["rank"] == 1 and detail["draws"] >= RANKED and detail["matched"]
        if detail["p_holm"] < LEVEL and first and change.estimate < 0:
            lower.append(layer)
        told.append(
            f"{layer}: {change.interval} (p={detail['p_holm']:.2g}, rank {detail['rank']} of "
            f"{detail['draws'] + 1})"
        )

    shown = f"at {', '.join(lower)}" if lower else "at none of these layers"
    sentence = (
        f"Zeroing the top 1% {name} costs more accuracy than every set matched in rms {shown}. "
        f"Change of accuracy by layer, with McNemar's p after Holm over "
        f"{len(every)} layers and kinds, and the rank among matched sets: "
        f"{'; '.join(told)} ({cite(results, 'ablation_by_layer', kind)})."
    )
    return [Finding(bool(lower), sentence)]


def rankings(results: Results, kind: str, name: str) -> list[Finding]:
    """R4: zeroing the value neurons beside zeroing as many of every other ranking."""
    rows = of(results.where(experiment="R4", metric="gap"), kind)
    tested = [row for row in rows if "p" in row.detail]
    if not tested:
        return []

    holds = True
    gaps = []
    for row, p in with_holm(tested, "p"):
        if row.detail["op"] == "zero":
            holds = holds and row.estimate > 0 and p < LEVEL
            gaps.append(f"{row.arm.replace('_', ' ')} {bounds(row)} (p={p:.2g})")

    costs_more = (
        "costs more accuracy than zeroing"
        if holds
        else "is not shown to cost more accuracy than zeroing each of"
    )
    sentence = (
        f"Zeroing the value neurons ({name}) {costs_more} as many of other rankings: "
        f"{'; '.join(gaps)}; McNemar, Holm over {len(tested)} ({cite(results, 'R4', kind)})."
    )
    return [Finding(holds, sentence)]


def elsewhere(results: Results, kind: str, name: str) -> list[Finding]:
    """R4: accuracy on other tasks, each ablation beside its matched sets."""
    rows = of(results.where(experiment="R4", arm="value", metric="change_elsewhere"), kind)
    if not rows:
        return []

    holds = False
    changes = []
    lower_tasks = []
    lower_sets = []
    for row, p in with_holm(rows):
        task = row.detail["on"]
        op = row.detail["op"]
        accuracy, matched = _accuracy_elsewhere(results, row)
        sets = matched.detail["sets"]
        lower = p < LEVEL and accuracy.estimate < matched.low
        if lower:
            holds = holds or sets >= RANKED
            lower_tasks.append(task)
            lower_sets.append(sets)
        changes.append(
            f"{task}, {op} {bounds(row)} (p={p:.2g}) to {accuracy.estimate:.2f} "
            f"[{accuracy.low:.2f}, {accuracy.high:.2f}], {sets} matched sets to {span(matched)}"
        )

    is_felt = "is felt" if holds else "is not shown to be felt"
    caveat = ""
    if holds:
        caveat = "; the rank is not corrected for tasks"
    elif lower_tasks:
        tasks = ", ".join(dict.fromkeys(lower_tasks))
        caveat = f"; lower, and below each matched set, on {tasks}{few(min(lower_sets))}"
    sentence = (
        f"Ablating the value neurons ({name}) {is_felt} on other tasks: {'; '.join(changes)}; "
        f"Holm{caveat} ({cite(results, 'R4', kind)})."
    )
    return [Finding(holds, sentence)]


def _accuracy_elsewhere(results: Results, change: Row) -> tuple[Row, Row]:
    """Accuracy on another task after the ablation that made a change, and after that of its matched
    sets."""
    task = change.detail["on"]
    op = change.detail["op"]
    after = results.where(experiment="R4", metric="accuracy_elsewhere", site=change.site)
    rows = {row.arm: row for row in with_detail(after, on=task, op=op)}
    return rows["value"], rows["matched"]


def repaired(results: Results, kind: str, name: str) -> list[Finding]:
    """R4: what the last layer has undone of what zeroing an earlier layer takes from V-hat."""
    rows = of(results.where(experiment="R4", arm="value", metric="restored"), kind)
    if not rows:
        return []
    last = max(_layer(row) for row in rows)
    rows = [row for row in rows if _layer(row) == last]

    p_values = []
    parts = []
    for row in rows:
        matched = of_matched(results, row, "restored", "at")
        p_values.append(_rank_p(row, matched))
        part = f"{row.site} {row.estimate:.2f} [{row.low:.2f}, {row.high:.2f}]"
        parts.append(f"{part}{_up_to(matched)}")
    smallest = stats.holm(p_values).min()
    holds = bool(smallest <= LEVEL)

    shown = "shown" if holds else "not shown"
    sentence = (
        f"Self-repair: the part that layer {last} has undone of what zeroing the value {name} of "
        f"an earlier layer takes from the read-out of V-hat, by layer: {'; '.join(parts)}; {shown} "
        f"to be above 0 and above matched sets: smallest rank p={smallest:.2g} after Holm over "
        f"{len(rows)} layers ({cite(results, 'R4', kind)})."
    )
    return [Finding(holds, sentence)]


def _layer(row: Row) -> int:
    """The layer at which a row of self-repair was read."""
    return int(row.detail["at"].partition(".")[0])


def _rank_p(row: Row, matched: Row | None) -> float:
    """Rank p of what lies above 0 among its matched sets; 1 where it does not, or was not
    ranked."""
    if matched is None or not row.low > 0:
        return 1.0
    return matched.detail.get("p_rank", 1.0)


def _up_to(matched: Row | None) -> str:
    """The largest of the matched sets, and the rank p if there is one."""
    if matched is None:
        return ""
    largest = f", {matched.detail['sets']} matched sets up to {matched.high:.2f}"
    if "p_rank" in matched.detail:
        return f"{largest} (rank p={matched.detail['p_rank']:.2g})"
    return largest
