"""Made-up rows: activations, values and examples with a known answer, without any model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mechreward.models.identity import ModelId
from mechreward.models.site import Site
from mechreward.probing.activations import Activations
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.targets import Examples
from mechreward.rollouts.value import Values

MODEL = ModelId("made-up", "0123456789abcdef", "float32", "raw")
OTHER = ModelId("another", "fedcba9876543210", "float32", "raw")
COOKED = ModelId("made-up", "0123456789abcdef", "float32", "compatibility mode")
SITE = Site(3, "resid_post")


def activations(x: Any, rows: str = "states", site: Site = SITE, **labels: Any) -> Activations:
    """Activations `x` [row width]; every row is a trajectory of its own unless `labels` say
    more."""
    x = torch.as_tensor(x, dtype=torch.float32)
    known = {
        "trajectory": np.arange(len(x)),
        "position": np.zeros(len(x), int),
        "step": np.zeros(len(x), int),
    }
    return Activations(
        x, site, rows, **(known | {k: np.asarray(v) for k, v in labels.items()}), model_id=MODEL
    )


def tokens(x: Any, length: int, site: Site = SITE) -> Activations:
    """Rows of kind `tokens`: trajectories of `length` positions each."""
    count = len(x)
    return activations(
        x, "tokens", site, trajectory=np.arange(count) // length, position=np.arange(count) % length
    )


def neurons(
    *indices: int, width: int = 16, site: Site = SITE, model: ModelId = MODEL, how: str = "by hand"
) -> NeuronSet:
    return NeuronSet(site, tuple(indices), width, model, (), how)


def two() -> Values:
    """Two trajectories of two and one steps; V-hat of the states is .5 .75 (end) and .25 (end)."""
    return Values(
        trajectory=np.array([0, 0, 0, 1, 1]),
        step=np.array([0, 1, 2, 0, 1]),
        first=np.array([1, 2, 0, 0, 0]),
        second=np.array([1, 1, 0, 1, 0]),
        reward=np.array([1, 1, 1, 0, 0]),
        group=np.array([0, 0, 0, 7, 7]),
        k=np.array([4, 4, 0, 4, 0]),
    )


def planted(
    trajectories: int,
    states: int = 1,
    width: int = 32,
    carriers: tuple[int, ...] = (5, 17),
    seed: int = 0,
    per: int = 1,
) -> Examples:
    """Random x in which only the `carriers` (which do not change within a trajectory) say anything
    about the reward.

    V = sigmoid(3 sum of the carriers with alternating signs); `per` trajectories share a problem.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(trajectories * states, width))
    fixed = rng.normal(size=(trajectories, len(carriers)))
    x[:, list(carriers)] = np.repeat(fixed, states, 0)
    value = 1 / (1 + np.exp(-3 * fixed @ np.resize([1.0, -1.0], len(carriers))))
    reward = (rng.random(trajectories) < value).astype(int)
    trajectory, step = np.divmod(np.arange(trajectories * states), states)
    return Examples(
        torch.tensor(x, dtype=torch.float32),
        value[trajectory],
        reward[trajectory],
        trajectory // per,
        trajectory,
        step,
        step == states - 1,
    )
