"""Cells of Markdown tables from rows of results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mechreward.experiments.rows import Results, Row
from mechreward.report.select import RANKED
from mechreward.stats import Interval

NONE = "–"
ARMS = {
    "baseline": "nothing",
    "value": "value",
    "value_apart": "value without dopamine coordinates",
}


def table(title: str, header: str, lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a titled table, `header` being cells with bars between them; none without
    `lines`."""
    if not lines:
        return []
    rule = "|" + " --- |" * len(lines[0])
    return [
        f"**{title}**",
        "",
        f"| {header} |",
        rule,
        *(f"| {' | '.join(line)} |" for line in lines),
        "",
    ]


def cell(row: Row | None, n: int) -> str:
    """An estimate with its bounds, and its own n where that is not `n`; a dash for no row and for
    NaN."""
    if row is None or np.isnan(row.estimate):
        return NONE
    bounds = (
        ""
        if np.isnan(row.low) or np.isnan(row.high)
        else f" [{number(row.low)}, {number(row.high)}]"
    )
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


def short(interval: Interval) -> str:
    """An interval in a cell of a table, to two digits."""
    if np.isnan(interval.estimate):
        return "none"
    missing = np.isnan(interval.low) or np.isnan(interval.high)
    return f"{interval.estimate:.2f} " + (
        "no interval" if missing else f"[{interval.low:.2f}, {interval.high:.2f}]"
    )


def _title(share: float) -> str:
    return "all neurons" if share == 1 else f"the top {share:.0%}"


NAMES = {"resid_post": "residual-stream coordinates", "mlp": "MLP units"}


WORDS = {
    "nothing": "not shown to be there",
    "sparse": "sparse",
    "redundant": "redundant (any neurons will do)",
    "distributed": "distributed (few coordinates of neither this basis nor random ones hold it)",
    "unclear": "neither clearly sparse nor clearly not",
}


def cite(results: Results, experiment: str, kind: str) -> str:
    """An experiment's name; that of R13 too, where it is the same rows of MLP units."""
    rows = results.where(experiment="R13") if kind == "mlp" else []
    return (
        f"{experiment}, R13"
        if any(row.detail.get("as") == experiment for row in rows)
        else experiment
    )


def bounds(row: Row) -> str:
    """An interval as a sentence has it among others: two digits, the sign, no n."""
    missing = np.isnan(row.low) or np.isnan(row.high)
    said = [
        f"{round(number, 2) + 0.0:+.2f}" for number in (row.estimate, row.low, row.high)
    ]  # no -0.00
    return said[0] + ("" if missing else f" [{said[1]}, {said[2]}]")


def few(draws: int) -> str:
    """What is said of controls that are too few to rank a set among."""
    return (
        ""
        if draws >= RANKED
        else f"; {draws or 'no'} matched sets cannot rank it ({RANKED} are needed)"
    )


def among(other: Row | None) -> str:
    """What is said of the matched sets beside a contrast."""
    if other is None:
        return ""
    rank = f" (rank p={other.detail['p_rank']:.2g})" if "p_rank" in other.detail else ""
    return f"; {other.detail['sets']} matched sets at the same displacement by {other.low:.2f} to {other.high:.2f}{rank}"


def span(row: Row) -> str:
    """From the lowest to the highest draw."""
    return f"{row.low:.2f} to {row.high:.2f}"
