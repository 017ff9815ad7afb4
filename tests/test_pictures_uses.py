"""Pictures of uses: what is drawn is what the nouns hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pictured
import pytest

from mechreward import show
from mechreward.base.errors import MechRewardError
from mechreward.experiments.rows import Results
from mechreward.show.picture import Picture
from mechreward.uses.confidence import Confidence


@pytest.fixture(scope="module")
def conf() -> Confidence:
    return pictured.confidence(30)


def of(made: Picture, panel: str, mark: str, label: str):
    data = made.data
    keep = (data["panel"] == panel) & (data["mark"] == mark) & (data["label"] == label)
    return data[keep]


def test_calibration_is_that_of_the_noun(conf: Confidence):
    made = show.calibration(conf, "answer", bins=5)
    names = {
        "value": "value",
        "prompt_length": "prompt length (best baseline)",
        "full_linear": "whole site (linear probe)",
    }
    numbers = conf.measured("answer")
    for arm, label in names.items():
        table = conf.reliability(arm, "answer", 5)
        points = of(made, "answer: how often right", "point", label)
        for ours, theirs in (("x", "confidence"), ("y", "right"), ("low", "low"), ("high", "high")):
            np.testing.assert_array_equal(points[ours], table[theirs])
        bars = of(made, "answer: scores", "bar", label)
        scores = conf.group("answer").arm(arm).calibrated
        assert bars["y"].sum() == len(scores)
        assert bars["y"].iloc[0] == (scores < 0.2).sum()
        dot = of(made, "answer: expected calibration error", "dot", label).iloc[0]
        ece = numbers[arm]["ece"]
        assert (dot["x"], dot["low"], dot["high"]) == (ece.estimate, ece.low, ece.high)
        tick = of(made, "answer: expected calibration error", "a perfect predictor", label)
        assert tick["x"].iloc[0] == numbers[arm]["perfect_ece"].estimate


def test_all_stages_have_three_panels(conf: Confidence):
    titles = [panel.title.partition(":")[0] for panel in show.calibration(conf).panels]
    assert titles == [stage for stage in conf.groups for _ in range(3)]


def test_risk_is_that_of_the_noun(conf: Confidence):
    made = show.risk(conf, "prompt")
    table = conf.risk_coverage("value", "prompt")
    assert len(table) <= 200
    points = of(made, "prompt", "point", "value")
    np.testing.assert_array_equal(points["x"], table["coverage"])
    np.testing.assert_array_equal(points["y"], table["risk"])
    oracle = of(made, "prompt", "point", "oracle")
    np.testing.assert_array_equal(oracle["y"], table["oracle"])
    assert of(made, "prompt", "level line", "random order")["y"].iloc[0] == table["random"].iloc[0]
    area = conf.measured("prompt")["value"]["aurc"]
    dot = of(made, "Area under each curve", "dot", "prompt: value").iloc[0]
    assert (dot["x"], dot["low"]) == (area.estimate, area.low)


def test_confidence_that_cannot_be_measured_is_refused(conf: Confidence):
    for draw in (show.calibration, show.risk):
        with pytest.raises(MechRewardError, match="no answer was verified"):
            draw(replace(conf, verified=False))
        with pytest.raises(MechRewardError, match="not defined here"):
            draw(conf, "k answers")
        with pytest.raises(MechRewardError, match="prompt"):
            draw(conf, "promt")


@pytest.mark.unchecked
@pytest.mark.parametrize("draw", [show.calibration, show.risk, show.siblings, show.exits])
def test_other_things_are_refused_in_one_line(draw):
    with pytest.raises(MechRewardError) as error:
        draw("text")
    assert "\n" not in str(error.value)


def test_rates_of_siblings_are_those_of_the_noun():
    noun = pictured.siblings()
    made = show.siblings(noun)
    rates = noun.rates().set_index("scorer")
    for title, part in (("All", "rate"), ("Clearly", "clear"), ("What", "gain")):
        panel = next(panel.title for panel in made.panels if panel.title.startswith(title))
        for scorer in [*noun.scores, "other half"]:
            dot = of(made, panel, "dot", scorer).iloc[0]
            expected = rates.loc[scorer, [part, f"{part}_low", f"{part}_high"]]
            assert dot[["x", "low", "high"]].tolist() == expected.tolist()
        line = made.data[(made.data["panel"] == panel) & (made.data["mark"] == "upright line")]
        assert line["x"].tolist() == [0.0 if part == "gain" else 0.5]


def test_search_is_that_of_the_rows_however_they_come():
    results = pictured.search()
    made = show.search(results)
    assert made.data.equals(show.search(results.frame()).data)
    assert made.data.equals(show.search(results.rows).data)
    rows = [row for row in results.rows if row.arm == "value neurons" and row.metric == "accuracy"]
    points = of(made, "value neurons", "point", "best of n")
    best = [row for row in rows if row.detail["algorithm"] == "best_of_n"]
    assert points["x"].tolist() == [row.detail["tokens"] for row in best]
    assert points["y"].tolist() == [row.estimate for row in best]
    beam = of(made, "value neurons", "point", "step beam").iloc[0]
    expected = next(row for row in rows if row.detail["algorithm"] == "beam")
    assert (beam["x"], beam["y"], beam["low"]) == (
        expected.detail["tokens"], expected.estimate, expected.low,
    )  # fmt: skip
    gains = made.data[made.data["panel"].str.startswith("What step beams gain")]
    rows = [row for row in results.rows if row.metric == "gain"]
    dots = gains[gains["mark"] == "dot"]
    assert sorted(dots["x"]) == pytest.approx(sorted(100 * row.estimate for row in rows))
    for panel in made.panels[:-1]:
        assert len(panel.lines) <= 4


def test_search_needs_rows_of_one_search():
    results = pictured.search()
    other = replace(results.rows[0], task="paths")
    with pytest.raises(MechRewardError, match=r"one task; countdown, paths"):
        show.search([*results.rows, other])
    with pytest.raises(MechRewardError, match=r"no row of R11.*R4"):
        show.search([replace(row, experiment="R4") for row in results.rows])
    with pytest.raises(MechRewardError, match="have no row"):
        show.search(Results({}, ()))
    with pytest.raises(MechRewardError, match="no column experiment"):
        show.search(results.frame().drop(columns="experiment"))
    with pytest.raises(MechRewardError, match="'text' was given"):
        show.search("text")


def test_exits_are_those_of_the_noun():
    noun = pictured.early_exit(40)
    made = show.exits(noun)
    for signal in ("value", "logprob"):
        table = noun.curve(signal).sort_values("saved")
        points = of(made, signal, "point", signal)
        np.testing.assert_array_equal(points["x"], table["saved"])
        np.testing.assert_array_equal(points["y"], table["accuracy"])
    rule = of(made, "value", "point", "the rule").iloc[0]
    assert (rule["x"], rule["y"]) == (noun.saved, noun.accuracy)
    assert len(of(made, "logprob", "point", "the rule")) == 0
    gaps = noun.compare(["value", "logprob"])
    dots = made.data[made.data["panel"].str.startswith("Beyond") & (made.data["mark"] == "dot")]
    expected = 100 * gaps["gap"].dropna()
    assert sorted(dots["x"]) == pytest.approx(sorted(expected))


def test_exits_need_whole_judged_rollouts():
    noun = pictured.early_exit(10)
    with pytest.raises(MechRewardError, match="whole rollouts"):
        show.exits(replace(noun, live=True))
    with pytest.raises(MechRewardError, match="needs a verifier"):
        show.exits(replace(noun, judged=False))
    only = replace(noun.points, signals={"random": noun.points.signals["random"]})
    with pytest.raises(MechRewardError, match="nothing to draw"):
        show.exits(replace(noun, points=only, rules=()))
