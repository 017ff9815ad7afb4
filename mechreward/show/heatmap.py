"""Heatmap: a table of numbers as coloured squares, each number printed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mechreward.base.errors import require
from mechreward.show.style import SIGNED, VERMILLION, blank, decimals, name_ticks, styled, to_svg

Place = tuple[str, str]  # row, column
PALE = 0.75  # up to this depth of colour black text reads better than white


def matrix(
    cells: Mapping[Place, float],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    low: float = 0.0,
    high: float = 1.0,
    middle: float | None = None,
    notes: Mapping[Place, str] | None = None,
    ring: Collection[Place] = (),
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    numbered: bool = True,
    turned: bool = False,
) -> str:
    """Coloured squares by row and column, from white to blue, and vermillion on the other side.

    Parameters
    ----------
    cells
        (row, column) -> number. A missing cell is hatched, nan shows "–"; only colours are
        clipped, never numbers.
    rows, columns
        Their names in order; by default that in which they first appear.
    low, high
        Numbers of the deepest colours, 0 and 1 by default.
    middle
        The number that is white; None (the default) for `low`, so that there is no vermillion.
    notes
        (row, column) -> a small second line of a square; None (the default) for none.
    ring
        Squares that are marked; none by default.
    xlabel, ylabel, title
        Names of the axes, and a line above; "" (the default) for none.
    numbered
        Whether numbers are printed; True by default.
    turned
        Whether the names of columns stand upright, for long ones; by default they lie, with a
        line for each word.

    Returns
    -------
    str
        One `<svg>` element.

    Raises
    ------
    MechRewardError
        No cells, or `high` not above `low`.
    """
    panel = Matrix(
        title, cells, rows, columns, low, high, middle, notes or {}, ring, xlabel, ylabel,
        numbered, turned,
    )  # fmt: skip
    with styled():
        figure, axes = blank(*_size(*panel.sides(), title, bool(notes), turned))
        panel.draw(axes, 9.5)
        axes.set_title(title, loc="left", size=9.5, color="#444444")
        return to_svg(figure)


@dataclass(frozen=True)
class Matrix:
    """A panel of coloured squares by row and column, as `matrix` has them.

    Parameters
    ----------
    title
        What stands above it.
    cells
        (row, column) -> number. A missing cell is hatched, nan shows "–".
    rows, columns
        Their names in order; by default that in which they first appear.
    low, high
        Numbers of the deepest colours.
    middle
        The number that is white; None (the default) for `low`.
    notes
        (row, column) -> a small second line of a square.
    ring
        Squares that are marked.
    xlabel, ylabel
        Names of the axes.
    numbered
        Whether numbers are printed; True by default.
    turned
        Whether the names of columns stand upright.
    hatched
        Squares with a hatch, such as those that controls reach too.
    wide
        Whether it takes a whole row; False by default.
    """

    title: str
    cells: Mapping[Place, float]
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    low: float = 0.0
    high: float = 1.0
    middle: float | None = None
    notes: Mapping[Place, str] = field(default_factory=dict)
    ring: Collection[Place] = ()
    xlabel: str = ""
    ylabel: str = ""
    numbered: bool = True
    turned: bool = False
    hatched: Collection[Place] = ()
    wide: bool = False

    def __post_init__(self) -> None:
        require(bool(self.cells), "there is nothing to draw: no cell was given.")
        require(
            self.high > self.low,
            f"the colours run from low to high; {self.low} and {self.high} were given.",
        )

    def sides(self) -> tuple[list[str], list[str]]:
        """Names of the rows, and of the columns."""
        rows = list(self.rows or dict.fromkeys(row for row, _ in self.cells))
        columns = list(self.columns or dict.fromkeys(column for _, column in self.cells))
        return rows, columns

    def height(self, width: float) -> float:
        """Inches: as many as the rows and the names of the columns need."""
        rows, columns = self.sides()
        return 0.3 + _size(rows, columns, "", bool(self.notes), self.turned)[1]

    def draw(self, axes: Axes, width: float) -> None:
        """Every square with its number, and what marks it."""
        rows, columns = self.sides()
        white = self.low if self.middle is None else self.middle
        names = columns if self.turned else [name.replace(" ", "\n") for name in columns]
        # A number of five characters needs .45 inches at 9 points.
        has_room = (width - 1.2) / len(columns) > 0.4
        for y, row in enumerate(rows):
            for x, column in enumerate(columns):
                place = (row, column)
                if place not in self.cells:
                    _draw_box(axes, x, y, facecolor="white", edgecolor="#d8d8d8", hatch="////")
                    continue
                depth = _depth(self.cells[place], self.low, white, self.high)
                tint = SIGNED((depth + 1) / 2)
                _draw_box(axes, x, y, facecolor=tint, edgecolor="#e4e4e4", linewidth=0.8)
                if place in self.hatched:
                    _draw_box(axes, x, y, fill=False, edgecolor="#b5b5b5", hatch="///", linewidth=0)
                text = decimals(self.cells[place]) if self.numbered and has_room else ""
                _draw_text(axes, x, y, text, self.notes.get(place, ""), depth, 9.0)
                if place in self.ring:
                    _draw_box(axes, x, y, 0.44, fill=False, edgecolor=VERMILLION, linewidth=2)
        _name_sides(axes, rows, names, self.turned)
        axes.set_xlabel(self.xlabel)
        axes.set_ylabel(self.ylabel)

    def marks(self) -> list[dict[str, Any]]:
        """A square a line: `label` is its row and column, `x` its number, `text` what marks it."""
        marks = []
        for place, number in self.cells.items():
            words = [self.notes.get(place, "")]
            words += ["ring"] if place in self.ring else []
            words += ["hatched"] if place in self.hatched else []
            text = ", ".join(filter(None, words))
            label = f"{place[0]}, {place[1]}"
            marks.append({"mark": "square", "label": label, "x": number, "text": text})
        return marks


def _size(
    rows: Sequence[str], columns: Sequence[str], title: str, noted: bool, turned: bool
) -> tuple[float, float]:
    """Width and height in inches: room for the names, and for numbers and notes in each square."""
    row_name = 1.2 + 0.075 * max(map(len, rows))
    characters = 5 if noted else 0
    column_name = 0.0
    if turned:
        column_name = 0.085 * max(map(len, columns))
    else:
        characters = max(characters, *map(len, columns))
    square = max(0.62, 0.11 * characters)
    width = row_name + max(square * max(len(columns), 3), 0.075 * len(title))
    height = 1.0 + column_name + (0.62 if noted else 0.42) * len(rows)
    return min(9.5, width), height


def _depth(number: float, low: float, white: float, high: float) -> float:
    """Depth of the colour in [-1, 1]: 0 at `white` and for nan, 1 at `high`, -1 at `low`."""
    if not math.isfinite(number):
        return 0.0
    if number < white:
        return max((number - white) / (white - low), -1.0) if low < white else 0.0
    return min((number - white) / (high - white), 1.0)


def _draw_box(axes: Axes, x: int, y: int, half: float = 0.5, **look: Any) -> None:
    axes.add_patch(Rectangle((x - half, y - half), 2 * half, 2 * half, **look))


def _draw_text(axes: Axes, x: int, y: int, text: str, note: str, depth: float, size: float) -> None:
    """A square's number, and its note below it."""
    look: dict[str, Any] = {
        "ha": "center",
        "va": "center",
        "color": "white" if abs(depth) > PALE else "#1a1a1a",
    }
    axes.text(x, y - 0.12 if note else y, text, size=size, **look)
    axes.text(x, y + 0.24, note, size=9, **look)


def _name_sides(axes: Axes, rows: Sequence[str], columns: Sequence[str], turned: bool) -> None:
    size = min(9.5, max(9.0, 300 / len(columns)))
    rotation = 90 if turned else 0
    name_ticks(axes.xaxis, dict(enumerate(columns)), rotation=rotation, size=size)
    name_ticks(axes.yaxis, dict(enumerate(rows)))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
