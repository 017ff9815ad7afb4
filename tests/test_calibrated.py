"""Confidence on models whose V is known: a planted set reads what exact V reads, decoys and the
null twin add nothing, and the same on the rows of experiment R7."""

from __future__ import annotations

import numpy as np
import pytest

import mechreward as mr
from mechreward import confidence, stats
from mechreward.experiments import shared
from mechreward.experiments.confidence import confidence_rows
from mechreward.experiments.rows import Results
from mechreward.report.figures import pictures
from mechreward.report.findings.rules import findings
from mechreward.report.tables import numbers
from mechreward.uses.confidence.deal import enough

SITE = "1.resid_post"
QUICK = {"shape": "linear", "progress": False}


class Answers:
    """A planted model, its answer sheet, and answers for the three splits."""

    def __init__(self, name: str, sizes: tuple[int, int, int] = (40, 40, 80)) -> None:
        self.made = mr.testbed.planted(name)
        parts = []
        for split, n in zip(("train", "validation", "test"), sizes, strict=True):
            problems = self.made.task.problems(split, n)
            parts.append(mr.sample(self.made.model, problems, progress=False))
        self.fit, self.calibration, self.test = parts

    def confidence(self, neurons: mr.NeuronSet, draws: int = 19) -> mr.Confidence:
        return confidence(
            self.made.model,
            self.test,
            neurons,
            fit=self.fit,
            calibration=self.calibration,
            draws=draws,
            **QUICK,
        )

    def set_of(self, *indices: int) -> mr.NeuronSet:
        neurons = self.made.truth.value_neurons[SITE]
        return mr.NeuronSet(neurons.site, tuple(sorted(indices)), 64, neurons.model_id)


@pytest.fixture(scope="module")
def value() -> Answers:
    return Answers("value")


@pytest.fixture(scope="module")
def conf(value: Answers) -> mr.Confidence:
    return value.confidence(value.made.truth.value_neurons[SITE])


def exact(answers: Answers, stage: str, conf: mr.Confidence) -> np.ndarray:
    """V of every row of a stage, by dynamic programming."""
    v, _ = answers.made.truth.values(answers.test)
    starts = np.cumsum([0] + [run.steps + 1 for run in answers.test])
    group = conf.group(stage)
    return v[starts[group.trajectory] + group.step]


@pytest.mark.parametrize("stage", ["prompt", "partial", "answer"])
def test_planted_neurons_are_as_sure_as_exact_V(value: Answers, conf, stage: str):
    """The seed is fixed; over seeds the two AUROCs differ by a small part of the interval, for the
    arm is V with a little noise."""
    group = conf.group(stage)
    v = exact(value, stage, conf)
    best = stats.auroc_interval(v, group.reward, group.problem)
    mine = conf.measured(stage, 0)["value"]["auroc"]
    assert best.low <= mine.estimate <= best.high
    assert mine.low <= best.estimate <= mine.high
    if stage == "partial":
        # Calibrated, it is V itself, whose squared error is the least there is, up to what forty
        # problems tell of the share of right answers (standard error .08).
        prob = group.arm("value").calibrated
        assert stats.brier(prob, group.reward) < stats.brier(v, group.reward) + 0.03
        assert np.abs(prob - v).mean() < 0.16


def test_planted_neurons_add_to_every_baseline_where_states_differ(conf):
    """In the middle of answers nothing on the surface knows V: the interval of what the set adds
    lies above 0, and no matched set reads as much (19 sets: p = .05)."""
    numbers = conf.measured("partial", 100)
    assert numbers["value"]["added"].low > 0.1 and numbers["value"]["increment"].low > 0.1
    assert conf.rank("partial") == (1, 19, 0.05)
    assert numbers["matched"]["auroc"].n == 19
    frame = conf.metrics(0).set_index(["stage", "arm"])
    assert (frame.match_error.loc[:, "matched"] < 0.25).all()


def test_a_decoy_adds_nothing(value: Answers):
    """Coordinates of noise and of position. An interval of 95% lies above 0 in one null of forty;
    the seed is fixed."""
    decoys = value.made.truth.decoys
    found = value.confidence(value.set_of(*decoys["large"], *decoys["length"]), draws=1)
    for stage in ("prompt", "partial"):
        numbers = found.measured(stage, 100)["value"]
        assert numbers["added"].low <= 0.0, stage
        assert numbers["auroc"].estimate < 0.6


def test_the_null_twin_is_not_surer_than_chance():
    """Every activation is that of the planted model, and V is .5 throughout."""
    null = Answers("null", (40, 30, 50))
    neurons = null.set_of(*null.made.truth.decoys["level"])
    found = null.confidence(neurons, draws=1)
    for stage in ("prompt", "partial"):
        numbers = found.measured(stage, 100)
        assert numbers["value"]["auroc"].low <= 0.5 <= numbers["value"]["auroc"].high
        assert numbers["value"]["added"].low <= 0.0
    assert numbers["value"]["brier"].estimate == pytest.approx(0.25, abs=0.03)


@pytest.fixture(scope="module")
def found(conf) -> Results:
    about = shared("R7", "planted-value", "planted", SITE, 0)
    return Results({}, tuple(confidence_rows(conf, about)))


def test_experiment_rows_are_the_metrics(conf, found):
    table = conf.metrics(0).set_index(["stage", "arm"])
    (start,) = found.where(arm="value", metric="auroc_s0")
    line = table.loc[("prompt", "value")]
    assert (start.estimate, start.low, start.high) == (line.auroc, line.auroc_low, line.auroc_high)
    assert start.n == 80 and start.detail["known"] == "before"
    for key in ("brier", "ece", "perfect_ece", "aurc", "excess_aurc", "prr", "rank", "p_rank"):
        assert start.detail[key] == pytest.approx(line[key]), key
    assert start.detail["best"] == conf.group("prompt").best and start.detail["neurons"] == 3
    (added,) = found.where(arm="value", metric="added_partial")
    assert added.estimate == pytest.approx(table.loc[("partial", "value"), "added"])
    assert added.low == conf.measured("partial")["value"]["added"].low
    (controls,) = found.where(arm="matched", metric="auroc_answer")
    assert controls.n == controls.detail["draws"] == 19 and "match_error" in controls.detail


def test_rows_are_spoken_of_drawn_and_tabulated(conf, found):
    (sentence,) = [each for side in findings(found) for each in side if "(R7)" in each]
    best = conf.group("prompt").best.replace("_", " ")
    assert f" {best} (" in sentence and "paired difference" in sentence and "of 20" in sentence
    (picture,) = [svg for _, name, svg in pictures(found) if name == "R7"]
    for words in ("known before the first token", "known in the middle", "value read-out at s_0"):
        assert words in str(picture)
    first, second = numbers(found)
    arms = sum(len({arm.name for arm in group.arms}) for group in conf.groups.values())
    assert len(first.lines) == len(second.lines) == arms
    assert [line[2] for line in second.lines].count("the best baseline") == len(conf.groups)


def test_answers_to_all_but_one_problem_of_one_outcome_are_too_few(value: Answers):
    right = [i for i, run in enumerate(value.test) if run.reward][:5]
    wrong = [i for i, run in enumerate(value.test) if not run.reward][:1]
    few = value.test.subset(sorted([*right, *wrong]))
    assert not enough(few)
    assert enough(value.test)
