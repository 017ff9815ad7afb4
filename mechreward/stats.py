"""Pure statistics on numpy columns: ranking, calibration, intervals, tests, overlap and power, in that order.

A column is one-dimensional, numeric, finite and not empty; columns given together have one length. Anything
else raises `MechRewardError`. What the data cannot give (AUROC of one class, correlation with a constant) is
nan. The paper prints bare numbers: every interval, exact test and level here is our own choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import Float
from scipy.optimize import root_scalar
from scipy.stats import binomtest, hypergeom, norm, rankdata

from mechreward._bounds import auroc_bounds, bootstrap_levels, resampled, score_interval
from mechreward._check import one_of, require
from mechreward._columns import Column, binary, columns, fraction, grouped, unit


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence bounds. `n` counts independent units (problems, not tokens)."""

    estimate: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        missing = np.isnan(self.low) or np.isnan(self.high)
        bounds = "(no interval)" if missing else f"[{self.low:.3f}, {self.high:.3f}]"
        return f"{self.estimate:.3f} {bounds} n={self.n}"


def auroc(score: Column, label: Column) -> float:
    """P(a positive outscores a negative), ties one half. `score` [n], `label` [n] 0/1; nan if one class."""
    score, label = columns(score=score, label=label)
    binary(label=label)
    positive = label.sum()
    wins, pairs = rankdata(score) @ label - positive * (positive + 1) / 2, positive * (len(label) - positive)
    return float(wins / pairs) if pairs else nan


def auroc_interval(score: Column, label: Column, cluster: Column, *, level: float = 0.95) -> Interval:
    """`auroc` with its interval for rows clustered by problem (see `auroc_bounds`; how often it covers:
    docs/calibration.md). `Interval.n` counts clusters."""
    estimate = auroc(score, label)
    fraction(level=level)
    score, label = columns(score=score, label=label)
    member, _, sizes = grouped(cluster, len(score))
    return Interval(estimate, *auroc_bounds(score, label, member, level), len(sizes))


def within_auroc(score: Column, label: Column, group: Column) -> float:
    """AUROC among rows that share a group: the mean over the groups that hold both classes, each of equal weight.

    With `group` [n] = problem id it asks whether the score tells good states from bad ones *of one problem*,
    which a detector of easy problems cannot do. nan if no group holds both. (Pooled over pairs, intervals cover 87%.)
    """
    score, label = columns(score=score, label=label)
    binary(label=label)
    group, starts, _ = grouped(group, len(score))
    # One ranking serves all groups: group-major keys, each group's ranks shifted to start at 1.
    ranks = rankdata(group * len(score) + np.unique(score, return_inverse=True)[1]) - starts[group]
    positive, negative = np.bincount(group, label), np.bincount(group, 1 - label)
    wins, pairs = np.bincount(group, ranks * label) - positive * (positive + 1) / 2, positive * negative
    mixed = pairs > 0
    return float((wins[mixed] / pairs[mixed]).mean()) if mixed.any() else nan


def spearman(a: Column, b: Column) -> float:
    """Spearman's rank correlation of two columns [n], in [-1, 1]; nan if either is constant."""
    a, b = columns(a=a, b=b)
    return _pearson(rankdata(a), rankdata(b))


def spearmans(a: Float[np.ndarray, "n column"], b: Column) -> Float[np.ndarray, " column"]:
    """`spearman` of every column of `a` with `b` [n], ranked once; nan for a constant column or `b`."""
    (b,) = columns(b=b)
    require(np.ndim(a) == 2 and len(a) == len(b), f"need one row for each of {len(b)} values; got {np.shape(a)}")
    x, y = rankdata(a, axis=0), rankdata(b)
    x, y = x - x.mean(0), y - y.mean()
    size = np.sqrt((x**2).sum(0) * (y @ y))
    return (y @ x) / np.where(size > 0, size, nan)


def split_half_reliability(half_a: Column, half_b: Column) -> float:
    """Reliability of the mean of two halves [n] of one measurement, in [-1, 1]; nan if either is constant.

    Spearman-Brown, 2r / (1 + |r|) of Pearson's r. The |r| is ours: it changes nothing for r > 0 and keeps a
    negative r, which means no reliability, from running below -1.
    """
    half_a, half_b = columns(half_a=half_a, half_b=half_b)
    r = _pearson(half_a, half_b)
    return 2 * r / (1 + abs(r))


def disattenuated(rho: float, reliability_a: float, reliability_b: float = 1.0) -> float:
    """Spearman's (1904) correction rho / sqrt(reliability_a reliability_b): what noiseless columns show.

    Not clipped: a result above 1 says that a reliability is underestimated. nan where one is nan or <= 0.
    """
    require(not abs(rho) > 1, f"a correlation lies in [-1, 1]; got {rho}")
    for reliability in (reliability_a, reliability_b):
        require(not reliability > 1, f"a reliability is at most 1; got {reliability}")
    usable = reliability_a > 0 and reliability_b > 0
    return rho / sqrt(reliability_a * reliability_b) if usable else nan


def ece(prob: Column, label: Column, bins: int = 15) -> float:
    """Expected calibration error in [0, 1]: over equal-width bins, sum of n_bin/n |mean prob - mean label|.

    `prob` [n] in [0, 1], `label` [n] 0/1. It is above 0 at any n even for a perfect predictor: `perfect_ece`.
    """
    prob, label = columns(prob=prob, label=label)
    binary(label=label)
    return _ece(prob, label, _bin(prob, bins))


def perfect_ece(prob: Column, bins: int = 15, draws: int = 200, seed: int = 0) -> float:
    """Mean `ece` when labels are drawn from `prob` [n] itself: what perfect calibration shows at this n."""
    (prob,) = columns(prob=prob)
    require(draws >= 1, f"draws must be at least 1; got {draws}")
    index, rng = _bin(prob, bins), np.random.default_rng(seed)
    return float(np.mean([_ece(prob, rng.random(len(prob)) < prob, index) for _ in range(draws)]))


def proportion(successes: SupportsFloat, n: int, *, level: float = 0.95) -> Interval:
    """`successes` of `n` independent trials as a fraction, with its Wilson score interval."""
    k = float(successes)
    require(n >= 1 and 0 <= k <= n and k == int(k), f"need a whole number of 0 to n >= 1; got {k:g} of n={n}")
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
    """Bootstrap interval of `statistic(*arrays)`, resampling whole clusters with replacement (see `bootstrap_levels`).

    `arrays`: one array or several, each [n ...]; `cluster` [n]: problem ids of any sortable kind. The
    estimate is the statistic of the data as given, `Interval.n` the number of clusters. Draws that give nan
    are dropped; if more than half do, the estimate is nan, or there is only one cluster, the bounds are nan.

    A problem drawn twice brings its rows twice under the same id. A statistic that groups by problem would
    fuse the copies: `with_cluster` passes it, last, a cluster number [n] that tells them apart.
    """
    columns = [np.asarray(array) for array in ([arrays] if isinstance(arrays, np.ndarray) else arrays)]
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
    picks = np.random.default_rng(seed).integers(m, size=(draws, m))
    values = resampled(statistic, columns, member, starts, sizes, picks, with_cluster)
    kept = ~np.isnan(values)
    if kept.mean() < 1 / 2:
        return Interval(estimate, nan, nan, m)
    at = bootstrap_levels(values[kept], picks[kept], estimate, sizes, level)
    low, high = np.quantile(values[kept], at, method="weibull")  # the default's tails hold .028 of 300 draws, not .025
    return Interval(estimate, float(low), float(high), m)


def clustered(
    statistic: Callable[..., float], arrays: Sequence[np.ndarray], cluster: Column, *, level: float = 0.95, **how: Any
) -> Interval:
    """The interval of a statistic of clustered rows: `auroc_interval` of `auroc`, `cluster_bootstrap` of any other."""
    if statistic is auroc:
        return auroc_interval(arrays[0], arrays[1], cluster, level=level)
    return cluster_bootstrap(statistic, arrays, cluster, level=level, **how)


def paired_difference(
    a: Column, b: Column, cluster: Column, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """mean(a - b) of paired columns [n], in their units.

    The interval is the `cluster_bootstrap`'s; for single pairs of 0/1 outcomes it is Tango's (1998) score interval,
    which does not shrink to a point when no pair differs.
    """
    a, b = columns(a=a, b=b)
    member, _, sizes = grouped(cluster, len(a))
    if len(sizes) == len(member) and bool(np.isin(np.concatenate([a, b]), (0, 1)).all()):
        fraction(level=level)
        bounds = score_interval(int(np.sum(a > b)), int(np.sum(b > a)), len(a), level)
        return Interval(float((a - b).mean()), *bounds, len(a))
    return cluster_bootstrap(np.mean, a - b, cluster, draws=draws, seed=seed, level=level)


def mcnemar(before: Column, after: Column) -> float:
    """Exact two-sided McNemar p of paired 0/1 outcomes [n]: binomial on the discordant pairs, 1.0 if none."""
    before, after = columns(before=before, after=after)
    binary(before=before, after=after)
    lost, won = int(np.sum(before > after)), int(np.sum(after > before))
    return float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0


def rank_among(value: SupportsFloat, draws: Column, *, tail: str = "low") -> tuple[int, float]:
    """Rank of the observed value among null draws [n] (1 = most extreme, ties count against it), and its p.

    The randomisation p is (1 + #{draws as extreme}) / (1 + n): 19 draws can reach .05 and 99 can reach .01.
    "two" doubles the smaller one-sided p, up to 1, and so needs 39 and 199. nan among the draws is an error:
    to drop failed controls would flatter the value.
    """
    one_of("tail", tail, ("low", "high", "two"))
    (draws,), (observed,) = columns(draws=draws), columns(value=np.array([float(value)]))
    low, high = 1 + int(np.sum(draws <= observed)), 1 + int(np.sum(draws >= observed))
    rank = {"low": low, "high": high, "two": min(low, high)}[tail]
    return rank, min(1.0, (2 if tail == "two" else 1) * rank / (1 + len(draws)))


def holm(p: Column) -> Float[np.ndarray, " n"]:
    """Holm's (1979) adjusted p-values [n] in the order given: family-wise error under any dependence."""
    (p,) = columns(p=p)
    unit(p=p)
    order, adjusted = np.argsort(p, kind="stable"), np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order]))
    return adjusted


def iou(a: Column, b: Column) -> float:
    """Intersection over union of two sets of neuron indices, in [0, 1]; duplicates count once."""
    a, b = np.asarray(a), np.asarray(b)
    for side in (a, b):
        whole = side.ndim == 1 and (side.size == 0 or side.dtype.kind in "iu")
        require(whole, f"need integer indices [k] (of a mask: np.flatnonzero); got {side.dtype} {side.shape}")
    either = len(np.union1d(a, b))
    require(either > 0, "the IoU of two empty sets is undefined; give at least one index")
    return len(np.intersect1d(a, b)) / either


def hypergeometric_iou(k_a: int, k_b: int, width: int, overlap: int) -> tuple[float, float]:
    """Expected `iou` of two random sets of `k_a` and `k_b` out of `width` neurons, and P(>= `overlap`).

    The expectation is exact, over the hypergeometric law of the shared count; not the ratio of expectations.
    """
    require(min(k_a, k_b) >= 1 and max(k_a, k_b) <= width, f"need 1 <= k <= {width}; got {k_a} and {k_b}")
    least, most = max(0, k_a + k_b - width), min(k_a, k_b)
    require(least <= overlap <= most, f"{k_a} and {k_b} of {width} share {least} to {most}; got {overlap}")
    shared = np.arange(least, most + 1)
    expected = hypergeom.pmf(shared, width, k_a, k_b) @ (shared / (k_a + k_b - shared))
    return float(expected), float(hypergeom.sf(overlap - 1, width, k_a, k_b))


def detectable_effect(
    n: int, base: float, discordant: float | None = None, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest drop in accuracy that two-sided McNemar on `n` shared problems sees: .064 at n=300, base=.8.

    Solves Connor (1987), d sqrt(n) = z_{alpha/2} sqrt(psi) + z_power sqrt(psi - d^2), where psi =
    `discordant` is the fraction of problems whose outcome changes either way; by default base (1 - base),
    half of what independent runs show. A drop d needs d <= psi <= 2 base - d, so psi is moved there. Normal
    approximation: the exact test has some points less power. nan if even the loss of every solved problem
    would go unseen. `base` is often an estimate, and 0 or 1 of few problems: it is moved to .01 or .99 then.
    """
    require(0 <= base <= 1, f"base is an accuracy, in [0, 1]; got {base}")
    base = min(max(base, 0.01), 0.99)
    fraction(power=power, alpha=alpha)
    psi, most = base * (1 - base) if discordant is None else discordant, 2 * min(base, 1 - base)
    require(n >= 1 and power >= 0.5, f"need n >= 1 and power >= 0.5; got n={n}, power={power}")
    require(0 < psi <= most, f"at base={base} the discordant fraction lies in (0, {most:.3g}]; got {psi}")
    z_alpha, z_power = norm.isf(alpha / 2), norm.ppf(power)

    def excess(drop: float) -> float:
        changed = min(max(psi, drop), 2 * base - drop)
        return float(drop * sqrt(n) - z_alpha * sqrt(changed) - z_power * sqrt(changed - drop**2))

    return nan if excess(base) < 0 else float(root_scalar(excess, bracket=(0, base)).root)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else nan


def _bin(prob: np.ndarray, bins: int) -> np.ndarray:
    unit(prob=prob)
    require(bins >= 1, f"bins must be at least 1; got {bins}")
    return np.minimum((prob * bins).astype(int), bins - 1)


def _ece(prob: np.ndarray, label: np.ndarray, index: np.ndarray) -> float:
    return float(np.abs(np.bincount(index, prob - label)).sum() / len(prob))
