"""How tokens are drawn: the policy, a random generator for every row, and one draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int

from mechreward.base.errors import finite, of_kind, require, whole
from mechreward.tasks.base import Task


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
    top_k : int or None, default None
        How many of the likeliest tokens can be drawn, before `top_p`; None: all.
    stop : sequence of str, default ()
        Texts that end an answer, besides the end-of-sequence token; they stay in it. It is kept as
        a tuple.
    max_tokens : int or None, default None
        Limit of an answer, in tokens; None: the task's.

    Raises
    ------
    MechRewardError
        Something else.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    stop: Sequence[str] = ()
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p"):
            object.__setattr__(self, name, finite(name, getattr(self, name)))
        # Below, logits divided by it may leave the range of numbers (our choice).
        require(
            self.temperature == 0 or 1e-6 <= self.temperature < float("inf"),
            "temperature must be 0 (greedy) or a number from 0.000001 up; "
            f"{self.temperature} was given.",
        )
        require(0 < self.top_p <= 1, f"top_p must lie in (0, 1]; {self.top_p} was given.")
        if self.top_k is not None:
            whole("top_k", self.top_k, 1)
        if self.max_tokens is not None:
            whole("max_tokens", self.max_tokens, 1)
        of_kind("stop", self.stop, (tuple, list), "it holds texts, as in stop=('###',)")
        for text in self.stop:
            of_kind("a text of stop", text, str)
            require(text != "", "a text of stop must not be empty.")
        object.__setattr__(self, "stop", tuple(self.stop))

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {**asdict(self), "stop": list(self.stop)}

    def limit(self, task: Task) -> int:
        """How many tokens an answer to a problem of the task may have."""
        return self.max_tokens or task.max_tokens


def draw(
    logits: Float[torch.Tensor, "batch vocab"],
    policy: Policy,
    uniform: Float[torch.Tensor, " batch"],
) -> Int[torch.Tensor, " batch"]:
    """One token a row by inverse distribution function of `uniform` in [0, 1), in float64."""
    if policy.temperature == 0:
        return logits.argmax(-1)
    if policy.top_k is not None and policy.top_k < logits.shape[-1]:
        lowest = logits.topk(policy.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < lowest, -torch.inf)
    probs = (logits.double() / policy.temperature).softmax(-1)
    if policy.top_p < 1:
        ranked, order = probs.sort(descending=True, stable=True)
        ranked[ranked.cumsum(-1) - ranked >= policy.top_p] = 0
        probs = torch.zeros_like(probs).scatter(1, order, ranked)
    cdf = probs.cumsum(-1)
    level = uniform.to(cdf) * cdf[:, -1]
    chosen = torch.searchsorted(cdf, level[:, None], right=True)
    return chosen[:, 0].clamp(max=logits.shape[1] - 1)
