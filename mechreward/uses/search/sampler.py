"""The engine behind a search: it continues nodes, scores the new steps and keeps the books."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int

from mechreward.base import streams
from mechreward.base.errors import MechRewardError
from mechreward.models.capture import Capture
from mechreward.models.engine import Job, generate
from mechreward.models.jobs import Continuation
from mechreward.models.policy import Policy
from mechreward.models.text import decode, eos_ids, joined_pieces
from mechreward.rollouts.sample import answer_key, prompt_of
from mechreward.rollouts.steps import StepEnd, step_ends
from mechreward.tasks import Problem, Task
from mechreward.uses.search.ledger import Ledger, Price, decoded_of, entry_of
from mechreward.uses.search.scorers import Draft, Scorer, checked
from mechreward.uses.search.tree import Ask, Node, Purse


@dataclass(frozen=True, eq=False)
class Partial:
    """What a node holds.

    Attributes
    ----------
    tokens : tensor [pos]
        Prompt and answer so far.
    logprobs : tensor [gen]
        Of the answer's tokens.
    steps : tuple of str
        Texts of the answer's steps.
    finished : bool
        Whether it ended by itself.
    """

    tokens: Int[torch.Tensor, " pos"]
    logprobs: Float[torch.Tensor, " gen"]
    steps: tuple[str, ...] = ()
    finished: bool = False


class _Want(NamedTuple):
    """One continuation of an ask."""

    problem: int
    ask: Ask
    number: int


class Sampler:
    """Continues nodes of several problems in one batch.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model that answers.
    problems : sequence of Problem
        Of one task.
    task : Task
        Cuts steps and sets the limit.
    scorer : Scorer or None
        Scores new steps; None where no score is looked at.
    policy : Policy
        How tokens are drawn.
    block : int or None
        Tokens of a step; None: as the task cuts them.
    seed : int
        Part of the name of all random numbers.
    purses : sequence of Purse
        Of every problem; they are paid from.
    batch : int
        Rows decoded at once.
    purpose : str, default "search"
        What the random numbers are for, the first part of their names.
    """

    def __init__(
        self,
        model: Any,
        problems: Sequence[Problem],
        task: Task,
        scorer: Scorer | None,
        *,
        policy: Policy,
        block: int | None,
        seed: int,
        purses: Sequence[Purse],
        batch: int,
        purpose: str = "search",
    ) -> None:
        self.model = model
        self.problems = problems
        self.task = task
        self.scorer = scorer
        self.policy = policy
        self.block = block
        self.seed = seed
        self.purses = purses
        self.batch = batch
        self.purpose = purpose
        self.price = Price.of(model)
        self.eos = eos_ids(model)
        self.ledgers = [Ledger() for _ in problems]
        self.faults: dict[int, MechRewardError] = {}
        self.prompts = [prompt_of(model, problem) for problem in problems]

    def root(self, number: int) -> Node:
        """The prompt of a problem."""
        prompt = self.prompts[number]
        content = Partial(prompt, torch.zeros(0))
        return Node((), self.policy.limit(self.task), False, content=content)

    def expand(self, asks: list[tuple[int, Ask]]) -> list[list[Node]]:
        """The continuations of every ask."""
        kinds: dict[tuple[bool, bool], list[tuple[int, _Want]]] = defaultdict(list)
        for place, (problem, ask) in enumerate(asks):
            for number in range(ask.first, ask.first + ask.count):
                kinds[ask.whole, ask.greedy].append((place, _Want(problem, ask, number)))
        children: list[list[Node]] = [[] for _ in asks]
        for (whole, greedy), wanted in kinds.items():
            nodes = self._continue([want for _, want in wanted], whole, greedy)
            for (place, _), node in zip(wanted, nodes, strict=True):
                children[place].append(node)
        return children

    def _continue(self, wants: list[_Want], whole: bool, greedy: bool) -> list[Node]:
        jobs = [self._job(want, whole) for want in wants]
        reads = self.scorer.reads() if self.scorer else {}
        until = None if whole or self.block else StepEnd(self.model, self.task)
        began = time.perf_counter()
        rows = generate(
            self.model,
            jobs,
            eos=self.eos,
            policy=replace(self.policy, temperature=0.0) if greedy else self.policy,
            batch=self.batch,
            capture=Capture(reads) if reads else None,
            until=until,
            spread=bool(self.scorer and self.scorer.spread),
        )
        nodes = [self._node(*made, whole) for made in zip(wants, jobs, rows, strict=True)]
        self._charge(wants, jobs, rows, time.perf_counter() - began)
        return nodes

    def _job(self, want: _Want, whole: bool) -> Job:
        node, problem = want.ask.node, self.problems[want.problem]
        key: tuple[int | str, ...] = (self.purpose, self.seed, problem.id, *node.path, want.number)
        if whole and not node.path:  # the answers of `sample`
            key = answer_key(self.seed, problem, want.number)
        tokens = node.content.tokens
        begun = len(tokens) - len(self.prompts[want.problem])
        room = node.left if whole or not self.block else min(node.left, self.block)
        return Job(tokens, len(tokens), room, key, problem=problem.id, begun=begun)

    def _node(self, want: _Want, job: Job, row: Continuation, whole: bool) -> Node:
        """The node that a continuation leads to, with the scores of its new steps."""
        parent, problem = want.ask.node, self.problems[want.problem]
        before: Partial = parent.content
        tokens = torch.cat([before.tokens, row.tokens])
        left = parent.left - len(row.tokens)
        ended = whole or row.finished or left == 0
        spans = [slice(0, len(row.tokens))]
        if whole:
            spans = self._steps(tokens, job)
        texts = joined_pieces(self.model, tokens)[job.length :]
        last = len(texts) - (int(tokens[-1]) in self.eos)  # which no verifier reads
        steps = list(before.steps)
        for span in spans:
            steps.append("".join(texts[span.start : min(span.stop, last)]))
        if before.steps and not "".join(steps[len(before.steps) :]).strip():
            # The end of the text, or a blank line, is no step: nothing new can be scored.
            steps = [*before.steps[:-1], before.steps[-1] + "".join(steps[len(before.steps) :])]
            spans = []
        path = (*parent.path, want.number)
        draft = Draft(
            problem,
            path,
            self.seed,
            tuple(steps),
            tuple(spans),
            row.tokens,
            row.logprobs,
            ended,
            row.finished,
            job.length,
            row.spread,
            row.caught,
        )
        scores = self._scores(want.problem, draft)
        partial = Partial(
            tokens, torch.cat([before.logprobs, row.logprobs]), tuple(steps), row.finished
        )
        tie = float(streams.rng(f"{self.purpose}: tie", self.seed, problem.id, *path).random())
        return Node(path, left, ended, (*parent.scores, *scores), tie, partial)

    def _steps(self, tokens: torch.Tensor, job: Job) -> list[slice]:
        """The steps of a whole continuation, among its own tokens."""
        prompt_len = job.length - job.begun
        if self.block:
            starts = range(0, len(tokens) - job.length, self.block)
            return [slice(a, min(a + self.block, len(tokens) - job.length)) for a in starts]
        ends, _ = step_ends(self.model, self.task, tokens, prompt_len)
        later = [job.length - 1, *(end for end in ends if end >= job.length)]
        spans = []
        for before, end in pairwise(later):
            spans.append(slice(before + 1 - job.length, end + 1 - job.length))
        return spans or [slice(0, len(tokens) - job.length)]

    def _scores(self, number: int, draft: Draft) -> list[float]:
        """Of the new steps; a scorer that has failed on a problem is not asked about it again."""
        if self.scorer is None or not draft.spans:
            return []
        nothing = [0.0] * len(draft.spans)
        if number in self.faults:
            return nothing
        scored = Ledger(scored=self.scorer.scored(draft))
        self.ledgers[number] += scored
        try:
            return checked(self.scorer, draft)
        except MechRewardError as error:
            self.faults[number] = error
            return nothing

    def _charge(
        self, wants: list[_Want], jobs: list[Job], rows: list[Continuation], seconds: float
    ) -> None:
        """Write down what a call cost."""
        every = sum(decoded_of(row) for row in rows)
        for want, job, row in zip(wants, jobs, rows, strict=True):
            share = seconds * decoded_of(row) / every
            cost = replace(entry_of(self.price, job, row), seconds=share)
            self.ledgers[want.problem] += cost
            self.purses[want.problem].left -= len(row.tokens)

    def text(self, node: Node, number: int) -> str:
        """A node's answer as text."""
        return decode(self.model, node.content.tokens[len(self.prompts[number]) :])
