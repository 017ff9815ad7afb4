"""Exact tests, ranks among draws, correction for many tests, overlap by chance, power."""

from __future__ import annotations

from itertools import product
from math import isnan, nan, sqrt
from typing import SupportsFloat

import numpy as np
from jaxtyping import Float
from scipy.optimize import root_scalar
from scipy.stats import binomtest, hypergeom, norm

from mechreward.base.errors import one_of, require
from mechreward.base.streams import rng
from mechreward.stats.columns import Column, binary, columns, fraction, unit


def mcnemar(before: Column, after: Column) -> float:
    """Exact two-sided McNemar test of paired outcomes: binomial on the pairs that differ.

    Parameters
    ----------
    before, after
        Outcomes 0 or 1 of the same problems, `[n]`.

    Returns
    -------
    float
        p; 1.0 if no pair differs.

    Raises
    ------
    MechRewardError
        Columns that are none, or outcomes other than 0 and 1.
    """
    before, after = columns(before=before, after=after)
    binary(before=before, after=after)
    lost = int(np.sum(before > after))
    won = int(np.sum(after > before))
    if lost + won == 0:
        return 1.0
    return float(binomtest(lost, lost + won).pvalue)


def sign_flips(difference: Column, draws: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value of a mean of differences, under flips of their signs.

    All flips are gone through where there are no more than `draws` (zeros do not matter); else so
    many are drawn, and the data count as one of them.

    Parameters
    ----------
    difference
        [n] one for each independent unit, such as a problem.
    draws
        Flips, 9999 by default.
    seed
        Of the draws.

    Returns
    -------
    float
        1 where all differences are 0.

    Raises
    ------
    MechRewardError
        No difference, or one that is not finite.
    """
    (differences,) = columns(difference=difference)
    differences = differences[differences != 0].astype(float)
    if not len(differences):
        return 1.0
    size = abs(differences.sum()) * (1 - 1e-12)  # rounding makes no difference of equals
    if 2 ** min(len(differences), 60) <= draws:
        flips = np.array(list(product((1.0, -1.0), repeat=len(differences))))
        return float(np.mean(np.abs(flips @ differences) >= size))
    flips = rng("sign flips of problems", seed).choice([1.0, -1.0], size=(draws, len(differences)))
    return float((1 + np.sum(np.abs(flips @ differences) >= size)) / (1 + draws))


def rank_among(value: SupportsFloat, draws: Column, *, tail: str = "low") -> tuple[int, float]:
    """Rank of the observed value among null draws, and its randomisation p.

    p is (1 + #{draws as extreme}) / (1 + n): 19 draws can reach .05 and 99 can reach .01. "two"
    doubles the smaller one-sided p, up to 1, and so needs 39 and 199.

    Parameters
    ----------
    value
        What was observed.
    draws
        The same number under the null, `[n]`. nan among them is an error: to drop failed controls
        would flatter the value.
    tail
        What counts as extreme: "low" (the default), "high" or "two".

    Returns
    -------
    rank
        1 for the most extreme; ties count against the value.
    p
        In (0, 1].

    Raises
    ------
    MechRewardError
        Draws that are no column, a value that is not finite, or an unknown tail.
    """
    one_of("tail", tail, ("low", "high", "two"))
    (draws,) = columns(draws=draws)
    (observed,) = columns(value=[float(value)])
    low = 1 + int(np.sum(draws <= observed))
    high = 1 + int(np.sum(draws >= observed))
    sides = 1
    if tail == "low":
        rank = low
    elif tail == "high":
        rank = high
    else:
        rank = min(low, high)
        sides = 2
    p = sides * rank / (1 + len(draws))
    return rank, min(1.0, p)


def holm(p: Column) -> Float[np.ndarray, " n"]:
    """Holm's (1979) adjusted p-values: family-wise error under any dependence.

    Parameters
    ----------
    p
        p-values of all tests of the family, `[n]`.

    Returns
    -------
    ndarray
        Adjusted p-values `[n]` in the order given.

    Raises
    ------
    MechRewardError
        No column, or numbers outside [0, 1].
    """
    (p,) = columns(p=p)
    unit(p=p)
    order = np.argsort(p, kind="stable")
    remaining = np.arange(len(p), 0, -1)
    ascending = np.maximum.accumulate(remaining * p[order])
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, ascending)
    return adjusted


def hypergeometric_iou(k_a: int, k_b: int, width: int, overlap: int) -> tuple[float, float]:
    """What `iou` two random sets of neurons have, and how often they share as many.

    The expectation is exact, over the hypergeometric law of the shared count; not the ratio of
    expectations.

    Parameters
    ----------
    k_a, k_b
        Sizes of the sets.
    width
        How many neurons there are.
    overlap
        How many the two sets share.

    Returns
    -------
    expected
        Mean `iou` by chance.
    p
        Probability of sharing `overlap` neurons or more by chance.

    Raises
    ------
    MechRewardError
        A set that is empty or larger than `width`, or an overlap that such sets cannot have.
    """
    require(
        min(k_a, k_b) >= 1 and max(k_a, k_b) <= width,
        f"need 1 <= k <= {width}; got {k_a} and {k_b}",
    )
    least = max(0, k_a + k_b - width)
    most = min(k_a, k_b)
    require(
        least <= overlap <= most,
        f"{k_a} and {k_b} of {width} share {least} to {most}; got {overlap}",
    )
    shared = np.arange(least, most + 1)
    chance = hypergeom.pmf(shared, width, k_a, k_b)
    expected = chance @ (shared / (k_a + k_b - shared))
    p = hypergeom.sf(overlap - 1, width, k_a, k_b)
    return float(expected), float(p)


def detectable_effect(
    n: int, base: float, discordant: float | None = None, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest drop in accuracy that two-sided McNemar on shared problems sees: .064 at n = 300
    and base = .8.

    Solves Connor (1987), d sqrt(n) = z_{alpha/2} sqrt(psi) + z_power sqrt(psi - d^2), where psi is
    the fraction of problems whose outcome changes either way. A drop d needs d <= psi <= 2 base -
    d, so psi is moved there. Normal approximation: the exact test has some points less power.

    Parameters
    ----------
    n
        Number of problems.
    base
        Accuracy before. It is often an estimate, and 0 or 1 of few problems: it is moved to .01 or
        .99 then.
    discordant
        psi; None (the default) for base (1 - base), half of what independent runs show.
    power
        Wanted, at least .5; .8 by default.
    alpha
        Level of the test, .05 by default.

    Returns
    -------
    float
        nan if even the loss of every solved problem would go unseen; `can_see` says that in words.

    Raises
    ------
    MechRewardError
        No problem, or a number outside its range.
    """
    require(0 <= base <= 1, f"base is an accuracy, in [0, 1]; got {base}")
    base = min(max(base, 0.01), 0.99)
    fraction(power=power, alpha=alpha)
    psi = base * (1 - base) if discordant is None else discordant
    most = 2 * min(base, 1 - base)
    require(n >= 1 and power >= 0.5, f"need n >= 1 and power >= 0.5; got n={n}, power={power}")
    require(
        0 < psi <= most,
        f"at base={base} the discordant fraction lies in (0, {most:.3g}]; got {psi}",
    )
    z_alpha = norm.isf(alpha / 2)
    z_power = norm.ppf(power)

    def excess(drop: float) -> float:
        """By how much this drop is more than what level and power need."""
        most_changed = 2 * base - drop
        changed = min(max(psi, drop), most_changed)
        for_level = z_alpha * sqrt(changed)
        for_power = z_power * sqrt(changed - drop**2)
        return float(drop * sqrt(n) - for_level - for_power)

    if excess(base) < 0:
        return nan
    return float(root_scalar(excess, bracket=(0, base)).root)


def can_see(effect: float | None, noun: str) -> str:
    """What of a `detectable_effect` is told: the effect, or that there is none.

    Parameters
    ----------
    effect
        The smallest that can be seen; nan, or None as files hold it, where there is none.
    noun
        What the effect is: drop, change, contrast.

    Returns
    -------
    str
        "a drop of 0.06 can be seen", or "no drop can be seen, however large".
    """
    if effect is None or isnan(effect):
        return f"no {noun} can be seen, however large"
    return f"a {noun} of {effect:.2f} can be seen"
