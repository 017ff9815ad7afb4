"""Rollouts that are watched while they are generated: whole ones, or stopped where a rule says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mechreward.models.capture import Capture
from mechreward.models.engine import Job, generate
from mechreward.models.identity import ModelId
from mechreward.models.jobs import Continuation
from mechreward.models.policy import Policy
from mechreward.models.text import decode, eos_ids
from mechreward.rollouts.sample import answer_key, prompt_of
from mechreward.rollouts.steps import StepEnd, step_ends
from mechreward.rollouts.trajectory import Rollouts, Trajectory
from mechreward.tasks import Problem, Task
from mechreward.tasks.base import Verdict
from mechreward.tasks.judge import judge
from mechreward.uses.exit_rules import Exit, Points
from mechreward.uses.exit_signals import Asker, Point, Readers, Trail, put, signals_at
from mechreward.uses.search.search import UNJUDGED

STOPPED = Verdict("unverifiable", "stopped early")


class Watcher:
    """One answer to every problem, that of `sample` with the same seed, with signals at its points.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model that answers.
    problems : sequence of Problem
        Of one task.
    task : Task
        Cuts steps, sets the limit and verifies.
    readers : Readers
        Values that are read in the generating pass.
    asker : Asker or None
        Asks for early answers; None where none is needed.
    policy : Policy
        How tokens are drawn.
    block : int or None
        Tokens between points; None: ends of steps.
    seed : int
        Of the answers.
    batch : int
        Rows decoded at once.
    """

    def __init__(
        self,
        model: Any,
        problems: Sequence[Problem],
        task: Task,
        readers: Readers,
        asker: Asker | None,
        *,
        policy: Policy,
        block: int | None,
        seed: int,
        batch: int,
    ) -> None:
        self.model = model
        self.task = task
        self.readers = readers
        self.asker = asker
        self.policy = policy
        self.block = block
        self.seed = seed
        self.batch = batch
        self.limit = policy.limit(task)
        self.eos = eos_ids(model)
        self.step_end = StepEnd(model, task)
        self.trails: list[Trail] = []
        width = len(readers.names)
        for problem in problems:
            self.trails.append(Trail(problem, prompt_of(model, problem), torch.zeros(0, width)))
        if asker is not None:
            asker.check(max(len(trail.prompt) for trail in self.trails) + self.limit)

    def whole(self, rules: Sequence[Exit], every: bool, progress: bool | str) -> None:
        """All rollouts to their ends. Answers are asked for at every point, or where a rule stops
        above."""
        for trail, row in self._continue(self.trails, self.limit, None, progress):
            trail.extend(row, self.readers.of(row))
        there = []
        for trail in self.trails:
            for tokens in self._ends(trail):
                there.append((trail, self._point(trail, tokens)))
        if self.asker is None:
            return
        if not every:
            first: dict[int, tuple[Trail, Point]] = {}
            for trail, point in there:
                if _rule(rules, point) is not None:
                    first.setdefault(id(trail), (trail, point))
            there = [(trail, point) for trail, point in first.values() if _above(rules, point)]
        self._ask(there, progress)

    def live(self, rules: Sequence[Exit], every: bool, progress: bool | str) -> None:
        """A step of all rollouts at a time, until each has ended or a rule stops it."""
        until = None if self.block else self.step_end
        growing = self.trails
        number = 1
        while growing:
            title = progress
            if progress:
                title = f"{progress if isinstance(progress, str) else 'early exit'}, step {number}"
            room = self.block or self.limit
            there = []
            for trail, row in self._continue(growing, room, until, title):
                trail.extend(row, self.readers.of(row))
                if not trail.finished and len(trail.tokens) < self.limit:
                    there.append((trail, self._point(trail, len(trail.tokens))))
            if every:
                self._ask(there, False)
            growing = []
            for trail, point in there:
                if _rule(rules, point) is None:
                    growing.append(trail)
            if not every:
                self._ask([pair for pair in there if _above(rules, pair[1])], False)
            number += 1

    def _continue(
        self, trails: Sequence[Trail], room: int, until: StepEnd | None, progress: bool | str
    ) -> list[tuple[Trail, Continuation]]:
        jobs = []
        for trail in trails:
            done = len(trail.tokens)
            text = trail.text
            key = answer_key(self.seed, trail.problem)
            most = min(room, self.limit - done)
            job = Job(text, len(text), most, key, problem=trail.problem.id, begun=done, drawn=done)
            jobs.append(job)
        reads = self.readers.reads()
        rows = generate(
            self.model,
            jobs,
            eos=self.eos,
            policy=self.policy,
            batch=self.batch,
            capture=Capture(reads) if reads else None,
            until=until,
            spread=True,
            progress=progress,
        )
        return list(zip(trails, rows, strict=True))

    def _point(self, trail: Trail, tokens: int) -> Point:
        point = Point(tokens, signals_at(trail, tokens, self.readers.names, self.seed))
        trail.points.append(point)
        return point

    def _ask(self, there: Sequence[tuple[Trail, Point]], progress: bool | str) -> None:
        if self.asker is None:
            return
        at = [(trail, point.tokens) for trail, point in there]
        for (trail, point), forced in zip(there, self.asker.ask(at, progress), strict=True):
            put(trail, point, forced)

    def _ends(self, trail: Trail) -> list[int]:
        """Tokens behind which a whole rollout could have been stopped: where `StepEnd` would have
        ended its steps."""
        length = len(trail.tokens)
        if self.block:
            return list(range(self.block, length, self.block))
        prompt_len = len(trail.prompt)
        ends = self.step_end.behind(trail.text, prompt_len)
        return [end + 1 - prompt_len for end in ends]

    def stopped(self, rules: Sequence[Exit]) -> list[bool]:
        """Which rollouts a rule has stopped live: those whose last point one crosses."""
        stopped = []
        for trail in self.trails:
            stopped.append(bool(trail.points) and _rule(rules, trail.points[-1]) is not None)
        return stopped

    def rollouts(self, stopped: Sequence[bool], identity: ModelId) -> Rollouts:
        """What was generated; what was stopped early has no verdict."""
        ended = [trail for trail, early in zip(self.trails, stopped, strict=True) if not early]
        verdicts = [UNJUDGED] * len(ended)
        if self.task.verifies:
            problems = [trail.problem for trail in ended]
            texts = [decode(self.model, trail.tokens) for trail in ended]
            finished = [trail.finished for trail in ended]
            verdicts = judge(self.task, problems, texts, finished)
        left = iter(verdicts)
        runs = []
        for trail, early in zip(self.trails, stopped, strict=True):
            ends, _ = step_ends(self.model, self.task, trail.text, len(trail.prompt))
            run = Trajectory(
                problem_id=trail.problem.id,
                tokens=trail.text,
                prompt_len=len(trail.prompt),
                step_ends=ends,
                verdict=STOPPED if early else next(left),
                logprobs=trail.logprobs,
                ended=trail.finished,
                seed=self.seed,
            )
            runs.append(run)
        problems = tuple(trail.problem for trail in self.trails)
        return Rollouts(tuple(runs), problems, self.policy, identity, self.seed)

    def points(self) -> Points:
        """Those of all rollouts."""
        numbers, points = [], []
        for number, trail in enumerate(self.trails):
            numbers += [number] * len(trail.points)
            points += trail.points
        names: dict[str, None] = {}
        for name in (*self.readers.names, *(name for point in points for name in point.signals)):
            names.setdefault(name)
        signals = {}
        for name in names:
            signals[name] = np.array([point.signals.get(name, np.nan) for point in points], float)
        return Points(
            np.array(numbers, dtype=int),
            np.array([point.tokens for point in points], dtype=int),
            signals,
            tuple(point.answer for point in points),
            np.array([point.asked for point in points], dtype=int),
            np.array([point.reward for point in points], dtype=float),
        )


def _rule(rules: Sequence[Exit], point: Point) -> Exit | None:
    """The first rule that stops here."""
    for rule in rules:
        if rule.crossed(np.array([point.signals[rule.signal]]))[0]:
            return rule
    return None


def _above(rules: Sequence[Exit], point: Point) -> bool:
    rule = _rule(rules, point)
    return rule is not None and rule.direction == "above"
