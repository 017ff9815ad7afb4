"""The pruning curve: how well few neurons do, retrained on each subset, beside subsets that nobody chose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
from sklearn import base

from mechreward import stats
from mechreward._check import require
from mechreward.probing.neurons import count, ranking
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.probing.targets import Examples
from mechreward.stats import Interval

Probe = TypeVar("Probe", ValueProbe, DopamineProbe)
RATIOS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)


@dataclass(frozen=True)
class Point:
    """One point of a curve: `ratio` of the neurons pruned, `neurons` kept, and how well the retrained probe reads."""

    arm: str
    ratio: float
    neurons: int
    draw: int
    metric: str
    score: Interval


def measures(probe: ValueProbe | DopamineProbe, data: Examples, draws: int = 500, seed: int = 0) -> dict[str, Interval]:
    """What a probe reads, with intervals clustered by problem.

    For values: AUROC of the terminal reward at s_0, at every state, at the last state, and Spearman with V-hat. For TD
    errors: Spearman with delta.
    """
    read = probe.predict(data.x)

    def interval(statistic: Callable[..., float], keep: np.ndarray, *columns: np.ndarray) -> Interval:
        arrays = [column[keep] for column in columns]
        return stats.cluster_bootstrap(statistic, arrays, data.group[keep], draws=draws, seed=seed)

    every = np.ones(len(data), bool)
    if isinstance(probe, DopamineProbe):
        return {"spearman": interval(stats.spearman, every, read, data.y)}
    return {
        "auroc_s0": interval(stats.auroc, data.step == 0, read, data.reward),
        "auroc_all": interval(stats.auroc, every, read, data.reward),
        "auroc_last": interval(stats.auroc, data.last, read, data.reward),
        "spearman": interval(stats.spearman, every, read, data.y),
    }


def pruning_curve(
    probe: Probe,
    train: Examples,
    test: Examples,
    *,
    ratios: Sequence[float] = RATIOS,
    draws: int = 5,
    seed: int = 0,
) -> list[Point]:
    """Retrain `probe` (a fitted or unfitted prototype) on the top (1 - ratio) of the inputs and measure on `test`.

    Arms: `value` or `dopamine` (ranked by the full probe), `random` (`draws` random subsets of the same size), and
    `shuffled` (the whole recipe with targets shuffled between problems: ranking and retraining see only noise; `draws`
    shuffles). A curve is evidence of sparsity only where the first arm stays above `random`.

    Raises:
        MechRewardError: nothing to learn, or a ratio outside [0, 1).
    """
    require(all(0 <= r < 1 for r in ratios), f"pruning ratios lie in [0, 1); {list(ratios)} were given.")
    arm = "dopamine" if isinstance(probe, DopamineProbe) else "value"
    width = train.x.shape[1]
    rng = np.random.default_rng([seed, 1])
    full = clone(probe).fit_examples(train)
    noises = [shuffled(train, seed=seed * 1000 + d) for d in range(draws)]
    noise_ranks = [ranking(clone(probe).fit_examples(noise).scores_) for noise in noises]
    points = []
    for ratio in ratios:
        kept = count(width, 1 - ratio)
        plans = [(arm, 0, ranking(full.scores_)[:kept], train)]
        if kept < width:
            plans += [("random", d, rng.permutation(width)[:kept], train) for d in range(draws)]
        plans += [("shuffled", d, noise_ranks[d][:kept], noises[d]) for d in range(draws)]
        for name, draw, neurons, source in plans:
            fitted = clone(probe).fit_examples(restrict(source, neurons))
            few = measures(fitted, restrict(test, neurons), draws=200 if name == arm else 20, seed=seed)
            points += [Point(name, ratio, kept, draw, metric, score) for metric, score in few.items()]
    return points


def clone(probe: Probe) -> Probe:
    """An unfitted copy with the same parameters."""
    return cast(Probe, base.clone(probe))


def shuffled(data: Examples, seed: int) -> Examples:
    """Targets and rewards moved to other problems as whole trajectories (cut or repeated to the same length), so that
    they keep their shape in time; a trajectory keeps its own target only by the chance of the permutation."""
    rng = np.random.default_rng([seed, 2])
    starts = np.flatnonzero(np.append(True, data.trajectory[1:] != data.trajectory[:-1]))
    bounds = [*starts.tolist(), len(data)]
    source = np.empty(len(data), dtype=int)
    for place, giver in enumerate(rng.permutation(len(starts))):
        length = bounds[place + 1] - bounds[place]
        rows = np.arange(bounds[giver], bounds[giver + 1])
        source[bounds[place] : bounds[place + 1]] = rows[np.linspace(0, len(rows) - 1, length).round().astype(int)]
    moved = {"y": data.y[source], "reward": data.reward[source]}
    rest = {name: getattr(data, name) for name in ("group", "trajectory", "step", "last")}
    return Examples(data.x, **moved, **rest)


def restrict(data: Examples, neurons: np.ndarray) -> Examples:
    """The same rows with only these neurons, in index order."""
    rest = {name: getattr(data, name) for name in ("y", "reward", "group", "trajectory", "step", "last")}
    return Examples(data.x[:, np.sort(neurons)], **rest)
