"""The cells of a circuit map: bullet charts, and the signs of the legend."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle

from mechreward.base.plain import visible
from mechreward.causal.edges_noun import Edge, Edges
from mechreward.show.circuit_rows import number
from mechreward.show.style import BLUE

HOLLOW: dict[str, Any] = {"marker": "o", "markersize": 7, "markerfacecolor": "none"}
CELL = 56.0  # pixels: a cell's height
INK, SOFT, FAINT = "#1f1f1f", "#5c5c5c", "#b4b4b4"
RIVER, DRAIN, PALE, BAND = "#dbe5ea", "#f3d9cb", "#eaf2fa", "#cfcfcf"


@dataclass(frozen=True)
class Scale:
    """From a cell's numbers to its line: linear, or by orders of magnitude."""

    low: float
    high: float
    log: bool

    def at(self, value: float) -> float:
        """Place in [0, 1]; what lies outside is put at the end."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(max(value, low)), math.log10(low), math.log10(high)
        return min(max((value - low) / (high - low), 0.0), 1.0)


def scale_of(cells: list[Edge], log: bool) -> Scale:
    """One that holds every estimate, interval and matched set."""
    numbers = []
    for edge in cells:
        bounds = (edge.score.estimate, edge.score.low, edge.score.high, *edge.draws)
        numbers += [bound for bound in bounds if math.isfinite(bound)]
    high = max(numbers, default=0.0)
    if not log:
        low = min(0.0, *numbers) if numbers else 0.0
        reach = max(high - low, 0.02)
        return Scale(low - 0.04 * reach, max(high, 0.0) + 0.04 * reach, False)
    top = 10 ** math.ceil(math.log10(max(high, 1e-6)))
    return Scale(top * 1e-4, top, True)


def draw_cell(
    axes: Axes,
    edges: Edges,
    edge: Edge,
    place: tuple[float, float, float],
    scale: Scale,
    before: Edge | None = None,
) -> None:
    """A bullet chart in its box.

    Parameters
    ----------
    axes
        In pixels.
    edges
        The map.
    edge
        The cell's.
    place
        Left and upper end, and width.
    scale
        Of its line.
    before
        The same cell of an earlier map, as a hollow dot; None (the default) for none.
    """
    x, y, width = place
    colour, weight = INK, "normal"
    border = {"edgecolor": FAINT, "linewidth": 0.9}
    if edge.is_beyond:
        colour, weight = BLUE, "bold"
        border = {"edgecolor": BLUE, "linewidth": 2.2}
    look: dict[str, Any] = {"facecolor": "white", "zorder": 3, **border}
    style = "round,pad=0,rounding_size=5"
    axes.add_patch(FancyBboxPatch((x, y), width, CELL, boxstyle=style, **look))
    name = visible(edges.label(edge).removesuffix(f" ({edge.part})"))
    figures = number(edges, edge)
    letter = 8.7 if edge.is_beyond else 7.4
    room = int((width - 20) / letter) - len(figures)
    if len(name) > room:
        name = f"{name[: max(room - 1, 1)]}…"
    words: dict[str, Any] = {"size": 9.5, "color": colour, "weight": weight, "zorder": 5}
    axes.text(x + 8, y + 20, name, **words)
    axes.text(x + width - 8, y + 20, figures, ha="right", **words)
    line = (x + 9, y + 39, width - 18)
    draw_bullet(axes, edge, line, scale)
    if before is not None:
        dot = line[0] + line[2] * scale.at(before.score.estimate)
        axes.plot([dot], [line[1]], color=SOFT, zorder=6, **HOLLOW)


def draw_bullet(axes: Axes, edge: Edge, place: tuple[float, float, float], scale: Scale) -> None:
    """The line of a cell: range of the matched sets, interval, estimate, and a tick at 0."""
    x, y, width = place
    colour = BLUE if edge.is_beyond else INK
    axes.plot([x, x + width], [y, y], color="#e6e6e6", linewidth=1.5, zorder=4)
    low = x + width * scale.at(min(edge.draws))
    high = x + width * scale.at(max(edge.draws))
    band: dict[str, Any] = {"facecolor": BAND, "linewidth": 0, "zorder": 4}
    axes.add_patch(Rectangle((low - 1, y - 6), high - low + 2, 12, **band))
    if not scale.log:
        zero = x + width * scale.at(0.0)
        axes.plot([zero, zero], [y - 9, y + 9], color="#8a8a8a", linewidth=0.9, zorder=4)
    if math.isfinite(edge.score.low) and math.isfinite(edge.score.high):
        ends = [x + width * scale.at(bound) for bound in (edge.score.low, edge.score.high)]
        axes.plot(ends, [y, y], color=colour, linewidth=1.8, zorder=5)
    dot = x + width * scale.at(edge.score.estimate)
    axes.plot([dot], [y], marker="o", markersize=5.5, color=colour, zorder=6)


def draw_sign(axes: Axes, kind: str, x: float, y: float) -> None:
    """What stands before an entry of the legend: "dot", "hollow", "band", "box", "river" or
    "drain"."""
    if kind == "dot":
        axes.plot([x, x + 36], [y, y], color=INK, linewidth=1.8)
        axes.plot([x + 18], [y], marker="o", markersize=5.5, color=INK)
        return
    if kind == "hollow":
        axes.plot([x + 18], [y], color=SOFT, **HOLLOW)
        return
    looks: dict[str, dict[str, Any]] = {
        "band": {"facecolor": BAND, "linewidth": 0},
        "box": {"facecolor": "white", "edgecolor": BLUE, "linewidth": 2.2},
        "river": {"facecolor": RIVER, "linewidth": 0},
        "drain": {"facecolor": DRAIN, "linewidth": 0},
    }
    axes.add_patch(Rectangle((x, y - 7), 36, 14, **looks[kind]))
