"""Tables of what ablations, patches and steering did (R4, R5, R10, R14). Nothing is tested here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mechreward.experiments.rows import Results, Row
from mechreward.report.formats import (
    NONE,
    cell,
    interval,
    measured,
    number,
    p_of,
    small,
)
from mechreward.report.layout import Table
from mechreward.report.select import having, lacking, pivot
from mechreward.report.words import arm_name, words

METER = ("change_norm", "parse_rate", "eos_rate", "truncation_rate", "premature_rate", "length")
CONTROLS = ("matched", "random", "sink_free_random")


def ablations(results: Results) -> Table:
    """R4: accuracy beside every control."""
    rows = lacking(results.where(experiment="R4"), "draw", "on")
    by_place = pivot(rows, "site", "detail.op")
    lines = []
    for (site, op), cells in by_place.items():
        without = cells.get(("value", "accuracy"))
        if without is None:
            continue
        before = by_place.get((site, ""), {}).get(("baseline", "accuracy"))
        changes = [cells.get(("value", metric)) for metric in ("change", "change_beyond_matched")]
        controls = [cells.get((arm, "accuracy")) for arm in CONTROLS]
        shown = [before, without, *changes, *controls]
        texts = [cell(row, without.n) for row in shown]
        lines.append([site, op, *texts, str(without.n)])
    return Table(
        "R4, accuracy without the value neurons and without as many others (mean over sets).",
        (
            "at",
            "ablation",
            "accuracy before",
            "without value",
            "change",
            "change beyond matched",
            "without matched",
            "without random",
            "without random, no sinks",
            "n",
        ),
        lines,
    )


def by_layer(results: Results) -> Table:
    """The top 1% of every layer zeroed."""
    rows = lacking(results.where(experiment="ablation_by_layer"), "draw")
    by_place = pivot(rows, "site", "detail.op")
    lines = []
    for (site, _), cells in by_place.items():
        without = cells.get(("value", "accuracy"))
        if without is None:
            continue
        before = by_place.get((site, ""), {}).get(("baseline", "accuracy"))
        change = cells.get(("value", "change"))
        controls = [cells.get((arm, "accuracy")) for arm in ("matched", "random")]
        texts = [cell(row, without.n) for row in (before, without, change, *controls)]
        rank = f"{without.detail['rank']} of {without.detail['draws'] + 1}"
        kl = cells.get(("value", "kl"))
        beside = cells.get(("matched", "kl"))
        meters = [NONE if row is None else interval(row, small) for row in (kl, beside)]
        lines.append([site, *texts, rank, p_of(without, "p_holm"), *meters, str(without.n)])
    return Table(
        "The top 1% of every layer zeroed (the paper's Table 2 has layers 2 to 5, without matched "
        "sets). p: McNemar's, after Holm over all lines. KL in nats per token on clean text; of "
        "matched sets the mean, between the lowest and the highest.",
        (
            "at",
            "accuracy before",
            "without value",
            "change",
            "without matched",
            "without random",
            "rank",
            "p",
            "KL",
            "KL of matched",
            "n",
        ),
        lines,
    )


def damage(results: Results) -> Table:
    """R4: the damage meter of every ablation."""
    rows = [row for row in results.where(experiment="R4") if row.metric in ("kl", *METER)]
    lines = []
    for place, cells in pivot(rows, "site", "detail.op", "arm", "detail.on").items():
        site, op, arm, task = place
        kl = cells.get((arm, "kl"))
        meters = [cells.get((arm, metric)) for metric in METER]
        first = kl or next(iter(cells.values()))
        name = arm_name(arm) + _sets(first)
        if task:
            name += f", on {task}"
        # A KL of which three decimals may leave nothing has two digits.
        told = NONE if kl is None else interval(kl, small)
        texts = [cell(row, first.n) for row in meters]
        lines.append([site, op or NONE, name, told, *texts, str(first.n)])
    return Table(
        "R4, damage meter of every ablation. KL (nats per token) and the norm of the change on "
        "clean text, the shares of answers that parse, that end by themselves, that are cut off, "
        "and that are wrong and end before any clean answer does, their length in tokens. A meter "
        "of one set has no interval; of several it is their mean, between the lowest and the "
        "highest where the rows say so.",
        (
            "at",
            "ablation",
            "without",
            "KL",
            "change",
            "parse",
            "end",
            "cut off",
            "too early",
            "length",
            "n",
        ),
        lines,
    )


def rankings(results: Results) -> Table:
    """R4: sets of other rankings."""
    rows = having(results.where(experiment="R4"), "shared")
    lines = []
    for (site, op, arm), cells in pivot(rows, "site", "detail.op", "arm").items():
        without, gap = cells.get((arm, "accuracy")), cells.get((arm, "gap"))
        about = gap or without or rows[0]
        shared = f"{about.detail['shared']:g} of {about.detail['neurons']}"
        accuracy, difference, n = measured([without, gap])
        name = words(arm) + _sets(about)
        lines.append([site, op, name, shared, accuracy, difference, p_of(gap, "p"), n])
    return Table(
        "R4, other rankings' sets. Gap: accuracy without that set minus accuracy without the value "
        "neurons; above 0 the value neurons matter more.",
        (
            "at",
            "ablation",
            "ranking",
            "shared with value",
            "accuracy without",
            "gap",
            "McNemar p",
            "n",
        ),
        lines,
    )


def other_tasks(results: Results) -> Table:
    """R4: accuracy on other tasks."""
    rows = having(results.where(experiment="R4"), "on")
    by_place = pivot(rows, "site", "detail.on", "detail.op")
    lines = []
    for site, task in pivot(rows, "site", "detail.on"):
        before = by_place.get((site, task, ""), {}).get(("baseline", "accuracy_elsewhere"))
        ablated = [op for at, on, op in by_place if (at, on) == (site, task) and op]
        for op in ablated or [""]:
            cells = by_place.get((site, task, op), {})
            without = cells.get(("value", "accuracy_elsewhere"))
            change = cells.get(("value", "change_elsewhere"))
            matched = cells.get(("matched", "accuracy_elsewhere"))
            *texts, n = measured([before, without, change])
            controls = NONE
            if matched is not None:
                controls = f"{cell(matched, matched.n)} ({matched.n} sets)"
            name = op or "not ablated: too little to lose"
            lines.append([site, task, name, *texts, p_of(change, "p_mcnemar"), controls, n])
    return Table(
        "R4, other tasks. Matched: mean over sets, between the lowest and the highest.",
        (
            "at",
            "task",
            "ablation",
            "accuracy before",
            "without value",
            "change",
            "McNemar p",
            "without matched",
            "n",
        ),
        lines,
    )


def targets(results: Results) -> Table:
    """R5: the set of each target against the terminal one."""
    rows = results.where(experiment="R5")
    lines = []
    for (site, arm), cells in pivot(rows, "site", "arm").items():
        gap, overlap = cells.get((arm, "gap")), cells.get((arm, "iou"))
        accuracy, difference, n = measured([cells.get((arm, "accuracy")), gap])
        shared = chance = NONE
        if overlap is not None:
            shared, chance = number(overlap.estimate), number(overlap.detail["expected"])
        tested = [difference, p_of(gap, "p_mcnemar")]
        lines.append(
            [site, arm_name(arm), accuracy, *tested, shared, chance, p_of(overlap, "p"), n]
        )
    return Table(
        "R5, zeroing the set that each target's probe chose. Gap: accuracy without the "
        "terminal set "
        "minus accuracy without this one; above 0 this one matters more.",
        (
            "at",
            "zeroed set of",
            "accuracy without",
            "gap",
            "McNemar p",
            "IoU with the terminal set",
            "chance",
            "its p",
            "n",
        ),
        lines,
    )


def below(results: Results) -> Table:
    """R10: the dopamine read-out without value neurons of earlier layers."""
    rows = results.where(experiment="R10")
    lines = []
    for (site, arm), cells in pivot(rows, "site", "arm").items():
        draws = [row for row in rows if (row.site, row.arm) == (site, arm)]
        scores = [row for row in draws if row.metric == "spearman"]
        changes = [row for row in draws if row.metric == "change"]
        n = draws[0].n
        zeroed = having(draws, "zeroed")
        neurons = str(zeroed[0].detail["zeroed"]) if zeroed else NONE
        name = f"matched, {len(scores)} draws" if arm == "matched" else arm_name(arm)
        more = rank = NONE
        beyond = cells.get(("value", "beyond_matched"))
        if beyond is not None:
            place = f"{beyond.detail['rank']} of {beyond.detail['draws'] + 1}"
            rank = f"{place} (p={p_of(beyond, 'p_rank')})"
            more = cell(beyond, n)
        texts = [_drawn(scores, arm, n), _drawn(changes, arm, n)]
        lines.append([site, name, neurons, *texts, more, rank, str(n)])
    return Table(
        "R10, Spearman with delta read off the dopamine neurons while neurons of earlier "
        "layers are "
        "zeroed. Matched: mean over draws, between the lowest and the highest.",
        (
            "read at",
            "zeroed",
            "neurons zeroed",
            "Spearman",
            "change",
            "change beyond matched",
            "rank among matched",
            "n",
        ),
        lines,
    )


def same_damage(results: Results) -> Table:
    """R14: steering at one KL."""
    rows = results.where(experiment="R14", metric="contrast_at_kl")
    strengths = dict.fromkeys(str(row.detail["strength"]) for row in rows)
    lines = []
    for row in rows:
        name = words(row.arm)
        if "sets" in row.detail:
            sets = row.detail["sets"]
            name += f" ({sets} of {sets + row.detail['never']} sets)"
        factor = number(row.detail.get("factor", 1.0), 1)
        tested = [cell(row, row.n), p_of(row, "p_mcnemar")]
        lines.append([row.site, name, small(row.detail["kl"]), factor, *tested])
    return Table(
        f"R14 at matched damage: accuracy steered up minus down at strength {', '.join(strengths)} "
        "with the KL of the set on clean text. Controls: mean over those sets that some strength "
        "gives that KL, between the lowest and the highest.",
        (
            "at",
            "steered",
            "KL, nats per token",
            "times as strong",
            "up minus down",
            "McNemar p",
        ),
        lines,
    )


def patched(results: Results) -> Table:
    """R14: states patched into another."""
    rows = results.where(experiment="R14")
    rows = [row for row in rows if row.metric.startswith("patched")]
    lines = []
    for place, cells in pivot(rows, "site", "arm", "detail.from", "detail.into").items():
        site, arm, source, goal = place
        effects = [cells.get((arm, f"patched{end}")) for end in ("", "_back", "_ended")]
        lines.append([site, words(arm), f"{source} into {goal}", *measured(effects)])
    return Table(
        "R14, activations of one state patched into another of the same problem: what V-hat of the "
        "continuation (its accuracy), the share that turns back and the share that ends by itself "
        "change by. Where no pair changes at all the bounds are those of no event in n. "
        "Matched: mean over sets, between the lowest and the highest, n counts sets.",
        ("at", "patched", "states", "V-hat", "turns back", "ends", "n"),
        lines,
    )


TABLES = (ablations, by_layer, damage, rankings, other_tasks, targets, below, same_damage, patched)


def _sets(row: Row) -> str:
    """How many sets a mean is over, in brackets."""
    return f" ({row.detail['sets']} sets)" if "sets" in row.detail else ""


def _drawn(rows: Sequence[Row], arm: str, n: int) -> str:
    """One row as it is; the draws of a control as their mean between the lowest and the highest."""
    if arm != "matched" or not rows:
        return cell(rows[0] if rows else None, n)
    scores = [row.estimate for row in rows]
    return f"{number(float(np.mean(scores)))} [{number(min(scores))}, {number(max(scores))}]"
