"""Interventions on a neuron set as frozen callables, and as plain TransformerLens hooks for anyone's experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float

from mechreward._check import one_of, require
from mechreward.models.adapter import model_id
from mechreward.models.edits import Edit
from mechreward.probing.activations import Activations
from mechreward.probing.neurons import NeuronSet

OPS = ("zero", "mean")


@dataclass(frozen=True)
class Intervention:
    """x[..., set] <- x[..., set] + strength (reference - x[..., set]), at every position.

    `reference` [k] is 0 for `zero` and the mean activation for `mean`. Strength 1 replaces, 0 leaves everything as it
    was. The input is never edited in place; arithmetic is in float32 and the result has the input's dtype.

    What it does not show: an effect of removing neurons says that something needs them, not what they carry; only
    matched controls make it specific (`causal.effect.ablate`).
    """

    neurons: NeuronSet
    op: str
    reference: Float[torch.Tensor, " k"] = field(repr=False)
    strength: float = 1.0

    def __post_init__(self) -> None:
        one_of("operation", self.op, OPS)
        k = len(self.neurons)
        require(k > 0, "an intervention needs at least one neuron; this set is empty.")
        require(len(self.reference) == k, f"the reference has {len(self.reference)} values for {k} neurons.")

    def __call__(self, x: Float[torch.Tensor, "*batch width"]) -> Float[torch.Tensor, "*batch width"]:
        """The changed copy of activations at the set's site."""
        width = self.neurons.width
        require(x.shape[-1] == width, f"{self.neurons.site} has {width} neurons; the tensor has {x.shape[-1]}.")
        index = list(self.neurons.indices)
        old = x[..., index].float()
        new = (1 - self.strength) * old + self.strength * self.reference.to(old.device)  # exact at strength 0 and 1
        out = x.clone()
        out[..., index] = new.to(x.dtype)
        return out

    def fwd_hooks(self) -> list[tuple[str, Any]]:
        """`[(name, fn)]` for `run_with_hooks`, `hooks()` and `generate` of any TransformerLens model."""

        def hook(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
            return self(tensor)

        return [(self.neurons.site.hook, hook)]

    def edit(self, at: tuple[int, ...] | None = None) -> Edit:
        """The same change for single rows of a batch (`rollouts.sample.sample_arms`)."""
        index = list(self.neurons.indices)
        keep, add = torch.ones(self.neurons.width), torch.zeros(self.neurons.width)
        keep[index] = 1 - self.strength
        add[index] = self.strength * self.reference
        return Edit(self.neurons.site, keep, add, at)

    def check(self, model: Any) -> Intervention:
        """Itself, if the set belongs to `model`.

        Raises:
            MechRewardError: another model or processing state, or a site the model lacks.
        """
        self.neurons.site.check(model)
        self.neurons.model_id.check(model_id(model), "neuron set")
        return self


def zero(neurons: NeuronSet, strength: float = 1.0) -> Intervention:
    """Zero ablation (paper section 2)."""
    return Intervention(neurons, "zero", torch.zeros(len(neurons)), strength)


def mean(neurons: NeuronSet, reference: Activations, strength: float = 1.0) -> Intervention:
    """Mean ablation: each neuron is set to its mean over the rows of `reference` (recorded at the same site)."""
    neurons.model_id.check(reference.model_id, "neuron set")
    return Intervention(neurons, "mean", neurons.read(reference).double().mean(0).float(), strength)
