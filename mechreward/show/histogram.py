"""Histograms: V-hat or delta alone, or the scores of a few arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mechreward.base.errors import require
from mechreward.show.style import BLUE, TESTED, VERMILLION, blank, looks, styled, to_svg

MOST_ROLLOUTS = 64  # the largest K whose multiples of 1/K are looked for


def histogram(values: Sequence[float | int] | np.ndarray, xlabel: str) -> str:
    """How often each value occurs; negative bars are vermillion, the others blue.

    Values that are multiples of 1/K (K <= 64 rollouts) get one bar each, because bins across such a
    lattice show combs that are not in the data; other values get 20 bins in [0, 1], or 41 around
    zero where some are negative.

    Parameters
    ----------
    values
        V-hat or delta of every state, `[n]`; nan are left out and counted.
    xlabel
        What the values are.

    Returns
    -------
    str
        One `<svg>` element.

    Raises
    ------
    MechRewardError
        Not one column of numbers, or none of them finite.
    """
    column = np.asarray(values, dtype=float)
    require(column.ndim == 1, f"values must be one column; got shape {column.shape}")
    finite = column[np.isfinite(column)]
    require(
        len(finite) > 0,
        f"none of the {len(column)} values is a finite number: there is nothing to draw",
    )
    edges = _bins(finite)
    counts, _ = np.histogram(finite, edges)
    centres = (edges[1:] + edges[:-1]) / 2
    colours = np.where(centres < -1e-9, VERMILLION, BLUE)
    note = f"n = {len(finite)}"
    if len(finite) < len(column):
        note += f" ({len(column) - len(finite)} without a value)"
    with styled():
        figure, axes = blank(8.4, 2.6)
        axes.grid(axis="y")
        axes.bar(centres, counts, 0.88 * np.diff(edges), color=colours)
        axes.text(1, 1.01, note, transform=axes.transAxes, ha="right", va="bottom", color="#444444")
        axes.set_xlabel(xlabel)
        axes.set_ylabel("count")
        return to_svg(figure)


def _bins(values: np.ndarray) -> np.ndarray:
    """Edges [bins + 1]: one bin for each multiple of 1/K if all values are such, else equal
    widths."""
    for k in range(1, MOST_ROLLOUTS + 1):
        wins = values * k
        if np.abs(wins - np.round(wins)).max() < 0.01:
            first, last = round(wins.min()), round(wins.max())
            return (np.arange(first, last + 2) - 0.5) / k
    if values.min() >= 0:
        return np.linspace(0, max(1.0, values.max()), 21)
    reach = np.abs(values).max()
    return np.linspace(-reach, reach, 42)


@dataclass(frozen=True)
class Outlines:
    """A panel of a few distributions over the same bins, as outlines.

    Parameters
    ----------
    title
        What stands above it.
    columns
        Label -> arm whose colour it has, and its numbers `[n]`.
    edges
        Of the bins, `[bins + 1]`.
    xlabel, ylabel
        What is counted: the numbers, and their owners.
    wide
        Whether it takes a whole row; False by default.
    """

    title: str
    columns: Mapping[str, tuple[str, np.ndarray]]
    edges: np.ndarray
    xlabel: str
    ylabel: str
    wide: bool = False

    def height(self, width: float) -> float:
        """Inches, whatever the width."""
        return 2.7

    def draw(self, axes: Axes, width: float) -> None:
        """Outlines, the first on top; the same colours as in the panels beside."""
        look = looks(arm for arm, _ in self.columns.values())
        axes.grid(axis="y")
        for label, (arm, _) in reversed(list(self.columns.items())):
            heights = self._counts()[label]
            axes.stairs(heights, self.edges, color=look[arm].colour, linewidth=1.8, label=label)
            if arm in TESTED:
                axes.stairs(heights, self.edges, color=look[arm].colour, alpha=0.14, fill=True)
        axes.set_xlabel(self.xlabel)
        axes.set_ylabel(self.ylabel)

    def marks(self) -> list[dict[str, Any]]:
        """Every bar: its middle and its count."""
        marks = []
        middles = (self.edges[1:] + self.edges[:-1]) / 2
        for label, counts in self._counts().items():
            for middle, count in zip(middles, counts, strict=True):
                marks.append({"mark": "bar", "label": label, "x": middle, "y": count})
        return marks

    def _counts(self) -> dict[str, np.ndarray]:
        counts = {}
        for label, (_, values) in self.columns.items():
            counts[label] = np.histogram(values[np.isfinite(values)], self.edges)[0]
        return counts
