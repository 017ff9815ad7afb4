"""How a circuit map is drawn: rows of cells from the output down, with a river behind them.

The units of its axes are pixels of the web.
"""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle

from mechreward.base.plain import visible
from mechreward.causal.edges_noun import Edge, Edges
from mechreward.show.circuit_cells import (
    CELL,
    DRAIN,
    INK,
    PALE,
    RIVER,
    SOFT,
    Scale,
    draw_cell,
    draw_sign,
    scale_of,
)
from mechreward.show.circuit_rows import INNER, MOST, Row, part_of_r, rows_of
from mechreward.show.style import BLUE

NARROW = 700  # pixels below which layers stand above their cells, and the river at the left
GAP = 14.0  # pixels between cells
DEEPEST = 66.0  # pixels of a river that carries all of r


def wrapped(text: str, width: float, letter: float) -> list[str]:
    """Lines of so many pixels, where a letter has so many; broken at blanks."""
    lines = [""]
    for word in text.split():
        if lines[-1] and (len(lines[-1]) + 1 + len(word)) * letter > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


class Map:
    """One drawing, from the top down; without axes it is only measured."""

    def __init__(self, edges: Edges, width: float, before: Edges | None = None) -> None:
        self.edges, self.width = edges, width
        self.before: dict[Any, Edge] = {}
        for edge in before.edges if before else ():
            self.before[edge.side, edge.component, edge.part] = edge
        self.narrow = width < NARROW
        self.start = 62.0 if self.narrow else 118.0  # where cells begin
        self.axes: Axes | None = None
        self.y = 0.0
        end = width - 18
        if self.narrow:
            self.cell = (end - self.start - GAP) / 2
            self.river = 34.0
        else:
            inner = any(edge.component.kind in INNER for edge in edges.edges)
            beside = 2 if inner else 1  # cells at the right of the river
            room = end - self.start - 144 - (4 + beside) * GAP
            self.cell = min(176.0, room / (4 + beside))
            self.river = self.start + 4 * (self.cell + GAP) + 48
        self.right = self.river + 96  # where MLPs begin

    def draw(self, axes: Axes | None) -> float:
        """Pixels that it is high."""
        self.axes, self.y = axes, 6.0
        edges = self.edges
        parts = list(edges.readings)
        written = len(edges.of("writer"))
        above = rows_of(edges, "reader", room=max(MOST - written, MOST // (1 + len(parts))))
        taken = sum(len(row.cells) for row in above)
        each = (MOST - taken) // len(parts)
        self._words(edges.counts, 9.5, SOFT)
        self.y += 14
        self._readers(above)
        box = self.y
        self._box()
        for part in parts:
            self._writers(rows_of(edges, "writer", part, each), part, box)
        self._legend()
        return self.y + 8

    def _readers(self, rows: list[Row]) -> None:
        shown: list[Edge] = []
        for row in rows:
            shown += row.cells
        scale = scale_of(shown, log=True)
        for row in rows:
            top = self.y
            self._row(row, scale)
            if not self.narrow and any(edge.component.kind == "all readers" for edge in row.left):
                self._turning_back(top)
            self.y += 20
        ends = f"{1000 * scale.low:g} to {1000 * scale.high:g}"
        self._words(
            "READ BY: change of the next token, thousandths of a nat, when only this reader sees "
            f"the set at its mean; axes {ends}, by orders of magnitude",
            9.5,
            SOFT,
            self.start,
        )
        self.y += 6

    def _turning_back(self, top: float) -> None:
        """Beside the output: what all readers together do to turning back."""
        (edge,) = [one for one in self.edges.edges if one.component.kind == "all readers"]
        if not edge.back_draws:
            return
        low, high = _points(min(edge.back_draws)), _points(max(edge.back_draws))
        bounds = f"[{_points(edge.back.low)}, {_points(edge.back.high)}]"
        x = self.river + 20
        text = f"turning back {_points(edge.back.estimate)} points {bounds}"
        self._text(x, top + 22, text, 9.5, INK)
        self._text(x, top + 41, f"matched sets {low} to {high}", 9.5, SOFT)

    def _writers(self, rows: list[Row], part: str, box: float) -> None:
        edges = self.edges
        reading = edges.readings[part]
        shown: list[Edge] = []
        for row in rows:
            shown += row.cells
        scale = scale_of(shown, log=False)
        begin = self.y
        self.y += 10
        unit = "percent of r" if reading.shown else "parts of r, which may be 0"
        what = "WRITTEN BY"
        if part:
            what = f"WRITTEN BY, {part} at the pre-activation, the norm's scale held"
        self._words(
            f"{what}: part of the correlation with V-hat, r = {_signed(reading.r.estimate)}; "
            f"exact, adds up to r, in {unit}; axes {_signed(scale.low)} to {_signed(scale.high)}, "
            "tick at 0",
            9.5,
            SOFT,
            self.start,
            self.river - 60 if not self.narrow else None,
        )
        self.y += 12
        tops = []
        for row in rows:
            tops.append(self.y)
            self._row(row, scale)
            self.y += self._drop(row, part)
        self._flow(rows, tops, begin, part)

    def _row(self, row: Row, scale: Scale) -> None:
        """A layer: its name, attention at the left, the MLP and its sets at the right."""
        if self.narrow:
            self._text(self.start, self.y + 12, row.name, 9.5, SOFT)
            self.y += 20
        else:
            down = 34 if row.cells else 12
            self._text(18.0, self.y + down, row.name, 10.5, SOFT)
        if not row.cells:
            self._words(row.note, 9.5, SOFT, self.start)
            return
        top = self.y
        per_row = 2 if self.narrow else 4
        cells = row.cells if self.narrow else row.left
        for place, edge in enumerate(cells):
            x = self.start + (place % per_row) * (self.cell + GAP)
            self._cell(edge, x, top + (place // per_row) * (CELL + GAP), scale)
        lines = math.ceil(len(cells) / per_row)
        if not self.narrow:
            for place, edge in enumerate(row.right):
                x = self.right + (place % 2) * (self.cell + GAP)
                self._cell(edge, x, top + (place // 2) * (CELL + GAP), scale)
            lines = max(lines, math.ceil(len(row.right) / 2))
        self.y = top + lines * (CELL + GAP) - GAP
        if row.note:
            self.y += 6
            self._words(row.note, 9.0, SOFT, self.start)

    def _cell(self, edge: Edge, x: float, y: float, scale: Scale) -> None:
        if self.axes is not None:
            before = self.before.get((edge.side, edge.component, edge.part))
            draw_cell(self.axes, self.edges, edge, (x, y, self.cell), scale, before)

    def _box(self) -> None:
        """The set itself."""
        edges = self.edges
        noun = "units of the MLP" if edges.neurons.site.kind == "mlp" else "coordinates of the"
        where = {
            "resid_pre": "residual stream before layer",
            "resid_mid": "residual stream inside layer",
            "resid_post": "residual stream after layer",
            "mlp": "of layer",
        }
        site = edges.neurons.site
        heading = (
            f"{visible(edges.name)}: {len(edges.neurons)} of {edges.neurons.width} {noun} "
            f"{where[site.kind]} {site.layer}"
        )
        room = self.width - 18 - self.start - 32
        phrases = []
        for part, reading in edges.readings.items():
            name = f"Their {part} read-out" if part else "Their read-out"
            low, high = _signed(min(reading.draws)), _signed(max(reading.draws))
            phrases.append(
                f"{name} follows V-hat with r = {_signed(reading.r.estimate)} "
                f"[{_signed(reading.r.low)}, {_signed(reading.r.high)}]; beyond step and length "
                f"{_signed(reading.beyond)}; matched sets {low} to {high}."
            )
        head = wrapped(heading, room, 9.3)
        body = wrapped(" ".join(phrases), room, 7.3)
        tall = 26 + 22 * len(head) + 19 * len(body)
        if self.axes is not None:
            style = "round,pad=0,rounding_size=7"
            box = (self.start, self.y), self.width - 18 - self.start, tall
            look: dict[str, Any] = {"facecolor": PALE, "edgecolor": BLUE, "linewidth": 2.2}
            self.axes.add_patch(FancyBboxPatch(*box, boxstyle=style, zorder=3, **look))
        line = self.y + 27
        for text in head:
            self._text(self.start + 16, line, text, 12.0, BLUE, weight="bold", zorder=5)
            line += 22
        for text in body:
            self._text(self.start + 16, line + 2, text, 9.5, INK, zorder=5)
            line += 19
        self.y += tall

    def _flow(self, rows: list[Row], tops: list[float], begin: float, part: str) -> None:
        """The river from the input up to the set, as wide as the sum so far, and what flows in."""
        axes = self.axes
        if axes is None:
            return
        r = self.edges.readings[part].r.estimate or 1.0
        deepest = DEEPEST / (2 if self.narrow else 1)
        mouths = []  # where the water of each row comes in
        for row, top in zip(rows, tops, strict=True):
            mouths.append(top + self._tall(row) + self._drop(row, part) - 8)
        uppers = [begin, *mouths[:-1]]
        so_far, before = 0.0, ""
        for row, top, mouth, upper in reversed(list(zip(rows, tops, mouths, uppers, strict=True))):
            if not self.narrow:
                self._tributaries(row, mouth, r, top)
            so_far += row.net / r
            half = max(min(so_far, 1.6), 0.0) * deepest / 2
            look: dict[str, Any] = {"facecolor": RIVER, "linewidth": 0, "zorder": 1}
            axes.add_patch(Rectangle((self.river - half, upper), 2 * half, mouth - upper, **look))
            label = part_of_r(self.edges, part, so_far * r)
            if label == before:
                continue
            before = label
            place = max(upper + 24, mouth - 60)
            x = 8.0 if self.narrow else self.river + half + 6
            self._text(x, place, label, 9.0, "#5f7683", zorder=4)

    def _drop(self, row: Row, part: str) -> float:
        """Pixels below a row's cells: room for the thickest bar that leaves them."""
        r = self.edges.readings[part].r.estimate or 1.0
        scores = [abs(edge.score.estimate / r) for edge in row.cells if not edge.within]
        if self.narrow:
            return 22.0
        return 24 + min(max(scores, default=0.0), 1.6) * DEEPEST

    def _tall(self, row: Row) -> float:
        """Pixels of a row's cells."""
        if self.narrow:
            lines = math.ceil(len(row.cells) / 2)
            return 20 + (lines * (CELL + GAP) - GAP if lines else 0.0)
        lines = max(math.ceil(len(row.left) / 4), math.ceil(len(row.right) / 2))
        return lines * (CELL + GAP) - GAP if lines else 0.0

    def _tributaries(self, row: Row, mouth: float, r: float, top: float) -> None:
        """Bars from each cell down and across into the river; what takes away is red."""
        axes = self.axes
        if axes is None:
            return
        sides = [(row.left, 4, self.start), (row.right, 2, self.right)]
        for cells, per_row, start in sides:
            for place, edge in enumerate(cells):
                share = edge.score.estimate / r
                thick = min(abs(share), 1.6) * DEEPEST
                if thick < 0.35 or edge.component.kind in INNER:
                    continue
                x = start + (place % per_row + 0.5) * (self.cell + GAP) - GAP / 2
                y = top + (place // per_row + 1) * (CELL + GAP) - GAP
                colour = RIVER if share > 0 else DRAIN
                if edge.is_beyond:
                    colour = "#9cc5e3" if share > 0 else "#eeb293"
                half = thick / 2
                toward = self.river
                down = [(x - half, y), (x + half, y), (x + half, mouth), (x - half, mouth)]
                left, right = min(x - half, toward), max(x + half, toward)
                across = [
                    (left, mouth - thick),
                    (right, mouth - thick),
                    (right, mouth),
                    (left, mouth),
                ]
                for corners in (down, across):
                    axes.add_patch(Polygon(corners, facecolor=colour, linewidth=0, zorder=2))

    def _legend(self) -> None:
        self.y += 4
        draws = self.edges.draws
        entries = [
            ("dot", "this set, 95% interval over problems"),
            ("band", f"range of {draws} matched sets"),
            ("box", "beyond them, corrected over cells"),
            ("river", "residual stream: width = net part so far"),
            ("drain", "takes away"),
        ]
        if self.before:
            entries.insert(1, ("hollow", "as it was"))
        x = 18.0
        for kind, text in entries:
            long = 60 + 6.7 * len(text)
            if x + long > self.width - 10 and x > 18:
                x = 18.0
                self.y += 26
            if self.axes is not None:
                draw_sign(self.axes, kind, x, self.y + 12)
            self._text(x + 46, self.y + 16, text, 9.5, SOFT)
            x += long
        self.y += 34

    def _words(
        self, text: str, size: int | float, colour: str, x: float = 18.0, end: float | None = None
    ) -> None:
        """Lines of words from `x` to the right margin, or to `end`."""
        room = (end or self.width - 18) - x
        for line in wrapped(text, room, 0.69 * size):
            self._text(x, self.y + 14, line, size, colour, zorder=5)
            self.y += 2 * size

    def _text(
        self, x: float, y: float, text: str, size: int | float, colour: str, **how: Any
    ) -> None:
        if self.axes is not None:
            self.axes.text(x, y, text, size=size, color=colour, **how)


def _points(change: float) -> str:
    """A change of a probability in points, with its sign."""
    if not math.isfinite(change):
        return "–"
    return f"{round(100 * change, 2) + 0:+.2f}".replace("-", "−")


def _signed(value: float) -> str:
    """Two decimals with a true minus sign; "–" where there is no number."""
    if not math.isfinite(value):
        return "–"
    return f"{round(value, 2) + 0:.2f}".replace("-", "−")
