"""What there is to reason about: `Problem`, `Verdict`, and `Task`, a family of problems."""

from __future__ import annotations

import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from mechreward.base.errors import MechRewardError, one_of, require

SPLITS = ("train", "validation", "test")
PATIENCE = 20_000  # draws without a new problem before a split counts as exhausted


@dataclass(frozen=True)
class Problem:
    """One question.

    Attributes
    ----------
    id : str
        Decides the split: the same id is the same problem on every machine.
    prompt : str
        What the model reads.
    answer : str
        The right answer, as it is to be written.
    info : dict
        What the exact solver needs, never shown to a model.
    task : Task or None, default None
        The task that verifies answers.
    """

    id: str
    prompt: str
    answer: str
    info: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    task: Task | None = field(default=None, repr=False, compare=False)

    @property
    def question(self) -> str:
        """The prompt as a key: what makes two problems one, whatever their ids. A prompt that is
        no text (token ids, chat messages) is written as JSON; where there is none the id stands for
        it."""
        if len(self.prompt) == 0:
            return self.id
        if isinstance(self.prompt, str):
            return self.prompt
        return json.dumps(self.prompt, sort_keys=True, default=lambda item: item.tolist())

    @property
    def difficulty(self) -> int:
        """Operations or moves of the shortest solution: a surface baseline for confidence."""
        return int(self.info["difficulty"])


@dataclass(frozen=True)
class Verdict:
    """Outcome of checking an answer. One that cannot be read is not `incorrect`.

    Attributes
    ----------
    outcome : {"correct", "incorrect", "unverifiable"}
        `unverifiable` is a text that cannot be read.
    reason : str, default ""
        Why an answer is not correct; empty where it is.
    """

    outcome: Literal["correct", "incorrect", "unverifiable"]
    reason: str = ""

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
    """

    name: ClassVar[str]
    max_tokens: ClassVar[int]

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
        """Check a whole generated text, every line of it.

        Parameters
        ----------
        problem : Problem
            The question.
        text : str
            The answer without the prompt.

        Returns
        -------
        Verdict
            `correct`, `incorrect` or `unverifiable`, with a reason: `SILENT` for a text that says
            nothing, `UNFINISHED` for one that holds no answer yet.
        """

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
            Unknown split, n < 1, or fewer than n different problems can be found.
        """
        one_of("split", split, SPLITS)
        require(n >= 1, f"a task needs at least one problem: n={n} was given.")
        rng = random.Random(f"{self.name}/{split}/{seed}")
        drawn: dict[str, Problem] = {}
        prompts = set()
        idle = 0
        while idle < PATIENCE:
            problem = self.draw(rng)
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

        A step ends at a token that holds a line break, and at the last token of the text.

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
        for position in range(prompt_len, len(pieces)):
            if "\n" in pieces[position] or position == last:
                ends.append(position)
        return ends


def split_of(problem_id: str) -> str:
    """The split a problem id belongs to."""
    bucket = int.from_bytes(hashlib.sha256(problem_id.encode()).digest()[:4], "big") % 10
    if bucket < 2:
        return "test"
    return "validation" if bucket == 2 else "train"
