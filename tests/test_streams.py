"""Streams of random numbers have names: no two purposes share one, and no problem serves two."""

import ast
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import poisson

from mechreward import tasks
from mechreward.base.streams import rng, stream
from mechreward.causal.material import deal
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
    dealt = deal(task, {"train": 20, "test": 40, "n": 60, "seed": 5})
    of_read = {problem.id for problem in dealt.read}
    assert of_read.isdisjoint({problem.id for problem in dealt.steered})
    assert (len(dealt.fit), len(dealt.read), len(dealt.steered)) == (20, 40, 60)


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


def is_seed(node: ast.expr) -> bool:
    """A seed by name, as an attribute or in a table: seed, plan.seed, setting["seed"]."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value == "seed"
    return (node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")) == "seed"


def unnamed(source: str) -> list[str]:
    """Sums and products with a seed in them, and lists of a seed and numbers."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult | ast.Sub):
            wrong = is_seed(node.left) or is_seed(node.right)
        elif isinstance(node, ast.List | ast.Tuple):
            numbers = [isinstance(part, ast.Constant) for part in node.elts]
            texts = [isinstance(getattr(part, "value", None), str) for part in node.elts]
            wrong = any(map(is_seed, node.elts)) and any(numbers) and not any(texts)
        else:
            wrong = False
        if wrong:
            found.append(ast.unparse(node))
    return found


def purposes(source: str) -> list[str]:
    """The first word of every stream that a module asks for by a constant name."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        purpose = node.args[0]
        if called in ("rng", "stream") and isinstance(purpose, ast.Constant):
            names.append(purpose.value)
    return names


def test_no_module_counts_with_seeds() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        assert unnamed(path.read_text()) == [], path


def test_counting_with_seeds_is_found() -> None:
    source = (
        "f(seed + 1)\ng(2 * plan.seed)\nh(setting['seed'] - 1)\nrng([seed, 5])\nrng((seed, 0, n))"
    )
    assert set(unnamed(source)) == {
        "seed + 1",
        "2 * plan.seed",
        "setting['seed'] - 1",
        "[seed, 5]",
        "(seed, 0, n)",
    }
    assert unnamed("f(stream('x', seed), seeds + 1)\nkey = ('answer', seed, 0)") == []


def test_every_purpose_is_asked_for_in_one_place() -> None:
    """But for those that two places share on purpose."""
    shared = {
        "levels: data of an experiment": 5,  # five experiments, of which each has seeds of its own
        "coverage: bootstrap": 2,  # of cases and of plants, told apart by their names
        "bootstrap": 2,  # the same draws of problems, of one statistic and of many at once
        "probe: order": 2,  # a probe alone, and the same probe in a batch of the benchmark
    }
    counts = Counter()
    for path in sorted(PACKAGE.rglob("*.py")):
        counts.update(purposes(path.read_text()))
    assert len(counts) > 20
    repeated = {name: count for name, count in counts.items() if count > 1}
    assert repeated == shared
