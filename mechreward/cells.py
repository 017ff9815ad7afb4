"""Cells of Markdown tables from rows of results."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from mechreward.results import Row

NONE = "–"
ARMS = {"baseline": "nothing", "value": "value", "value_apart": "value without dopamine coordinates"}


def table(title: str, header: str, lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a titled table, `header` being cells with bars between them; none without `lines`."""
    if not lines:
        return []
    rule = "|" + " --- |" * len(lines[0])
    return [f"**{title}**", "", f"| {header} |", rule, *(f"| {' | '.join(line)} |" for line in lines), ""]


def index(rows: Iterable[Row], key: Callable[[Row], Hashable]) -> dict[Hashable, Row]:
    """Rows by `key`; of equal ones the last."""
    return {key(row): row for row in rows}


def sites(rows: Iterable[Row]) -> list[str]:
    """Sites of the rows, each once, in their order."""
    return list(dict.fromkeys(row.site for row in rows))


def shared_n(rows: Iterable[Row | None]) -> int:
    """`n` of the first row that exists: what a line of cells says once."""
    return next((row.n for row in rows if row is not None), 0)


def cell(row: Row | None, n: int) -> str:
    """An estimate with its bounds, and its own n where that is not `n`; a dash for no row and for NaN."""
    if row is None or np.isnan(row.estimate):
        return NONE
    bounds = "" if np.isnan(row.low) or np.isnan(row.high) else f" [{number(row.low)}, {number(row.high)}]"
    return f"{number(row.estimate)}{bounds}" + ("" if row.n == n else f" n={row.n}")


def number(value: float) -> str:
    """Three decimals; a dash for NaN."""
    return NONE if np.isnan(value) else f"{round(value, 3) + 0.0:.3f}"  # no -0.000


def p_value(row: Row | None, key: str) -> str:
    """`detail[key]` of a row with two digits; a dash where it has none."""
    return NONE if row is None or key not in row.detail else f"{row.detail[key]:.2g}"


def words(name: str) -> str:
    """A name as words."""
    return name.replace("_", " ")
