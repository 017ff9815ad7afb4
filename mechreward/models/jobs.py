"""What the decode loop is asked for, what it gives back, and what it refuses before any work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int

from mechreward.base.errors import MechRewardError, require
from mechreward.models.capture import Caught
from mechreward.models.finite import not_finite, row_name
from mechreward.models.row_edits import Edit

Prefix = tuple[int, ...]  # names what has to be prefilled once


@dataclass(frozen=True)
class Job:
    """A prefix to continue.

    Jobs that share a trunk (the same tensor) and edits share one prefill.

    Attributes
    ----------
    trunk : tensor [pos]
        Tokens, of which the first `length` are the prefix.
    length : int
        Tokens of the prefix.
    max_new : int
        Tokens to generate at most.
    key : tuple of int or str
        Names the generator of its random numbers.
    edits : tuple of Edit, default ()
        Interventions of this row alone.
    problem : str, default ""
        Id of the problem, which errors name.
    begun : int, default 0
        How many of the prefix's last tokens are of the answer already.
    drawn : int, default 0
        How many random numbers of its key were used before: an answer that was begun under the key
        and is continued behind so many tokens goes on as if it had not been interrupted.
    """

    trunk: Int[torch.Tensor, " pos"]
    length: int
    max_new: int
    key: tuple[int | str, ...]
    edits: tuple[Edit, ...] = ()
    problem: str = ""
    begun: int = 0
    drawn: int = 0

    @property
    def prefix(self) -> Prefix:
        """What has to be prefilled once."""
        return (id(self.trunk), *map(id, self.edits))

    def name(self, number: int) -> str:
        """What errors call it; `number` is its place among the jobs."""
        return row_name(number, self.problem)


@dataclass(frozen=True)
class Spread:
    """How sure the model was of each token, by the distribution it was drawn from.

    Attributes
    ----------
    entropy : tensor [*row gen]
        Nats.
    certainty : tensor [*row gen]
        Self-certainty: Kullback-Leibler divergence, in nats, of the distribution from the uniform
        one, KL(uniform || p) (arXiv 2502.18581).
    """

    entropy: Float[torch.Tensor, "*row gen"]
    certainty: Float[torch.Tensor, "*row gen"]

    @classmethod
    def of(cls, logprobs: Float[torch.Tensor, "*row gen vocab"]) -> Spread:
        """Of log-probabilities."""
        entropy = torch.special.entr(logprobs.exp()).sum(-1)
        certainty = -logprobs.mean(-1) - math.log(logprobs.shape[-1])
        return cls(entropy, certainty)

    def of_row(self, row: int, length: int) -> Spread:
        """A copy of the first tokens of one row, on the CPU."""
        entropy, certainty = self.entropy[row, :length], self.certainty[row, :length]
        return Spread(entropy.cpu().clone(), certainty.cpu().clone())


@dataclass(frozen=True)
class Continuation:
    """What a job generated.

    Attributes
    ----------
    tokens : tensor [gen]
        New tokens, the end-of-sequence token included if it was drawn.
    logprobs : tensor [gen]
        The model's log-probability of each.
    finished : bool
        Whether it ended by itself: with an end-of-sequence token or a text of `Policy.stop`.
    caught : Caught or None, default None
        What the call captured of the job.
    spread : Spread or None, default None
        Of the distributions that the tokens were drawn from, if the call measured it.
    prefill : int, default 0
        Tokens of the prefix that were run for this job.
    cached : int, default 0
        Tokens of the prefix that another job's pass, or a shared beginning, served. Of an answer
        that was kept from an earlier run both are 0.
    """

    tokens: Int[torch.Tensor, " gen"]
    logprobs: Float[torch.Tensor, " gen"]
    finished: bool
    caught: Caught | None = None
    spread: Spread | None = None
    prefill: int = 0
    cached: int = 0

    def check(self, job: Job, number: int) -> None:
        """Raise MechRewardError if anything caught is not finite."""
        if self.caught is None:
            return
        for site, x in self.caught.x.items():
            wrong = torch.nonzero(~x.isfinite())
            if len(wrong):
                position = int(self.caught.position[wrong[0, 0]])
                raise not_finite(job.name(number), str(site), position)


def check_jobs(model: Any, jobs: Sequence[Job]) -> None:
    """Raise MechRewardError, with the problem's id, for the first job that cannot be run."""
    context = context_of(model)
    words = vocabulary_of(model)
    known: set[int] = set()
    for number, job in enumerate(jobs):
        name = job.name(number)
        require(
            1 <= job.length <= len(job.trunk) and job.max_new >= 1,
            f"{name}: a job continues 1 to {len(job.trunk)} tokens by at least 1; "
            f"got {job.length} and {job.max_new}.",
        )
        if context is not None and job.length + job.max_new > context:
            _too_long(name, job, context)
        if words is not None and id(job.trunk) not in known:
            strange = job.trunk[(job.trunk < 0) | (job.trunk >= words)].tolist()
            require(
                not strange,
                f"{name}: the model's vocabulary has tokens 0 to {words - 1}; "
                f"{', '.join(map(str, strange[:6]))} was given.",
            )
            known.add(id(job.trunk))


def context_of(model: Any) -> int | None:
    """How many positions the model has; None where its config does not say."""
    config = _config(model)
    if config is None:
        return getattr(getattr(model, "cfg", None), "n_ctx", None)
    for name in ("max_position_embeddings", "max_seq_len"):
        positions = getattr(config, name, None) or 0
        if positions > 0:
            return positions
    return None


def vocabulary_of(model: Any) -> int | None:
    """How many tokens the model can read; None where nothing says."""
    config = _config(model)
    if config is None:
        return getattr(getattr(model, "cfg", None), "d_vocab", None)
    return getattr(config, "vocab_size", None)


def _config(model: Any) -> Any:
    """HuggingFace's config of the language model; None for a HookedTransformer."""
    inner = getattr(model, "original_model", model)
    config = getattr(inner, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        return None
    return config.get_text_config()


def _too_long(name: str, job: Job, context: int) -> None:
    if job.length > context:
        raise MechRewardError(
            f"{name}: {job.length} tokens to continue are more than the {context} that the model's "
            "context holds."
        )
    raise MechRewardError(
        f"{name}: {job.length} tokens and a limit of {job.max_new} new ones are more than the "
        f"{context} that the model's context holds; shorten the prompt or lower max_tokens, "
        "the policy's or the task's."
    )
