"""Risk and coverage, rejection, Brier score and what perfect calibration shows, against plain loops
and scikit-learn."""

from __future__ import annotations

from itertools import pairwise, permutations
from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from mechreward import MechRewardError, stats
from mechreward.stats import weighted

LABELS = st.lists(st.integers(0, 1), min_size=2, max_size=30)


def by_hand(order: list[int], label: list[int]) -> list[float]:
    """Risk at every coverage, of answers given in this order."""
    risks, wrong = [], 0
    for given_so_far, i in enumerate(order, start=1):
        wrong += 1 - label[i]
        risks.append(wrong / given_so_far)
    return risks


def test_the_curve_by_hand():
    score, label = np.array([0.9, 0.2, 0.6, 0.4]), np.array([1, 1, 0, 1])
    coverage, risk = stats.risk_coverage(score, label)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4])
    assert stats.aurc(score, label) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    # The oracle gives the wrong one last: risks 0, 0, 0, 1/4.
    assert stats.excess_aurc(score, label) == pytest.approx((1 / 2 + 1 / 3) / 4)
    gained, most = 1 / 4 - 13 / 48, 1 / 4 - 1 / 16
    assert stats.prediction_rejection_ratio(score, label) == pytest.approx(gained / most)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=6))
def test_ties_are_the_mean_over_all_orders_that_the_score_allows(rows):
    score, label = [s for s, _ in rows], [y for _, y in rows]
    curves = []
    for order in permutations(range(len(rows))):
        if all(score[a] >= score[b] for a, b in pairwise(order)):
            curves.append(by_hand(list(order), label))
    _, risk = stats.risk_coverage(score, label)
    assert risk.tolist() == pytest.approx(np.mean(curves, axis=0).tolist())


@given(LABELS, st.randoms(use_true_random=False))
def test_an_oracle_gains_all_a_constant_nothing_and_its_reverse_the_least(label, random):
    label = np.array(label)
    score = np.array([random.random() for _ in label])
    wrong = 1 - label.mean()
    assert stats.aurc(np.zeros(len(label)), label) == pytest.approx(wrong)
    assert stats.excess_aurc(label, label) == 0
    assert stats.excess_aurc(score, label) >= -1e-12
    ratio = stats.prediction_rejection_ratio(score, label)
    if len(set(label.tolist())) < 2:
        assert np.isnan(ratio)
        return
    assert stats.prediction_rejection_ratio(label, label) == pytest.approx(1)
    assert stats.prediction_rejection_ratio(np.ones(len(label)), label) == pytest.approx(0)
    least = stats.prediction_rejection_ratio(-label, label)
    assert least - 1e-12 <= ratio <= 1 + 1e-12
    # Any rising function of the score is the same score.
    assert stats.prediction_rejection_ratio(4 * score, label) == pytest.approx(ratio)


def test_errors_counted_over_all_answers_would_say_what_auroc_says():
    """The other definition of the ratio, as a loop: areas under errors left over all answers."""
    rng = np.random.default_rng(0)
    score, label = rng.normal(size=200), rng.integers(0, 2, 200)

    def area(order: np.ndarray) -> float:
        kept = [sum(1 - label[order[:n]]) / 200 for n in range(201)]
        return float(np.trapezoid(kept) / 200)

    chance = (1 - label.mean()) / 2
    ours, best = area(np.argsort(-score)), area(np.argsort(-label, kind="stable"))
    gini = (chance - ours) / (chance - best)
    assert gini == pytest.approx(2 * stats.auroc(score, label) - 1, abs=1e-9)


@given(LABELS, st.integers(0, 2**32 - 1))
def test_brier_is_scikit_learns(label, seed):
    prob = np.random.default_rng(seed).random(len(label))
    expected = brier_score_loss(label, prob, labels=[0, 1])
    assert stats.brier(prob, label) == pytest.approx(expected)
    base = np.full(len(label), np.mean(label))
    assert stats.brier(base, label) == pytest.approx(np.mean(label) * (1 - np.mean(label)))


@pytest.mark.parametrize(("n", "shown"), [(100, 0.124), (500, 0.056), (5000, 0.018)])
def test_a_perfect_predictor_shows_what_others_measured(n: int, shown: float):
    """Published figures, 15 bins, probabilities uniform; ours is a mean over 40 sets of them, whose
    standard error is below 2% of the figure."""
    rng = np.random.default_rng(1)
    found = [stats.perfect_ece(rng.random(n), draws=20, seed=i) for i in range(40)]
    assert np.mean(found) == pytest.approx(shown, rel=0.06)


def test_rows_of_one_outcome_are_as_many_as_their_outcomes():
    prob = np.linspace(0.02, 0.98, 60)
    alone = stats.perfect_ece(prob, draws=500)
    cluster = np.repeat(np.arange(60), 5)
    repeated = np.repeat(prob, 5)
    assert stats.perfect_ece(repeated, draws=500, cluster=cluster) == pytest.approx(alone)
    assert stats.perfect_ece(repeated, draws=500) < 0.6 * alone  # as if there were 300
    assert stats.perfect_ece(prob, cluster=list(range(60))) == stats.perfect_ece(prob)


def test_bins_are_those_of_the_calibration_error():
    prob = np.array([0.0, 0.24, 0.25, 0.99, 1.0])
    assert stats.binned(prob, 4).tolist() == [0, 0, 1, 3, 3]
    label = np.array([0, 1, 0, 1, 1])
    error = 0.0
    for number in range(4):
        here = stats.binned(prob, 4) == number
        if here.any():
            error += here.sum() / 5 * abs(prob[here].mean() - label[here].mean())
    assert stats.ece(prob, label, 4) == pytest.approx(error)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stats.aurc([0.5, nan], [0, 1]), "score"),
        (lambda: stats.aurc([0.5, 0.1], [0, 2]), "label must hold only 0 and 1"),
        (lambda: stats.risk_coverage([], []), "empty"),
        (lambda: stats.prediction_rejection_ratio([0.1], [0, 1]), "one length"),
        (lambda: stats.brier([0.5, 1.5], [0, 1]), r"prob must lie in \[0, 1\]"),
        (lambda: stats.binned([-0.1], 5), r"prob must lie in \[0, 1\]"),
        (lambda: stats.perfect_ece([0.5, 0.5], cluster=[1]), "one label for each of 2"),
    ],
)
def test_mistakes(call, words: str):
    with pytest.raises(MechRewardError, match=words):
        call()


# All draws at once


FAST = {
    "increment": (
        weighted.weighted_increment,
        lambda a, b, y: stats.auroc(a, y) - max(stats.auroc(b, y), 0.5),
    ),
    "ece": (lambda w, a, b, y: weighted.weighted_ece(w, a, y), lambda a, b, y: stats.ece(a, y)),
    "aurc": (lambda w, a, b, y: weighted.weighted_aurc(w, a, y), lambda a, b, y: stats.aurc(a, y)),
    "prr": (
        lambda w, a, b, y: weighted.weighted_prr(w, a, y),
        lambda a, b, y: stats.prediction_rejection_ratio(a, y),
    ),
    "brier": (
        lambda w, a, b, y: weighted.weighted_mean(w, np.square(a - y)),
        lambda a, b, y: stats.brier(a, y),
    ),
}


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("ties", [False, True])
def test_all_draws_at_once_are_the_draws_one_by_one(name: str, ties: bool, monkeypatch):
    """The same draws of clusters of unlike sizes, and so the same bounds."""
    rng = np.random.default_rng(3)
    cluster = np.sort(rng.integers(0, 15, 60))
    y = rng.integers(0, 2, 60).astype(float)
    a, b = rng.random((2, 60))
    if ties:
        a, b = np.round(a, 1), np.round(b, 1)
    fast, slow = FAST[name]
    expected = stats.cluster_bootstrap(slow, [a, b, y], cluster, draws=60)
    monkeypatch.setattr(weighted, "CELLS", 60 * 7)  # in pieces of seven draws
    found = stats.weighted_bootstrap(fast, [a, b, y], cluster, draws=60)
    for bound in ("estimate", "low", "high"):
        assert getattr(found, bound) == pytest.approx(getattr(expected, bound), abs=1e-9)
    assert found.n == expected.n


def test_one_class_has_no_bounds():
    found = stats.weighted_bootstrap(
        weighted.weighted_prr, [np.arange(6.0), np.ones(6)], np.arange(6), draws=20
    )
    assert np.isnan([found.estimate, found.low, found.high]).all() and found.n == 6
