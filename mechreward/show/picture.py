"""`Picture`: panels that are computed once and drawn as often, as wide and as dark as needed.

As the displays of scikit-learn a picture holds what it shows, and a restyled one is not computed
again. Panels flow as text does: beside each other where there is room, below each other on a
telephone, with letters of at least nine points either way.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechreward.base.errors import one_of, require, whole
from mechreward.base.files import write_atomic
from mechreward.base.plain import visible
from mechreward.show.style import darken, head, show_hidden, styled, to_svg

INCH = 96  # pixels of the web
WIDE, NARROW = 1280, 420  # pixels: a desk, a telephone
LEAST = 3.9  # inches that a panel needs, so that two stand on a page of 8
ENDINGS = ("svg", "png", "pdf", "html", "csv")
COLUMNS = ("panel", "mark", "label", "x", "y", "low", "high", "text")
LOOK = (
    ".mechreward-picture{container-type:inline-size;margin:12px 0;background:%(ground)s}"
    ".mechreward-picture svg{max-width:100%%;height:auto}"
    ".mechreward-picture figcaption{font:15px/1.5 system-ui,'DejaVu Sans',sans-serif;"
    "color:%(ink)s;max-width:60em;padding:6px 0}"
    "@container (max-width:640px){.mechreward-picture .wide{display:none}"
    ".mechreward-picture .narrow{display:block!important}}"
)


@runtime_checkable
class Panel(Protocol):
    """One pair of axes: what is on it, and how it is drawn.

    Attributes
    ----------
    title : str
        What stands above it.
    wide : bool
        Whether it takes a whole row.
    """

    @property
    def title(self) -> str: ...

    @property
    def wide(self) -> bool: ...

    def draw(self, axes: Axes, width: float) -> None:
        """Draw on axes that have so many inches."""
        ...

    def height(self, width: float) -> float:
        """Inches that it needs where it is so wide."""
        ...

    def marks(self) -> list[dict[str, Any]]:
        """Every mark that is drawn, by `COLUMNS`; what is left out does not exist."""
        ...


@dataclass(frozen=True, repr=False)
class Picture:
    """A picture with its numbers and its words.

    Attributes
    ----------
    title : str
        What it shows, in one line.
    panels : sequence of Panel
        In reading order.
    caption : str
        What the marks, the bands and the controls are.
    alt : str
        What a reader who does not see it should know: one or two sentences with the numbers.
    columns : int
        Panels in a row at most, where there is room.
    is_dark : bool
        Whether it is drawn on a dark ground.
    figure : matplotlib.figure.Figure
        Drawn for a page of 1280 pixels. It is made once, so that what is changed in it is kept and
        saved.
    data : DataFrame
        A line a mark: its `panel`, its kind (`mark`), its `label`, where it stands (`x`, `y`),
        `low` and `high` of its interval, and its `text`. NaN or "" where it has none.
    """

    title: str
    panels: Sequence[Panel]
    caption: str
    alt: str
    columns: int = 3
    is_dark: bool = False

    def __post_init__(self) -> None:
        require(bool(self.panels), f"{self.title}: there is nothing to draw.")

    def __repr__(self) -> str:
        return (
            f"Picture({visible(self.title)}; {len(self.panels)} panels, {len(self.data)} marks; "
            ".save(path), .data, .caption)"
        )

    @cached_property
    def figure(self) -> Figure:
        return self._drawn(WIDE)

    @cached_property
    def data(self) -> pd.DataFrame:
        lines = []
        for panel in self.panels:
            for mark in panel.marks():
                lines.append({"panel": panel.title, "label": "", "text": "", **mark})
        frame = pd.DataFrame(lines).reindex(columns=list(COLUMNS))
        for name in ("x", "y", "low", "high"):
            frame[name] = frame[name].astype(float)
        return frame

    def dark(self) -> Picture:
        """The same on a dark ground."""
        return replace(self, is_dark=True)

    def plot(self, ax: Any = None) -> Figure:
        """Draw into axes of your own.

        Parameters
        ----------
        ax : Axes, or array or sequence of Axes
            As many as there are panels. None (the default): a new figure.

        Returns
        -------
        matplotlib.figure.Figure
            The figure of the axes.

        Raises
        ------
        MechRewardError
            Other than one pair of axes a panel.
        """
        if ax is None:
            return self._drawn(WIDE)
        several = [ax] if isinstance(ax, Axes) else list(np.ravel(ax))
        are_axes = all(isinstance(axes, Axes) for axes in several)
        require(
            are_axes and len(several) == len(self.panels),
            f"ax: {len(self.panels)} pairs of matplotlib axes are needed, one a panel; "
            f"{len(several)} were given: plt.subplots({len(self.panels)}) makes them.",
        )
        with styled():
            for axes, panel in zip(several, self.panels, strict=True):
                _draw(panel, axes, float(axes.get_window_extent().width / axes.figure.dpi))
        return several[0].get_figure(root=True)  # pyright: ignore[reportReturnType]

    def save(self, path: Path | str, *, width: int = WIDE) -> Path:
        """Write it, as the ending of the path says: svg, png, pdf, html, or csv for its data.

        Parameters
        ----------
        path : str or Path
            Where to. The same picture is the same bytes of SVG.
        width : int, default 1280
            Pixels of the page. A page of HTML has a wide and a narrow one in any case.

        Raises
        ------
        MechRewardError
            Another ending, a width below 320, or a file that cannot be written.
        """
        width = whole("width", width, 320)
        ending = Path(path).suffix.lstrip(".").lower()
        one_of("ending of a picture", ending, ENDINGS)
        if ending == "csv":
            return write_atomic(path, self.data.to_csv(index=False))
        if ending == "html":
            return write_atomic(path, self._page())
        if ending == "svg":
            return write_atomic(path, self.svg(width))
        figure = self._at(width)
        data = io.BytesIO()
        kept = {"CreationDate": None} if ending == "pdf" else {}
        with styled():
            show_hidden(figure)
            ground = figure.get_facecolor()
            figure.savefig(data, format=ending, facecolor=ground, dpi=2 * INCH, metadata=kept)
        return write_atomic(path, data.getvalue())

    def svg(self, width: int = WIDE) -> str:
        """One `<svg>` element for a page of so many pixels, with its words for those who do not see
        it."""
        with styled():
            svg = to_svg(self._at(width))
        opening, rest = svg.split(">", 1)
        words = f"<title>{_text(self.alt)}</title><desc>{_text(self.caption)}</desc>"
        return f'{opening} role="img" aria-label="{_text(self.alt)}">{words}{rest}'

    def _repr_html_(self) -> str:
        ink = {"ground": "#171717", "ink": "#dddddd"} if self.is_dark else {}
        look = LOOK % (ink or {"ground": "#ffffff", "ink": "#333333"})
        return (
            f'<figure class="mechreward-picture"><style>{look}</style>'
            f'<div class="wide">{self.svg()}</div>'
            f'<div class="narrow" style="display:none">{self.svg(NARROW)}</div>'
            f"<figcaption>{_text(self.caption)}</figcaption></figure>"
        )

    def _page(self) -> str:
        """A page that loads nothing: the picture, its words, and its data."""
        table = self.data.map(lambda cell: visible(cell) if isinstance(cell, str) else cell)
        ground = "#171717;color:#dddddd" if self.is_dark else "#ffffff"
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{_text(self.title)}</title></head>"
            f'<body style="margin:16px;background:{ground}">{self._repr_html_()}'
            "<details><summary>Every mark</summary>"
            f"{table.to_html(index=False, na_rep='', escape=True)}</details></body></html>\n"
        )

    def _at(self, width: int) -> Figure:
        """The figure for a page of so many pixels; that of `figure` as it was left."""
        return self.figure if width == WIDE else self._drawn(width)

    def _drawn(self, width: int) -> Figure:
        """A figure for a page of so many pixels, in which panels flow."""
        inches = width / INCH
        most = min(self.columns, len(self.panels))
        columns = max(1, min(most, int(inches / LEAST)))
        rows = _flow(self.panels, columns)
        heights = []
        for row in rows:
            each = inches if row[0].wide else inches / columns
            heights.append(max(panel.height(each) for panel in row))
        with styled():
            figure = Figure(figsize=(inches, 0.45 + sum(heights)), layout="constrained")
            figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)  # pyright: ignore
            title = _wrapped(self.title, inches)
            figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold")
            # Every row is laid out alone, so that long names narrow no other.
            parts: Any = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)
            stripes = parts[:, 0]
            for stripe, row in zip(stripes, rows, strict=True):
                places = 1 if row[0].wide else columns
                grid = stripe.add_gridspec(1, places)
                for place, panel in enumerate(row):
                    _draw(panel, stripe.add_subplot(grid[0, place]), inches / places)
            show_hidden(figure)
            if self.is_dark:
                darken(figure)
            _settle(figure)
        return figure


def _settle(figure: Figure) -> None:
    """Keep the layout, to a ten-thousandth: the solver is not the same in its last digits each
    time, and a second layout moves axes by a hair. Every file would change."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")
    for part in figure.subfigs:
        ends: Any = part.bbox_relative
        ends.p0, ends.p1 = np.round(ends.p0, 4), np.round(ends.p1, 4)
    for axes in figure.axes:
        place = axes.get_position()
        axes.set_position(np.round(place.bounds, 4).tolist())
    for text in figure.texts:
        text.set_position(np.round(text.get_position(), 4).tolist())


def _draw(panel: Panel, axes: Axes, width: float) -> None:
    head(axes, panel.title)
    panel.draw(axes, width)


def _flow(panels: Sequence[Panel], columns: int) -> list[list[Panel]]:
    """Panels by rows; wide ones alone."""
    rows: list[list[Panel]] = []
    for panel in panels:
        is_full = not rows or rows[-1][0].wide or len(rows[-1]) == columns
        if panel.wide or is_full:
            rows.append([])
        rows[-1].append(panel)
    return rows


def _wrapped(text: str, inches: float) -> str:
    """Broken where a line is full, at blanks."""
    letters = int(inches * 9)
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > letters:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _text(text: str) -> str:
    """As it may stand in a page, and in an attribute."""
    return escape(visible(text, keep="\n"))


__all__ = ["Panel", "Picture"]
