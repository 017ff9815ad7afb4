"""What a circuit map shows: rows of cells, a layer each, and which silent ones are folded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mechreward.causal.edges_noun import Edge, Edges

MOST = 30  # cells of a map
IDLE = 0.01  # of the largest number of a side (our choice)
ENDS = ("embedding", "biases", "unembedding", "all readers")  # cells without a layer
INNER = ("set", "units")  # cells that are parts of the MLP beside them


@dataclass(frozen=True)
class Row:
    """One row of the map: a layer's cells, or several layers folded into a line.

    Attributes
    ----------
    name : str
        What stands at its left.
    left : tuple of Edge
        Cells of attention, or of the model's ends.
    right : tuple of Edge
        The MLP, and sets of its units.
    note : str
        What is folded, in words; empty where nothing is.
    net : float
        The sum of all scores of the row, folded ones too.
    """

    name: str
    left: tuple[Edge, ...]
    right: tuple[Edge, ...]
    note: str
    net: float

    @property
    def cells(self) -> tuple[Edge, ...]:
        """All that are drawn."""
        return self.left + self.right


def rows_of(edges: Edges, side: str, part: str = "", room: int = MOST) -> list[Row]:
    """Rows of one side, from the output of the model down to its input.

    Parameters
    ----------
    edges
        The map.
    side
        "writer" or "reader".
    part
        Of the writers, `Edge.part`; "" by default.
    room
        Cells at most, 30 by default. Layers without an edge beyond the matched sets are folded,
        those that weigh least first; then single silent cells.

    Returns
    -------
    list of Row
    """
    layers: dict[int, list[Edge]] = {}
    for edge in edges.of(side):
        is_none = edge.component.kind == "biases" and _is_small(edges, edge)
        if edge.part == part and not is_none:
            layers.setdefault(_height(edges, edge), []).append(edge)
    order = sorted(layers, reverse=True)
    folded = _folded(layers, room, _idle(layers))
    shown = {}
    left = room
    for height in order:
        cells = [] if height in folded else layers[height]
        shown[height] = cells
        left -= len(cells)
    if left < 0:
        shown = _thinned(shown, room)
    rows: list[Row] = []
    waiting: list[int] = []  # folded layers that lie side by side
    for height in order:
        if height in folded:
            waiting.append(height)
            continue
        if waiting:
            rows.append(_line(edges, waiting, layers))
            waiting = []
        rows.append(_row(edges, height, layers[height], shown[height]))
    if waiting:
        rows.append(_line(edges, waiting, layers))
    return rows


def share(edges: Edges, edge: Edge) -> float:
    """A writer's part of r in percent; NaN where r's interval holds 0, for a part of nothing
    explodes."""
    reading = edges.readings[edge.part]
    if not reading.shown:
        return math.nan
    return 100 * edge.score.estimate / reading.r.estimate


def number(edges: Edges, edge: Edge) -> str:
    """A cell's number as it is written there."""
    if edge.side == "writer":
        return part_of_r(edges, edge.part, edge.score.estimate)
    return thousandths(edge.score.estimate)


def part_of_r(edges: Edges, part: str, score: float) -> str:
    """In percent of r, or as it is where r may be 0."""
    reading = edges.readings[part]
    if reading.shown:
        rounded = round(100 * score / reading.r.estimate) + 0
        return f"{rounded:.0f}%".replace("-", "−")
    return f"{round(score, 2) + 0:+.2f}".replace("-", "−")


def thousandths(nats: float) -> str:
    """Thousandths of a nat, in two digits or more."""
    size = 1000 * nats
    if size < 0.01:
        return "0"
    if size < 10:
        return f"{size:.2f}".removesuffix(".00")
    return f"{size:,.0f}"


def _height(edges: Edges, edge: Edge) -> int:
    """The layer; the model's ends lie below and above all of them."""
    kind = edge.component.kind
    if kind in ("embedding", "biases"):
        return -1
    if kind in ENDS:
        return edges.shape[0]
    return edge.component.layer


def _is_small(edges: Edges, edge: Edge) -> bool:
    """Whether it would say 0%: biases are constant but for a post-norm's scale."""
    r = edges.readings[edge.part].r.estimate
    return not edge.is_beyond and abs(edge.score.estimate) < 0.005 * abs(r)


def _idle(layers: dict[int, list[Edge]]) -> set[int]:
    """Layers with nothing to see: neither the set nor a matched one gets `IDLE` of the largest."""
    largest: dict[int, float] = {}
    for height, cells in layers.items():
        sizes = [0.0]
        for edge in cells:
            sizes += [abs(edge.score.estimate), *map(abs, edge.draws)]
        largest[height] = max(sizes)
    least = IDLE * max(largest.values(), default=0.0)
    return {height for height, size in largest.items() if size <= least}


def _folded(layers: dict[int, list[Edge]], room: int, idle: set[int]) -> set[int]:
    """Silent layers: idle ones, then the lightest, until the cells have room."""
    count = 0
    weights = []
    for height, cells in layers.items():
        count += len(cells)
        silent = not any(edge.is_beyond for edge in cells)
        if silent and cells[0].component.kind not in ENDS:
            weights.append((height not in idle, _weight(cells), height))
    folded = set()
    for _, _, height in sorted(weights):
        if count <= room and height not in idle:
            break
        folded.add(height)
        count -= len(layers[height])
    return folded


def _thinned(shown: dict[int, list[Edge]], room: int) -> dict[int, list[Edge]]:
    """Of layers that are not silent the cells that are not, then the heaviest of the others."""
    cells = []
    for row in shown.values():
        cells += row
    cells.sort(key=lambda edge: (not edge.is_beyond, -abs(edge.score.estimate)))
    kept = {id(edge) for edge in cells[:room]}
    thinned = {}
    for height, row in shown.items():
        thinned[height] = [edge for edge in row if id(edge) in kept]
    return thinned


def _weight(cells: Sequence[Edge]) -> float:
    return sum(abs(edge.score.estimate) for edge in cells)


def _net(cells: Sequence[Edge]) -> float:
    return sum(edge.score.estimate for edge in cells if not edge.within)


def _row(edges: Edges, height: int, every: list[Edge], shown: list[Edge]) -> Row:
    left, right = [], []
    for edge in shown:
        is_right = edge.component.kind in ("mlp", *INNER)
        (right if is_right else left).append(edge)
    missing = [edge for edge in every if edge not in shown]
    note = f"and {_words(edges, missing)}" if missing else ""
    return Row(_name(edges, height), tuple(left), tuple(right), note, _net(every))


def _line(edges: Edges, heights: list[int], layers: dict[int, list[Edge]]) -> Row:
    """Folded layers as one line of words."""
    cells = []
    for height in heights:
        cells += layers[height]
    first, last = min(heights), max(heights)
    name = f"layer {first}" if first == last else f"layers {first}–{last}"
    return Row(name, (), (), _words(edges, cells), _net(cells))


def _words(edges: Edges, cells: Sequence[Edge]) -> str:
    """ "54 heads and 6 MLPs, 31% together, none beyond"."""
    plural = {
        "head": "heads",
        "mlp": "MLPs",
        "query": "queries",
        "key-value": "key-values",
        "attention": "attentions",
        "set": "sets",
        "units": "sets",
    }
    counts: dict[str, int] = {}
    for edge in cells:
        kind = edge.component.kind
        counts[kind] = counts.get(kind, 0) + 1
    phrases = []
    for kind, count in counts.items():
        word = plural.get(kind, kind) if count > 1 else {"mlp": "MLP"}.get(kind, kind)
        phrases.append(f"{count} {word}")
    text = " and ".join(phrases)
    if cells[0].side == "writer":
        text += f", {part_of_r(edges, cells[0].part, _net(cells))} together"
    else:
        text += f", {thousandths(max(edge.score.estimate for edge in cells))} at most"
    beyond = sum(edge.is_beyond for edge in cells)
    return f"{text}, {beyond or 'none'} beyond"


def _name(edges: Edges, height: int) -> str:
    if height < 0:
        return "input"
    return "output" if height == edges.shape[0] else f"layer {height}"
