"""Panels of text as it was written, and of small steps below it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from unicodedata import east_asian_width

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mechreward.base.errors import require
from mechreward.base.plain import visible
from mechreward.show.style import (
    BLACK,
    BLUE,
    DEEP_BLUE,
    DEEP_VERMILLION,
    GREY,
    head,
    looks,
)
from mechreward.show.tokens import tint

LETTER = 0.0805  # inches that a letter takes
LINE = 0.215  # inches from line to line
BADGE = 7  # letters of a badge
MONO = ("DejaVu Sans Mono", "monospace")


@dataclass(frozen=True)
class Said:
    """A part of a text, such as a step.

    Parameters
    ----------
    label
        What stands at its left; "" for nothing.
    badge
        A number with its sign beside that; "" for none.
    certain
        Whether the badge has a colour; grey within noise.
    pieces
        Its tokens' texts, `[token]`.
    numbers
        Number of each token, `[token]`; nan for none.
    shades
        The tint of each, `[token]` in [-1, 1]; nan for none.
    faint
        How many tokens at its beginning are context, in grey; 0 by default.
    """

    label: str
    badge: str
    certain: bool
    pieces: Sequence[str]
    numbers: Sequence[float]
    shades: Sequence[float]
    faint: int = 0


@dataclass(frozen=True)
class Placed:
    """Where a stretch of text stands, in letters and lines."""

    part: int
    token: int
    x: int
    y: int
    text: str


@dataclass(frozen=True)
class Text:
    """A panel of text in lines.

    Parameters
    ----------
    title
        What stands above it.
    parts
        In reading order; each begins a line.
    margin
        Letters at the left, for labels and badges.
    wide
        Whether it takes a whole row; True by default.
    """

    title: str
    parts: Sequence[Said]
    margin: int
    wide: bool = True

    def height(self, width: float) -> float:
        """Inches: as many as there are lines."""
        lines = max((place.y for place in self._placed(self._letters(width))), default=0) + 1
        return 0.5 + LINE * lines

    def draw(self, axes: Axes, width: float) -> None:
        """Every token on its tint, labels and badges at the left."""
        head(axes, self.title)
        letters = self._letters(width)
        placed = self._placed(letters)
        lines = max((place.y for place in placed), default=0) + 1
        axes.set_xlim(0, letters)
        axes.set_ylim(lines, 0)
        axes.axis("off")
        first: dict[int, int] = {}
        for place in placed:
            first.setdefault(place.part, place.y)
            part = self.parts[place.part]
            shade = part.shades[place.token]
            if not math.isnan(shade) and place.text:
                box = Rectangle((place.x, place.y + 0.04), _wide(place.text), 0.92)
                box.set(facecolor=tint(float(shade)), edgecolor="white", linewidth=0.5)
                axes.add_patch(box).set_in_layout(False)
            colour = "#6f6f6f" if place.token < part.faint else "#1a1a1a"
            self._write(axes, place.x, place.y, place.text, color=colour)
        for number, y in first.items():
            part = self.parts[number]
            self._write(axes, 0, y, part.label, color="#444444")
            if part.badge:
                self._draw_badge(axes, self.margin - BADGE, y, part)

    def marks(self) -> list[dict[str, Any]]:
        """A token a line: its number in the panel, and what it is tinted by; and the badges."""
        marks = []
        index = 0
        for part in self.parts:
            if part.badge:
                known = "badge" if part.certain else "badge within noise"
                marks.append({"mark": known, "label": part.label, "text": part.badge})
            for piece, number in zip(part.pieces, part.numbers, strict=True):
                place = {"x": index, "y": number, "text": visible(piece, keep="\n")}
                marks.append({"mark": "token", "label": part.label, **place})
                index += 1
        return marks

    def _letters(self, width: float) -> int:
        return max(self.margin + 12, int((width - 0.3) / LETTER))

    def _placed(self, letters: int) -> list[Placed]:
        """Tokens in lines: a part begins a line, and so does what is behind a line break."""
        placed = []
        y = 0
        for number, part in enumerate(self.parts):
            x = self.margin
            for token, piece in enumerate(part.pieces):
                *broken, last = visible(piece, keep="\n").split("\n")
                pieces = [(text + "↵", True) for text in broken] + [(last, False)]
                for text, ends in pieces:
                    for cut in _cut(text, letters - self.margin):
                        if x + _wide(cut) > letters:
                            x, y = self.margin, y + 1
                        placed.append(Placed(number, token, x, y, cut))
                        x += _wide(cut)
                    is_last = token == len(part.pieces) - 1 and not last
                    if ends and not is_last:
                        x, y = self.margin, y + 1
            y += 1
        return placed

    def _draw_badge(self, axes: Axes, x: int, y: int, part: Said) -> None:
        colour = "#5f5f5f"
        if part.certain:
            colour = DEEP_VERMILLION if part.badge.startswith("−") else DEEP_BLUE
        box = Rectangle((x, y + 0.1), BADGE - 1, 0.8, facecolor=colour, edgecolor="none")
        axes.add_patch(box).set_in_layout(False)
        middle = x + (BADGE - 1) / 2
        self._write(axes, middle, y, part.badge, color="white", ha="center", weight="bold")

    def _write(self, axes: Axes, x: float | int, y: int, text: str, **look: Any) -> None:
        """Text in a line. A blank alone needs no artist; the layout knows the size of the panel."""
        if text.strip():
            look |= {"va": "center", "family": list(MONO), "size": 9.5}
            axes.text(x, y + 0.52, text, **look).set_in_layout(False)


@dataclass(frozen=True)
class Steps:
    """A small panel: a number of every state as steps.

    Parameters
    ----------
    title
        What the number is.
    x, y
        Numbers of the states, and the number of each, `[state]`.
    low, high
        Its bounds, `[state]`; nan for none.
    arm
        Whose colour it has; "value" by default.
    span
        Ends of the vertical axis; None (the default) for all that is drawn.
    """

    title: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    low: Sequence[float] | np.ndarray
    high: Sequence[float] | np.ndarray
    arm: str = "value"
    span: tuple[float, float] | None = None
    wide: bool = False

    def __post_init__(self) -> None:
        require(len(self.x) > 0, f"{self.title}: there is no state to draw.")

    def height(self, width: float) -> float:
        """Inches, whatever the width."""
        return 1.5

    def draw(self, axes: Axes, width: float) -> None:
        """Level from state to state, with upright bars."""
        colour = looks([self.arm])[self.arm].colour
        head(axes, self.title)
        axes.grid(axis="y")
        axes.step(self.x, self.y, where="mid", color=colour, linewidth=1.5)
        axes.vlines(self.x, self.low, self.high, color=colour, alpha=0.6, linewidth=1.6)
        axes.plot(self.x, self.y, linestyle="", marker="o", markersize=4, color=colour)
        axes.set_xlabel("state (0: before the answer)")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if self.span is not None:
            axes.set_ylim(self.span)

    def marks(self) -> list[dict[str, Any]]:
        """A state a line."""
        marks = []
        for x, y, low, high in zip(self.x, self.y, self.low, self.high, strict=True):
            place = {"x": float(x), "y": float(y), "low": float(low), "high": float(high)}
            marks.append({"mark": "state", "label": self.title, **place})
        return marks


@dataclass(frozen=True)
class Points:
    """A panel of many dots.

    Parameters
    ----------
    title
        What stands above it.
    x, y
        Where they are, `[dot]`.
    xlabel, ylabel
        What the axes are.
    arm
        Whose colour they have; "value" by default.
    """

    title: str
    x: np.ndarray
    y: np.ndarray
    xlabel: str
    ylabel: str
    arm: str = "value"
    wide: bool = False

    def height(self, width: float) -> float:
        """Inches, whatever the width."""
        return 2.9

    def draw(self, axes: Axes, width: float) -> None:
        """Dots that are seen through."""
        head(axes, self.title)
        axes.grid(axis="both")
        colour = looks([self.arm])[self.arm].colour
        axes.scatter(self.x, self.y, s=14, color=colour, alpha=0.45, linewidths=0)
        axes.set_xlabel(self.xlabel)
        axes.set_ylabel(self.ylabel)

    def marks(self) -> list[dict[str, Any]]:
        """A dot a line."""
        marks = []
        for x, y in zip(self.x, self.y, strict=True):
            marks.append({"mark": "dot", "label": self.title, "x": float(x), "y": float(y)})
        return marks


@dataclass(frozen=True)
class Among:
    """A panel of a histogram with one number marked.

    Parameters
    ----------
    title
        What stands above it.
    values
        What is counted, `[n]`.
    at
        The number that is marked.
    name
        What it is called.
    xlabel, ylabel
        What the axes are.
    """

    title: str
    values: np.ndarray
    at: float
    name: str
    xlabel: str
    ylabel: str
    wide: bool = False
    bins: int = field(default=30)

    def height(self, width: float) -> float:
        """Inches, whatever the width."""
        return 2.9

    def draw(self, axes: Axes, width: float) -> None:
        """Grey bars, a line in colour, and its name above it."""
        head(axes, self.title, 18.0)
        counts, edges = self._bars()
        axes.grid(axis="y")
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color="#c9c9c9", edgecolor=GREY)
        axes.axvline(self.at, color=BLUE, linewidth=2.2)
        low, high = axes.get_xlim()
        is_right = self.at > (low + high) / 2
        look = {"ha": "right" if is_right else "left", "va": "bottom", "size": 9, "color": BLUE}
        axes.text(self.at, 1.01, self.name, transform=axes.get_xaxis_transform(), **look)
        axes.set_xlabel(self.xlabel)
        axes.set_ylabel(self.ylabel)

    def marks(self) -> list[dict[str, Any]]:
        """The bars, and the number that is marked."""
        marks = []
        counts, edges = self._bars()
        middles = (edges[1:] + edges[:-1]) / 2
        for x, y in zip(middles, counts, strict=True):
            marks.append({"mark": "bar", "label": self.ylabel, "x": float(x), "y": float(y)})
        marks.append({"mark": "upright line", "label": self.name, "x": self.at})
        return marks

    def _bars(self) -> tuple[np.ndarray, np.ndarray]:
        return np.histogram(self.values[np.isfinite(self.values)], self.bins)


@dataclass(frozen=True)
class Words:
    """A panel of a few paragraphs.

    Parameters
    ----------
    title
        What stands above it.
    lines
        Heading -> its text.
    """

    title: str
    lines: dict[str, str]
    wide: bool = True

    def height(self, width: float) -> float:
        """Inches: as many as there are lines."""
        return 0.5 + LINE * len(self._wrapped(width))

    def draw(self, axes: Axes, width: float) -> None:
        """Lines from the top."""
        head(axes, self.title)
        axes.axis("off")
        lines = self._wrapped(width)
        axes.set_ylim(len(lines), 0)
        axes.set_xlim(0, 1)
        for y, line in enumerate(lines):
            axes.text(0, y + 0.5, line, va="center", family=list(MONO), size=9.5, color=BLACK)

    def marks(self) -> list[dict[str, Any]]:
        """A paragraph a line."""
        return [{"mark": "text", "label": key, "text": text} for key, text in self.lines.items()]

    def _wrapped(self, width: float) -> list[str]:
        lines: list[str] = []
        for heading, text in self.lines.items():
            whole = visible(f"{heading}: {text}")
            lines += textwrap.wrap(whole, int((width - 0.3) / LETTER), subsequent_indent="  ")
        return lines


def _wide(text: str) -> int:
    """Letters that a text takes: two for one of East Asia."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _cut(text: str, most: int) -> list[str]:
    """Stretches of at most so many letters; one that is empty for nothing."""
    most = max(most // 2, 4) if _wide(text) > len(text) else most
    return [text[start : start + most] for start in range(0, len(text), most)] or [""]


__all__ = ["Among", "Points", "Said", "Steps", "Text", "Words"]
