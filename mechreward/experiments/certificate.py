"""The claims about a set as rows."""

from __future__ import annotations

import math

from mechreward.causal.certificate import DECIDES, Certificate
from mechreward.experiments.rows import Detail, Row, Setting, row_of
from mechreward.stats import Interval


def claim_rows(certificate: Certificate, setting: Setting) -> list[Row]:
    """One row a claim: the interval that decides it, and in `detail` the verdict and its reason."""
    rows = []
    for claim in certificate.claims:
        number, size = DECIDES[claim.claim]
        interval = Interval(
            float(claim.numbers.get(number, math.nan)),
            float(claim.numbers.get(f"{number}_low", math.nan)),
            float(claim.numbers.get(f"{number}_high", math.nan)),
            int(claim.numbers.get(size, certificate.sizes[size])),
        )
        detail = Detail(
            verdict=claim.verdict,
            reason=claim.reason,
            number=number,
            neurons=len(certificate.neurons),
        )
        rows.append(row_of(setting, "value", claim.claim, interval, detail))
    return rows
