"""Tasks whose answers are lines of arithmetic or moves."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

from mechreward.base.errors import require
from mechreward.tasks.base import SILENT, UNFINISHED, Problem, Task, Verdict


class Move(NamedTuple):
    """A line somebody might write in a state, and the state it claims to lead to."""

    line: str
    state: Any


class LineTask(Task):
    """A task played one line at a time: a line makes a move, `back` undoes the last standing one.

    `answer X` ends the game, `fail` gives it up, and more than `max_backs` undos lose it. A
    rule-breaking line is no parse failure: it stands (as a broken state, None) until it is undone,
    and an answer on top of it is wrong.

    Attributes
    ----------
    max_backs : int
        Undos that an answer may use.
    """

    max_backs: ClassVar[int]
    answer_prefix: str | None = "answer"

    @abstractmethod
    def start(self, problem: Problem) -> Any:
        """State before the first line (hashable)."""

    @abstractmethod
    def advance(self, problem: Problem, state: Any, line: str) -> Any:
        """State after `line`; None if the line breaks a rule.

        Raises
        ------
        ValueError
            The line cannot be parsed.
        """

    @abstractmethod
    def moves(self, problem: Problem, state: Any) -> list[Move]:
        """Lines a solver might try: all legal ones, and tempting mistakes where a task has them."""

    @abstractmethod
    def reachable(self, problem: Problem, state: Any) -> bool:
        """Truth, for tests and traces only: can the goal still be reached without `back`?"""

    @abstractmethod
    def restate(self, state: Any) -> str:
        """How a state is written after `back :`."""

    @abstractmethod
    def answer_at(self, problem: Problem, state: Any) -> str | None:
        """The answer to give in this state, or None if the game is not over."""

    def play(self, problem: Problem, text: str) -> tuple[list[Any], int, Verdict | None]:
        """Stack of standing states, number of undos, and the verdict if the text settles it."""
        stack, backs, over = [self.start(problem)], 0, None
        for number, line in enumerate(text.strip().split("\n"), start=1):
            line = line.strip()
            if over is not None:
                reason = f"line {number} comes after the end: {line!r}"
                return stack, backs, Verdict("unverifiable", reason)
            head, _, rest = line.partition(" ")
            try:
                if head == "answer":
                    over = self._judge(problem, stack, rest)
                elif line == "fail":
                    over = Verdict("incorrect", "gave up")
                elif head == "back":
                    backs += 1
                    if len(stack) == 1:
                        reason = f"line {number}: nothing to undo"
                        return stack, backs, Verdict("incorrect", reason)
                    if backs > self.max_backs:
                        reason = f"line {number}: undos are limited to {self.max_backs}"
                        return stack, backs, Verdict("incorrect", reason)
                    stack.pop()
                    if not self._restated(stack[-1], rest):
                        stack[-1] = None
                elif line and stack[-1] is None:
                    stack.append(None)
                elif line:
                    stack.append(self.advance(problem, stack[-1], line))
            except ValueError as error:
                reason = f"line {number} does not parse: {error}"
                return stack, backs, Verdict("unverifiable", reason)
        return stack, backs, over

    def _restated(self, state: Any, rest: str) -> bool:
        """Whether what follows `back` is the state that stands again; a broken one is as it was."""
        if state is None:
            return True
        return rest.removeprefix(":").split() == self.restate(state).split()

    def verify(self, problem: Problem, text: str) -> Verdict:
        if not text.strip():
            return SILENT
        return self.play(problem, text)[2] or UNFINISHED

    def solve(self, problem: Problem) -> str:
        """The line, of those a solver might try, from which the goal can still be reached, until
        the game is over; then the answer."""
        state, lines = self.start(problem), []
        while self.answer_at(problem, state) is None:
            good = [m for m in self.moves(problem, state) if self.reachable(problem, m.state)]
            require(bool(good), f"problem {problem.id!r} has no solution from {state}.")
            lines.append(good[0].line)
            state = good[0].state
        return "\n".join([*lines, f"answer {problem.answer}"])

    def _judge(self, problem: Problem, stack: list[Any], given: str) -> Verdict:
        if any(state is None for state in stack):
            return Verdict("incorrect", "a wrong line was left standing")
        if not self.reachable(problem, stack[-1]) or self.answer_at(problem, stack[-1]) is None:
            return Verdict("incorrect", "answered where the goal is not reached")
        right = given.split() == problem.answer.split()
        return Verdict("correct") if right else Verdict("incorrect", f"answered {given!r}")


def last_answer(text: str) -> str | None:
    """What stands behind `answer` in the last line that begins with it; None where there is none,
    or nothing behind it."""
    for line in reversed(text.splitlines()):
        head, _, rest = line.strip().partition(" ")
        if head == "answer":
            return " ".join(rest.split()) or None
    return None


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
