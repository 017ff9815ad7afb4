"""Errors of a linear fit at rows whose whole group is left out of it, without fitting again."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped


def left_out(
    errors: Float[np.ndarray, "row ..."],
    left: Float[np.ndarray, "row axis"],
    right: Float[np.ndarray, "row axis"],
    group: Shaped[np.ndarray, " row"],
) -> Float[np.ndarray, "row ..."]:
    """Errors at every row, had the fit been made without the rows of its group.

    With H the matrix that takes targets to read-outs, the errors of the rows of a group are
    (I - H)^-1 times those of the fit to all rows, on the block of the group (as for single rows in
    Allen's PRESS; exact for least squares with or without a quadratic penalty).

    Parameters
    ----------
    errors
        Of the fit to all rows, `[row]` or `[row target]`.
    left, right
        `[row axis]`: H is `left @ right.T`.
    group
        Which rows are left out together, `[row]`.

    Returns
    -------
    ndarray
        As `errors`.
    """
    columns = errors.reshape(len(errors), -1)
    out = np.empty_like(columns)
    for rows in by_size(group):
        hat = left[rows] @ right[rows].swapaxes(-1, -2)
        out[rows] = np.linalg.solve(np.eye(rows.shape[1]) - hat, columns[rows])
    return out.reshape(errors.shape)


def by_size(group: Shaped[np.ndarray, " row"]) -> list[np.ndarray]:
    """Rows of every group, groups of one size side by side: arrays [group row]."""
    _, member, count = np.unique(group, return_inverse=True, return_counts=True)
    size = count[member]
    order = np.lexsort((member, size))
    blocks = []
    for rows in np.unique(count):
        blocks.append(order[size[order] == rows].reshape(-1, rows))
    return blocks
