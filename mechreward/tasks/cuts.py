"""Where the steps of a text end: lines, paragraphs, sentences, blocks of tokens."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence

from mechreward.base.errors import MechRewardError, of_kind, one_of, whole

Cut = Callable[[Sequence[str], int], list[int]]

# What ends a step, with the space behind it.
ENDS = {
    "lines": re.compile(r"\n\s*"),
    "paragraphs": re.compile(r"\n[^\S\n]*\n\s*"),
    "sentences": re.compile(r"[.!?…。！？]+[\"'”’)\]*_]*(?:\s+|(?<=[。！？])|$)|\n\s*"),
}
KINDS = ("lines", "paragraphs", "sentences", "blocks:N")


def cut_of(steps: str) -> Cut:
    """The cut that goes by a name: "lines", "paragraphs", "sentences", or "blocks:64" (tokens).

    Raises
    ------
    MechRewardError
        Another name.
    """
    of_kind("steps", steps, str, ", ".join(KINDS))
    name, _, size = steps.partition(":")
    if name == "blocks":
        if not re.fullmatch("[0-9]{1,6}", size):
            raise MechRewardError(
                f"steps={steps!r} says no size: blocks:64 are steps of 64 tokens each."
            )
        return _blocks(whole("the size of a block", int(size), 1))
    if steps not in ENDS:
        one_of("kind of step", steps, KINDS)
    return _by_text(ENDS[steps])


def _blocks(size: int) -> Cut:
    def cut(pieces: Sequence[str], prompt_len: int) -> list[int]:
        last = len(pieces) - 1
        ends = list(range(prompt_len - 1, last, size))
        return [*ends, last] if last >= prompt_len else ends or [prompt_len - 1]

    return cut


def _by_text(pattern: re.Pattern[str]) -> Cut:
    """Ends are found in the text and mapped to the tokens that hold them.

    A token that holds the end of a step and the beginning of the next (`.\\n\\n` and more) ends the
    step. A step without a word is none of its own.
    """

    def cut(pieces: Sequence[str], prompt_len: int) -> list[int]:
        ends = [prompt_len - 1]
        texts = pieces[prompt_len:]
        if not texts:
            return ends
        reach = []  # length of the text up to and with each token
        length = 0
        for text in texts:
            length += len(text)
            reach.append(length)
        whole_text = "".join(texts)
        begin = 0
        for match in pattern.finditer(whole_text):
            if not whole_text[begin : match.start()].strip() and match.group().isspace():
                continue  # no word yet
            token = prompt_len + bisect_left(reach, match.start() + _closing(match.group()))
            if token > ends[-1]:
                ends.append(token)
            begin = match.end()
        last = len(pieces) - 1
        if ends[-1] == last:
            return ends
        if len(ends) == 1 or "".join(pieces[ends[-1] + 1 :]).strip():
            ends.append(last)
        else:
            ends[-1] = last
        return ends

    return cut


def _closing(gap: str) -> int:
    """How much of what ends a step is the step's own: up to its last line break, else up to its
    last mark. Other space belongs to the next word, whose token holds it."""
    breaks = gap.rfind("\n") + 1
    return breaks or len(gap.rstrip())
