"""Rows of a calibration: what they have in common."""

from __future__ import annotations

from typing import Any, cast

from mechreward.experiments.rows import Detail, Row, row_of
from mechreward.experiments.split import shared
from mechreward.stats import Interval

PROCESS = "planted-process"  # the model of rows that come from the Markov process alone


def calibration_row(
    model: str,
    arm: str,
    metric: str,
    value: Interval,
    detail: dict[str, Any],
    *,
    task: str = "planted",
    site: str = "",
    seed: int = 0,
) -> Row:
    """A row of experiment `calibrate`.

    Parameters
    ----------
    model : str
        Name of the plant (`planted-value`, ...), of a bundled model, or `PROCESS`.
    arm, metric : str
        What was calibrated, and the figure of it.
    value : Interval
        The figure; its `n` counts what `detail["n"]` names.
    detail : dict
    task : str, default "planted"
    site : str, default ""
        Empty where no activations are read.
    seed : int, default 0

    Returns
    -------
    Row
    """
    about = shared("calibrate", model, task, site, seed)
    return row_of(about, arm, metric, value, cast(Detail, detail))
