"""Checks of numeric columns, for the statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

from mechreward.base.errors import require

Column = (
    Shaped[np.ndarray, "..."] | Sequence
)  # the shape is checked in `columns`, whose message says more


def columns(**named: Column) -> list[np.ndarray]:
    """The named columns as floats, checked: one-dimensional, numeric, finite, not empty, one
    length."""
    columns = {name: np.asarray(value) for name, value in named.items()}
    for name, column in columns.items():
        real = column.ndim == 1 and column.dtype.kind in "biuf"
        require(
            real,
            f"{name} must be one column of numbers; got {column.dtype} of shape {column.shape}",
        )
        require(len(column) > 0, f"{name} is empty; need at least one value")
        bad = len(column) - int(np.isfinite(column).sum())
        require(
            bad == 0,
            f"{name} has {bad} of {len(column)} values nan or infinite; drop those rows first",
        )
    lengths = {name: len(column) for name, column in columns.items()}
    require(len(set(lengths.values())) == 1, f"columns must have one length; got {lengths}")
    return [column.astype(float) for column in columns.values()]


def grouped(group: Column, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group number of each row, then each group's first row (once rows are sorted by group) and
    size."""
    group = np.asarray(group)
    require(
        group.shape == (n,) and n > 0,
        f"need one label for each of {n} >= 1 rows; got shape {group.shape}",
    )
    require(
        bool((group == group).all()), "cluster or group labels hold nan; give every row a label"
    )
    _, member, sizes = np.unique(group, return_inverse=True, return_counts=True)
    return member, sizes.cumsum() - sizes, sizes


def binary(**named: np.ndarray) -> None:
    for name, column in named.items():
        if not (
            (column == 0) | (column == 1)
        ).all():  # or the message would cost more than the check
            require(False, f"{name} must hold only 0 and 1; got {np.unique(column)[:5]}")


def unit(**named: np.ndarray) -> None:
    for name, column in named.items():
        low, high = float(column.min()), float(column.max())
        require(low >= 0 and high <= 1, f"{name} must lie in [0, 1]; got {low:.3g} to {high:.3g}")


def fraction(**named: float) -> None:
    for name, value in named.items():
        require(0 < value < 1, f"{name} must lie strictly between 0 and 1; got {value}")
