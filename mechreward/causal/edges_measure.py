"""Parts of a correlation, and what readers change, with intervals clustered by problem."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from mechreward.base import streams
from mechreward.stats import Interval
from mechreward.stats.columns import Column, grouped
from mechreward.stats.intervals import bounds_of_draws

RESAMPLES = 1000
LEVEL = 0.95


def shares(
    parts: Float[np.ndarray, "component state"],
    whole: Float[np.ndarray, " state"],
    y: Float[np.ndarray, " state"],
) -> Float[np.ndarray, " component"]:
    """Parts of Pearson's r between `whole` and `y`: covariance of each part with `y` over both
    standard deviations.

    Parts that add up to `whole`, up to a constant, have shares that add up to r. All are 0 where
    `whole` or `y` is constant.
    """
    size = whole.std() * y.std()
    centred = y - y.mean()
    if size <= 1e-12 * (1 + np.abs(whole).max()):
        return np.zeros(len(parts))
    return parts @ centred / (len(y) * size)


def share_intervals(
    parts: Float[np.ndarray, "component state"],
    whole: Float[np.ndarray, " state"],
    y: Float[np.ndarray, " state"],
    cluster: Column,
    seed: int = 0,
) -> list[Interval]:
    """`shares` of each component with 95% intervals, whole clusters drawn anew."""
    estimates = shares(parts, whole, y)
    # Sums by cluster are all that a draw of clusters needs.
    centred = parts - parts.mean(1, keepdims=True)
    total = whole - whole.mean()
    target = y - y.mean()
    table = np.stack([np.ones(len(y)), target, target**2, total, total**2])
    sums = _drawn(np.vstack([table, centred, centred * target]), cluster, seed)
    n, first, second, third, fourth = sums[:5]
    spread = np.sqrt(_variance(second, first, n) * _variance(fourth, third, n))
    spread[spread <= 1e-12] = np.nan
    count = len(parts)
    together = sums[5 + count :] / n - sums[5 : 5 + count] * first / n**2
    return _intervals(estimates, together / spread, cluster, seed)


def mean_intervals(
    values: Float[np.ndarray, "row state"], cluster: Column, seed: int = 0
) -> list[Interval]:
    """Means over states with 95% intervals, whole clusters drawn anew."""
    sums = _drawn(np.vstack([np.ones(values.shape[1]), values]), cluster, seed)
    return _intervals(values.mean(1), sums[1:] / sums[0], cluster, seed)


def _picks(clusters: int, seed: int) -> Int[np.ndarray, "draw cluster"]:
    """The clusters of each draw: the same for every cell, which are then drawn together."""
    return streams.rng("edges: bootstrap", seed).integers(clusters, size=(RESAMPLES, clusters))


def _drawn(
    rows: Float[np.ndarray, "row state"], cluster: Column, seed: int
) -> Float[np.ndarray, "row draw"]:
    """Sums of each row over the states of every draw of clusters."""
    groups = grouped(cluster, rows.shape[1])
    count = len(groups.sizes)
    by_cluster = np.zeros((len(rows), count))
    np.add.at(by_cluster.T, groups.member, rows.T)
    times = np.zeros((RESAMPLES, count))
    np.add.at(times, (np.arange(RESAMPLES)[:, None], _picks(count, seed)), 1)
    return by_cluster @ times.T


def _variance(squares: np.ndarray, sums: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.maximum(squares / n - (sums / n) ** 2, 0)


def _intervals(
    estimates: Float[np.ndarray, " row"],
    values: Float[np.ndarray, "row draw"],
    cluster: Column,
    seed: int,
) -> list[Interval]:
    """Bounds from the draws, as `stats.cluster_bootstrap` has them."""
    sizes = grouped(cluster, len(np.asarray(cluster))).sizes
    picks = _picks(len(sizes), seed)
    intervals = []
    for estimate, drawn in zip(estimates, values, strict=True):
        low = high = float(estimate)
        there = drawn[~np.isnan(drawn)]
        if len(sizes) < 2:
            low = high = np.nan
        elif len(there) and np.ptp(there) > 1e-12:  # else no draw of clusters changes it
            low, high = bounds_of_draws(drawn, picks, float(estimate), sizes, None, LEVEL)
        intervals.append(Interval(float(estimate), float(low), float(high), len(sizes)))
    return intervals
