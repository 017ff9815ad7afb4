"""How many continuations a state needs, and V-hat under a Beta prior.

The successes of n continuations are Binomial(n, V); with a Beta prior of V they are Beta-Binomial
and V is Beta again (BetaPRM, 2605.15529, puts this law on step values). All of it is functions of
successes and counts: no model is called here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, exp, nan

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import beta, betabinom, norm

from mechreward.base.errors import finite, require, whole

Prior = tuple[float, float]
# Of the stopping rule (our choice). A prior fitted to all states would make the number of
# continuations of a state depend on which others were estimated beside it.
JEFFREYS: Prior = (0.5, 0.5)
LEVEL = 0.95
NARROWEST = 0.01  # width of an interval
REACH = float(norm.ppf((1 + LEVEL) / 2))  # standard deviations to either side
# Concentrations a + b of a fitted prior: from almost nothing to all states alike (our choice).
LOOSE, TIGHT = 1e-2, 1e4


@dataclass(frozen=True)
class AdaptiveK:
    """Continuations of a state until its 95% interval is narrow enough: `estimate(..., k=)`.

    Attributes
    ----------
    width : float, default 0.34
        Of the interval at V = .5; no state's is wider. The default is what 32 continuations give.
    least : int, default 8
        Continuations of every state.
    most : int
        Continuations that no state exceeds: what V = .5 takes.

    Raises
    ------
    MechRewardError
        A width outside (0, 1), or `least` < 2, which leaves no halves.

    Notes
    -----
    The interval is that of the posterior under Jeffreys' prior, 1.96 standard deviations to either
    side. Narrow enough is `width * (4 V (1 - V)) ** .25`: then continuations go as
    s = sqrt(V (1 - V)), Neyman's allocation, which has the least mean squared error for their
    number. (Intervals of one width would take s^2, and at equal error as many continuations as one
    k for all.) After `least` of every state a round gives each state what it lacks by then, and an
    eighth more at least. That goes by its own successes alone: neither batch nor company changes a
    value. More than half of the states take two rounds, most others three.

    Who stops by what was seen is biased: V-hat = successes / k lies too far from .5, by up to .013
    with the defaults, and split-half reliability is .01 too high. `Values.shrunk`, the mean of the
    posterior, does not ask why continuations stopped. So shrunk values save continuations: at equal
    error to exact V they need .95 of those of one k on the planted models whose V varies, where
    .955 is the bound (`neyman_bound`), 1.05 where all states have V = .5 and nothing can be saved,
    and .8 of them where V is Beta(.3, .3). Unshrunk ones need 1.04 with the defaults and .99 at
    width .2: they save little before V lies near 0 and 1.
    """

    width: float = 0.34
    least: int = 8

    def __post_init__(self) -> None:
        finite("width", self.width)
        require(
            NARROWEST <= self.width < 1,
            f"width is that of an interval, from {NARROWEST} (some 38,000 continuations of a "
            f"state) to below 1; {self.width} was given.",
        )
        whole("least", self.least, 2, "continuations of every state")

    @property
    def most(self) -> int:
        """Continuations that no state exceeds."""
        return max(self.least, ceil(self._coin - 2))

    @property
    def _coin(self) -> float:
        # The posterior's variance is V (1 - V) / (k + 2). At V = .5 its interval is `width` wide
        # with this k + 2, elsewhere narrow enough with sqrt(4 V (1 - V)) of it.
        return (REACH / self.width) ** 2

    def lacking(
        self, successes: Int[np.ndarray, " row"], k: Int[np.ndarray, " row"]
    ) -> Int[np.ndarray, " row"]:
        """Continuations that each state still needs, by what is known of it; 0 where it is done.

        Parameters
        ----------
        successes : array [row]
            Correct continuations so far.
        k : array [row]
            Continuations so far.
        """
        v = posterior_mean(successes, k, JEFFREYS)
        needed = np.ceil(self._coin * np.sqrt(4 * v * (1 - v)) - 2).astype(np.int64)
        needed = np.where(k < self.least, self.least, needed)
        # An eighth more at least: or states would come back for one continuation at a time.
        more = np.minimum(np.maximum(needed - k, k // 8), self.most - k)
        return np.where(needed > k, more, 0)


def posterior_mean(
    successes: Int[np.ndarray, " row"], k: Int[np.ndarray, " row"], prior: Prior
) -> Float[np.ndarray, " row"]:
    """Mean of V [row] after `successes` of `k` continuations, under a Beta prior (a, b)."""
    a, b = prior
    return (successes + a) / (k + a + b)


def posterior_interval(
    successes: Int[np.ndarray, " row"], k: Int[np.ndarray, " row"], prior: Prior = JEFFREYS
) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    """The 95% interval [row] of V with equal tails, under a Beta prior (a, b)."""
    a, b = prior
    low, high = beta.interval(LEVEL, successes + a, k - successes + b)
    return np.asarray(low), np.asarray(high)


def fitted_prior(successes: Int[np.ndarray, " row"], k: Int[np.ndarray, " row"]) -> Prior:
    """The Beta prior (a, b) of all states' V, by maximum likelihood of their successes.

    They are Beta-Binomial. Whether a state stopped by what was seen does not change the likelihood.
    a + b is kept in [.01, 10,000]; at the upper end all states are worth the same.

    Parameters
    ----------
    successes : array [row]
        Correct continuations.
    k : array [row]
        Continuations, at least 1.

    Raises
    ------
    MechRewardError
        No states.
    """
    require(len(k) > 0, "no states were given: no prior can be fitted.")
    (successes, k), count = np.unique(np.stack([successes, k]), axis=1, return_counts=True)

    def prior(point: np.ndarray) -> Prior:
        mean, concentration = float(expit(point[0])), exp(point[1])
        return mean * concentration, (1 - mean) * concentration

    def misfit(point: np.ndarray) -> float:
        likelihood = betabinom.logpmf(successes, k, *prior(point))
        return -float(np.average(likelihood, weights=count))

    limits = [(-10, 10), (np.log(LOOSE), np.log(TIGHT))]
    return prior(minimize(misfit, [0.0, 1.0], bounds=limits).x)


def neyman_bound(v: Float[np.ndarray, " row"]) -> float:
    """The least share of one k's continuations that any allocation needs at equal error.

    With s^2 = V (1 - V), n_i continuations of each state leave a mean squared error of E s^2 / n.
    It is least for its number of continuations where n_i goes as s_i (Neyman 1934), and equals that
    of k for all at (E s)^2 / E s^2 of their number. Shrunk estimates may need a little less, both
    shrunk alike: part of what they know is the prior.

    Parameters
    ----------
    v : array [row]
        True V of every state.

    Returns
    -------
    float
        In (0, 1]: 1 where all V (1 - V) are equal; nan where every V is 0 or 1.
    """
    variance = v * (1 - v)
    if not variance.any():
        return nan
    return float(np.sqrt(variance).mean() ** 2 / variance.mean())
