"""Chain: evaluate a nested expression from the inside out, one operation a line."""

from __future__ import annotations

import random
from collections.abc import Sequence

from mechreward.base.errors import of_kind, require, whole
from mechreward.tasks.base import Problem
from mechreward.tasks.lines import LARGEST, OPERATIONS, LineTask, Move, last_answer, operation

State = tuple[int, int, bool]


class Chain(LineTask):
    """Evaluate `( 7 * ( 3 + 4 ) ) - 5`: each line is the one operation that is ready, `a op b = c`.

    A state is (operations done, value so far, whether that value is right). A wrong result makes a
    dead end: the value carries on until the line is undone. Recognising it needs nothing but the
    line itself.

    Parameters
    ----------
    operations : tuple[int, int], default (3, 4)
        The fewest and the most that an expression has.

    Raises
    ------
    MechRewardError
        Numbers that are not whole, below 1, or in the wrong order.
    """

    name = "chain"
    max_tokens = 112
    max_backs = 1

    def __init__(self, operations: tuple[int, int] = (3, 4)) -> None:
        of_kind("operations", operations, Sequence)
        require(len(operations) == 2, "operations are two numbers: the fewest and the most.")
        fewest, most = operations
        whole("the fewest operations", fewest, 1)
        whole("the most operations", most, fewest)
        self.operations = operations

    def draw(self, rng: random.Random) -> Problem | None:
        first = value = rng.randint(2, 9)
        steps: list[tuple[str, int, bool]] = []
        text = str(first)
        for _ in range(rng.randint(*self.operations)):
            fits = []
            for _ in range(20):  # all are drawn, whichever fits first
                op, literal, left = rng.choice("+-*"), rng.randint(2, 9), rng.random() < 0.5
                result = OPERATIONS[op](*_operands(value, literal, left))
                if 1 <= result <= LARGEST:
                    fits.append((op, literal, left, result))
            if not fits:
                return None
            op, literal, left, result = fits[0]
            text = f"{literal} {op} {text}" if left else f"{text} {op} {literal}"
            text, value = f"( {text} )", result
            steps.append((op, literal, left))
        text = text[2:-2]
        info = {"first": first, "steps": steps, "difficulty": len(steps)}
        return Problem(f"chain {text}", f"chain {text}\n", str(value), info)

    def answer(self, text: str) -> str | None:
        """The number behind `answer`. An expression has one value, so that answers can be compared,
        whatever lines led to them."""
        return last_answer(text)

    def start(self, problem: Problem) -> State:
        return 0, problem.info["first"], True

    def advance(self, problem: Problem, state: State, line: str) -> State | None:
        a, op, b, c = operation(line)
        done, value, right = state
        if done == len(problem.info["steps"]):
            return None
        wanted, literal, left = problem.info["steps"][done]
        if op != wanted or (a, b) != _operands(value, literal, left):
            return None
        return done + 1, c, right and OPERATIONS[op](a, b) == c

    def moves(self, problem: Problem, state: State) -> list[Move]:
        done, value, right = state
        if done == len(problem.info["steps"]):
            return []
        op, literal, left = problem.info["steps"][done]
        a, b = _operands(value, literal, left)
        result = OPERATIONS[op](a, b)
        claims = (result - 10, result - 2, result - 1, result, result + 1, result + 2, result + 10)
        answers = [c for c in claims if 0 <= c <= LARGEST]
        return [Move(f"{a} {op} {b} = {c}", (done + 1, c, right and c == result)) for c in answers]

    def reachable(self, problem: Problem, state: State) -> bool:
        return state[2]

    def restate(self, state: State) -> str:
        return str(state[1])

    def answer_at(self, problem: Problem, state: State) -> str | None:
        return str(state[1]) if state[0] == len(problem.info["steps"]) else None


def _operands(value: int, literal: int, left: bool) -> tuple[int, int]:
    """The two operands in writing order: the literal stands left or right of the nested part."""
    return (literal, value) if left else (value, literal)
