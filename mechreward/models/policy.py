"""How tokens are drawn: the policy, a random generator for every row, and one draw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int

from mechreward.base.errors import of_kind, require


@dataclass(frozen=True)
class Policy:
    """How tokens are drawn; part of what V means.

    The paper samples at temperature 1, top-p 0.95; the default here is the model's own distribution
    (top-p 1), the one its RL training used.

    Attributes
    ----------
    temperature : float, default 1.0
        0 is greedy.
    top_p : float, default 1.0
        In (0, 1]; 1 leaves the distribution as it is.
    """

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        of_kind("temperature", self.temperature, (int, float))
        of_kind("top_p", self.top_p, (int, float))
        # Below, logits divided by it may leave the range of numbers (our choice).
        require(
            self.temperature == 0 or 1e-6 <= self.temperature < float("inf"),
            "temperature must be 0 (greedy) or a number from 0.000001 up; "
            f"{self.temperature} was given.",
        )
        require(0 < self.top_p <= 1, f"top_p must lie in (0, 1]; {self.top_p} was given.")


def draw(
    logits: Float[torch.Tensor, "batch vocab"],
    policy: Policy,
    uniform: Float[torch.Tensor, " batch"],
) -> Int[torch.Tensor, " batch"]:
    """One token a row by inverse distribution function of `uniform` in [0, 1), in float64."""
    if policy.temperature == 0:
        return logits.argmax(-1)
    probs = (logits.double() / policy.temperature).softmax(-1)
    if policy.top_p < 1:
        ranked, order = probs.sort(descending=True, stable=True)
        ranked[ranked.cumsum(-1) - ranked >= policy.top_p] = 0
        probs = torch.zeros_like(probs).scatter(1, order, ranked)
    cdf = probs.cumsum(-1)
    level = uniform.to(cdf) * cdf[:, -1]
    chosen = torch.searchsorted(cdf, level[:, None], right=True)
    return chosen[:, 0].clamp(max=logits.shape[1] - 1)
