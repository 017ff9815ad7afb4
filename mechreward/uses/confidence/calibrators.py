"""From scores to probabilities: isotonic regression, or Platt's."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from sklearn.isotonic import IsotonicRegression

from mechreward.base.errors import one_of, require
from mechreward.uses.confidence.logit import Logit

HOW = ("isotonic", "platt")
# Problems from which isotonic regression is the default. scikit-learn advises against it below
# some 1000 samples; with several answers or states of a problem we go on from 200 (our choice).
MANY = 200


@dataclass(frozen=True)
class Isotonic:
    """The best rising function of a score (`sklearn.isotonic`), flat beyond its ends.

    Attributes
    ----------
    knots, heights : array [knot]
        Scores, and probabilities there; straight between them.
    """

    knots: Float[np.ndarray, " knot"] = field(repr=False)
    heights: Float[np.ndarray, " knot"] = field(repr=False)

    def prob(self, score: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
        """Probability of a right answer."""
        return np.interp(score, self.knots, self.heights)


@dataclass(frozen=True)
class Platt:
    """A logistic function of a score, fitted to Platt's (1999) smoothed labels without penalty.

    Attributes
    ----------
    logit : Logit
        Of one column.
    """

    logit: Logit

    def prob(self, score: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
        """Probability of a right answer."""
        return self.logit.prob(score[:, None])


Calibrator = Isotonic | Platt


def chosen(how: str | None, problems: int) -> str:
    """The calibrator that was asked for, or that so many problems allow.

    Raises
    ------
    MechRewardError
        An unknown one.
    """
    if how is None:
        return "isotonic" if problems >= MANY else "platt"
    one_of("calibrator", how, HOW)
    return how


def calibrator(
    score: Float[np.ndarray, " row"], reward: Int[np.ndarray, " row"], how: str
) -> Calibrator:
    """Fitted to scores and rewards of the calibration split.

    Parameters
    ----------
    score : array [row]
        Higher for what is surer.
    reward : array [row]
        0 or 1.
    how : str
        "isotonic" or "platt".

    Raises
    ------
    MechRewardError
        One class.
    """
    right = int(reward.sum())
    wrong = len(reward) - right
    require(
        right > 0 and wrong > 0,
        f"nothing can be calibrated: all {len(reward)} answers of the calibration split are "
        f"{'right' if right else 'wrong'}. Give more of them, or other problems.",
    )
    if how == "isotonic":
        fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        fitted.fit(score, reward.astype(float))
        return Isotonic(fitted.X_thresholds_.astype(float), fitted.y_thresholds_.astype(float))
    smoothed = np.where(reward == 1, (right + 1) / (right + 2), 1 / (wrong + 2))
    return Platt(Logit.of(score[:, None], smoothed, np.inf))
