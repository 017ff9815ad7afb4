"""Do p-values keep their level where there is nothing to be found? Each of the package's, on data
made for that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import binom, hypergeom, kstest

from mechreward import stats
from mechreward.base import streams
from mechreward.calibration.coverage import DRAWS
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
from mechreward.stats.intervals import difference
from mechreward.testbed.walks import Walks, walks

LEVELS = (0.05, 0.2)
SHUFFLES = 39  # moved targets a p-value: fewer than the experiments have, whose level is the same
PROBLEMS = 50  # as the main job tests on
NEURONS = 16


@dataclass(frozen=True)
class Pvalues:
    """P-values [run] under a null, and what each would be `without` its own mass: the chance, under
    the null of the test, of what is more extreme than the data. A p that is right is uniform
    between the two."""

    p: Float[np.ndarray, " run"]
    without: Float[np.ndarray, " run"]

    def randomised(self, seed: int = 0) -> Float[np.ndarray, " run"]:
        """One draw for each p between `without` and itself: uniform on [0, 1] for an exact test,
        discrete or not."""
        return self.without + (self.p - self.without) * streams.rng(
            "levels: randomised p", seed
        ).random(len(self.p))


def of_ranks(p: Float[np.ndarray, " run"], draws: int, tail: str = "low") -> Pvalues:
    """`rank_among` `draws` without ties."""
    p = np.asarray(p)
    return Pvalues(p, np.maximum(0, p - (2 if tail == "two" else 1) / (1 + draws)))


def null_pvalues(runs: int = 1000, seed: int = 0) -> dict[str, Pvalues]:
    """P-values where nothing is to be found, by what they belong to.

    Quick ones have `runs`: `rank_among` 19 exchangeable draws, exact McNemar on 60 paired outcomes
    with equal chances to win and lose, the smallest of ten after Holm, the hypergeometric of two
    random sets. Those of experiments have a quarter: R3's moved targets, R9's largest of many
    neurons, R12's overlap of sets as large, and the comparison of two models.
    """
    rng, few = streams.rng("levels: data", seed), max(20, runs // 4)
    draws = rng.normal(size=(runs, 20))
    found = {
        f"rank_among{', two-sided' if tail == 'two' else ''}": of_ranks(
            np.array([stats.rank_among(row[0], row[1:], tail=tail)[1] for row in draws]), 19, tail
        )
        for tail in ("low", "two")
    }
    before, after = (rng.random((runs, 60)) < p for p in (0.5, 0.5))
    found["mcnemar"] = _each(
        runs, lambda run: _mcnemar(before[run].astype(int), after[run].astype(int))
    )
    smallest = np.array([stats.holm(family).min() for family in rng.random((runs, 10))])
    found["holm, smallest of 10"] = Pvalues(smallest, smallest)
    found["hypergeometric_iou"] = _each(
        runs, lambda run: _overlap(streams.rng("levels: overlap", seed, run))
    )
    for name, one in EXPERIMENTS.items():
        found[name] = _each(
            few, lambda run, one=one: one(streams.rng("levels: experiments", seed, run), run)
        )
    return found


def rejections(name: str, found: Pvalues, seed: int = 0, **about: Any) -> list[Row]:
    """How often a p-value under the null is at most .05 and at most .2, with Wilson's interval over
    runs.

    `detail` holds two Kolmogorov-Smirnov p: `ks_too_small`, one-sided, that small values are not
    too frequent (exact or conservative for discrete p-values), and `ks_uniform`, two-sided, that
    the randomised p is uniform.
    """
    p = found.p
    detail = {
        "ks_too_small": float(kstest(p, "uniform", alternative="greater").pvalue),
        "ks_uniform": float(kstest(found.randomised(seed), "uniform").pvalue),
    }
    shared = {
        "experiment": "calibrate",
        "model": "planted-process",
        "task": "planted",
        "site": "",
        "seed": seed,
    }
    rows = []
    for level in LEVELS:
        rate = stats.proportion(int(np.sum(p <= level + 1e-12)), len(p))
        more = {"level": level, **detail, **about, "n": "runs"}
        rows.append(
            Row(**shared, arm=name, metric="null_rejection_rate", **asdict(rate), detail=more)
        )
    return rows


def _each(runs: int, one: Callable[[int], tuple[float, float]]) -> Pvalues:
    pairs = np.array([one(run) for run in range(runs)])
    return Pvalues(pairs[:, 0], pairs[:, 1].clip(min=0))


def _mcnemar(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    p = stats.mcnemar(before, after)
    lost, differ = int(np.sum(before > after)), int(np.sum(before != after))
    sides = {lost, differ - lost}  # as likely as each other
    return p, p - sum(float(binom.pmf(side, differ, 0.5)) for side in sides)


def _overlap(rng: np.random.Generator, k: int = 6, width: int = 64) -> tuple[float, float]:
    one, other = (rng.choice(width, k, replace=False) for _ in range(2))
    both = len(np.intersect1d(one, other))
    p = stats.hypergeometric_iou(k, k, width, both)[1]
    return p, p - float(hypergeom.pmf(both, width, k, k))


def _held(w: Walks, y: np.ndarray, x: np.ndarray) -> Examples:
    return Examples(torch.from_numpy(x).float(), y, w.reward, w.group, w.walk, w.step, w.last)


def _wandering(w: Walks, rng: np.random.Generator, columns: int) -> Float[np.ndarray, "row column"]:
    """Read-outs that keep to an answer and know nothing of it: random walks from a random start,
    with the step number in every other one."""
    x = rng.normal(0, 0.5, (len(w.v), columns))
    x[w.step == 0] += rng.normal(0, 1, (int(np.sum(w.step == 0)), columns))
    total = x.cumsum(0)
    begin = np.flatnonzero(w.step == 0)
    x = total - (total[begin] - x[begin])[w.walk]
    x[:, ::2] += 0.3 * w.step[:, None]
    return x


def _cell(
    column: int, trend: float = 0.0
) -> Callable[[np.random.Generator, int], tuple[float, float]]:
    """R3's p of one read-out: with the step number in it, or without; V-hat with a `trend`, per
    step, or without."""

    def one(rng: np.random.Generator, run: int) -> tuple[float, float]:
        w = walks(PROBLEMS, rng)
        read = _wandering(w, rng, 2)[:, column]
        p = float(
            p_moved(
                read[None], _held(w, w.estimate(rng) + trend * w.step, read[:, None]), SHUFFLES, run
            )[0]
        )
        return p, p - 1 / (1 + SHUFFLES)

    return one


def _most(stays: bool) -> Callable[[np.random.Generator, int], tuple[float, float]]:
    """R9: the largest |Spearman| of any neuron with delta, among those with delta moved; neurons
    that keep to an answer, or that are new at every step."""

    def one(rng: np.random.Generator, run: int) -> tuple[float, float]:
        w = walks(PROBLEMS, rng)
        x = _wandering(w, rng, NEURONS) if stays else rng.normal(size=(len(w.v), NEURONS))
        held = _held(w, w.delta(w.estimate(rng)), x)
        null = []
        for draw in range(SHUFFLES):
            moves = streams.rng("levels: moved targets", run, draw)
            null.append(largest(held.x, shuffled(held, moves, by_length=True).y))
        p = stats.rank_among(largest(held.x, held.y), np.array(null), tail="high")[1]
        return p, p - 1 / (1 + SHUFFLES)

    return one


def _apart(rng: np.random.Generator, run: int) -> tuple[float, float]:
    """Two models that read alike, each with its own interval."""
    both = []
    for side in range(2):
        w = walks(PROBLEMS, rng)
        columns = [w.read(w.v, 0.2, rng), w.estimate(rng)]
        both.append(
            stats.cluster_bootstrap(
                stats.spearman,
                columns,
                w.group,
                draws=DRAWS,
                seed=streams.stream("levels: two models", run, side),
            )
        )
    p = difference(*both)[1]
    return p, p


def _transferred(
    rng: np.random.Generator, run: int, width: int = 128, k: int = 6
) -> tuple[float, float]:
    """R12: the overlap of sets that share nothing but to prefer large neurons, against chance of
    neurons as large."""
    size = np.exp(rng.normal(0, 1, width))
    x = torch.from_numpy(rng.normal(size=(200, width)) * size).float()
    labels = np.arange(200)
    acts = Activations(
        x, Site(0, "mlp"), "tokens", labels, labels % 20, labels, ModelId("made", "", "float32", "")
    )
    picks = [rng.choice(width, k, replace=False, p=size / size.sum()).tolist() for _ in range(2)]
    source, goal = (NeuronSet.of(acts, picked, "the larger the likelier") for picked in picks)
    found = overlap(source, goal, acts.rms().numpy())
    return found.p, found.p - found.law[found.shared]


EXPERIMENTS: dict[str, Callable[[np.random.Generator, int], tuple[float, float]]] = {
    "R3, a read-out with the step number in it": _cell(0),
    "R3, a read-out without it": _cell(1),
    "R3, both V-hat and a read-out follow the step": _cell(0, 0.1),
    "R9, largest of 16 neurons that keep to an answer": _most(True),
    "R9, largest of 16 new at every step": _most(False),
    "R12, overlap of sets as large": _transferred,
    "difference of two models": _apart,
}
