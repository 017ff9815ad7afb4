"""Where the steps of a generated answer end."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import pairwise
from operator import index
from typing import Any

import torch
from jaxtyping import Int

from mechreward.base.errors import shown
from mechreward.base.limit import TimeUp, within
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
    text = joined_pieces(model, tokens)
    try:
        given = within(task.seconds, lambda: task.step_ends(text, prompt_len))
        ends = [index(end) for end in given]
    except TimeUp:
        return whole, f"no steps within {task.seconds:g} seconds"
    # A task is anybody's code, which may do anything.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return whole, " ".join(f"{type(error).__name__}: {error}".split())[:200]
    rising = all(a < b for a, b in pairwise(ends))
    if not (rising and len(ends) > 1 and ends[0] == prompt_len - 1 and ends[-1] <= last):
        wanted = f"positions that rise from {prompt_len - 1}, the prompt's last, to {last} at most"
        return whole, f"{shown(ends)} are no {wanted}"
    closed = int(tokens[-1]) in eos_ids(model)
    if closed and len(ends) > 2 and ends[-2:] == [last - 1, last]:
        del ends[-2]
    return tuple(ends), ""


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
