"""Rows for pictures: `Results`, their frames, or rows, as one DataFrame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import pandas as pd

from mechreward.base.errors import MechRewardError, one_of, require, shown
from mechreward.experiments.rows import Results, Row
from mechreward.stats import Interval

# A DataFrame. To pandas' own types every selection of rows may be a single column.
Frame = Any

NEEDED = ("experiment", "model", "task", "site", "arm", "metric", "estimate", "low", "high", "n")
DETAIL = (
    "algorithm", "at", "beyond", "draw", "draws", "expected", "fit", "from_model", "from_task",
    "layers", "neurons", "on", "op", "p", "p_holm", "p_rank", "place", "rank", "ratio", "sets",
    "shape", "share", "split", "strength", "tokens",
)  # fmt: skip


def frame_of(results: Any) -> Frame:
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


def some(frame: Frame, experiment: str, *metrics: str) -> Frame:
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


def at_one(rows: Frame, site: str | None = None) -> Frame:
    """Rows of one model and task, and of one site.

    Raises
    ------
    MechRewardError
        Several, with their names.
    """
    for column in ("model", "task"):
        check_one(rows, column, "select rows of one, as in frame[frame.task == ...]")
    if site is not None:
        one_of("site", site, list(rows["site"].unique()))
        rows = rows[rows["site"] == site]
    check_one(rows, "site", "name one with site=")
    return rows


def check_one(rows: Frame, column: str, fix: str) -> None:
    """Raise MechRewardError where a column holds several names."""
    names = [str(name) for name in rows[column].unique()]
    require(
        len(names) == 1,
        f"one picture shows one {column}; {', '.join(names)} were given: {fix}.",
    )


def where(rows: Frame) -> str:
    """Model and task of the rows, for a title."""
    return f"{rows['model'].iloc[0]} on {rows['task'].iloc[0]}"


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
    estimate, low, high = (times * float(line[key]) for key in (name, low, high))
    return Interval(estimate, low, high, int(n))
