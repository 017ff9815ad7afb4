"""Rows in, SVG strings out: pruning curves, ablation intervals, the grid of sites, histograms.

Every function returns one `<svg>` element as text, byte-identical for equal input: no date, fixed
ids, no pyplot and none of the user's matplotlib settings. Text stays text (it can be searched,
selected and read aloud), laid out with the DejaVu Sans that comes with matplotlib; where a viewer
lacks it, narrower fonts stand in. Numbers that do not exist (NaN) are left out of lines and printed
as "–". The paper draws bare lines; bands, nulls and draws are our own choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mechreward.base.errors import require
from mechreward.show.style import BLUE, VERMILLION, blank, styled, to_svg


def histogram(values: Sequence[float | int] | np.ndarray, xlabel: str) -> str:
    """How often each value occurs, as SVG; for V-hat or delta, `values` [n] of which NaN are left
    out and counted.

    Values that are multiples of 1/K (K <= 64 rollouts) get one bar each, because bins across such a
    lattice show combs that are not in the data; other values get 20 bins in [0, 1], or 41 around
    zero where some are negative. Negative bars are vermillion, the others blue.

    Raises:
        MechRewardError: not one column of numbers, or none of them finite.
    """
    column = np.asarray(values, dtype=float)
    require(column.ndim == 1, f"values must be one column; got shape {column.shape}")
    kept = column[np.isfinite(column)]
    require(
        len(kept) > 0,
        f"none of the {len(column)} values is a finite number: there is nothing to draw",
    )
    edges = _bins(kept)
    counts, _ = np.histogram(kept, edges)
    centres, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    with styled():
        figure, axes = blank(8.4, 2.6)
        axes.grid(axis="y")
        colours = [VERMILLION if centre < -1e-9 else BLUE for centre in centres]
        axes.bar(centres, counts, 0.88 * width, color=colours)
        missing = len(column) - len(kept)
        note = f"n = {len(kept)}" + (f" ({missing} without a value)" if missing else "")
        axes.text(1, 1.01, note, transform=axes.transAxes, ha="right", va="bottom", color="#444444")
        axes.set_xlabel(xlabel)
        axes.set_ylabel("count")
        return to_svg(figure)


def _bins(kept: np.ndarray) -> np.ndarray:
    """Edges [bins + 1]: one bin for each multiple of 1/K if all values are such, else equal
    widths."""
    for k in range(1, 65):
        if np.abs(kept * k - np.round(kept * k)).max() < 0.01:
            return (np.arange(round(kept.min() * k), round(kept.max() * k) + 2) - 0.5) / k
    if kept.min() >= 0:
        return np.linspace(0, max(1.0, kept.max()), 21)
    most = np.abs(kept).max()
    return np.linspace(-most, most, 42)
