"""Streams of random numbers have names: no two purposes share one, and no problem serves two."""

import ast
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import poisson

from mechreward import tasks
from mechreward.base.streams import rng, stream
from mechreward.causal.certificate import deal_problems as certificate_problems
from mechreward.experiments.plan import DEALT, Plan
from mechreward.tasks import Task

PACKAGE = Path(__file__).parents[1] / "mechreward"
SIZES = {"test": 40, "ablated": 60, "confidence": 100}
# What was one stream before: the test problems of seed 1 were confidence problems of seed 0, those
# of seed 2 ablated ones; and pairs that never were.
PAIRS = [
    (("test", 1), ("confidence", 0)),
    (("test", 2), ("ablated", 0)),
    (("test", 2), ("confidence", 1)),
    (("test", 3), ("ablated", 1)),
    (("confidence", 1), ("ablated", 0)),
    (("test", 3), ("confidence", 2)),
    (("ablated", 1), ("confidence", 2)),
    (("test", 0), ("test", 1)),
    (("ablated", 0), ("ablated", 1)),
    (("confidence", 0), ("confidence", 1)),
    (("test", 0), ("ablated", 1)),
    (("test", 0), ("confidence", 1)),
    (("test", 0), ("ablated", 2)),
    (("test", 0), ("confidence", 3)),
    (("ablated", 2), ("confidence", 0)),
    (("ablated", 3), ("confidence", 1)),
    (("test", 2), ("test", 3)),
    (("ablated", 2), ("ablated", 3)),
    (("confidence", 2), ("confidence", 3)),
    (("ablated", 0), ("confidence", 3)),
]


def ids(task: Task, purpose: str, seed: int) -> set[str]:
    plan = Plan(seed=seed, **SIZES)
    return {problem.id for problem in plan.problems(task, purpose)}


@pytest.fixture(scope="module")
def countdown() -> Task:
    return tasks.Countdown()


def test_a_name_is_a_stream() -> None:
    first = rng("bootstrap", 0).random(5)
    assert np.array_equal(first, rng("bootstrap", 0).random(5))
    assert np.array_equal(first, rng("bootstrap", np.int64(0)).random(5))
    for name in (("bootstrap", 1), ("resample", 0), ("bootstrap", 0, 0), ("bootstrap", "0")):
        assert not np.isin(rng(*name).random(5), first).any()


def test_seeds_of_names_differ() -> None:
    seeds = {stream(purpose, seed) for purpose in ("a", "b", "c") for seed in range(1000)}
    assert len(seeds) == 3000
    assert min(seeds) >= 0 and max(seeds) < 2**63


def test_streams_are_not_correlated() -> None:
    """24 streams, 276 pairs of 2,000 numbers: |r| beyond .1 has p = 8e-6 a pair, .002 in all."""
    streams = [rng(purpose, seed).random(2000) for purpose in ("x", "y", "z") for seed in range(8)]
    r = np.corrcoef(streams)
    assert np.abs(r[~np.eye(24, dtype=bool)]).max() < 0.1


@pytest.mark.parametrize("name", tasks.TASKS)
def test_no_problem_serves_two_purposes_of_a_seed(name: str) -> None:
    task = tasks.get(name)
    for one, other in combinations(DEALT, 2):
        assert ids(task, one, 5).isdisjoint(ids(task, other, 5))
    read, steered = certificate_problems(task, 40, 60, seed=5)
    assert {problem.id for problem in read}.isdisjoint({problem.id for problem in steered})
    assert (len(read), len(steered)) == (40, 60)


def test_other_seeds_and_purposes_share_problems_by_chance_alone(countdown: Task) -> None:
    """The chance that a problem of one set is in another, from 190 pairs of other seeds; what 20
    pairs share together is Poisson around it. Error rate: 1e-3."""
    others = [ids(countdown, "test", seed) for seed in range(1000, 1020)]
    shared = [len(one & other) for one, other in combinations(others, 2)]
    chance = np.mean(shared) / SIZES["test"] ** 2
    expected = total = 0.0
    for (purpose, seed), (other, another) in PAIRS:
        expected += chance * SIZES[purpose] * SIZES[other]
        both = ids(countdown, purpose, seed) & ids(countdown, other, another)
        total += len(both)
        assert len(both) < SIZES[purpose] / 2  # it was all of them
    assert poisson.ppf(0.0005, expected) <= total <= poisson.ppf(0.9995, expected)


def arithmetic(source: str) -> list[str]:
    """Sums and products with a seed in them."""
    sums = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Add | ast.Mult | ast.Sub):
            continue
        for side in (node.left, node.right):
            name = side.id if isinstance(side, ast.Name) else getattr(side, "attr", "")
            if name == "seed":
                sums.append(ast.unparse(node))
    return sums


def test_no_module_counts_with_seeds() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        assert arithmetic(path.read_text()) == [], path


def test_counting_with_seeds_is_found() -> None:
    assert arithmetic("f(seed + 1)\ng(2 * plan.seed)") == ["seed + 1", "2 * plan.seed"]
    assert arithmetic("f(stream('x', seed), seeds + 1)") == []
