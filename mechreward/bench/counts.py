"""What is counted and compared in a contest: work, tokens, errors, shares of time."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float

from mechreward.bench.ground import Extras
from mechreward.models.engine import Continuation

# What a profile calls products with weights and products of attention.
PRODUCTS = {
    "weights": ("linear_pointwise>", "linear>"),
    "attention": ("bmm>", "scaled_dot_product_attention>"),
}


def worth(work: int, run: Callable[[], Any]) -> Callable[[], float]:
    """An arm: `run`, which does so much work each time."""

    def arm() -> float:
        run()
        return float(work)

    return arm


def count(answers: Sequence[Continuation]) -> float:
    """Tokens generated."""
    return float(sum(len(answer.tokens) for answer in answers))


def apart(a: Float[torch.Tensor, "*any"], b: Float[torch.Tensor, "*any"]) -> float:
    """Largest absolute difference."""
    return float((a.cpu() - b.cpu()).abs().max())


def same(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """Share of our tokens that the other side has in the same place; answers are continuations or
    bare tokens."""
    equal = 0
    every = 0
    for answer, other in zip(ours, theirs, strict=True):
        a = getattr(answer, "tokens", answer)
        b = getattr(other, "tokens", other)
        both = min(len(a), len(b))
        equal += int((a[:both] == b[:both]).sum())
        every += max(len(a), len(b))
    return equal / every


def shares(run: Callable[[], Any], device: str) -> Extras:
    """Shares of the time of our run on a CPU.

    Returns
    -------
    dict
        What goes into products with weights, into products of attention, and elsewhere; nothing on
        a GPU, where a call says only when its work was started.
    """
    if device != "cpu":
        return {}
    profile = cProfile.Profile()
    profile.runcall(run)
    spent = dict.fromkeys((*PRODUCTS, "elsewhere"), 0.0)
    calls = pstats.Stats(profile).stats  # pyright: ignore[reportAttributeAccessIssue]
    for (_, _, function), (_, _, inside, _, _) in calls.items():
        spent[_product(function)] += inside
    whole = sum(spent.values())
    return {("mechreward", f"share_{name}"): time / whole for name, time in spent.items()}


def _product(function: str) -> str:
    for name, endings in PRODUCTS.items():
        if any(ending in function for ending in endings):
            return name
    return "elsewhere"


@contextmanager
def prefill_tokens(model: Any) -> Iterator[list[int]]:
    """Count tokens, padding included, of all passes over more than one token a row."""
    counted: list[int] = []

    def look(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        tokens = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        if tokens.shape[1] > 1:
            counted.append(tokens.numel())

    plain = getattr(model, "original_model", model)
    handle = plain.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield counted
    finally:
        handle.remove()
