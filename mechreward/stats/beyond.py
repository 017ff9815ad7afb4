"""Association beyond what is known anyway: both columns without what facts tell of them, and a null
that keeps clusters.

The residual product whose mean is tested is that of the generalised covariance measure (Shah and
Peters 2020, Annals of Statistics 48); leaving out whole clusters, ranks and the sign flips are our
choice.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata
from sklearn.preprocessing import SplineTransformer

from mechreward.base import streams
from mechreward.base.errors import require
from mechreward.stats.columns import Column, columns, grouped
from mechreward.stats.left_out import left_out
from mechreward.stats.tests import rank_among

KNOTS = 3  # of a cubic spline in each fact
LEVELS = 12  # so many values or fewer have a column each instead: steps, thresholds of them too
RIDGE = 1e-3  # of standardised columns: settles what one cluster alone would decide
FLIPS = 1999  # draws of signs: they reach p = .0005
ROUNDING = 1e-9  # of an association


class Known:
    """What is known of some rows, ready to be taken off any columns.

    The part that is taken off is a sum of splines of the facts, fitted to the rows of all other
    clusters, so that no row is explained by itself or its cluster.

    Parameters
    ----------
    facts
        What is known of each row, `[row fact]`; a constant fact tells nothing.
    cluster
        Label of each row's cluster, such as its problem, `[row]`.

    Raises
    ------
    MechRewardError
        Facts and labels of different lengths, or fewer than two clusters.

    Notes
    -----
    Additive, and smooth in facts of more than `LEVELS` values, is our choice, and a limit: what a
    column and the target both owe to a jump of two facts together stays. On made data (80 problems
    to fit, 40 to test) where V rises at once from a step and a length of prompt on, 11 of 30 sets
    that know only that read it beyond these facts; where it goes with step times length, 2 of 30.
    A counter that begins again, such as position modulo 4, passes too, where V goes with it.
    With products of the columns 6 of 30 are left, but at 15 clusters they make p <= .01 in 10 to
    15% of nulls, where this makes it in 4 to 7%.
    """

    def __init__(self, facts: Float[np.ndarray, "other fact"], cluster: Column) -> None:
        n = len(cluster)
        require(len(facts) == n, f"facts and labels need one row each; got {len(facts)} and {n}.")
        require(bool(np.isfinite(facts).all()), "facts hold NaN or infinity: leave such rows out.")
        clusters = grouped(cluster, n)
        require(
            len(clusters.sizes) > 1,
            "what is known can be taken off with two problems or more; there is one.",
        )
        self._member = clusters.member
        self._basis = _basis(np.asarray(facts, float))
        gram = self._basis.T @ self._basis
        self._inverse = np.linalg.inv(gram + _penalty(self._basis, n))

    def left_over(self, values: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
        """Ranks of each column without what the facts tell of them; 0 for a constant column.

        Raises
        ------
        MechRewardError
            Values of another number of rows.
        """
        n = len(self._member)
        require(len(values) == n, f"values and facts need one row each; got {len(values)} and {n}.")
        ranks = rankdata(values, axis=0)
        ranks -= ranks.mean(0)
        rest = self.taken_off(ranks)
        rest[:, np.ptp(ranks, axis=0) == 0] = 0
        return rest

    def taken_off(self, values: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
        """Columns themselves, not their ranks, without what the facts tell of them."""
        basis = self._basis
        weights = self._inverse @ (basis.T @ values)
        return left_out(values - basis @ weights, basis @ self._inverse, basis, self._member)


def told(
    fit: tuple[Float[np.ndarray, " row"], Float[np.ndarray, "row fact"]],
    facts: Float[np.ndarray, "other fact"],
) -> Float[np.ndarray, " other"]:
    """What facts tell of a column on other rows, in ranks.

    Parameters
    ----------
    fit
        The column, `[row]`, and its facts, `[row fact]`, that splines are fitted to.
    facts
        Of the other rows, `[other fact]`.

    Returns
    -------
    ndarray
        `[other]`.
    """
    column, known = fit
    n = len(column)
    basis = _basis(np.concatenate([known, facts]))
    part = basis[:n]
    gram = part.T @ part
    ranks = rankdata(column)
    weights = np.linalg.solve(gram + _penalty(basis, n), part.T @ ranks)
    return basis[n:] @ weights


def association(a: Float[np.ndarray, " row"], b: Float[np.ndarray, " row"]) -> float:
    """Correlation about 0 of two columns of `Known.left_over`; NaN where one is all 0."""
    size = float(np.sqrt((a @ a) * (b @ b)))
    if size == 0:
        return float("nan")
    return float(a @ b) / size


def associations(
    values: Float[np.ndarray, "row column"], b: Float[np.ndarray, " row"]
) -> Float[np.ndarray, " column"]:
    """`association` of many columns with one; 0 where a column is all 0."""
    products = b @ values
    squares = np.square(values).sum(0)
    size = np.sqrt(squares * (b @ b))
    size[size == 0] = np.inf
    return products / size


def flipped(
    a: Float[np.ndarray, " row"],
    b: Float[np.ndarray, " row"],
    cluster: Column,
    draws: int = FLIPS,
    seed: int = 0,
) -> Float[np.ndarray, " draw"]:
    """`association` with the sign of each cluster's whole contribution drawn anew: what it is
    where the columns have nothing to do with each other.

    It keeps how rows of a cluster go together, and how much each cluster says. Measured on made
    data, p <= .05 comes in 6 to 8% and p <= .01 in 1 to 2% of nulls with 40 clusters.

    Parameters
    ----------
    a, b
        Columns of `Known.left_over`, `[row]`.
    cluster
        Label of each row's cluster, `[row]`.
    draws
        Draws of signs, 1999 by default.
    seed
        Of the draws, 0 by default.

    Returns
    -------
    ndarray
        `[draw]`, for `p_among`.
    """
    a, b = columns(a=a, b=b)
    clusters = grouped(cluster, len(a))
    parts = np.bincount(clusters.member, a * b)
    size = np.sqrt((a @ a) * (b @ b))
    if size == 0:
        return np.zeros(draws)
    return signs(len(parts), draws, seed) @ parts / size


def signs(clusters: int, draws: int, seed: int = 0) -> Float[np.ndarray, "draw cluster"]:
    """1 or -1 for each of so many clusters, drawn anew for each draw."""
    return streams.rng("sign flips", seed).choice([-1.0, 1.0], (draws, clusters))


def p_among(score: float, null: Float[np.ndarray, " draw"]) -> float:
    """Randomisation p of an association, high, among `flipped`; NaN counts as 0.

    What is equal but for rounding counts as no smaller: with few clusters some signs give the
    observed sum itself, added up in another order.
    """
    return rank_among(float(np.nan_to_num(score)) - ROUNDING, null, tail="high")[1]


def _penalty(basis: Float[np.ndarray, "row column"], n: int) -> Float[np.ndarray, "column column"]:
    """For a fit to `n` rows; the mean, which comes first, is not shrunk."""
    penalty = np.full(basis.shape[1], RIDGE * n)
    penalty[0] = 0
    return np.diag(penalty)


def _basis(facts: Float[np.ndarray, "row fact"]) -> Float[np.ndarray, "row column"]:
    """A column of ones, and for each fact standardised columns: its values, if they are few, or a
    cubic spline of its ranks, so that no tail decides where the knots are."""
    parts = []
    for fact in rankdata(facts, axis=0).T:
        values = np.unique(fact)
        column = fact[:, None]
        if len(values) == 1:
            continue
        if len(values) <= LEVELS:
            part = (column == values[1:]).astype(float)
        else:
            spline = SplineTransformer(n_knots=KNOTS)
            part = spline.fit_transform(column)[:, 1:]
        scale = part.std(0)
        scale[scale == 0] = 1
        parts.append((part - part.mean(0)) / scale)
    ones = np.ones((len(facts), 1))
    return np.hstack([ones, *parts])
