"""The decode loop of the package: one prefill forks into many continuations, finished rows leave, waiting ones enter.

It knows tokens, not text. Every row draws from its own generator, keyed by the job, so neither batch size nor order
changes a result (in float32, up to rounding of the logits).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from tqdm.auto import tqdm
from transformers.cache_utils import DynamicCache, DynamicLayer

from mechreward._check import require
from mechreward.models.adapter import device_of, forward_step

Hooks = Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class Policy:
    """How tokens are drawn; part of what V means. Temperature 0 is greedy.

    The paper samples at temperature 1, top-p 0.95; the default here is the model's own distribution (top-p 1), the
    one its RL training used.
    """

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        require(self.temperature >= 0, f"temperature must be 0 (greedy) or more; {self.temperature} was given.")
        require(0 < self.top_p <= 1, f"top_p must lie in (0, 1]; {self.top_p} was given.")


@dataclass(frozen=True)
class Job:
    """Continue the first `length` tokens of `trunk`, at most `max_new` more, with the generator of `key`.

    Jobs that share a trunk (the same tensor) share its one prefill.
    """

    trunk: Int[torch.Tensor, " pos"]
    length: int
    max_new: int
    key: tuple[int | str, ...]


@dataclass(frozen=True)
class Continuation:
    """New tokens (the end-of-sequence token included, if it was drawn) and the model's log-probability of each."""

    tokens: Int[torch.Tensor, " gen"]
    logprobs: Float[torch.Tensor, " gen"]
    finished: bool


@torch.no_grad()
def generate(
    model: Any,
    jobs: Sequence[Job],
    *,
    eos: int,
    policy: Policy | None = None,
    batch: int = 256,
    hooks: Hooks = (),
    what: str | None = None,
) -> list[Continuation]:
    """Run every job; results come in the order of the jobs.

    Args:
        batch: rows decoded at once.
        hooks: TransformerLens `(name, fn)` pairs that stay on during prefill and decoding.
        what: title of a progress bar; None for none.

    Raises:
        MechRewardError: a job with nothing to continue or no room for a token, or batch < 1.
    """
    policy = policy or Policy()
    require(batch >= 1, f"batch counts rows decoded at once and must be at least 1; {batch} was given.")
    for job in jobs:
        require(
            1 <= job.length <= len(job.trunk) and job.max_new >= 1,
            f"a job continues 1 to {len(job.trunk)} tokens by at least 1; got {job.length} and {job.max_new}.",
        )
    # Jobs of one trunk stay together; long ones first, so that the last rows to run are short.
    trunks = {id(job.trunk): i for i, job in reversed(list(enumerate(jobs)))}
    waiting = sorted(range(len(jobs)), key=lambda i: (-len(jobs[i].trunk), trunks[id(jobs[i].trunk)], i), reverse=True)
    done: dict[int, Continuation] = {}
    rows = _Rows(device_of(model))
    bar = tqdm(total=len(jobs), desc=what, disable=what is None, unit="rollout", mininterval=0.5)
    with bar, _hooked(model, hooks):
        while waiting or len(rows.ids):
            if waiting and 4 * sum(rows.live) <= 3 * batch:
                rows.compact()
                fresh = [waiting.pop() for _ in range(min(batch - len(rows.ids), len(waiting)))]
                rows.join([(i, jobs[i]) for i in fresh], *_prefill(model, [jobs[i] for i in fresh]))
            logits, _ = forward_step(model, rows.next[:, None], rows.grow_mask(), rows.cache)
            for i, continuation in rows.advance(logits, policy, eos):
                done[i] = continuation
                bar.update()
    return [done[i] for i in range(len(jobs))]


def key_generator(key: Iterable[int | str]) -> np.random.Generator:
    """The generator of a key: counter-based, so that keys that differ anywhere give independent streams."""
    seed = hashlib.sha256(repr(tuple(part if isinstance(part, str) else int(part) for part in key)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(seed[:16], "big")))


def draw(
    logits: Float[torch.Tensor, "batch vocab"], policy: Policy, uniform: Float[torch.Tensor, " batch"]
) -> Int[torch.Tensor, " batch"]:
    """One token a row by inverse distribution function of `uniform` in [0, 1), in float64."""
    if policy.temperature == 0:
        return logits.argmax(-1)
    probs = (logits.double() / policy.temperature).softmax(-1)
    if policy.top_p < 1:
        ranked, order = probs.sort(descending=True, stable=True)
        ranked[ranked.cumsum(-1) - ranked >= policy.top_p] = 0
        probs = torch.zeros_like(probs).scatter(1, order, ranked)
    cdf = probs.cumsum(-1)
    chosen = torch.searchsorted(cdf, (uniform.to(cdf) * cdf[:, -1])[:, None], right=True)
    return chosen[:, 0].clamp(max=logits.shape[1] - 1)


class _Rows:
    """The rows being decoded: their cache (left-padded), masks, next input tokens, and what they have said so far."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ids: list[int] = []
        self.jobs: list[Job] = []
        self.cache: Any = None
        self.mask = torch.zeros(0, 0, dtype=torch.long, device=device)
        self.next = torch.zeros(0, dtype=torch.long, device=device)
        self.uniforms: list[np.ndarray] = []
        self.tokens: list[list[int]] = []
        self.logprobs: list[list[float]] = []
        self.live: list[bool] = []

    def join(self, fresh: list[tuple[int, Job]], trunk_of: dict[int, int], layers: list[Any]) -> None:
        """Add rows: slices of their trunks' prefill, without the last token, which becomes the next input."""
        kept = 0 if self.cache is None else self.mask.shape[1]
        width = max([kept, *(job.length - 1 for _, job in fresh)])
        groups: dict[tuple[int, int], list[int]] = {}
        for row, (_, job) in enumerate(fresh):
            groups.setdefault((trunk_of[id(job.trunk)], job.length - 1), []).append(row)
        mask = torch.zeros(len(fresh), width, dtype=torch.long, device=self.device)
        for (_, length), members in groups.items():
            mask[members, width - length :] = 1
        old = [] if self.cache is None else [(layer.keys, layer.values) for layer in self.cache.layers]
        joined = []
        for number, pair in enumerate(layers):
            both = []
            for part, source in enumerate(pair):
                shape = (len(self.ids) + len(fresh), source.shape[1], width, source.shape[3])
                whole = source.new_zeros(shape)
                if old:
                    whole[: len(self.ids), :, width - kept :] = old[number][part]
                for (trunk, length), members in groups.items():
                    at = [len(self.ids) + member for member in members]
                    whole[at, :, width - length :] = source[trunk, :, :length]
                both.append(whole)
            joined.append(both)
        self.cache = _cache(joined)
        padded = torch.nn.functional.pad(self.mask, (width - kept, 0)) if self.ids else self.mask.new_zeros(0, width)
        self.mask = torch.cat([padded, mask])
        last = torch.tensor([int(job.trunk[job.length - 1]) for _, job in fresh], device=self.device)
        self.next = torch.cat([self.next, last])
        for i, job in fresh:
            self.ids.append(i)
            self.jobs.append(job)
            self.uniforms.append(key_generator(job.key).random(job.max_new))
            self.tokens.append([])
            self.logprobs.append([])
            self.live.append(True)

    def grow_mask(self) -> Int[torch.Tensor, "batch total"]:
        """The mask with a column for the token that is about to be run."""
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        return self.mask

    def advance(
        self, logits: Float[torch.Tensor, "batch vocab"], policy: Policy, eos: int
    ) -> list[tuple[int, Continuation]]:
        """Draw one token a row; answers that ended are returned.

        Their rows stay, unread, until a fifth of all have ended: moving the cache costs more than running them.
        """
        spoken = zip(self.uniforms, self.tokens, self.live, strict=True)
        uniform = torch.tensor([u[len(said)] if live else 0.0 for u, said, live in spoken])
        self.next = draw(logits, policy, uniform.to(self.device))
        logprob = logits.log_softmax(-1).gather(1, self.next[:, None])[:, 0]
        ended = []
        both = torch.stack([self.next.double(), logprob.double()]).tolist()
        for row, (token, value) in enumerate(zip(*both, strict=True)):
            if not self.live[row]:
                continue
            said, job = self.tokens[row], self.jobs[row]
            said.append(int(token))
            self.logprobs[row].append(value)
            if token == eos or len(said) == job.max_new:
                finished = Continuation(torch.tensor(said), torch.tensor(self.logprobs[row]), token == eos)
                ended.append((self.ids[row], finished))
                self.live[row] = False
        if 5 * sum(self.live) <= 4 * len(self.live):
            self.compact()
        return ended

    def compact(self) -> None:
        """Drop the rows that have ended, and the columns that pad all that stay."""
        rows = [row for row, live in enumerate(self.live) if live]
        if len(rows) == len(self.ids):
            return
        for name in ("ids", "jobs", "uniforms", "tokens", "logprobs", "live"):
            values = getattr(self, name)
            setattr(self, name, [values[row] for row in rows])
        if not rows:
            self.cache, self.mask, self.next = None, self.mask[:0], self.next[:0]
            return
        index = torch.tensor(rows, device=self.device)
        self.mask, self.next = self.mask[index], self.next[index]
        first = int(self.mask.any(0).int().argmax())
        self.mask = self.mask[:, first:]
        self.cache = _cache([[t[index, :, first:] for t in (ly.keys, ly.values)] for ly in self.cache.layers])


class _Layer(DynamicLayer):
    """A cache layer that grows inside a buffer instead of being copied for every token."""

    ROOM = 16

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values, self._buffers = key_states, value_states, None
            return self.keys, self.values
        keys, values = self.keys, self.values
        if keys is None or values is None:
            raise RuntimeError("an initialised cache layer always holds keys and values")
        length, new = keys.shape[2], key_states.shape[2]
        if self._buffers is None or self._buffers[0].shape[2] < length + new:
            pad = (0, 0, 0, new + self.ROOM)
            self._buffers = [torch.nn.functional.pad(t, pad) for t in (keys, values)]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, length : length + new] = states
        self.keys, self.values = (buffer[:, :, : length + new] for buffer in self._buffers)
        return self.keys, self.values


def _cache(layers: list[Any]) -> DynamicCache:
    """A HuggingFace cache over (keys, values) pairs `[batch heads pos head_dim]`."""
    cache = DynamicCache()
    cache.layers[:] = [_Layer() for _ in layers]
    for number, (keys, values) in enumerate(layers):
        cache.update(keys, values, number)
    return cache


def _prefill(model: Any, jobs: Sequence[Job]) -> tuple[dict[int, int], list[Any]]:
    """Run every distinct trunk once, right-padded; returns its row by identity, and keys and values by layer."""
    trunks = {id(job.trunk): job.trunk for job in jobs}
    device = device_of(model)
    lengths = [max(job.length for job in jobs if job.trunk is trunk) for trunk in trunks.values()]
    tokens = torch.zeros(len(trunks), max(lengths), dtype=torch.long, device=device)
    for row, (trunk, length) in enumerate(zip(trunks.values(), lengths, strict=True)):
        tokens[row, :length] = trunk[:length].to(device)
    _, cache = forward_step(model, tokens, torch.ones_like(tokens), None)
    return {key: row for row, key in enumerate(trunks)}, [(layer.keys, layer.values) for layer in cache.layers]


def _hooked(model: Any, hooks: Hooks) -> Any:
    from contextlib import nullcontext

    return model.hooks(fwd_hooks=list(hooks)) if hooks else nullcontext()
