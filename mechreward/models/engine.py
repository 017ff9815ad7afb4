"""The decode loop: one prefill forks into many continuations, finished rows make room.

It knows tokens, not text. Every row draws from its own generator, keyed by the job, so neither
batch size nor order changes a result (in float32, up to rounding of the logits).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from mechreward.base import streams
from mechreward.base.errors import require
from mechreward.base.progress import bar
from mechreward.models import shards
from mechreward.models.ability import evaluation
from mechreward.models.cache import RowCache
from mechreward.models.capture import Capture, Catcher
from mechreward.models.fast_pass import LeanPass
from mechreward.models.finite import not_finite, where_not_finite
from mechreward.models.jobs import Continuation, Job, Prefix, Spread, check_jobs
from mechreward.models.load import device_of, forward_step
from mechreward.models.policy import Policy, draw
from mechreward.models.prefill import Prefixes
from mechreward.models.row_edits import RowEdits
from mechreward.models.stops import Endings, Until
from mechreward.models.work import note

Hooks = Sequence[tuple[str, Any]]


@torch.no_grad()
def generate(
    model: Any,
    jobs: Sequence[Job],
    *,
    eos: int | Iterable[int],
    policy: Policy | None = None,
    batch: int = 256,
    hooks: Hooks = (),
    capture: Capture | None = None,
    until: Until | None = None,
    spread: bool = False,
    progress: bool | str = False,
) -> list[Continuation]:
    """Run every job; results come in the order of the jobs.

    Under `models.shards.kept_in` they are kept shard by shard, unless hooks, whose effect no name
    can tell, or something else than the policy that is caught or ends rows, belong to them.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        A TransformerBridge or HookedTransformer.
    jobs : sequence of Job
        What to continue.
    eos : int or iterable of int
        The token, or tokens, that end a row.
    policy : Policy or None, default None
        How tokens are drawn; the model's own distribution if None.
    batch : int, default 256
        Rows decoded at once.
    hooks : sequence of (str, function), default ()
        TransformerLens `(name, fn)` pairs that stay on during prefill and decoding.
    capture : Capture or None, default None
        What to catch meanwhile, edits and hooks included. The last token of every job, which
        nothing needs to be drawn after, is then run as well.
    until : Until or None, default None
        What ends rows besides the policy, such as `rollouts.steps.StepEnd`.
    spread : bool, default False
        Whether entropy and self-certainty of every distribution are measured.
    progress : bool or str, default False
        Whether a bar is shown, or its title.

    Returns
    -------
    list of Continuation
        One for each job.

    Raises
    ------
    MechRewardError
        Before any work: a job with nothing to continue, no room for a token, more tokens than the
        model's context, or tokens outside its vocabulary; batch < 1; a captured site the model
        lacks. As soon as an answer is over: logits that are not finite; in the end: what was
        captured that is not.
    """
    policy = policy or Policy()
    require(
        batch >= 1, f"batch counts rows decoded at once and must be at least 1; {batch} was given."
    )
    check_jobs(model, jobs)
    if not jobs:
        return []
    ends = frozenset([eos] if isinstance(eos, int) else eos)
    place = shards.place()
    if place is None or hooks or capture is not None or until is not None or spread:
        wanted = _Wanted(capture, until, spread)
        return _generate(model, jobs, ends, policy, batch, hooks, wanted, progress)

    def run(some: list[Job], title: bool | str) -> list[Continuation]:
        return _generate(model, some, ends, policy, batch, (), _Wanted(), title)

    kept = shards.Shards(place.folder, model, policy, ends)
    return kept.filled(jobs, run, place.least, progress)


def _generate(
    model: Any,
    jobs: Sequence[Job],
    ends: frozenset[int],
    policy: Policy,
    batch: int,
    hooks: Hooks,
    wanted: _Wanted,
    progress: bool | str,
) -> list[Continuation]:
    """Run these jobs together."""
    run = _Run(model, jobs, policy, ends, min(batch, len(jobs)), wanted, share=not hooks)
    changes = [*run.edits.hooks(), *hooks]
    readers = run.catcher.hooks() if run.catcher else []
    if not hooks and LeanPass.fits(model):
        run.lean = LeanPass(model, changes, readers)
    counter = bar(progress, "rollouts", "rollout", total=len(jobs))
    longest = max(job.length + job.max_new for job in jobs)
    with counter, evaluation(model, longest), _hooked(model, [*changes, *readers]):
        while len(run.done) < len(jobs) or run.leaving:
            run.refill()
            counter.update(run.step())
    run.edits.check()
    continuations = [run.done[number] for number in range(len(jobs))]
    if run.catcher is None:
        return continuations
    for number, caught in enumerate(run.catcher.results()):
        continuations[number] = replace(continuations[number], caught=caught)
        continuations[number].check(jobs[number], number)
    return continuations


class _Wanted(NamedTuple):
    """What a call asks for besides answers."""

    capture: Capture | None = None
    until: Until | None = None
    spread: bool = False


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
        eos: frozenset[int],
        capacity: int,
        wanted: _Wanted,
        share: bool,
    ) -> None:
        self.model = model
        self.jobs = jobs
        self.policy = policy
        self.eos = eos
        self.capacity = capacity
        device = self.device = device_of(model)
        self.ends = torch.tensor(sorted(eos), dtype=torch.long, device=device)
        first: dict[Prefix, int] = {}
        for number, job in enumerate(jobs):
            first.setdefault(job.prefix, number)

        # Jobs of one prefix stay together; long ones first, so that the last rows to run are short.
        def turn(number: int) -> tuple[int, int, int]:
            job = jobs[number]
            return -len(job.trunk), first[job.prefix], number

        self.waiting = sorted(range(len(jobs)), key=turn)[::-1]
        self.edits = RowEdits((job.edits for job in jobs), device)
        self.prefixes = Prefixes(model, jobs, self.edits, device, share)
        self.lean: LeanPass | None = None
        self.endings = Endings(model, policy.stop, wanted.until, device)
        self.catcher: Catcher | None = None
        capture = wanted.capture
        if capture is not None:
            for site in capture.read:
                site.check(model)
            starts = [job.length - 1 for job in jobs]
            self.catcher = Catcher(capture, starts, capacity, device)
        self.done: dict[int, Continuation] = {}
        self.charged: dict[int, tuple[int, int]] = {}  # of every job: prefilled tokens, and cached
        self.leaving: list[int] = []
        self.cache: RowCache | None = None
        self.ids: list[int] = []
        self.gone: list[int] = []
        room = max(job.max_new for job in jobs)

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> torch.Tensor:
            return torch.zeros(capacity, *shape, dtype=dtype, device=device)

        self.next = zeros()
        self.length = zeros()
        self.said = zeros()
        self.limit = zeros()
        self.codes = zeros(len(self.edits.tables))
        self.uniforms = zeros(room, dtype=torch.float64)
        self.tokens = zeros(room)
        self.logprobs = zeros(room, dtype=torch.float32)
        self.spread = Spread(*(zeros(room, dtype=torch.float32) for _ in range(2)))
        self.measures = wanted.spread
        self.live = zeros(dtype=torch.bool)

    def refill(self) -> None:
        """Put waiting jobs where rows have ended, once enough have; without any, close the gaps."""
        free = [*self.gone, *range(len(self.ids), self.capacity)]
        if self.waiting and 8 * len(free) >= self.capacity:
            count = min(len(free), len(self.waiting))
            fresh = [self.waiting.pop() for _ in range(count)]
            self._enter(free[:count], fresh)
        if not self.waiting and 8 * len(self.gone) >= len(self.ids):
            self._close_gaps()

    def step(self) -> int:
        """One token for every row; returns how many answers ended."""
        cache, n = self.cache, len(self.ids)
        if cache is None:
            raise RuntimeError("rows enter before a step")
        note(decoded=n - len(self.gone), passes=1)
        mask = cache.open(self.live[:n])
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
        column = self.said[:n].clamp(max=self.tokens.shape[1] - 1)
        place = torch.arange(n, device=self.device), column
        drawn = draw(logits, self.policy, self.uniforms[place])
        self.tokens[place] = drawn
        self.next[:n] = drawn
        logprobs = logits.log_softmax(-1)
        self.logprobs[place] = logprobs.gather(1, drawn[:, None])[:, 0]
        if self.measures:
            spread = Spread.of(logprobs.float())
            self.spread.entropy[place] = spread.entropy
            self.spread.certainty[place] = spread.certainty
        self.length[:n] += 1
        self.said[:n] += 1
        full = self.said[:n] >= self.limit[:n]
        over = self.live[:n] & ((drawn[:, None] == self.ends).any(-1) | full)
        marks = [over]
        if self.catcher and self.catcher.chooses:
            marks.append(over | self.catcher.ending(drawn))
        may_end = self.endings.may_end(logits.shape[1])
        marks += [self.live[:n] & tokens[drawn] for tokens in may_end]
        # The one place of a step that waits for the device.
        marked: list[list[int]] = [[] for _ in marks]
        for kind, row in torch.nonzero(torch.stack(marks)).tolist():
            marked[kind].append(row)
        asked = marked[len(marked) - len(may_end) :]
        stopped, early = self.endings.reached(asked, self._grown)
        ended = sorted({*marked[0], *early})
        if self.catcher:
            caught = {*marked[1], *early} if self.catcher.chooses else early
            self.catcher.mark(self.ids[row] for row in sorted(caught))
        if ended:
            self._collect(ended, stopped)
        return len(ended)

    def _grown(self, row: int) -> tuple[Job, torch.Tensor]:
        """The job in a row, and its new tokens so far."""
        return self.jobs[self.ids[row]], self.tokens[row, : int(self.said[row])].cpu()

    def _collect(self, ended: list[int], stopped: set[int]) -> None:
        """Keep the answers of rows that have just ended, and stop counting the rows."""
        lengths = self.said[ended].tolist()
        tokens = self.tokens[ended].cpu()
        logprobs = self.logprobs[ended].cpu()
        for i, row in enumerate(ended):
            answer = tokens[i, : lengths[i]].clone()
            scores = logprobs[i, : lengths[i]].clone()
            self._check(self.ids[row], answer, scores)
            finished = int(answer[-1]) in self.eos or row in stopped
            spread = self.spread.of_row(row, lengths[i]) if self.measures else None
            prefill, cached = self.charged.pop(self.ids[row])
            self.done[self.ids[row]] = Continuation(
                answer, scores, finished, None, spread, prefill, cached
            )
        self.leaving = [self.ids[row] for row in ended]
        if self.catcher is None:
            self._release()

    def _check(self, number: int, answer: torch.Tensor, logprobs: torch.Tensor) -> None:
        """Raise MechRewardError if any logits of an answer were not finite.

        The flag that stays on the device until then is the log-probability of what was drawn: a
        logit that is infinite or no number leaves none that is finite.
        """
        wrong = torch.nonzero(~logprobs.isfinite())
        if not len(wrong):
            return
        job = self.jobs[number]
        text = torch.cat([job.trunk[: job.length], answer[: int(wrong[0])]]).to(self.device)
        codes = torch.tensor([self.edits.code(job.edits)]).long().to(self.device)
        self.edits.set(codes, torch.arange(len(text), device=self.device)[None])
        site, position = where_not_finite(self.model, text)
        raise not_finite(job.name(number), site, position)

    def _release(self) -> None:
        """Rows whose answers are over become free; a capture needs the last token's pass before."""
        rows = [self.ids.index(job) for job in self.leaving]
        if self.catcher:
            self.catcher.leave(self.leaving)
        self.codes[rows] = 0
        self.live[rows] = False
        self.gone += rows
        self.leaving = []

    def _enter(self, rows: list[int], fresh: list[int]) -> None:
        """Prefill what these jobs need and nobody has prefilled; then each takes its row."""
        jobs = [self.jobs[i] for i in fresh]
        if self.prefixes.lacks(jobs):
            # With what half as many rows will need next: fewer and larger passes, for half as much
            # memory more.
            ahead = self.waiting[: -self.capacity // 2 - 1 : -1]
            self.prefixes.run([*jobs, *(self.jobs[i] for i in ahead)], self.lean)
        if self.cache is None:
            widest = max(job.length for job in self.jobs) - 1
            self.cache = RowCache(self.capacity, widest, self.prefixes.shapes(jobs[0]))
        self.prefixes.enter(self.cache, rows, jobs)
        self.gone = [row for row in self.gone if row not in set(rows)]
        for row, i, job in zip(rows, fresh, jobs, strict=True):
            self.ids[row : row + 1] = [i]
            self.charged[i] = self.prefixes.charge(job)
            if self.catcher:
                self.catcher.enter(i, row)
            uniforms = streams.rng(*job.key).random(job.drawn + job.max_new)[job.drawn :]
            self.uniforms[row, : job.max_new] = torch.from_numpy(uniforms)
        self.cache.window.rows = len(self.ids)

        def column(numbers: Sequence[Any]) -> torch.Tensor:
            return torch.tensor(numbers, device=self.device).long()

        self.next[rows] = column([int(job.trunk[job.length - 1]) for job in jobs])
        self.length[rows] = column([job.length for job in jobs])
        self.limit[rows] = column([job.max_new for job in jobs])
        self.codes[rows] = column([self.edits.code(job.edits) for job in jobs])
        self.said[rows] = 0
        self.live[rows] = True

    def _close_gaps(self) -> None:
        """The last rows move into the places of rows that have ended."""
        n = len(self.ids) - len(self.gone)
        to = sorted(row for row in self.gone if row < n)
        source = [row for row in range(n, len(self.ids)) if row not in self.gone]
        if self.cache is not None:
            self.cache.move(source, to, n)
        columns = (
            self.next,
            self.length,
            self.said,
            self.limit,
            self.codes,
            self.uniforms,
            self.tokens,
            self.logprobs,
            self.spread.entropy,
            self.spread.certainty,
            self.live,
        )
        for column in columns:
            column[to] = column[source]
        for row, place in zip(source, to, strict=True):
            self.ids[place] = self.ids[row]
        del self.ids[n:]
        self.gone = []


def _hooked(model: Any, hooks: Hooks) -> Any:
    return model.hooks(fwd_hooks=list(hooks)) if hooks else nullcontext()
