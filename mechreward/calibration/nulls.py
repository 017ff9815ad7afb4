"""Do p-values keep their level where there is nothing to be found? Each of the package's, on data
made for that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.random import Generator
from scipy.stats import binom, hypergeom, kstest

from mechreward import stats
from mechreward.base import streams
from mechreward.calibration.coverage import DRAWS
from mechreward.calibration.rows import PROCESS, calibration_row
from mechreward.experiments.layers import p_moved
from mechreward.experiments.rows import Row
from mechreward.experiments.single_neuron import largest
from mechreward.models.identity import ModelId
from mechreward.models.site import Site
from mechreward.probing.activations import Activations
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.overlap import overlap
from mechreward.probing.pruning import shuffled
from mechreward.probing.targets import Examples
from mechreward.testbed.walks import Walks, walks

LEVELS = (0.05, 0.2)
FEW = 20  # the fewest runs of an experiment
RANKED = 19  # exchangeable draws that a value is ranked among
PAIRS = 60  # paired outcomes of McNemar's test
FAMILY = 10  # p-values that Holm corrects together
SHUFFLES = 39  # moved targets a p-value: fewer than the experiments have, whose level is the same
MASS = 1 / (1 + SHUFFLES)  # of any p that is a rank among them
PROBLEMS = 50  # as the main job tests on
NEURONS = 16

Runs = Float[np.ndarray, " run"]
PAndWithout = tuple[float, float]  # a p-value, and that p without its own mass
Null = Callable[[int], PAndWithout]  # of a seed


@dataclass(frozen=True)
class Pvalues:
    """P-values under a null. One that is right is uniform between `without` and `p`.

    Attributes
    ----------
    p : array [run]
    without : array [run]
        Each p without its own mass: the chance, under the null of the test, of what is more extreme
        than the data.
    """

    p: Runs
    without: Runs

    def randomised(self, seed: int = 0) -> Runs:
        """One draw for each p between `without` and itself: uniform on [0, 1] for an exact test,
        discrete or not."""
        rng = streams.rng("levels: randomised p", seed)
        part = rng.random(len(self.p))
        return self.without + (self.p - self.without) * part


def null_pvalues(runs: int = 1000, seed: int = 0) -> dict[str, Pvalues]:
    """P-values where nothing is to be found.

    Parameters
    ----------
    runs : int, default 1000
        Of the quick ones; those of experiments have a quarter, and at least `FEW`.
    seed : int, default 0

    Returns
    -------
    dict of str to Pvalues
        By what they belong to. Quick ones: `rank_among` 19 exchangeable draws, exact McNemar on 60
        paired outcomes with equal chances to win and lose, the smallest of ten after Holm, the
        hypergeometric of two random sets. Of experiments: R3's moved targets, R9's largest of many
        neurons, R12's overlap of sets as large, and the comparison of two models.
    """
    rng = streams.rng("levels: data", seed)
    by_test: dict[str, Pvalues] = {}
    values = rng.normal(size=(runs, 1 + RANKED))
    by_test["rank_among"] = ranked(values, "low")
    by_test["rank_among, two-sided"] = ranked(values, "two")
    before = rng.random((runs, PAIRS)) < 0.5
    after = rng.random((runs, PAIRS)) < 0.5
    by_test["mcnemar"] = collect(map(mcnemar, before.astype(int), after.astype(int)))
    families = rng.random((runs, FAMILY))
    by_test["holm, smallest of 10"] = smallest_of(families)
    tests = []
    for run in range(runs):
        rng = streams.rng("levels: overlap", seed, run)
        tests.append(shared_by_chance(rng))
    by_test["hypergeometric_iou"] = collect(tests)
    for name, null in EXPERIMENTS.items():
        tests = []
        for run in range(max(FEW, runs // 4)):
            key = streams.stream("levels: experiments", name, seed, run)
            tests.append(null(key))
        by_test[name] = collect(tests)
    return by_test


def rejections(
    name: str,
    pvalues: Pvalues,
    seed: int = 0,
    **about: Any,
) -> list[Row]:
    """How often a p-value under the null is at most .05 and at most .2.

    Parameters
    ----------
    name : str
        What the p-values belong to.
    pvalues : Pvalues
    seed : int, default 0
        Of `Pvalues.randomised`.
    **about
        Goes into `detail`.

    Returns
    -------
    list of Row
        One for each of `LEVELS`, with Wilson's interval over runs. `detail` holds two
        Kolmogorov-Smirnov p: `ks_too_small`, one-sided, that small values are not too frequent
        (exact or conservative for discrete p-values), and `ks_uniform`, two-sided, that the
        randomised p is uniform.
    """
    too_small = kstest(pvalues.p, "uniform", alternative="greater").pvalue
    uniform = kstest(pvalues.randomised(seed), "uniform").pvalue
    rows = []
    for level in LEVELS:
        rejected = int(np.sum(pvalues.p <= level + 1e-12))
        rate = stats.proportion(rejected, len(pvalues.p))
        detail = {
            "level": level,
            "ks_too_small": float(too_small),
            "ks_uniform": float(uniform),
            **about,
            "n": "runs",
        }
        row = calibration_row(PROCESS, name, "null_rejection_rate", rate, detail, seed=seed)
        rows.append(row)
    return rows


def collect(tests: Iterable[PAndWithout]) -> Pvalues:
    """P-values of many runs."""
    p, without = np.array(list(tests)).T
    return Pvalues(p, without.clip(min=0))


# Tests of `stats`


def of_ranks(p: Runs, draws: int, tail: str = "low") -> Pvalues:
    """P-values of `stats.rank_among` so many draws, without ties.

    Parameters
    ----------
    p : array [run]
    draws : int
    tail : {"low", "high", "two"}, default "low"

    Returns
    -------
    Pvalues
    """
    p = np.asarray(p)
    sides = 2 if tail == "two" else 1
    without = p - sides / (1 + draws)
    return Pvalues(p, np.maximum(0, without))


def ranked(values: Float[np.ndarray, "run value"], tail: str) -> Pvalues:
    """The first value of every run among the others."""
    p_values = []
    for first, *others in values:
        _, p = stats.rank_among(first, others, tail=tail)
        p_values.append(p)
    return of_ranks(np.array(p_values), RANKED, tail)


def smallest_of(families: Float[np.ndarray, "run test"]) -> Pvalues:
    """The smallest p of every family after Holm: a bound, with no mass to take off."""
    smallest = []
    for family in families:
        smallest.append(stats.holm(family).min())
    p = np.array(smallest)
    return Pvalues(p, p)


def mcnemar(before: np.ndarray, after: np.ndarray) -> PAndWithout:
    """Exact McNemar; as many won as were lost has the same p, and belongs to its mass."""
    p = stats.mcnemar(before, after)
    lost = int(np.sum(before > after))
    differ = int(np.sum(before != after))
    mass = 0.0
    for count in {lost, differ - lost}:
        mass += float(binom.pmf(count, differ, 0.5))
    return p, p - mass


def shared_by_chance(rng: Generator) -> PAndWithout:
    """Two random sets of neurons."""
    width, k = 64, 6
    one = rng.choice(width, k, replace=False)
    other = rng.choice(width, k, replace=False)
    shared = len(np.intersect1d(one, other))
    _, p = stats.hypergeometric_iou(k, k, width, shared)
    mass = float(hypergeom.pmf(shared, width, k, k))
    return p, p - mass


# Tests of experiments


def wandering(
    answers: Walks,
    rng: Generator,
    columns: int,
) -> Float[np.ndarray, "row column"]:
    """Read-outs that keep to an answer and know nothing of it: random walks from a random start,
    with the step number in every other one."""
    first = answers.step == 0
    moves = rng.normal(0, 0.5, (len(first), columns))
    starts = rng.normal(0, 1, (int(first.sum()), columns))
    moves[first] += starts
    total = moves.cumsum(0)
    before = total[first] - moves[first]  # the sum of all earlier answers
    reads = total - before[answers.walk]
    reads[:, ::2] += 0.3 * answers.step[:, None]
    return reads


def examples(answers: Walks, y: np.ndarray, x: np.ndarray) -> Examples:
    """Activations [row width] and a target [row] of the states of answers."""
    return Examples(
        torch.from_numpy(x).float(),
        y,
        answers.reward,
        answers.group,
        answers.walk,
        answers.step,
        answers.last,
    )


def layers(column: int, trend: float = 0.0) -> Null:
    """R3's p of one read-out.

    Parameters
    ----------
    column : int
        0 for a read-out with the step number in it, 1 for one without.
    trend : float, default 0
        What V-hat gains with every step.
    """

    def test(seed: int) -> PAndWithout:
        rng = streams.rng("levels: data of an experiment", seed)
        answers = walks(PROBLEMS, rng)
        read = wandering(answers, rng, 2)[:, column]
        v_hat = answers.estimate(rng) + trend * answers.step
        held = examples(answers, v_hat, read[:, None])
        (p,) = p_moved(read[None], held, SHUFFLES, seed)
        return float(p), float(p) - MASS

    return test


def several_answers(seed: int) -> PAndWithout:
    """R3's p of a read-out that is one number a problem and knows nothing of it, from four answers
    to each of half as many problems."""
    rng = streams.rng("levels: data of an experiment", seed)
    answers = walks(PROBLEMS // 2, rng, per=4)
    read = rng.normal(size=PROBLEMS // 2)[answers.group]
    held = examples(answers, answers.estimate(rng), read[:, None])
    (p,) = p_moved(read[None], held, SHUFFLES, seed)
    return float(p), float(p) - MASS


def single_neuron(stays: bool) -> Null:
    """R9: the largest |Spearman| of any neuron with delta, among those with delta moved.

    Parameters
    ----------
    stays : bool
        Whether neurons keep to an answer, or are new at every step.
    """

    def test(seed: int) -> PAndWithout:
        rng = streams.rng("levels: data of an experiment", seed)
        answers = walks(PROBLEMS, rng)
        if stays:
            x = wandering(answers, rng, NEURONS)
        else:
            x = rng.normal(size=(len(answers.v), NEURONS))
        delta = answers.delta(answers.estimate(rng))
        held = examples(answers, delta, x)
        null = []
        for draw in range(SHUFFLES):
            moves = streams.rng("levels: moved targets", seed, draw)
            moved = shuffled(held, moves, by_length=True)
            null.append(largest(held.x, moved.y))
        own = largest(held.x, held.y)
        _, p = stats.rank_among(own, np.array(null), tail="high")
        return p, p - MASS

    return test


def transfer(seed: int) -> PAndWithout:
    """R12: the overlap of sets that share nothing but to prefer large neurons, against chance of
    neurons as large."""
    rng = streams.rng("levels: data of an experiment", seed)
    width, k = 128, 6
    size = np.exp(rng.normal(0, 1, width))
    x = rng.normal(size=(200, width)) * size
    row = np.arange(200)
    identity = ModelId("made", "", "float32", "")
    activations = Activations(
        torch.from_numpy(x).float(),
        Site(0, "mlp"),
        "tokens",
        trajectory=row,
        position=row % 20,
        step=row,
        model_id=identity,
    )
    chance = size / size.sum()
    sets = []
    for _ in range(2):
        picked = rng.choice(width, k, replace=False, p=chance)
        sets.append(NeuronSet.of(activations, picked, "the larger the likelier"))
    source, goal = sets
    both = overlap(source, goal, activations.rms().numpy())
    mass = both.law[both.shared]
    return both.p, both.p - mass


def two_models(seed: int) -> PAndWithout:
    """Two models that read alike, each with its own interval."""
    rng = streams.rng("levels: data of an experiment", seed)
    scores = []
    for side in range(2):
        answers = walks(PROBLEMS, rng)
        read = answers.read(answers.v, 0.2, rng)
        v_hat = answers.estimate(rng)
        score = stats.cluster_bootstrap(
            stats.spearman,
            [read, v_hat],
            answers.group,
            draws=DRAWS,
            seed=streams.stream("levels: two models", seed, side),
        )
        scores.append(score)
    _, p = stats.difference(*scores)
    return p, p


EXPERIMENTS: dict[str, Null] = {
    "R3, a read-out with the step number in it": layers(0),
    "R3, a read-out without it": layers(1),
    "R3, both V-hat and a read-out follow the step": layers(0, 0.1),
    "R3, four answers a problem and a read-out of the problem": several_answers,
    "R9, largest of 16 neurons that keep to an answer": single_neuron(stays=True),
    "R9, largest of 16 new at every step": single_neuron(stays=False),
    "R12, overlap of sets as large": transfer,
    "difference of two models": two_models,
}
