"""Search algorithms on trees that fit into a table, without a model."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from mechreward.uses.search.algorithms import (
    ALGORITHMS,
    SURE,
    UNSCORED,
    WHOLE,
    _resampled,
    _settled,
)
from mechreward.uses.search.tree import COMBINE, Ask, Node, Options, Purse, explore

DEEP = 3  # steps of an answer
BRANCHES = 4  # different continuations of a node


@dataclass
class Tree:
    """Every node has a value in [0, 1) that its path decides; an answer is a path of three. A step
    costs one to three tokens. Which branch a continuation takes is drawn by its name."""

    seed: int
    purse: Purse
    tokens: int = 0
    asked: int = 0

    def value(self, path: tuple[int, ...]) -> float:
        return random.Random(f"value {self.seed} {path}").random()

    def branch(self, path: tuple[int, ...], number: int) -> int:
        return random.Random(f"branch {self.seed} {path} {number}").randrange(BRANCHES)

    def root(self) -> Node:
        return Node((), 3 * DEEP, False, content=())

    def child(self, node: Node, ask: Ask, number: int) -> Node:
        places, scores, left = node.content, node.scores, node.left
        cost = 0
        while True:
            pick = 0 if ask.greedy else self.branch((*node.path, *places), number)
            places = (*places, pick)
            scores = (*scores, self.value(places))
            cost += random.Random(f"cost {self.seed} {places}").randint(1, 3)
            if not ask.whole or len(places) == DEEP:
                break
        self.tokens += cost
        self.purse.left -= cost
        tie = random.Random(f"tie {self.seed} {node.path} {number}").random()
        ended = len(places) == DEEP
        return Node((*node.path, number), left - cost, ended, scores, tie, places)

    def expand(self, asks: list[tuple[int, Ask]]) -> list[list[Node]]:
        children = []
        for _, ask in asks:
            assert not ask.node.ended
            assert ask.count >= 1
            self.asked += ask.count
            numbers = range(ask.first, ask.first + ask.count)
            children.append([self.child(ask.node, ask, number) for number in numbers])
        return children


def run(name: str, tree: Tree, options: Options) -> Node:
    (node,) = explore([ALGORITHMS[name](tree.root(), options, tree.purse)], tree.expand)
    return node


def drawn(seed: int, k: int) -> list[Node]:
    """The answers that best-of-N draws, drawn apart."""
    tree = Tree(seed, Purse())
    return [tree.child(tree.root(), Ask(tree.root(), 1, whole=True), number) for number in range(k)]


def best_leaf(seed: int) -> float:
    """By going through all 64 answers."""
    tree = Tree(seed, Purse())
    every = itertools.product(range(BRANCHES), repeat=DEEP)
    return max(tree.value(path) for path in every)


@pytest.mark.parametrize("seed", range(20))
def test_best_of_n_takes_the_best_of_what_is_drawn(seed: int):
    node = run("best_of_n", Tree(seed, Purse()), Options(k=6))
    assert node.scores == max(drawn(seed, 6), key=lambda node: node.scores[-1]).scores


@pytest.mark.parametrize("combine", COMBINE)
def test_the_combination_asked_for_is_the_one_that_counts(combine: str):
    """By hand: last, least, mean, product and sum of three scores."""
    by_hand = {
        "last": lambda s: s[2],
        "min": lambda s: sorted(s)[0],
        "mean": lambda s: (s[0] + s[1] + s[2]) / 3,
        "product": lambda s: s[0] * s[1] * s[2],
        "sum": lambda s: s[0] + s[1] + s[2],
    }[combine]
    picks = set()
    for seed in range(30):
        node = run("best_of_n", Tree(seed, Purse()), Options(k=8, combine=COMBINE[combine]))
        expected = max(drawn(seed, 8), key=lambda node: by_hand(node.scores))
        assert by_hand(node.scores) == pytest.approx(by_hand(expected.scores))
        picks.add((seed, node.content))
    last = {(s, run("best_of_n", Tree(s, Purse()), Options(k=8)).content) for s in range(30)}
    assert (picks == last) is (combine == "last")


def test_a_wide_beam_finds_the_optimum():
    """With 40 candidates a node lacks one of four branches once in 25,000 times; the beam holds all
    64 answers, each once."""
    for seed in range(5):
        options = Options(k=40, width=64, same=lambda node: node.content)
        node = run("beam", Tree(seed, Purse()), options)
        assert node.scores[-1] == best_leaf(seed)


def test_candidates_that_say_the_same_take_one_place():
    """Two beams are two answers, though the better branch was drawn several times."""
    for seed in range(10):
        tree = Tree(seed, Purse())
        seen: list[list[tuple[int, ...]]] = []

        def look(asks, tree=tree, seen=seen):
            seen.append([ask.node.content for _, ask in asks])
            return tree.expand(asks)

        options = Options(k=6, width=2, same=lambda node: node.content)
        explore([ALGORITHMS["beam"](tree.root(), options, tree.purse)], look)
        assert all(len(set(round_)) == len(round_) for round_ in seen)


def test_one_beam_takes_the_best_candidate_of_every_step():
    for seed in range(20):
        tree = Tree(seed, Purse())
        node = run("beam", tree, Options(k=4))
        path: tuple[int, ...] = ()
        at = tree.root()
        again = Tree(seed, Purse())
        for _ in range(DEEP):
            candidates = [again.child(at, Ask(at, 1), number) for number in range(4)]
            at = min(candidates, key=lambda node: (-node.scores[-1], node.tie))
            path = at.content
        assert node.content == path
        assert tree.tokens == again.tokens


def test_the_best_finished_beam_wins_not_the_first():
    """One ends at once with .5, another goes on with .6 and ends with .9; a third ends with .4."""
    table = {
        (): [("a", 0.5, True), ("b", 0.6, False)],
        ("b",): [("c", 0.4, True), ("d", 0.9, True)],
    }

    def expand(asks):
        children = []
        for _, ask in asks:
            nodes = []
            for number, (name, score, ended) in enumerate(table[ask.node.content]):
                path = (*ask.node.content, name)
                scores = (*ask.node.scores, score)
                nodes.append(Node((*ask.node.path, number), 1, ended, scores, 0.0, path))
            children.append(nodes)
        return children

    root = Node((), 3, False, content=())
    for width in (1, 2):
        (node,) = explore([ALGORITHMS["beam"](root, Options(2, width), Purse())], expand)
        assert node.content == ("b", "d")
    table[("b",)] = [("c", 0.4, True), ("d", 0.1, True)]
    (node,) = explore([ALGORITHMS["beam"](root, Options(2, 1), Purse())], expand)
    assert node.content == ("a",), "dropped, but the best of all that were finished"


def test_trees_of_the_diverse_search_do_not_compete():
    """Each tree keeps its best, even where all candidates of another are better."""
    for seed in range(20):
        tree = Tree(seed, Purse())
        first = [tree.child(tree.root(), Ask(tree.root(), 1), n) for n in range(6)]
        halves = [max(part, key=lambda node: node.scores[-1]) for part in (first[:3], first[3:])]
        seen: list[tuple[int, ...]] = []
        again = Tree(seed, Purse())

        def look(asks, again=again, seen=seen):
            seen += [ask.node.content for _, ask in asks]
            return again.expand(asks)

        explore([ALGORITHMS["diverse"](again.root(), Options(3, 2), again.purse)], look)
        assert set(seen[1:3]) == {node.content for node in halves}


def voted(answers: list[str | None], weights: list[float]) -> str | None:
    total: Counter[str | None] = Counter()
    for answer, weight in zip(answers, weights, strict=True):
        total[answer] += weight
    if set(total) != {None}:
        total.pop(None, None)
    return max(total, key=lambda answer: total[answer])


@pytest.mark.parametrize("bounded", [True, False])
def test_votes(bounded: bool):
    """What no answer can be read of has no vote."""

    def answer(node: Node) -> str | None:
        return None if node.content[0] == 3 else str(node.content[0] % 2)

    for seed in range(30):
        options = Options(k=7, answer=answer, bounded=bounded)
        nodes = drawn(seed, 7)
        answers = [answer(node) for node in nodes]
        counted = [1.0] * 7
        elected = run("majority", Tree(seed, Purse()), options)
        votes = Counter(a for a in answers if a is not None)
        if len(set(votes.values())) == len(votes):
            assert answer(elected) == voted(answers, counted)
        scores = [node.scores[-1] for node in nodes]
        weights = scores if bounded else [math.exp(score) for score in scores]
        heavy = run("weighted", Tree(seed, Purse()), options)
        assert answer(heavy) == voted(answers, weights)
        same = [node for node in nodes if answer(node) == answer(heavy)]
        assert heavy.scores == max(same, key=lambda node: node.scores[-1]).scores


@pytest.mark.parametrize(("first", "second"), [(3, 0), (4, 0), (5, 0), (5, 1), (7, 2), (9, 3)])
def test_adaptive_votes_stop_by_the_beta_rule(first: int, second: int):
    """P(p > 1/2) for p of density p^first (1 - p)^second, integrated numerically."""
    names = ["a"] * first + ["b"] * second
    nodes = [Node((n,), 1, True, (0.0,), 0.0, name) for n, name in enumerate(names)]
    options = Options(answer=lambda node: node.content)
    mass = quad(lambda p: p**first * (1 - p) ** second, 0, 1)[0]
    above = quad(lambda p: p**first * (1 - p) ** second, 0.5, 1)[0]
    assert _settled(nodes, options) == (above / mass >= SURE)


def test_adaptive_votes_cost_less_where_answers_agree():
    same = Options(k=20, answer=lambda node: "yes")
    split = Options(k=20, answer=lambda node: str(node.path))
    cheap, dear = Tree(0, Purse()), Tree(0, Purse())
    run("adaptive", cheap, same)
    run("adaptive", dear, split)
    assert cheap.asked == 4  # P(p > 1/2 | 4 of 4) = 1 - 2^-5
    assert dear.asked == 20


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(2, 9), st.floats(0.0, 0.999))
def test_resampling_gives_every_particle_its_share(seed: int, count: int, level: float):
    """Systematic: weight times n, rounded down or up."""
    scores = np.random.default_rng(seed).normal(size=count)
    cloud = [Node((n,), 1, False, (float(s),), 0.0, n) for n, s in enumerate(scores)]
    options = Options(uniform=lambda round_: level)
    copies = Counter(node.content for node in _resampled(cloud, options, 0))
    weights = np.exp((scores - scores.max()) / scores.std())
    share = count * weights / weights.sum()
    assert sum(copies.values()) == count
    for n in range(count):
        assert math.floor(share[n] - 1e-9) <= copies[n] <= math.ceil(share[n] + 1e-9)


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(ALGORITHMS)),
    st.integers(0, 10_000),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(9, 60),
)
def test_no_budget_is_ever_exceeded(name: str, seed: int, k: int, width: int, budget: int):
    """And a whole answer comes of every one that pays for one."""
    tree = Tree(seed, Purse(budget))
    node = run(name, tree, Options(k, width, answer=lambda node: str(node.content[0])))
    assert node.ended
    assert tree.tokens <= budget
    assert tree.purse.left == budget - tree.tokens


@pytest.mark.parametrize("name", ALGORITHMS)
def test_problems_do_not_disturb_each_other(name: str):
    """Side by side as alone."""
    options = Options(k=3, width=2, answer=lambda node: str(node.content[0]))
    alone = [run(name, Tree(seed, Purse(30)), options).path for seed in range(6)]
    trees = [Tree(seed, Purse(30)) for seed in range(6)]

    def expand(asks):
        return [trees[number].expand([(number, ask)])[0] for number, ask in asks]

    plans = [ALGORITHMS[name](tree.root(), options, tree.purse) for tree in trees]
    assert [node.path for node in explore(plans, expand)] == alone


def test_ties_are_broken_by_their_own_number():
    options = Options()
    nodes = [Node((n,), 1, True, (0.5,), tie) for n, tie in enumerate((0.7, 0.2, 0.9))]
    assert [node.path for node in options.ranked(nodes)] == [(1,), (0,), (2,)]


def test_scores_matter_only_where_they_are_said_to():
    """Of two searches with other scores, those that look at none choose alike."""
    for name in UNSCORED:
        options = Options(k=5, answer=lambda node: str(node.content[0]))
        turned = Options(k=5, answer=options.answer, combine=lambda scores: -scores[-1])
        for seed in range(10):
            first = run(name, Tree(seed, Purse()), options)
            assert first.path == run(name, Tree(seed, Purse()), turned).path
    assert set(UNSCORED) < set(WHOLE)
