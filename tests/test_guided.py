"""Pools, comparisons at equal tokens, and the rows of R11."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import tiny
from scipy.stats import ttest_1samp

import mechreward as mr
from mechreward import stats
from mechreward.base.errors import MechRewardError
from mechreward.experiments.rows import Results, Setting
from mechreward.experiments.search import Arm, _gains, guided_search
from mechreward.models.site import Site
from mechreward.report.figures import pictures
from mechreward.report.findings.search import guided
from mechreward.report.tables import search_gains, searches
from mechreward.uses.search.pool import Pool, pool
from mechreward.uses.search.readouts import of_neurons, of_probe
from mechreward.uses.search.scorers import Chance, Length, LogProbability
from mechreward.uses.search.search import search

TASK = tiny.Even()
PROBLEMS = TASK.problems("train", 8)
SETTING = Setting(experiment="R11", model="tiny", task="even", site="1.resid_post", seed=0)


@pytest.fixture(scope="module")
def probe(tiny_model):
    runs = mr.sample(tiny_model, TASK.problems("validation", 30), progress=False)
    values = mr.estimate(tiny_model, runs, k=4, progress=False)
    acts = mr.record(tiny_model, runs, [Site(1, "resid_post")])["1.resid_post"]
    return mr.ValueProbe("mc", "linear").fit(acts, values)


def made(rewards, tokens, answers=None) -> Pool:
    rewards, tokens = np.array(rewards), np.array(tokens)
    if answers is None:
        answers = np.full(rewards.shape, -1)
    return Pool(rewards, tokens, np.array(answers), {"logprob": tokens.astype(float)})


def test_a_pool_is_what_each_scorer_alone_would_choose_from(tiny_model, probe):
    """Three read-outs of one site share a pass; best-of-n of `search` is the reference."""
    neurons = mr.select(probe, top=0.1)
    scorers = [
        of_probe(probe),
        of_neurons(neurons),
        of_probe(probe, "difference", difference=True),
        LogProbability(),
        Length(),
    ]
    shared = pool(tiny_model, PROBLEMS, scorers, 4, seed=3)
    for scorer in scorers:
        for n in (1, 4):
            alone = search(
                tiny_model,
                PROBLEMS,
                scorer,
                algorithm="best_of_n",
                k=n,
                seed=3,
                progress=False,
            )
            ties = [len(set(row[:n])) < n for row in shared.scores[scorer.name]]
            same = alone.rewards == shared.best(scorer.name, n)
            assert (same | np.array(ties)).all()
            assert shared.cost(n).tolist() == [ledger.generated for ledger in alone.ledgers]


def test_votes_and_the_oracle_by_hand():
    some = made(
        [[0, 1, 1, 0], [0, 0, 0, 1]],
        [[1, 2, 3, 4], [1, 1, 1, 1]],
        [[5, 7, 7, -1], [-1, -1, 2, 3]],
    )
    assert some.majority(1).tolist() == [0, 0]
    assert some.majority(3).tolist() == [1, 0], "one vote for 2; what cannot be read has none"
    assert some.oracle(1).tolist() == [0, 0]
    assert some.oracle(4).tolist() == [1, 1]
    assert some.best("logprob", 3).tolist() == [1, 0]


@pytest.mark.parametrize("tokens", [10.0, 12.5, 17.0, 25.0, 39.0])
def test_costs_are_met(tokens: float):
    rng = np.random.default_rng(0)
    some = made(rng.integers(0, 2, (200, 4)), rng.integers(8, 13, (200, 4)))
    rewards, costs = some.at(tokens, some.oracle)
    assert costs.mean() == pytest.approx(max(tokens, some.cost(1).mean()), rel=0.02)
    assert rewards.mean() <= some.oracle(4).mean()


def test_a_cost_out_of_reach_is_the_nearest_there_is():
    some = made([[0, 1]] * 5, [[3, 3]] * 5)
    assert some.at(100.0, some.oracle)[1].tolist() == [6.0] * 5
    assert some.at(1.0, some.oracle)[1].tolist() == [3.0] * 5


@pytest.mark.unchecked
def test_wrong_pools(tiny_model):
    with pytest.raises(MechRewardError, match="different names"):
        pool(tiny_model, PROBLEMS, [Length(), Length()], 2)
    with pytest.raises(MechRewardError, match="cannot be compared"):
        made([[0, 1]], [[1, 1]]).majority(2)
    with pytest.raises(MechRewardError, match="logprob"):
        made([[0, 1]], [[1, 1]]).best("logprop", 2)
    with pytest.raises(MechRewardError, match="1 to 2"):
        made([[0, 1]], [[1, 1]]).oracle(3)


@pytest.mark.parametrize("seed", range(5))
def test_sign_flips_go_through_all_of_few(seed: int):
    differences = np.round(np.random.default_rng(seed).normal(0.3, 1, 7), 1)
    sums = []
    for signs in product((1, -1), repeat=7):
        sums.append(abs(sum(s * d for s, d in zip(signs, differences, strict=True))))
    expected = np.mean(np.array(sums) >= abs(differences.sum()) - 1e-9)
    assert stats.sign_flips(differences) == pytest.approx(expected)


def test_sign_flips_of_many_are_near_the_t_test():
    differences = np.random.default_rng(1).normal(0.15, 1, 200)
    expected = ttest_1samp(differences, 0).pvalue
    assert stats.sign_flips(differences) == pytest.approx(expected, abs=0.01)
    assert stats.sign_flips(np.zeros(5)) == 1.0


def test_gains_by_hand():
    """Eight problems, two seeds: the beam is right on two more in both."""
    base = np.zeros((2, 8))
    better = base.copy()
    better[:, :2] = 1
    tokens = np.full((2, 8), 10.0)
    arm, other = Arm("a", "beam", 4, better, tokens), Arm("random", "beam", 4, base, tokens)
    (row,) = _gains([(arm, other)], "beam by random", SETTING)
    assert row.estimate == 0.25
    assert row.detail["p"] == 0.5, "two problems: four flips, two as large"
    assert row.detail["p_holm"] == 0.5
    assert row.detail["p_mcnemar"] == 0.5


def test_rows_table_and_findings(tiny_model, probe):
    rows = guided_search(tiny_model, PROBLEMS, [of_probe(probe)], SETTING, k=2, n=2, seeds=(0, 1))
    accuracies = {}
    for row in rows:
        if row.metric == "accuracy":
            accuracies[row.arm, row.detail["algorithm"], row.detail["k"]] = row
    assert ("greedy", "greedy", 1) in accuracies
    alone = {row.estimate for key, row in accuracies.items() if key[1:] == ("best_of_n", 1)}
    assert len(alone) == 1, "of one answer there is no choice"
    for arm in ("random", "logprob", "value probe"):
        best = accuracies[arm, "best_of_n", 2].estimate
        assert best <= accuracies["oracle", "best_of_n", 2].estimate
    gains = [row for row in rows if row.metric == "gain"]
    over_chance = {row.arm for row in gains if row.detail["beyond"] == "beam by random"}
    assert over_chance == {"value probe", "logprob"}
    results = Results({}, tuple(rows))
    assert len(searches(results).lines) == len(accuracies)
    assert len(search_gains(results).lines) == len(gains)
    drawn = {name: svg for _, name, svg in pictures(results)}
    assert set(drawn) == {"R11-search"}
    for word in ("best of n", "step beam", "oracle", "greedy", "over beam by random"):
        assert word in drawn["R11-search"]
    assert drawn["R11-search"].count("value probe") > 1, "a panel of its own, and its gain"
    sentences = [finding.sentence for finding in guided(results)]
    assert len(sentences) == len(gains)
    assert all("R11" in text for text in sentences)


def test_chance_is_drawn_by_name(tiny_model):
    first = search(tiny_model, PROBLEMS, "random", k=3, progress=False)
    again = search(tiny_model, PROBLEMS, Chance(), k=3, batch=5, progress=False)
    assert first.scores == again.scores
