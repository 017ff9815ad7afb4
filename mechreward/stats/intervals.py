"""Bounds that no library we use has: of a difference of paired proportions, of an AUROC of
clustered rows, and the draws of a bootstrap by cluster with the quantiles that bound its
interval."""

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
from mechreward.stats.columns import Column, columns, fraction, grouped
from mechreward.stats.scores import auroc


def score_interval(won: int, lost: int, n: int, level: float) -> tuple[float, float]:
    """Bounds of P(won) - P(lost) from counts among `n` pairs: the differences that Tango's (1998)
    score test does not reject. At 0 that test is McNemar's without correction. Where no pair
    differs the interval is +- z^2 / (n + z^2).
    """
    z, d = float(norm.ppf((1 + level) / 2)), (won - lost) / n

    def score(delta: float) -> float:
        b, c = (2 * n - won + lost) * delta - won - lost, -lost * delta * (1 - delta)
        loss = (sqrt(max(b**2 - 8 * n * c, 0.0)) - b) / (
            4 * n
        )  # P(lost), likeliest where the difference is delta
        return (won - lost - n * delta) / sqrt(max(n * (2 * loss + delta * (1 - delta)), 1e-300))

    low = (
        -1.0
        if d == -1
        else root_scalar(lambda delta: score(delta) - z, bracket=(-1 + 1e-12, d)).root
    )
    high = (
        1.0 if d == 1 else root_scalar(lambda delta: score(delta) + z, bracket=(d, 1 - 1e-12)).root
    )
    return float(low), float(high)


def auroc_bounds(
    score: Float[np.ndarray, " row"],
    label: np.ndarray,
    member: Int[np.ndarray, " row"],
    level: float,
) -> tuple[float, float]:
    """Bounds of an AUROC of rows in clusters 0, 1, ... (`member`): Obuchowski's (1997) variance,
    which is DeLong's (1988) where each cluster has one row, on the logit scale with the t quantile.
    Clusters count as many as equal ones would (`kish`; scale, quantile and count are our choice).

    NaN where fewer than two clusters hold either class. Where the classes are apart, the variance
    is none and the bound is where the score of Hanley and McNeil's (1982) variance is not rejected
    (Newcombe 2006), with clusters as n.
    """
    positive, clusters = label == 1, int(member.max()) + 1
    counts = [int(side.sum()) for side in (positive, ~positive)]
    sides = [len(np.unique(member[side])) for side in (positive, ~positive)]
    if min(sides) < 2:
        return nan, nan
    inside = np.empty(len(score))
    for side in (positive, ~positive):
        inside[side] = rankdata(score[side])
    below = (rankdata(score) - inside) / np.where(
        positive, counts[1], counts[0]
    )  # share of the other class
    beaten = np.where(positive, below, 1 - below)
    area = float(beaten[positive].mean())
    if area in (0.0, 1.0):
        edge = _apart(sides[0], sides[1], level)
        return (0.0, 1 - edge) if area == 0 else (edge, 1.0)
    won, lost = (
        np.bincount(member, np.where(side, beaten - area, 0), clusters) / n
        for side, n in zip((positive, ~positive), counts, strict=True)
    )
    count = [kish(np.bincount(rows)) for rows in (member[positive], member[~positive], member)]
    of_won, of_lost, of_both = (n / (n - 1) for n in count)
    variance = max(of_won * won @ won + of_lost * lost @ lost + 2 * of_both * won @ lost, 0.0)
    reach = t.ppf((1 + level) / 2, count[-1] - 1) * sqrt(variance) / (area * (1 - area))
    low, high = expit(logit(area) + np.array([-1, 1]) * reach)
    return float(low), float(high)


def kish(sizes: Int[np.ndarray, " cluster"]) -> float:
    """How many clusters of equal size would count for as much (Kish 1965), at least 2."""
    return max(2.0, sizes.sum() ** 2 / (sizes**2).sum())


def _apart(positive: int, negative: int, level: float) -> float:
    """The smallest AUROC of which so many clusters of either class can all be in order."""
    z, size = float(norm.ppf((1 + level) / 2)), (positive + negative) / 2 - 1

    def excess(area: float) -> float:
        spread = (1 + size * ((1 - area) / (2 - area) + area / (1 + area))) / (positive * negative)
        return (1 - area) - z**2 * area * spread

    return float(root_scalar(excess, bracket=(0, 1)).root)


def resampled(
    statistic: Callable[..., float],
    columns: Sequence[np.ndarray],
    member: Int[np.ndarray, " row"],
    starts: Int[np.ndarray, " cluster"],
    sizes: Int[np.ndarray, " cluster"],
    picks: Int[np.ndarray, "draw cluster"],
    with_cluster: bool,
) -> Float[np.ndarray, " draw"]:
    """The statistic of the rows of every draw of clusters; `with_cluster` numbers the copies,
    last."""
    order = np.argsort(member, kind="stable")
    columns = [column[order] for column in columns]

    def draw(pick: np.ndarray) -> float:
        ends = sizes[pick].cumsum()
        rows = np.arange(ends[-1]) + np.repeat(starts[pick] - ends + sizes[pick], sizes[pick])
        copy = [np.repeat(np.arange(len(sizes)), sizes[pick])] if with_cluster else []
        return float(statistic(*(column[rows] for column in columns), *copy))

    return np.array([draw(pick) for pick in picks])


def bootstrap_levels(
    values: Float[np.ndarray, " draw"],
    picks: Int[np.ndarray, "draw cluster"],
    estimate: float,
    sizes: Int[np.ndarray, " cluster"],
    level: float,
) -> Float[np.ndarray, " bound"]:
    """Which two quantiles of the draws bound the interval. Plain percentiles cover too seldom
    (docs/calibration.md).

    Bias-corrected and accelerated (Efron 1987; influences from the draws, no jackknife); normal
    quantiles widened to t's (Hesterberg 2015) with `kish` clusters, which is our choice.
    """
    edge, equal = 0.5 / len(values), float(np.mean(values == estimate))
    bias = norm.ppf(np.clip(np.mean(values < estimate) + equal / 2, edge, 1 - edge))
    influence = np.bincount(
        picks.ravel(), np.repeat(values - values.mean(), len(sizes)), len(sizes)
    )
    skew = (influence**3).sum() / max(6 * (influence**2).sum() ** 1.5, 1e-300)
    count = kish(sizes)
    z = bias + np.array([-1, 1]) * t.ppf((1 + level) / 2, count - 1) * sqrt(count / (count - 1))
    return norm.cdf(bias + z / np.maximum(1 - skew * z, 1e-9))


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence bounds. `n` counts independent units (problems, not
    tokens)."""

    estimate: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        missing = np.isnan(self.low) or np.isnan(self.high)
        bounds = "(no interval)" if missing else f"[{self.low:.3f}, {self.high:.3f}]"
        return f"{self.estimate:.3f} {bounds} n={self.n}"


def auroc_interval(
    score: Column, label: Column, cluster: Column, *, level: float = 0.95
) -> Interval:
    """`auroc` with its interval for rows clustered by problem (see `auroc_bounds`; how often it
    covers: docs/calibration.md). `Interval.n` counts clusters."""
    estimate = auroc(score, label)
    fraction(level=level)
    score, label = columns(score=score, label=label)
    member, _, sizes = grouped(cluster, len(score))
    return Interval(estimate, *auroc_bounds(score, label, member, level), len(sizes))


def proportion(successes: SupportsFloat, n: int, *, level: float = 0.95) -> Interval:
    """`successes` of `n` independent trials as a fraction, with its Wilson score interval."""
    k = float(successes)
    require(
        n >= 1 and 0 <= k <= n and k == int(k),
        f"need a whole number of 0 to n >= 1; got {k:g} of n={n}",
    )
    fraction(level=level)
    low, high = binomtest(int(k), int(n)).proportion_ci(level, method="wilson")
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
) -> Interval:
    """Bootstrap interval of `statistic(*arrays)`, resampling whole clusters with replacement (see
    `bootstrap_levels`).

    `arrays`: one array or several, each [n ...]; `cluster` [n]: problem ids of any sortable kind.
    The estimate is the statistic of the data as given, `Interval.n` the number of clusters. Draws
    that give nan are dropped; if more than half do, the estimate is nan, or there is only one
    cluster, the bounds are nan.

    A problem drawn twice brings its rows twice under the same id. A statistic that groups by
    problem would fuse the copies: `with_cluster` passes it, last, a cluster number [n] that tells
    them apart.
    """
    columns = [
        np.asarray(array) for array in ([arrays] if isinstance(arrays, np.ndarray) else arrays)
    ]
    shapes, n = [column.shape for column in columns], len(cluster)
    fit = bool(shapes) and all(shape[:1] == (n,) for shape in shapes)
    require(fit, f"every array needs one row for each of {n} cluster labels; got shapes {shapes}")
    require(draws >= 1, f"draws must be at least 1; got {draws}")
    fraction(level=level)
    member, starts, sizes = grouped(cluster, n)
    estimate = float(statistic(*columns, *([member] if with_cluster else [])))
    m = len(sizes)
    if np.isnan(estimate) or m == 1:
        return Interval(estimate, nan, nan, m)
    picks = streams.rng("bootstrap", seed).integers(m, size=(draws, m))
    values = resampled(statistic, columns, member, starts, sizes, picks, with_cluster)
    kept = ~np.isnan(values)
    if kept.mean() < 1 / 2:
        return Interval(estimate, nan, nan, m)
    at = bootstrap_levels(values[kept], picks[kept], estimate, sizes, level)
    low, high = np.quantile(
        values[kept], at, method="weibull"
    )  # the default's tails hold .028 of 300 draws, not .025
    return Interval(estimate, float(low), float(high), m)


def clustered(
    statistic: Callable[..., float],
    arrays: Sequence[np.ndarray],
    cluster: Column,
    *,
    level: float = 0.95,
    **how: Any,
) -> Interval:
    """The interval of a statistic of clustered rows: `auroc_interval` of `auroc`,
    `cluster_bootstrap` of any other."""
    if statistic is auroc:
        return auroc_interval(arrays[0], arrays[1], cluster, level=level)
    return cluster_bootstrap(statistic, arrays, cluster, level=level, **how)


def paired_difference(
    a: Column, b: Column, cluster: Column, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """mean(a - b) of paired columns [n], in their units.

    The interval is the `cluster_bootstrap`'s; for single pairs of 0/1 outcomes it is Tango's (1998)
    score interval, which does not shrink to a point when no pair differs.
    """
    a, b = columns(a=a, b=b)
    member, _, sizes = grouped(cluster, len(a))
    if len(sizes) == len(member) and bool(np.isin(np.concatenate([a, b]), (0, 1)).all()):
        fraction(level=level)
        bounds = score_interval(int(np.sum(a > b)), int(np.sum(b > a)), len(a), level)
        return Interval(float((a - b).mean()), *bounds, len(a))
    return cluster_bootstrap(np.mean, a - b, cluster, draws=draws, seed=seed, level=level)


def difference(a: Interval, b: Interval) -> tuple[Interval, float]:
    """a - b of two independent estimates with 95% intervals, and its two-sided p.

    The bounds add the distances from estimate to bound in quadrature, each side its own (Zou and
    Donner 2008); p is normal with the reach towards 0, so it is below .05 where the interval leaves
    0 out. NaN where a bound is missing. `n` is the smaller of both.
    """
    gap, n = a.estimate - b.estimate, min(a.n, b.n)
    down, up = (
        hypot(a.estimate - a.low, b.high - b.estimate),
        hypot(a.high - a.estimate, b.estimate - b.low),
    )
    both = Interval(gap, gap - down, gap + up, n)
    reach = down if gap > 0 else up
    if np.isnan(gap + down + up) or reach == 0:
        return both, float("nan")
    return both, float(2 * norm.sf(norm.isf(0.025) * abs(gap) / reach))
