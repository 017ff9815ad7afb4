"""Rules that set two read-outs beside each other, on made-up rows: apart, or not told apart."""

from __future__ import annotations

import pytest

from mechreward import experiments as paper
from mechreward.experiments.rows import Results, Row, rows_from
from mechreward.report.findings.rules import findings
from mechreward.report.select import apart
from mechreward.stats import Interval


def finding(rows: list[Row], word: str) -> tuple[bool, str]:
    """The only sentence that holds `word`, and whether it is among what was found."""
    found, missed = findings(Results({}, tuple(rows)))
    (sentence,) = [text for text in found + missed if word in text]
    return sentence in found, sentence


def around(estimate: float) -> Interval:
    return Interval(estimate, estimate - 0.1, estimate + 0.1, 50)


def test_intervals_that_touch_are_not_apart():
    about = paper.shared("R1", "made-up", "rows", "3.mlp", 0)

    def row(estimate: float, reach: float = 0.125) -> Row:
        interval = Interval(estimate, estimate - reach, estimate + reach, 9)
        return rows_from(about, [("value", "spearman", interval, {})])[0]

    assert apart(row(0.5), row(0.2)) == 1
    assert apart(row(0.2), row(0.5)) == -1
    assert apart(row(0.5), row(0.25)) == 0
    assert apart(row(0.5), row(0.5)) == 0
    assert apart(row(0.5), row(0.0, float("nan"))) == 0


@pytest.mark.parametrize(
    ("tokens", "pairs"),
    [
        (0.2, ["mc above td over tokens"]),
        (0.8, ["td over tokens above mc", "td over tokens above td"]),
        (0.4, []),
    ],
)
def test_R1_tells_targets_apart_only_where_intervals_are(tokens: float, pairs: list[str]):
    about = paper.shared("R1", "made-up", "rows", "3.mlp", 0)
    rows = []
    for target, score in (("mc", 0.5), ("td", 0.39), ("td over tokens", tokens)):
        for shape, estimate in (("mlp", score), ("linear", -score)):
            detail = {"target": target, "shape": shape}
            rows += rows_from(about, [("value", "spearman", around(estimate), detail)])
    holds, sentence = finding(rows, "by target")
    assert holds == bool(pairs)
    assert sentence.count(" above ") == len(pairs)
    assert all(pair in sentence for pair in pairs)
    assert "of 3 pairs" in sentence
    assert "mc +0.50 [+0.40, +0.60], td +0.39 [+0.29, +0.49], td over tokens" in sentence
    assert "-0.5" not in sentence  # the linear probe is not spoken of


def steps(cut: float, plain: float, response: float, running: float) -> list[Row]:
    """R8's rows with and without the cut; those that no rule reads are far off."""
    above, every = "|delta| > 0.3", "all steps"
    plain_steps = {"fitted": every, "tested": every}
    cut_steps = {"fitted": above, "tested": above}
    numbers = [
        ("spearman", plain, plain_steps),
        ("spearman", 0.99, {"fitted": every, "tested": above}),
        ("spearman", 0.11, {"fitted": above, "tested": every}),
        ("spearman", cut, cut_steps),
        ("spearman_z", 0.98, cut_steps | {"z": "response"}),
        ("spearman_z", response, plain_steps | {"z": "response"}),
        ("spearman_z", running, plain_steps | {"z": "running"}),
    ]
    about = paper.shared("R8", "made-up", "rows", "3.mlp", 0)
    rows = []
    for metric, estimate, detail in numbers:
        rows += rows_from(about, [("dopamine", metric, around(estimate), detail)])
    return rows


@pytest.mark.parametrize(
    ("cut", "plain", "side"),
    [(0.7, 0.4, "higher"), (0.2, 0.5, "lower"), (0.45, 0.4, "not told apart")],
)
def test_R8_with_and_without_the_cut(cut: float, plain: float, side: str):
    holds, sentence = finding(steps(cut, plain, 0.3, 0.3), "With the paper's cut")
    verdict = sentence.rpartition(": ")[2]
    assert holds == (side != "not told apart")
    assert verdict.startswith(side) and verdict.endswith("(R8).")
    assert f"is {around(cut)}, without it {around(plain)}" in sentence
    assert f"without it: {around(0.11)}" in sentence and "0.99" not in sentence


@pytest.mark.parametrize(
    ("response", "running", "side", "leak"),
    [
        (0.7, 0.4, "higher with the future in it", True),
        (0.35, 0.0, "higher than running", False),
        (0.1, 0.4, "not told apart", False),
        (0.45, 0.4, "not told apart", False),
    ],
)
def test_R8_a_leak_from_the_future_is_named_where_no_other_standard_reads_as_much(
    response: float, running: float, side: str, leak: bool
):
    rows = steps(0.3, 0.3, response, running)
    holds, sentence = finding(rows, "Standardised over the whole response")
    assert holds == leak == ("a leak" in sentence)
    assert f"is {around(response)}, over no more" in sentence
    assert f"so far {around(running)}, on the training split" in sentence
    assert f"sees no future either, {around(0.3)}: {side}" in sentence
    assert "0.98" not in sentence
