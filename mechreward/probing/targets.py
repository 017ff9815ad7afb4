"""What a probe is fitted to: value targets and the TD error, in the rows of activations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from mechreward.base.errors import require
from mechreward.probing.activations import Activations
from mechreward.rollouts.value import GAMMA, Values

TARGETS = ("mc", "td", "td-lambda", "terminal")
FACTS = ("step", "position", "prompt length")  # known at a state, whatever the model knows


@dataclass(frozen=True)
class Examples:
    """Rows a probe sees.

    Attributes
    ----------
    x : tensor [row width]
        Activations.
    y : array [row]
        V-hat or delta.
    reward : array [row]
        The trajectory's terminal reward.
    group : array [row]
        The problem.
    trajectory : array [row]
        The trajectory.
    step : array [row]
        Number of the step.
    last : array [row]
        True at the last state before the end.
    facts : array [row fact] or None, default None
        What is known at the state anyway, `FACTS`; None for the number of the step alone.
    """

    x: Float[torch.Tensor, "row width"]
    y: Float[np.ndarray, " row"]
    reward: Int[np.ndarray, " row"]
    group: Int[np.ndarray, " row"]
    trajectory: Int[np.ndarray, " row"]
    step: Int[np.ndarray, " row"]
    last: np.ndarray
    facts: Float[np.ndarray, "row fact"] | None = None

    def __len__(self) -> int:
        return len(self.y)

    def only(self, keep: np.ndarray) -> Examples:
        """The rows where `keep` [row] is True."""
        return Examples(
            x=self.x[torch.from_numpy(keep)],
            y=self.y[keep],
            reward=self.reward[keep],
            group=self.group[keep],
            trajectory=self.trajectory[keep],
            step=self.step[keep],
            last=self.last[keep],
            facts=None if self.facts is None else self.facts[keep],
        )

    @property
    def known(self) -> Float[np.ndarray, "row fact"]:
        """What is known at the state anyway, one column a fact."""
        return self.step[:, None].astype(float) if self.facts is None else self.facts


def states(acts: Activations, values: Values) -> Examples:
    """Every state that goes on, with its V-hat.

    Parameters
    ----------
    acts : Activations
        Recorded with rows="states".
    values : Values
        Of the same runs.

    Returns
    -------
    Examples
        `y` is V-hat.

    Raises
    ------
    MechRewardError
        Rows of another kind, or of other trajectories.
    """
    _same(acts, values, "states", np.ones(len(values.step), bool))
    last = np.append(~values.live[1:], False)
    return _rows(acts.x, values.mean, values, last, values.live, _facts(acts))


def steps(acts: Activations, values: Values) -> Examples:
    """Every step with its TD error delta.

    Parameters
    ----------
    acts : Activations
        Recorded with rows="steps" (means over a step's tokens).
    values : Values
        Of the same runs.

    Returns
    -------
    Examples
        `y` is delta.

    Raises
    ------
    MechRewardError
        Rows of another kind, or of other trajectories.
    """
    _same(acts, values, "steps", values.is_step)
    x = torch.zeros(len(values.step), acts.width)
    x[torch.from_numpy(values.is_step)] = acts.x
    return _rows(x, values.delta, values, ~values.live, values.is_step)


def tokens(acts: Activations, values: Values) -> Examples:
    """Every token at which the answer goes on, from the last of the prompt.

    That is what the paper's TD runs over.

    Parameters
    ----------
    acts : Activations
        Recorded with rows="tokens".
    values : Values
        Of the same runs.

    Returns
    -------
    Examples
        `y` is the reward, since inside a step there is no V-hat.

    Raises
    ------
    MechRewardError
        Rows of another kind, or of other trajectories.
    """
    require(
        acts.rows == "tokens",
        f"activations with rows='tokens' are needed; these have {acts.rows!r}.",
    )
    known, first, states_of = np.unique(values.trajectory, return_index=True, return_counts=True)
    at = np.searchsorted(known, acts.trajectory).clip(max=len(known) - 1)
    within = acts.step < states_of[at]  # an end token may follow the last step
    there = np.unique(np.stack([acts.trajectory, acts.step], 1)[within], axis=0)
    match = np.array_equal(there, np.stack([values.trajectory, values.step], 1))
    require(
        match,
        "activations and values belong to different trajectories: "
        "make both from the same rollouts.",
    )
    end = np.append(acts.trajectory[1:] != acts.trajectory[:-1], True)  # nothing follows
    begun = np.append(acts.step[1:] > 0, True) | (acts.step > 0)
    reward = values.reward[first[at]]
    every = Examples(
        x=acts.x,
        y=reward.astype(float),
        reward=reward,
        group=values.group[first[at]],
        trajectory=acts.trajectory,
        step=acts.step,
        last=np.append(end[1:], False),
    )
    return every.only(begun & ~end)


def first_answers(data: Examples) -> np.ndarray:
    """[row] True for the first answer to every problem.

    Answers of several lengths cannot move to other problems whole; the first can.
    """
    _, first = np.unique(data.group, return_index=True)
    return np.isin(data.trajectory, data.trajectory[first])


def lambda_returns(
    ahead: Float[np.ndarray, " row"],
    reward: Float[np.ndarray, " row"],
    last: np.ndarray,
    lam: float,
) -> Float[np.ndarray, " row"]:
    """TD(lambda) returns: gamma ((1 - lam) V(next state) + lam G(next state)).

    At the last state it is the reward. `lam` 0 is one-step TD, 1 the discounted reward. `ahead` is
    V of the next state, unread where `last`.
    """
    returns = np.where(last, reward, GAMMA * (1 - lam) * ahead)
    if lam:
        for row in np.flatnonzero(~last)[::-1]:
            returns[row] += GAMMA * lam * returns[row + 1]
    return returns


def check_learnable(y: np.ndarray, reward: np.ndarray) -> None:
    """Raise MechRewardError when there is nothing to fit.

    All answers are right or all are wrong, or the target is constant.
    """
    mean = float(np.mean(reward))
    outcome = "right" if mean else "wrong"
    require(
        0 < mean < 1,
        f"no probe can be fitted: all {len(reward)} states belong to {outcome} answers. "
        "Take harder or easier problems, or sample more of them.",
    )
    check_varied(y)


def check_varied(y: np.ndarray) -> None:
    """Raise MechRewardError for a target that is one number in all rows."""
    require(
        float(np.std(y)) > 0,
        f"no probe can be fitted: the target is {float(y[0]):.3f} in all {len(y)} rows.",
    )


def _same(acts: Activations, values: Values, rows: str, keep: np.ndarray) -> None:
    require(
        acts.rows == rows,
        f"activations with rows={rows!r} are needed; these were recorded with {acts.rows!r}.",
    )
    same_trajectories = np.array_equal(acts.trajectory, values.trajectory[keep])
    require(
        same_trajectories and np.array_equal(acts.step, values.step[keep]),
        "activations and values belong to different trajectories: "
        "make both from the same rollouts.",
    )


def _facts(acts: Activations) -> Float[np.ndarray, "row fact"]:
    """`FACTS` of activations of states, whose first of each trajectory ends the prompt."""
    first = acts.step == 0
    place = np.searchsorted(acts.trajectory[first], acts.trajectory)
    prompt = acts.position[first][place] + 1
    return np.stack([acts.step, acts.position, prompt], 1).astype(float)


def _rows(
    x: torch.Tensor,
    y: np.ndarray,
    v: Values,
    last: np.ndarray,
    keep: np.ndarray,
    facts: np.ndarray | None = None,
) -> Examples:
    return Examples(x, y, v.reward, v.group, v.trajectory, v.step, last, facts).only(keep)
