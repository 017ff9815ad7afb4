"""Rows for pictures: `Results`, their frames, or rows, as one DataFrame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import pandas as pd

from mechreward.base.errors import MechRewardError, require, shown
from mechreward.experiments.rows import Results, Row
from mechreward.stats import Interval

NEEDED = ("experiment", "model", "task", "site", "arm", "metric", "estimate", "low", "high", "n")
DETAIL = ("draw", "ratio", "beyond", "tokens", "algorithm", "p_holm", "rank", "draws", "p_rank")


def frame_of(results: Any) -> pd.DataFrame:
    """The rows as `Results.frame()` has them.

    Raises
    ------
    MechRewardError
        Neither results, nor their frame, nor rows.
    """
    if isinstance(results, Results):
        frame = results.frame()
    elif isinstance(results, pd.DataFrame):
        frame = results
    elif isinstance(results, Sequence) and all(isinstance(row, Row) for row in results):
        frame = Results({}, tuple(results)).frame()
    else:
        raise MechRewardError(
            f"results: Results, their frame() or rows are needed; {shown(results)} was given."
        )
    require(len(frame) > 0, "the results have no row: there is nothing to draw.")
    lost = [name for name in NEEDED if name not in frame]
    require(not lost, f"the frame has no column {', '.join(lost)}: give Results.frame().")
    known = [f"detail.{name}" for name in DETAIL if f"detail.{name}" not in frame]
    return frame.assign(**dict.fromkeys(known, nan))


def some(frame: pd.DataFrame, experiment: str, *metrics: str) -> pd.DataFrame:
    """Rows of an experiment and of these metrics.

    Raises
    ------
    MechRewardError
        There is none.
    """
    rows = frame[(frame["experiment"] == experiment) & frame["metric"].isin(metrics)]
    there = ", ".join(sorted(map(str, frame["experiment"].unique())))
    require(
        len(rows) > 0,
        f"no row of {experiment} is {' or '.join(metrics)}: there is nothing to draw. "
        f"The experiments given: {there}.",
    )
    return rows


def interval_of(
    line: Mapping[Any, Any],
    name: str,
    n: int,
    times: float = 1.0,
    bounds: tuple[str, str] | None = None,
) -> Interval:
    """The interval of a table's line, whose bounds are called NAME_low and NAME_high.

    Parameters
    ----------
    line
        By column.
    name
        Column of the estimate.
    n
        What it is over.
    times
        What numbers are multiplied with, as 100 for points; 1 by default.
    bounds
        Other names of the bounds; None (the default) for those.
    """
    low, high = bounds or (f"{name}_low", f"{name}_high")
    numbers = [times * float(line[key]) for key in (name, low, high)]
    return Interval(*numbers, int(n))
