"""The five claims about a set as rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mechreward.causal.certificate import DECIDES, Certificate
from mechreward.experiments.rows import Row, rows_from
from mechreward.stats import Interval


def claim_rows(certificate: Certificate, about: Mapping[str, Any]) -> list[Row]:
    """One row a claim: the interval that decides it, and in `detail` the verdict and its reason."""
    rows = []
    for claim in certificate.claims:
        key, size = DECIDES[claim.claim]
        middle, low, high = (
            float(claim.numbers.get(f"{key}{end}", math.nan)) for end in ("", "_low", "_high")
        )
        n = int(claim.numbers.get(size, certificate.sizes[size]))
        detail = {
            "verdict": claim.verdict,
            "reason": claim.reason,
            "number": key,
            "neurons": len(certificate.neurons),
        }
        rows += rows_from(
            dict(about), [("value", claim.claim, Interval(middle, low, high, n), detail)]
        )
    return rows
