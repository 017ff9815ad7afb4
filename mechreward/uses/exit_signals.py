"""What a rule may look at while a rollout is generated, and answers that are asked for early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from mechreward.base import streams
from mechreward.base.errors import MechRewardError, of_kind, require
from mechreward.base.files import digest
from mechreward.models.capture import Read
from mechreward.models.engine import Job, generate
from mechreward.models.jobs import Continuation, context_of
from mechreward.models.policy import Policy
from mechreward.models.site import Site
from mechreward.models.text import decode, encode_behind, eos_ids, joined_pieces, pieces
from mechreward.tasks import Problem, Task
from mechreward.tasks.judge import judge
from mechreward.uses.search.readouts import Readout
from mechreward.uses.search.search import Given, scorer_of

FREE = ("entropy", "self_certainty", "logprob", "length", "random")


@dataclass
class Point:
    """A place where a rollout could be stopped."""

    tokens: int
    signals: dict[str, float]
    answer: str = ""
    asked: int = 0
    reward: float = float("nan")


@dataclass
class Trail:
    """A rollout as it grows.

    Attributes
    ----------
    problem : Problem
        The question.
    prompt : tensor [pos]
        Its tokens.
    tokens, logprobs, entropy, certainty : tensor [gen]
        What was generated, and how sure the model was.
    reads : tensor [gen reader]
        Read-outs at every token.
    finished : bool
        Whether it ended by itself.
    points : list of Point
        So far.
    """

    problem: Problem
    prompt: Int[torch.Tensor, " pos"]
    reads: Float[torch.Tensor, "gen reader"]
    tokens: Int[torch.Tensor, " gen"] = field(default_factory=lambda: torch.zeros(0).long())
    logprobs: Float[torch.Tensor, " gen"] = field(default_factory=lambda: torch.zeros(0))
    entropy: Float[torch.Tensor, " gen"] = field(default_factory=lambda: torch.zeros(0))
    certainty: Float[torch.Tensor, " gen"] = field(default_factory=lambda: torch.zeros(0))
    finished: bool = False
    points: list[Point] = field(default_factory=list)

    @property
    def text(self) -> Int[torch.Tensor, " pos"]:
        """Prompt and answer."""
        return torch.cat([self.prompt, self.tokens])

    def extend(self, row: Continuation, reads: Float[torch.Tensor, "gen reader"]) -> None:
        """Add what was generated."""
        if row.spread is None:
            raise RuntimeError("the spread is always measured")
        self.tokens = torch.cat([self.tokens, row.tokens])
        self.logprobs = torch.cat([self.logprobs, row.logprobs])
        self.entropy = torch.cat([self.entropy, row.spread.entropy])
        self.certainty = torch.cat([self.certainty, row.spread.certainty])
        self.reads = torch.cat([self.reads, reads])
        self.finished = row.finished


class Readers:
    """Values that are read in the generating pass.

    Parameters
    ----------
    value : NeuronSet, ValueProbe, Readout, or a mapping of names to such
        What reads states; one alone is called "value".

    Raises
    ------
    MechRewardError
        Something that reads no states, or the name of another signal.
    """

    def __init__(self, value: Given | Mapping[str, Given] | None) -> None:
        given = value if isinstance(value, Mapping) else {"value": value}
        self.by_name: dict[str, Readout] = {}
        for name, reader in given.items():
            if reader is None and not isinstance(value, Mapping):
                continue
            of_kind("the name of a read-out", name, str)
            require(
                name not in (*FREE, "confidence", "stability"),
                f"a read-out cannot be called {name!r}, which is another signal.",
            )
            self.by_name[name] = _reader(reader, name)
        self.places: dict[Site, list[str]] = {}
        for name, readout in self.by_name.items():
            self.places.setdefault(readout.site, []).append(name)
        self.names = tuple(name for names in self.places.values() for name in names)

    @property
    def marks(self) -> dict[str, str]:
        """What tells each from other read-outs."""
        marks = {}
        for name, readout in self.by_name.items():
            where = str(readout.site), readout.columns, readout.mark
            marks[name] = digest(repr(where))
        return marks

    def reads(self) -> dict[Site, Read | None]:
        """For `models.capture.Capture`: at every site one number for each of its readers."""
        return {site: self._at(names) for site, names in self.places.items()}

    def of(self, row: Continuation) -> Float[torch.Tensor, "gen reader"]:
        """What was read at the new tokens; the row of the last token before them is left out."""
        if row.caught is None:
            return torch.zeros(len(row.tokens), 0)
        columns = [row.caught.x[site][1:] for site in self.places]
        return torch.cat(columns, 1)

    def _at(self, names: Sequence[str]) -> Read:
        readouts = [self.by_name[name] for name in names]

        def read(x: torch.Tensor) -> torch.Tensor:
            here = x.cpu()
            columns = []
            for readout in readouts:
                some = here
                if readout.columns is not None:
                    some = here[:, list(readout.columns)]
                columns.append(np.asarray(readout.read(some)))
            return torch.from_numpy(np.stack(columns, 1)).to(x)

        return read


def _reader(given: Any, name: str) -> Readout:
    readout = scorer_of(given)
    if not isinstance(readout, Readout):
        raise MechRewardError(
            f"{name} is read in the generating pass: give a ValueProbe, a NeuronSet or a Readout."
        )
    require(
        readout.rows == "states" and not readout.difference,
        f"{readout.name} reads no single states, at which rollouts are stopped: give a value.",
    )
    return readout


def signals_at(trail: Trail, tokens: int, readers: Sequence[str], seed: int) -> dict[str, float]:
    """All signals of a rollout behind so many tokens, but those of forced answers.

    The higher, the likelier it is to end correct: `entropy` is minus the mean over all tokens so
    far, `self_certainty` and `logprob` the mean, `length` minus the tokens, `random` a number in
    [0, 1) drawn by name.
    """
    signals = {}
    for number, name in enumerate(readers):
        signals[name] = float(trail.reads[tokens - 1, number])
    signals["entropy"] = -float(trail.entropy[:tokens].double().mean())
    signals["self_certainty"] = float(trail.certainty[:tokens].double().mean())
    signals["logprob"] = float(trail.logprobs[:tokens].double().mean())
    signals["length"] = -float(tokens)
    chance = streams.rng("exit: chance", seed, trail.problem.id, tokens)
    signals["random"] = float(chance.random())
    return signals


class Forced(NamedTuple):
    """An answer that was asked for.

    Attributes
    ----------
    text : str
        What follows the prefix.
    confidence : float
        Mean probability of its tokens.
    tokens : int
        Tokens of prefix and answer, the end of the line or of the text included.
    reward : float
        Of the whole text; NaN where it cannot be verified.
    """

    text: str
    confidence: float
    tokens: int
    reward: float


class Asker:
    """Puts the task's answer prefix behind unfinished rollouts and lets the model answer.

    The answer is greedy and ends with its line (as DEER's trial answers, arXiv 2504.15895).

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model that answers.
    task : Task
        Has the prefix and verifies.
    room : int
        Tokens that an answer may have.
    batch : int
        Rows decoded at once.

    Raises
    ------
    MechRewardError
        A task without a prefix.
    """

    def __init__(self, model: Any, task: Task, room: int, batch: int) -> None:
        prefix = task.answer_prefix
        if prefix is None:
            raise MechRewardError(
                f"the task {task.name} has no answer_prefix, which asks for an answer where a "
                "rollout is stopped: set one, as in task.answer_prefix = 'Answer:'."
            )
        self.model = model
        self.task = task
        self.batch = batch
        self.room = room
        self.policy = Policy(temperature=0.0, stop=("\n",))
        self.eos = eos_ids(model)
        # By whether the text before it ends a line.
        lines = {True: prefix, False: f"\n{prefix}"}
        self.prefixes = {ends: encode_behind(model, text) for ends, text in lines.items()}

    def check(self, longest: int) -> None:
        """Raise MechRewardError where rollouts of so many tokens and an answer do not fit into the
        model's context."""
        context = context_of(self.model)
        needed = longest + len(self.prefixes[False]) + self.room
        require(
            context is None or needed <= context,
            f"rollouts, answer prefix and answer may take {needed} tokens, more than the {context} "
            "that the model's context holds: lower max_tokens of the policy, or answer_tokens.",
        )

    def ask(self, at: Sequence[tuple[Trail, int]], progress: bool | str = False) -> list[Forced]:
        """The answers of rollouts behind so many tokens."""
        jobs, before = [], []
        for trail, tokens in at:
            begun = trail.tokens[:tokens]
            (last,) = pieces(self.model, begun[-1:])
            text = torch.cat([begun, self.prefixes[last.rstrip(" ").endswith("\n")]])
            whole = torch.cat([trail.prompt, text])
            key = "exit: answer", trail.problem.id, tokens
            jobs.append(Job(whole, len(whole), self.room, key, problem=trail.problem.id))
            before.append(text)
        if not jobs:
            return []
        rows = generate(
            self.model, jobs, eos=self.eos, policy=self.policy, batch=self.batch, progress=progress
        )
        rewards = [float("nan")] * len(rows)
        if self.task.verifies:
            problems = [trail.problem for trail, _ in at]
            texts = []
            for text, row in zip(before, rows, strict=True):
                texts.append(decode(self.model, torch.cat([text, row.tokens])))
            verdicts = judge(self.task, problems, texts, [row.finished for row in rows])
            rewards = [float(verdict.reward) for verdict in verdicts]
        forced = []
        for (_, tokens), text, row, reward in zip(at, before, rows, rewards, strict=True):
            spent = len(text) - tokens + len(row.tokens)
            forced.append(Forced(*self._answer(text, row), spent, reward))
        return forced

    def _answer(self, before: torch.Tensor, row: Continuation) -> tuple[str, float]:
        """Text and mean probability of an answer without what ended it; 0 of an empty one."""
        texts = joined_pieces(self.model, torch.cat([before, row.tokens]))[len(before) :]
        count = len(texts)
        if int(row.tokens[-1]) in self.eos or not texts[-1].strip():
            count -= 1
        text = "".join(texts[:count]).strip()
        if not text:
            return "", 0.0
        return text, float(row.logprobs[:count].double().exp().mean())


def put(trail: Trail, point: Point, forced: Forced) -> None:
    """Write an answer down, with its signals: `confidence`, and `stability`, the number of points
    up to this one, in a row, at which the answer was the same (0 for no answer)."""
    point.answer, point.asked, point.reward = forced.text, forced.tokens, forced.reward
    point.signals["confidence"] = forced.confidence
    same = 0.0
    if forced.text:
        same = 1.0
        before = trail.points[: trail.points.index(point)]
        if before and before[-1].answer == forced.text:
            same += before[-1].signals.get("stability", 0.0)
    point.signals["stability"] = same
