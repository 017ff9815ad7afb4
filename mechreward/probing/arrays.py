"""Plain arrays where a probe takes activations and values: what scikit-learn's tools hand over."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_consistent_length, column_or_1d, validate_data

from mechreward.base.errors import MechRewardError
from mechreward.probing.targets import Examples


class NotFitted(MechRewardError, NotFittedError):
    """A probe asked to read before it was fitted."""


def examples(probe: BaseEstimator, x: Any, y: Any, groups: Any) -> Examples:
    """Rows of inputs and targets, each a trajectory of its own.

    Parameters
    ----------
    probe : estimator
        Remembers the number and the names of the inputs.
    x : array-like [row width]
        Inputs.
    y : array-like [row]
        Target.
    groups : array-like [row] or None
        Problem of each row; None makes each row one.

    Returns
    -------
    Examples
        `reward` is 0: arrays do not say it.

    Raises
    ------
    MechRewardError
        In scikit-learn's words, what it does not take: another shape, text, NaN, fewer than two
        rows.
    TypeError
        Likewise, what is no array of numbers at all: sparse matrices, objects.
    """
    try:
        x, y = validate_data(
            probe,
            _plain(x),
            _plain(y),
            dtype=[np.float32, np.float64],
            y_numeric=True,
            ensure_min_samples=2,
        )
        group = np.arange(len(y))
        if groups is not None:
            groups = column_or_1d(_plain(groups))
            check_consistent_length(y, groups)
            _, group = np.unique(groups, return_inverse=True)
    except ValueError as error:
        raise MechRewardError(str(error)) from error
    row = np.arange(len(y))
    return Examples(
        x=torch.tensor(x, dtype=torch.float32),
        y=np.asarray(y, dtype=np.float64),
        reward=np.zeros(len(y), int),
        group=group,
        trajectory=row,
        step=np.zeros(len(y), int),
        last=row >= 0,
    )


def inputs(probe: BaseEstimator, x: Any) -> torch.Tensor:
    """Inputs of a fitted probe, [row width].

    Raises
    ------
    MechRewardError
        In scikit-learn's words, another number or other names of inputs, or as `examples`.
    TypeError
        As `examples`.
    """
    try:
        checked = validate_data(probe, x, reset=False, dtype=[np.float32, np.float64])
    except ValueError as error:
        raise MechRewardError(str(error)) from error
    return torch.tensor(checked, dtype=torch.float32)


def _plain(x: Any) -> Any:
    """A tensor as an array."""
    return x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x
