"""A tree of partial answers, and algorithms that grow it, without a model.

An algorithm is a generator: it yields what it wants continued and is sent the continuations, until
it returns the answer it chose. So it can be tested on a tree that fits into a table, and the asks
of many problems can be run in one batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

PLENTY = 1 << 40  # tokens, where there is no budget
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Node:
    """A partial or whole answer to one problem.

    Attributes
    ----------
    path : tuple of int
        Names it: which continuation of which continuation it is; () is the prompt.
    left : int
        Tokens that it may still have.
    ended : bool
        Whether it is a whole answer.
    scores : tuple of float, default ()
        Of every step so far.
    tie : float, default 0.0
        In [0, 1), drawn by name: of two with one score, the lower goes first.
    content : object, default None
        What the sampler continues; no algorithm looks at it.
    """

    path: tuple[int, ...]
    left: int
    ended: bool
    scores: tuple[float, ...] = ()
    tie: float = 0.0
    content: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Ask:
    """Continuations that an algorithm wants.

    Attributes
    ----------
    node : Node
        Of what; not ended.
    count : int
        How many.
    first : int, default 0
        Number of the first of them among all continuations of the node.
    whole : bool, default False
        To the end of the answer; else one step.
    greedy : bool, default False
        At temperature 0.
    """

    node: Node
    count: int
    first: int = 0
    whole: bool = False
    greedy: bool = False


Plan = Generator[list[Ask], list[list[Node]], Node]


@dataclass
class Purse:
    """Tokens that a problem may still cost. Whoever expands nodes pays from it."""

    left: int = PLENTY

    def affords(self, tokens: int) -> int:
        """How many continuations of at most so many tokens it pays for."""
        return self.left // max(1, tokens)


@dataclass(frozen=True)
class Options:
    """What a search can be told, whatever the algorithm.

    Attributes
    ----------
    k : int, default 4
        Candidates of a step, or answers.
    width : int, default 1
        Beams kept, or trees.
    combine : function, default the last
        Score of an answer from those of its steps.
    bounded : bool, default False
        Whether scores are probabilities.
    answer : function, default none
        The answer that a node gives, for votes; None where it gives none.
    same : function, default the path
        What makes two nodes one partial answer.
    uniform : function, default 0.5
        A random number in [0, 1) for a round, drawn by name.
    """

    k: int = 4
    width: int = 1
    combine: Callable[[Sequence[float]], float] = lambda scores: scores[-1]
    bounded: bool = False
    answer: Callable[[Node], Hashable] = lambda node: None
    same: Callable[[Node], Hashable] = lambda node: node.path
    uniform: Callable[[int], float] = lambda round_: 0.5

    def score(self, node: Node) -> float:
        """Of a node; the prompt, which has no steps, is better than nothing."""
        return self.combine(node.scores) if node.scores else -math.inf

    def ranked(self, nodes: Sequence[Node]) -> list[Node]:
        """From the best to the worst."""
        return sorted(nodes, key=lambda node: (-self.score(node), node.tie, node.path))

    def distinct(self, nodes: Sequence[Node]) -> list[Node]:
        """From the best to the worst, of those that say the same only the first."""
        first: dict[Hashable, Node] = {}
        for node in self.ranked(nodes):
            first.setdefault(self.same(node), node)
        return list(first.values())


COMBINE: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda scores: scores[-1],
    "min": min,
    "mean": lambda scores: sum(scores) / len(scores),
    "product": math.prod,
    "sum": math.fsum,
}


def explore(
    plans: Sequence[Plan],
    expand: Callable[[list[tuple[int, Ask]]], list[list[Node]]],
    keep: Callable[[int, Node], None] | None = None,
) -> list[Node]:
    """Run several problems' algorithms side by side.

    Parameters
    ----------
    plans : sequence of Plan
        One for each problem.
    expand : function
        Takes the asks of a round, each with its problem's number, and gives the continuations of
        each.
    keep : function or None, default None
        Takes a problem's number and what was chosen for it, as soon as that is known.

    Returns
    -------
    list of Node
        What each chose.
    """
    chosen: dict[int, Node] = {}
    wanted: dict[int, list[Ask]] = {}

    def advance(number: int, children: list[list[Node]] | None) -> None:
        try:
            plan = plans[number]
            wanted[number] = next(plan) if children is None else plan.send(children)
        except StopIteration as stop:
            wanted.pop(number, None)
            chosen[number] = stop.value
            if keep is not None:
                keep(number, stop.value)

    for number in range(len(plans)):
        advance(number, None)
    while wanted:
        asks = [(number, ask) for number, some in wanted.items() for ask in some]
        children = iter(expand(asks))
        for number in list(wanted):
            advance(number, [next(children) for _ in wanted[number]])
    return [chosen[number] for number in range(len(plans))]
