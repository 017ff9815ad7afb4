"""How a number is written: the one place for all pages."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from mechreward.experiments.rows import Row
from mechreward.report.select import shared_n
from mechreward.stats import Interval

NONE = "–"  # a number that does not exist
LONGEST = 12  # entries of a list that are shown


def number(value: float, digits: int = 3) -> str:
    """A fixed number of decimals, never -0; a dash for NaN."""
    if math.isnan(value):
        return NONE
    return f"{round(value, digits) + 0.0:.{digits}f}"


def two(value: float) -> str:
    """Two decimals."""
    return number(value, 2)


def signed(value: float) -> str:
    """Two decimals with their sign, as a difference is written."""
    if math.isnan(value):
        return NONE
    return f"{round(value, 2) + 0.0:+.2f}"


def small(value: float) -> str:
    """Two significant digits, for what three decimals may leave nothing of (a KL)."""
    return NONE if math.isnan(value) else f"{value:.2g}"


def share(value: float) -> str:
    """A share as a whole percentage."""
    return f"{value:.0%}"


def p_value(p: float | None) -> str:
    """Two significant digits, which say nothing more below 1e-9; a dash for none."""
    if p is None or math.isnan(p):
        return NONE
    return "<1e-9" if p < 1e-9 else f"{p:.2g}"


def interval(row: Row | Interval, write: Callable[[float], str] = number) -> str:
    """`estimate [low, high]`, every number by `write`; the estimate alone where it has no bounds,
    and a dash where it does not exist."""
    if math.isnan(row.estimate):
        return NONE
    if math.isnan(row.low) or math.isnan(row.high):
        return write(row.estimate)
    return f"{write(row.estimate)} [{write(row.low)}, {write(row.high)}]"


def cell(row: Row | None, n: int) -> str:
    """An interval, and its own n where that is not the `n` of the line; a dash for no row."""
    if row is None or math.isnan(row.estimate):
        return NONE
    return interval(row) + ("" if row.n == n else f" n={row.n}")


def measured(rows: Sequence[Row | None]) -> list[str]:
    """Cells of these rows, and last the n of the first that exists."""
    n = shared_n(rows)
    return [*(cell(row, n) for row in rows), str(n)]


def p_of(row: Row | None, key: str) -> str:
    """The p-value `detail[key]` of a row; a dash where it has none."""
    return NONE if row is None else p_value(row.detail.get(key))


def scaled(value: float | int | None) -> str:
    """A number of any size: three decimals, none from a thousand on, powers where three decimals
    would read 0; a dash for what does not exist."""
    if value is None or not math.isfinite(value):
        return NONE
    size = abs(value)
    if size >= 1000:
        text = f"{value:,.0f}"
    elif 0 < size < 0.001:
        text = f"{value:.1e}"
    else:
        text = f"{value:.3f}"
    return _minus(text)


def readable(value: Any) -> str:
    """A detail as a person reads it: `ratio 0.9, neurons 51`; long lists are cut and say so."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {readable(inner)}" for key, inner in value.items()) or NONE
    if isinstance(value, list | tuple):
        shown = ", ".join(map(readable, value[:LONGEST]))
        more = f", ... ({len(value)} in all)" if len(value) > LONGEST else ""
        return f"[{shown}{more}]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return NONE
    if isinstance(value, float):
        return _minus(f"{value:.4g}") if math.isfinite(value) else NONE
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _minus(text: str) -> str:
    """The sign as a minus, not a hyphen; an exponent keeps its own."""
    return "−" + text[1:] if text.startswith("-") else text
