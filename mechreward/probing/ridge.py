"""Ridge regression whose penalty is chosen by leaving out whole problems."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

from mechreward.base.errors import require
from mechreward.stats.left_out import left_out

# Penalties per row that are tried (our choice): over inputs of unit variance the least changes
# nothing, and the largest leaves little but each input's covariance with the target.
RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
ALONE = 1e-2  # where all rows are of one problem, so that none can be left out


class Spectrum:
    """Ridge regression on some rows, for any number of penalties and targets.

    Centred inputs are turned into the eigenvectors of their Gram matrix, of columns or of rows,
    whichever is smaller. After this one decomposition a fit is a product, and so is the error at
    rows that are left out. Sum of squares + penalty |w|^2, the intercept free.

    Parameters
    ----------
    x : array [row width]
        Inputs.

    Attributes
    ----------
    mean : array [width]
        Mean of the inputs.
    values : array [axis]
        Eigenvalues of the Gram matrix that are not 0 (to rounding).
    axes : array [width axis]
        Their eigenvectors.
    turned : array [row axis]
        Centred inputs in them.
    """

    def __init__(self, x: Float[np.ndarray, "row width"]) -> None:
        x = np.asarray(x, dtype=np.float64)
        same = (x == x[0]).all(0)
        self.mean = x.mean(0)
        x = x - self.mean
        tall = len(x) >= x.shape[1]
        values, vectors = np.linalg.eigh(x.T @ x if tall else x @ x.T)
        there = values > 1e-12 * values[-1]
        self.values, vectors = values[there], vectors[:, there]
        self.axes = vectors if tall else x.T @ vectors / np.sqrt(self.values)
        self.axes[same] = 0  # exactly: no weight on an input that says nothing
        self.turned = x @ self.axes

    def fit(
        self, y: Float[np.ndarray, "row target"], penalty: float
    ) -> tuple[Float[np.ndarray, "width target"], Float[np.ndarray, " target"]]:
        """Weights and intercepts."""
        mean = y.mean(0)
        weights = self.axes @ self._weights(y - mean, penalty)
        return weights, mean - self.mean @ weights

    def left_out(
        self,
        y: Float[np.ndarray, "row target"],
        group: Shaped[np.ndarray, " row"],
        penalty: float,
    ) -> Float[np.ndarray, "row target"]:
        """Errors at every row, had the fit been made without the rows of its group."""
        centred = y - y.mean(0)
        errors = centred - self.turned @ self._weights(centred, penalty)
        ones = np.ones((len(y), 1))  # the intercept
        left = np.hstack([self.turned / (self.values + penalty), ones / len(y)])
        right = np.hstack([self.turned, ones])
        return left_out(errors, left, right, group)

    def _weights(
        self, centred: Float[np.ndarray, "row target"], penalty: float
    ) -> Float[np.ndarray, "axis target"]:
        """On the axes."""
        return self.turned.T @ centred / (self.values + penalty)[:, None]


def choose(
    spectrum: Spectrum, y: Float[np.ndarray, "row target"], group: Shaped[np.ndarray, " row"]
) -> float:
    """The penalty per row of `RIDGES` that reads rows of left-out problems best.

    Parameters
    ----------
    spectrum : Spectrum
        Of the standardised inputs.
    y : array [row target]
        Targets.
    group : array [row]
        Problem of each row. Its rows share what made the problem easy, so to leave out single rows
        would reward a fit that remembers problems.

    Returns
    -------
    float
        That with the least squared error, every problem counting alike (as in scikit-learn's
        `GridSearchCV` over `LeaveOneGroupOut`); the larger of equals; `ALONE` for one problem.
    """
    problems, member, count = np.unique(group, return_inverse=True, return_counts=True)
    if len(problems) < 2:
        return ALONE
    share = 1 / count[member]
    best, least = ALONE, np.inf
    for ridge in RIDGES:
        errors = spectrum.left_out(y, member, ridge * len(y))
        error = float(share @ np.square(errors).sum(1))
        if error <= least:
            best, least = ridge, error
    return best


def check_ridge(ridge: float | None) -> None:
    """Raise MechRewardError for what is no penalty."""
    require(
        ridge is None or 0 <= ridge < np.inf,
        f"ridge is a penalty per row, 0 or more, or None to choose it; {ridge} was given.",
    )
