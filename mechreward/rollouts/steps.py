"""Where the steps of a generated answer end."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import pairwise
from operator import index
from typing import Any

import torch
from jaxtyping import Bool, Int

from mechreward.base.errors import shown
from mechreward.base.limit import TimeUp, within
from mechreward.models.jobs import Job, vocabulary_of
from mechreward.models.stops import holding
from mechreward.models.text import eos_ids, joined_pieces
from mechreward.tasks import Task


class StepWarning(UserWarning):
    """A task could not cut some answers into steps: each counts as one step."""


def step_ends(
    model: Any, task: Task, tokens: Int[torch.Tensor, " pos"], prompt_len: int
) -> tuple[tuple[int, ...], str]:
    """Absolute index of each step's last token, as the task cuts the text; entry 0 is s_0.

    The end-of-sequence token, which no task needs to know, is no step of its own: it belongs to the
    step before it, unless it is all of the answer. Where the task fails (it raises, takes longer
    than `task.seconds`, or gives what are no ends), the whole answer is one step.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        Its tokenizer gives the text of every token.
    task : Task
        Cuts the text.
    tokens : tensor [pos]
        Prompt and answer.
    prompt_len : int
        How many of them are the prompt.

    Returns
    -------
    (tuple of int, str)
        The ends, and what went wrong; empty if nothing did.
    """
    last = len(tokens) - 1
    whole = (prompt_len - 1, last)
    ends, fault = _cut(task, joined_pieces(model, tokens), prompt_len)
    if fault:
        return whole, fault
    rising = all(a < b for a, b in pairwise(ends))
    if not (rising and len(ends) > 1 and ends[0] == prompt_len - 1 and ends[-1] <= last):
        wanted = f"positions that rise from {prompt_len - 1}, the prompt's last, to {last} at most"
        return whole, f"{shown(ends)} are no {wanted}"
    closed = int(tokens[-1]) in eos_ids(model)
    if closed and len(ends) > 2 and ends[-2:] == [last - 1, last]:
        del ends[-2]
    return tuple(ends), ""


class StepEnd:
    """Where a step that is being generated is over: where the task would cut it off if the answer
    went on. It is a `models.stops.Until`.

    A task looks at whole texts only; so a word is put behind what there is. Where the task fails,
    the step goes on.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        Its tokenizer gives the text of every token.
    task : Task
        Cuts the text.
    """

    NEXT = " x"  # a word of the next step

    def __init__(self, model: Any, task: Task) -> None:
        self.model = model
        self.task = task

    def may_end(self, words: int) -> Bool[torch.Tensor, " vocab"]:
        """Tokens with a line break, where the task cuts by lines; else all."""
        if type(self.task).step_ends is Task.step_ends:
            return holding(self.model, {"\n"}, words)
        return torch.ones(words, dtype=torch.bool)

    def reached(self, job: Job, new: Int[torch.Tensor, " gen"]) -> bool:
        """Whether a step that the job did not begin with ends at its last new token."""
        prompt_len = job.length - job.begun
        begun = job.trunk[: job.length]
        ends = self._ends(torch.cat([begun, new]), prompt_len)
        here = job.length + len(new) - 1
        if here not in ends:
            return False
        # A line break more may only move the end of the step before.
        return len(ends) > len(self._ends(begun, prompt_len))

    def behind(self, tokens: Int[torch.Tensor, " pos"], prompt_len: int) -> list[int]:
        """Where the steps of a whole answer were over while it was generated: the positions at
        which `reached` ended each, its last token left out. Later than there a step may only have
        got blank tokens."""
        pieces = joined_pieces(self.model, tokens)
        if int(tokens[-1]) in eos_ids(self.model):
            pieces[-1] = ""
        may_end = self.may_end(vocabulary_of(self.model) or int(tokens.max()) + 1)
        ends, _ = step_ends(self.model, self.task, tokens, prompt_len)
        begun, known = prompt_len, 0
        reached = []
        for end in ends[1:]:
            first = end
            while first > begun and not pieces[first].strip():
                first -= 1
            for place in range(first, min(end, len(tokens) - 2) + 1):
                if not may_end[tokens[place]]:
                    continue
                over = self._over(pieces[: place + 1], prompt_len)
                if place in over and len(over) > known:
                    reached.append(place)
                    begun, known = place + 1, len(over)
                    break
        return reached

    def _ends(self, tokens: Int[torch.Tensor, " pos"], prompt_len: int) -> list[int]:
        """Ends of the steps that are over whatever comes next."""
        return self._over(joined_pieces(self.model, tokens), prompt_len)

    def _over(self, pieces: list[str], prompt_len: int) -> list[int]:
        ends, _ = _cut(self.task, [*pieces, self.NEXT], prompt_len)
        return [end for end in ends if prompt_len <= end < len(pieces)]


def _cut(task: Task, pieces: list[str], prompt_len: int) -> tuple[list[int], str]:
    """What the task says, or nothing and what went wrong."""
    try:
        given = within(task.seconds, lambda: task.step_ends(pieces, prompt_len))
        return [index(end) for end in given], ""
    except TimeUp:
        return [], f"no steps within {task.seconds:g} seconds"
    # A task is anybody's code, which may do anything.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return [], " ".join(f"{type(error).__name__}: {error}".split())[:200]


def warn_of(task: Task, faults: Mapping[str, str], answers: int) -> None:
    """Warn of answers that could not be cut: `faults` by problem, of so many answers."""
    if not faults:
        return
    named = "; ".join(f"problem {name!r}: {why}" for name, why in list(faults.items())[:3])
    warnings.warn(
        f"step_ends of {task.name} failed on answers to {len(faults)} problems, of {answers} "
        f"answers in all; each of them counts as one step ({named}).",
        StepWarning,
        stacklevel=4,
    )
