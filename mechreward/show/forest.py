"""Forest plot: estimates with their intervals, one line each, in groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mechreward.base.errors import require
from mechreward.show.style import (
    BLACK,
    Look,
    Reference,
    blank,
    decimals,
    head,
    looks,
    name_ticks,
    styled,
    to_svg,
)
from mechreward.stats import Interval

SIZES = {"X": 8.0, "P": 8.0, "D": 6.0}  # markers that look as large as a dot of 6.5


@dataclass(frozen=True)
class Estimate:
    """One line of a forest plot.

    Parameters
    ----------
    label
        Its name, at the left.
    score
        The estimate and its interval. Without bounds it is a dot alone; nan is no mark at all.
    arm
        Whose colour and marker it has (`style.looks`); "value" by default.
    draws
        Single draws of a control, as small dots; none by default.
    mark
        Where chance is for this line alone: an upright tick; None (the default) for no tick.
    text
        What stands at the right; None (the default) for the score with two decimals.
    """

    label: str
    score: Interval
    arm: str = "value"
    draws: tuple[float, ...] = ()
    mark: float | None = None
    text: str | None = None

    def numbers(self) -> list[float]:
        """Every number that is drawn and exists."""
        numbers = [self.score.estimate, self.score.low, self.score.high, *self.draws]
        if self.mark is not None:
            numbers.append(self.mark)
        return [number for number in numbers if math.isfinite(number)]

    def written(self) -> str:
        """What stands beside the line."""
        return _score_text(self.score) if self.text is None else self.text


def forest(
    groups: Mapping[str, Sequence[Estimate]],
    xlabel: str,
    *,
    reference: Reference | None = None,
    shares: bool = False,
) -> str:
    """Dots with intervals in groups, the numbers of each line at its right.

    Parameters
    ----------
    groups
        Heading -> estimates; "" for a group without a heading.
    xlabel
        What the numbers are.
    reference
        An upright line with its band and its name above; None (the default) for none.
    shares
        Whether the axis runs from 0% to 100%; by default it holds what is drawn.

    Returns
    -------
    str
        One `<svg>` element.

    Raises
    ------
    MechRewardError
        No estimate, or no number to draw.
    """
    panel = Forest("", groups, xlabel, reference, shares)
    with styled():
        figure, axes = blank(8.4, _height(groups))
        panel.draw(axes, 8.4)
        return to_svg(figure)


@dataclass(frozen=True)
class Forest:
    """A panel of dots with intervals in groups, the numbers of each line at its right.

    Parameters
    ----------
    title
        What stands above it.
    groups
        Heading -> estimates; "" for a group without a heading.
    xlabel
        What the numbers are.
    reference
        An upright line with its band and its name above; None (the default) for none.
    shares
        Whether the axis runs from 0% to 100%; by default it holds what is drawn.
    tick
        What the upright tick of a line is; "chance" by default.
    wide
        Whether it takes a whole row; False by default.
    """

    title: str
    groups: Mapping[str, Sequence[Estimate]]
    xlabel: str
    reference: Reference | None = None
    shares: bool = False
    tick: str = "chance"
    wide: bool = False

    def __post_init__(self) -> None:
        # An axis from 0% to 100% needs no numbers to have its ends.
        require(
            self.shares or bool(self._numbers()),
            f"none of {len(self._estimates())} lines has a number: there is nothing to draw.",
        )

    def height(self, width: float) -> float:
        """Inches: more where names stand above their lines."""
        if not self._stacked(width):
            return 0.75 + _height(self.groups)
        lines = 0.0
        for heading, group in self.groups.items():
            lines += len(group) + 0.6 * bool(heading)
        return 1.5 + 0.44 * lines

    def draw(self, axes: Axes, width: float) -> None:
        """Every line, from the first down."""
        axes.grid(axis="x")
        if self.title:
            head(axes, self.title, 6.0 if self.reference is None else 18.0)
        if self.reference is not None:
            _draw_reference(axes, self.reference)
        if self._stacked(width):
            self._draw_stacked(axes)
        else:
            self._draw_beside(axes)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        if self.shares:
            axes.set_xlim(-0.01, 1.01)
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        else:
            axes.set_xlim(_ends(self._numbers(), self.reference))
        places = 4 if width < 6 else 6
        axes.xaxis.set_major_locator(MaxNLocator(places, steps=[1, 2, 5, 10]))
        marked = any(estimate.mark is not None for estimate in self._estimates())
        between = "\n" if width < 6 else " "
        axes.set_xlabel(self.xlabel + (f"{between}(upright tick: {self.tick})" if marked else ""))

    def _draw_beside(self, axes: Axes) -> None:
        """Names at the left of the axis, numbers at its right."""
        look = looks(estimate.arm for estimate in self._estimates())
        labels = {}
        y = 0.0
        for heading, group in self.groups.items():
            if heading:
                _write(axes, -0.01, y, heading, ha="right", weight="bold")
                y += 1
            for estimate in group:
                _draw_estimate(axes, y, estimate, look[estimate.arm])
                _write(axes, 1.015, y, estimate.written(), size=9, linespacing=1.25)
                labels[y] = estimate.label
                y += 1
        name_ticks(axes.yaxis, labels)
        axes.set_ylim(max(y, 1) - 0.4, -0.6)

    def _draw_stacked(self, axes: Axes) -> None:
        """Names and numbers above each line, where there is little room beside it."""
        look = looks(estimate.arm for estimate in self._estimates())
        axes.set_yticks([])
        y = 0.0
        for heading, group in self.groups.items():
            if heading:
                _write(axes, 0.0, y - 0.25, heading, weight="bold")
                y += 0.6
            for estimate in group:
                ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
                _write(axes, 0.0, y - 0.4, estimate.label, size=9, bbox=ground)
                text = estimate.written().replace("\n", ", ")
                _write(axes, 1.0, y - 0.4, text, size=9, ha="right", bbox=ground)
                _draw_estimate(axes, y, estimate, look[estimate.arm], 0.24)
                y += 1
        axes.set_ylim(max(y, 1) - 0.5, -0.75)

    def _stacked(self, width: float) -> bool:
        longest = [0, 0]
        for estimate in self._estimates():
            text = max(map(len, estimate.written().split("\n")))
            longest = [max(longest[0], len(estimate.label)), max(longest[1], text)]
        return 0.085 * sum(longest) > 0.45 * width

    def marks(self) -> list[dict[str, Any]]:
        """Estimates with their intervals, draws, ticks, and the reference."""
        marks = []
        for heading, group in self.groups.items():
            for estimate in group:
                label = f"{heading}: {estimate.label}" if heading else estimate.label
                score = estimate.score
                place = {"x": score.estimate, "low": score.low, "high": score.high}
                marks.append({"mark": "dot", "label": label, **place, "text": estimate.written()})
                for draw in estimate.draws:
                    marks.append({"mark": "draw", "label": label, "x": draw})
                if estimate.mark is not None:
                    marks.append({"mark": self.tick, "label": label, "x": estimate.mark})
        if self.reference is not None:
            line = self.reference
            place = {"x": line.at, "low": line.low, "high": line.high}
            marks.append({"mark": "upright line", "label": line.label, **place})
        return marks

    def _estimates(self) -> list[Estimate]:
        return [estimate for group in self.groups.values() for estimate in group]

    def _numbers(self) -> list[float]:
        return [number for estimate in self._estimates() for number in estimate.numbers()]


def _height(groups: Mapping[str, Sequence[Estimate]]) -> float:
    """Inches: more for each line where texts at the right have two lines of their own."""
    lines = 0
    line_height = 0.26
    for heading, group in groups.items():
        lines += len(group) + bool(heading)
        if any("\n" in (estimate.text or "") for estimate in group):
            line_height = 0.3
    return 1.1 + line_height * max(lines, 2)


def _ends(numbers: Sequence[float], reference: Reference | None) -> tuple[float, float]:
    """Ends of an axis that holds all numbers and the reference, with some room beside them."""
    held = list(numbers)
    if reference is not None:
        held.append(reference.at)
    room = 0.04 * (max(held) - min(held)) or 0.1
    return min(held) - room, max(held) + room


def _draw_reference(axes: Axes, reference: Reference) -> None:
    if reference.has_band():
        axes.axvspan(reference.low, reference.high, color=BLACK, alpha=0.07, linewidth=0)
    axes.axvline(reference.at, **reference.look())
    axes.text(
        reference.at,
        1.01,
        reference.label,
        transform=axes.get_xaxis_transform(),
        ha="center",
        va="bottom",
        size=9,
        color="#444444",
    )


def _draw_estimate(
    axes: Axes, y: float, estimate: Estimate, look: Look, half: float = 0.36
) -> None:
    """Draws behind, then the interval, its estimate, and chance."""
    score = estimate.score
    heights = y + half / 0.36 * _spread(len(estimate.draws))
    axes.scatter(estimate.draws, heights, s=12, color=look.colour, alpha=0.45, linewidths=0)
    axes.hlines(y, score.low, score.high, color=look.colour, linewidth=2)
    axes.plot(
        score.estimate,
        y,
        marker=look.marker,
        markersize=SIZES.get(look.marker, 6.5),
        color=look.colour,
        markeredgecolor="white",
        markeredgewidth=0.8,
    )
    if estimate.mark is not None:
        axes.vlines(estimate.mark, y - half, y + half, color=BLACK, linewidth=1.4)


def _spread(draws: int) -> np.ndarray:
    """Offsets [draws] in (-.22, .22) that keep equal draws apart: steps of the golden ratio fill a
    range evenly and are the same every time."""
    return 0.44 * ((0.618 * np.arange(draws)) % 1 - 0.5)


def _write(axes: Axes, x: float, y: float, text: str, **look: Any) -> None:
    """Text beside line `y`, with `x` 0 at the left end of the axis and 1 at the right."""
    axes.text(x, y, text, transform=axes.get_yaxis_transform(), va="center", **look)


def _score_text(score: Interval) -> str:
    text = decimals(score.estimate)
    if math.isnan(score.estimate) or math.isnan(score.low) or math.isnan(score.high):
        return text
    return f"{text} [{decimals(score.low)}, {decimals(score.high)}]"
