"""One restrained look for all pictures: palette, a blank figure, numbers as text, SVG that never
changes.

Every picture is one `<svg>` element as text, byte-identical for equal input: no date, fixed ids,
no pyplot and none of the user's matplotlib settings. Text stays text (it can be searched, selected
and read aloud), laid out with the DejaVu Sans that comes with matplotlib; where a viewer lacks it,
narrower fonts stand in. The ground is white, so that a picture reads on a dark page too.
"""

from __future__ import annotations

import colorsys
import io
import math
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import Collection
from matplotlib.colors import LinearSegmentedColormap, to_rgba, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from mechreward.base.plain import visible

# Okabe and Ito's palette, safe for colour blindness.
BLUE = "#0072B2"
VERMILLION = "#D55E00"
BLACK = "#000000"
GREY = "#777777"

# Darker than the palette, so that white text reads on them.
DEEP_BLUE = "#005A8E"
DEEP_VERMILLION = "#A34700"
# Numbers from -1 to 1, white at 0.
SIGNED = LinearSegmentedColormap.from_list(
    "signed", [DEEP_VERMILLION, "#F4A582", "white", "#82BBE0", DEEP_BLUE]
)

DASHED = (0, (4, 3))  # chance
DARKEST, LIGHTEST = 0.09, 0.96  # lightness of the dark ground, and of what was black


class Look(NamedTuple):
    """What an arm looks like wherever it is drawn: matplotlib's colour, line style and marker."""

    colour: str
    dash: Any
    marker: str


# The sets under test are strong, the nulls grey, told apart by dash and marker.
ARMS: dict[str, Look] = {
    "value": Look(BLUE, "-", "o"),
    "dopamine": Look(VERMILLION, "-", "s"),
    "baseline": Look(BLACK, "-", "D"),
    "matched": Look("#4d4d4d", "--", "^"),
    "matched_displacement": Look("#4d4d4d", ":", ">"),
    "matched_dopamine": Look("#8a5a3c", "--", "^"),
    "mean_difference": Look("#A6298C", "-", "X"),
    "l1_penalised": Look("#1795A8", (0, (5, 1.5)), "8"),
    "gradient_x_activation": Look("#6A3D9A", ":", "h"),
    "correlation": Look("#B8860B", "-", "D"),
    "td_over_tokens": Look("#1a1a1a", (0, (3, 1, 1, 1)), "s"),
    "random": Look("#767676", "-.", "v"),
    "sink_free_random": Look("#767676", ":", "<"),
    "rotated": Look("#9C6A00", "--", "p"),
    "magnitude": Look("#007A5A", "-.", "P"),
    "shuffled": Look("#8c8c8c", (0, (1, 2)), "d"),
}
OTHERS = (
    Look("#6A3D9A", "-", "8"),
    Look("#B0578D", "--", "X"),
    Look("#7A4B2A", "-.", "h"),
    Look("#3A8BB8", ":", "p"),
)
TESTED = ("value", "dopamine")
NULLS = (
    "matched",
    "matched_displacement",
    "matched_dopamine",
    "random",
    "sink_free_random",
    "rotated",
    "magnitude",
    "shuffled",
)
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "mechreward",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a "$" in an arm's name is a dollar
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 9.5,
    "hatch.linewidth": 0.6,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#222222",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": "#444444",
    "ytick.color": "#333333",
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Reference:
    """A straight line across a picture, such as chance or an unchanged model.

    Parameters
    ----------
    at
        Where it stands on the axis of the numbers.
    label
        What it is called; "" for a line that needs no name.
    low, high
        Ends of its band; nan (the default) for none.
    dashed
        A thin grey dashed line (the default), for chance; else a black one, for a measurement.
    """

    at: float
    label: str = ""
    low: float = math.nan
    high: float = math.nan
    dashed: bool = True

    def look(self) -> dict[str, Any]:
        """Matplotlib's arguments for the line."""
        if self.dashed:
            return {"color": GREY, "linewidth": 0.9, "linestyle": DASHED}
        return {"color": BLACK, "linewidth": 1.0}

    def has_band(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)


def looks(arms: Iterable[str]) -> dict[str, Look]:
    """Colour, dash and marker of every arm.

    Parameters
    ----------
    arms
        Names of the arms in one picture. Those without a fixed look share four more, in order of
        name.

    Returns
    -------
    dict
        Look of each arm, by name.
    """
    names = sorted(set(arms))
    strangers = [name for name in names if name not in ARMS]
    chosen = {}
    for name in names:
        if name in ARMS:
            chosen[name] = ARMS[name]
        else:
            chosen[name] = OTHERS[strangers.index(name) % len(OTHERS)]
    return chosen


def order(arm: str) -> tuple[int, str]:
    """Sort key of an arm: the sets under test, then what they are compared with, then the nulls."""
    if arm in TESTED:
        return TESTED.index(arm), arm
    if arm in NULLS:
        return len(TESTED) + 1 + NULLS.index(arm), arm
    return len(TESTED), arm


def decimals(number: float) -> str:
    """Two decimals with a true minus sign and no minus zero; "–" where there is no number."""
    if not math.isfinite(number):
        return "–"
    rounded = round(float(number), 2) + 0.0
    return f"{rounded:.2f}".replace("-", "−")


def percent(number: float) -> str:
    """A share as a percentage with one decimal; "–" where there is no number."""
    return f"{number:.1%}" if math.isfinite(number) else "–"


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's defaults with our style, whatever the user has set; their settings come back at
    the end."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Text is as it was written; letters that DejaVu lacks are the viewer's.
        warnings.filterwarnings("ignore", "Glyph ", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; no pyplot, so no window and no global state.

    Parameters
    ----------
    width, height
        Size in inches.

    Returns
    -------
    tuple of Figure and Axes
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def name_ticks(axis: Axis, names: Mapping[int, str] | Mapping[float, str], **look: Any) -> None:
    """Write names at places of an axis, hidden characters shown."""
    axis.set_ticks(list(names), [visible(name, keep="\n") for name in names.values()], **look)


def head(axes: Axes, title: str, pad: float = 6.0) -> None:
    """Write a panel's title, so many points above its axes, in as many lines as it needs."""
    figure: Any = axes.get_figure(root=True)
    inches = axes.get_window_extent().width / figure.dpi
    text = textwrap.fill(title, max(16, int(10.5 * inches)))
    axes.set_title(text, loc="left", size=10.5, weight="bold", color="#222222", pad=pad)


def to_svg(figure: Figure) -> str:
    """The `<svg>` element alone, on white or the dark ground, fit for a page.

    No prolog, no metadata, and no address but the namespaces. Hidden characters of every text are
    shown (`base.plain`); those of ticks by `name_ticks`, for an axis writes them anew.
    """
    show_hidden(figure)
    text = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", facecolor=figure.get_facecolor(), metadata=no_metadata)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def show_hidden(figure: Figure) -> None:
    """Show hidden characters of every text (`base.plain`)."""
    for artist in figure.findobj(Text):
        if isinstance(artist, Text):
            artist.set_text(visible(artist.get_text(), keep="\n"))


def darken(figure: Figure) -> None:
    """Turn a figure that was drawn on white dark: light and dark change places, hues stay.

    Every colour keeps its distance from the ground, so that a scale from white to blue becomes one
    from the dark ground to a light blue, and what stood out stands out.
    """
    figure.draw_without_rendering()  # ticks are made when they are drawn
    figure.set_facecolor(_turned(figure.get_facecolor()))
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_tick_params(
                color=_turned(matplotlib.rcParams["xtick.color"]),
                labelcolor=_turned(matplotlib.rcParams["ytick.color"]),
                grid_color=_turned(matplotlib.rcParams["grid.color"]),
            )
    ticks = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                ticks |= {tick, tick.label1, tick.label2, tick.tick1line, tick.tick2line}
                ticks.add(tick.gridline)
    for artist in figure.findobj():
        if artist not in ticks and artist is not figure.patch:
            _turn(artist)


def _turn(artist: Artist) -> None:
    if isinstance(artist, Text):
        artist.set_color(_turned(artist.get_color()))
        ground = artist.get_bbox_patch()
        if ground is not None:
            _turn(ground)
    elif isinstance(artist, Line2D):
        markers = artist.get_markerfacecolor(), artist.get_markeredgecolor()
        artist.set_color(_turned(artist.get_color()))
        artist.set_markerfacecolor(_turned(markers[0]))
        artist.set_markeredgecolor(_turned(markers[1]))
    elif isinstance(artist, Patch):
        ends = artist.get_facecolor(), artist.get_edgecolor()
        artist.set_facecolor(_turned(ends[0]))
        artist.set_edgecolor(_turned(ends[1]))
    elif isinstance(artist, Collection):
        faces, edges = artist.get_facecolor(), artist.get_edgecolor()
        artist.set_facecolor([_turned(colour) for colour in to_rgba_array(faces)])
        artist.set_edgecolor([_turned(colour) for colour in to_rgba_array(edges)])


def _turned(colour: Any) -> tuple[float, float, float, float]:
    """The colour with its lightness turned: white becomes the dark ground, black nearly white."""
    red, green, blue, alpha = to_rgba(colour)
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    turned = LIGHTEST - (LIGHTEST - DARKEST) * lightness
    # As colourful as before: what is nearly white is nearly grey, whatever its saturation.
    chroma = saturation * (1 - abs(2 * lightness - 1))
    saturation = min(1.0, chroma / (1 - abs(2 * turned - 1)))
    return (*colorsys.hls_to_rgb(hue, turned, saturation), alpha)
