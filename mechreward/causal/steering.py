"""Directions to steer along: a set's own way up, and its controls' at the same displacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import comb

import numpy as np
import torch
from jaxtyping import Float

from mechreward.base.errors import require
from mechreward.causal.controls import matched, random, sinks
from mechreward.causal.intervene import Intervention, steer
from mechreward.probing.activations import Activations
from mechreward.probing.neurons import NeuronSet, ranking


@dataclass(frozen=True, eq=False)
class Push:
    """A set with the direction of one unit of steering.

    Attributes
    ----------
    arm : str
        Kind of set.
    draw : int
        Number of the draw.
    neurons : NeuronSet
        The set.
    direction : tensor [k]
        One unit.
    error : float
        Rms match error of the neurons (`causal.controls.Control`); NaN for sets drawn without a
        match.
    norm : float
        Displacement of one unit, in the unit of the activations.
    """

    arm: str
    draw: int
    neurons: NeuronSet
    direction: Float[torch.Tensor, " k"] = field(repr=False)
    error: float = float("nan")

    @property
    def norm(self) -> float:
        """Displacement of one unit, in the unit of the activations."""
        return float(self.direction.norm())

    def by(self, strength: int | float) -> Intervention:
        """Steering by so many units."""
        return steer(self.neurons, self.direction, strength)


def by_arm(pushes: Sequence[Push]) -> dict[str, list[Push]]:
    """Draws by arm, both in the order given."""
    arms: dict[str, list[Push]] = {}
    for push in pushes:
        arms.setdefault(push.arm, []).append(push)
    return arms


def own_push(
    neurons: NeuronSet, acts: Activations, toward: Float[np.ndarray, " row"], arm: str = "value"
) -> Push:
    """A set's own way up.

    One unit is one standard deviation of each neuron over `acts`, in the sense of its correlation
    with `toward`.

    Raises
    ------
    MechRewardError
        A set that is constant over these rows: no direction leads anywhere.
    """
    push = Push(arm, 0, neurons, steer(neurons, acts, toward=toward).reference)
    require(
        push.norm > 0,
        f"every neuron of {neurons} is constant over the {len(acts.x)} rows: "
        "nothing to steer along.",
    )
    return push


def like(
    push: Push, neurons: NeuronSet, acts: Activations, toward: np.ndarray, arm: str, draw: int = 0
) -> Push:
    """Another set's own way up (as `own_push`), with the displacement of `push`.

    The norm is the same, exactly. Neurons that are constant over `acts` do not move; where all are,
    each moves alike.
    """
    way = steer(neurons, acts, toward=toward).reference
    if not way.norm() > 0:
        way = torch.ones(len(neurons))
    return Push(arm, draw, neurons, way * (push.norm / way.norm()))


def matched_pushes(
    push: Push,
    tokens: Activations,
    acts: Activations,
    toward: np.ndarray,
    draws: int,
    seed: int = 0,
) -> list[Push]:
    """Sets nearest to the set's neurons in rms, at the displacement of `push`.

    As many of `draws` as the site has: few or none come back where it has no more, and a rank among
    them cannot be small then. The match on displacement is exact by construction; that on rms is as
    close as the site allows, and `error` says how close. A neighbourhood is as small as `draws`
    different sets allow.

    Parameters
    ----------
    push : Push
        What to match.
    tokens : Activations
        Activations of rows="tokens", for rms and sinks.
    acts : Activations
        Activations of the states.
    toward : array
        [row] what a positive strength is to raise.
    draws : int
        How many at most.
    seed : int, default 0
        Seed of the draws.

    Returns
    -------
    list of Push
        With their errors.
    """
    k = len(push.neurons)
    free = tokens.width - len({*push.neurons.indices, *sinks(tokens)})
    draws = min(draws, comb(free, k) if k > 1 else free - 1)
    most = free - k
    if min(draws, most) < 1:
        return []
    reach = next((r for r in range(4, most) if comb(r + k - 1, k) >= 2 * draws), most)
    pushes = []
    for control in matched(push.neurons, tokens, draws, seed, reach=reach):
        other = like(push, control.neurons, acts, toward, "matched", control.draw)
        pushes.append(replace(other, error=control.error))
    return pushes


def random_pushes(
    push: Push,
    tokens: Activations,
    acts: Activations,
    toward: np.ndarray,
    draws: int,
    seed: int = 0,
) -> list[Push]:
    """Uniformly random sets of the same size and displacement, sinks left out."""
    return [
        like(push, control.neurons, acts, toward, "random", control.draw)
        for control in random(push.neurons, tokens, draws, seed, sink_free=True)
    ]


def rival(
    push: Push, acts: Activations, toward: np.ndarray, scores: Float[np.ndarray, " width"], arm: str
) -> Push | None:
    """The best-scored neurons of another ranking, as many and at the same displacement.

    The set's own are left out (a set is no rival of itself; our choice). None where the site has
    not so many others.
    """
    k = len(push.neurons)
    others = [int(i) for i in ranking(scores) if int(i) not in push.neurons.indices][:k]
    if len(others) < k:
        return None
    return like(push, NeuronSet.of(acts, others, arm), acts, toward, arm)


def overlap_with(push: Push, scores: Sequence[float] | np.ndarray) -> int:
    """How many of the set's neurons a ranking has among its best, as many."""
    top = set(ranking(np.asarray(scores))[: len(push.neurons)].tolist())
    return len(top & set(push.neurons.indices))
