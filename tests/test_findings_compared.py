"""Sentences that set two read-outs beside each other, from made-up rows: apart, or not told
apart."""

from __future__ import annotations

import pytest

from mechreward import experiments as paper
from mechreward.experiments.rows import Results, Row, rows_from
from mechreward.report.findings.rules import findings
from mechreward.report.select import apart
from mechreward.stats import Interval


def told(rows: list[Row], word: str) -> tuple[bool, str]:
    """The one sentence that holds `word`, and whether it was found."""
    found, missed = findings(Results({}, tuple(rows)))
    (sentence,) = [s for s in found + missed if word in s]
    return sentence in found, sentence


def around(estimate: float) -> Interval:
    return Interval(estimate, estimate - 0.1, estimate + 0.1, 50)


def test_intervals_that_touch_are_not_apart():
    def row(estimate: float, reach: float = 0.125) -> Row:
        about = paper.shared("R1", "made-up", "rows", "3.mlp", 0)
        return rows_from(
            about,
            [("value", "spearman", Interval(estimate, estimate - reach, estimate + reach, 9), {})],
        )[0]

    assert [
        apart(row(a), row(b)) for a, b in ((0.5, 0.2), (0.2, 0.5), (0.5, 0.25), (0.5, 0.5))
    ] == [1, -1, 0, 0]
    assert apart(row(0.5), row(0.0, float("nan"))) == 0


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (0.2, "told apart (intervals do not meet): mc above td over tokens; of 3 pairs (R1)."),
        (
            0.8,
            "told apart (intervals do not meet): td over tokens above mc, td over tokens above td; of 3 pairs (R1).",
        ),
        (0.4, "none of 3 pairs is told apart (their intervals meet) (R1)."),
    ],
)
def test_R1_tells_targets_apart_only_where_intervals_are(tokens: float, said: str):
    about, rows = paper.shared("R1", "made-up", "rows", "3.mlp", 0), []
    for target, score in (("mc", 0.5), ("td", 0.39), ("td over tokens", tokens)):
        rows += rows_from(
            about, [("value", "spearman", around(score), {"target": target, "shape": "mlp"})]
        )
        rows += rows_from(
            about, [("value", "spearman", around(-score), {"target": target, "shape": "linear"})]
        )
    good, sentence = told(rows, "by target")
    assert sentence.endswith(said) and good == said.startswith("told")
    assert (
        "mc +0.50 [+0.40, +0.60], td +0.39 [+0.29, +0.49], td over tokens" in sentence
        and "-0.5" not in sentence
    )


def steps(cut: float, plain: float, whole: float, running: float) -> list[Row]:
    above, every = "|delta| > 0.3", "all steps"
    return rows_from(
        paper.shared("R8", "made-up", "rows", "3.mlp", 0),
        [
            ("dopamine", "spearman", around(plain), {"fitted": every, "tested": every}),
            ("dopamine", "spearman", around(0.99), {"fitted": every, "tested": above}),
            ("dopamine", "spearman", around(0.11), {"fitted": above, "tested": every}),
            ("dopamine", "spearman", around(cut), {"fitted": above, "tested": above}),
            (
                "dopamine",
                "spearman_z",
                around(0.98),
                {"fitted": above, "tested": above, "z": "response"},
            ),
            (
                "dopamine",
                "spearman_z",
                around(whole),
                {"fitted": every, "tested": every, "z": "response"},
            ),
            (
                "dopamine",
                "spearman_z",
                around(running),
                {"fitted": every, "tested": every, "z": "running"},
            ),
        ],
    )


@pytest.mark.parametrize(
    ("cut", "plain", "said"),
    [
        (0.7, 0.4, "higher with the cut"),
        (0.2, 0.5, "lower with the cut"),
        (0.45, 0.4, "not told apart"),
    ],
)
def test_R8_with_and_without_the_cut(cut: float, plain: float, said: str):
    good, sentence = told(steps(cut, plain, 0.3, 0.3), "With the paper's cut")
    assert sentence.endswith(f": {said} (R8).") and good == (said != "not told apart")
    assert (
        f"is {around(cut)}, without it {around(plain)}; fitted with the cut but tested without it"
        in sentence
    )
    assert "0.99" not in sentence


@pytest.mark.parametrize(
    ("whole", "running", "said"),
    [
        (0.7, 0.4, "higher with the future in it: a leak, which no online reader has"),
        (
            0.35,
            0.0,
            "where the first step of an answer is 0 by construction; not told from the other",
        ),
        (0.1, 0.4, "not told apart"),
        (0.45, 0.4, "not told apart"),
    ],
)
def test_R8_a_leak_from_the_future_is_named_where_no_other_standard_reads_as_much(
    whole: float, running: float, said: str
):
    good, sentence = told(steps(0.3, 0.3, whole, running), "Standardised over the whole response")
    plain = f"on the training split, which sees no future either, {around(0.3)}"
    assert (
        f"is {around(whole)}, over no more than what has been said so far {around(running)}, {plain}: "
        in sentence
    )
    assert sentence.endswith(f"{said} (R8).")
    assert good == ("leak" in said) and "0.98" not in sentence
