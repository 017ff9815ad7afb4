"""The experiment `early_exit`: its rows, table and sentences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import betabinom

import mechreward as mr
from mechreward.experiments.early_exit import ALPHA, SHARES, early_exits
from mechreward.experiments.rows import Results, Setting
from mechreward.probing.neurons import NeuronSet
from mechreward.report.findings.early_exit import beyond_chance, promises
from mechreward.report.tables import early_exits as table
from mechreward.testbed.planted import planted
from mechreward.uses.search.readouts import of_probe

SETTING = Setting(experiment="early_exit", model="p", task="planted", site="0.resid_post", seed=0)


@pytest.fixture(scope="module")
def rows():
    """A planted model, whose value a linear probe reads nearly exactly."""
    plant = planted("value")
    site = "0.resid_post"
    runs = mr.sample(plant.model, plant.task.problems("train", 40), progress=False)
    acts = mr.record(plant.model, runs, site, progress=False)[site]
    truth, _ = plant.truth.values(runs)
    groups = np.repeat(runs.groups, [run.steps + 1 for run in runs])
    probe = mr.ValueProbe("mc", "linear").fit(acts.x.numpy(), truth, groups)

    every = NeuronSet.of(acts, range(acts.width), "all")
    problems = plant.task.problems("test", 200)
    readers = {"value probe": of_probe(probe, neurons=every)}
    return early_exits(plant.model, problems[:80], problems[80:], readers, SETTING)


def test_every_signal_has_its_numbers(rows):
    signals = {row.arm for row in rows} - {"baseline"}
    assert {"value probe", "entropy", "logprob", "length", "random"} <= signals
    for signal in signals:
        own = [row for row in rows if row.arm == signal]
        gaps = {row.detail["saved"] for row in own if row.metric == "gap"}
        assert gaps == set(SHARES)
        (lost,) = [row for row in own if row.metric == "lost"]
        assert lost.detail["promised"] == ALPHA


def test_value_is_worth_more_than_chance_where_it_is_planted(rows):
    """Where half of the tokens are saved; 120 problems, one seed."""
    gaps = {row.arm: row for row in rows if row.metric == "gap" and row.detail["saved"] == 0.5}
    assert gaps["value probe"].low > 0
    assert gaps["value probe"].estimate > gaps["length"].estimate


def test_promises_are_kept(rows):
    """Each p lies below .01 with one seed in a hundred, ties apart; the seed is fixed."""
    for row in rows:
        if row.metric == "lost":
            assert row.detail["p"] > 0.01


def test_luck_is_what_exchangeable_scores_show():
    """By simulation: of 30 calibration scores and 40 more, all alike."""
    rng = np.random.default_rng(0)
    scores = rng.random((20_000, 70))
    rank = int(ALPHA * 31)
    threshold = np.sort(scores[:, :30], axis=1)[:, rank - 1]
    lost = (scores[:, 30:] <= threshold[:, None]).sum(1)
    for seen in (2, 5, 9):
        expected = (lost >= seen).mean()
        assert betabinom.sf(seen - 1, 40, rank, 31 - rank) == pytest.approx(expected, abs=0.01)


def test_table_and_sentences(rows):
    results = Results({}, tuple(rows))
    signals = {row.arm for row in rows} - {"baseline"}
    assert len(table(results).lines) == len(signals)
    assert len(beyond_chance(results)) == len(signals) - 1
    assert len(promises(results)) == len(signals)
    assert all(finding.holds for finding in promises(results))
