"""What is infinite or no number: where a forward pass first gives it, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int

from mechreward.base.errors import MechRewardError
from mechreward.models.load import forward_step
from mechreward.models.site import BLOCK_ORDER, Site


def row_name(number: int, problem: str = "") -> str:
    """What errors call a row, of jobs or of rollouts."""
    return f"problem {problem!r} (row {number})" if problem else f"row {number}"


def not_finite(row: str, site: str, position: int) -> MechRewardError:
    """The error for what has become infinite or no number."""
    return MechRewardError(
        f"{row}: {site} is not finite at position {position}: look for broken weights, an "
        "intervention that is too strong, or a dtype that is too narrow."
    )


def check_logits(logits: Float[torch.Tensor, "pos vocab"], row: str, first: int = 0) -> None:
    """Raise MechRewardError where logits of positions from `first` on are infinite or no number.

    Minus infinity is no error: some models rule out tokens by it.
    """
    wrong = (logits.isnan() | logits.isposinf()).any(-1)
    if wrong.any():
        raise not_finite(row, "logits", first + int(wrong.int().argmax()))


def where_not_finite(model: Any, tokens: Int[torch.Tensor, " pos"]) -> tuple[str, int]:
    """The first site, in the order of computing, and the position; "logits" if it is no site.

    Hooks that are on the model stay on.
    """
    found: list[tuple[str, int]] = []

    def look(site: str) -> Callable[..., None]:
        def hook(tensor: torch.Tensor, hook: Any) -> None:
            wrong = ~tensor[0].isfinite().all(-1)
            if not found and wrong.any():
                found.append((site, int(wrong.int().argmax())))

        return hook

    text = tokens[None]
    everywhere = torch.ones_like(text)
    if hasattr(model, "hook_dict"):
        hooks = []
        for layer in range(model.cfg.n_layers):
            for site in (Site(layer, kind) for kind in BLOCK_ORDER):
                if site.hook in model.hook_dict:
                    hooks.append((site.hook, look(str(site))))
        with model.hooks(fwd_hooks=hooks):
            forward_step(model, text, everywhere, None)
    return found[0] if found else ("logits", len(tokens) - 1)
