"""Answers of one problem in one row: the prompt is run once, and each answer sees it and itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch.nn.functional import cross_entropy

Tokens = list[int]


@dataclass(frozen=True)
class Packed:
    """Rows as a causal language model reads them, and where each answer's tokens are predicted.

    Attributes
    ----------
    tokens : tensor [row pos]
        The prompt, then its answers one behind the other; 0 behind them.
    places : tensor [row pos]
        Positions for the model: every answer goes on where the prompt ends.
    mask : tensor [row 1 pos pos]
        What each position sees.
    row, source : tensor [token]
        Where the logits of each answer's tokens are.
    target : tensor [token]
        The token.
    answer : tensor [token]
        Its answer's number, over all problems.
    """

    tokens: Int[torch.Tensor, "row pos"]
    places: Int[torch.Tensor, "row pos"]
    mask: Bool[torch.Tensor, "row 1 pos pos"]
    row: Int[torch.Tensor, " token"]
    source: Int[torch.Tensor, " token"]
    target: Int[torch.Tensor, " token"]
    answer: Int[torch.Tensor, " token"]


def packed(problems: Sequence[tuple[Tokens, Sequence[Tokens]]]) -> Packed:
    """Pack problems: prompt and answers of each."""
    width = max(len(prompt) + sum(map(len, answers)) for prompt, answers in problems)
    tokens = torch.zeros(len(problems), width, dtype=torch.long)
    places = torch.zeros_like(tokens)
    mask = torch.eye(width, dtype=torch.bool).repeat(len(problems), 1, 1)
    where: list[tuple[int, int, int, int]] = []  # row, source, target, answer
    number = 0
    for row, (prompt, answers) in enumerate(problems):
        end = len(prompt)
        tokens[row, :end] = torch.tensor(prompt)
        places[row, :end] = torch.arange(end)
        mask[row, :end, :end] = torch.ones(end, end, dtype=torch.bool).tril()
        start = end
        for answer in answers:
            stop = start + len(answer)
            tokens[row, start:stop] = torch.tensor(answer)
            places[row, start:stop] = torch.arange(end, end + len(answer))
            mask[row, start:stop, :end] = True
            own = torch.ones(len(answer), len(answer), dtype=torch.bool).tril()
            mask[row, start:stop, start:stop] = own
            for offset, token in enumerate(answer):
                source = start + offset - 1 if offset else end - 1
                where.append((row, source, token, number))
            start = stop
            number += 1
    columns = torch.tensor(where, dtype=torch.long).reshape(-1, 4).unbind(1)
    return Packed(tokens, places, mask[:, None], *columns)


def log_probabilities(model: Any, rows: Packed) -> Float[torch.Tensor, " token"]:
    """Log-probability of every token of every answer, in float32.

    Parameters
    ----------
    model : object
        A HuggingFace causal model that takes a mask of four dimensions, as Llama does.
    rows : Packed
        On the model's device or not.
    """
    device = model.device
    hidden = model.get_decoder()(
        input_ids=rows.tokens.to(device),
        attention_mask=rows.mask.to(device),
        position_ids=rows.places.to(device),
        use_cache=False,
    ).last_hidden_state
    # Logits where they are needed alone: prompts are most of the text, and the vocabulary is large.
    logits = model.get_output_embeddings()(hidden[rows.row.to(device), rows.source.to(device)])
    return -cross_entropy(logits.float(), rows.target.to(device), reduction="none")
