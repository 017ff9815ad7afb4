"""What there is to reason about: `Problem`, `Verdict`, and `Task`, a family of problems."""

from __future__ import annotations

import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mechreward.base.errors import MechRewardError, finite, of_kind, one_of, require, whole

SPLITS = ("train", "validation", "test")
OUTCOMES = ("correct", "incorrect", "unverifiable")
# A text, token ids, or chat messages ({"role": ..., "content": ...}).
Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]
PATIENCE = 20_000  # draws without a new problem before a split counts as exhausted


@dataclass(frozen=True)
class Problem:
    """One question.

    Attributes
    ----------
    id : str
        Decides the split: the same id is the same problem on every machine.
    prompt : str, sequence of int, or sequence of mapping
        What the model reads: a text, token ids, or chat messages (`role` and `content`), which the
        tokenizer's chat template turns into tokens. Ids and messages are kept as a tuple.
    answer : str
        The right answer, as it is to be written.
    info : dict
        What the exact solver needs, never shown to a model; of what JSON can hold, so that rollouts
        can be kept. Its "difficulty", if there is one, is a surface baseline for confidence.
    task : Task or None, default None
        The task that verifies answers.
    """

    id: str
    # Messages cannot be hashed; the id can.
    prompt: Prompt = field(hash=False)
    answer: str
    info: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    task: Task | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        items: Any = self.prompt
        if hasattr(items, "tolist"):  # a tensor or an array
            items = items.tolist()
        if isinstance(items, list):
            items = tuple(items)
        object.__setattr__(self, "prompt", items)

    @property
    def question(self) -> str:
        """The prompt as a key: what makes two problems one, whatever their ids. A prompt that is
        no text (token ids, chat messages) is written as JSON; where there is none the id stands for
        it."""
        if self.prompt in ("", ()):
            return self.id
        if isinstance(self.prompt, str):
            return self.prompt
        return json.dumps(self.prompt, sort_keys=True, default=repr)

    @property
    def difficulty(self) -> int:
        """Operations or moves of the shortest solution: a surface baseline for confidence.

        Raises
        ------
        MechRewardError
            `info` holds no number of that name.
        """
        what = f"info['difficulty'] of problem {self.id!r}"
        require("difficulty" in self.info, f"there is no {what}.")
        return int(finite(what, self.info["difficulty"]))


@dataclass(frozen=True)
class Verdict:
    """Outcome of checking an answer. One that cannot be read is not `incorrect`.

    Attributes
    ----------
    outcome : {"correct", "incorrect", "unverifiable"}
        `unverifiable` is a text that cannot be read.
    reason : str, default ""
        Why an answer is not correct; empty where it is.

    Raises
    ------
    MechRewardError
        Another outcome, or a reason that is no text.
    """

    outcome: Literal["correct", "incorrect", "unverifiable"]
    reason: str = ""

    def __post_init__(self) -> None:
        one_of("outcome", self.outcome, OUTCOMES)
        of_kind("the reason of a verdict", self.reason, str)

    @property
    def reward(self) -> int:
        """Terminal reward: 1 if verified correct, else 0 (paper section 2)."""
        return int(self.outcome == "correct")


SILENT = Verdict("unverifiable", "nothing was said")
# Of a text that was cut off before it gave an answer; one that ended so by itself is unverifiable.
UNFINISHED = Verdict("incorrect", "no answer within the limit")


class Task(ABC):
    """A family of problems with an exact verifier.

    Subclasses give `draw` and `verify`.

    Attributes
    ----------
    name : str
        How the task is called in results and on the command line.
    max_tokens : int
        Limit of a rollout, in generated tokens. It is part of the policy: V is defined under it.
    verifies : bool, default True
        Whether answers can be verified. A task that cannot is only good for search.
    answer_prefix : str or None, default None
        What stands before the answer in a text, as "Answer:" does: where a rollout is stopped
        early, it is put at the beginning of a line and the model gives its answer. None: no text
        asks for one.
    seconds : float, default 10.0
        Limit of one call of `verify`, whose answer is unverifiable if it takes longer, and of
        `step_ends`. A single call into compiled code is not stopped before it returns.
    """

    name: str
    max_tokens: int
    verifies: bool = True
    answer_prefix: str | None = None
    seconds: float = 10.0

    @abstractmethod
    def draw(self, rng: random.Random) -> Problem | None:
        """One random problem, or None when the draw has to be thrown away.

        Parameters
        ----------
        rng : random.Random
            The source of all randomness.
        """

    @abstractmethod
    def verify(self, problem: Problem, text: str) -> Verdict:
        """Check a whole generated text, every line of it. It may be empty.

        Parameters
        ----------
        problem : Problem
            The question.
        text : str
            The answer without the prompt and the end-of-sequence token; other special tokens that
            the model said are in it.

        Returns
        -------
        Verdict
            `correct`, `incorrect` or `unverifiable`, with a reason: `SILENT` for a text that says
            nothing, `UNFINISHED` for one that holds no answer yet.
        """

    def answer(self, text: str) -> str | None:
        """What a text answers, normalised so that equal answers are equal texts; never whether it
        is right.

        It is what agreement among several answers is counted by. The default is that nothing can
        be compared: where any valid answer counts, unlike ones may both be right, and right ones
        need not be alike.

        Parameters
        ----------
        text : str
            As for `verify`.

        Returns
        -------
        str or None
            None where the text answers nothing; for every text where a task defines no answer.
        """
        return None

    def solve(self, problem: Problem) -> str:
        """A right answer as a model may write it: what `tasks.validate` holds the verifier to.

        The gold answer alone, where a task says nothing else.
        """
        return problem.answer

    def check(self) -> None:
        """Raise MechRewardError for a task without a name, or without limits that are positive."""
        kind = type(self).__name__
        name = getattr(self, "name", None)
        require(
            isinstance(name, str) and bool(name),
            f"the task {kind} has no name: write name = '{kind.lower()}' into its class.",
        )
        require(
            getattr(self, "max_tokens", None) is not None,
            f"the task {kind} has no limit: write max_tokens = 256, say, into its class.",
        )
        whole(f"max_tokens of {kind}", self.max_tokens, 1)
        require(
            finite(f"seconds of {kind}", self.seconds) > 0,
            f"seconds of {kind} limit a call of verify and must be positive; "
            f"{self.seconds} were given.",
        )

    def problems(self, split: str, n: int, seed: int = 0) -> list[Problem]:
        """Different problems of a split, the same on every machine.

        Splits are disjoint by problem id (SHA-256 of the id: 70% train, 10% validation, 20% test).

        Parameters
        ----------
        split : str
            "train", "validation" or "test".
        n : int
            How many.
        seed : int, default 0
            Another seed gives other problems of the same split.

        Returns
        -------
        list of Problem
            `n` problems that know their task.

        Raises
        ------
        MechRewardError
            A task without name or limit, an unknown split, n or seed that is no whole number,
            n < 1, or fewer than n different problems can be found.
        """
        self.check()
        one_of("split", split, SPLITS)
        n, seed = whole("n", n), whole("seed", seed)
        require(n >= 1, f"a task needs at least one problem: n={n} was given.")
        rng = random.Random(f"{self.name}/{split}/{seed}")
        drawn: dict[str, Problem] = {}
        prompts = set()
        idle = 0
        while idle < PATIENCE:
            problem = self.draw(rng)
            of_kind(f"what {self.name} draws", problem, (Problem, type(None)))
            idle += 1
            if problem is None or split_of(problem.id) != split:
                continue
            if problem.id not in drawn and problem.question not in prompts:
                drawn[problem.id] = replace(problem, task=self)
                prompts.add(problem.question)
                idle = 0
            if len(drawn) == n:
                return list(drawn.values())
        raise MechRewardError(
            f"{self.name} has only {len(drawn)} {split} problems within reach; {n} were asked for."
        )

    def step_ends(self, pieces: Sequence[str], prompt_len: int) -> list[int]:
        """Absolute index of each step's last token.

        A step ends at a token that holds a line break, and at the last token of the text. A line
        without text is no step of its own: it belongs to the step before it or, at the beginning of
        an answer, to the one behind it.

        Parameters
        ----------
        pieces : sequence of str
            Text of every token, prompt and answer.
        prompt_len : int
            How many of them are the prompt.

        Returns
        -------
        list of int
            Entry 0 is the last prompt token (state s_0), entry t the end of step t.
        """
        ends = [prompt_len - 1]
        last = len(pieces) - 1
        text = False  # whether the present line has any
        for position in range(prompt_len, len(pieces)):
            text = text or bool(pieces[position].strip())
            if "\n" not in pieces[position] and position != last:
                continue
            first = len(ends) == 1
            if text or (first and position == last):
                ends.append(position)
            elif not first:
                ends[-1] = position
            text = False
        return ends


def split_of(problem_id: str) -> str:
    """The split a problem id belongs to."""
    bucket = int.from_bytes(hashlib.sha256(problem_id.encode()).digest()[:4], "big") % 10
    if bucket < 2:
        return "test"
    return "validation" if bucket == 2 else "train"
