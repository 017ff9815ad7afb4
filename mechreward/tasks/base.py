"""What there is to reason about: `Problem`, `Task`, `Verdict`, and the line-by-line game the offline tasks share."""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple

from mechreward._check import MechRewardError, one_of, require

SPLITS = ("train", "validation", "test")
PATIENCE = 20_000  # draws without a new problem before a split counts as exhausted


@dataclass(frozen=True)
class Problem:
    """One question. `id` decides the split; `info` holds what the exact solver needs (never shown to a model)."""

    id: str
    prompt: str
    answer: str
    info: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    task: Task | None = field(default=None, repr=False, compare=False)

    @property
    def difficulty(self) -> int:
        """Number of operations or moves the shortest solution needs (a surface baseline for confidence)."""
        return int(self.info["difficulty"])


@dataclass(frozen=True)
class Verdict:
    """Outcome of checking an answer. A text that cannot be read is `unverifiable`, which is not `incorrect`."""

    outcome: Literal["correct", "incorrect", "unverifiable"]
    reason: str = ""

    @property
    def reward(self) -> int:
        """Terminal reward: 1 if verified correct, else 0 (paper section 2)."""
        return int(self.outcome == "correct")


class Task(ABC):
    """A family of problems with an exact verifier.

    `max_tokens` limits a rollout (in generated tokens) and is part of the policy: V is defined under it.
    """

    name: ClassVar[str]
    max_tokens: ClassVar[int]

    @abstractmethod
    def draw(self, rng: random.Random) -> Problem | None:
        """One random problem, or None when the draw has to be thrown away."""

    @abstractmethod
    def verify(self, problem: Problem, text: str) -> Verdict:
        """Check the whole generated `text` (without the prompt), every line of it."""

    def problems(self, split: str, n: int, seed: int = 0) -> list[Problem]:
        """`n` different problems of a split, the same on every machine.

        Splits are disjoint by problem id (SHA-256 of the id: 70% train, 10% validation, 20% test).

        Raises:
            MechRewardError: unknown split, n < 1, or fewer than n different problems can be found.
        """
        one_of("split", split, SPLITS)
        require(n >= 1, f"a task needs at least one problem: n={n} was given.")
        rng = random.Random(f"{self.name}/{split}/{seed}")
        found: dict[str, Problem] = {}
        idle = 0
        while idle < PATIENCE:
            problem = self.draw(rng)
            idle += 1
            if problem is not None and split_of(problem.id) == split and problem.id not in found:
                found[problem.id], idle = replace(problem, task=self), 0
            if len(found) == n:
                return list(found.values())
        raise MechRewardError(f"{self.name} has only {len(found)} {split} problems within reach; {n} were asked for.")

    def step_ends(self, pieces: Sequence[str], prompt_len: int) -> list[int]:
        """Absolute index of each step's last token, given the text of every token.

        Entry 0 is the last prompt token (state s_0). A step ends at a token that holds a line break, and at the
        last token of the text.
        """
        ends = [prompt_len - 1]
        ends += [i for i in range(prompt_len, len(pieces)) if "\n" in pieces[i] or i == len(pieces) - 1]
        return ends


def split_of(problem_id: str) -> str:
    """The split a problem id belongs to."""
    bucket = int.from_bytes(hashlib.sha256(problem_id.encode()).digest()[:4], "big") % 10
    return "test" if bucket < 2 else "validation" if bucket == 2 else "train"


class Move(NamedTuple):
    """A line somebody might write in a state, and the state it claims to lead to."""

    line: str
    state: Any


class LineTask(Task):
    """A task played one line at a time: every line makes a move, `back` undoes the last standing one.

    `answer X` ends the game, `fail` gives it up, and more than `max_backs` undos lose it. A rule-breaking line is
    no parse failure: it stands (as a broken state, None) until it is undone, and an answer on top of it is wrong.
    """

    max_backs: ClassVar[int]

    @abstractmethod
    def start(self, problem: Problem) -> Any:
        """State before the first line (hashable)."""

    @abstractmethod
    def advance(self, problem: Problem, state: Any, line: str) -> Any:
        """State after `line`; None if the line breaks a rule. Raises `ValueError` if it cannot be parsed."""

    @abstractmethod
    def moves(self, problem: Problem, state: Any) -> list[Move]:
        """Lines a solver might try: all legal ones, and tempting mistakes where a task has them."""

    @abstractmethod
    def reachable(self, problem: Problem, state: Any) -> bool:
        """Truth, for tests and traces only: can the goal still be reached from here without `back`?"""

    @abstractmethod
    def restate(self, state: Any) -> str:
        """How a state is written after `back :`."""

    @abstractmethod
    def answer(self, problem: Problem, state: Any) -> str | None:
        """The answer to give in this state, or None if the game is not over."""

    def play(self, problem: Problem, text: str) -> tuple[list[Any], int, Verdict | None]:
        """Stack of standing states, number of undos, and the verdict if the text settles it."""
        stack, backs, over = [self.start(problem)], 0, None
        for number, line in enumerate((raw.strip() for raw in text.strip().split("\n")), start=1):
            if over is not None:
                return stack, backs, Verdict("unverifiable", f"line {number} comes after the end: {line!r}")
            head, _, rest = line.partition(" ")
            try:
                if head == "answer":
                    over = self._judge(problem, stack, rest)
                elif line == "fail":
                    over = Verdict("incorrect", "gave up")
                elif head == "back":
                    backs += 1
                    if backs > self.max_backs or len(stack) == 1:
                        why = "nothing to undo" if len(stack) == 1 else f"undos are limited to {self.max_backs}"
                        return stack, backs, Verdict("incorrect", f"line {number}: {why}")
                    stack.pop()
                    if stack[-1] is not None and rest.removeprefix(":").split() != self.restate(stack[-1]).split():
                        stack[-1] = None
                elif line:
                    stack.append(None if stack[-1] is None else self.advance(problem, stack[-1], line))
            except ValueError as error:
                return stack, backs, Verdict("unverifiable", f"line {number} does not parse: {error}")
        return stack, backs, over

    def verify(self, problem: Problem, text: str) -> Verdict:
        return self.play(problem, text)[2] or Verdict("incorrect", "no answer within the limit")

    def solvable(self, problem: Problem, text: str) -> bool:
        """Truth: can a partial `text` (whole lines) still end correct? Undoing counts while undos are left."""
        stack, backs, verdict = self.play(problem, text)
        if verdict is not None:
            return verdict.outcome == "correct"
        alive = [s is not None and self.reachable(problem, s) for s in stack]
        undos = next((i for i, ok in enumerate(reversed(alive)) if ok), len(alive))
        return undos < len(alive) and backs + undos <= self.max_backs

    def _judge(self, problem: Problem, stack: list[Any], given: str) -> Verdict:
        if any(state is None for state in stack):
            return Verdict("incorrect", "a wrong line was left standing")
        if not self.reachable(problem, stack[-1]) or self.answer(problem, stack[-1]) is None:
            return Verdict("incorrect", "answered where the goal is not reached")
        right = given.split() == problem.answer.split()
        return Verdict("correct") if right else Verdict("incorrect", f"answered {given!r}")


def integers(text: str) -> list[int]:
    """Whole numbers of a line part; raises ValueError for anything else."""
    return [int(word) for word in text.split() if _digits(word)]


def _digits(word: str) -> bool:
    if not (word.isascii() and word.isdigit() and len(word) <= 4):
        raise ValueError(f"{word!r} is not a number")
    return True


OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b if b and a % b == 0 else -1,
}
LARGEST = 99


def operation(text: str) -> tuple[int, str, int, int]:
    """Parse `a op b = c`; raises ValueError for anything else."""
    words = text.split()
    if len(words) != 5 or words[1] not in OPERATIONS or words[3] != "=":
        raise ValueError(f"{text!r} is not 'a op b = c'")
    a, b, c = integers(f"{words[0]} {words[2]} {words[4]}")
    return a, words[1], b, c
