"""What ends a row early: a text that ends answers, or whatever else a caller looks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Int

from mechreward.models.jobs import Job
from mechreward.models.text import BROKEN, decode, pieces

_texts: WeakKeyDictionary[Any, list[str]] = WeakKeyDictionary()


@runtime_checkable
class Until(Protocol):
    """What ends rows early. It is asked only behind tokens that may end one, as few may."""

    def may_end(self, words: int) -> Bool[torch.Tensor, " vocab"]:
        """The tokens, of so many, behind which `reached` has to be asked."""
        ...

    def reached(self, job: Job, new: Int[torch.Tensor, " gen"]) -> bool:
        """Whether the last of a job's new tokens ends its row."""
        ...


class Stops:
    """Looks for texts in answers as they grow.

    A whole answer is decoded only where its last token may complete a text, as few tokens may.

    Parameters
    ----------
    model : object
        Its tokenizer decodes.
    stop : sequence of str
        The texts; not empty, nor any of them.
    """

    def __init__(self, model: Any, stop: Sequence[str]) -> None:
        self.model = model
        self.stop = stop

    def may_end(self, words: int) -> Bool[torch.Tensor, " vocab"]:
        """The tokens that may complete a text."""
        last = {text[-1] for text in self.stop}
        # Alone, some tokenizers decode a token without the space in front of it.
        every = any(character.isspace() and character != "\n" for character in last)
        return holding(self.model, last, words) | every

    def reached(self, job: Job, new: Int[torch.Tensor, " gen"]) -> bool:
        """Whether a text ends in the new tokens of an answer that may have begun before."""
        before = job.trunk[job.length - job.begun : job.length]
        begun = len(decode(self.model, before)) if len(before) else 0
        text = decode(self.model, torch.cat([before, new]))
        # Not what had been said before: an answer would have ended there.
        return any(text.find(stop, max(0, begun - len(stop) + 1)) >= 0 for stop in self.stop)


class Endings:
    """All that ends rows early: the policy's texts, which end the answer too, and what a caller
    looks for.

    Parameters
    ----------
    model : object
        Its tokenizer decodes.
    stop : sequence of str
        The policy's texts.
    until : Until or None
        The caller's.
    device : torch.device
        Where tokens are drawn.
    """

    def __init__(
        self, model: Any, stop: Sequence[str], until: Until | None, device: torch.device
    ) -> None:
        self.device = device
        self.parts: list[Until] = [Stops(model, stop)] if stop else []
        self.of_answers = len(self.parts)
        if until is not None:
            self.parts.append(until)
        self.masks: list[torch.Tensor] = []

    def may_end(self, words: int) -> list[Bool[torch.Tensor, " vocab"]]:
        """For each part the tokens behind which it has to be asked."""
        if len(self.masks) < len(self.parts):
            self.masks = [part.may_end(words).to(self.device) for part in self.parts]
        return self.masks

    def reached(
        self,
        asked: Sequence[Sequence[int]],
        grown: Callable[[int], tuple[Job, Int[torch.Tensor, " gen"]]],
    ) -> tuple[set[int], set[int]]:
        """Rows whose answers are over, and all that end: of the rows that each part is asked
        about."""
        ended: list[set[int]] = []
        for part, rows in zip(self.parts, asked, strict=True):
            ended.append({row for row in rows if part.reached(*grown(row))})
        return set[int]().union(*ended[: self.of_answers]), set[int]().union(*ended)


def holding(model: Any, characters: set[str], words: int) -> Bool[torch.Tensor, " vocab"]:
    """The tokens whose text has one of the characters, or part of some character."""
    some = torch.zeros(words, dtype=torch.bool)
    for token, text in enumerate(_texts_of(model, words)):
        some[token] = BROKEN in text or not characters.isdisjoint(text)
    return some


def _texts_of(model: Any, words: int) -> list[str]:
    """The text of every token of the vocabulary; kept with the tokenizer, for it takes a second."""
    words_of = model.tokenizer
    texts = _texts.get(words_of, [])
    if len(texts) != words:
        texts = pieces(model, range(words))
        _texts[words_of] = texts
    return texts
