"""Which absolute positions a forward pass holds, whether it is whole or behind a KV cache."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Int

from mechreward.base.errors import MechRewardError, require
from mechreward.models.hooked import is_hooked


class Clock:
    """Watches the passes of a model and knows the position of every column of the present one.

    A hook on a hook point meets `[batch pos width]` and cannot know what stands before it. What can
    is the call: its 2D attention mask, which covers cached and new columns, or else the length of
    the cache. So the clock reads the arguments of the HuggingFace model in a bridge, or of the
    blocks of a HookedTransformer, whose `generate` calls nothing above them. Use it as a context
    manager; no hook of its own is left afterwards.

    Raises
    ------
    MechRewardError
        The model is neither of the two.
    """

    def __init__(self, model: Any, layers: Iterable[int]) -> None:
        inner = getattr(model, "original_model", None)
        if isinstance(inner, torch.nn.Module):
            self.watched = dict.fromkeys(layers, inner)
        else:
            require(
                is_hooked(model),
                f"{type(model).__name__} is no TransformerBridge and no HookedTransformer: "
                "the positions of its passes are not known.",
            )
            self.watched = {layer: model.blocks[layer] for layer in layers}
        self.calls: dict[int, tuple[torch.Tensor | None, int]] = {}
        self.handles: list[Any] = []

    def __enter__(self) -> Clock:
        modules = {id(module): module for module in self.watched.values()}
        for module in modules.values():
            self.handles.append(module.register_forward_pre_hook(self._read, with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _read(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if args:
            names = inspect.signature(module.forward).parameters
            kwargs = dict(zip(names, args, strict=False)) | kwargs
        cache = kwargs.get("past_key_values", kwargs.get("past_kv_cache_entry"))
        if cache is None:
            before = 0
        elif hasattr(cache, "past_keys"):
            before = cache.past_keys.shape[1]
        else:
            require(
                hasattr(cache, "get_seq_length"),
                f"a {type(cache).__name__} does not tell its length.",
            )
            before = cache.get_seq_length()
        self.calls[id(module)] = kwargs.get("attention_mask"), int(before)

    def positions(
        self, layer: int, batch: int, columns: int, device: torch.device
    ) -> Int[torch.Tensor, "batch pos"]:
        """Absolute position of every token that the present pass holds at a layer; -1 for padding.

        With a 2D attention mask position 0 is a row's first unmasked token, so left-padded rows
        keep their own count; without a mask the model itself takes padding for tokens, and so does
        this.

        Raises
        ------
        MechRewardError
            A mask of another shape, such as 4D, or one of the new tokens alone.
        """
        if id(self.watched[layer]) not in self.calls:
            raise MechRewardError(
                f"layer {layer} was run in a way that does not tell its positions."
            )
        mask, before = self.calls[id(self.watched[layer])]
        if mask is None:
            return torch.arange(before, before + columns, device=device).expand(batch, -1)
        shape = tuple(mask.shape)
        require(
            len(shape) == 2 and shape[0] in (1, batch) and shape[1] == before + columns,
            "positions are read off an attention mask [batch pos] of cached and new tokens; "
            f"this pass of {batch} rows, {before} cached and {columns} new columns "
            f"has one of shape {list(shape)}.",
        )
        token = mask.to(device).long()
        positions = torch.where(token > 0, token.cumsum(-1) - 1, -1)
        return positions[:, -columns:].expand(batch, -1)
