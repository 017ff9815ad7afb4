"""Checks of numeric columns, for the statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from mechreward.base.errors import require

# The shape is checked in `columns`, whose message says more.
Column = Shaped[np.ndarray, "..."] | Sequence

# Checked columns.
Rows = Float[np.ndarray, " row"]
Members = Int[np.ndarray, " row"]
Sizes = Int[np.ndarray, " group"]
Side = Bool[np.ndarray, " row"]


class Groups(NamedTuple):
    """Which rows belong together.

    Attributes
    ----------
    member
        Number of the group of each row, `[row]`: 0, 1, ... in the labels' order.
    starts
        Each group's first row once rows are sorted by group, `[group]`.
    sizes
        How many rows each group has, `[group]`.
    """

    member: Members
    starts: Sizes
    sizes: Sizes


def columns(**named: Column) -> list[np.ndarray]:
    """The named columns as floats, checked.

    Parameters
    ----------
    **named
        Columns `[n]` by the name that an error message gives them.

    Returns
    -------
    list of ndarray
        The columns `[n]` in the order given.

    Raises
    ------
    MechRewardError
        A column that is not one-dimensional, numeric, finite and not empty, or different lengths.
    """
    lengths = {}
    checked = []
    for name, values in named.items():
        column = np.asarray(values)
        require(
            column.ndim == 1 and column.dtype.kind in "biuf",
            f"{name} must be one column of numbers; got {column.dtype} of shape {column.shape}",
        )
        require(len(column) > 0, f"{name} is empty; need at least one value")
        finite = int(np.isfinite(column).sum())
        bad = len(column) - finite
        require(
            bad == 0,
            f"{name} has {bad} of {len(column)} values nan or infinite; drop those rows first",
        )
        lengths[name] = len(column)
        checked.append(column.astype(float))
    different = set(lengths.values())
    require(len(different) == 1, f"columns must have one length; got {lengths}")
    return checked


def grouped(group: Column, n: int) -> Groups:
    """Rows of one label together.

    Parameters
    ----------
    group
        A label of each row, `[n]`, of any sortable kind.
    n
        How many rows there are.

    Returns
    -------
    Groups

    Raises
    ------
    MechRewardError
        Not one label a row, no row, or nan among the labels.
    """
    group = np.asarray(group)
    require(
        group.shape == (n,) and n > 0,
        f"need one label for each of {n} >= 1 rows; got shape {group.shape}",
    )
    labelled = bool((group == group).all())
    require(labelled, "cluster or group labels hold nan; give every row a label")
    _, member, sizes = np.unique(group, return_inverse=True, return_counts=True)
    starts = sizes.cumsum() - sizes
    return Groups(member, starts, sizes)


def binary(**named: np.ndarray) -> None:
    """Raise MechRewardError unless the named columns hold only 0 and 1."""
    for name, column in named.items():
        is_binary = (column == 0) | (column == 1)
        # The distinct values cost more than the check: they are looked for in an error alone.
        if not is_binary.all():
            require(False, f"{name} must hold only 0 and 1; got {np.unique(column)[:5]}")


def unit(**named: np.ndarray) -> None:
    """Raise MechRewardError unless the named columns lie in [0, 1]."""
    for name, column in named.items():
        low = float(column.min())
        high = float(column.max())
        require(low >= 0 and high <= 1, f"{name} must lie in [0, 1]; got {low:.3g} to {high:.3g}")


def fraction(**named: float) -> None:
    """Raise MechRewardError unless the named numbers lie between 0 and 1, ends left out."""
    for name, value in named.items():
        require(0 < value < 1, f"{name} must lie strictly between 0 and 1; got {value}")
