"""The score interval of a difference of paired proportions, which no library we use has."""

from __future__ import annotations

from math import sqrt

from scipy.optimize import root_scalar
from scipy.stats import norm


def score_interval(won: int, lost: int, n: int, level: float) -> tuple[float, float]:
    """Bounds of P(won) - P(lost) from counts among `n` pairs: the differences that Tango's (1998) score test does not
    reject. At 0 that test is McNemar's without correction. Where no pair differs the interval is +- z^2 / (n + z^2).
    """
    z, d = float(norm.ppf((1 + level) / 2)), (won - lost) / n

    def score(delta: float) -> float:
        b, c = (2 * n - won + lost) * delta - won - lost, -lost * delta * (1 - delta)
        loss = (sqrt(max(b**2 - 8 * n * c, 0.0)) - b) / (4 * n)  # P(lost), likeliest where the difference is delta
        return (won - lost - n * delta) / sqrt(max(n * (2 * loss + delta * (1 - delta)), 1e-300))

    low = -1.0 if d == -1 else root_scalar(lambda delta: score(delta) - z, bracket=(-1 + 1e-12, d)).root
    high = 1.0 if d == 1 else root_scalar(lambda delta: score(delta) + z, bracket=(d, 1 - 1e-12)).root
    return float(low), float(high)
