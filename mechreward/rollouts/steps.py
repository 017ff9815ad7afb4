"""Where the steps of a generated answer end."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int

from mechreward.models.text import pieces
from mechreward.tasks import Task


def step_ends(
    model: Any, task: Task, tokens: Int[torch.Tensor, " pos"], prompt_len: int, ended: bool
) -> tuple[int, ...]:
    """Absolute index of each step's last token, as the task cuts the text; entry 0 is s_0.

    The end-of-sequence token, which no task needs to know, is no step of its own: it belongs to the
    step before it, unless it is all of the answer.

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
    ended : bool
        Whether the last token is an end-of-sequence token.
    """
    ends = list(task.step_ends(pieces(model, tokens), prompt_len))
    last = len(tokens) - 1
    if ended and len(ends) > 2 and ends[-2:] == [last - 1, last]:
        del ends[-2]
    return tuple(ends)
