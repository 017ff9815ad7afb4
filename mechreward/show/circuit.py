"""The circuit map: the model as a grid, the residual stream as a river, each cell a bullet chart.

Drawings of nodes and links are unreadable at 25 nodes. Here a row is a layer, a cell a component: a
dot with its interval, beside the range of the matched sets. What is beyond them is blue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from mechreward.base.errors import of_kind
from mechreward.causal.edges_noun import LEVEL, Edges
from mechreward.show.circuit_map import Map
from mechreward.show.picture import INCH, Picture


@dataclass(frozen=True, repr=False)
class CircuitPanel:
    """The whole map on one pair of axes, whose units are pixels of the web.

    Parameters
    ----------
    edges
        What `causal.edges.edges` measured.
    before
        The same set's map before an intervention, as hollow dots; None (the default) for none.
    """

    edges: Edges
    before: Edges | None = None

    @property
    def title(self) -> str:
        """Nothing stands above it: the verdict is the picture's title."""
        return ""

    @property
    def wide(self) -> bool:
        """It takes a whole row."""
        return True

    def height(self, width: float) -> float:
        """Inches that it needs where it is so wide."""
        return Map(self.edges, width * INCH, self.before).draw(None) / INCH

    def draw(self, axes: Axes, width: float) -> None:
        """Draw on axes that have so many inches."""
        pixels = width * INCH
        axes.set_axis_off()
        drawn = Map(self.edges, pixels, self.before).draw(axes)
        axes.set_xlim(0, pixels)
        axes.set_ylim(drawn, 0)

    def marks(self) -> list[dict[str, Any]]:
        """Every mark: a cell's estimate with its interval, and the range of its matched sets."""
        lines: list[dict[str, Any]] = []
        for edge in self.edges.edges:
            label = self.edges.label(edge)
            beyond = "beyond the matched sets" if edge.is_beyond else ""
            about = {"label": label, "x": edge.score.estimate, "text": beyond}
            about |= {"low": edge.score.low, "high": edge.score.high}
            lines.append({"mark": edge.side, **about})
            ends = {"low": min(edge.draws), "high": max(edge.draws)}
            lines.append({"mark": f"{edge.side}, matched sets", "label": label, **ends})
        return lines


def circuit(edges: Edges, before: Edges | None = None) -> Picture:
    """The circuit map of a neuron set: who writes it below, who reads it above.

    A row is a layer, a cell a component. Its dot is the set's number with a 95% interval, the grey
    bar the range of the matched sets; a cell beyond them is blue. The river is the residual stream,
    as wide as what has been written so far of the correlation with V-hat. Layers in which nothing
    is beyond the matched sets are folded where there are more than 30 cells.

    Parameters
    ----------
    edges
        What `causal.edges.edges` measured, under an intervention or not.
    before
        The same set's map before the intervention, which is drawn as hollow dots; None (the
        default) for none.

    Returns
    -------
    Picture
        Its title is the verdict.

    Raises
    ------
    MechRewardError
        Something else than `Edges`.
    """
    of_kind("edges", edges, Edges, "mechreward.edges measures them")
    if before is not None:
        of_kind("before", before, Edges, "mechreward.edges measures them")
    panel = CircuitPanel(edges, before)
    return Picture(edges.sentence, [panel], caption(edges), f"{edges.sentence}. {edges.counts}")


def caption(edges: Edges) -> str:
    """What the marks, the bands and the controls are."""
    return (
        "Dot: the set, with its 95% interval over problems. Grey bar: the range of "
        f"{edges.draws} sets of as many neurons that nobody chose, matched in magnitude (error "
        f"{edges.match_error:.2f} in log size). Blue: beyond all cells' matched sets, two-sided, "
        f"p at most {LEVEL:g} corrected over the cells of its side. Writers: part of Pearson's r "
        "between the read-out and V-hat, exact, on problems that the read-out was not fitted to. "
        "Readers: change of the next token when only this reader sees the set at its mean, at all "
        "positions, all behind it run again."
    )
