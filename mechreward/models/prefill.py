"""What jobs continue, run once each; and before that, once, what many prefixes begin with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from mechreward.models.bins import PASS, length_bins
from mechreward.models.cache import Pair, RowCache
from mechreward.models.fast_pass import LeanPass
from mechreward.models.jobs import Job, Prefix
from mechreward.models.load import forward_step
from mechreward.models.row_edits import RowEdits
from mechreward.models.work import note

# Examples or a system prompt that prefixes share are run once if they are this long, and for this
# many kinds of edits at most, since each kind keeps its own (our choice).
SHORTEST = 32
MOST_KEPT = 32

Kind = tuple[int, ...]  # names edits, which change what a beginning becomes


class Prefixes:
    """Keys and values of what jobs continue, as far as any job needs it.

    A job's last token is not run here but in its first step.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model; its hooks are on.
    jobs : sequence of Job
        All that will come.
    edits : RowEdits
        The edits that jobs carry.
    device : torch.device
        Where the model is.
    share : bool
        Whether beginnings may be run apart: not under hooks that may look at a whole text.
    """

    def __init__(
        self, model: Any, jobs: Sequence[Job], edits: RowEdits, device: torch.device, share: bool
    ) -> None:
        self.model = model
        self.edits = edits
        self.device = device
        # Of every prefix: jobs that have not entered, and how far it is needed.
        self.pending = Counter(job.prefix for job in jobs)
        self.longest: dict[Prefix, int] = {}
        for job in jobs:
            self.longest[job.prefix] = max(self.longest.get(job.prefix, 0), job.length)
        self.shared = self._shared(jobs) if share else {}
        self.beginnings: dict[Kind, list[Pair]] = {}
        self.done: dict[Prefix, tuple[list[Pair], int]] = {}
        # Tokens run for a prefix that no job has been charged for.
        self.open: Counter[Prefix] = Counter()

    def lacks(self, jobs: Sequence[Job]) -> bool:
        """Whether something that these jobs continue has not been run."""
        return any(job.prefix not in self.done for job in jobs)

    def run(self, jobs: Sequence[Job], lean: LeanPass | None) -> None:
        """Run every prefix that is new, right-padded, those of like length together."""
        new: dict[Kind | None, dict[Prefix, Job]] = {}
        for job in jobs:
            if job.prefix not in self.done:
                kind = _kind(job) if _kind(job) in self.shared else None
                new.setdefault(kind, {})[job.prefix] = job
        for kind, prefixes in new.items():
            waiting = list(prefixes.values())
            past = None
            begin = 0
            if kind is not None:
                begin = self.shared[kind]
                if kind not in self.beginnings:
                    self.beginnings[kind] = self._pass(waiting[:1], [begin], lean)
                    self.open[waiting[0].prefix] += begin
                past = self.beginnings[kind]
            lengths = [max(1, self.longest[prefix] - 1) - begin for prefix in prefixes]
            for numbers in length_bins(lengths, len(waiting)):
                part = [waiting[number] for number in numbers]
                layers = self._pass(part, [lengths[number] for number in numbers], lean, past)
                for row, number in enumerate(numbers):
                    self.done[part[row].prefix] = layers, row
                    self.open[part[row].prefix] += lengths[number]

    def shapes(self, job: Job) -> list[Pair]:
        """The pass that ran what a job continues."""
        return self.done[job.prefix][0]

    def enter(self, cache: RowCache, rows: list[int], jobs: list[Job]) -> None:
        """Give each row what its job continues; what no other job needs is let go."""
        passes: dict[int, list[tuple[int, Job]]] = {}
        for row, job in zip(rows, jobs, strict=True):
            passes.setdefault(id(self.shapes(job)), []).append((row, job))
        for members in passes.values():
            places = [row for row, _ in members]
            sources = [self.done[job.prefix][1] for _, job in members]
            lengths = [job.length - 1 for _, job in members]
            cache.enter(places, self.shapes(members[0][1]), sources, lengths)
        for job in jobs:
            self.pending[job.prefix] -= 1
            if not self.pending[job.prefix]:
                del self.done[job.prefix]

    def charge(self, job: Job) -> tuple[int, int]:
        """Tokens of a job's prefix that were run for it, and those that others' passes serve. The
        first job of a prefix is charged for all of it, also where others need more of it."""
        run = self.open.pop(job.prefix, 0)
        return run, max(0, job.length - 1 - run)

    def _shared(self, jobs: Sequence[Job]) -> dict[Kind, int]:
        """How many tokens all prefixes under the same edits begin with, where it pays to know."""
        kinds: dict[Kind, dict[Prefix, Job]] = {}
        for job in jobs:
            kinds.setdefault(_kind(job), {})[job.prefix] = job
        shared: dict[Kind, int] = {}
        if len(kinds) > MOST_KEPT:
            return shared
        for kind, prefixes in kinds.items():
            first, *others = prefixes.values()
            # Every row of a pass behind the beginning holds a token at least.
            length = min(self.longest[prefix] for prefix in prefixes) - 2
            for job in others:
                if length < SHORTEST:
                    break
                alike = first.trunk[:length] == job.trunk[:length]
                length = int(alike.long().cumprod(0).sum())
            if length >= SHORTEST and length * len(others) >= PASS:
                shared[kind] = length
        return shared

    def _pass(
        self,
        jobs: Sequence[Job],
        lengths: Sequence[int],
        lean: LeanPass | None,
        past: list[Pair] | None = None,
    ) -> list[Pair]:
        """One pass over so many tokens of every job, behind a beginning that all share."""
        begin = past[0][0].shape[2] if past else 0
        tokens = torch.zeros(len(jobs), max(lengths), dtype=torch.long)
        positions = torch.full_like(tokens, -1)
        for row, (job, length) in enumerate(zip(jobs, lengths, strict=True)):
            tokens[row, :length] = job.trunk[begin : begin + length]
            positions[row, :length] = torch.arange(begin, begin + length)
        codes = [self.edits.code(job.edits) for job in jobs]
        rows = torch.tensor(codes).long().to(self.device)
        note(prefill=sum(lengths), passes=1)
        self.edits.set(rows, positions.to(self.device))
        tokens = tokens.to(self.device)
        if lean:
            return lean.prefill(tokens, past)
        mask = torch.ones(len(jobs), begin + tokens.shape[1], dtype=torch.long, device=self.device)
        _, cache = forward_step(self.model, tokens, mask, _cache(past, len(jobs)))
        return [(layer.keys, layer.values) for layer in cache.layers]


def _kind(job: Job) -> Kind:
    return job.prefix[1:]


def _cache(past: list[Pair] | None, rows: int) -> DynamicCache | None:
    """The beginning in front of so many rows, as HuggingFace models take it."""
    if past is None:
        return None
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(past):
        every = keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)
        cache.update(*every, layer)
    return cache
