"""Rollouts of planted models with their values, which every calibration on models begins with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mechreward.base import streams
from mechreward.probing.activations import record
from mechreward.probing.targets import Examples, states, steps
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import Values, estimate
from mechreward.testbed.planted import PlantedModel

RESID = "1.resid_post"  # the first site that holds V and delta whatever carries them
TOP = 0.01  # the share of neurons that `select` takes by default


@dataclass(frozen=True)
class Data:
    """Rollouts of a planted model and their values.

    Attributes
    ----------
    plant : PlantedModel
    runs : Rollouts
    values : Values
        V-hat of every state of `runs`.
    """

    plant: PlantedModel
    runs: Rollouts
    values: Values

    def states(self, site: str) -> Examples:
        """Activations [row width] of a site at every state that goes on, with V-hat."""
        activations = record(self.plant.model, self.runs, site, progress=False)[site]
        return states(activations, self.values)

    def steps(self, site: str) -> Examples:
        """Activations [row width] of a site over every step, with its TD error."""
        activations = record(self.plant.model, self.runs, site, rows="steps", progress=False)[site]
        return steps(activations, self.values)


def gather(
    plant: PlantedModel,
    split: str,
    n: int,
    k: int,
    seed: int,
    exact: bool = False,
) -> Data:
    """Sample answers of a planted model and estimate the values of their states.

    Parameters
    ----------
    plant : PlantedModel
    split : {"train", "validation", "test"}
    n : int
        Problems, one answer each.
    k : int
        Continuations of every state.
    seed : int
    exact : bool, default False
        Draw V-hat from its exact law (`drawn`) instead of from the model's continuations: the same
        distribution, hundreds of times faster.

    Returns
    -------
    Data
    """
    problems = plant.task.problems(split, n, seed)
    runs = sample(plant.model, problems, seed=seed, progress=False)
    if exact:
        v, _ = plant.truth.values(runs)
        values = drawn(runs, v, k, seed)
    else:
        values = estimate(plant.model, runs, k=k, seed=seed, progress=False)
    return Data(plant, runs, values)


def drawn(
    runs: Rollouts,
    v: Float[np.ndarray, " row"],
    k: int,
    seed: int,
) -> Values:
    """Values whose V-hat has its exact law: successes of either half are binomial with the true V.

    Parameters
    ----------
    runs : Rollouts
    v : array [row]
        True V of every state of `runs`, in the rows of `estimate`.
    k : int
        Continuations of every state.
    seed : int

    Returns
    -------
    Values
        In the rows of `estimate`. Nothing is drawn at the end of an answer.
    """
    state_counts = [len(run.step_ends) for run in runs]
    trajectory = np.repeat(np.arange(len(runs)), state_counts)
    step = np.concatenate([np.arange(n) for n in state_counts])
    goes_on = np.append(trajectory[1:] == trajectory[:-1], False)
    chance = np.clip(v, 0, 1)
    rng = streams.rng("exact law of V-hat", seed)
    first = np.where(goes_on, rng.binomial(k - k // 2, chance), 0)
    second = np.where(goes_on, rng.binomial(k // 2, chance), 0)
    reward = np.array(runs.rewards)[trajectory]
    group = np.array(runs.groups)[trajectory]
    drawn_each = np.where(goes_on, k, 0)
    return Values(trajectory, step, first, second, reward, group, drawn_each, seed)
