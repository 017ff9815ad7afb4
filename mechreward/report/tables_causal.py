"""Tables of what ablations, patches and steering did (R4, R5, R10, R14). Nothing is tested here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mechreward.experiments.rows import Results, Row
from mechreward.report.select import index, shared_n, sites
from mechreward.report.words import ARMS, NONE, cell, number, p_value, table, words

METER = ("kl", "change_norm", "parse_rate", "eos_rate", "truncation_rate", "length")


def _ablations(results: Results) -> list[str]:
    rows = results.where(experiment="R4")
    at = index(
        (row for row in rows if "draw" not in row.detail and "on" not in row.detail),
        lambda row: (row.site, row.detail.get("op"), row.arm, row.metric),
    )
    lines = []
    for row in (row for row in rows if (row.arm, row.metric) == ("value", "accuracy")):
        op = row.detail["op"]
        found = [at.get((row.site, None, "baseline", "accuracy")), row]
        found += [
            at.get((row.site, op, "value", metric))
            for metric in ("change", "change_beyond_matched")
        ]
        found += [
            at.get((row.site, op, arm, "accuracy"))
            for arm in ("matched", "random", "sink_free_random")
        ]
        lines.append([row.site, op, *(cell(one, row.n) for one in found), str(row.n)])
    return table(
        "R4, accuracy without the value neurons and without as many others (mean over sets).",
        "at | ablation | accuracy before | without value | change | change beyond matched | without matched | "
        "without random | without random, no sinks | n",
        lines,
    )


def _damage(results: Results) -> list[str]:
    rows = [row for row in results.where(experiment="R4") if row.metric in METER]

    def key(row: Row) -> tuple[str, str | None, str, str | None]:
        return row.site, row.detail.get("op"), row.arm, row.detail.get("on")

    at = index(rows, lambda row: (*key(row), row.metric))
    lines = []
    for place in dict.fromkeys(map(key, rows)):
        site, op, arm, on = place
        found = [at.get((*place, metric)) for metric in METER]
        first = next(row for row in found if row is not None)
        sets = f" ({first.detail['sets']} sets)" if "sets" in first.detail else ""
        name = ARMS.get(arm, words(arm)) + sets + (f", on {on}" if on else "")
        lines.append(
            [
                site,
                op or NONE,
                name,
                _small(found[0]),
                *(cell(row, first.n) for row in found[1:]),
                str(first.n),
            ]
        )
    return table(
        "R4, damage meter of every ablation. KL (nats per token) and the norm of the change on clean text, the shares "
        "of answers that parse, that end by themselves and that are cut off, their length in tokens. A meter of one "
        "set has no interval; of several it is their mean, between the lowest and the highest where the rows say so.",
        "at | ablation | without | KL | change | parse | end | cut off | length | n",
        lines,
    )


def _rankings(results: Results) -> list[str]:
    rows = [row for row in results.where(experiment="R4") if "shared" in row.detail]
    at = index(rows, lambda row: (row.site, row.detail["op"], row.arm, row.metric))
    lines = []
    for site, op, arm in dict.fromkeys((row.site, row.detail["op"], row.arm) for row in rows):
        without, gap = (at.get((site, op, arm, metric)) for metric in ("accuracy", "gap"))
        n, detail = shared_n([without, gap]), (gap or without or rows[0]).detail
        sets = f" ({detail['sets']} sets)" if "sets" in detail else ""
        shared = f"{detail['shared']:g} of {detail['neurons']}"
        lines.append(
            [
                site,
                op,
                words(arm) + sets,
                shared,
                cell(without, n),
                cell(gap, n),
                p_value(gap, "p"),
                str(n),
            ]
        )
    return table(
        "R4, other rankings' sets. Gap: accuracy without that set minus accuracy without the value neurons; above 0 "
        "the value neurons matter more.",
        "at | ablation | ranking | shared with value | accuracy without | gap | McNemar p | n",
        lines,
    )


def _elsewhere(results: Results) -> list[str]:
    rows = [row for row in results.where(experiment="R4") if "on" in row.detail]
    at = index(
        rows, lambda row: (row.site, row.detail["on"], row.detail.get("op"), row.arm, row.metric)
    )
    lines = []
    for site, on in dict.fromkeys((row.site, row.detail["on"]) for row in rows):
        base = at.get((site, on, None, "baseline", "accuracy_elsewhere"))
        here = [row for row in rows if (row.site, row.detail["on"]) == (site, on)]
        for op in dict.fromkeys(row.detail["op"] for row in here if "op" in row.detail) or [None]:
            own, other = (
                at.get((site, on, op, arm, "accuracy_elsewhere")) for arm in ("value", "matched")
            )
            change = at.get((site, on, op, "value", "change_elsewhere"))
            n = shared_n([base, own, change])
            cells = [cell(base, n), cell(own, n), cell(change, n), p_value(change, "p_mcnemar")]
            sets = NONE if other is None else f"{cell(other, other.n)} ({other.n} sets)"
            lines.append([site, on, op or "not ablated: too little to lose", *cells, sets, str(n)])
    return table(
        "R4, other tasks. Matched: mean over sets, between the lowest and the highest.",
        "at | task | ablation | accuracy before | without value | change | McNemar p | without matched | n",
        lines,
    )


def _targets(results: Results) -> list[str]:
    rows = results.where(experiment="R5")
    at = index(rows, lambda row: (row.site, row.arm, row.metric))
    lines = []
    for site, arm in dict.fromkeys((row.site, row.arm) for row in rows):
        accuracy, gap, both = (at.get((site, arm, metric)) for metric in ("accuracy", "gap", "iou"))
        n = shared_n([accuracy, gap])
        cells = [cell(accuracy, n), cell(gap, n), p_value(gap, "p_mcnemar")]
        shared = NONE if both is None else number(both.estimate)
        chance = NONE if both is None else number(both.detail["expected"])
        lines.append([site, ARMS.get(arm, arm), *cells, shared, chance, p_value(both, "p"), str(n)])
    return table(
        "R5, zeroing the set that each target's probe chose. Gap: accuracy without the terminal set minus accuracy "
        "without this one; above 0 this one matters more.",
        "at | zeroed set of | accuracy without | gap | McNemar p | IoU with the terminal set | chance | its p | n",
        lines,
    )


def _below(results: Results) -> list[str]:
    rows = results.where(experiment="R10")
    lines = []
    for site in sites(rows):
        here = [row for row in rows if row.site == site]
        beyond = next((row for row in here if row.metric == "beyond_matched"), None)
        for arm in dict.fromkeys(row.arm for row in here):
            mine = [row for row in here if row.arm == arm]
            rho, change = (
                [row for row in mine if row.metric == metric] for metric in ("spearman", "change")
            )
            zeroed = next(
                (str(row.detail["zeroed"]) for row in mine if "zeroed" in row.detail), NONE
            )
            n, more, rank = mine[0].n, NONE, NONE
            if arm == "value" and beyond is not None:
                more, d = cell(beyond, n), beyond.detail
                rank = f"{d['rank']} of {d['draws'] + 1} (p={d['p_rank']:.2g})"
            name = f"matched, {len(rho)} draws" if arm == "matched" else ARMS.get(arm, arm)
            lines.append(
                [
                    site,
                    name,
                    zeroed,
                    *(_drawn(each, arm, n) for each in (rho, change)),
                    more,
                    rank,
                    str(n),
                ]
            )
    return table(
        "R10, Spearman with delta read off the dopamine neurons while neurons of earlier layers are zeroed. Matched: "
        "mean over draws, between the lowest and the highest.",
        "read at | zeroed | neurons zeroed | Spearman | change | change beyond matched | rank among matched | n",
        lines,
    )


def _same_damage(results: Results) -> list[str]:
    rows = results.where(experiment="R14", metric="contrast_at_kl")
    strengths = ", ".join(dict.fromkeys(str(row.detail["strength"]) for row in rows))
    lines = []
    for row in rows:
        d = row.detail
        sets = f" ({d['sets']} of {d['sets'] + d['never']} sets)" if "sets" in d else ""
        factor = f"{d.get('factor', 1.0):.1f}"
        lines.append(
            [
                row.site,
                words(row.arm) + sets,
                f"{d['kl']:.2g}",
                factor,
                cell(row, row.n),
                p_value(row, "p_mcnemar"),
            ]
        )
    return table(
        f"R14 at matched damage: accuracy steered up minus down at strength {strengths} with the KL of the set on "
        "clean text. Controls: mean over those sets that some strength gives that KL, between the lowest and the "
        "highest.",
        "at | steered | KL, nats per token | times as strong | up minus down | McNemar p",
        lines,
    )


def _patched(results: Results) -> list[str]:
    rows = results.where(experiment="R14")
    rows = [row for row in rows if row.metric.startswith("patched")]
    at = index(
        rows, lambda row: (row.site, row.arm, row.detail["from"], row.detail["into"], row.metric)
    )
    lines = []
    for key in dict.fromkeys(
        (row.site, row.arm, row.detail["from"], row.detail["into"]) for row in rows
    ):
        found = [at.get((*key, metric)) for metric in ("patched", "patched_back", "patched_ended")]
        n = shared_n(found)
        site, arm, source, goal = key
        lines.append(
            [site, words(arm), f"{source} into {goal}", *(cell(row, n) for row in found), str(n)]
        )
    return table(
        "R14, activations of one state patched into another of the same problem: what V-hat of the continuation (its "
        "accuracy), the share that turns back and the share that ends by itself change by. Where no pair changes at "
        "all a bootstrap has no width, and says too much. Matched: mean over sets, between the lowest and the highest, "
        "n counts sets.",
        "at | patched | states | V-hat | turns back | ends | n",
        lines,
    )


TABLES = (_ablations, _damage, _rankings, _elsewhere, _targets, _below, _same_damage, _patched)


def _small(row: Row | None) -> str:
    """A KL, of which three decimals may leave nothing: two digits, with its bounds."""
    if row is None or np.isnan(row.estimate):
        return NONE
    bounds = "" if np.isnan(row.low) or np.isnan(row.high) else f" [{row.low:.2g}, {row.high:.2g}]"
    return f"{row.estimate:.2g}{bounds}"


def _drawn(rows: Sequence[Row], arm: str, n: int) -> str:
    """One row as it is; the draws of a control as their mean between the lowest and the highest."""
    if arm != "matched" or not rows:
        return cell(rows[0] if rows else None, n)
    each = [row.estimate for row in rows]
    return f"{number(float(np.mean(each)))} [{number(min(each))}, {number(max(each))}]"
