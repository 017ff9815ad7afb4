"""Paths: find a route in a small directed graph, one edge a line."""

from __future__ import annotations

import random
from collections.abc import Sequence

from mechreward.base.errors import of_kind, require, whole
from mechreward.tasks.base import Problem
from mechreward.tasks.lines import LineTask, Move

NODES = tuple("abcdefghijkl")
Route = tuple[str, ...]


class Paths(LineTask):
    """Walk from one node to another along the listed edges, never visiting a node twice.

    A line is `a>b`, one of the edges the prompt lists; a state is the standing route. Dead ends are
    nodes with no way on, and parts of the graph that do not lead to the goal. Any route to the goal
    is right, and the prompt names the goal: there is no `answer` by which texts could be compared.

    Parameters
    ----------
    degrees : tuple of int, default (0, 2, 2)
        Ways on from a node, drawn for each. By default a third of the nodes are dead ends and
        nothing is a forced move, so that every line is a decision (our choice: forced moves have no
        TD error).

    Raises
    ------
    MechRewardError
        A degree that is not 0 to 7, or none.
    """

    name = "paths"
    max_tokens = 72
    max_backs = 1

    def __init__(self, degrees: tuple[int, ...] = (0, 2, 2)) -> None:
        of_kind("degrees", degrees, Sequence)
        require(
            bool(degrees) and all(0 <= d < 8 for d in degrees),
            f"degrees are ways on from a node, 0 to 7 each; {degrees} were given.",
        )
        self.degrees = tuple(whole("a degree", degree) for degree in degrees)

    def draw(self, rng: random.Random) -> Problem | None:
        names = rng.sample(NODES, rng.randint(8, 12))
        degrees = {node: rng.choice(self.degrees) for node in names}
        edges = {}
        for node, degree in degrees.items():
            others = [name for name in names if name != node]
            edges[node] = sorted(rng.sample(others, degree))
        here, goal = names[0], names[-1]
        distance = _distance(edges, here, goal)
        if distance is None or not 2 <= distance <= 6 or rng.random() > (distance / 6) ** 2:
            return None
        listed = [f"{node}>{after}" for node in names for after in edges[node]]
        rng.shuffle(listed)
        text = f"paths {here} to {goal} : {' '.join(listed)}"
        info = {"edges": edges, "from": here, "to": goal, "difficulty": distance}
        return Problem(text, f"{text}\n", goal, info)

    def start(self, problem: Problem) -> Route:
        return (problem.info["from"],)

    def advance(self, problem: Problem, state: Route, line: str) -> Route | None:
        here, arrow, after = line.partition(">")
        if not arrow or here not in NODES or after not in NODES:
            raise ValueError(f"{line!r} is not 'a>b'")
        listed = after in problem.info["edges"].get(here, ())
        legal = here == state[-1] and listed and after not in state
        return (*state, after) if legal else None

    def moves(self, problem: Problem, state: Route) -> list[Move]:
        if state[-1] == problem.info["to"]:
            return []
        ways = [node for node in problem.info["edges"].get(state[-1], ()) if node not in state]
        return [Move(f"{state[-1]}>{node}", (*state, node)) for node in ways]

    def reachable(self, problem: Problem, state: Route) -> bool:
        closed = frozenset(state[:-1])
        edges, goal = problem.info["edges"], problem.info["to"]
        return _distance(edges, state[-1], goal, closed) is not None

    def restate(self, state: Route) -> str:
        return state[-1]

    def answer_at(self, problem: Problem, state: Route) -> str | None:
        return state[-1] if state[-1] == problem.info["to"] else None


def _distance(
    edges: dict[str, list[str]], here: str, goal: str, closed: frozenset[str] = frozenset()
) -> int | None:
    """Length of the shortest route that avoids `closed`; None if there is none."""
    ring, seen, steps = {here}, {here, *closed}, 0
    while ring:
        if goal in ring:
            return steps
        ring = {n for node in ring for n in edges.get(node, ()) if n not in seen}
        seen |= ring
        steps += 1
    return None
