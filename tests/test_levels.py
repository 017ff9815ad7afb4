"""P-values under nulls: their own mass by hand, exact ones uniform, and wrong ones caught."""

import numpy as np
import pytest
from scipy.stats import binomtest, kstest

from mechreward import stats
from mechreward.calibration import nulls as levels
from mechreward.calibration.nulls import Pvalues, null_pvalues, of_ranks, rejections


@pytest.fixture(scope="module")
def found():
    return null_pvalues(240)


def test_p_values_keep_their_level(found):
    for name, each in found.items():
        assert ((each.without <= each.p + 1e-12) & (each.without >= 0) & (each.p <= 1)).all(), name
        for row in rejections(name, each):
            assert row.low <= row.detail["level"], name
            assert row.estimate == np.mean(each.p <= row.detail["level"] + 1e-12)


@pytest.mark.parametrize(
    "name", ["rank_among", "rank_among, two-sided", "mcnemar", "hypergeometric_iou"]
)
def test_exact_p_values_are_uniform_without_their_own_mass(found, name):
    """The discrete p itself is not."""
    assert rejections(name, found[name])[0].detail["ks_uniform"] > 0.005
    assert kstest(found[name].p, "uniform").pvalue < 0.01 or name == "rank_among"


def test_p_values_of_experiments_are_uniform_too(found):
    """Of 60 runs each; below .005 by a chance of 1 in 200 for any one of them."""
    names = [name for name in found if name.startswith(("R3", "R9", "R12"))]
    assert len(names) == 7
    assert all(rejections(name, found[name])[0].detail["ks_uniform"] > 0.005 for name in names)


def test_wrong_ones_are_caught_on_either_side():
    p = np.random.default_rng(0).random(400)
    bold, shy, right = (rejections("x", Pvalues(each, each))[0] for each in (p**2, p**0.5, p))
    assert (
        bold.low > 0.05 and bold.detail["ks_too_small"] < 1e-6 and bold.detail["ks_uniform"] < 1e-6
    )
    assert shy.detail["ks_too_small"] > 0.5 and shy.detail["ks_uniform"] < 1e-6
    assert right.detail["ks_uniform"] > 0.01


def test_a_p_without_its_own_mass_by_hand():
    before, after = (
        np.array([1] * 3 + [0] * 7),
        np.array([0] * 3 + [1] + [0] * 6),
    )  # three lost, one won
    p, without = levels.mcnemar(before, after)
    assert p == binomtest(1, 4).pvalue == stats.mcnemar(before, after) == pytest.approx(10 / 16)
    assert without == pytest.approx(2 / 16)  # none or all lost
    even = levels.mcnemar(np.array([1, 0]), np.array([0, 1]))
    assert even == pytest.approx((1, 1 / 2)) and levels.mcnemar(before, before) == (1, 0)
    ranks = of_ranks(np.array([0.05, 1.0]), 19)
    np.testing.assert_allclose(ranks.without, [0, 0.95])
    np.testing.assert_allclose(of_ranks(np.array([0.1, 1.0]), 19, "two").without, [0, 0.9])
    assert ((ranks.randomised() >= ranks.without) & (ranks.randomised() <= ranks.p)).all()


def test_read_outs_that_know_nothing_keep_to_their_answer():
    from mechreward.testbed.walks import walks

    rng = np.random.default_rng(0)
    w = walks(300, rng)
    x = levels.wandering(w, rng, 4)
    assert np.abs(stats.spearmans(x, w.v)).max() < 0.2
    stays = (
        np.abs(np.diff(x, axis=0))[~w.last[:-1]].mean()
        / np.abs(np.diff(x, axis=0))[w.last[:-1]].mean()
    )
    assert stays < 0.6  # a step moves less than another answer
    assert abs(stats.spearman(x[:, 0], w.step)) > 0.3 > abs(stats.spearman(x[:, 1], w.step))
