"""Texts that end an answer: which rows have just said one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Int

from mechreward.models.text import BROKEN, decode, pieces

_texts: WeakKeyDictionary[Any, list[str]] = WeakKeyDictionary()


class Stops:
    """Looks for texts in answers as they grow.

    A whole answer is decoded only where its last token may complete a text, as few tokens may.

    Parameters
    ----------
    model : object
        Its tokenizer decodes.
    stop : sequence of str
        The texts; not empty, nor any of them.
    words : int
        Size of the vocabulary that logits have.
    device : torch.device
        Where the tokens are.

    Attributes
    ----------
    may_end : tensor [vocab]
        The tokens that may complete a text.
    """

    def __init__(self, model: Any, stop: Sequence[str], words: int, device: torch.device) -> None:
        self.model = model
        self.stop = stop
        last = {text[-1] for text in stop}
        # Alone, some tokenizers decode a token without the space in front of it.
        every = any(character.isspace() and character != "\n" for character in last)
        may_end = torch.full((words,), every)
        for token, text in enumerate(_texts_of(model, words)):
            if BROKEN in text or not last.isdisjoint(text):
                may_end[token] = True
        self.may_end: Bool[torch.Tensor, " vocab"] = may_end.to(device)

    def reached(self, before: Int[torch.Tensor, " begun"], new: Int[torch.Tensor, " gen"]) -> bool:
        """Whether a text ends in the new tokens of an answer that had begun with others."""
        begun = len(decode(self.model, before)) if len(before) else 0
        text = decode(self.model, torch.cat([before, new]))
        # Not what had been said before: an answer would have ended there.
        return any(text.find(stop, max(0, begun - len(stop) + 1)) >= 0 for stop in self.stop)


def _texts_of(model: Any, words: int) -> list[str]:
    """The text of every token of the vocabulary; kept with the tokenizer, for it takes a second."""
    words_of = model.tokenizer
    texts = _texts.get(words_of, [])
    if len(texts) != words:
        texts = pieces(model, range(words))
        _texts[words_of] = texts
    return texts
