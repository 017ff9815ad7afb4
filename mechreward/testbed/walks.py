"""Answers of the Markov process of `process.py` without a model.

Thousands in a second, with their exact values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mechreward.testbed import process

K = 16  # continuations a state, as in the main job


@dataclass(frozen=True)
class Walks:
    """Answers of the process, one row a state that goes on.

    Attributes
    ----------
    v : array [row]
        Exact V.
    walk : array [row]
        The answer.
    group : array [row]
        The problem.
    step : array [row]
        Number of the state.
    last : array [row]
        Whether it is the answer's last.
    reward : array [row]
        Of the answer.
    """

    v: Float[np.ndarray, " row"]
    walk: Int[np.ndarray, " row"]
    group: Int[np.ndarray, " row"]
    step: Int[np.ndarray, " row"]
    last: np.ndarray
    reward: Int[np.ndarray, " row"]

    def halves(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """V-hat [row] from either half of `K` continuations.

        Continuations of a Markov process are independent.
        """
        half = K // 2
        first = rng.binomial(half, self.v) / half
        second = rng.binomial(half, self.v) / half
        return first, second

    def estimate(self, rng: np.random.Generator) -> np.ndarray:
        """V-hat [row] from all `K` continuations."""
        return np.mean(self.halves(rng), axis=0)

    def delta(self, v: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
        """TD error of the step that follows each row."""
        ahead = np.append(v[1:], 0)
        return np.where(self.last, self.reward, ahead) - v

    def deltas(self, rng: np.random.Generator) -> list[np.ndarray]:
        """TD errors [row] from either half of the continuations."""
        return [self.delta(half) for half in self.halves(rng)]

    def read(self, y: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
        """`y` as a probe may read it.

        With noise of every state, and half as much that a problem's states share.
        """
        by_problem = rng.normal(0, noise / 2, self.group.max() + 1)
        by_state = rng.normal(0, noise, len(y))
        return y + by_state + by_problem[self.group]


def walks(problems: int, rng: np.random.Generator, per: int = 1) -> Walks:
    """`per` answers to each of `problems`, all of one problem from the same state."""
    moves = process.walk().rows(process.LEVELS).cumsum(1)
    at = np.repeat(rng.integers(2, 7, size=problems), per)  # the states 3 to 7
    alive = np.ones(len(at), bool)
    won = np.zeros(len(at), bool)
    visited, going = [], []
    for _ in range(process.Planted.max_tokens):
        visited.append(at.astype(np.int8))  # hundreds of thousands of answers are simulated at once
        going.append(alive)
        uniform = rng.random(len(at))
        outcome = (uniform[:, None] > moves[at]).sum(1).clip(0, 12)
        won = won | (alive & (outcome == 12))
        alive = alive & (outcome > 0) & (outcome < 12)
        # `back` and `slip` are worth what the fifth level is.
        at = np.where(outcome > 9, 4, (outcome - 1).clip(0, 8))
        if not alive.any():
            break
    walk, step = np.nonzero(np.stack(going, 1))
    last = np.append(walk[1:] != walk[:-1], True)
    level = np.stack(visited, 1)[walk, step]
    reward = won[walk].astype(int)
    return Walks(process.LEVELS[level], walk, walk // per, step, last, reward)
