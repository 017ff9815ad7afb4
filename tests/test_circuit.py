"""The circuit map's picture: made maps, so that what must stand there is known."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
import rows as made
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mechreward.base.errors import MechRewardError
from mechreward.causal.edges_noun import Edge, Edges, Reading
from mechreward.causal.edges_written import Component
from mechreward.models.site import Site
from mechreward.show.circuit import CircuitPanel, caption, circuit
from mechreward.show.circuit_rows import MOST, number, part_of_r, rows_of, thousandths
from mechreward.stats import Interval


def edge(side: str, component: Component, score: float, p: float = 1.0, **more) -> Edge:
    interval = Interval(score, score - 0.01, score + 0.01, 20)
    if side == "reader":
        interval = Interval(score, score / 2, score * 2, 20)
    draws = (0.5 * score, 0.8 * score, 1.1 * score)
    return Edge(side, component, interval, draws, p, p, **more)


def drawn(edges: Edges) -> str:
    """The picture's SVG."""
    return circuit(edges).svg()


def a_map(layers: int = 4, heads: int = 4, shown: bool = True, **marked: float) -> Edges:
    """A set behind the second-last layer; components whose name is marked have this p."""
    found = [edge("writer", Component("embedding"), 0.1)]
    for layer in range(layers - 1):
        for head in range(heads):
            found.append(edge("writer", Component("head", layer, head), 0.01 * (layer + head)))
        found.append(edge("writer", Component("mlp", layer), 0.02))
    found.append(edge("writer", Component("biases"), 0.0))
    last = layers - 1
    for head in range(heads):
        found.append(edge("reader", Component("query", last, head), 1e-5 * (1 + head)))
    found.append(edge("reader", Component("key-value", last, 0), 3e-5))
    found.append(edge("reader", Component("mlp", last), 2e-3))
    found.append(edge("reader", Component("unembedding"), 4e-3))
    found.append(edge("reader", Component("all readers"), 6e-3))
    marks = []
    for one in found:
        p = marked.get(re.sub(r"\W", "_", f"{one.side}_{one.component}"), one.p)
        marks.append(Edge(**{**vars(one), "p": p}))
    r = sum(one.score.estimate for one in found if one.side == "writer")
    low = r - 0.05 if shown else -0.1
    neurons = made.neurons(3, 9, width=32, site=Site(layers - 2, "resid_post"))
    return Edges(
        neurons=neurons,
        name="value neurons",
        edges=tuple(marks),
        readings={"": Reading(Interval(r, low, r + 0.05, 20), (0.1, 0.2, 0.3), 0.4, (1.0, 2.0))},
        others={},
        states=80,
        problems=20,
        means=(0.1, 0.2),
        match_error=0.05,
        task="even",
        shape=(layers, heads, 64),
    )


def words(svg: str) -> str:
    return " ".join(ElementTree.fromstring(svg).itertext())


def test_the_title_is_the_verdict():
    titles = {
        "none": a_map(),
        "silent": a_map(shown=False, writer_1_head_2=0.05, reader_3_mlp=0.01),
        "written": a_map(writer_1_head_2=0.05),
        "read": a_map(reader_3_mlp=0.05),
        "circuit": a_map(writer_1_head_2=0.05, reader_3_mlp=0.05),
    }
    for verdict, edges in titles.items():
        assert edges.verdict == verdict
        own = edges.sentence.startswith("A circuit of its own")
        assert own == (verdict == "circuit")
        assert own or edges.sentence.startswith("No circuit of its own")
        assert edges.sentence.split(":")[0] in words(drawn(edges))
    both = titles["circuit"].sentence
    assert "head 1.2" in both and "MLP 3" in both


def test_it_is_one_element_and_the_same_every_time():
    svg = drawn(a_map())
    assert svg == drawn(a_map())
    assert ElementTree.fromstring(svg).tag.endswith("svg") and svg.startswith("<svg")
    assert "value neurons: 2 of 32" in words(svg)


@pytest.mark.parametrize("width", [1280, 420])
def test_nothing_stands_outside_and_cells_do_not_overlap(width: int):
    figure = circuit(a_map(writer_1_head_2=0.05))._drawn(width)
    renderer = FigureCanvasAgg(figure).get_renderer()
    frame = figure.bbox
    texts = [text for axes in figure.axes for text in axes.texts] + list(figure.texts)
    for text in texts:
        box = text.get_window_extent(renderer)
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1, text.get_text()
        assert frame.y0 <= box.y0 and box.y1 <= frame.y1, text.get_text()
    for first in texts:
        for second in texts[texts.index(first) + 1 :]:
            one, other = first.get_window_extent(renderer), second.get_window_extent(renderer)
            assert not one.padded(-1).overlaps(other.padded(-1)), (
                first.get_text(),
                second.get_text(),
            )
    assert min(text.get_size() for text in texts) >= 9


def test_large_models_are_folded_and_what_is_beyond_is_not():
    edges = a_map(30, 9, writer_7_head_4=0.01, writer_20_mlp=0.02)
    rows = rows_of(edges, "writer", room=22)
    cells = [one for row in rows for one in row.cells]
    assert len(cells) <= 22
    labels = [edges.label(one) for one in cells]
    assert "head 7.4" in labels and "MLP 20" in labels
    text = words(drawn(edges))
    assert re.search(r"\d+ heads and \d+ MLPs, \d+% together, none beyond", text)
    assert "head 7.4" in text and "layers" in text
    named = len(re.findall(r"(?:head|MLP|query|key-value) \d|embedding|all readers", text))
    assert named <= MOST + 8  # and the words of folds and of the title


def test_every_row_is_there_and_the_nets_add_up_to_r():
    edges = a_map(30, 9)
    total = sum(row.net for row in rows_of(edges, "writer", room=12))
    assert math.isclose(total, edges.readings[""].r.estimate, abs_tol=1e-9)


def test_percent_only_where_r_is_shown():
    (one,) = [e for e in a_map().edges if str(e.component) == "1.head.2"]
    assert number(a_map(), one).endswith("%")
    assert number(a_map(shown=False), one) == "+0.03"
    assert part_of_r(a_map(), "", -a_map().readings[""].r.estimate) == "−100%"
    assert "%" not in number(a_map(), edge("reader", Component("unembedding"), 0.2))


@pytest.mark.parametrize(
    ("nats", "text"),
    [(1.6341, "1,634"), (0.00228, "2.28"), (3e-5, "0.03"), (1e-9, "0"), (0.0, "0")],
)
def test_thousandths_of_a_nat(nats: float, text: str):
    assert thousandths(nats) == text


def test_every_mark_is_in_the_data():
    edges = a_map()
    marks = CircuitPanel(edges).marks()
    assert len(marks) == 2 * len(edges.edges)
    assert {mark["mark"] for mark in marks if "matched" not in mark["mark"]} == {"writer", "reader"}
    assert "3 sets" in caption(edges)


def test_hostile_names_are_shown_and_cut():
    edges = a_map()
    nasty = Edges(**{**vars(edges), "name": "</svg><script>\u202e" + "x" * 200})
    svg = drawn(nasty)
    ElementTree.fromstring(svg)
    assert "<script>" not in svg and "\u202e" not in svg


@pytest.mark.unchecked
def test_what_is_no_map_is_refused():
    with pytest.raises(MechRewardError, match="must be Edges"):
        circuit("edges.json")
