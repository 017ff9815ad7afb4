"""Curves: lines with bands over an axis, one look for each arm; single answers, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechreward.base.errors import require
from mechreward.show.style import (
    BLACK,
    BLUE,
    DASHED,
    GREY,
    NULLS,
    TESTED,
    VERMILLION,
    Look,
    Reference,
    blank,
    head,
    looks,
    name_ticks,
    order,
    styled,
    to_svg,
)

MOST_LINES = 4  # that can be told apart in one panel
Points = Float[np.ndarray, " point"] | Sequence[float | int]


@dataclass(frozen=True)
class Line:
    """One line of a picture and the band around it.

    Parameters
    ----------
    label
        Its name in the legend.
    x, y
        Places and heights of its points, `[point]`; the line is broken where `y` is nan.
    low, high
        Ends of the band at each point, `[point]`.
    arm
        Whose colour, dash and marker it has (`style.looks`); "value" by default.
    hollow
        White markers, for a second line of the same arm; False by default.
    dense
        So many points that none is marked; False by default.
    draws
        Single draws of a control as (x, y), small dots; none by default.
    """

    label: str
    x: Points
    y: Points
    low: Points
    high: Points
    arm: str = "value"
    hollow: bool = False
    dense: bool = False
    draws: Sequence[tuple[float, float]] = ()


def curve(
    lines: Sequence[Line],
    xlabel: str,
    ylabel: str,
    *,
    ticks: Mapping[float | int, str],
    reference: Reference | None = None,
    logarithmic: bool = False,
    falling: bool = False,
    upright: float | None = None,
) -> str:
    """Lines with bands over one axis, the arms under test drawn on top and named first.

    Parameters
    ----------
    lines
        What is drawn, in any order; of lines of one arm the first is named first.
    xlabel, ylabel
        What the axes are.
    ticks
        Place on the horizontal axis -> what is written there.
    reference
        A level line with its band; None (the default) for none.
    logarithmic
        Whether the horizontal axis is; False by default.
    falling
        Whether it runs from high to low; False by default.
    upright
        Where a thin upright line stands; None (the default) for none.

    Returns
    -------
    str
        One `<svg>` element.

    Raises
    ------
    MechRewardError
        No line.
    """
    require(bool(lines), "no line was given: there is nothing to draw.")
    look = looks(line.arm for line in lines)
    with styled():
        figure, axes = blank(8.4, 3.8)
        axes.grid(axis="y")
        if reference is not None:
            _draw_reference(axes, reference)
        if upright is not None:
            axes.axvline(upright, color=BLACK, linewidth=0.8)
        by_weight = sorted(lines, key=lambda line: order(line.arm))
        for line in reversed(by_weight):
            _draw_line(axes, line, look[line.arm])
        if logarithmic:
            axes.set_xscale("log")
        if falling:
            axes.invert_xaxis()
        name_ticks(axes.xaxis, ticks)
        axes.minorticks_off()
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        # Drawn last is on top, and should be named first.
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside right upper", handlelength=3)
        return to_svg(figure)


def _draw_reference(axes: Axes, reference: Reference) -> None:
    if reference.has_band():
        axes.axhspan(reference.low, reference.high, color=BLACK, alpha=0.06, linewidth=0)
    axes.axhline(reference.at, label=reference.label or None, **reference.look())


def _draw_line(axes: Axes, line: Line, look: Look) -> None:
    """A band, paler where many lines lie on each other, and the line with its points."""
    tested = line.arm in TESTED
    if tested:
        shade = 0.16
    elif line.arm in NULLS:
        shade = 0.09
    else:
        shade = 0.04
    axes.fill_between(line.x, line.low, line.high, color=look.colour, alpha=shade, linewidth=0)
    axes.plot(
        line.x,
        line.y,
        color=look.colour,
        linestyle=look.dash,
        linewidth=2.2 if tested else 1.3,
        marker="" if line.dense else look.marker,
        markersize=5 if tested else 4,
        markerfacecolor="white" if line.hollow else look.colour,
        label=line.label,
    )


@dataclass(frozen=True)
class Curve:
    """A panel of at most four lines; more are drawn as small multiples.

    Parameters
    ----------
    title
        What stands above it.
    lines
        What is drawn; the first is named first.
    xlabel, ylabel
        What the axes are.
    references
        Level lines; none by default.
    ticks
        Place on the horizontal axis -> what is written there; None (the default): as matplotlib
        does.
    logarithmic, falling
        Whether the horizontal axis is logarithmic, or runs from high to low; False by default.
    span
        Ends of the vertical axis; None (the default) for all that is drawn.
    between
        Ends of the horizontal axis; None (the default) for all that is drawn.
    bars
        Whether bounds are upright bars and not a band, for lines that cross; False by default.
    diagonal
        Name of a line from (0, 0) to (1, 1); "" (the default) for none.
    wide
        Whether it takes a whole row; False by default.
    """

    title: str
    lines: Sequence[Line]
    xlabel: str
    ylabel: str
    references: Sequence[Reference] = ()
    ticks: Mapping[float, str] | None = None
    logarithmic: bool = False
    falling: bool = False
    span: tuple[float, float] | None = None
    between: tuple[float, float] | None = None
    bars: bool = False
    diagonal: str = ""
    wide: bool = False

    def __post_init__(self) -> None:
        require(bool(self.lines), f"{self.title}: no line was given: there is nothing to draw.")
        require(
            len(self.lines) <= MOST_LINES,
            f"{self.title}: {len(self.lines)} lines cannot be told apart; {MOST_LINES} at most.",
        )

    def height(self, width: float) -> float:
        """Inches: the axes, the names of the lines, the ticks."""
        return 2.5 + 0.21 * self._rows(width)

    def draw(self, axes: Axes, width: float) -> None:
        """The lines, the first on top, and their names above."""
        axes.grid(axis="y")
        look = looks(line.arm for line in self.lines)
        for reference in self.references:
            _draw_reference(axes, reference)
        if self.diagonal:
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle=DASHED)
            axes.lines[-1].set_label(self.diagonal)
        for line in reversed(self.lines):
            colour = look[line.arm].colour
            for x, y in line.draws:
                axes.plot(x, y, marker="o", markersize=3.2, color=colour, alpha=0.45)
            if self.bars:
                _draw_bars(axes, line, look[line.arm])
            else:
                _draw_line(axes, line, look[line.arm])
        self._draw_axes(axes)
        handles, labels = axes.get_legend_handles_labels()
        rows = self._rows(width)
        head(axes, self.title, 6.0 + 15 * rows)
        axes.legend(
            handles[::-1],
            labels[::-1],
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            borderaxespad=0.1,
            ncols=self._columns(width),
            columnspacing=1.2,
            labelspacing=0.35,
            handlelength=2.4,
            fontsize=9,
        )

    def marks(self) -> list[dict[str, Any]]:
        """Points of the lines, then the references."""
        marks = []
        for line in self.lines:
            for x, y, low, high in zip(line.x, line.y, line.low, line.high, strict=True):
                place = {"x": x, "y": y, "low": low, "high": high}
                marks.append({"mark": "point", "label": line.label, **place})
            for x, y in line.draws:
                marks.append({"mark": "draw", "label": line.label, "x": x, "y": y})
        for reference in self.references:
            at = {"y": reference.at, "low": reference.low, "high": reference.high}
            marks.append({"mark": "level line", "label": reference.label, **at})
        if self.diagonal:
            for end in (0.0, 1.0):
                marks.append({"mark": "diagonal", "label": self.diagonal, "x": end, "y": end})
        return marks

    def _draw_axes(self, axes: Axes) -> None:
        if self.logarithmic:
            axes.set_xscale("log")
        if self.falling:
            axes.invert_xaxis()
        if self.ticks is not None:
            name_ticks(axes.xaxis, self.ticks)
        if self.span is not None:
            axes.set_ylim(self.span)
        if self.between is not None:
            axes.set_xlim(self.between)
        axes.minorticks_off()
        axes.set_xlabel(self.xlabel)
        axes.set_ylabel(self.ylabel)

    def _names(self) -> list[str]:
        names = [line.label for line in self.lines]
        names += [reference.label for reference in self.references]
        return [name for name in [*names, self.diagonal] if name]

    def _columns(self, width: float) -> int:
        """Names beside each other: as many as there is room for the longest."""
        longest = 0.5 + 0.077 * max(map(len, self._names()), default=1)
        return max(1, min(3, int((width - 0.7) / longest)))

    def _rows(self, width: float) -> int:
        return -(-len(self._names()) // self._columns(width))


def _draw_bars(axes: Axes, line: Line, look: Look) -> None:
    """Points with upright bars, joined by a thin line."""
    axes.vlines(line.x, line.low, line.high, color=look.colour, alpha=0.55, linewidth=1.4)
    axes.plot(
        line.x,
        line.y,
        color=look.colour,
        linestyle=look.dash,
        linewidth=1.6 if line.arm in TESTED else 1.1,
        marker=look.marker,
        markersize=6,
        markerfacecolor="white" if line.hollow else look.colour,
        label=line.label,
    )


@dataclass(frozen=True)
class Trace:
    """One answer, step by step.

    Parameters
    ----------
    title
        What is written above it.
    steps
        Numbers of its steps, `[step]`.
    delta
        TD error of each step, `[step]`, in [-1, 1].
    activation
        The neuron at the end of each step, `[step]`, in its standard deviations.
    """

    title: str
    steps: Points
    delta: Points
    activation: Points


def step_traces(traces: Sequence[Trace]) -> str:
    """One panel an answer: bars are delta of its steps, the line is the neuron.

    Parameters
    ----------
    traces
        Answers, in the order of their panels, two in a row. All panels have the same axes.

    Returns
    -------
    str
        One `<svg>` element.

    Raises
    ------
    MechRewardError
        No answer.
    """
    require(bool(traces), "no answer was given: there is nothing to draw.")
    reach = 1.0
    for trace in traces:
        reach = max(reach, *np.abs(trace.activation).tolist())
    rows = (len(traces) + 1) // 2
    with styled():
        figure = Figure(figsize=(8.4, 0.5 + 2.1 * rows), layout="constrained")
        panels = figure.subplots(rows, 2, squeeze=False).flatten()
        for axes, trace in zip(panels, traces, strict=False):
            _draw_trace(axes, trace, reach)
        for axes in panels[len(traces) :]:
            axes.set_visible(False)
        return to_svg(figure)


def _draw_trace(axes: Axes, trace: Trace, reach: float) -> None:
    colours = np.where(np.asarray(trace.delta) < 0, VERMILLION, BLUE)
    axes.bar(trace.steps, trace.delta, 0.6, color=colours, alpha=0.35)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_ylim(-1.05, 1.05)
    axes.set_xticks(trace.steps)
    axes.set_xlabel("step")
    axes.set_ylabel("delta (bars)")
    axes.set_title(trace.title, size=9.5)
    right = axes.twinx()
    right.plot(trace.steps, trace.activation, color=BLACK, marker="o", markersize=4, linewidth=1.3)
    right.set_ylim(-1.05 * reach, 1.05 * reach)
    right.set_ylabel("neuron (line, sd)")
    right.spines["right"].set_visible(True)
