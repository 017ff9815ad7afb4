"""Many numbers of one subject among the same numbers of controls: p corrected over all of them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mechreward.base.errors import require

SAME = 1e-9  # deviations that differ by no more, relatively, are one number
NOISE = 1e-6  # of the largest number of all: a cell that varies by no more is rounding


def max_statistic(
    observed: Float[np.ndarray, " cell"], draws: Float[np.ndarray, "draw cell"]
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """Two-sided randomisation p of every cell, each alone and corrected over all cells.

    A cell deviates by its distance from the mean of all, subject and draws together, over their
    standard deviation. Corrected, its p counts the draws whose largest deviation over cells is as
    large: the family-wise error is held under any dependence of the cells (Westfall and Young
    1993).

    Parameters
    ----------
    observed
        A number for each cell, `[cell]`.
    draws
        The same of each control, `[draw cell]`.

    Returns
    -------
    alone, corrected
        p `[cell]`, at least 1 / (1 + draws): 19 reach .05 and 99 reach .01.

    Raises
    ------
    MechRewardError
        No draw, no cell, other cells for the draws, or a number that is not finite.
    """
    table = np.vstack([observed, draws])
    require(
        len(draws) > 0 and table.shape[1] > 0,
        f"need a draw and a cell or more; got {len(draws)} draws of {table.shape[1]} cells.",
    )
    require(bool(np.isfinite(table).all()), "cells hold NaN or infinity: leave such cells out.")
    distance = np.abs(table - table.mean(0))
    spread = table.std(0)
    level = spread <= NOISE * np.abs(table).max()
    deviation = np.where(level, 0.0, distance / np.where(level, 1.0, spread))
    bar = deviation[0] * (1 - SAME)
    alone = (deviation >= bar).mean(0)
    largest = deviation.max(1)
    corrected = (largest[:, None] >= bar).mean(0)
    return alone, corrected
