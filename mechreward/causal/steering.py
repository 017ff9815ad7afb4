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
    """A set with the direction [k] of one unit of steering. `arm` and `draw` name it; `error` is
    the rms match error of the neurons (`causal.controls.Control`; NaN for sets drawn without a
    match)."""

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
    found: dict[str, list[Push]] = {}
    for push in pushes:
        found.setdefault(push.arm, []).append(push)
    return found


def own_push(
    neurons: NeuronSet, acts: Activations, toward: Float[np.ndarray, " row"], arm: str = "value"
) -> Push:
    """One unit is one standard deviation of each neuron over `acts`, in the sense of its
    correlation with `toward`.

    Raises MechRewardError for a set that is constant over these rows: no direction leads anywhere.
    """
    push = Push(arm, 0, neurons, steer(neurons, acts, toward=toward).reference)
    require(
        push.norm > 0,
        f"every neuron of {neurons} is constant over the {len(acts.x)} rows: nothing to steer along.",
    )
    return push


def like(
    push: Push, neurons: NeuronSet, acts: Activations, toward: np.ndarray, arm: str, draw: int = 0
) -> Push:
    """Another set's own way up (as `own_push`), with the displacement of `push`: the same norm,
    exactly.

    Neurons that are constant over `acts` do not move; where all are, each moves alike.
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
    """As many of `draws` sets as the site has, nearest to the set's neurons in rms, at the
    displacement of `push`.

    The match on displacement is exact by construction; that on rms is as close as the site allows,
    and `error` says how close. A neighbourhood is as small as `draws` different sets allow. Few or
    no sets come back where the site has no more: a rank among them cannot be small then.

    Args:
        tokens: activations of rows="tokens", for rms and sinks.
    """
    k = len(push.neurons)
    free = tokens.width - len({*push.neurons.indices, *sinks(tokens)})
    draws, most = min(draws, comb(free, k) if k > 1 else free - 1), free - k
    if min(draws, most) < 1:
        return []
    reach = next((r for r in range(4, most) if comb(r + k - 1, k) >= 2 * draws), most)
    found = matched(push.neurons, tokens, draws, seed, reach=reach)
    made = [like(push, one.neurons, acts, toward, "matched", one.draw) for one in found]
    return [replace(one, error=control.error) for one, control in zip(made, found, strict=True)]


def random_pushes(
    push: Push,
    tokens: Activations,
    acts: Activations,
    toward: np.ndarray,
    draws: int,
    seed: int = 0,
) -> list[Push]:
    """Uniformly random sets of the same size and displacement, sinks left out."""
    found = random(push.neurons, tokens, draws, seed, sink_free=True)
    return [like(push, one.neurons, acts, toward, "random", one.draw) for one in found]


def rival(
    push: Push, acts: Activations, toward: np.ndarray, scores: Float[np.ndarray, " width"], arm: str
) -> Push | None:
    """The best-scored neurons of another ranking, without the set's own (a set is no rival of
    itself; our choice), as many and at the same displacement. None where the site has not so many
    others."""
    others = [int(i) for i in ranking(scores) if int(i) not in push.neurons.indices][
        : len(push.neurons)
    ]
    if len(others) < len(push.neurons):
        return None
    return like(push, NeuronSet.of(acts, others, arm), acts, toward, arm)


def overlap_with(push: Push, scores: Sequence[float] | np.ndarray) -> int:
    """How many of the set's neurons a ranking has among its best, as many."""
    top = set(ranking(np.asarray(scores))[: len(push.neurons)].tolist())
    return len(top & set(push.neurons.indices))
