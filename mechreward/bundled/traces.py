"""Traces of a careful and of a hasty solver: what the bundled base model imitates."""

from __future__ import annotations

import random
from dataclasses import dataclass

from mechreward.tasks.base import Problem
from mechreward.tasks.lines import LineTask


@dataclass(frozen=True)
class Habits:
    """How good a solver is.

    Attributes
    ----------
    insight : float
        Chance of picking among moves that keep the goal reachable rather than among all moves.
    finish : float
        The same where a single move reaches the goal.
    notice : float
        Chance, at each line, of recognising that the goal is out of reach and writing `back`.
    undos : int
        How often it is ready to go back.
    """

    insight: float
    finish: float
    notice: float
    undos: int


# From the careful solver a model learns the rules; it is seldom lost, so its value hardly moves.
# The hasty one guesses until it sees the goal, and has one undo: a dead end costs it much, and a
# lucky guess helps much (our choice, so that every task has large TD errors of both signs).
SOLVERS = {
    "careful": {
        "countdown": Habits(0.7, 0.7, 0.8, 3),
        "chain": Habits(0.9, 0.9, 0.5, 3),
        "paths": Habits(0.5, 0.5, 0.5, 2),
    },
    "hasty": {
        "countdown": Habits(0.4, 1.0, 0.6, 1),
        "chain": Habits(0.85, 0.85, 0.4, 1),
        "paths": Habits(0.2, 0.2, 0.3, 1),
    },
}


def trace(task: LineTask, problem: Problem, rng: random.Random, habits: Habits) -> str:
    """One attempt, right or wrong: moves, `back` after dead ends, last `answer` or `fail`."""
    stack, tried, lines, backs = [task.start(problem)], [set[str]()], [], 0
    while True:
        state = stack[-1]
        alive = task.reachable(problem, state)
        noticed = not alive and rng.random() < habits.notice
        answer = task.answer_at(problem, state)
        if answer is not None and not (noticed and backs < habits.undos):
            return "\n".join([*lines, f"answer {answer}"])
        moves = [m for m in task.moves(problem, state) if m.line not in tried[-1]]
        if not moves or noticed:
            if len(stack) > 1 and backs < habits.undos:
                stack.pop()
                tried.pop()
                backs += 1
                lines.append(f"back : {task.restate(stack[-1])}")
                continue
            if not moves:
                return "\n".join([*lines, "fail"])
        good = [m for m in moves if task.reachable(problem, m.state)]
        near = any(task.answer_at(problem, m.state) is not None for m in good)
        seen = rng.random() < (habits.finish if near else habits.insight)
        move = rng.choice(good if good and seen else moves)
        tried[-1].add(move.line)
        stack.append(move.state)
        tried.append(set())
        lines.append(move.line)
