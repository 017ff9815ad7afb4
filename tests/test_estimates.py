"""Estimates with intervals, and which rows of R1, R5, R6, R7 and R10 become their lines."""

from __future__ import annotations

import re
from math import nan
from typing import Any
from xml.etree import ElementTree

import pytest

from mechreward import MechRewardError
from mechreward import experiments as paper
from mechreward.experiments.rows import Results, Row, rows_from
from mechreward.report.figures import pictures
from mechreward.show.forest import Estimate, forest
from mechreward.show.style import Reference
from mechreward.stats import Interval


def row(
    estimate: float, reach: float = 0.1, arm: str = "value", metric: str = "spearman", **detail: Any
) -> Row:
    about = paper.shared(
        detail.pop("experiment", "R1"), "made-up", "rows", detail.pop("site", "3.mlp"), 0
    )
    return rows_from(
        about, [(arm, metric, Interval(estimate, estimate - reach, estimate + reach, 50), detail)]
    )[0]


def said(svg: str) -> str:
    return " ".join(" ".join(ElementTree.fromstring(svg).itertext()).split())


def test_every_label_number_and_interval_is_there():
    lines = [
        Estimate("first", row(0.254).interval),
        Estimate("second", row(-0.5, nan).interval, "random"),
        Estimate("gone", row(nan).interval),
    ]
    drawing = forest(
        {"head": lines, "": [Estimate("third", row(0.0).interval, draws=(0.02, 0.04))]},
        "score",
        reference=Reference(0.5, "chance"),
    )
    text = said(drawing)
    for word in (
        "head",
        "first",
        "0.25 [0.15, 0.35]",
        "second",
        "−0.50",
        "gone",
        "–",
        "0.00 [−0.10, 0.10]",
        "chance",
    ):
        assert word in text
    assert "nan" not in drawing.lower() and drawing == forest(
        {"head": lines, "": [Estimate("third", row(0.0).interval, draws=(0.02, 0.04))]},
        "score",
        reference=Reference(0.5, "chance"),
    )
    assert "upright tick" not in text and "upright tick: chance" in said(
        forest({"": [Estimate("a", row(0.1).interval, mark=0.2)]}, "IoU")
    )


def test_a_line_says_no_interval_where_there_is_none():
    assert "[" not in said(forest({"": [Estimate("a", row(0.3, nan).interval)]}, "score"))


def test_nothing_to_draw_is_an_error():
    for groups in ({}, {"": [Estimate("gone", row(nan).interval)]}):
        with pytest.raises(MechRewardError, match="nothing to draw"):
            forest(groups, "score")


def test_every_experiment_without_a_curve_has_a_picture():
    rows = [row(0.5, target="mc", shape="mlp"), row(0.3, target="td over tokens", shape="mlp")]
    rows += [row(0.1, arm=arm, target="mc", shape="mlp") for arm in ("shuffled", "random_weights")]
    rows += [row(0.6, target="mc", shape="mlp", site="2.resid_post")]
    rows += [
        row(0.05, arm="td", metric="gap", experiment="R5"),
        row(0.4, arm="td", metric="accuracy", experiment="R5"),
    ]
    rows += [row(0.2, nan, "next_token", "iou", experiment="R6", share=0.05, expected=0.03)]
    rows += [row(0.6, metric="auroc_s0", experiment="R7", known="before")]
    rows += [row(0.8, arm="mean_logprob", metric="auroc_s0", experiment="R7", known="after")]
    rows += [row(0.5, arm="baseline", experiment="R10"), row(0.2, experiment="R10", zeroed=5)]
    rows += [
        row(score, arm="matched", experiment="R10", zeroed=5, draw=d)
        for d, score in enumerate((0.3, 0.4, 0.5))
    ]
    rows += [row(-0.3, metric="change", experiment="R10")]
    drawn = {name: (title, said(svg)) for title, name, svg in pictures(Results({}, tuple(rows)))}
    assert list(drawn) == ["R1-resid_post", "R1-mlp", "R5", "R6", "R7", "R10"]
    for name, words in {
        "R1-mlp": (
            "mlp probe",
            "td over tokens",
            "0.50 [0.40, 0.60]",
            "mc, shuffled",
            "mc, random weights",
        ),
        "R5": ("MLP units, 3.mlp", "td", "0.05 [−0.05, 0.15]", "no difference"),
        "R6": ("top 5%", "0.20", "upright tick: chance"),
        "R7": (
            "known before the first token",
            "value read-out at s_0",
            "0.80 [0.70, 0.90]",
            "known after the answer",
        ),
        "R10": (
            "zeroed: nothing",
            "zeroed: matched, 3 draws",
            "0.40 [0.30, 0.50]",
            "zeroed: value",
        ),
    }.items():
        assert all(word in drawn[name][1] for word in words), (name, drawn[name][1])
    assert "0.60 [0.50" not in drawn["R1-mlp"][1] and "0.60 [0.50" in drawn["R1-resid_post"][1]
    assert "0.40 [" not in drawn["R5"][1] and "−0.30 [" not in drawn["R10"][1]
    assert re.fullmatch(r"R10: .* matched: mean of draws, lowest to highest", drawn["R10"][0])
    assert pictures(Results({}, ())) == []
