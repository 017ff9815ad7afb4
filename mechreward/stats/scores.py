"""Pure statistics on numpy columns: ranking, calibration, intervals, tests, overlap and power, in
that order.

A column is one-dimensional, numeric, finite and not empty; columns given together have one length.
Anything else raises `MechRewardError`. What the data cannot give (AUROC of one class, correlation
with a constant) is nan. The paper prints bare numbers: every interval, exact test and level here is
our own choice.
"""

from __future__ import annotations

from math import nan, sqrt

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from mechreward.base import streams
from mechreward.base.errors import require
from mechreward.stats.columns import Column, binary, columns, grouped, unit


def auroc(score: Column, label: Column) -> float:
    """P(a positive outscores a negative), ties one half. `score` [n], `label` [n] 0/1; nan if one
    class."""
    score, label = columns(score=score, label=label)
    binary(label=label)
    positive = label.sum()
    wins, pairs = (
        rankdata(score) @ label - positive * (positive + 1) / 2,
        positive * (len(label) - positive),
    )
    return float(wins / pairs) if pairs else nan


def within_auroc(score: Column, label: Column, group: Column) -> float:
    """AUROC among rows that share a group: the mean over the groups that hold both classes, each of
    equal weight.

    With `group` [n] = problem id it asks whether the score tells good states from bad ones *of one
    problem*, which a detector of easy problems cannot do. nan if no group holds both. (Pooled over
    pairs, intervals cover 87%.)
    """
    score, label = columns(score=score, label=label)
    binary(label=label)
    group, starts, _ = grouped(group, len(score))
    # One ranking serves all groups: group-major keys, each group's ranks shifted to start at 1.
    ranks = rankdata(group * len(score) + np.unique(score, return_inverse=True)[1]) - starts[group]
    positive, negative = np.bincount(group, label), np.bincount(group, 1 - label)
    wins, pairs = (
        np.bincount(group, ranks * label) - positive * (positive + 1) / 2,
        positive * negative,
    )
    mixed = pairs > 0
    return float((wins[mixed] / pairs[mixed]).mean()) if mixed.any() else nan


def spearman(a: Column, b: Column) -> float:
    """Spearman's rank correlation of two columns [n], in [-1, 1]; nan if either is constant."""
    a, b = columns(a=a, b=b)
    return _pearson(rankdata(a), rankdata(b))


def spearmans(a: Float[np.ndarray, "n column"], b: Column) -> Float[np.ndarray, " column"]:
    """`spearman` of every column of `a` with `b` [n], ranked once; nan for a constant column or
    `b`."""
    (b,) = columns(b=b)
    require(
        np.ndim(a) == 2 and len(a) == len(b),
        f"need one row for each of {len(b)} values; got {np.shape(a)}",
    )
    x, y = rankdata(a, axis=0), rankdata(b)
    x, y = x - x.mean(0), y - y.mean()
    size = np.sqrt((x**2).sum(0) * (y @ y))
    return (y @ x) / np.where(size > 0, size, nan)


def split_half_reliability(half_a: Column, half_b: Column) -> float:
    """Reliability of the mean of two halves [n] of one measurement, in [-1, 1]; nan if either is
    constant.

    Spearman-Brown, 2r / (1 + |r|) of Pearson's r. The |r| is ours: it changes nothing for r > 0 and
    keeps a negative r, which means no reliability, from running below -1.
    """
    half_a, half_b = columns(half_a=half_a, half_b=half_b)
    r = _pearson(half_a, half_b)
    return 2 * r / (1 + abs(r))


def disattenuated(rho: float, reliability_a: float, reliability_b: float = 1.0) -> float:
    """Spearman's (1904) correction rho / sqrt(reliability_a reliability_b): what noiseless columns
    show.

    Not clipped: a result above 1 says that a reliability is underestimated. nan where one is nan or
    <= 0.
    """
    require(not abs(rho) > 1, f"a correlation lies in [-1, 1]; got {rho}")
    for reliability in (reliability_a, reliability_b):
        require(not reliability > 1, f"a reliability is at most 1; got {reliability}")
    usable = reliability_a > 0 and reliability_b > 0
    return rho / sqrt(reliability_a * reliability_b) if usable else nan


def ece(prob: Column, label: Column, bins: int = 15) -> float:
    """Expected calibration error in [0, 1]: over equal-width bins, sum of n_bin/n |mean prob - mean
    label|.

    `prob` [n] in [0, 1], `label` [n] 0/1. It is above 0 at any n even for a perfect predictor:
    `perfect_ece`.
    """
    prob, label = columns(prob=prob, label=label)
    binary(label=label)
    return _ece(prob, label, _bin(prob, bins))


def perfect_ece(prob: Column, bins: int = 15, draws: int = 200, seed: int = 0) -> float:
    """Mean `ece` when labels are drawn from `prob` [n] itself: what perfect calibration shows at
    this n."""
    (prob,) = columns(prob=prob)
    require(draws >= 1, f"draws must be at least 1; got {draws}")
    index, rng = _bin(prob, bins), streams.rng("perfect ECE", seed)
    return float(np.mean([_ece(prob, rng.random(len(prob)) < prob, index) for _ in range(draws)]))


def iou(a: Column, b: Column) -> float:
    """Intersection over union of two sets of neuron indices, in [0, 1]; duplicates count once."""
    a, b = np.asarray(a), np.asarray(b)
    for side in (a, b):
        whole = side.ndim == 1 and (side.size == 0 or side.dtype.kind in "iu")
        require(
            whole,
            f"need integer indices [k] (of a mask: np.flatnonzero); got {side.dtype} {side.shape}",
        )
    either = len(np.union1d(a, b))
    require(either > 0, "the IoU of two empty sets is undefined; give at least one index")
    return len(np.intersect1d(a, b)) / either


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else nan


def _bin(prob: np.ndarray, bins: int) -> np.ndarray:
    unit(prob=prob)
    require(bins >= 1, f"bins must be at least 1; got {bins}")
    return np.minimum((prob * bins).astype(int), bins - 1)


def _ece(prob: np.ndarray, label: np.ndarray, index: np.ndarray) -> float:
    return float(np.abs(np.bincount(index, prob - label)).sum() / len(prob))
