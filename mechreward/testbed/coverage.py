"""Do intervals cover and p-values keep their level? Simulated on the Markov process of `process.py`, all but one
without a model.

An interval is made from few problems, as the package makes it, and held against the same statistic of a simulation so
large that its own error is a twentieth of the interval's width or less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import binom, kstest, multinomial

from mechreward import stats
from mechreward._check import one_of, require
from mechreward._progress import progress
from mechreward.probing.evidence import read_outs, sparsity
from mechreward.probing.probe import ValueProbe
from mechreward.probing.pruning import noiseless_spearman
from mechreward.results import Row
from mechreward.stats import Interval
from mechreward.testbed import process
from mechreward.testbed.calibrate import RESID, gather
from mechreward.testbed.planted import planted

K = 16  # continuations a state, as in the main job
CUT = 0.3
LARGE = 20_000  # problems of the simulation that stands for the truth
LEVELS = (0.05, 0.2)
BAND = (0.93, 0.97)  # what a 95% interval must cover


@dataclass(frozen=True)
class Walks:
    """Answers of the process, one row a state that goes on: its exact V, answer, problem and step; whether it is the
    answer's last; the answer's reward."""

    v: Float[np.ndarray, " row"]
    walk: Int[np.ndarray, " row"]
    group: Int[np.ndarray, " row"]
    step: Int[np.ndarray, " row"]
    last: np.ndarray
    reward: Int[np.ndarray, " row"]

    def halves(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """V-hat [row] from either half of `K` continuations: continuations of a Markov process are independent."""
        first, second = (rng.binomial(K // 2, self.v) / (K // 2) for _ in range(2))
        return first, second

    def estimate(self, rng: np.random.Generator) -> np.ndarray:
        """V-hat [row] from all `K` continuations."""
        return np.mean(self.halves(rng), axis=0)

    def delta(self, v: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
        """TD error of the step that follows each row."""
        return np.where(self.last, self.reward, np.append(v[1:], 0)) - v

    def deltas(self, rng: np.random.Generator) -> list[np.ndarray]:
        """TD errors [row] from either half of the continuations."""
        return [self.delta(half) for half in self.halves(rng)]

    def read(self, y: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
        """`y` as a probe may read it: with noise of every state, and half as much that a problem's states share."""
        shared = rng.normal(0, noise / 2, self.group.max() + 1)[self.group]
        return y + rng.normal(0, noise, len(y)) + shared


def walks(problems: int, rng: np.random.Generator, per: int = 1) -> Walks:
    """`per` answers to each of `problems`, all of one problem from the same state."""
    moves = process.walk().rows(process.LEVELS).cumsum(1)
    at = np.repeat(rng.integers(2, 7, size=problems), per)  # the states 3 to 7
    alive, won = np.ones(len(at), bool), np.zeros(len(at), bool)
    visited, going = [], []
    for _ in range(process.Planted.max_tokens):
        visited.append(at)
        going.append(alive)
        said = (rng.random(len(at))[:, None] > moves[at]).sum(1).clip(0, 12)
        won = won | (alive & (said == 12))
        alive = alive & (said > 0) & (said < 12)
        at = np.where(said > 9, 4, (said - 1).clip(0, 8))  # `back` and `slip` are worth what the fifth level is
        if not alive.any():
            break
    walk, step = np.nonzero(np.stack(going, 1))
    last = np.append(walk[1:] != walk[:-1], True)
    v = process.LEVELS[np.stack(visited, 1)[walk, step]]
    return Walks(v, walk, walk // per, step, last, won[walk].astype(int))


@dataclass(frozen=True)
class Case:
    """A statistic with one interval that the package prints: `draw` gives its columns and their problems."""

    statistic: Callable[..., float]
    draw: Callable[[Walks, np.random.Generator], tuple[list[np.ndarray], np.ndarray]]
    per: int = 1
    with_cluster: bool = False


def _first(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    keep = w.step == 0
    return [w.read(w.v, 0.1, rng)[keep], w.reward[keep]], w.group[keep]


def _every(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    return [w.read(w.v, 0.1, rng), w.reward], w.group


def _last(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    return [w.read(w.v, 0.5, rng)[w.last], w.reward[w.last]], w.group[w.last]


def _vhat(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    return [w.estimate(rng)], w.group


def _large(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    return [(np.abs(w.delta(w.estimate(rng))) > CUT).astype(float)], w.group


def _value(noise: float) -> Callable[..., tuple[list[np.ndarray], np.ndarray]]:
    return lambda w, rng: ([w.read(w.v, noise, rng), w.estimate(rng)], w.group)


def _dopamine(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    return [w.read(w.delta(w.v), 0.2, rng), w.delta(w.estimate(rng))], w.group


def _noiseless(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    halves = w.deltas(rng)
    return [w.read(w.delta(w.v), 0.2, rng), np.mean(halves, axis=0), *halves], w.group


def _ablated(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """An ablation that costs .2, against the mean of 19 matched sets that cost .1: `Effect.summary`'s difference."""
    start = w.v[w.step == 0]
    own = rng.binomial(1, start - 0.2)
    return [own - rng.binomial(19, start - 0.1) / 19], np.arange(len(start))


CASES = {
    "mean: accuracy": Case(np.mean, lambda w, rng: ([w.reward[w.step == 0].astype(float)], w.group[w.step == 0])),
    "mean: V-hat": Case(np.mean, _vhat),
    "mean: share of |delta| > .3": Case(np.mean, _large),
    "std: V-hat": Case(np.std, _vhat),
    "AUROC at s_0": Case(stats.auroc, _first),
    "AUROC at every state": Case(stats.auroc, _every),
    "AUROC at the last state": Case(stats.auroc, _last),
    "AUROC within problems (4 answers each)": Case(stats.within_auroc, _every, 4, True),
    "Spearman with V-hat, near perfect": Case(stats.spearman, _value(0.05)),
    "Spearman with V-hat, good": Case(stats.spearman, _value(0.2)),
    "Spearman with V-hat, weak": Case(stats.spearman, _value(1.0)),
    "Spearman with delta": Case(stats.spearman, _dopamine),
    "Spearman with delta, disattenuated": Case(noiseless_spearman, _noiseless),
    "reliability of V-hat": Case(stats.split_half_reliability, lambda w, rng: ([*w.halves(rng)], w.group)),
    "reliability of delta": Case(stats.split_half_reliability, lambda w, rng: (w.deltas(rng), w.group)),
    "paired difference to matched sets": Case(np.mean, _ablated),
}
POOL = (("train", 40), ("test", 3000))  # problems of `_sparsity`: fitted to, and tested on
RATES = (0.02, 0.05, 0.1, 0.3, 0.5, 0.8, 0.95)  # of `proportion`
PAIRS = ((0.02, 0.02), (0.15, 0.05), (0.4, 0.1))  # P(lost), P(won) of paired outcomes


def truth(case: Case, problems: int = LARGE) -> float:
    """The statistic of one huge simulation."""
    rng = np.random.default_rng(1)
    columns, cluster = case.draw(walks(problems, rng, case.per), rng)
    return float(case.statistic(*columns, *([cluster] if case.with_cluster else [])))


def covered(interval: Callable[[int], Interval], true: float, runs: int, what: str | None = None) -> dict[str, Any]:
    """How often `interval(run)` holds `true`, lies wholly above or below, or has no bounds (does not count)."""
    require(runs >= 1, f"runs must be at least 1; {runs} was given.")
    found = [interval(run) for run in progress(what, "run", range(runs), leave=False)]
    bounded = [one for one in found if not np.isnan(one.low)]
    require(len(bounded) > 0, "no run gave an interval.")
    above, below = (sum(side) for side in ([one.low > true for one in bounded], [one.high < true for one in bounded]))
    rate = stats.proportion(len(bounded) - above - below, len(bounded))
    return {"rate": rate, "above": above, "below": below, "unbounded": len(found) - len(bounded)}


def coverage(
    problems: tuple[int, ...] = (40, 60, 200), runs: int = 200, draws: int = 300, only: str = "", seed: int = 0
) -> list[Row]:
    """Coverage of every interval: bootstrapped ones by simulation, `proportion` and pairs exactly.

    Args:
        problems: sizes of the data (the package's own are 40, 60 and 200).
        draws: of each bootstrap; the package has 200 to 1000, and 100 in curves.
        only: one name of `CASES`; all if empty.
    """
    if only:
        one_of("interval", only, CASES)
    rows = []
    for name in [only] if only else CASES:
        true = truth(CASES[name])
        rows += [_simulated(name, n, true, runs, draws, seed) for n in problems]
    if not only:
        rows += [_sparsity(n, runs, seed) for n in problems]
        rows += [_wilson(rate, n, seed) for n in problems for rate in RATES]
        rows += [_pairs(pair, n, seed) for n in problems for pair in PAIRS]
    return rows


def _simulated(name: str, n: int, true: float, runs: int, draws: int, seed: int) -> Row:
    case = CASES[name]

    def once(run: int) -> Interval:
        rng = np.random.default_rng([seed, run, n])
        columns, cluster = case.draw(walks(n, rng, case.per), rng)
        return stats.cluster_bootstrap(
            case.statistic, columns, cluster, draws=draws, seed=run, with_cluster=case.with_cluster
        )

    found = covered(once, true, runs, f"coverage: {name}, {n} problems")
    return _row(name, "interval_coverage", n, true, seed, found, {"draws": draws})


def _sparsity(n: int, runs: int, seed: int) -> Row:
    """Of `evidence` on the planted `value`, its fit and its nulls held fixed: `n` of many test problems, again and
    again, against all of them. V-hat comes from its exact law."""
    plant = planted("value")
    fit, held = (gather(plant, *size, 8, number, True).states(RESID) for number, size in enumerate(POOL))
    chosen = np.array(plant.truth.value_neurons[RESID].indices)
    reads = read_outs(fit, held, chosen, ValueProbe("mc", "linear"), 19)
    ids = np.unique(held.group)

    def once(run: int) -> Interval:
        here = np.isin(held.group, np.random.default_rng([seed, run, n, 4]).choice(ids, n, replace=False))
        return stats.cluster_bootstrap(sparsity, [held.y[here], reads[here]], held.group[here], draws=200, seed=run)

    true = sparsity(held.y, reads)
    found = covered(once, true, runs, f"coverage: sparsity, {n} problems")
    return _row("sparsity (evidence)", "interval_coverage", n, true, seed, found, {"draws": 200})


def _wilson(rate: float, n: int, seed: int) -> Row:
    """Exact: the sum of binomial probabilities of the counts whose interval holds the rate."""
    inside = np.array([one.low <= rate <= one.high for one in (stats.proportion(k, n) for k in range(n + 1))])
    sure = float(binom.pmf(np.arange(n + 1), n, rate) @ inside)
    found = {"rate": Interval(sure, sure, sure, n), "above": 0, "below": 0, "unbounded": 0}
    return _row(f"proportion of {rate:g}", "interval_coverage", n, rate, seed, found, {"exact": True})


def _pairs(pair: tuple[float, float], n: int, seed: int) -> Row:
    """Exact, as `_wilson`: over all counts of lost and won that are not too rare to matter."""
    (lose, win), at, sure = pair, np.arange(n), 0.0
    lost, won = np.mgrid[: n + 1, : n + 1].reshape(2, -1)
    odds = multinomial.pmf(np.stack([lost, won, n - lost - won], 1), n, [lose, win, 1 - lose - win])
    for i in np.flatnonzero(odds > 1e-9):
        one = stats.paired_difference((at < won[i]).astype(int), (at >= n - lost[i]).astype(int), at)
        sure += float(odds[i]) * (one.low <= win - lose <= one.high)
    found = {"rate": Interval(sure, sure, sure, n), "above": 0, "below": 0, "unbounded": 0}
    what = f"paired outcomes, {lose:g} lost and {win:g} won"
    return _row(what, "interval_coverage", n, win - lose, seed, found, {"exact": True})


def null_pvalues(runs: int = 1000, seed: int = 0) -> dict[str, Float[np.ndarray, " run"]]:
    """P-values where nothing is to be found: `rank_among` 19 exchangeable draws, exact McNemar on 60 paired outcomes
    with equal chances to win and lose, the smallest of ten after Holm, the hypergeometric of two random sets."""
    rng = np.random.default_rng([seed, 13])
    draws = rng.normal(size=(runs, 20))
    ranks = {tail: [stats.rank_among(row[0], row[1:], tail=tail)[1] for row in draws] for tail in ("low", "two")}
    before, after = (rng.random((runs, 60)) < p for p in (0.5, 0.5))
    sets = [[rng.choice(64, 6, replace=False) for _ in range(2)] for _ in range(runs)]
    found = {
        "rank_among": ranks["low"],
        "rank_among, two-sided": ranks["two"],
        "mcnemar": [stats.mcnemar(a.astype(int), b.astype(int)) for a, b in zip(before, after, strict=True)],
        "holm, smallest of 10": [stats.holm(family).min() for family in rng.random((runs, 10))],
        "hypergeometric_iou": [stats.hypergeometric_iou(6, 6, 64, len(np.intersect1d(a, b)))[1] for a, b in sets],
    }
    return {name: np.array(each) for name, each in found.items()}


def rejections(name: str, p: Float[np.ndarray, " run"], seed: int = 0, **about: Any) -> list[Row]:
    """How often a p-value under the null is at most .05 and at most .2, with Wilson's interval over runs.

    `detail` holds the p of a one-sided Kolmogorov-Smirnov test that small values are not too frequent. Discrete
    p-values are stochastically larger than uniform ones, so it is exact or conservative.
    """
    excess = float(kstest(p, "uniform", alternative="greater").pvalue)
    rows = []
    for level in LEVELS:
        found = {"rate": stats.proportion(int(np.sum(p <= level + 1e-12)), len(p))}
        rows.append(_row(name, "null_rejection_rate", 0, level, seed, found, {"ks_too_small": excess, **about}))
    return rows


def _row(
    name: str, metric: str, problems: int, true: float, seed: int, found: dict[str, Any], more: dict[str, Any]
) -> Row:
    shared = {"experiment": "calibrate", "model": "planted-process", "task": "planted", "site": "", "seed": seed}
    rest = {key: value for key, value in found.items() if key != "rate"}
    key = "level" if metric == "null_rejection_rate" else "truth"
    detail = {key: true, **({"problems": problems} if problems else {}), **rest, **more, "n": "runs"}
    return Row(**shared, arm=name, metric=metric, **asdict(found["rate"]), detail=detail)
