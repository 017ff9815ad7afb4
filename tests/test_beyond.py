"""What is left of columns beyond known facts, against brute force; the null of flipped signs; and
step counters, which know nothing of V. Seeds are fixed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from mechreward.base.errors import MechRewardError
from mechreward.causal import claims
from mechreward.probing.evidence import evidence
from mechreward.probing.targets import Examples
from mechreward.stats import beyond

WIDTH = 64
COUNTERS = np.array([0, 1, 2])


def answers(problems: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Problem, step, position and prompt length of every state, of answers of uneven length."""
    lengths = rng.integers(3, 9, problems)
    group = np.repeat(np.arange(problems), lengths)
    step = np.concatenate([np.arange(length) for length in lengths])
    prompt = rng.integers(5, 30, problems)[group]
    position = prompt + 6 * step + rng.integers(0, 4, len(step))
    return group, step, position, prompt


def drawn(kind: str, problems: int, seed: int) -> Examples:
    """V is the problem's, .08 more with every step, and noise; K = 8. Three of the neurons are the
    step or V itself, with noise."""
    rng = np.random.default_rng(seed)
    group, step, position, prompt = answers(problems, rng)
    v = 0.3 + rng.normal(0, 0.2, problems)[group] + 0.08 * step + rng.normal(0, 0.1, len(step))
    v = v.clip(0, 1)
    x = rng.normal(size=(len(step), WIDTH))
    x[:, COUNTERS] += (2 * step if kind == "step" else 5 * v)[:, None]
    last = np.append(np.diff(group) > 0, True)
    reward = (rng.random(problems) < v[last])[group].astype(int)
    facts = np.stack([step, position, prompt], 1).astype(float)
    x = torch.from_numpy(x).float()
    return Examples(x, rng.binomial(8, v) / 8, reward, group, group, step, last, facts)


def test_left_over_is_what_other_clusters_do_not_tell() -> None:
    rng = np.random.default_rng(0)
    group, *facts = answers(20, rng)
    facts = np.stack(facts, 1).astype(float)
    y = rng.normal(size=(len(group), 2)) + facts[:, :1]
    rest = beyond.Known(facts, group).left_over(y)
    basis = beyond._basis(facts)
    ranks = rankdata(y, axis=0)
    ranks -= ranks.mean(0)
    penalty = np.eye(basis.shape[1]) * beyond.RIDGE * len(group)
    penalty[0, 0] = 0
    for problem in np.unique(group):
        out = group == problem
        fit = basis[~out]
        weights = np.linalg.solve(fit.T @ fit + penalty, fit.T @ ranks[~out])
        np.testing.assert_allclose(rest[out], ranks[out] - basis[out] @ weights, atol=1e-8)


def test_what_is_known_is_taken_off_and_order_is_all_that_counts() -> None:
    rng = np.random.default_rng(1)
    group, step, *_ = answers(60, rng)
    noise = rng.normal(size=len(step))
    facts = step[:, None].astype(float)
    both = np.stack([step + 0.0, np.exp(noise), noise, np.ones(len(step))], 1)
    rest = beyond.Known(facts, group).left_over(both)
    assert np.abs(rest[:, 0]).max() < 0.02 * len(step)  # ranks of a step are the step's
    np.testing.assert_array_equal(rest[:, 1], rest[:, 2])
    assert not rest[:, 3].any() and np.isnan(beyond.association(rest[:, 3], rest[:, 1]))


def test_signs_keep_what_a_problem_says_together() -> None:
    """Two problems: only four sums of contributions are there."""
    a, b, group = np.array([1.0, 2, -1, 1]), np.array([2.0, 1, 1, 1]), np.array([0, 0, 1, 1])
    size = np.sqrt((a @ a) * (b @ b))
    null = beyond.flipped(a, b, group, draws=200)
    assert set(np.round(null * size).astype(int)) == {-4, 4}
    (one, other) = (a * b)[:2].sum(), (a * b)[2:].sum()
    assert (one, other) == (4, 0)


@pytest.mark.parametrize("fact", ["step", "prompt"])
def test_a_null_under_a_trend_keeps_its_level(fact: str) -> None:
    """A read-out and V follow the same fact and nothing else; 1000 runs of 40 problems. p <= .05 in
    at most 83 of them (8.3%; were its rate .07, more would come in 5% of seeds)."""
    hits = 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        group, step, position, prompt = answers(40, rng)
        facts = np.stack([step, position, prompt], 1).astype(float)
        cause = step if fact == "step" else prompt / 5
        y = cause + rng.normal(0, 1, 40)[group] + rng.normal(size=len(step))
        read = cause + rng.normal(0, 1, 40)[group] + rng.normal(size=len(step))
        a, b = beyond.Known(facts, group).left_over(np.stack([y, read], 1)).T
        null = beyond.flipped(a, b, group, draws=199, seed=seed)
        hits += np.mean(null >= beyond.association(a, b)) <= 0.05
    assert hits <= 83


def test_a_step_counter_is_neither_decodable_nor_sparse() -> None:
    """They passed both when the null was shuffled targets, which kept neither step nor length."""
    for seed in range(4):
        train, test = drawn("step", 80, 2 * seed), drawn("step", 40, 2 * seed + 1)
        found = evidence(train, test, COUNTERS, seed=seed)
        assert found.plain.estimate > 0.3 and found.known > 0.7 * found.plain.estimate
        assert claims.decodable(found).verdict != "pass", str(found)
        assert claims.sparse(found).verdict != "pass", str(found)


def test_a_rough_function_of_the_step_is_taken_off() -> None:
    """V and three neurons go up and down with every other step. They passed in 20 of 20 when steps
    had a spline of three knots, not a column each."""
    for seed in range(3):
        splits = []
        for problems, number in ((80, 2 * seed), (40, 2 * seed + 1)):
            data, rng = drawn("step", problems, number), np.random.default_rng(number)
            even = data.step % 2
            x = rng.normal(size=data.x.shape)
            x[:, COUNTERS] += 2.0 * even[:, None]
            y = 0.3 + 0.3 * even + rng.normal(0, 0.15, problems)[data.group]
            y += rng.normal(0, 0.1, len(even))
            splits.append(replace(data, x=torch.from_numpy(x).float(), y=y))
        found = evidence(*splits, COUNTERS, seed=seed)
        assert found.plain.estimate > 0.4
        assert claims.decodable(found).verdict != "pass", str(found)


def test_true_neurons_pass_under_the_same_trend() -> None:
    for seed in range(4):
        train, test = drawn("v", 80, 2 * seed), drawn("v", 40, 2 * seed + 1)
        found = evidence(train, test, COUNTERS, seed=seed)
        assert claims.decodable(found).verdict == "pass", str(found)
        assert claims.sparse(found).verdict == "pass", str(found)


def test_a_set_that_is_a_further_fact_is_not_told_apart_from_it() -> None:
    train, test = drawn("v", 80, 0), drawn("v", 40, 1)
    same = test.x[:, :3].numpy().mean(1)  # all that the set knows
    found = evidence(
        train, test, COUNTERS, further={"difficulty": same, "other": test.x[:, 9].numpy()}
    )
    assert found.lost_to == ("difficulty",)
    claim = claims.decodable(found)
    assert claim.verdict == "inconclusive" and "not told apart from difficulty" in claim.reason
    assert claims.sparse(found).verdict == "inconclusive"


def test_no_p_is_smaller_than_signs_allow() -> None:
    """Two clusters have four sums, of which one in four is the observed one: rounding must not make
    it the only one that counts."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        group = np.repeat([0, 1], 6)
        facts = rng.normal(size=(12, 1))
        a, b = beyond.Known(facts, group).left_over(rng.normal(size=(12, 2))).T
        score = beyond.association(a, b)
        null = beyond.flipped(a, b, group, seed=seed)
        assert beyond.p_among(score, null) > 0.2 and beyond.p_among(-score, -null) > 0.2


def test_few_problems_settle_nothing() -> None:
    """True neurons: two problems have no p below .25, and refute nothing either."""
    for test_problems in (2, 3, 8, 19):
        train, test = drawn("v", 80, 0), drawn("v", test_problems, 1)
        found = evidence(train, test, COUNTERS)
        for claim in (claims.decodable(found), claims.sparse(found)):
            assert claim.verdict == "inconclusive" and "run test=20" in claim.reason


def test_one_row_far_out_hides_no_fact() -> None:
    """The counter's own fact, with one row a million steps away: knots go by ranks."""
    train, test = drawn("step", 80, 4), drawn("step", 40, 5)
    facts = test.facts.copy()
    facts[0] = 1e6
    far = evidence(train, replace(test, facts=facts), COUNTERS)
    assert claims.decodable(far).verdict != "pass", str(far)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("neurons", "said"),
    [
        (np.arange(WIDTH) < 3, "of a mask: np.flatnonzero"),
        (np.array([0.0, 1.0]), "float64"),
        ([0, 0, 0], "different numbers from 0 to 63"),
        ([64], "different numbers from 0 to 63"),
        ([-1], "different numbers from 0 to 63"),
        ([], "the set is empty"),
    ],
)
def test_what_is_no_set_is_refused(neurons: Any, said: str) -> None:
    train, test = drawn("v", 20, 0), drawn("v", 20, 1)
    with pytest.raises(MechRewardError, match=said):
        evidence(train, test, neurons)


def test_facts_without_a_number_are_refused() -> None:
    train, test = drawn("v", 20, 0), drawn("v", 20, 1)
    for column in (np.full(len(test), np.nan), np.arange(3.0)):
        with pytest.raises(MechRewardError, match="'difficulty' needs a finite number for each"):
            evidence(train, test, COUNTERS, further={"difficulty": column})
    facts = test.facts.copy()
    facts[3, 1] = np.nan
    with pytest.raises(MechRewardError, match="facts hold NaN"):
        evidence(train, replace(test, facts=facts), COUNTERS)


@pytest.mark.unchecked
def test_refusals() -> None:
    with pytest.raises(MechRewardError, match="two problems or more"):
        beyond.Known(np.ones((4, 1)), np.zeros(4))
    with pytest.raises(MechRewardError, match="need one row each"):
        beyond.Known(np.ones((3, 1)), np.arange(4))
    with pytest.raises(MechRewardError, match="need one row each"):
        beyond.Known(np.arange(4.0)[:, None], np.arange(4)).left_over(np.ones((3, 1)))
