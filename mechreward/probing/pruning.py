"""The pruning curve: how well few neurons do, retrained or masked, beside subsets, bases and labels
nobody chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from sklearn import base

from mechreward import stats
from mechreward.base import streams
from mechreward.base.errors import require
from mechreward.probing.neurons import count, ranking
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.probing.rankings import (
    correlation,
    gradient_x_activation,
    l1_penalised,
    magnitude,
    mean_difference,
)
from mechreward.probing.targets import Examples
from mechreward.stats import Interval

Probe = ValueProbe | DopamineProbe
RATIOS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)


@dataclass(frozen=True)
class Point:
    """One point of a curve: `ratio` of the neurons pruned, `neurons` kept, `fit` retrained or
    masked, how well it reads."""

    arm: str
    ratio: float
    neurons: int
    draw: int
    fit: str
    metric: str
    score: Interval


def measures(
    probe: ValueProbe | DopamineProbe, data: Examples, draws: int = 300, seed: int = 0
) -> dict[str, Interval]:
    """What a probe reads, with intervals clustered by problem: `score_read_out` of its predictions."""
    kind = "dopamine" if isinstance(probe, DopamineProbe) else "value"
    return score_read_out(probe.predict(data.x), data, kind, draws, seed)


def score_read_out(
    read: np.ndarray, data: Examples, kind: str = "value", draws: int = 300, seed: int = 0
) -> dict[str, Interval]:
    """How well a read-out [row] tells what it should, with intervals clustered by problem.

    For values: AUROC of the terminal reward at s_0, at every state, at the last state, and among
    states of one problem only (a detector of easy problems has .5 there; left out where no problem
    has answers of both outcomes), and Spearman with V-hat. For TD errors (`kind` "dopamine"):
    Spearman with delta. `draws` 0 leaves the bounds out (NaN).
    """

    def interval(
        statistic: Callable[..., float],
        keep: np.ndarray,
        *columns: np.ndarray,
        within: bool = False,
    ) -> Interval:
        arrays, group = [column[keep] for column in columns], data.group[keep]
        if draws:
            return stats.clustered(
                statistic, arrays, group, draws=draws, seed=seed, with_cluster=within
            )
        number = statistic(*arrays, *([group] if within else []))
        return Interval(number, float("nan"), float("nan"), len(np.unique(group)))

    every = np.ones(len(data), bool)
    if kind == "dopamine":
        return {"spearman": interval(stats.spearman, every, read, data.y)}
    found = {
        "auroc_s0": interval(stats.auroc, data.step == 0, read, data.reward),
        "auroc_all": interval(stats.auroc, every, read, data.reward),
        "auroc_last": interval(stats.auroc, data.last, read, data.reward),
        "auroc_within": interval(stats.within_auroc, every, read, data.reward, within=True),
        "spearman": interval(stats.spearman, every, read, data.y),
    }
    if np.isnan(found["auroc_within"].estimate):  # no problem has answers of both outcomes
        del found["auroc_within"]
    return found


def noiseless_spearman(
    read: Float[np.ndarray, " row"],
    y: Float[np.ndarray, " row"],
    first: Float[np.ndarray, " row"],
    second: Float[np.ndarray, " row"],
) -> float:
    """Spearman of a read-out with `y`, divided by the root of the reliability of `y`, which is the
    mean of the halves `first` and `second`.

    One statistic, so that its interval holds the error of the reliability too. Spearman's
    correction (1904) is exact for Pearson's correlation; for ranks it is the usual approximation.
    """
    return stats.disattenuated(stats.spearman(read, y), stats.split_half_reliability(first, second))


def pruning_curve(
    probe: Probe,
    train: Examples,
    test: Examples,
    *,
    ratios: Sequence[float] = RATIOS,
    draws: int = 5,
    seed: int = 0,
    others: Mapping[str, Float[np.ndarray, " width"]] | None = None,
) -> list[Point]:
    """`probe` (a fitted or unfitted prototype) on the top (1 - ratio) of the inputs, measured on
    `test`.

    Each arm both ways, retrained on the subset, and masked: the probe of all inputs with all others
    at their mean. `value` or `dopamine` (ranked by that probe), the rival rankings of `rankings.py`
    (`magnitude` by activation alone; `mean_difference`, `correlation` and `l1_penalised` by V-hat
    or delta without the probe; `gradient_x_activation` by the full probe) and `others` (name ->
    scores), once each; `random` (`draws` random subsets of the same size), `rotated` (the whole
    recipe in `draws` random rotations of the standardised inputs: what any basis gives), and
    `shuffled` (the whole recipe with targets moved between problems: ranking and retraining see
    only noise; `draws` shuffles). Rivals and `random` are left out where all inputs are kept. Arms
    without draws have intervals where they are retrained. A curve is evidence of sparsity only
    where the first arm stays above `random` and `rotated`; `evidence.sparsity` sums that up.

    Raises:
        MechRewardError: nothing to learn, or a ratio outside [0, 1).
    """
    require(
        all(0 <= r < 1 for r in ratios), f"pruning ratios lie in [0, 1); {list(ratios)} were given."
    )
    arm = "dopamine" if isinstance(probe, DopamineProbe) else "value"
    width, rng = train.x.shape[1], streams.rng("curve: random subsets", seed)
    full = clone(probe).fit_examples(train)
    rivals = {
        "magnitude": magnitude(train),
        "mean_difference": mean_difference(train),
        "correlation": correlation(train),
        "l1_penalised": l1_penalised(train),
        "gradient_x_activation": gradient_x_activation(full, train),
        **(others or {}),
    }
    elsewhere: list[tuple[str, int, np.ndarray, Probe, tuple[Examples, Examples]]] = []
    for draw in range(draws):
        turned = rotated(train, test, streams.rng("curve: rotations", seed, draw))
        noise = shuffled(train, streams.rng("curve: shuffled targets", seed, draw))
        for name, pair in (("rotated", turned), ("shuffled", (noise, test))):
            whole = clone(probe).fit_examples(pair[0])
            elsewhere.append((name, draw, ranking(whole.scores_), whole, pair))
    points = []
    for ratio in ratios:
        kept = count(width, 1 - ratio)
        plans = [(arm, 0, ranking(full.scores_), full, (train, test))]
        if kept < width:
            plans += [
                (name, 0, ranking(score), full, (train, test)) for name, score in rivals.items()
            ]
            plans += [
                ("random", d, rng.permutation(width), full, (train, test)) for d in range(draws)
            ]
        for name, draw, neurons, whole, (source, held) in plans + elsewhere:
            few = np.sort(neurons[:kept])
            reads = {
                "retrained": clone(probe)
                .fit_examples(restrict(source, few))
                .predict(held.x[:, few]),
                "masked": whole.predict(masked(held.x, few, whole.mean_)),
            }
            for fit, read in reads.items():
                bounds = 200 if fit == "retrained" and (name == arm or name in rivals) else 0
                found = score_read_out(read, held, arm, draws=bounds, seed=seed)
                points += [
                    Point(name, ratio, kept, draw, fit, metric, score)
                    for metric, score in found.items()
                ]
    return points


def clone(probe: Probe) -> Probe:
    """An unfitted copy with the same parameters."""
    return cast(Probe, base.clone(probe))


def shuffled(data: Examples, rng: np.random.Generator, by_length: bool = False) -> Examples:
    """Targets and rewards moved to other problems, trajectory after trajectory, every row's used
    once.

    All trajectories are put in a random order and laid over all others, without regard to where one
    ends: what is left knows nothing of the answer. `by_length` moves whole trajectories among those
    of exactly equal length, so that targets keep their shape in time and all that step and length
    of an answer tell (much, where hard problems take longer): a test by such shuffles is exact for
    whatever, given the lengths, has nothing to do with the targets. A trajectory keeps its own by
    the chance of the permutation, and always where no other is as long, which costs power and no
    level. Both are our own choice; to cut, repeat or mix lengths makes p of what follows the step
    too small, or of what keeps to an answer too large.
    """
    answers = np.split(np.arange(len(data)), np.flatnonzero(np.diff(data.trajectory)) + 1)
    lengths = np.array([len(rows) for rows in answers])
    pools = (
        [np.flatnonzero(lengths == n) for n in np.unique(lengths)]
        if by_length
        else [np.arange(len(answers))]
    )
    source = np.empty(len(data), dtype=int)
    for pool in pools:
        place, giver = (
            np.concatenate([answers[i] for i in rng.permutation(pool)]) for _ in range(2)
        )
        source[place] = giver
    return replace(data, y=data.y[source], reward=data.reward[source])


def rotated(train: Examples, test: Examples, rng: np.random.Generator) -> tuple[Examples, Examples]:
    """Both splits in one random orthogonal basis of the standardised inputs (mean and deviation of
    `train`)."""
    q, r = np.linalg.qr(rng.normal(size=(train.x.shape[1],) * 2))
    turn = torch.from_numpy(
        q * np.sign(np.diag(r))
    ).float()  # uniform over rotations and reflections
    mean, deviation = train.x.mean(0), train.x.std(0, correction=0)
    scale = torch.where(deviation > 1e-8, deviation, torch.inf)
    new = (replace(data, x=((data.x - mean) / scale) @ turn) for data in (train, test))
    return next(new), next(new)


def masked(x: torch.Tensor, neurons: np.ndarray, mean: torch.Tensor) -> torch.Tensor:
    """`x` [row width] with all but `neurons` at `mean` [width]."""
    out = mean.expand_as(x).clone()
    out[:, neurons] = x[:, neurons]
    return out


def restrict(data: Examples, neurons: np.ndarray) -> Examples:
    """The same rows with only these neurons, in index order."""
    return replace(data, x=data.x[:, np.sort(neurons)])
