"""Do 95% intervals cover? Simulated on the Markov process of `process.py`, all but `sparsity`'s
without a model.

An interval is made from few problems, as the package makes it, and held against the same statistic
of a thousand times as many answers: its error is then a thirtieth of the interval's standard error,
a sixteenth where a problem has four (`spread_coverage` knows the truth itself).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.stats import binom, multinomial

from mechreward import stats
from mechreward.base import streams
from mechreward.base.errors import one_of, require
from mechreward.base.progress import progress
from mechreward.calibration.cases import CASES, Case
from mechreward.calibration.pipeline import RESID, gather
from mechreward.experiments.rows import Row
from mechreward.probing.evidence import read_outs, sparsity
from mechreward.probing.neurons import ranking
from mechreward.probing.probe import ValueProbe
from mechreward.probing.rankings import correlation
from mechreward.stats import Interval
from mechreward.testbed.planted import planted
from mechreward.testbed.walks import walks

DRAWS = 200  # of each bootstrap: the fewest that the package takes
OVER = 1000  # answers in the simulation that stands for the truth, for each problem of an interval's data
BAND = (0.93, 0.97)  # what a 95% interval must cover
SPREADS = (
    "value",
    "redundant",
    "rotated",
)  # plants whose sparsity has its interval held against the truth
POOL = (
    ("train", 40),
    ("test", 3000),
)  # problems of `spread_coverage`: fitted to, and the population tested on
RATES = (0.02, 0.05, 0.1, 0.3, 0.5, 0.8, 0.95)  # of `proportion`
PAIRS = ((0.02, 0.02), (0.15, 0.05), (0.4, 0.1))  # P(lost), P(won) of paired outcomes


def truth(case: Case, problems: int) -> float:
    """The statistic of one huge simulation."""
    rng = streams.rng("coverage: truth")
    columns, cluster = case.draw(walks(problems, rng, case.per), rng)
    return float(case.statistic(*columns, *([cluster] if case.with_cluster else [])))


def covered(
    interval: Callable[[int], Interval], true: float, runs: int, what: str | None = None
) -> dict[str, Any]:
    """How often `interval(run)` holds `true`, lies wholly above or below, or has no bounds (does
    not count)."""
    require(runs >= 1, f"runs must be at least 1; {runs} was given.")
    found = [interval(run) for run in progress(what, "run", range(runs), leave=False)]
    bounded = [one for one in found if not np.isnan(one.low)]
    require(len(bounded) > 0, "no run gave an interval.")
    above, below = (
        sum(side)
        for side in ([one.low > true for one in bounded], [one.high < true for one in bounded])
    )
    rate = stats.proportion(len(bounded) - above - below, len(bounded))
    return {"rate": rate, "above": above, "below": below, "unbounded": len(found) - len(bounded)}


def coverage(
    problems: tuple[int, ...] = (40, 60, 200),
    runs: int = 200,
    draws: int = DRAWS,
    only: str = "",
    seed: int = 0,
) -> list[Row]:
    """Coverage of every interval of `CASES` by simulation, of `proportion` and of pairs exactly.

    Args:
        problems: sizes of the data (the package's own are 40, 60 and 200).
        draws: of each bootstrap; the package has 200 to 1000.
        only: one name of `CASES`; all if empty.
    """
    if only:
        one_of("interval", only, CASES)
    rows = []
    for name in [only] if only else CASES:
        rows += [_simulated(name, n, runs, draws, seed) for n in problems]
    if not only:
        rows += [_wilson(rate, n, seed) for n in problems for rate in RATES]
        rows += [_pairs(pair, n, seed) for n in problems for pair in PAIRS]
    return rows


def _simulated(name: str, n: int, runs: int, draws: int, seed: int) -> Row:
    case = CASES[name]
    true = truth(case, n * OVER // case.per)

    def once(run: int) -> Interval:
        rng = streams.rng("coverage: answers", seed, run, n)
        columns, cluster = case.draw(walks(n, rng, case.per), rng)
        return stats.clustered(
            case.statistic, columns, cluster, draws=draws, seed=run, with_cluster=case.with_cluster
        )

    found = covered(once, true, runs, f"coverage: {name}, {n} problems")
    return _row(name, n, true, seed, found, {"draws": draws})


def spread_coverage(name: str, n: int, runs: int, seed: int = 0) -> Row:
    """Coverage of `evidence`'s sparsity on the plant `name`, its fit and its nulls held fixed.

    The population is a pool of many test problems, of which `n` are drawn again and again with
    replacement, so that the truth is that of the pool. V-hat comes from its exact law.

    Raises:
        MechRewardError: a plant that is not calibrated so.
    """
    one_of("plant", name, SPREADS)
    plant = planted(name)
    fit, held = (
        gather(plant, *size, 8, number, True).states(RESID) for number, size in enumerate(POOL)
    )
    chosen = ranking(correlation(fit))[:3]  # as `evidence` chooses
    reads = read_outs(fit, held, chosen, ValueProbe("mc", "linear"), 19)
    owned = np.split(
        np.arange(len(held)), np.flatnonzero(np.diff(held.group)) + 1
    )  # rows of every problem

    def once(run: int) -> Interval:
        picked = streams.rng("coverage: drawn problems", seed, run, n).integers(len(owned), size=n)
        rows = np.concatenate([owned[i] for i in picked])
        group = np.repeat(np.arange(n), [len(owned[i]) for i in picked])
        return stats.cluster_bootstrap(
            sparsity, [held.y[rows], reads[rows]], group, draws=DRAWS, seed=run
        )

    true = sparsity(held.y, reads)
    found = covered(once, true, runs, f"coverage: sparsity of {name}, {n} problems")
    return _row(
        f"sparsity (evidence) of planted-{name}",
        n,
        true,
        seed,
        found,
        {"draws": DRAWS, "model": True},
    )


def _wilson(rate: float, n: int, seed: int) -> Row:
    """Exact: the sum of binomial probabilities of the counts whose interval holds the rate."""
    inside = np.array(
        [one.low <= rate <= one.high for one in (stats.proportion(k, n) for k in range(n + 1))]
    )
    sure = float(binom.pmf(np.arange(n + 1), n, rate) @ inside)
    found = {"rate": Interval(sure, sure, sure, n), "unbounded": 0}
    return _row(f"proportion of {rate:g}", n, rate, seed, found, {"exact": True})


def _pairs(pair: tuple[float, float], n: int, seed: int) -> Row:
    """Exact, as `_wilson`: over all counts of lost and won that are not too rare to matter."""
    (lose, win), at, sure = pair, np.arange(n), 0.0
    lost, won = np.mgrid[: n + 1, : n + 1].reshape(2, -1)
    odds = multinomial.pmf(np.stack([lost, won, n - lost - won], 1), n, [lose, win, 1 - lose - win])
    for i in np.flatnonzero(odds > 1e-9):
        one = stats.paired_difference(
            (at < won[i]).astype(int), (at >= n - lost[i]).astype(int), at
        )
        sure += float(odds[i]) * (one.low <= win - lose <= one.high)
    found = {"rate": Interval(sure, sure, sure, n), "unbounded": 0}
    what = f"paired outcomes, {lose:g} lost and {win:g} won"
    return _row(what, n, win - lose, seed, found, {"exact": True})


def _row(
    name: str, problems: int, true: float, seed: int, found: dict[str, Any], more: dict[str, Any]
) -> Row:
    shared = {
        "experiment": "calibrate",
        "model": "planted-process",
        "task": "planted",
        "site": "",
        "seed": seed,
    }
    rest = {key: value for key, value in found.items() if key != "rate"}
    detail = {"truth": true, "problems": problems, **rest, **more, "n": "runs"}
    return Row(
        **shared, arm=name, metric="interval_coverage", **asdict(found["rate"]), detail=detail
    )
