"""Between text and tokens."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Int
from jinja2 import TemplateError

from mechreward.base.errors import MechRewardError, require
from mechreward.tasks.base import Prompt

BROKEN = "\ufffd"  # what a part of a character decodes to


class UnknownWordWarning(UserWarning):
    """The model reads something else than is written."""


def encode(model: Any, prompt: Prompt | Int[torch.Tensor, " pos"]) -> Int[torch.Tensor, " pos"]:
    """Token ids of a prompt.

    A text gets the special tokens that the model's own tokenizer puts in front, unless it begins
    with them. Chat messages are written by the tokenizer's chat template, up to where the model
    answers; it goes on with the last message if that is the assistant's. Token ids stay.

    Raises
    ------
    MechRewardError
        None of the three, no tokenizer, or messages that the template does not take.

    Warns
    -----
    UnknownWordWarning
        A word that the tokenizer does not know.
    """
    if isinstance(prompt, str):
        ids = _of_text(_tokenizer(model), prompt)
        _warn_of_unknown(_tokenizer(model), prompt, ids)
    elif _are_messages(prompt):
        ids = _of_messages(_tokenizer(model), prompt)
        _warn_of_unknown(_tokenizer(model), "\n".join(_contents(prompt)), ids)
    else:
        ids = _whole(prompt)
    return torch.tensor(ids, dtype=torch.long)


def encode_behind(model: Any, text: str) -> Int[torch.Tensor, " pos"]:
    """Token ids of a text that follows other tokens: no special ones are put in front."""
    ids = _tokenizer(model)(text, add_special_tokens=False).input_ids
    return torch.tensor(ids, dtype=torch.long)


def pieces(model: Any, tokens: Sequence[int] | Int[torch.Tensor, " pos"]) -> list[str]:
    """The text of every token by itself."""
    words = _tokenizer(model)
    return [words.decode([int(token)]) for token in tokens]


def joined_pieces(model: Any, tokens: Sequence[int] | Int[torch.Tensor, " pos"]) -> list[str]:
    """The text of every token, such that all together are the decoded text.

    A character whose bytes are shared by several tokens is the last one's; the others have less, or
    nothing.
    """
    words = _tokenizer(model)
    ids = [int(token) for token in tokens]
    texts = pieces(model, ids)
    if "".join(texts) == words.decode(ids):
        return texts
    texts = []
    # A token is read behind the one before it, whose text is taken off: spaces depend on it.
    start = done = 0
    for end in range(1, len(ids) + 1):
        before = words.decode(ids[start:done])
        text = words.decode(ids[start:end])
        if text.endswith(BROKEN) and end < len(ids):
            texts.append("")
            continue
        texts.append(text[len(before) :])
        start, done = done, end
    return texts


def decode(model: Any, tokens: Sequence[int] | Int[torch.Tensor, " pos"]) -> str:
    """Text of several tokens, as a verifier reads it: special tokens are shown, but for an
    end-of-sequence token at the end."""
    ids = [int(token) for token in tokens]
    if ids and ids[-1] in eos_ids(model):
        ids = ids[:-1]
    return _tokenizer(model).decode(ids)


def eos_ids(model: Any) -> tuple[int, ...]:
    """The tokens that end a rollout: the tokenizer's, and those of the model's generation config.

    Raises
    ------
    MechRewardError
        Neither names any.
    """
    inner = getattr(model, "original_model", model)
    config = getattr(inner, "generation_config", None)
    named = getattr(config, "eos_token_id", None)
    tokens: set[Any] = set(named if isinstance(named, Sequence) else [named])
    tokens.add(_tokenizer(model).eos_token_id)
    tokens.discard(None)
    require(
        bool(tokens),
        "neither the tokenizer nor the model's generation_config names an end-of-sequence token: "
        "set tokenizer.eos_token.",
    )
    return tuple(sorted(int(token) for token in tokens))


def _of_text(words: Any, text: str) -> list[int]:
    plain = words(text, add_special_tokens=False).input_ids
    whole = words(text).input_ids
    for front in range(len(whole) - len(plain), -1, -1):
        if plain and whole[front : front + len(plain)] == plain:
            # What is behind it is left out: a text that some tokenizers close stays open here.
            added = whole[:front]
            return plain if added == plain[:front] else added + plain
    return whole


def _are_messages(prompt: Any) -> bool:
    listed = isinstance(prompt, Sequence) and len(prompt) > 0
    return listed and all(isinstance(item, Mapping) for item in prompt)


def _of_messages(words: Any, messages: Any) -> list[int]:
    require(
        bool(getattr(words, "chat_template", None)),
        "chat messages need a chat template, and the tokenizer has none: set "
        "tokenizer.chat_template, or give a text or token ids.",
    )
    for message in messages:
        parts = ", ".join(map(str, message)) or "nothing"
        require(
            "role" in message and "content" in message,
            f"a chat message has a role and a content; this one has {parts}.",
        )
    begun = messages[-1]["role"] == "assistant"
    try:
        encoded = words.apply_chat_template(
            [dict(message) for message in messages],
            add_generation_prompt=not begun,
            continue_final_message=begun,
            return_dict=True,
        )
    except (TemplateError, ValueError, TypeError, KeyError) as error:
        why = " ".join(str(error).split())
        raise MechRewardError(f"the chat template does not take these messages: {why}") from error
    return encoded["input_ids"]


def _contents(messages: Any) -> list[str]:
    """The texts of chat messages; a content may be a list of parts."""
    return [message["content"] for message in messages if isinstance(message["content"], str)]


def _warn_of_unknown(words: Any, text: str, ids: Sequence[int]) -> None:
    """Warn of a text of which a word became the token for what is unknown: the model reads
    something else than is written there."""
    unknown = words.unk_token_id
    if unknown is None or unknown not in ids or words.unk_token in text:
        return
    for word in text.split():
        if unknown in words(word, add_special_tokens=False).input_ids:
            message = (
                f"the tokenizer does not know {word!r}, and the model reads {words.unk_token} "
                "there: it was made for other texts. Take a model that reads this task."
            )
            warnings.warn(message, UnknownWordWarning, stacklevel=2)
            return


def _whole(prompt: Any) -> list[int]:
    """Token ids as a list."""
    kinds = "a prompt is a text, token ids or chat messages"
    items = prompt.tolist() if hasattr(prompt, "tolist") else prompt
    listed = isinstance(items, Sequence) and not isinstance(items, bytes)
    require(listed, f"{kinds}; {type(prompt).__name__} was given.")
    for item in items:
        whole = isinstance(item, Integral) and not isinstance(item, bool)
        if not whole or abs(item) >= 2**63:
            raise MechRewardError(f"{kinds}; {item!r} is no token id.")
    return [int(item) for item in items]


def _tokenizer(model: Any) -> Any:
    words = getattr(model, "tokenizer", None)
    require(
        words is not None,
        "the model has no tokenizer: set model.tokenizer, it is needed to read and verify text.",
    )
    return words
