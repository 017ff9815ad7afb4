"""Scores of numeric columns: ranking, correlation, reliability, calibration, overlap.

What the data cannot give (AUROC of one class, correlation with a constant) is nan.
"""

from __future__ import annotations

from math import nan, sqrt

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from mechreward.base import streams
from mechreward.base.errors import require
from mechreward.stats.columns import Column, Members, Rows, binary, columns, grouped, unit


def auroc(score: Column, label: Column) -> float:
    """Probability that a positive outscores a negative, ties one half.

    Parameters
    ----------
    score
        Higher for what is predicted positive, `[n]`.
    label
        0 or 1, `[n]`.

    Returns
    -------
    float
        In [0, 1]; nan if there is one class.

    Raises
    ------
    MechRewardError
        Columns that are none, or labels other than 0 and 1.
    """
    score, label = columns(score=score, label=label)
    binary(label=label)
    positive = label.sum()
    negative = len(label) - positive
    # Mann and Whitney: what the positives' ranks sum to beyond their least possible sum.
    wins = rankdata(score) @ label - positive * (positive + 1) / 2
    pairs = positive * negative
    return float(wins / pairs) if pairs else nan


def within_auroc(score: Column, label: Column, group: Column) -> float:
    """AUROC among rows that share a group: the mean over groups that hold both classes.

    With problems as groups it asks whether the score tells good states from bad ones *of one
    problem*, which a detector of easy problems cannot do. Groups weigh the same (our choice: pooled
    over pairs, intervals cover 87%).

    Parameters
    ----------
    score
        Higher for what is predicted positive, `[n]`.
    label
        0 or 1, `[n]`.
    group
        Label of the group of each row, such as its problem, `[n]`.

    Returns
    -------
    float
        In [0, 1]; nan if no group holds both classes.

    Raises
    ------
    MechRewardError
        Columns that are none, or labels other than 0 and 1.
    """
    score, label = columns(score=score, label=label)
    binary(label=label)
    group, starts, _ = grouped(group, len(score))
    # One ranking serves all groups: group-major keys, each group's ranks shifted to start at 1.
    _, score_order = np.unique(score, return_inverse=True)
    keys = group * len(score) + score_order
    ranks = rankdata(keys) - starts[group]
    positive = np.bincount(group, label)
    negative = np.bincount(group, 1 - label)
    wins = np.bincount(group, ranks * label) - positive * (positive + 1) / 2
    pairs = positive * negative
    mixed = pairs > 0
    if not mixed.any():
        return nan
    aurocs = wins[mixed] / pairs[mixed]
    return float(aurocs.mean())


def spearman(a: Column, b: Column) -> float:
    """Spearman's rank correlation.

    Parameters
    ----------
    a, b
        Columns `[n]`.

    Returns
    -------
    float
        In [-1, 1]; nan if either is constant.

    Raises
    ------
    MechRewardError
        Columns that are none.
    """
    a, b = columns(a=a, b=b)
    ranks = rankdata(np.stack([a, b]), axis=1)
    return _pearson(ranks[0], ranks[1])


def spearmans(a: Float[np.ndarray, "n column"], b: Column) -> Float[np.ndarray, " column"]:
    """`spearman` of many columns with one, which is ranked once.

    Parameters
    ----------
    a
        The columns, `[n column]`.
    b
        The one column, `[n]`.

    Returns
    -------
    ndarray
        Correlations `[column]` in [-1, 1]; nan for a constant column, and all nan for a constant
        `b`.

    Raises
    ------
    MechRewardError
        `b` is no column, or `a` has another length.
    """
    (b,) = columns(b=b)
    require(
        np.ndim(a) == 2 and len(a) == len(b),
        f"need one row for each of {len(b)} values; got {np.shape(a)}",
    )
    ranks_a = rankdata(a, axis=0)
    ranks_b = rankdata(b)
    x = ranks_a - ranks_a.mean(0)
    y = ranks_b - ranks_b.mean()
    size = np.sqrt((x**2).sum(0) * (y @ y))
    size[size == 0] = nan
    return (y @ x) / size


def split_half_reliability(half_a: Column, half_b: Column) -> float:
    """Reliability of the mean of two halves of one measurement, by Spearman and Brown.

    It is 2r / (1 + |r|) of Pearson's r. The |r| is our choice: it changes nothing for r > 0 and
    keeps a negative r, which means no reliability, from running below -1.

    Parameters
    ----------
    half_a, half_b
        Both halves' means, `[n]`.

    Returns
    -------
    float
        In [-1, 1]; nan if either half is constant.

    Raises
    ------
    MechRewardError
        Columns that are none.
    """
    half_a, half_b = columns(half_a=half_a, half_b=half_b)
    r = _pearson(half_a, half_b)
    return 2 * r / (1 + abs(r))


def disattenuated(rho: float, reliability_a: float, reliability_b: float = 1.0) -> float:
    """Spearman's (1904) correction of a correlation for noise: what noiseless columns show.

    It is rho / sqrt(reliability_a reliability_b), not clipped: a result above 1 tells that a
    reliability is underestimated.

    Parameters
    ----------
    rho
        The correlation, in [-1, 1].
    reliability_a, reliability_b
        Of both columns, at most 1; that of the second is 1.0 by default.

    Returns
    -------
    float
        nan where a number is nan or a reliability is not above 0.

    Raises
    ------
    MechRewardError
        A correlation outside [-1, 1], or a reliability above 1.
    """
    require(not abs(rho) > 1, f"a correlation lies in [-1, 1]; got {rho}")
    for reliability in (reliability_a, reliability_b):
        require(not reliability > 1, f"a reliability is at most 1; got {reliability}")
    usable = reliability_a > 0 and reliability_b > 0
    return rho / sqrt(reliability_a * reliability_b) if usable else nan


def ece(prob: Column, label: Column, bins: int = 15) -> float:
    """Expected calibration error over bins of equal width.

    It is the sum over bins of n_bin / n |mean prob - mean label|, and above 0 at any n even for a
    perfect predictor: see `perfect_ece`.

    Parameters
    ----------
    prob
        Predicted probabilities, `[n]`, in [0, 1].
    label
        0 or 1, `[n]`.
    bins
        Number of bins, 15 by default (our choice).

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    MechRewardError
        Columns that are none, probabilities outside [0, 1], other labels, or no bin.
    """
    prob, label = columns(prob=prob, label=label)
    binary(label=label)
    return _ece(prob, label, _bin(prob, bins))


def perfect_ece(
    prob: Column,
    bins: int = 15,
    draws: int = 200,
    seed: int = 0,
    cluster: Column | None = None,
) -> float:
    """Mean `ece` of labels drawn from the probabilities: what perfect calibration shows at this n.

    Parameters
    ----------
    prob
        Predicted probabilities, `[n]`, in [0, 1].
    bins
        Number of bins, 15 by default.
    draws
        How often labels are drawn, 200 by default.
    seed
        Of the draws, 0 by default.
    cluster
        What has one outcome, such as the answer that several states are of, `[n]`; None (the
        default) if every row has its own. Rows of a cluster are drawn by one uniform number: each
        has its probability, and they go together as far as these let them.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    MechRewardError
        No column, probabilities outside [0, 1], no bin, no draw, or not one cluster a row.
    """
    (prob,) = columns(prob=prob)
    require(draws >= 1, f"draws must be at least 1; got {draws}")
    bin_of = _bin(prob, bins)
    outcome = np.arange(len(prob)) if cluster is None else grouped(cluster, len(prob)).member
    rng = streams.rng("perfect ECE", seed)
    errors = []
    for _ in range(draws):
        uniform = rng.random(int(outcome.max()) + 1)
        label = uniform[outcome] < prob
        errors.append(_ece(prob, label, bin_of))
    return float(np.mean(errors))


def brier(prob: Column, label: Column) -> float:
    """Brier score: mean squared distance of probabilities from outcomes; lower is better.

    Parameters
    ----------
    prob
        Predicted probabilities, `[n]`, in [0, 1].
    label
        0 or 1, `[n]`.

    Returns
    -------
    float
        In [0, 1]; p (1 - p) for the base rate p itself.

    Raises
    ------
    MechRewardError
        Columns that are none, probabilities outside [0, 1], or other labels.
    """
    prob, label = columns(prob=prob, label=label)
    binary(label=label)
    unit(prob=prob)
    return float(np.square(prob - label).mean())


def binned(prob: Column, bins: int = 15) -> Members:
    """The bin of `ece` that each probability lies in, for a picture of reliability.

    Parameters
    ----------
    prob
        Predicted probabilities, `[n]`, in [0, 1].
    bins
        Number of bins of equal width, 15 by default.

    Returns
    -------
    ndarray
        0 to bins - 1, `[n]`; 1 lies in the last.

    Raises
    ------
    MechRewardError
        No column, probabilities outside [0, 1], or no bin.
    """
    (prob,) = columns(prob=prob)
    return _bin(prob, bins)


def iou(a: Column, b: Column) -> float:
    """Intersection over union of two sets of neurons.

    Parameters
    ----------
    a, b
        Indices of neurons, `[k]`; duplicates count once.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    MechRewardError
        Not integer indices, or two empty sets.
    """
    a = np.asarray(a)
    b = np.asarray(b)
    for side in (a, b):
        whole = side.size == 0 or side.dtype.kind in "iu"
        require(
            side.ndim == 1 and whole,
            f"need integer indices [k] (of a mask: np.flatnonzero); got {side.dtype} {side.shape}",
        )
    either = len(np.union1d(a, b))
    require(either > 0, "the IoU of two empty sets is undefined; give at least one index")
    return len(np.intersect1d(a, b)) / either


def _pearson(a: Rows, b: Rows) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return nan
    return float(np.corrcoef(a, b)[0, 1])


def _bin(prob: Rows, bins: int) -> Members:
    """Which bin each probability lies in; 1 lies in the last."""
    unit(prob=prob)
    require(bins >= 1, f"bins must be at least 1; got {bins}")
    bin_of = (prob * bins).astype(int)
    return np.minimum(bin_of, bins - 1)


def _ece(prob: Rows, label: np.ndarray, bin_of: Members) -> float:
    gaps = np.bincount(bin_of, prob - label)
    return float(np.abs(gaps).sum() / len(prob))
