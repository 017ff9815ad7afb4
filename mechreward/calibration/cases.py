"""Statistics with intervals that the package prints, each with data it may meet, simulated on the
Markov process.

A statistic that belongs to an experiment is restated here in a line: this folder lies above the
experiments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mechreward import stats
from mechreward.probing.pruning import noiseless_spearman
from mechreward.testbed.walks import K, Walks

CUT = 0.3


@dataclass(frozen=True)
class Case:
    """A statistic with one interval that the package prints: `draw` gives its columns and their
    problems."""

    statistic: Callable[..., float]
    draw: Callable[[Walks, np.random.Generator], tuple[list[np.ndarray], np.ndarray]]
    per: int = 1
    with_cluster: bool = False


def _first(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    keep = w.step == 0
    return [w.read(w.v, 0.1, rng)[keep], w.reward[keep]], w.group[keep]


def _every(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    return [w.read(w.v, 0.1, rng), w.reward], w.group


def _last(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    return [w.read(w.v, 0.5, rng)[w.last], w.reward[w.last]], w.group[w.last]


def _added(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """A read-out of V beside a surface that knows the problem's first state only."""
    begin = w.v[w.step == 0][w.walk]
    return [w.read(w.v, 0.1, rng), w.read(begin, 0.1, rng), w.reward], w.group


def _vhat(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    return [w.estimate(rng)], w.group


def _large(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    return [(np.abs(w.delta(w.estimate(rng))) > CUT).astype(float)], w.group


def _value(noise: float) -> Callable[..., tuple[list[np.ndarray], np.ndarray]]:
    return lambda w, rng: ([w.read(w.v, noise, rng), w.estimate(rng)], w.group)


def _dopamine(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    return [w.read(w.delta(w.v), 0.2, rng), w.delta(w.estimate(rng))], w.group


def _lost(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """A read-out of delta after an ablation, and the same before it."""
    clean = w.read(w.delta(w.v), 0.2, rng)
    return [clean + w.read(0 * w.v, 0.3, rng), clean, w.delta(w.estimate(rng))], w.group


def _beside(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """A read-out of delta after an ablation, and after those of five matched sets."""
    clean = w.read(w.delta(w.v), 0.2, rng)
    own, *others = (clean + w.read(0 * w.v, noise, rng) for noise in (0.3, *[0.1] * 5))
    return [own, np.stack(others, 1), w.delta(w.estimate(rng))], w.group


def _undone(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """Zeroing moves a read-out by what it said of V; later layers give three tenths of that
    back."""
    direct = w.read(0.5 - w.v, 0.05, rng)
    return [w.read(0.7 * direct, 0.1, rng), direct], w.group


def _patched(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """V-hat that a patch of few neurons adds in one state a problem, and a patch of all."""
    start = np.flatnonzero(w.step == 0)
    v = w.v[start]
    low, few, whole = (rng.binomial(K, v + more) / K for more in (-0.2, 0.1, 0.2))
    return [few - low, whole - low], w.group[start]


def _noiseless(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    halves = w.deltas(rng)
    return [w.read(w.delta(w.v), 0.2, rng), np.mean(halves, axis=0), *halves], w.group


def _ablated(w: Walks, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """An ablation that costs .2, against the mean of 19 matched sets that cost .1:
    `Effect.summary`'s difference."""
    start = w.v[w.step == 0]
    own = rng.binomial(1, start - 0.2)
    return [own - rng.binomial(19, start - 0.1) / 19], np.arange(len(start))


def _increment(more: np.ndarray, less: np.ndarray, label: np.ndarray) -> float:
    """`surface.increment`'s."""
    return stats.auroc(more, label) - stats.auroc(less, label)


def _change(after: np.ndarray, before: np.ndarray, y: np.ndarray) -> float:
    """R10's `change`."""
    return stats.spearman(after, y) - stats.spearman(before, y)


def _beyond(own: np.ndarray, others: np.ndarray, y: np.ndarray) -> float:
    """R10's `beyond_matched`."""
    return stats.spearman(own, y) - float(np.mean(stats.spearmans(others, y)))


def _spread(read: np.ndarray, y: np.ndarray) -> float:
    """R1's `spread`."""
    return float(read.std() / y.std()) if y.std() > 0 else float("nan")


def _restored(total: np.ndarray, direct: np.ndarray) -> float:
    """R4's `restored`, of `causal.repair`."""
    return 1 - float(total @ direct) / float(direct @ direct)


def _share(few: np.ndarray, whole: np.ndarray) -> float:
    """The certificate's share of what a patch of all neurons does."""
    return float(few.mean() / whole.mean()) if whole.mean() > 0 else float("nan")


CASES = {
    "mean: accuracy": Case(
        np.mean, lambda w, rng: ([w.reward[w.step == 0].astype(float)], w.group[w.step == 0])
    ),
    "mean: V-hat": Case(np.mean, _vhat),
    "mean: share of |delta| > .3": Case(np.mean, _large),
    "std: V-hat": Case(np.std, _vhat),
    "AUROC at s_0": Case(stats.auroc, _first),
    "AUROC at every state": Case(stats.auroc, _every),
    "AUROC at the last state": Case(stats.auroc, _last),
    "AUROC within problems (4 answers each)": Case(stats.within_auroc, _every, 4, True),
    "AUROC added to the surface (R1)": Case(_increment, _added),
    "Spearman with V-hat, near perfect": Case(stats.spearman, _value(0.05)),
    "Spearman with V-hat, good": Case(stats.spearman, _value(0.2)),
    "Spearman with V-hat, weak": Case(stats.spearman, _value(1.0)),
    "Spearman with delta": Case(stats.spearman, _dopamine),
    "Spearman with delta, disattenuated": Case(noiseless_spearman, _noiseless),
    "change of Spearman with delta (R10)": Case(_change, _lost),
    "Spearman with delta beyond matched sets (R10)": Case(_beyond, _beside),
    "ratio of standard deviations (R1)": Case(_spread, _value(0.1)),
    "part restored (R4)": Case(_restored, _undone),
    "share of the whole patch (certificate)": Case(_share, _patched),
    "reliability of V-hat": Case(
        stats.split_half_reliability, lambda w, rng: ([*w.halves(rng)], w.group)
    ),
    "reliability of delta": Case(
        stats.split_half_reliability, lambda w, rng: (w.deltas(rng), w.group)
    ),
    "paired difference to matched sets": Case(np.mean, _ablated),
}
