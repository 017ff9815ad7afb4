"""Logistic regression on soft labels, as plain numbers that a file can hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from mechreward.base.errors import require

ITERATIONS = 2000


def logistic(x: Any, y: Float[np.ndarray, " row"], strength: float = 1.0) -> LogisticRegression:
    """scikit-learn's regression of probabilities, which a row's label may be.

    Every row stands there twice, as right with weight y and as wrong with weight 1 - y: the
    likelihood is that of y successes in one trial, so that V-hat teaches more than one outcome.

    Parameters
    ----------
    x : array or sparse matrix [row column]
        Features.
    y : array [row]
        In [0, 1].
    strength : float, default 1.0
        Inverse of the penalty, scikit-learn's `C`; infinite for none.

    Returns
    -------
    LogisticRegression
        Fitted.
    """
    rows = np.arange(x.shape[0])
    twice = np.concatenate([rows, rows])
    label = np.repeat([1, 0], len(rows))
    weight = np.concatenate([y, 1 - y])
    model = LogisticRegression(C=strength, max_iter=ITERATIONS)
    return model.fit(x[twice], label, sample_weight=weight)


def linear(model: LogisticRegression) -> tuple[np.ndarray, float]:
    """Weights [column] and bias of a fitted regression."""
    return np.asarray(model.coef_)[0], float(np.asarray(model.intercept_)[0])


@dataclass(frozen=True)
class Logit:
    """A linear score of standardised columns.

    Attributes
    ----------
    mean, scale : array [column]
        Of the rows it was fitted to; a constant column has scale 1.
    weight : array [column]
        A standard deviation of each column, in logits.
    bias : float
        Where all columns are at their mean.
    """

    mean: Float[np.ndarray, " column"] = field(repr=False)
    scale: Float[np.ndarray, " column"] = field(repr=False)
    weight: Float[np.ndarray, " column"]
    bias: float

    @classmethod
    def of(
        cls,
        x: Float[np.ndarray, "row column"],
        y: Float[np.ndarray, " row"],
        strength: float = 1.0,
    ) -> Logit:
        """Fitted to rows whose label is a probability (`logistic`).

        Raises
        ------
        MechRewardError
            All labels are 0, or all are 1.
        """
        require(
            0 < float(y.mean()) < 1,
            "nothing can be fitted: all answers are right, or all are wrong.",
        )
        mean, scale = x.mean(0), x.std(0)
        scale = np.where(scale > 0, scale, 1.0)
        model = logistic((x - mean) / scale, y, strength)
        weight, bias = linear(model)
        return cls(mean, scale, weight, bias)

    def score(self, x: Float[np.ndarray, "row column"]) -> Float[np.ndarray, " row"]:
        """Logit of the probability of a right answer."""
        return (x - self.mean) / self.scale @ self.weight + self.bias

    def prob(self, x: Float[np.ndarray, "row column"]) -> Float[np.ndarray, " row"]:
        """Probability of a right answer."""
        return expit(self.score(x))
