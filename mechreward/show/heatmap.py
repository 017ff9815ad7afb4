"""A matrix of numbers by name, as SVG: what was found in one place, measured in another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.patches import Rectangle

from mechreward.base.errors import require
from mechreward.show.style import VERMILLION, blank, styled, to_svg


def matrix(
    cells: Mapping[tuple[str, str], float],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    low: float = 0.0,
    high: float = 1.0,
    notes: Mapping[tuple[str, str], str] | None = None,
    ring: Sequence[tuple[str, str]] = (),
    xlabel: str = "",
    ylabel: str = "",
) -> str:
    """`cells` by (row, column) as coloured squares with the number printed, from `low` (white) to
    `high`.

    `notes` is a small second line of a square; `ring` marks squares. `rows` and `columns` give the
    order, by default that in which they first appear. A missing cell is hatched, NaN shows "–";
    only colours are clipped, never numbers.

    Raises:
        MechRewardError: no cells, or `high` not above `low`.
    """
    require(bool(cells), "there is nothing to draw: no cell was given.")
    require(high > low, f"the colours run from low to high; {low} and {high} were given.")
    rows = list(rows or dict.fromkeys(row for row, _ in cells))
    columns = list(columns or dict.fromkeys(column for _, column in cells))
    notes = notes or {}
    longest, wide = max(map(len, rows)), max(*map(len, columns), 5 * bool(notes))
    with styled():
        height = 0.62 if notes else 0.42
        width = 1.2 + 0.075 * longest + max(0.62, 0.11 * wide) * max(len(columns), 3)
        figure, axes = blank(min(9.5, width), 0.9 + height * len(rows))
        tint = matplotlib.colormaps["Blues"]
        for y, row in enumerate(rows):
            for x, column in enumerate(columns):
                place = (row, column)
                if place not in cells:
                    axes.add_patch(
                        _box(
                            x, y, facecolor="white", edgecolor="#d8d8d8", hatch="////", linewidth=0
                        )
                    )
                    continue
                number = cells[place]
                depth = (
                    0.85 * min(max((number - low) / (high - low), 0), 1)
                    if math.isfinite(number)
                    else 0
                )
                axes.add_patch(_box(x, y, facecolor=tint(depth), edgecolor="white", linewidth=1.5))
                colour, lift = "white" if depth > 0.7 else "#1a1a1a", 0.12 if place in notes else 0
                text = f"{number:.2f}" if math.isfinite(number) else "–"
                axes.text(
                    x,
                    y - lift,
                    text,
                    ha="center",
                    va="center",
                    color=colour,
                    size=min(9.5, 150 / len(columns)),
                )
                axes.text(
                    x,
                    y + 0.24,
                    notes.get(place, ""),
                    ha="center",
                    va="center",
                    color=colour,
                    size=7.5,
                )
                if place in ring:
                    axes.add_patch(
                        _box(x, y, 0.44, facecolor="none", edgecolor=VERMILLION, linewidth=2)
                    )
        axes.set_xticks(range(len(columns)), [name.replace(" ", "\n") for name in columns])
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        return to_svg(figure)


def _box(x: int, y: int, half: float = 0.5, **look: object) -> Rectangle:
    return Rectangle((x - half, y - half), 2 * half, 2 * half, **look)  # type: ignore[arg-type]
