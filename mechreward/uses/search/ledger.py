"""What a search cost: one ledger for all methods."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from mechreward.models.jobs import Continuation, Job


@dataclass(frozen=True)
class Ledger:
    """Of one problem, or, summed, of several.

    Attributes
    ----------
    generated : int
        New tokens, those of candidates that were dropped included.
    kept : int
        Tokens of the answer that was taken.
    scored : int
        Tokens that a scorer read in passes of its own: a `RewardModel`'s by its own tokenizer,
        other functions' counted in the searched model's tokens. Scorers that read the generating
        pass have 0.
    prefill : int
        Tokens of prompts and beginnings that were run before anything was generated.
    cached : int
        Tokens of prompts and beginnings that another candidate's pass served.
    passes : int
        Forward passes, counted for each row of a batch.
    flops : float
        Floating-point operations of products with weights and of attention, in the searched model.
    seconds : float
        This problem's share of the time that batches took, by row passes.
    """

    generated: int = 0
    kept: int = 0
    scored: int = 0
    prefill: int = 0
    cached: int = 0
    passes: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Ledger) -> Ledger:
        sums = {}
        for entry in fields(Ledger):
            sums[entry.name] = getattr(self, entry.name) + getattr(other, entry.name)
        return Ledger(**sums)

    @classmethod
    def total(cls, ledgers: Iterable[Ledger]) -> Ledger:
        """All of them together."""
        return sum(ledgers, cls())

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return asdict(self)


@dataclass(frozen=True)
class Price:
    """Floating-point operations of a model.

    A product of a vector with a matrix of n numbers counts as 2 n; norms, rotations and softmax are
    left out, as is usual (they are under a hundredth).

    Attributes
    ----------
    token : float
        Of a token's products with weights, the unembedding left out.
    unembedding : float
        Of the logits of one position.
    pair : float
        Of attention from one token to one token: its score and its part of the mean.
    """

    token: float
    unembedding: float
    pair: float

    @classmethod
    def of(cls, model: Any) -> Price:
        """Of a TransformerLens model, by its config."""
        cfg = model.cfg
        heads = cfg.n_heads * cfg.d_head
        keys = (cfg.n_key_value_heads or cfg.n_heads) * cfg.d_head
        maps = 3 if getattr(cfg, "gated_mlp", False) else 2
        weights = 2 * cfg.d_model * heads + 2 * cfg.d_model * keys
        weights += maps * cfg.d_model * cfg.d_mlp
        return cls(
            token=2.0 * cfg.n_layers * weights,
            unembedding=2.0 * cfg.d_model * cfg.d_vocab,
            pair=4.0 * cfg.n_layers * heads,
        )

    def flops(self, job: Job, row: Continuation) -> float:
        """Of what was run for a continuation."""
        decoded = decoded_of(row)
        begin = job.length - 1 - row.prefill
        last = job.length - 1 + decoded
        # Every token from `begin` to `last` attends to itself and to all before it.
        pairs = (last * (last + 1) - begin * (begin + 1)) / 2
        tokens = row.prefill + decoded
        return tokens * self.token + decoded * self.unembedding + pairs * self.pair


def decoded_of(row: Continuation) -> int:
    """Tokens run one at a time: as many as were drawn, and the last where something is read."""
    return len(row.tokens) + (row.caught is not None)


def entry_of(price: Price, job: Job, row: Continuation) -> Ledger:
    """What one continuation cost, but for the time."""
    return Ledger(
        generated=len(row.tokens),
        prefill=row.prefill,
        cached=row.cached,
        passes=decoded_of(row) + (row.prefill > 0),
        flops=price.flops(job, row),
    )
