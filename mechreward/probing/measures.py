"""What a model's own next-token distributions say of its answers, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from mechreward.base.errors import of_kind, require, whole
from mechreward.base.progress import bar
from mechreward.models.ability import evaluation
from mechreward.models.bins import length_bins
from mechreward.models.finite import check_logits, row_name
from mechreward.models.identity import model_id
from mechreward.models.load import device_of
from mechreward.rollouts.trajectory import Rollouts

CHUNK = 128  # positions whose whole distributions are held at once: a large vocabulary fills memory


@dataclass(frozen=True)
class Measures:
    """Numbers of every token of a prompt with its answer, in nats, at temperature 1.

    Attributes
    ----------
    logprob : array [pos]
        Log-probability of the token that stands there; NaN at the first, which nothing foretells.
    entropy : array [pos]
        Of the distribution of the token that comes next.
    certainty : array [pos]
        Self-certainty of that distribution (Kang et al. 2025): the divergence from it of the
        uniform one, KL(uniform || p) = -mean log p - log V. Tokens that the model rules out
        (probability 0) count neither in the mean nor in V.
    """

    logprob: Float[np.ndarray, " pos"]
    entropy: Float[np.ndarray, " pos"]
    certainty: Float[np.ndarray, " pos"]


@torch.no_grad()
def measures(
    model: Any, runs: Rollouts, *, batch: int = 64, progress: bool | str = False
) -> list[Measures]:
    """`Measures` of every trajectory, from one pass over it.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one that made the runs.
    runs : Rollouts
        The rollouts.
    batch : int, default 64
        Trajectories run at once; fewer where they are long.
    progress : bool or str, default False
        Whether a bar is shown, or its title.

    Returns
    -------
    list of Measures
        In the order of the runs.

    Raises
    ------
    MechRewardError
        No runs, runs of another model, batch < 1, or logits that are not finite.
    """
    of_kind("runs", runs, Rollouts, "sample makes them of problems")
    require(len(runs) > 0, "no trajectories were given.")
    batch = whole("batch", batch, 1, "trajectories run at once")
    runs.model_id.check(model_id(model), "set of rollouts")
    texts = [run.tokens for run in runs]
    rows: dict[int, Measures] = {}
    with bar(progress, "measures", "trajectory", total=len(runs)) as counter:
        for chosen in length_bins([len(text) for text in texts], batch):
            for row, logits in zip(chosen, _logits(model, texts, chosen), strict=True):
                check_logits(logits, row_name(row, runs[row].problem_id))
                rows[row] = _of(logits, texts[row].to(logits.device))
            counter.update(len(chosen))
    return [rows[row] for row in range(len(runs))]


def last_logits(
    model: Any, texts: Sequence[torch.Tensor], *, batch: int = 64
) -> list[Float[torch.Tensor, " vocab"]]:
    """Logits of the token that comes behind each text, on the CPU in float32.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model.
    texts : sequence of tensor [pos]
        Token ids.
    batch : int, default 64
        Texts run at once; fewer where they are long.

    Returns
    -------
    list of tensor [vocab]
        One for each text.
    """
    rows: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        for chosen in length_bins([len(text) for text in texts], batch):
            for row, logits in zip(chosen, _logits(model, texts, chosen), strict=True):
                rows[row] = logits[-1].float().cpu()
    return [rows[row] for row in range(len(texts))]


def _logits(
    model: Any, texts: Sequence[torch.Tensor], chosen: Sequence[int]
) -> list[Float[torch.Tensor, "pos vocab"]]:
    """Logits at every position of some texts, from one right-padded pass."""
    few = [texts[row] for row in chosen]
    tokens = torch.nn.utils.rnn.pad_sequence(few, batch_first=True).to(device_of(model))
    with evaluation(model, tokens.shape[1]):
        logits = model(tokens, return_type="logits", attention_mask=torch.ones_like(tokens))
    return [logits[place, : len(text)] for place, text in enumerate(few)]


def _of(logits: Float[torch.Tensor, "pos vocab"], tokens: Int[torch.Tensor, " pos"]) -> Measures:
    logprob = torch.full((len(tokens),), torch.nan)
    entropy, certainty = torch.empty(len(tokens)), torch.empty(len(tokens))
    for begin in range(0, len(tokens), CHUNK):
        some = slice(begin, begin + CHUNK)
        logs = logits[some].float().log_softmax(-1)
        possible = logs.isfinite()
        count = possible.sum(-1)
        uniform = torch.where(possible, logs, 0.0).sum(-1) / count
        certainty[some] = (-uniform - count.log()).cpu()
        entropy[some] = torch.special.entr(logs.exp()).sum(-1).cpu()
        coming = tokens[begin + 1 : begin + 1 + len(logs)]
        told = logs[: len(coming)].gather(-1, coming[:, None])[:, 0]
        logprob[begin + 1 : begin + 1 + len(coming)] = told.cpu()
    return Measures(*(column.double().numpy() for column in (logprob, entropy, certainty)))
