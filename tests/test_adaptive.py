"""As many continuations as a state needs: the rule, the prior, the bound, and what is measured
against exact V.

What a rule does to a state of known V is enumerated exactly (`law`); where something is drawn, the
error rate stands beside it.
"""

from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import two
from scipy import integrate, optimize, stats

import mechreward as mr
from mechreward import AdaptiveK, MechRewardError, Values
from mechreward.base.files import write_tensors
from mechreward.bundled.adapters import LARGE, large_steps
from mechreward.rollouts import value
from mechreward.rollouts.adaptive import (
    JEFFREYS,
    fitted_prior,
    neyman_bound,
    posterior_interval,
    posterior_mean,
)
from mechreward.tasks import Problem, Verdict
from mechreward.tasks.judge import VerifierWarning
from mechreward.testbed.layout import PLANTS

CONSTANT = ("null", "large", "sink", "length")  # planted models whose V is .5 throughout
DEFAULT = AdaptiveK()


class Law(SimpleNamespace):
    """Every end of a state: `successes` [end], `k` [end], and `chance` [end v]; the share that goes
    on in each round, `going` [round v]."""


@cache
def law(rule: AdaptiveK, v: tuple[float, ...]) -> Law:
    """What a rule does to states of value `v`, by enumeration."""
    going, ends, share = {(0, 0): np.ones(len(v))}, {}, []
    while going:
        after = {}
        successes, k = np.array(list(going)).T
        lacking = rule.lacking(successes, k).tolist()
        share.append(np.zeros(len(v)))
        for (s, n), more in zip(list(going), lacking, strict=True):
            if more == 0:
                ends[s, n] = ends.get((s, n), 0) + going[s, n]
                continue
            share[-1] += going[s, n]
            chance = stats.binom.pmf(np.arange(more + 1)[:, None], more, v)
            for x in range(more + 1):
                place = s + x, n + more
                after[place] = after.get(place, 0) + going[s, n] * chance[x]
        going = after
    successes, k = np.array(list(ends)).T
    return Law(successes=successes, k=k, chance=np.array(list(ends.values())), going=share)


def drawn(rule: AdaptiveK, v: np.ndarray, rng: np.random.Generator):
    """Successes and continuations [row] of states of value `v`, drawn round by round."""
    successes = k = np.zeros(len(v), dtype=np.int64)
    while (lacking := rule.lacking(successes, k)).any():
        successes, k = successes + rng.binomial(lacking, v), k + lacking
    return successes, k


def fixed_k(error: float, v: np.ndarray, weight: np.ndarray, prior=(0.0, 0.0)) -> float:
    """The one k at which posterior means (with (0, 0): V-hat) have this mean squared error."""
    a, b = prior

    def excess(k: float) -> float:
        noise, pull = k * v * (1 - v), (a - (a + b) * v) ** 2
        return float((noise + pull) @ weight) / (k + a + b) ** 2 - error

    return optimize.brentq(excess, 2, 1000)


def share_needed(rule: AdaptiveK, v: np.ndarray, weight: np.ndarray, prior=(0.0, 0.0)) -> float:
    """Continuations beside those of one k at equal error, both estimators shrunk alike."""
    ends = law(rule, tuple(v))
    mean = (ends.successes + prior[0]) / (ends.k + sum(prior))
    error = (ends.chance * (mean[:, None] - v) ** 2).sum(0) @ weight
    return float(ends.k @ ends.chance @ weight / fixed_k(error, v, weight, prior))


@cache
def planted_v(name: str) -> np.ndarray:
    """Exact V [row] of the states of some answers, by dynamic programming."""
    here = mr.testbed.planted(name)
    runs = mr.sample(here.model, here.task.problems("test", 40), progress=False)
    v, _ = here.truth.values(runs)
    return v[np.concatenate([[*[True] * run.steps, False] for run in runs])]


def levels(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and their shares: exact V differ beyond the fourth place where the limit is near."""
    level, count = np.unique(v.round(4), return_counts=True)
    return level, count / count.sum()


def beta_levels(a: float, b: float) -> tuple[np.ndarray, np.ndarray]:
    return stats.beta.ppf((np.arange(100) + 0.5) / 100, a, b), np.full(100, 0.01)


# The rule


def test_the_rule_by_hand():
    none = np.zeros(3, dtype=np.int64)
    assert DEFAULT.lacking(none, none).tolist() == [8, 8, 8]
    # 2 (1.96 / .34)^2 sqrt(p (1 - p)) - 2 with p = (s + .5) / 9: 13.2 for 0 and 8 of 8, 31.2 for 4.
    successes, k = np.array([0, 8, 4]), np.full(3, 8)
    assert DEFAULT.lacking(successes, k).tolist() == [6, 6, 24] and DEFAULT.most == 32
    # 0 of 14 needs 9.9: done. 4 of 24 needs 23.4 and 4 of 23 needs 23.9, so one more, and gets an
    # eighth, 2. 14 of 31 needs 31.1: one more, for no state exceeds 32.
    some = np.array([0, 4, 4, 14]), np.array([14, 24, 23, 31])
    assert DEFAULT.lacking(*some).tolist() == [0, 0, 2, 1]
    assert AdaptiveK(0.9, 8).most == 8 and AdaptiveK(0.1).most == 383


@given(st.floats(0.08, 0.95), st.integers(2, 20), st.lists(st.floats(0, 1), min_size=1, max_size=9))
@settings(max_examples=40)
def test_who_stops_has_a_narrow_interval(width: float, least: int, v: list[float]):
    """Of scipy's exact Beta quantiles, whatever the state; and `lacking` knows no company."""
    rule = AdaptiveK(width, least)
    successes, k = drawn(rule, np.array(v), np.random.default_rng(0))
    low, high = stats.beta.ppf([[0.025], [0.975]], successes + 0.5, k - successes + 0.5)
    assert (high - low).max() <= width
    assert k.min() >= least and k.max() <= rule.most
    again = posterior_interval(successes, k)
    np.testing.assert_allclose(again, (low, high), atol=1e-12)
    early = np.minimum(k, least)
    at = np.minimum(successes, early)
    alone = [rule.lacking(at[i : i + 1], early[i : i + 1])[0] for i in range(len(v))]
    assert rule.lacking(at, early).tolist() == alone


def test_continuations_go_as_the_standard_deviation_of_a_reward():
    """With many of them, to a sixth: what a noisy round gives too much is not taken back."""
    v = np.array([0.5, 0.28, 0.17, 0.06, 0.01])
    rule = AdaptiveK(0.05, 150)
    _, k = drawn(rule, np.repeat(v, 500), np.random.default_rng(0))
    mean = k.reshape(5, -1).mean(1)
    beside = mean / mean[0] / (2 * np.sqrt(v * (1 - v)))
    assert beside.min() > 0.99 and beside.max() < 1.18
    assert rule.most == pytest.approx((1.96 / 0.05) ** 2, abs=3)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 0.0}, "width"),
        ({"width": 1.0}, "width"),
        ({"width": "x"}, "width must be a finite number"),
        ({"width": float("nan")}, "width"),
        ({"least": 1}, "least counts .* at least 2"),
        ({"least": 8.0}, "least counts .* whole number"),
    ],
)
def test_what_is_no_rule(options, words: str):
    with pytest.raises(MechRewardError, match=words):
        AdaptiveK(**options)


# The prior, and posteriors


@pytest.mark.parametrize("prior", [(0.3, 0.3), (2.0, 5.0)])
def test_the_prior_is_where_the_likelihood_is_highest(prior):
    """Against a plain product over a grid, and near the prior that V was drawn from: 3 standard
    errors of a and of b, so 1 in 200 other seeds would fail."""
    rng = np.random.default_rng(0)
    v = rng.beta(*prior, 4000)
    successes, k = drawn(DEFAULT, v, rng)
    found = fitted_prior(successes, k)

    def likelihood(a: float, b: float) -> float:
        return stats.betabinom.logpmf(successes, k, a, b).sum()

    best = likelihood(*found)
    for a in np.linspace(0.9, 1.1, 5):
        for b in np.linspace(0.9, 1.1, 5):
            assert likelihood(found[0] * a, found[1] * b) <= best + 0.01
    # Stopping by what was seen leaves the fit where it was; the errors are those of this size.
    np.testing.assert_allclose(found, prior, rtol=0.1)


def test_states_of_one_value_have_a_tight_prior():
    rng = np.random.default_rng(0)
    k = np.full(3000, 32)
    a, b = fitted_prior(rng.binomial(k, 0.3), k)
    assert a + b > 300 and a / (a + b) == pytest.approx(0.3, abs=0.01)
    a, b = fitted_prior(np.zeros(4, dtype=np.int64), np.full(4, 8))
    assert posterior_mean(np.array([0]), np.array([8]), (a, b))[0] < 0.01
    with pytest.raises(MechRewardError, match="no states"):
        fitted_prior(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


def test_the_posterior_mean_does_not_ask_why_a_state_stopped():
    """By integration over V: among all states that end with so many of so many, it is their mean
    V, though continuations went by what was seen. V-hat is not."""
    prior, node, weight = (1.4, 2.0), *np.polynomial.legendre.leggauss(60)
    v = (node + 1) / 2
    weight = weight / 2 * stats.beta.pdf(v, *prior)
    ends = law(DEFAULT, tuple(v))
    chance = ends.chance @ weight
    mean = ends.chance @ (weight * v) / chance
    np.testing.assert_allclose(posterior_mean(ends.successes, ends.k, prior), mean, atol=2e-4)
    assert chance.sum() == pytest.approx(1, abs=1e-4)
    raw = ends.successes / ends.k
    assert np.abs(raw - mean).max() > 0.02
    by_quad = integrate.quad(lambda x: x * stats.beta.pdf(x, 1.9, 8.5), 0, 1)[0]
    assert posterior_mean(np.array([1]), np.array([8]), (0.9, 1.5))[0] == pytest.approx(by_quad)


# The bound, and what is measured


def test_the_bound_is_that_of_the_best_allocation():
    assert neyman_bound(np.array([0.5, 0.5])) == 1
    # s is .3 and .5: .4^2 / .17.
    v = np.array([0.1, 0.5])
    assert neyman_bound(v) == pytest.approx(0.16 / 0.17)
    assert np.isnan(neyman_bound(np.array([0.0, 1.0])))
    # By search: at one k's error, the least mean number of continuations of two states.
    error = np.mean(v * (1 - v)) / 32

    def total(first: float) -> float:
        second = 0.25 / (2 * error - 0.09 / first)
        return (first + second) / 2

    best = optimize.minimize_scalar(total, bounds=(10, 60), method="bounded").fun
    assert best / 32 == pytest.approx(neyman_bound(v), abs=1e-6)


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_model_needs_what_the_bound_says(name: str):
    """The bound of every planted model, and continuations at equal mean squared error to exact V,
    both estimators under one prior. Exact by enumeration: nothing is drawn but the answers."""
    v = planted_v(name)
    level, weight = levels(v)
    bound = neyman_bound(v)
    assert bound == pytest.approx(1.0 if name in CONSTANT else 0.955, abs=0.01)
    for width in (0.34, 0.2):
        needed = share_needed(AdaptiveK(width), level, weight, JEFFREYS)
        assert bound < needed < bound + 0.06
    if name not in CONSTANT:  # else the prior knows V, and no continuation adds to it
        k = np.full(len(v), 32)
        prior = fitted_prior(np.random.default_rng(0).binomial(k, v), k)
        needed = share_needed(DEFAULT, level, weight, prior)
        assert needed == pytest.approx(bound, abs=0.02)


@pytest.mark.parametrize("name", ["value", "null"])
def test_drawn_states_need_what_the_enumeration_says(name: str):
    """Each with its own fitted prior, where V varies. 40,000 states: the ratio of two errors has a
    standard error of 1%, so 3 in 1,000 other seeds would fail."""
    rng = np.random.default_rng(1)
    level, weight = levels(planted_v(name))
    v = rng.choice(level, 40_000, p=weight)
    successes, k = drawn(DEFAULT, v, rng)
    one_k = round(fixed_k(float(np.mean((successes / k - v) ** 2)), level, weight))
    ones = np.full(len(v), one_k)
    others = rng.binomial(one_k, v)
    prior = other_prior = JEFFREYS
    if name == "value":
        prior, other_prior = fitted_prior(successes, k), fitted_prior(others, ones)
        np.testing.assert_allclose(prior, other_prior, rtol=0.05)
    error = np.mean((posterior_mean(successes, k, prior) - v) ** 2)
    other = np.mean((posterior_mean(others, ones, other_prior) - v) ** 2)
    # Near one k, the error of shrunk values falls as 1 / (k + a + b).
    equal = (one_k + sum(prior)) * other / error - sum(prior)
    needed = share_needed(DEFAULT, level, weight, prior)
    assert k.mean() / equal == pytest.approx(needed, abs=0.03)


def test_what_the_rule_says_of_itself():
    """The figures of its docstring."""
    level, weight = levels(planted_v("value"))
    ends = law(DEFAULT, tuple(level))
    outward = np.sign(level - 0.5) * ((ends.successes / ends.k) @ ends.chance - level)
    assert outward.max() == pytest.approx(0.013, abs=0.001) and outward.min() > -1e-9
    assert share_needed(DEFAULT, level, weight) == pytest.approx(1.04, abs=0.01)
    assert share_needed(AdaptiveK(0.2), level, weight) == pytest.approx(0.99, abs=0.01)
    going = np.array(ends.going) @ weight
    assert 0.5 < 1 - going[2] < 0.6 and going[3] < 0.1
    half = np.array([0.5]), np.array([1.0])
    assert share_needed(DEFAULT, *half, JEFFREYS) == pytest.approx(1.05, abs=0.005)
    extreme = beta_levels(0.3, 0.3)
    assert share_needed(DEFAULT, *extreme, (0.3, 0.3)) == pytest.approx(0.8, abs=0.02)
    assert 0.66 < neyman_bound(extreme[0]) < 0.7


def test_reliability_is_a_little_too_high():
    """By .01, 20 times its standard error among 80,000 states."""
    rng = np.random.default_rng(2)
    level, weight = levels(planted_v("value"))
    v = rng.choice(level, 80_000, p=weight)
    trajectory, step = np.repeat(np.arange(len(v)), 2), np.tile([0, 1], len(v))
    nothing = np.zeros_like(step)
    made = Values(trajectory, step, nothing, nothing, nothing, trajectory, nothing)
    while (lacking := value._lacking(made, DEFAULT)).any():
        rows, numbers = value._wanted(made.k, lacking)
        rewards = rng.binomial(1, np.repeat(v, 2)[rows])
        made = value._with(made, lacking, rows, numbers, rewards)
    true = np.corrcoef(made.mean[made.live], v)[0, 1] ** 2
    assert made.reliability()["value"] - true == pytest.approx(0.01, abs=0.003)
    first, second = (half[made.live] - v for half in made.halves())
    # Both halves are biased alike, for they saw the same decisions.
    low = v < 0.3
    assert first[low].mean() == pytest.approx(second[low].mean(), abs=0.003)


# Values with a k for every row


def several() -> Values:
    """Two trajectories of two and one steps, with 5 and 2 (end), and 8 (end) continuations."""
    return Values(
        trajectory=np.array([0, 0, 0, 1, 1]),
        step=np.array([0, 1, 2, 0, 1]),
        first=np.array([3, 0, 0, 1, 0]),
        second=np.array([1, 1, 0, 3, 0]),
        reward=np.array([1, 1, 1, 0, 0]),
        group=np.array([0, 0, 0, 4, 4]),
        k=np.array([5, 2, 9, 8, 9]),
        seed=3,
    )


def test_every_row_goes_by_its_k():
    made = several()
    assert made.k.tolist() == [5, 2, 0, 8, 0] and made.least == 2
    assert made.mean.tolist() == [0.8, 0.5, 1, 0.5, 0]
    p = np.array([5 / 7, 2 / 4, 5 / 10])
    error = np.sqrt(p * (1 - p) / [5, 2, 8])
    np.testing.assert_allclose(made.error, [*error[:2], 0, error[2], 0])
    first, second = made.halves()
    assert first.tolist() == [1, 0, 1, 0.25, 0] and second.tolist() == [0.5, 1, 1, 0.75, 0]
    np.testing.assert_allclose(
        made.delta, [np.nan, value.GAMMA * 0.5 - 0.8, 0.5, np.nan, -0.5], atol=1e-12
    )
    assert made.frame()["k"].tolist() == made.k.tolist()
    assert "3 states, k=2-8, sd" in repr(made) and "3 states, k=4, sd" in repr(two())
    with pytest.raises(MechRewardError, match=r"halves need k >= 2 .* k=1"):
        Values(**(vars(made) | {"k": np.array([5, 1, 0, 8, 0])})).halves()


def test_shrunk_values_and_intervals():
    made = several()
    np.testing.assert_allclose(made.shrunk((1.0, 2.0)), [5 / 8, 2 / 5, 1, 5 / 11, 0])
    a, b = made.prior()
    assert made.shrunk()[0] == pytest.approx((4 + a) / (5 + a + b))
    low, high = made.interval()
    assert (low[0], high[0]) == pytest.approx(stats.beta.ppf([0.025, 0.975], 4.5, 1.5))
    assert low[~made.live].tolist() == high[~made.live].tolist() == [1, 0]


def test_a_file_keeps_every_k_and_those_of_older_versions_are_read(tmp_path: Path):
    made = several()
    back = Values.load(made.save(tmp_path / "new"))
    for name in ("k", "first", "second", "mean", "error"):
        assert np.array_equal(getattr(back, name), getattr(made, name))
    whole = Values.join([made, back])
    assert whole.k.tolist() == [5, 2, 0, 8, 0] * 2 and whole.seed == back.seed == 3
    names = ("trajectory", "step", "first", "second", "reward", "group")
    columns = {name: torch.from_numpy(getattr(two(), name)) for name in names}
    about = {"kind": "values", "k": 4, "seed": 7}
    old = Values.load(write_tensors(tmp_path / "old", columns, about))
    assert old.k.tolist() == [4, 4, 0, 4, 0] and old.seed == 7
    assert old.mean.tolist() == two().mean.tolist()
    del about["k"]
    with pytest.raises(MechRewardError, match="damaged values file"):
        Values.load(write_tensors(tmp_path / "none", columns, about))


def test_large_steps_compare_proportions_of_different_numbers():
    """40 of 50 before 4 of 20, which is seen; 5 of 6 before 1 of 2 (z = .94 by hand), which is
    not."""
    nothing = np.zeros(6, dtype=np.int64)
    made = Values(
        trajectory=np.repeat([0, 1], 3),
        step=np.tile([0, 1, 2], 2),
        first=np.array([40, 4, 0, 5, 1, 0]),
        second=nothing,
        reward=np.array([0, 0, 0, 1, 1, 1]),
        group=np.repeat([0, 1], 3),
        k=np.array([50, 20, 0, 6, 2, 0]),
    )
    assert (np.abs(made.delta[made.is_step]) > LARGE).tolist() == [True, False, True, True]
    assert large_steps(made).tolist() == [True, False, False, False]


# Estimates


@cache
def small():
    """A planted model and three short answers."""
    here = mr.testbed.planted("value")
    runs = mr.sample(here.model, here.task.problems("test", 12), progress=False)
    return here, runs.subset(sorted(range(12), key=lambda number: runs[number].steps)[4:7])


RULE = AdaptiveK(0.5, 4)


@cache
def adaptive() -> Values:
    here, runs = small()
    return mr.estimate(here.model, runs, k=RULE, progress=False)


class Asked(list):
    """The jobs of every call of `generate`."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    calls, generate = Asked(), value.generate

    def spy(model, jobs, **options):
        calls.append(list(jobs))
        return generate(model, jobs, **options)

    monkeypatch.setattr(value, "generate", spy)
    return calls


def test_an_adaptive_estimate_begins_as_the_fixed_one(asked, tmp_path: Path):
    here, runs = small()
    made = mr.estimate(here.model, runs, k=RULE, seed=2, out=tmp_path, progress=False)
    live = made.live
    assert made.least >= 4 and made.k.max() <= RULE.most == 14 and len(set(made.k[live])) > 2
    assert not RULE.lacking(made.successes, made.k)[live].any()
    # A call a round, and nothing asked for twice; numbers of a state's continuations have no gaps.
    keys = [job.key for jobs in asked for job in jobs]
    assert len(asked) > 1 and len(set(keys)) == len(keys) == made.k.sum()
    assert len(asked[0]) == 4 * live.sum()
    for k in set(made.k[live].tolist()):
        fixed = mr.estimate(here.model, runs, k=k, seed=2, out=tmp_path, progress=False)
        rows = made.k == k
        assert np.array_equal(fixed.successes[rows], made.successes[rows])
    # Halves differ by one at most, so V-hat is their mean where k is even.
    first, second = made.halves()
    even = live & (made.k % 2 == 0)
    np.testing.assert_allclose((first + second)[even] / 2, made.mean[even])
    sizes = made.k - made.k // 2
    assert (made.first <= sizes).all() and (made.second <= made.k - sizes).all()


def test_halves_are_those_of_every_round(asked, monkeypatch: pytest.MonkeyPatch):
    """By a plain loop over the rewards of the rounds."""
    here, runs = small()
    rewards, judge = [], value.judge

    def spy(*args, **options):
        verdicts = judge(*args, **options)
        rewards.append([verdict.reward for verdict in verdicts])
        return verdicts

    monkeypatch.setattr(value, "judge", spy)
    made = mr.estimate(here.model, runs, k=RULE, progress=False)
    states = {}  # (problem, step): rewards of the first half, and of the second
    for jobs, won in zip(asked, rewards, strict=True):
        fresh = {}
        for job, reward in zip(jobs, won, strict=True):
            fresh.setdefault((job.key[2], job.key[5]), []).append(reward)
        for state, drawn_now in fresh.items():
            first, second = states.setdefault(state, ([], []))
            after = len(first) + len(second) + len(drawn_now)
            cut = after - after // 2 - len(first)
            first += drawn_now[:cut]
            second += drawn_now[cut:]
    rows = np.flatnonzero(made.live)
    problems = [runs[number].problem_id for number in made.trajectory[rows].tolist()]
    for row, problem in zip(rows, problems, strict=True):
        first, second = states[problem, int(made.step[row])]
        assert (made.first[row], made.second[row]) == (sum(first), sum(second))
        assert made.k[row] == len(first) + len(second) and 0 <= len(first) - len(second) <= 1


@pytest.mark.parametrize(("batch", "chosen"), [(3, [2]), (50, [1, 0])])
def test_neither_batch_nor_company_changes_an_adaptive_value(batch: int, chosen: list[int]):
    here, runs = small()
    made = adaptive()
    few = mr.estimate(here.model, runs.subset(chosen), k=RULE, batch=batch, progress=False)
    rows = np.concatenate([np.flatnonzero(made.trajectory == number) for number in chosen])
    for name in ("k", "first", "second"):
        assert np.array_equal(getattr(few, name), getattr(made, name)[rows])


def test_adaptive_values_agree_with_the_exact_ones():
    """A mean of so few chi-squares would leave this range for 1 in 1,000 other seeds."""
    here, runs = small()
    made = adaptive()
    v, _ = here.truth.values(runs)
    live = made.live
    z = ((made.mean - v) / np.sqrt(np.maximum(v * (1 - v), 1e-9) / np.maximum(made.k, 1)))[live]
    assert len(z) > 8 and 0.1 < np.mean(z**2) < 3.2
    assert np.array_equal(made.shrunk()[~live], v[~live])


def test_a_stopped_run_goes_on(asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here, runs = small()
    plain = adaptive()
    generate, left = value.generate, [1]

    def stop(*args, **options):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return generate(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(value, "generate", stop)
        with pytest.raises(KeyboardInterrupt):
            mr.estimate(here.model, runs, k=RULE, out=tmp_path, progress=False)
    before = len(list(tmp_path.iterdir()))
    kept = mr.estimate(here.model, runs, k=RULE, out=tmp_path, progress=False)
    again = mr.estimate(here.model, runs, k=RULE, out=tmp_path, progress=False)
    assert 0 < before < len(list(tmp_path.iterdir()))
    for name in ("k", "first", "second"):
        assert np.array_equal(getattr(kept, name), getattr(plain, name))
        assert np.array_equal(getattr(again, name), getattr(plain, name))


class Late(tiny.Even):
    """Its verifier fails from so many answers on."""

    def __init__(self, sound: int) -> None:
        super().__init__()
        self.sound = sound
        self.seen = 0

    def verify(self, problem: Problem, text: str) -> Verdict:
        self.seen += 1
        if self.seen > self.sound:
            raise RuntimeError("no more")
        return super().verify(problem, text)


def test_a_verifier_that_fails_in_a_late_round_costs_its_answers_alone(tiny_model):
    drawn_problems = tiny.Even().problems("test", 3)
    runs = mr.sample(tiny_model, drawn_problems, progress=False)
    states = sum(run.steps for run in runs)
    task = Late(1 + 4 * states)  # an empty answer is verified first
    problems = tuple(Problem(p.id, p.prompt, p.answer, {}, task) for p in runs.problems)
    late = mr.Rollouts(runs.trajectories, problems, runs.policy, runs.model_id)
    with pytest.warns(VerifierWarning, match="count as unverifiable"):
        made = mr.estimate(tiny_model, late, k=RULE, progress=False)
    assert task.seen == 1 + made.k.sum() > 1 + 4 * states
    task = Late(1)
    problems = tuple(Problem(p.id, p.prompt, p.answer, {}, task) for p in runs.problems)
    with pytest.raises(MechRewardError, match="failed on all"):
        mr.estimate(
            tiny_model,
            mr.Rollouts(runs.trajectories, problems, runs.policy, runs.model_id),
            k=RULE,
            progress=False,
        )
