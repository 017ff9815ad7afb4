"""Estimates with their intervals, one line an arm, as SVG: what a table says, at a glance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from mechreward.base.errors import require
from mechreward.show.style import BLACK, blank, looks, styled, to_svg
from mechreward.stats import Interval


@dataclass(frozen=True)
class Line:
    """One line of the picture: a score under a `label`, drawn as `arm` looks, with the single
    `draws` of a control and a `mark` where chance is for this line alone."""

    label: str
    score: Interval
    arm: str = "value"
    draws: tuple[float, ...] = ()
    mark: float | None = None


def estimates(
    groups: Mapping[str, Sequence[Line]],
    xlabel: str,
    *,
    chance: float | None = None,
    named: str = "chance",
) -> str:
    """Dots with intervals in `groups` (heading -> lines; "" for none), each number printed at its
    right.

    A thin dashed line stands at `chance`, called `named`; a short upright tick at a line's own
    `mark`. An estimate without an interval is a dot alone; one that does not exist (NaN) shows "–".
    Draws of a control are small dots.

    Raises:
        MechRewardError: no line, or no number to draw.
    """
    lines = [line for group in groups.values() for line in group]
    numbers = [number for line in lines for number in _numbers(line) if math.isfinite(number)]
    require(bool(numbers), f"none of {len(lines)} lines has a number: there is nothing to draw.")
    look = looks(line.arm for line in lines)
    marked = any(line.mark is not None for line in lines)
    rows = len(lines) + sum(bool(name) for name in groups)
    with styled():
        figure, axes = blank(8.4, 1.0 + 0.26 * max(rows, 2))
        axes.grid(axis="x")
        if chance is not None:
            axes.axvline(chance, color="#777777", linewidth=0.9, linestyle=(0, (4, 3)))
            up = axes.get_xaxis_transform()
            axes.text(
                chance,
                1.01,
                named,
                transform=up,
                ha="center",
                va="bottom",
                size=8.5,
                color="#555555",
            )
        y, labels = 0, {}
        for name, group in groups.items():
            if name:
                left = axes.get_yaxis_transform()
                axes.text(-0.01, y, name, transform=left, ha="right", va="center", weight="bold")
                y += 1
            for line in group:
                colour, _, marker = look[line.arm]
                axes.scatter(
                    line.draws, [y] * len(line.draws), s=12, color=colour, alpha=0.4, linewidths=0
                )
                axes.hlines(y, line.score.low, line.score.high, color=colour, linewidth=2)
                axes.plot(
                    line.score.estimate,
                    y,
                    marker=marker,
                    markersize=6.5,
                    color=colour,
                    markeredgecolor="white",
                )
                if line.mark is not None:
                    axes.vlines(line.mark, y - 0.36, y + 0.36, color=BLACK, linewidth=1.4)
                text = _said(line.score)
                axes.text(
                    1.015, y, text, transform=axes.get_yaxis_transform(), va="center", size=8.5
                )
                labels[y], y = line.label, y + 1
        axes.set_yticks(list(labels), list(labels.values()))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(y - 0.4, -0.6)
        ends = [*numbers, *([] if chance is None else [chance])]
        room = 0.04 * (max(ends) - min(ends)) or 0.1
        axes.set_xlim(min(ends) - room, max(ends) + room)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.set_xlabel(xlabel + (" (upright tick: chance)" if marked else ""))
        axes.spines["left"].set_visible(False)
        return to_svg(figure)


def _numbers(line: Line) -> list[float]:
    mark = [] if line.mark is None else [line.mark]
    return [line.score.estimate, line.score.low, line.score.high, *line.draws, *mark]


def _said(score: Interval) -> str:
    """The numbers of a line, with a true minus sign."""
    if math.isnan(score.estimate):
        return "–"
    bounded = not (math.isnan(score.low) or math.isnan(score.high))
    said = (
        f"{_digits(score.estimate)} [{_digits(score.low)}, {_digits(score.high)}]"
        if bounded
        else _digits(score.estimate)
    )
    return said.replace("-", "−")


def _digits(number: float) -> str:
    return f"{round(number, 2) + 0.0:.2f}"
