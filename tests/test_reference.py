"""Which rows of a reference stand for which position, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import rows as made
import torch

from mechreward.base.errors import MechRewardError
from mechreward.causal.reference import absolute, by_position, some, table

ROWS = made.activations(
    np.arange(10.0).reshape(5, 2), position=[3, 0, 3, 7, 4], step=[1, 0, 1, 2, 1]
)


def test_without_a_condition_all_rows_stand_for_any_position():
    assert by_position(ROWS, None, None) is None


def test_by_position():
    assert by_position(ROWS, "position", None) == {0: [1], 3: [0, 2], 4: [4], 7: [3]}


def test_by_step_a_position_belongs_to_the_step_that_ends_at_it_or_next_after_it():
    groups = by_position(ROWS, "step", (1, 2, 5))
    assert groups == {0: [1], 1: [1], 2: [0, 2, 4], 3: [3], 4: [3], 5: [3]}
    assert by_position(ROWS, "step", (0, 1, 2, 3)) == {0: [1], 1: [0, 2, 4], 2: [3]}, (
        "no row of step 3"
    )


def test_a_table_has_a_row_for_every_position_up_to_the_last():
    found = table({3: torch.tensor([1.0, 2.0]), 1: torch.tensor([5.0, 6.0])})
    assert found.tolist() == [[0, 0], [5, 6], [0, 0], [1, 2]]


def test_positions_are_sorted_unique_and_not_negative():
    assert absolute([5, 2, 5]) == (2, 5) and absolute(range(3)) == (0, 1, 2)
    for wrong, told in [([], "no position was given"), ([3, -1], "count from 0; -1 was given")]:
        with pytest.raises(MechRewardError, match=told):
            absolute(wrong)


def test_long_lists_are_cut():
    assert some(range(3)) == "0, 1, 2" and some(range(9)) == "0, 1, 2, 3, 4, 5, ..."
