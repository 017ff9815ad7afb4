"""Countdown: combine 3 or 4 numbers to a target, one operation a line."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations, cycle, islice

from mechreward.base.errors import MechRewardError, of_kind, require, whole
from mechreward.tasks.base import SPLITS, Problem
from mechreward.tasks.lines import LARGEST, OPERATIONS, LineTask, Move, integers, operation

Pool = tuple[int, ...]


class Countdown(LineTask):
    """Use every number once to reach the target; results stay whole and within 1..99.

    A line is `a op b = c : rest`, where `rest` lists the numbers that are left. A state is that
    pool. Dead ends are a single number that is not the target, and pools from which no play reaches
    it. Any play that reaches the target is right, and the prompt names the target: there is no
    `answer` by which texts could be compared.

    Parameters
    ----------
    sizes : sequence of int, default (3, 3, 3, 3, 4)
        How many numbers a problem has, evenly from this list.
    largest : int, default 24
        The largest number given. Up to 24 there are 15,986 problems of three numbers, up to 13 only
        3,261, few enough to be learnt by heart.

    Raises
    ------
    MechRewardError
        No size, or one that is no whole number from 2 on.
    """

    name = "countdown"
    max_tokens = 112
    max_backs = 1

    def __init__(self, sizes: Sequence[int] = (3, 3, 3, 3, 4), largest: int = 24) -> None:
        of_kind("sizes", sizes, Sequence)
        self.sizes = tuple(whole("a size", size, 2) for size in sizes)
        require(bool(self.sizes), "Countdown needs at least one size, as in sizes=(3,).")
        self.largest = whole("largest", largest, 2)

    def problems(self, split: str, n: int, seed: int = 0) -> list[Problem]:
        """As `Task.problems`, the sizes in turn.

        There are only some thousand problems of three numbers, so that a plain draw of many
        different ones would leave them behind, and mean another thing for every n.
        """
        if len(set(self.sizes)) == 1 or whole("n", n) < 1 or split not in SPLITS:
            return super().problems(split, n, seed)
        turns = list(islice(cycle(self.sizes), n))
        drawn = {}
        for size in dict.fromkeys(turns):
            one_size = type(self)((size,), self.largest)
            try:
                drawn[size] = iter(one_size.problems(split, turns.count(size), seed))
            except MechRewardError as error:
                raise MechRewardError(
                    f"{error} They are the share of {size} numbers in {n} problems."
                ) from error
        return [replace(next(drawn[size]), task=self) for size in turns]

    def draw(self, rng: random.Random) -> Problem | None:
        numbers = [rng.randint(2, self.largest) for _ in range(rng.choice(self.sizes))]
        pool: Pool = tuple(numbers)
        while len(pool) > 1:
            pool = rng.choice([after for _, after in _plays(pool)])
        target = next(iter(pool))
        if target < 10 or target in numbers:
            return None
        key = f"countdown {target} from {' '.join(map(str, sorted(numbers)))}"
        prompt = f"countdown {target} from {' '.join(map(str, numbers))}\n"
        info = {"numbers": numbers, "target": target, "difficulty": len(numbers) - 1}
        return Problem(key, prompt, str(target), info)

    def start(self, problem: Problem) -> Pool:
        return tuple(problem.info["numbers"])

    def advance(self, problem: Problem, state: Pool, line: str) -> Pool | None:
        head, colon, rest = line.partition(":")
        a, op, b, c = operation(head)
        if not colon:
            raise ValueError(f"{line!r} does not list what is left")
        left = integers(rest)
        pool = list(state)
        for number in (a, b):
            if number not in pool:
                return None
            pool.remove(number)
        right = 1 <= c <= LARGEST and OPERATIONS[op](a, b) == c
        legal = right and sorted(left) == sorted([*pool, c])
        return tuple(left) if legal else None

    def moves(self, problem: Problem, state: Pool) -> list[Move]:
        return [Move(f"{line} : {self.restate(after)}", after) for line, after in _plays(state)]

    def reachable(self, problem: Problem, state: Pool) -> bool:
        return problem.info["target"] in _finals(tuple(sorted(state)))

    def restate(self, state: Pool) -> str:
        return " ".join(map(str, state))

    def answer_at(self, problem: Problem, state: Pool) -> str | None:
        return str(state[0]) if state == (problem.info["target"],) else None


def _plays(pool: Pool) -> list[tuple[str, Pool]]:
    """Legal operations on a pool, `a op b = c` with a >= b, and the pool after each."""
    plays: dict[str, Pool] = {}
    for i, j in combinations(range(len(pool)), 2):
        a, b = max(pool[i], pool[j]), min(pool[i], pool[j])
        rest = tuple(n for k, n in enumerate(pool) if k not in (i, j))
        for op, result in OPERATIONS.items():
            c = result(a, b)
            if 1 <= c <= LARGEST:
                plays.setdefault(f"{a} {op} {b} = {c}", (*rest, c))
    return list(plays.items())


@cache
def _finals(pool: Pool) -> frozenset[int]:
    """Every number the (sorted) pool can be brought to, using all of it."""
    if len(pool) == 1:
        return frozenset(pool)
    return frozenset().union(*(_finals(tuple(sorted(after))) for _, after in _plays(pool)))
