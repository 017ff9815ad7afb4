"""The results of all settings in two tables: what sparsity is made of, and whether the RL
descendants read otherwise than their base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mechreward import stats
from mechreward.experiments.plan import again
from mechreward.experiments.rows import Results, Row
from mechreward.report.formats import NONE, interval, p_value, two
from mechreward.report.layout import Table
from mechreward.report.select import LEVEL, grid_rows, held, kind_of, of
from mechreward.report.words import NAMES
from mechreward.stats import Interval
from mechreward.stats.intervals import difference

BASE = "countdown-base"


def glance(results: Results, settings: Sequence[tuple[str, str]]) -> Table:
    """One line for each setting and kind of neuron that has a `sparsity` row."""
    lines = []
    for model, task in settings:
        rows = results.where(experiment="R2", model=model, task=task, metric="sparsity")
        for kind, name in NAMES.items():
            for row in of(rows, kind):
                numbers = _sparsity(results, row)
                lines.append([f"{model} on {task}", f"{name}, {row.site}", *numbers])
    return Table(
        "",
        (
            "",
            "neurons",
            "all",
            "top 1%",
            "random 1%",
            "best of random bases",
            "sparsity beyond redundancy",
            "reading",
        ),
        lines,
    )


def _sparsity(results: Results, row: Row) -> list[str]:
    """What a `sparsity` row is made of, itself, and its reading."""
    detail = row.detail
    ends = []
    for key in ("full", "few"):
        point = held(results, row, detail[key])
        ends.append(interval(point, two) if point else two(detail[key]))
    beyond = NONE if detail["reading"] == "nothing" else interval(row, two)
    return [*ends, two(detail["random"]), two(detail["rotated"]), beyond, detail["reading"]]


@dataclass(frozen=True)
class Descendants:
    """The RL descendants beside their base.

    Attributes
    ----------
    skipped
        Settings that cannot be compared.
    cells
        Every cell of R3 on test, of both models.
    tested
        How many of them have a p-value.
    command
        What repeats them.
    sentences
        One for each setting: where it differs.
    """

    skipped: Sequence[str]
    cells: Table
    tested: int
    command: str
    sentences: Sequence[str]


@dataclass(frozen=True)
class Cell:
    """One cell of R3 in a descendant and in the base, their difference, and its p-value."""

    setting: str
    descendant: Row
    base: Row
    gap: Interval
    p: float


def descendants(results: Results, settings: Sequence[tuple[str, str]]) -> Descendants:
    """Whether the RL descendants (every other model on a task of the base) read otherwise than the
    base: all neurons of every layer and kind on the test grid, so that no choice of a layer
    matters, Holm over all cells of the table.

    Nothing where the base is not among `settings`. Rule: our own choice.
    """
    cells: list[Cell] = []
    skipped = []
    for model, task in settings:
        if model == BASE or (BASE, task) not in settings:
            continue
        base = _all_neurons(results, BASE, task)
        own = _all_neurons(results, model, task)
        shared = [site for site in own if site in base]
        if not shared:
            skipped.append(f"{model} on {task}")
        for site in shared:
            gap, p = difference(own[site].interval, base[site].interval)
            cells.append(Cell(f"{model} on {task}", own[site], base[site], gap, p))
    corrected = _holm([cell.p for cell in cells])
    tested = int(np.isfinite(corrected).sum())
    command = again(results, "R3") if cells else ""
    return Descendants(
        skipped, _table(cells, corrected), tested, command, _differences(cells, corrected)
    )


def _all_neurons(results: Results, model: str, task: str) -> dict[str, Row]:
    """R3 on test from all neurons, by site."""
    rows = {}
    for row in grid_rows(results, "test"):
        if (row.model, row.task) == (model, task) and row.detail["share"] == 1:
            rows[row.site] = row
    return rows


def _holm(p: Sequence[float]) -> np.ndarray:
    """Holm over the p-values that exist."""
    corrected = np.array(p, dtype=float)
    known = np.isfinite(corrected)
    if known.any():
        corrected[known] = stats.holm(corrected[known])
    return corrected


def _table(cells: Sequence[Cell], corrected: np.ndarray) -> Table:
    lines = []
    for cell, p in zip(cells, corrected, strict=True):
        neurons = f"{NAMES[kind_of(cell.descendant)]}, {cell.descendant.site}"
        scores = [interval(score, two) for score in (cell.descendant, cell.base, cell.gap)]
        lines.append([cell.setting, neurons, *scores, p_value(p)])
    return Table("", ("", "neurons", "Spearman", "base", "difference", "p, Holm"), lines)


def _differences(cells: Sequence[Cell], corrected: np.ndarray) -> list[str]:
    """One sentence a setting."""
    sentences = []
    for setting in dict.fromkeys(cell.setting for cell in cells):
        count, places = 0, []
        for cell, p in zip(cells, corrected, strict=True):
            if cell.setting == setting:
                count += 1
                if p < LEVEL:
                    places.append(f"{cell.base.site} ({cell.gap.estimate:+.2f})")
        told = "no difference from the base is shown"
        if places:
            told = f"differs from the base at {', '.join(places)}"
        sentences.append(f"{setting}: {told}, of {count} cells.")
    return sentences
