"""Where a forward pass first gives what is no finite number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int

from mechreward.models.load import forward_step
from mechreward.models.site import BLOCK_ORDER, all_sites


def where_not_finite(model: Any, tokens: Int[torch.Tensor, " pos"]) -> tuple[str, int]:
    """The first site, in the order of computing, and the position; "the logits" if no site is.

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
        sites = [site for site in all_sites(model, BLOCK_ORDER) if site.hook in model.hook_dict]
        hooks = [(site.hook, look(str(site))) for site in sites]
        with model.hooks(fwd_hooks=hooks):
            forward_step(model, text, everywhere, None)
    return found[0] if found else ("the logits", len(tokens) - 1)
