"""Pictures of the experiments that have no curve (R1, R5, R6, R7, R10): estimates with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mechreward.cells import ARMS, words
from mechreward.findings import NAMES
from mechreward.findings_causal import kind_of
from mechreward.results import Results, Row
from mechreward.show.estimates import Line, estimates

Picture = tuple[str, str, str]  # caption, file name, SVG
NULLS = ("shuffled", "same_length", "random_weights")
KNOWN = {"before": "known before the first token", "after": "known after the answer"}


def pictures(results: Results) -> list[Picture]:
    """(caption, file name, SVG) of each of these experiments that has rows."""
    return [picture for make in PICTURES for picture in make(results)]


def _probes(results: Results) -> list[Picture]:
    """R1: one picture for each kind of neuron, as every target under both shapes is many lines."""
    drawn = []
    for kind, name in NAMES.items():
        rows = [row for row in results.where(experiment="R1", metric="spearman") if kind_of(row) == kind]
        groups: dict[str, list[Line]] = {}
        for row in rows:
            label = row.detail["target"] if row.arm == "value" else f"{row.detail['target']}, {words(row.arm)}"
            null = row.arm in NULLS
            groups.setdefault(f"{row.detail['shape']} probe", []).append(
                Line(label, row, "shuffled" if row.arm == "shuffled" else "random" if null else "value")
            )
        if groups:
            groups = {shape: sorted(lines, key=lambda line: line.arm != "value") for shape, lines in groups.items()}
            title = f"R1, {name} at {rows[0].site}: Spearman of the read-out with V-hat on test, by target"
            drawing = estimates(groups, "Spearman with V-hat", chance=0.0)
            drawn.append((title, f"R1-{kind}", drawing))
    return drawn


def _targets(results: Results) -> list[Picture]:
    rows = results.where(experiment="R5", metric="gap")
    title = "R5: accuracy without the set of the terminal target minus accuracy without that of another"
    groups = _by_site(rows, lambda row: Line(words(row.arm), row))
    return _drawn(groups, title, "R5", "above 0 the other target's set matters more", 0.0, "no difference")


def _tokens(results: Results) -> list[Picture]:
    rows = results.where(experiment="R6", metric="iou")
    title = "R6: overlap of value sets with next-token sets, by share of neurons; a count, without an interval"
    groups = _by_site(rows, lambda row: Line(f"top {row.detail['share']:.0%}", row, mark=row.detail["expected"]))
    return _drawn(groups, title, "R6", "IoU", None)


def _confidence(results: Results) -> list[Picture]:
    groups: dict[str, list[Line]] = {}
    for row in results.where(experiment="R7", metric="auroc_s0"):
        value = row.arm == "value"
        line = Line("value read-out at s_0" if value else words(row.arm), row, "value" if value else "baseline")
        groups.setdefault(KNOWN[row.detail["known"]], []).append(line)
    return _drawn(groups, "R7: AUROC of the final verdict, by what it is read from", "R7", "AUROC", 0.5)


def _below(results: Results) -> list[Picture]:
    rows = results.where(experiment="R10", metric="spearman")
    drawn = {site: [row for row in rows if (row.site, row.arm) == (site, "matched")] for site in {r.site for r in rows}}
    first = [row for row in rows if row.arm != "matched" or row is drawn[row.site][0]]

    def line(row: Row) -> Line:
        label = f"zeroed: {ARMS.get(row.arm, words(row.arm))}"
        if row.arm != "matched":
            return Line(label, row, "baseline" if row.arm == "baseline" else "value")
        each = [one.estimate for one in drawn[row.site]]
        spread = replace(row, estimate=float(np.mean(each)), low=min(each), high=max(each), n=len(each))
        return Line(f"{label}, {len(each)} draws", spread, "matched", tuple(each))

    title = "R10: Spearman of the dopamine read-out with delta while neurons of earlier layers are zeroed; matched: "
    return _drawn(_by_site(first, line), title + "mean of draws, lowest to highest", "R10", "Spearman with delta", 0.0)


def _by_site(rows: Sequence[Row], line: Callable[[Row], Line]) -> dict[str, list[Line]]:
    groups: dict[str, list[Line]] = {}
    for row in rows:
        groups.setdefault(f"{NAMES[kind_of(row)]}, {row.site}", []).append(line(row))
    return groups


def _drawn(
    groups: dict[str, list[Line]], title: str, name: str, xlabel: str, chance: float | None, named: str = "chance"
) -> list[Picture]:
    return [(title, name, estimates(groups, xlabel, chance=chance, named=named))] if groups else []


PICTURES = (_probes, _targets, _tokens, _confidence, _below)
