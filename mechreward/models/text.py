"""Between text and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int

from mechreward.base.errors import require


def encode(model: Any, text: str) -> Int[torch.Tensor, " pos"]:
    """Token ids of a prompt, with the special tokens the model's own tokenizer puts in front."""
    return torch.tensor(_tokenizer(model)(text).input_ids, dtype=torch.long)


def pieces(model: Any, tokens: Sequence[int] | Int[torch.Tensor, " pos"]) -> list[str]:
    """The text of every token by itself."""
    words = _tokenizer(model)
    return [words.decode([int(token)]) for token in tokens]


def decode(model: Any, tokens: Sequence[int] | Int[torch.Tensor, " pos"]) -> str:
    """Text of several tokens, as a verifier reads it: special tokens are shown, but for an
    end-of-sequence token at the end."""
    words = _tokenizer(model)
    ids = [int(token) for token in tokens]
    if ids and ids[-1] == words.eos_token_id:
        ids = ids[:-1]
    return words.decode(ids)


def eos_id(model: Any) -> int:
    """The token that ends a rollout."""
    token = _tokenizer(model).eos_token_id
    require(
        token is not None, "the tokenizer names no end-of-sequence token: set tokenizer.eos_token."
    )
    return int(token)


def _tokenizer(model: Any) -> Any:
    words = getattr(model, "tokenizer", None)
    require(
        words is not None,
        "the model has no tokenizer: set model.tokenizer, it is needed to read and verify text.",
    )
    return words
