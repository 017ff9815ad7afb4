"""Where an intervention's values come from: rows of `Activations` for every absolute position."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float

from mechreward.base.errors import MechRewardError, of_kind, one_of, require, whole
from mechreward.probing.activations import Activations


def absolute(at: Sequence[int]) -> tuple[int, ...]:
    """Absolute positions, sorted and unique.

    Raises
    ------
    MechRewardError
        None, one below 0, or one that is no whole number.
    """
    of_kind("positions", at, Iterable, "write one position as [position]")
    positions = tuple(sorted({whole("a position", position) for position in at}))
    require(len(positions) > 0, "no position was given; leave out at= for every position.")
    first = positions[0]
    require(first >= 0, f"positions are absolute and count from 0; {first} was given.")
    return positions


def by_position(
    reference: Activations, by: str | None, ends: Sequence[int] | None
) -> dict[int, list[int]] | None:
    """Absolute position -> the rows of the reference that stand for it, sorted.

    None if all rows stand for any.

    Parameters
    ----------
    reference : Activations
        Activations with their labels.
    by : str or None
        None, "position" (rows recorded at that position), or "step" (rows of the step that the
        position lies in; as in `record`, the prompt is step 0).
    ends : sequence of int or None
        For by="step", where the steps of the trajectory end.

    Raises
    ------
    MechRewardError
        An unknown `by`, `ends` without by="step" or by="step" without `ends`, or no row for any
        step.
    """
    if by is not None:
        one_of("condition", by, ("position", "step"))
    require(
        by == "step" or ends is None, "ends= says where steps end and goes with by='step' alone."
    )
    if by is None:
        return None
    labels: dict[int, list[int]] = {}
    column = reference.position if by == "position" else reference.step
    for row, label in enumerate(column.tolist()):
        labels.setdefault(label, []).append(row)
    if by == "position":
        return dict(sorted(labels.items()))
    if ends is None:
        raise MechRewardError(
            "by='step' needs ends=: the step_ends of the trajectory that is changed."
        )
    last = absolute(ends)
    steps = np.searchsorted(last, np.arange(last[-1] + 1)).tolist()
    groups = {position: labels[step] for position, step in enumerate(steps) if step in labels}
    require(
        bool(groups),
        f"the reference has rows of steps {some(sorted(labels))} only; ends= shows none of them.",
    )
    return groups


def table(rows: Mapping[int, Float[torch.Tensor, " k"]]) -> Float[torch.Tensor, "pos k"]:
    """Rows by absolute position.

    Positions without one hold 0 (an intervention's `known` leaves them out).
    """
    width = len(next(iter(rows.values())))
    values = torch.zeros(max(rows) + 1, width)
    values[list(rows)] = torch.stack(list(rows.values()))
    return values


def some(numbers: Sequence[int]) -> str:
    """The first few, for a message."""
    return ", ".join(map(str, numbers[:6])) + (", ..." if len(numbers) > 6 else "")
