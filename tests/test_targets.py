"""What probes are fitted to, by hand for two trajectories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rows as made
import torch

from mechreward.base.errors import MechRewardError
from mechreward.probing.probe import ValueProbe
from mechreward.probing.targets import (
    Examples,
    check_learnable,
    lambda_returns,
    states,
    steps,
    tokens,
)
from mechreward.rollouts.value import GAMMA, Values

X_STATES = torch.arange(10.0).reshape(5, 2)
X_STEPS = torch.arange(6.0).reshape(3, 2) + 100


def state_rows():
    return made.activations(X_STATES, trajectory=[0, 0, 0, 1, 1], step=[0, 1, 2, 0, 1])


def step_rows():
    return made.activations(X_STEPS, "steps", trajectory=[0, 0, 1], step=[1, 2, 1])


def test_states_that_go_on_with_their_value():
    rows = states(state_rows(), made.two())
    assert rows.x.tolist() == X_STATES[[0, 1, 3]].tolist()
    assert rows.y.tolist() == [0.5, 0.75, 0.25]
    assert rows.reward.tolist() == [1, 1, 0]
    assert rows.group.tolist() == [0, 0, 7]
    assert rows.trajectory.tolist() == [0, 0, 1]
    assert rows.step.tolist() == [0, 1, 0]
    assert rows.last.tolist() == [False, True, True]
    assert len(rows) == 3


def test_steps_with_their_td_error():
    rows = steps(step_rows(), made.two())
    assert rows.x.tolist() == X_STEPS.tolist()
    assert rows.y.tolist() == pytest.approx([GAMMA * 0.75 - 0.5, 1 - 0.75, 0 - 0.25], abs=1e-12)
    assert rows.reward.tolist() == [1, 1, 0]
    assert rows.step.tolist() == [1, 2, 1]
    assert rows.trajectory.tolist() == [0, 0, 1]
    assert rows.group.tolist() == [0, 0, 7]
    assert rows.last.tolist() == [False, True, True]


def token_rows(**more):
    """Two tokens of the prompt and two steps of two and one; a prompt of two and one step of
    three."""
    labels = {
        "trajectory": [0] * 5 + [1] * 5,
        "step": [0, 0, 1, 1, 2, 0, 0, 1, 1, 1],
        "position": [*range(5)] * 2,
    }
    return made.activations(torch.arange(20.0).reshape(10, 2), "tokens", **(labels | more))


def test_tokens_at_which_the_answer_goes_on():
    rows = tokens(token_rows(), made.two())
    assert rows.x[:, 0].tolist() == [2, 4, 6, 12, 14, 16]
    assert rows.step.tolist() == [0, 1, 1, 0, 1, 1] and rows.trajectory.tolist() == [
        0,
        0,
        0,
        1,
        1,
        1,
    ]
    assert rows.reward.tolist() == rows.y.tolist() == [
        1,
        1,
        1,
        0,
        0,
        0,
    ] and rows.group.tolist() == [0, 0, 0, 7, 7, 7]
    assert rows.last.tolist() == [False, False, True] * 2


def test_an_end_token_behind_the_last_step_is_where_the_reward_comes():
    rows = tokens(token_rows(step=[0, 0, 1, 2, 3, 0, 0, 1, 1, 2]), made.two())
    assert (
        rows.x[:, 0].tolist() == [2, 4, 6, 12, 14, 16]
        and rows.last.tolist() == [False, False, True] * 2
    )


def test_tokens_of_other_trajectories_or_rows_are_refused():
    with pytest.raises(MechRewardError, match="different trajectories"):
        tokens(token_rows(step=[0, 0, 1, 1, 1, 0, 0, 1, 1, 1]), made.two())
    with pytest.raises(MechRewardError, match="rows='tokens' are needed; these have 'states'"):
        tokens(state_rows(), made.two())
    with pytest.raises(MechRewardError, match="V-hat exists at states only"):
        ValueProbe("mc").fit(token_rows(), made.two())


def test_td_over_tokens_with_gamma_near_1_is_the_mean_reward_of_what_looks_alike():
    """One input, 1 in right answers and 0 in wrong ones: by hand, V is gamma^(tokens to come) and
    0."""
    length, rng = 4, np.random.default_rng(0)
    right = rng.random(40) < 0.5
    x = np.repeat(right, length).astype(float)[:, None]
    step = np.tile([0, 1, 1, 1], 40)
    acts = made.activations(x, "tokens", trajectory=np.repeat(range(40), length), step=step)
    two = np.repeat(right.astype(int), 2)
    trajectory = np.repeat(range(40), 2)
    values = Values(trajectory, np.tile([0, 1], 40), two, two, two, trajectory, np.full(80, 2))
    probe = ValueProbe("td", "linear", ridge=1e-6).fit(acts, values)
    assert probe.predict(np.array([[0.0], [1.0]])) == pytest.approx([0, 1], abs=1e-2)


def test_td_errors_telescope_to_the_reward():
    rows, start = steps(step_rows(), made.two()), {0: 0.5, 1: 0.25}
    for number, value in start.items():
        inside = rows.trajectory == number
        assert rows.y[inside].sum() + value == pytest.approx(rows.reward[inside][0], abs=1e-4)


def test_a_row_selection_keeps_every_column_in_line():
    rows = states(state_rows(), made.two())
    kept = rows.only(np.array([False, True, True]))
    assert kept.x.tolist() == X_STATES[[1, 3]].tolist()
    assert kept.y.tolist() == [0.75, 0.25]
    columns = ("reward", "group", "trajectory", "step", "last")
    assert [getattr(kept, name).tolist() for name in columns] == [
        [1, 0],
        [0, 7],
        [0, 1],
        [1, 0],
        [True, True],
    ]
    assert len(rows.only(np.zeros(3, bool))) == 0


def test_rows_of_another_kind_are_refused():
    with pytest.raises(
        MechRewardError, match="rows='states' are needed; these were recorded with 'steps'"
    ):
        states(step_rows(), made.two())
    with pytest.raises(
        MechRewardError, match="rows='steps' are needed; these were recorded with 'states'"
    ):
        steps(state_rows(), made.two())


@pytest.mark.parametrize(
    "labels",
    [
        {"trajectory": [0, 0, 1, 1, 1], "step": [0, 1, 0, 1, 2]},
        {"trajectory": [0, 0, 0, 1, 1], "step": [0, 1, 2, 1, 2]},
        {"trajectory": [0, 0, 0, 2, 2], "step": [0, 1, 2, 0, 1]},
    ],
)
def test_rows_of_other_trajectories_are_refused(labels):
    with pytest.raises(MechRewardError, match="belong to different trajectories"):
        states(made.activations(X_STATES, **labels), made.two())
    with pytest.raises(MechRewardError, match="belong to different trajectories"):
        states(
            made.activations(X_STATES[:4], trajectory=[0, 0, 0, 1], step=[0, 1, 2, 0]), made.two()
        )
    with pytest.raises(MechRewardError, match="belong to different trajectories"):
        steps(made.activations(X_STEPS, "steps", trajectory=[0, 1, 1], step=[1, 1, 2]), made.two())


@pytest.mark.parametrize(("reward", "word"), [(1, "right"), (0, "wrong")])
def test_nothing_to_learn_when_all_are_alike(reward, word):
    values = replace(made.two(), reward=np.full(5, reward))
    rows: Examples = states(state_rows(), values)
    with pytest.raises(MechRewardError, match=f"all 3 states belong to {word} answers"):
        check_learnable(rows.y, rows.reward)


def test_nothing_to_learn_when_the_target_is_constant():
    with pytest.raises(MechRewardError, match=r"the target is 0\.250 in all 2 rows"):
        check_learnable(np.array([0.25, 0.25]), np.array([0, 1]))
    check_learnable(np.array([0.25, 0.5]), np.array([0, 1]))


def test_lambda_returns_by_hand():
    """Two trajectories of three and one states, V of the next state .5 and .8 in the first."""
    ahead, reward = np.array([0.5, 0.8, 9.0, 9.0]), np.array([1.0, 1.0, 1.0, 0.0])
    last = np.array([False, False, True, True])
    g = GAMMA
    second = g * (0.3 * 0.8 + 0.7 * 1)
    expected = [g * (0.3 * 0.5 + 0.7 * second), second, 1, 0]
    np.testing.assert_allclose(lambda_returns(ahead, reward, last, 0.7), expected)
    np.testing.assert_allclose(lambda_returns(ahead, reward, last, 0.0), [g * 0.5, g * 0.8, 1, 0])
    np.testing.assert_allclose(lambda_returns(ahead, reward, last, 1.0), [g * g, g, 1, 0])
