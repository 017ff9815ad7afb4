"""Traces of a mediocre, exploring solver: what the bundled base model is trained to imitate."""

from __future__ import annotations

import random
from dataclasses import dataclass

from mechreward.tasks.base import LineTask, Problem


@dataclass(frozen=True)
class Habits:
    """How good a solver is: `insight` = chance of picking among moves that keep the goal reachable rather than among
    all moves; `notice` = chance, at each line, of recognising that the goal is out of reach and writing `back`."""

    insight: float
    notice: float


HABITS = {"countdown": Habits(0.7, 0.8), "chain": Habits(0.9, 0.5), "paths": Habits(0.5, 0.5)}


def trace(task: LineTask, problem: Problem, rng: random.Random) -> str:
    """One attempt, right or wrong: moves, `back` after dead ends, and `answer` or `fail` as the last line."""
    habits = HABITS[task.name]
    stack, tried, lines, backs = [task.start(problem)], [set[str]()], [], 0
    while True:
        state = stack[-1]
        alive = task.reachable(problem, state)
        noticed = not alive and rng.random() < habits.notice
        answer = task.answer(problem, state)
        if answer is not None and not (noticed and backs < task.max_backs):
            return "\n".join([*lines, f"answer {answer}"])
        moves = [m for m in task.moves(problem, state) if m.line not in tried[-1]]
        if not moves or noticed:
            if len(stack) > 1 and backs < task.max_backs:
                stack.pop()
                tried.pop()
                backs += 1
                lines.append(f"back : {task.restate(stack[-1])}")
                continue
            if not moves:
                return "\n".join([*lines, "fail"])
        good = [m for m in moves if task.reachable(problem, m.state)]
        move = rng.choice(good if good and rng.random() < habits.insight else moves)
        tried[-1].add(move.line)
        stack.append(move.state)
        tried.append(set())
        lines.append(move.line)
