"""Exact tests, ranks among draws, correction for many tests, overlap by chance, power."""

from __future__ import annotations

from math import nan, sqrt
from typing import SupportsFloat

import numpy as np
from jaxtyping import Float
from scipy.optimize import root_scalar
from scipy.stats import binomtest, hypergeom, norm

from mechreward.base.errors import one_of, require
from mechreward.stats.columns import Column, binary, columns, fraction, unit


def mcnemar(before: Column, after: Column) -> float:
    """Exact two-sided McNemar p of paired 0/1 outcomes [n]: binomial on the discordant pairs, 1.0
    if none."""
    before, after = columns(before=before, after=after)
    binary(before=before, after=after)
    lost, won = int(np.sum(before > after)), int(np.sum(after > before))
    return float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0


def rank_among(value: SupportsFloat, draws: Column, *, tail: str = "low") -> tuple[int, float]:
    """Rank of the observed value among null draws [n] (1 = most extreme, ties count against it),
    and its p.

    The randomisation p is (1 + #{draws as extreme}) / (1 + n): 19 draws can reach .05 and 99 can
    reach .01. "two" doubles the smaller one-sided p, up to 1, and so needs 39 and 199. nan among
    the draws is an error: to drop failed controls would flatter the value.
    """
    one_of("tail", tail, ("low", "high", "two"))
    (draws,), (observed,) = columns(draws=draws), columns(value=np.array([float(value)]))
    low, high = 1 + int(np.sum(draws <= observed)), 1 + int(np.sum(draws >= observed))
    rank = {"low": low, "high": high, "two": min(low, high)}[tail]
    return rank, min(1.0, (2 if tail == "two" else 1) * rank / (1 + len(draws)))


def holm(p: Column) -> Float[np.ndarray, " n"]:
    """Holm's (1979) adjusted p-values [n] in the order given: family-wise error under any
    dependence."""
    (p,) = columns(p=p)
    unit(p=p)
    order, adjusted = np.argsort(p, kind="stable"), np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order]))
    return adjusted


def hypergeometric_iou(k_a: int, k_b: int, width: int, overlap: int) -> tuple[float, float]:
    """Expected `iou` of two random sets of `k_a` and `k_b` out of `width` neurons, and P(>=
    `overlap`).

    The expectation is exact, over the hypergeometric law of the shared count; not the ratio of
    expectations.
    """
    require(
        min(k_a, k_b) >= 1 and max(k_a, k_b) <= width,
        f"need 1 <= k <= {width}; got {k_a} and {k_b}",
    )
    least, most = max(0, k_a + k_b - width), min(k_a, k_b)
    require(
        least <= overlap <= most,
        f"{k_a} and {k_b} of {width} share {least} to {most}; got {overlap}",
    )
    shared = np.arange(least, most + 1)
    expected = hypergeom.pmf(shared, width, k_a, k_b) @ (shared / (k_a + k_b - shared))
    return float(expected), float(hypergeom.sf(overlap - 1, width, k_a, k_b))


def detectable_effect(
    n: int, base: float, discordant: float | None = None, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest drop in accuracy that two-sided McNemar on `n` shared problems sees: .064 at n=300,
    base=.8.

    Solves Connor (1987), d sqrt(n) = z_{alpha/2} sqrt(psi) + z_power sqrt(psi - d^2), where psi =
    `discordant` is the fraction of problems whose outcome changes either way; by default base (1 -
    base), half of what independent runs show. A drop d needs d <= psi <= 2 base - d, so psi is
    moved there. Normal approximation: the exact test has some points less power. nan if even the
    loss of every solved problem would go unseen. `base` is often an estimate, and 0 or 1 of few
    problems: it is moved to .01 or .99 then.
    """
    require(0 <= base <= 1, f"base is an accuracy, in [0, 1]; got {base}")
    base = min(max(base, 0.01), 0.99)
    fraction(power=power, alpha=alpha)
    psi, most = base * (1 - base) if discordant is None else discordant, 2 * min(base, 1 - base)
    require(n >= 1 and power >= 0.5, f"need n >= 1 and power >= 0.5; got n={n}, power={power}")
    require(
        0 < psi <= most,
        f"at base={base} the discordant fraction lies in (0, {most:.3g}]; got {psi}",
    )
    z_alpha, z_power = norm.isf(alpha / 2), norm.ppf(power)

    def excess(drop: float) -> float:
        changed = min(max(psi, drop), 2 * base - drop)
        return float(drop * sqrt(n) - z_alpha * sqrt(changed) - z_power * sqrt(changed - drop**2))

    return nan if excess(base) < 0 else float(root_scalar(excess, bracket=(0, base)).root)
