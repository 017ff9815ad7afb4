"""One restrained look for all figures: what each arm looks like, a blank figure, and SVG text that
never changes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, VERMILLION, BLACK = (
    "#0072B2",
    "#D55E00",
    "#000000",
)  # Okabe and Ito's palette, safe for colour blindness

# arm -> colour, dash, marker. The sets under test are strong, the nulls grey, told apart by dash
# and marker.
ARMS: dict[str, tuple[str, Any, str]] = {
    "value": (BLUE, "-", "o"),
    "dopamine": (VERMILLION, "-", "s"),
    "baseline": (BLACK, "-", "D"),
    "matched": ("#4d4d4d", "--", "^"),
    "matched_displacement": ("#4d4d4d", ":", ">"),
    "matched_dopamine": ("#8a5a3c", "--", "^"),
    "mean_difference": ("#A6298C", "-", "X"),
    "l1_penalised": ("#1795A8", (0, (5, 1.5)), "*"),
    "gradient_x_activation": ("#6A3D9A", ":", "h"),
    "correlation": ("#B8860B", "-", "D"),
    "td_over_tokens": ("#1a1a1a", (0, (3, 1, 1, 1)), "s"),
    "random": ("#767676", "-.", "v"),
    "sink_free_random": ("#767676", ":", "<"),
    "rotated": ("#9C6A00", "--", "p"),
    "magnitude": ("#007A5A", "-.", "P"),
    "shuffled": ("#8c8c8c", (0, (1, 2)), "d"),
}
NULLS = (
    *("matched", "matched_displacement", "matched_dopamine", "random", "sink_free_random"),
    *("rotated", "magnitude", "shuffled"),
)
OTHERS: tuple[tuple[str, Any, str], ...] = (
    ("#6A3D9A", "-", "*"),
    ("#B0578D", "--", "X"),
    ("#7A4B2A", "-.", "h"),
    ("#3A8BB8", ":", "p"),
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


def looks(arms: Iterable[str]) -> dict[str, tuple[str, Any, str]]:
    """Colour, dash and marker of every arm; arms without a fixed look share four more, in order of
    name."""
    names = sorted(set(arms))
    strangers = [name for name in names if name not in ARMS]
    return {
        name: ARMS[name] if name in ARMS else OTHERS[strangers.index(name) % len(OTHERS)]
        for name in names
    }


def order(arm: str) -> tuple[int, str]:
    """Sort key of an arm: the sets under test, then what they are compared with, then the nulls."""
    if arm in NULLS:
        return 3 + NULLS.index(arm), arm
    return ("value", "dopamine").index(arm) if arm in ("value", "dopamine") else 2, arm


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's defaults with our style, whatever the user has set; their settings come back at
    the end."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of `width` by `height` inches with one pair of axes; no pyplot, so no window and no
    global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def to_svg(figure: Figure) -> str:
    """The `<svg>` element alone, fit for a page: no prolog, no metadata, no address but the
    namespaces."""
    out = io.StringIO()
    figure.savefig(
        out,
        format="svg",
        transparent=True,
        metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
    )
    text = out.getvalue()
    return text[text.index("<svg") :]
