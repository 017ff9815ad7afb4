"""Do 95% intervals cover? Simulated on the Markov process of `testbed.process`, all but
`sparsity`'s without a model.

An interval is made from few problems, as the package makes it, and held against the same statistic
of a thousand times as many answers: its error is then a thirtieth of the interval's standard error,
a sixteenth where a problem has four (`spread_coverage` knows the truth itself).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import binom, multinomial

from mechreward import stats
from mechreward.base import streams
from mechreward.base.errors import one_of, require
from mechreward.base.progress import bar
from mechreward.calibration.cases import CASES
from mechreward.calibration.data import RESID, gather
from mechreward.calibration.rows import PROCESS, calibration_row
from mechreward.experiments.rows import Row
from mechreward.probing.evidence import follows, read_outs, sparsity
from mechreward.probing.neurons import ranking
from mechreward.probing.probe import ValueProbe
from mechreward.stats import Interval
from mechreward.stats.beyond import Known
from mechreward.testbed.planted import planted

DRAWS = 200  # of each bootstrap: the fewest that the package takes
OVER = 1000  # answers that stand for the truth, for each problem of an interval's data
BAND = (0.93, 0.97)  # what a 95% interval must cover
SPREADS = ("value", "redundant", "rotated")  # plants whose sparsity is held against the truth
POOL = (("train", 40), ("test", 3000))  # problems of `spread_coverage`: fitted to, and population
K = 8  # continuations of a state in that pool
RATES = (0.02, 0.05, 0.1, 0.3, 0.5, 0.8, 0.95)  # of `proportion`
PAIRS = ((0.02, 0.02), (0.15, 0.05), (0.4, 0.1))  # P(lost), P(won) of paired outcomes
RARE = 1e-9  # a probability too small to matter


def coverage(
    problems: tuple[int, ...] = (40, 60, 200),
    runs: int = 200,
    draws: int = DRAWS,
    only: str = "",
    seed: int = 0,
) -> list[Row]:
    """Coverage of every interval of `CASES` by simulation, of `proportion` and of pairs exactly.

    Parameters
    ----------
    problems : tuple of int, default (40, 60, 200)
        Sizes of the data: the package's own.
    runs : int, default 200
        Data sets of each case and size.
    draws : int, default 200
        Of each bootstrap; the package has 200 to 1000.
    only : str, default ""
        One name of `CASES`, and nothing that is exact; all if empty.
    seed : int, default 0

    Returns
    -------
    list of Row
        Metric `interval_coverage`, with Wilson's interval over runs.

    Raises
    ------
    MechRewardError
        No case has the name `only`, or no runs.
    """
    if only:
        one_of("interval", only, CASES)
    rows = []
    for name in [only] if only else CASES:
        for n in problems:
            rows.append(simulated_coverage(name, n, runs, draws, seed))
    if only:
        return rows
    for n in problems:
        for rate in RATES:
            rows.append(proportion_coverage(rate, n, seed))
    for n in problems:
        for lost, won in PAIRS:
            rows.append(pairs_coverage(lost, won, n, seed))
    return rows


def covered(
    interval: Callable[[int], Interval],
    true: float,
    runs: int,
    progress: bool | str = False,
) -> tuple[Interval, dict[str, int]]:
    """How often an interval holds the truth.

    Parameters
    ----------
    interval : callable
        Of the number of a run, to its interval.
    true : float
    runs : int
    progress : bool or str, default False
        Whether a bar is shown, or its title.

    Returns
    -------
    rate : Interval
        Share of the runs with bounds whose interval holds `true`.
    counts : dict of str to int
        Runs whose interval lies wholly `above` or `below`, and those that are `unbounded`.

    Raises
    ------
    MechRewardError
        No runs, or none with bounds.
    """
    require(runs >= 1, f"runs must be at least 1; {runs} was given.")
    held = 0
    counts = {"above": 0, "below": 0, "unbounded": 0}
    for run in bar(progress, "coverage", "run", range(runs), leave=False):
        bounds = interval(run)
        if np.isnan(bounds.low):
            counts["unbounded"] += 1
        elif bounds.low > true:
            counts["above"] += 1
        elif bounds.high < true:
            counts["below"] += 1
        else:
            held += 1
    bounded = runs - counts["unbounded"]
    require(bounded > 0, "no run gave an interval.")
    return stats.proportion(held, bounded), counts


def truth(name: str, problems: int) -> float:
    """The statistic of a case, from one huge simulation."""
    case = CASES[name]
    rng = streams.rng("coverage: truth", name)
    columns, cluster = case.sample(problems, rng)
    if case.with_cluster:
        columns = [*columns, cluster]
    return float(case.statistic(*columns))


def simulated_coverage(
    name: str,
    n: int,
    runs: int,
    draws: int,
    seed: int,
) -> Row:
    """Coverage of the interval of one case, from data of `n` problems."""
    case = CASES[name]
    true = truth(name, n * OVER // case.answers)

    def interval(run: int) -> Interval:
        rng = streams.rng("coverage: answers", name, seed, run, n)
        columns, cluster = case.sample(n, rng)
        return stats.clustered(
            case.statistic,
            columns,
            cluster,
            draws=draws,
            seed=streams.stream("coverage: bootstrap", name, seed, run, n),
            with_cluster=case.with_cluster,
            span=case.span,
        )

    rate, counts = covered(interval, true, runs, f"coverage: {name}, {n} problems")
    about = counts | {"draws": draws}
    return coverage_row(name, n, true, rate, about, seed)


def spread_coverage(name: str, n: int, runs: int, seed: int = 0) -> Row:
    """Coverage of `evidence`'s sparsity on a plant, its fit and its nulls held fixed.

    The population is a pool of many test problems, of which `n` are drawn again and again with
    replacement, so that the truth is that of the pool. V-hat comes from its exact law.

    Parameters
    ----------
    name : str
        A plant of `SPREADS`.
    n : int
        Problems of each data set.
    runs : int
    seed : int, default 0

    Returns
    -------
    Row

    Raises
    ------
    MechRewardError
        A plant that is not calibrated so.
    """
    one_of("plant", name, SPREADS)
    plant = planted(name)
    pool = []
    for split_seed, (split, size) in enumerate(POOL):
        data = gather(plant, split, size, K, split_seed, exact=True)
        pool.append(data.states(RESID))
    fit, held = pool
    # Neurons, probe and draws are the defaults of `evidence`.
    chosen = ranking(follows(fit))[:3]
    probe = ValueProbe("mc", "linear")
    reads = read_outs(fit, held, chosen, probe, 19)
    rest = Known(held.known, held.group).left_over(np.column_stack([held.y, reads]))
    y, left = rest[:, 0], rest[:, 1:]
    begins = 1 + np.flatnonzero(np.diff(held.group))
    rows_of = np.split(np.arange(len(held)), begins)  # of every problem

    def interval(run: int) -> Interval:
        rng = streams.rng("coverage: drawn problems", name, seed, run, n)
        drawn = []
        group = []
        for number, problem in enumerate(rng.integers(len(rows_of), size=n)):
            rows = rows_of[problem]
            drawn.append(rows)
            group.append(np.full(len(rows), number))
        rows = np.concatenate(drawn)
        return stats.cluster_bootstrap(
            sparsity,
            [y[rows], left[rows]],
            np.concatenate(group),
            draws=DRAWS,
            seed=streams.stream("coverage: bootstrap", name, seed, run, n),
        )

    true = sparsity(y, left)
    rate, counts = covered(interval, true, runs, f"coverage: sparsity of {name}, {n} problems")
    arm = f"sparsity (evidence) of planted-{name}"
    about = {**counts, "draws": DRAWS, "model": True}
    return coverage_row(arm, n, true, rate, about, seed)


def proportion_coverage(rate: float, n: int, seed: int) -> Row:
    """Exact: the sum of binomial probabilities of the counts whose interval holds the rate."""
    successes = np.arange(n + 1)
    inside = []
    for k in successes:
        interval = stats.proportion(k, n)
        inside.append(interval.low <= rate <= interval.high)
    odds = binom.pmf(successes, n, rate)
    sure = float(odds @ np.array(inside))
    return exact_row(f"proportion of {rate:g}", n, rate, sure, seed)


def pairs_coverage(lose: float, win: float, n: int, seed: int) -> Row:
    """Exact, as `proportion_coverage`: over all counts of lost and won that are not too rare."""
    true = win - lose
    lost, won = np.mgrid[: n + 1, : n + 1].reshape(2, -1)
    counts = np.stack([lost, won, n - lost - won], 1)
    odds = multinomial.pmf(counts, n, [lose, win, 1 - lose - win])
    pair = np.arange(n)
    sure = 0.0
    for i in np.flatnonzero(odds > RARE):
        after = (pair < won[i]).astype(int)
        before = (pair >= n - lost[i]).astype(int)
        interval = stats.paired_difference(after, before, pair)
        if interval.low <= true <= interval.high:
            sure += float(odds[i])
    arm = f"paired outcomes, {lose:g} lost and {win:g} won"
    return exact_row(arm, n, true, sure, seed)


def exact_row(
    arm: str,
    problems: int,
    true: float,
    sure: float,
    seed: int,
) -> Row:
    """A coverage that was computed, not simulated."""
    rate = Interval(sure, sure, sure, problems)
    about = {"unbounded": 0, "exact": True}
    return coverage_row(arm, problems, true, rate, about, seed)


def coverage_row(
    arm: str,
    problems: int,
    true: float,
    rate: Interval,
    about: dict[str, Any],
    seed: int,
) -> Row:
    """A row whose `n` counts runs; `about` goes into its detail."""
    detail = {"truth": true, "problems": problems, **about, "n": "runs"}
    return calibration_row(PROCESS, arm, "interval_coverage", rate, detail, seed=seed)
