"""The decode loop of the package: one prefill forks into many continuations, finished rows leave,
waiting ones enter.

It knows tokens, not text. Every row draws from its own generator, keyed by the job, so neither
batch size nor order changes a result (in float32, up to rounding of the logits).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int

from mechreward.base import streams
from mechreward.base.errors import require
from mechreward.base.progress import progress
from mechreward.models.cache import Pair, RowCache
from mechreward.models.capture import Capture, Catcher, Caught
from mechreward.models.fast_pass import LeanPass
from mechreward.models.load import device_of, forward_step
from mechreward.models.policy import Policy, draw
from mechreward.models.row_edits import Edit, RowEdits

Hooks = Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class Job:
    """Continue the first `length` tokens of `trunk`, at most `max_new` more, with the generator of
    `key`, under `edits` of its own.

    Jobs that share a trunk (the same tensor) and edits share its one prefill.
    """

    trunk: Int[torch.Tensor, " pos"]
    length: int
    max_new: int
    key: tuple[int | str, ...]
    edits: tuple[Edit, ...] = ()

    @property
    def prefix(self) -> tuple[int, ...]:
        """What has to be prefilled once."""
        return (id(self.trunk), *map(id, self.edits))


@dataclass(frozen=True)
class Continuation:
    """New tokens (the end-of-sequence token included, if it was drawn) and the model's
    log-probability of each; `caught` is what the call captured of the job."""

    tokens: Int[torch.Tensor, " gen"]
    logprobs: Float[torch.Tensor, " gen"]
    finished: bool
    caught: Caught | None = None


@torch.no_grad()
def generate(
    model: Any,
    jobs: Sequence[Job],
    *,
    eos: int,
    policy: Policy | None = None,
    batch: int = 256,
    hooks: Hooks = (),
    capture: Capture | None = None,
    what: str | None = None,
) -> list[Continuation]:
    """Run every job; results come in the order of the jobs.

    Args:
        batch: rows decoded at once.
        hooks: TransformerLens `(name, fn)` pairs that stay on during prefill and decoding.
        capture: what to catch meanwhile, edits and hooks included. The last token of every job,
            which nothing needs to be drawn after, is then run as well.
        what: title of a progress bar; None for none.

    Raises:
        MechRewardError: a job with nothing to continue or no room for a token, batch < 1, or a
            captured site the model lacks.
    """
    policy = policy or Policy()
    require(
        batch >= 1, f"batch counts rows decoded at once and must be at least 1; {batch} was given."
    )
    for job in jobs:
        require(
            1 <= job.length <= len(job.trunk) and job.max_new >= 1,
            f"a job continues 1 to {len(job.trunk)} tokens by at least 1; got {job.length} and {job.max_new}.",
        )
    if not jobs:
        return []
    run = _Run(model, jobs, policy, eos, min(batch, len(jobs)), capture)
    changes, readers = [*run.edits.hooks(), *hooks], run.catcher.hooks() if run.catcher else []
    if not hooks and LeanPass.fits(model):
        run.lean = LeanPass(model, changes, readers)
    bar = progress(what, "rollout", total=len(jobs))
    with bar, _hooked(model, [*changes, *readers]):
        while len(run.done) < len(jobs) or run.leaving:
            run.refill()
            bar.update(run.step())
    run.edits.check()
    said = [run.done[i] for i in range(len(jobs))]
    if run.catcher is None:
        return said
    return [
        replace(one, caught=caught) for one, caught in zip(said, run.catcher.results(), strict=True)
    ]


class _Run:
    """One call of `generate`: rows that decode together, each at its own place in its own job.

    A row that has ended goes on, unread, until an eighth of all rows have: then waiting jobs take
    their places, or, when none waits, the last rows move up.
    """

    def __init__(
        self,
        model: Any,
        jobs: Sequence[Job],
        policy: Policy,
        eos: int,
        capacity: int,
        capture: Capture | None,
    ) -> None:
        self.model, self.jobs, self.policy, self.eos, self.capacity = (
            model,
            jobs,
            policy,
            eos,
            capacity,
        )
        device = self.device = device_of(model)
        # Jobs of one prefix stay together; long ones first, so that the last rows to run are short.
        groups = {job.prefix: i for i, job in reversed(list(enumerate(jobs)))}
        order = sorted(
            range(len(jobs)), key=lambda i: (-len(jobs[i].trunk), groups[jobs[i].prefix], i)
        )
        self.waiting = order[::-1]
        self.pending = Counter(job.prefix for job in jobs)
        self.prefilled: dict[tuple[int, ...], tuple[list[Pair], int]] = {}
        self.edits = RowEdits((job.edits for job in jobs), device)
        self.lean: LeanPass | None = None
        self.catcher: Catcher | None = None
        if capture is not None:
            for site in capture.read:
                site.check(model)
            self.catcher = Catcher(capture, [job.length - 1 for job in jobs], capacity, device)
        self.done: dict[int, Continuation] = {}
        self.leaving: list[int] = []
        self.cache: RowCache | None = None
        self.ids: list[int] = []
        self.gone: list[int] = []
        self.longest: dict[tuple[int, ...], int] = {}
        for job in jobs:
            self.longest[job.prefix] = max(self.longest.get(job.prefix, 0), job.length)
        room = max(job.max_new for job in jobs)
        self.next = torch.zeros(capacity, dtype=torch.long, device=device)
        self.length = torch.zeros(capacity, dtype=torch.long, device=device)
        self.said = torch.zeros(capacity, dtype=torch.long, device=device)
        self.limit = torch.zeros(capacity, dtype=torch.long, device=device)
        self.codes = torch.zeros(capacity, len(self.edits.tables), dtype=torch.long, device=device)
        self.uniforms = torch.zeros(capacity, room, dtype=torch.float64, device=device)
        self.tokens = torch.zeros(capacity, room, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(capacity, room, device=device)
        self.live = torch.zeros(capacity, dtype=torch.bool, device=device)

    def refill(self) -> None:
        """Put waiting jobs where rows have ended, once enough have; without any, close the gaps."""
        free = [*self.gone, *range(len(self.ids), self.capacity)]
        if self.waiting and 8 * len(free) >= self.capacity:
            fresh = [self.waiting.pop() for _ in range(min(len(free), len(self.waiting)))]
            self._enter(free[: len(fresh)], fresh)
        if not self.waiting and 8 * len(self.gone) >= len(self.ids):
            self._close_gaps()

    def step(self) -> int:
        """One token for every row; returns how many answers ended."""
        cache, n = self.cache, len(self.ids)
        if cache is None:
            raise RuntimeError("rows enter before a step")
        mask = cache.open()
        if self.edits.tables:
            self.edits.set(self.codes[:n], self.length[:n, None] - 1)
        if self.catcher:
            self.catcher.expect(self.ids)
        if self.lean:
            logits = self.lean.decode(self.next[:n], mask, cache)
        else:
            logits, _ = forward_step(self.model, self.next[:n, None], mask, cache)
        cache.close()
        if self.catcher:
            self.catcher.done()
            self._release()
        # A row that has ended writes over what was collected from it.
        at = torch.arange(n, device=self.device), self.said[:n].clamp(max=self.tokens.shape[1] - 1)
        drawn = draw(logits, self.policy, self.uniforms[at])
        self.tokens[at] = self.next[:n] = drawn
        self.logprobs[at] = logits.log_softmax(-1).gather(1, drawn[:, None])[:, 0]
        self.length[:n] += 1
        self.said[:n] += 1
        over = self.live[:n] & ((drawn == self.eos) | (self.said[:n] >= self.limit[:n]))
        marks = over[None]
        if self.catcher and self.catcher.chooses:
            marks = torch.stack([over, over | self.catcher.ending(drawn)])
        # The one place of a step that waits for the device.
        found = torch.nonzero(marks).tolist()
        if self.catcher:
            self.catcher.mark(self.ids[row] for which, row in found if which)
        ended = [row for which, row in found if not which]
        if ended:
            self._collect(ended)
        return len(ended)

    def _collect(self, ended: list[int]) -> None:
        """Keep the answers of rows that have just ended, and stop counting the rows."""
        said = self.said[ended].tolist()
        tokens, logprobs = self.tokens[ended].cpu(), self.logprobs[ended].cpu()
        for row, n, words, scores in zip(ended, said, tokens, logprobs, strict=True):
            self.done[self.ids[row]] = Continuation(
                words[:n].clone(), scores[:n].clone(), int(words[n - 1]) == self.eos
            )
        self.live[ended] = False
        self.leaving = [self.ids[row] for row in ended]
        if self.catcher is None:
            self._release()

    def _release(self) -> None:
        """Rows whose answers are over become free. A capture first needs the pass in which their
        last token is run."""
        rows = [self.ids.index(job) for job in self.leaving]
        if self.catcher:
            self.catcher.leave(self.leaving)
        self.codes[rows] = 0
        self.gone += rows
        self.leaving = []

    def _enter(self, rows: list[int], fresh: list[int]) -> None:
        """Prefill what these jobs need and nobody has prefilled; then each takes its row."""
        jobs = [self.jobs[i] for i in fresh]
        if any(job.prefix not in self.prefilled for job in jobs):
            # With what half as many rows will need next: fewer and larger passes, for half as much
            # memory more.
            self._prefill(
                [*jobs, *(self.jobs[i] for i in self.waiting[: -self.capacity // 2 - 1 : -1])]
            )
        if self.cache is None:
            layers, _ = self.prefilled[jobs[0].prefix]
            self.cache = RowCache(self.capacity, max(job.length for job in self.jobs) - 1, layers)
        self.gone = [row for row in self.gone if row not in set(rows)]
        passes: dict[int, list[tuple[int, Job]]] = {}
        for row, job in zip(rows, jobs, strict=True):
            passes.setdefault(id(self.prefilled[job.prefix][0]), []).append((row, job))
        for members in passes.values():
            layers, _ = self.prefilled[members[0][1].prefix]
            sources = [self.prefilled[job.prefix][1] for _, job in members]
            self.cache.enter(
                [row for row, _ in members], layers, sources, [job.length - 1 for _, job in members]
            )
        for row, i, job in zip(rows, fresh, jobs, strict=True):
            self.ids[row : row + 1] = [i]
            if self.catcher:
                self.catcher.enter(i, row)
            self.uniforms[row, : job.max_new] = torch.from_numpy(
                streams.rng(*job.key).random(job.max_new)
            )
            self.pending[job.prefix] -= 1
            if not self.pending[job.prefix]:
                del self.prefilled[job.prefix]
        self.cache.window.rows = len(self.ids)
        self.next[rows] = torch.tensor(
            [int(job.trunk[job.length - 1]) for job in jobs], device=self.device
        )
        self.length[rows] = torch.tensor([job.length for job in jobs], device=self.device)
        self.limit[rows] = torch.tensor([job.max_new for job in jobs], device=self.device)
        self.codes[rows] = torch.tensor(
            [self.edits.code(job.edits) for job in jobs], device=self.device
        ).long()
        self.said[rows], self.live[rows] = 0, True

    def _close_gaps(self) -> None:
        """The last rows move into the places of rows that have ended."""
        n = len(self.ids) - len(self.gone)
        to = sorted(row for row in self.gone if row < n)
        source = [row for row in range(n, len(self.ids)) if row not in self.gone]
        if self.cache is not None:
            self.cache.move(source, to, n)
        for name in (
            "next",
            "length",
            "said",
            "limit",
            "codes",
            "uniforms",
            "tokens",
            "logprobs",
            "live",
        ):
            values = getattr(self, name)
            values[to] = values[source]
        for here, there in zip(source, to, strict=True):
            self.ids[there] = self.ids[here]
        del self.ids[n:]
        self.gone = []

    def _prefill(self, jobs: Sequence[Job]) -> None:
        """Run every prefix that is new once, right-padded, as far as any job will need it: a job's
        last token is run in its first step."""
        new = {job.prefix: job for job in jobs if job.prefix not in self.prefilled}
        lengths = [max(1, self.longest[prefix] - 1) for prefix in new]
        tokens = torch.zeros(len(new), max(lengths), dtype=torch.long)
        positions = torch.full_like(tokens, -1)
        for row, (job, length) in enumerate(zip(new.values(), lengths, strict=True)):
            tokens[row, :length] = job.trunk[:length]
            positions[row, :length] = torch.arange(length)
        codes = torch.tensor([self.edits.code(job.edits) for job in new.values()]).long()
        self.edits.set(codes.to(self.device), positions.to(self.device))
        tokens = tokens.to(self.device)
        if self.lean:
            layers = self.lean.prefill(tokens)
        else:
            _, cache = forward_step(self.model, tokens, torch.ones_like(tokens), None)
            layers = [(layer.keys, layer.values) for layer in cache.layers]
        self.prefilled |= {prefix: (layers, row) for row, prefix in enumerate(new)}


def _hooked(model: Any, hooks: Hooks) -> Any:
    return model.hooks(fwd_hooks=list(hooks)) if hooks else nullcontext()
