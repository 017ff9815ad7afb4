"""Intervals that no library we use has: of an AUROC of clustered rows, of a difference of paired
proportions, and by a bootstrap of clusters.

Public functions take columns and give an `Interval`; below them stand the bounds, on checked
arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import hypot, nan, sqrt
from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import root_scalar
from scipy.special import expit, logit
from scipy.stats import binomtest, norm, rankdata, t

from mechreward.base import streams
from mechreward.base.errors import require
from mechreward.stats.columns import (
    Column,
    Groups,
    Members,
    Rows,
    Side,
    Sizes,
    columns,
    fraction,
    grouped,
)
from mechreward.stats.scores import (
    auroc,
    brier,
    ece,
    spearman,
    split_half_reliability,
    within_auroc,
)
from mechreward.stats.selective import aurc

Span = tuple[int | float, int | float]  # the least and the most that a statistic may be

BOTH_SIDES = np.array([-1, 1])
FEW = 10  # clusters below which a bootstrap covers less than 95% (.76 at 3, .88 at 5, .94 at 10)
SAME = 1e-12  # draws that differ by no more are one number, up to rounding
# What a statistic may lie between.
SPANS: dict[Callable[..., float], Span] = {
    auroc: (0, 1),
    within_auroc: (0, 1),
    brier: (0, 1),
    ece: (0, 1),
    aurc: (0, 1),
    spearman: (-1, 1),
    split_half_reliability: (-1, 1),
}
Draws = Float[np.ndarray, " draw"]
Picks = Int[np.ndarray, "draw group"]  # numbers of the clusters in each draw


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence bounds.

    Parameters
    ----------
    estimate
        The number.
    low, high
        Its bounds; nan where there are none.
    n
        How many independent units it rests on (problems, not tokens). The text calls fewer than
        `FEW` few: a bootstrap of so few clusters covers less than it says.
    """

    estimate: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        missing = np.isnan(self.low) or np.isnan(self.high)
        bounds = "(no interval)" if missing else f"[{self.low:.3f}, {self.high:.3f}]"
        few = "" if missing or self.n >= FEW else " (few)"
        return f"{self.estimate:.3f} {bounds} n={self.n}{few}"


def auroc_interval(
    score: Column, label: Column, cluster: Column, *, level: float = 0.95
) -> Interval:
    """`auroc` with its interval for rows clustered by problem.

    See `auroc_bounds`; how often it covers is on the page of the calibration.

    Parameters
    ----------
    score
        Higher for what is predicted positive, `[n]`.
    label
        0 or 1, `[n]`.
    cluster
        Label of the cluster of each row, such as its problem, `[n]`.
    level
        Of the interval, .95 by default.

    Returns
    -------
    Interval
        `n` counts clusters.

    Raises
    ------
    MechRewardError
        Columns that are none, labels other than 0 and 1, or a level outside (0, 1).
    """
    estimate = auroc(score, label)
    fraction(level=level)
    score, label = columns(score=score, label=label)
    clusters = grouped(cluster, len(score))
    low, high = auroc_bounds(score, label, clusters.member, level)
    return Interval(estimate, low, high, len(clusters.sizes))


def proportion(
    successes: SupportsFloat, n: int, *, level: float = 0.95, exact: bool = False
) -> Interval:
    """A fraction of independent trials, with its Wilson score interval.

    Parameters
    ----------
    successes
        How many trials succeeded.
    n
        How many there were.
    level
        Of the interval, .95 by default.
    exact
        Whether it is Clopper and Pearson's (1934) instead, which never covers less than its level:
        for rates that were promised. False by default.

    Returns
    -------
    Interval

    Raises
    ------
    MechRewardError
        No whole number of 0 to n, no trial, or a level outside (0, 1).
    """
    k = float(successes)
    require(
        n >= 1 and 0 <= k <= n and k == int(k),
        f"need a whole number of 0 to n >= 1; got {k:g} of n={n}",
    )
    fraction(level=level)
    test = binomtest(int(k), int(n))
    low, high = test.proportion_ci(level, method="exact" if exact else "wilson")
    return Interval(k / n, float(low), float(high), int(n))


def cluster_bootstrap(
    statistic: Callable[..., float],
    arrays: np.ndarray | Sequence,
    cluster: Column,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    with_cluster: bool = False,
    span: Span | None = None,
) -> Interval:
    """Bootstrap interval of a statistic, resampling whole clusters with replacement.

    See `bootstrap_levels` for its bounds. The estimate is the statistic of the data as given. Draws
    that give nan are dropped; if more than half do, the estimate is nan, or there is only one
    cluster, the bounds are nan. Where all draws give one number they say nothing of its error: the
    bounds are then those of `unvaried`.

    Parameters
    ----------
    statistic
        `statistic(*arrays)` is a number.
    arrays
        One array or several, each `[n ...]`.
    cluster
        Label of the cluster of each row, such as its problem, `[n]`, of any sortable kind.
    draws
        Number of resamples, 1000 by default.
    seed
        Of the resamples, 0 by default.
    level
        Of the interval, .95 by default.
    with_cluster
        Whether the statistic gets a cluster number `[n]` as its last argument; False by default. A
        problem drawn twice brings its rows twice under the same id: a statistic that groups by
        problem would fuse the copies, and these numbers tell them apart.
    span
        What the statistic may lie between, such as (0, 1) for a mean of outcomes; None (the
        default) for that of `SPANS`, if it is there.

    Returns
    -------
    Interval
        `n` counts clusters.

    Raises
    ------
    MechRewardError
        Arrays that do not fit the labels, no draw, or a level outside (0, 1).
    """
    arrays = [arrays] if isinstance(arrays, np.ndarray) else arrays
    columns = [np.asarray(array) for array in arrays]
    n = len(cluster)
    shapes = [column.shape for column in columns]
    fit = {shape[:1] for shape in shapes} == {(n,)}
    require(fit, f"every array needs one row for each of {n} cluster labels; got shapes {shapes}")
    require(draws >= 1, f"draws must be at least 1; got {draws}")
    fraction(level=level)
    clusters = grouped(cluster, n)
    numbers = [clusters.member] if with_cluster else []
    estimate = float(statistic(*columns, *numbers))
    count = len(clusters.sizes)
    unbounded = Interval(estimate, nan, nan, count)
    if np.isnan(estimate) or count == 1:
        return unbounded
    rng = streams.rng("bootstrap", seed)
    picks = rng.integers(count, size=(draws, count))
    values = resampled(statistic, columns, clusters, picks, with_cluster)
    span = span or SPANS.get(statistic)
    low, high = bounds_of_draws(values, picks, estimate, clusters.sizes, span, level)
    return Interval(estimate, low, high, count)


def bounds_of_draws(
    values: Draws,
    picks: Picks,
    estimate: float,
    sizes: Sizes,
    span: Span | None,
    level: float,
) -> tuple[float, float]:
    """Bounds from the statistic of every draw of clusters, as `cluster_bootstrap` says.

    Parameters
    ----------
    values
        The statistic of each draw, `[draw]`.
    picks
        Numbers of the clusters in each draw, `[draw cluster]`.
    estimate
        The statistic of the data.
    sizes
        Rows of each cluster, `[cluster]`.
    span
        What the statistic may lie between; None if that is not known.
    level
        Of the interval.

    Returns
    -------
    low, high
        nan where more than half of the draws are.
    """
    kept = ~np.isnan(values)
    if kept.mean() < 1 / 2:
        return nan, nan
    values = values[kept]
    if np.ptp(values) <= SAME * max(1.0, abs(estimate)):
        return unvaried(estimate, sizes, span, level)
    levels = bootstrap_levels(values, picks[kept], estimate, sizes, level)
    # The default method's tails hold .028 of 300 draws, not .025.
    low, high = np.quantile(values, levels, method="weibull")
    return float(low), float(high)


def clustered(
    statistic: Callable[..., float],
    arrays: Sequence[np.ndarray],
    cluster: Column,
    *,
    level: float = 0.95,
    **how: Any,
) -> Interval:
    """The interval of a statistic of clustered rows: `auroc_interval` of `auroc`,
    `cluster_bootstrap` of any other.

    Parameters
    ----------
    statistic
        `statistic(*arrays)` is a number.
    arrays
        Columns, each `[n ...]`; score and label for `auroc`.
    cluster
        Label of the cluster of each row, `[n]`.
    level
        Of the interval, .95 by default.
    **how
        More arguments of `cluster_bootstrap`.

    Returns
    -------
    Interval
        `n` counts clusters.
    """
    if statistic is auroc:
        score, label = arrays[0], arrays[1]
        return auroc_interval(score, label, cluster, level=level)
    return cluster_bootstrap(statistic, arrays, cluster, level=level, **how)


def paired_difference(
    a: Column,
    b: Column,
    cluster: Column,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Mean of a - b of paired columns, in their units.

    The interval is the `cluster_bootstrap`'s, of a mean between -1 and 1 where both columns lie in
    [0, 1]; for single pairs of 0/1 outcomes it is Tango's (1998) score interval, which does not
    shrink to a point when no pair differs.

    Parameters
    ----------
    a, b
        Paired columns, `[n]`.
    cluster
        Label of the cluster of each pair, `[n]`.
    draws
        Number of resamples, 1000 by default.
    seed
        Of the resamples, 0 by default.
    level
        Of the interval, .95 by default.

    Returns
    -------
    Interval
        `n` counts clusters.

    Raises
    ------
    MechRewardError
        Columns that are none, no draw, or a level outside (0, 1).
    """
    a, b = columns(a=a, b=b)
    n = len(a)
    clusters = grouped(cluster, n)
    outcomes = np.isin([a, b], (0, 1))
    if len(clusters.sizes) < n or not outcomes.all():
        shares = min(a.min(), b.min()) >= 0 and max(a.max(), b.max()) <= 1
        span = (-1, 1) if shares else None
        return cluster_bootstrap(
            np.mean, a - b, cluster, draws=draws, seed=seed, level=level, span=span
        )
    fraction(level=level)
    won = int(np.sum(a > b))
    lost = int(np.sum(b > a))
    low, high = score_interval(won, lost, n, level)
    gap = float((a - b).mean())
    return Interval(gap, low, high, n)


def difference(a: Interval, b: Interval) -> tuple[Interval, float]:
    """Difference of two independent estimates with 95% intervals, and its p.

    The bounds add the distances from estimate to bound in quadrature, each side its own (Zou and
    Donner 2008); p is normal with the reach towards 0, so it is below .05 where the interval leaves
    0 out.

    Parameters
    ----------
    a, b
        Estimates with 95% intervals.

    Returns
    -------
    gap
        a - b; `n` is the smaller of both. Its bounds are nan where one of theirs is missing.
    p
        Two-sided; nan where a bound is missing.
    """
    gap = a.estimate - b.estimate
    down = hypot(a.estimate - a.low, b.high - b.estimate)
    up = hypot(a.high - a.estimate, b.estimate - b.low)
    n = min(a.n, b.n)
    interval = Interval(gap, gap - down, gap + up, n)
    reach = down if gap > 0 else up
    if np.isnan(gap + down + up) or reach == 0:
        return interval, nan
    z = norm.isf(0.025) * abs(gap) / reach
    return interval, float(2 * norm.sf(z))


def score_interval(won: int, lost: int, n: int, level: float) -> tuple[float, float]:
    """Bounds of P(won) - P(lost): the differences that Tango's (1998) score test does not reject.

    At 0 that test is McNemar's without correction. Where no pair differs the interval is +- z^2 /
    (n + z^2).

    Parameters
    ----------
    won, lost
        Pairs that differ in either way.
    n
        Number of pairs.
    level
        Of the interval.

    Returns
    -------
    low, high
        Bounds in [-1, 1].
    """
    z = _normal_quantile(level)
    observed = (won - lost) / n

    def score(delta: float) -> float:
        """Normal deviate of what was observed, had the difference been delta."""
        b = (2 * n - won + lost) * delta - won - lost
        c = -lost * delta * (1 - delta)
        root = sqrt(max(b**2 - 8 * n * c, 0.0))
        likeliest_loss = (root - b) / (4 * n)  # P(lost) where the difference is delta
        variance = n * (2 * likeliest_loss + delta * (1 - delta))
        return (won - lost - n * delta) / sqrt(max(variance, 1e-300))

    low = -1.0
    if observed > -1:
        low = _root(lambda delta: score(delta) - z, -1 + 1e-12, observed)
    high = 1.0
    if observed < 1:
        high = _root(lambda delta: score(delta) + z, observed, 1 - 1e-12)
    return low, high


def unvaried(estimate: float, sizes: Sizes, span: Span | None, level: float) -> tuple[float, float]:
    """Bounds of a statistic that no draw of clusters changes.

    No cluster of n differs from the others, so that a share z^2 / (n + z^2) of all may differ
    (Wilson 1927, of no event in n), and each as far as the span goes. For a mean of outcomes that
    are all equal this is Wilson's interval, for paired outcomes of which no pair differs Tango's;
    for other statistics it is our choice.

    Parameters
    ----------
    estimate
        The statistic of the data.
    sizes
        Rows of each cluster, `[cluster]`: n is `kish` of them.
    span
        What the statistic may lie between; None if that is not known.
    level
        Of the interval.

    Returns
    -------
    low, high
        Bounds; nan without a span.
    """
    if span is None:
        return nan, nan
    z = _normal_quantile(level)
    share = z**2 / (kish(sizes) + z**2)
    down = max(estimate - span[0], 0.0)
    up = max(span[1] - estimate, 0.0)
    return float(estimate - share * down), float(estimate + share * up)


def auroc_bounds(
    score: Rows, label: np.ndarray, member: Members, level: float
) -> tuple[float, float]:
    """Bounds of an AUROC of rows in clusters.

    Obuchowski's (1997) variance, which is DeLong's (1988) where each cluster has one row, on the
    logit scale with the t quantile. Clusters count as many as equal ones would (`kish`; scale,
    quantile and count are our choice). Where that variance is none, as the classes are apart or
    all scores are equal, the bounds are where the score of Hanley and McNeil's (1982) variance is
    not rejected (Newcombe 2006), with clusters as n.

    Parameters
    ----------
    score
        Higher for what is predicted positive, `[row]`.
    label
        0 or 1, `[row]`.
    member
        Number of each row's cluster, `[row]`: 0, 1, ...
    level
        Of the interval.

    Returns
    -------
    low, high
        Bounds in [0, 1]; nan where fewer than two clusters hold either class.
    """
    positive = label == 1
    negative = ~positive
    positive_clusters = len(np.unique(member[positive]))
    negative_clusters = len(np.unique(member[negative]))
    if min(positive_clusters, negative_clusters) < 2:
        return nan, nan
    beaten = _beaten(score, positive)
    area = float(beaten[positive].mean())

    # Obuchowski: sums of deviations by cluster, of either class and of both.
    won = _cluster_sums(beaten - area, positive, member)
    lost = _cluster_sums(beaten - area, negative, member)
    of_won = _small_sample(member[positive])
    of_lost = _small_sample(member[negative])
    of_both = _small_sample(member)
    own = of_won * won @ won + of_lost * lost @ lost
    shared = 2 * of_both * won @ lost
    error = sqrt(max(own + shared, 0.0))
    if area in (0.0, 1.0) or error <= SAME:
        return _not_rejected(area, positive_clusters, negative_clusters, level)

    count = kish(np.bincount(member))
    reach = _t_quantile(level, count) * error / (area * (1 - area))
    low, high = expit(logit(area) + BOTH_SIDES * reach)
    return float(low), float(high)


def kish(sizes: Sizes) -> float:
    """How many clusters of equal size would count for as much (Kish 1965).

    Parameters
    ----------
    sizes
        Rows of each cluster, `[cluster]`.

    Returns
    -------
    float
        At least 2.
    """
    rows = sizes.sum()
    return max(2.0, rows**2 / (sizes**2).sum())


def resampled(
    statistic: Callable[..., float],
    columns: Sequence[np.ndarray],
    clusters: Groups,
    picks: Picks,
    with_cluster: bool,
) -> Draws:
    """The statistic of the rows of every draw of clusters.

    Parameters
    ----------
    statistic
        `statistic(*columns)` is a number.
    columns
        Each `[row ...]`.
    clusters
        Which rows belong together.
    picks
        Numbers of the clusters in each draw, `[draw cluster]`.
    with_cluster
        Whether the statistic gets the number of each row's copy as its last argument.

    Returns
    -------
    ndarray
        `[draw]`.
    """
    order = np.argsort(clusters.member, kind="stable")
    by_cluster = [column[order] for column in columns]
    values = []
    for pick in picks:
        lengths = clusters.sizes[pick]
        ends = lengths.cumsum()
        # From a row of the draw to its row in `by_cluster`.
        shift = clusters.starts[pick] - (ends - lengths)
        rows = np.arange(ends[-1]) + np.repeat(shift, lengths)
        drawn = [column[rows] for column in by_cluster]
        if with_cluster:
            copies = np.arange(len(pick))
            drawn.append(np.repeat(copies, lengths))
        value = statistic(*drawn)
        values.append(float(value))
    return np.array(values)


def bootstrap_levels(
    values: Draws,
    picks: Picks,
    estimate: float,
    sizes: Sizes,
    level: float,
) -> Float[np.ndarray, " bound"]:
    """Which two quantiles of the draws bound the interval.

    Plain percentiles cover too seldom (page of the calibration). Bias-corrected and accelerated
    (Efron 1987; influences from the draws, no jackknife); normal quantiles widened to t's
    (Hesterberg 2015) with `kish` clusters, which is our choice.

    Parameters
    ----------
    values
        The statistic of each draw, `[draw]`.
    picks
        Numbers of the clusters in each draw, `[draw cluster]`.
    estimate
        The statistic of the data.
    sizes
        Rows of each cluster, `[cluster]`.
    level
        Of the interval.

    Returns
    -------
    ndarray
        Levels of both quantiles, `[bound]`.
    """
    edge = 0.5 / len(values)
    equal = float(np.mean(values == estimate))
    below = np.mean(values < estimate) + equal / 2
    below = np.clip(below, edge, 1 - edge)
    bias = norm.ppf(below)

    clusters = len(sizes)
    deviations = values - values.mean()
    influence = np.bincount(picks.ravel(), np.repeat(deviations, clusters), clusters)
    cubes = (influence**3).sum()
    squares = (influence**2).sum()
    skew = cubes / max(6 * squares**1.5, 1e-300)

    count = kish(sizes)
    widening = sqrt(count / (count - 1))
    z = bias + BOTH_SIDES * _t_quantile(level, count) * widening
    accelerated = z / np.maximum(1 - skew * z, 1e-9)
    return norm.cdf(bias + accelerated)


def _normal_quantile(level: float) -> float:
    """Two-sided quantile of the normal law."""
    return float(norm.ppf((1 + level) / 2))


def _t_quantile(level: float, clusters: float) -> float:
    """Two-sided quantile of t with one degree of freedom less than there are clusters."""
    return float(t.ppf((1 + level) / 2, clusters - 1))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function is 0 between two numbers."""
    return float(root_scalar(function, bracket=(low, high)).root)


def _beaten(score: Rows, positive: Side) -> Rows:
    """Share of the other class that each row is in order with, ties one half."""
    negative = ~positive
    ranks = rankdata(score)
    ranks[positive] -= rankdata(score[positive])
    ranks[negative] -= rankdata(score[negative])
    others = np.where(positive, negative.sum(), positive.sum())
    below = ranks / others
    return np.where(positive, below, 1 - below)


def _cluster_sums(deviations: Rows, side: Side, member: Members) -> Float[np.ndarray, " group"]:
    """Sum over each cluster's rows of one class, over the number of rows of that class."""
    of_side = np.where(side, deviations, 0)
    sums = np.bincount(member, of_side)
    return sums / int(side.sum())


def _small_sample(member: Members) -> float:
    """n / (n - 1) of the clusters of these rows."""
    count = kish(np.bincount(member))
    return count / (count - 1)


def _not_rejected(area: float, positive: int, negative: int, level: float) -> tuple[float, float]:
    """The least and the largest AUROC of which so many clusters of either class can show `area`."""
    z = _normal_quantile(level)
    size = (positive + negative) / 2 - 1

    def excess(true: float) -> float:
        shared = (1 - true) / (2 - true) + true / (1 + true)
        variance = true * (1 - true) * (1 + size * shared) / (positive * negative)
        return (true - area) ** 2 - z**2 * variance

    low = 0.0
    if area > 0:
        low = _root(excess, 0.0, area - SAME)
    high = 1.0
    if area < 1:
        high = _root(excess, area + SAME, 1.0)
    return low, high
