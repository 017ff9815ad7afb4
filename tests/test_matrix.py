"""Matrices and traces: every number is printed, none is clipped, missing ones say so."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from mechreward import MechRewardError
from mechreward.experiments.rows import Row
from mechreward.show.charts import traces
from mechreward.show.heatmap import matrix

CELLS = {("a", "a"): 1.0, ("a", "b"): 0.254, ("b", "b"): float("nan"), ("b", "c"): 7.5}


def test_numbers_names_and_notes_are_all_there():
    drawing = matrix(
        CELLS, notes={("a", "b"): "chance 0.01"}, ring=[("a", "a")], xlabel="to", ylabel="from"
    )
    ElementTree.fromstring(drawing)
    for text in (">1.00<", ">0.25<", ">–<", ">7.50<", ">chance 0.01<", ">to<", ">from<", ">c<"):
        assert text in drawing
    assert drawing == matrix(
        CELLS, notes={("a", "b"): "chance 0.01"}, ring=[("a", "a")], xlabel="to", ylabel="from"
    )
    assert drawing.count("#D55E00".lower()) == 1, "one ring"


def test_refusals():
    with pytest.raises(MechRewardError, match="nothing to draw"):
        matrix({})
    with pytest.raises(MechRewardError, match="from low to high"):
        matrix(CELLS, low=1.0, high=0.0)


def test_colours_are_white_in_the_middle_and_clipped_at_both_ends():
    cells = {("a", str(number)): number for number in (-9.0, -1.0, 0.0, 1.0, 9.0)}
    drawing = matrix(cells, low=-1.0, middle=0.0).lower()
    assert drawing.count("#a34700") == drawing.count("#005a8e") == 2
    assert "−9.00" in drawing and "-0.00" not in drawing
    one_sided = matrix(cells).lower()
    assert "#a34700" not in one_sided, "without a middle, nothing is vermillion"
    assert not re.search(r">−?\d\.\d\d<", matrix(cells, numbered=False))


def test_traces_draw_every_answer():
    about = ("R9", "m", "t", "1.mlp", "dopamine", "trace")
    rows = []
    for item in range(3):
        for step in (1, 2, 3):
            detail = {"item": item, "step": step, "delta": 0.2 - 0.1 * step}
            rows.append(Row(*about, 0.3 * step, float("nan"), float("nan"), 1, 0, detail))
    drawing = traces(rows)
    ElementTree.fromstring(drawing)
    assert all(f">answer {item}<" in drawing for item in range(3)) and ">answer 3<" not in drawing
    assert drawing == traces(rows[::-1])
    with pytest.raises(MechRewardError, match="nothing to draw"):
        traces([])
