"""A claim about a neuron set: its verdict, the reason, and the numbers that decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, isfinite
from typing import Any

from scipy.stats import norm

from mechreward.base.errors import one_of
from mechreward.stats import Interval

CLAIMS = ("decodable", "sparse", "causal", "specific", "sufficient", "stable")
# "not run": a claim that is younger than the file.
VERDICTS = ("pass", "fail", "inconclusive", "not run")
LEVEL = 0.01  # of a rank among draws (99 reach it), of sign flips and of steering after Holm
MOVE = 0.1  # difference in accuracy between steering down and up that is worth having
SHARE = 0.5  # part of a larger change that has to be the set's own


@dataclass(frozen=True)
class Claim:
    """One row of a certificate.

    Attributes
    ----------
    claim : str
        Which of `CLAIMS`.
    verdict : str
        One of `VERDICTS`.
    reason : str
        One sentence with the figures that decided.
    numbers : dict
        All figures by name.

    Raises
    ------
    MechRewardError
        An unknown claim or verdict.
    """

    claim: str
    verdict: str
    reason: str
    numbers: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        one_of("claim", self.claim, CLAIMS)
        one_of("verdict", self.verdict, VERDICTS)


def seen(interval: Interval, level: float = LEVEL, power: float = 0.8) -> float:
    """Smallest effect seen with `power` at two-sided `level`, from a 95% interval.

    A normal approximation.
    """
    wide = (interval.high - interval.low) / (2 * norm.isf(0.025))
    return float((norm.isf(level / 2) + norm.ppf(power)) * wide)


def spread(name: str, interval: Interval) -> dict[str, float]:
    """An interval as three numbers."""
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


def verdicts(claims: Sequence[Claim]) -> dict[str, str]:
    """Claim -> verdict."""
    return {claim.claim: claim.verdict for claim in claims}


def what_to_run(see: float, n: int, worth: float, what: str, option: str) -> str:
    """What to run: as many as show `worth`.

    Four times as many where that could have been seen already.
    """
    if not isfinite(see):
        return f"inconclusive: no interval can be given at n={n}; run {option}={max(100, 4 * n)}."
    if see > 1:
        more = max(100, 4 * n)
        return f"inconclusive: n={n} is too few to see {what} of any size; run {option}={more}."
    need = 10 * ceil(n * (see / worth) ** 2 / 10) if see > worth else 4 * n
    need = max(need, n + 10)
    return f"inconclusive: with n={n} {what} of {see:.2f} could be seen; run {option}={need}."


def bounded(interval: Interval) -> str:
    """An estimate with its bounds, in two decimals."""
    return f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
