"""Statistics of all draws of a bootstrap at once, from how often each row was drawn.

A draw of whole clusters is a weight of every row: a whole number. Each statistic here is that of
the rows repeated so often, to rounding; computed draw by draw it takes several times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan

import numpy as np
from jaxtyping import Float

from mechreward.base import streams
from mechreward.base.errors import require
from mechreward.stats.columns import Column, Rows, columns, fraction, grouped
from mechreward.stats.intervals import Draws, Interval, Span, bounds_of_draws
from mechreward.stats.scores import binned

Weights = Float[np.ndarray, "draw row"]
CELLS = 4_000_000  # weights that are held at once


def weighted_bootstrap(
    statistic: Callable[..., np.ndarray],
    arrays: Sequence[np.ndarray],
    cluster: Column,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    span: Span | None = None,
) -> Interval:
    """`cluster_bootstrap` of a statistic of weighted rows: the same draws, the same bounds.

    Parameters
    ----------
    statistic
        `statistic(weights, *arrays)` is `[draw]`, of weights `[draw row]`; such as those of this
        module.
    arrays
        Columns, each `[row]`.
    cluster
        Label of the cluster of each row, such as its problem, `[row]`.
    draws
        Number of resamples, 1000 by default.
    seed
        Of the resamples, 0 by default.
    level
        Of the interval, .95 by default.
    span
        What the statistic may lie between; None (the default) if that is not known.

    Returns
    -------
    Interval
        `n` counts clusters.

    Raises
    ------
    MechRewardError
        Columns that are none, not one label a row, no draw, or a level outside (0, 1).
    """
    named = {f"column {number}": array for number, array in enumerate(arrays)}
    checked = columns(**named)
    require(draws >= 1, f"draws must be at least 1; got {draws}")
    fraction(level=level)
    clusters = grouped(cluster, len(checked[0]))
    estimate = float(statistic(np.ones((1, len(cluster))), *checked)[0])
    count = len(clusters.sizes)
    if np.isnan(estimate) or count == 1:
        return Interval(estimate, nan, nan, count)
    rng = streams.rng("bootstrap", seed)
    picks = rng.integers(count, size=(draws, count))
    at_once = max(1, CELLS // len(cluster))
    values = []
    for begin in range(0, draws, at_once):
        some = picks[begin : begin + at_once]
        often = [np.bincount(pick, minlength=count) for pick in some]
        of_cluster = np.stack(often).astype(float)
        weights = of_cluster[:, clusters.member]
        values.append(statistic(weights, *checked))
    every = np.concatenate(values)
    low, high = bounds_of_draws(every, picks, estimate, clusters.sizes, span, level)
    return Interval(estimate, low, high, count)


def weighted_mean(weights: Weights, column: Rows) -> Draws:
    """Mean of the drawn rows."""
    return weights @ column / weights.sum(1)


def weighted_auroc(weights: Weights, score: Rows, label: Rows) -> Draws:
    """`auroc` of the drawn rows; nan where one class was drawn."""
    wrong, right = _by_block(weights, score, label)
    below = wrong.cumsum(1) - wrong / 2
    wins = (right * below).sum(1)
    pairs = right.sum(1) * wrong.sum(1)
    pairs[pairs == 0] = nan
    return wins / pairs


def weighted_increment(weights: Weights, score: Rows, base: Rows, label: Rows) -> Draws:
    """AUROC of a score minus that of a baseline, of the same drawn rows; minus .5 where the
    baseline does worse than chance, which nobody need use."""
    area = weighted_auroc(weights, score, label)
    of_base = weighted_auroc(weights, base, label)
    return area - np.maximum(of_base, 1 / 2)


def weighted_ece(weights: Weights, prob: Rows, label: Rows, bins: int = 15) -> Draws:
    """`ece` of the drawn rows."""
    bin_of = binned(prob, bins)
    gaps = np.zeros((len(prob), bins))
    gaps[np.arange(len(prob)), bin_of] = prob - label
    by_bin = np.abs(weights @ gaps)
    return by_bin.sum(1) / weights.sum(1)


def weighted_aurc(weights: Weights, score: Rows, label: Rows) -> Draws:
    """`aurc` of the drawn rows."""
    return _area(weights, score, label) / weights.sum(1)


def weighted_prr(weights: Weights, score: Rows, label: Rows) -> Draws:
    """`prediction_rejection_ratio` of the drawn rows; nan where one class was drawn."""
    n = weights.sum(1)
    wrong = weights @ (1 - label)
    gained = wrong - _area(weights, score, label)
    most = wrong - _area(weights, label, label)
    one_class = (wrong == 0) | (wrong == n)
    most[one_class] = nan
    return gained / most


def _area(weights: Weights, score: Rows, label: Rows) -> Draws:
    """Sum of the risks at all coverages.

    In a block of w ties with mean error e, behind c rows of which a are wrong, the j-th has risk
    (a + j e) / (c + j): together w e + (a - e c) (H(c + w) - H(c)) with harmonic numbers H.
    """
    wrong, right = _by_block(weights, -score, label)
    size = wrong + right
    after = size.cumsum(1)
    error = wrong / np.maximum(size, 1)
    before = after - size
    wrong_before = wrong.cumsum(1) - wrong
    most = int(after[:, -1].max())
    steps = 1 / np.arange(1, most + 1)
    harmonic = np.append(0.0, steps.cumsum())
    reach = harmonic[after.astype(int)] - harmonic[before.astype(int)]
    risks = wrong + (wrong_before - error * before) * reach
    return risks.sum(1)


def _by_block(weights: Weights, score: Rows, label: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Weight of wrong and of right rows in every block of ties, from the lowest score to the
    highest, both `[draw block]`."""
    order = np.argsort(score, kind="stable")
    rising = score[order]
    new = rising[1:] != rising[:-1]
    starts = np.flatnonzero(np.append(True, new))
    drawn = weights[:, order]
    right = drawn * label[order]
    by_block = np.add.reduceat(drawn, starts, axis=1)
    right_by_block = np.add.reduceat(right, starts, axis=1)
    return by_block - right_by_block, right_by_block
