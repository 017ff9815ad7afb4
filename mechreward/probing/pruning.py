"""The pruning curve: how well few neurons do, retrained or masked.

Beside them stand subsets, bases and labels that nobody chose.
"""

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
    """One point of a curve.

    Attributes
    ----------
    arm : str
        Which neurons were kept, see `pruning_curve`.
    ratio : float
        Share of the neurons that is pruned.
    neurons : int
        How many are kept.
    draw : int
        Number of the draw, for arms with draws.
    fit : str
        "retrained" or "masked".
    metric : str
        See `score_read_out`.
    score : Interval
        How well it reads.
    """

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
    """How well a probe reads held-out rows, with intervals clustered by problem.

    Parameters
    ----------
    probe : ValueProbe or DopamineProbe
        A fitted probe.
    data : Examples
        Rows it was not fitted to.
    draws : int, default 300
        Bootstrap draws; 0 leaves the bounds out (NaN).
    seed : int, default 0
        Seed of the bootstrap.

    Returns
    -------
    mapping of str to Interval
        By metric, see `score_read_out`.

    Raises
    ------
    MechRewardError
        A probe that is not fitted, or of another width.
    """
    kind = "dopamine" if isinstance(probe, DopamineProbe) else "value"
    return score_read_out(probe.predict(data.x), data, kind, draws, seed)


def score_read_out(
    read: np.ndarray, data: Examples, kind: str = "value", draws: int = 300, seed: int = 0
) -> dict[str, Interval]:
    """How well a read-out tells what it should, with intervals clustered by problem.

    Parameters
    ----------
    read : array
        [row] the read-out.
    data : Examples
        The rows.
    kind : str, default "value"
        "value" or "dopamine".
    draws : int, default 300
        Bootstrap draws; 0 leaves the bounds out (NaN).
    seed : int, default 0
        Seed of the bootstrap.

    Returns
    -------
    mapping of str to Interval
        For "dopamine" Spearman with delta, `spearman`; for "value" AUROC of the terminal reward at
        s_0 (`auroc_s0`), at every state (`auroc_all`), at the last state (`auroc_last`) and among
        states of one problem only (`auroc_within`: a detector of easy problems has .5 there; left
        out where no problem has answers of both outcomes), and Spearman with V-hat (`spearman`).
    """

    def interval(
        statistic: Callable[..., float],
        keep: np.ndarray,
        *columns: np.ndarray,
        within: bool = False,
    ) -> Interval:
        arrays = [column[keep] for column in columns]
        group = data.group[keep]
        if draws:
            return stats.clustered(
                statistic, arrays, group, draws=draws, seed=seed, with_cluster=within
            )
        number = statistic(*arrays, *([group] if within else []))
        return Interval(number, float("nan"), float("nan"), len(np.unique(group)))

    every = np.ones(len(data), bool)
    if kind == "dopamine":
        return {"spearman": interval(stats.spearman, every, read, data.y)}
    scores = {
        "auroc_s0": interval(stats.auroc, data.step == 0, read, data.reward),
        "auroc_all": interval(stats.auroc, every, read, data.reward),
        "auroc_last": interval(stats.auroc, data.last, read, data.reward),
        "auroc_within": interval(stats.within_auroc, every, read, data.reward, within=True),
        "spearman": interval(stats.spearman, every, read, data.y),
    }
    if np.isnan(scores["auroc_within"].estimate):  # no problem has answers of both outcomes
        del scores["auroc_within"]
    return scores


def noiseless_spearman(
    read: Float[np.ndarray, " row"],
    y: Float[np.ndarray, " row"],
    first: Float[np.ndarray, " row"],
    second: Float[np.ndarray, " row"],
) -> float:
    """Spearman of a read-out with `y`, divided by the root of the reliability of `y`.

    `y` is the mean of the halves `first` and `second`. One statistic, so that its interval holds
    the error of the reliability too. Spearman's correction (1904) is exact for Pearson's
    correlation; for ranks it is the usual approximation.
    """
    return stats.disattenuated(stats.spearman(read, y), stats.split_half_reliability(first, second))


@dataclass(frozen=True)
class _Arm:
    """A ranking of neurons, the probe of all of them, and the rows it is fitted to and read on."""

    name: str
    draw: int
    neurons: np.ndarray
    whole: Probe
    train: Examples
    test: Examples


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
    """A probe on the top (1 - ratio) of the inputs, beside other rankings and nobody's choice.

    Each arm is read both ways: retrained on the subset, and masked, the probe of all inputs with
    all others at their mean. The arms are:

    - `value` or `dopamine`: ranked by that probe.
    - the rival rankings of `rankings.py`, once each: `magnitude` by activation alone;
      `mean_difference`, `correlation` and `l1_penalised` by V-hat or delta without the probe;
      `gradient_x_activation` by the full probe; and `others`.
    - `random`: `draws` random subsets of the same size.
    - `rotated`: the whole recipe in `draws` random rotations of the standardised inputs, what any
      basis gives.
    - `shuffled`: the whole recipe with targets moved between problems; ranking and retraining see
      only noise; `draws` shuffles, the same at every ratio.

    Rivals and `random` are left out where all inputs are kept. Arms without draws have intervals
    where they are retrained.

    Parameters
    ----------
    probe : ValueProbe or DopamineProbe
        A prototype, fitted or not.
    train : Examples
        Rows to rank and fit on.
    test : Examples
        Rows to measure on.
    ratios : sequence of float, default 0, .5, .8, .9, .95, .98, .99
        Shares of the inputs to prune, in [0, 1).
    draws : int, default 5
        Of the arms with draws.
    seed : int, default 0
        Seed of draws and bootstrap.
    others : mapping of str to array [width], or None, default None
        More rankings: name to scores.

    Returns
    -------
    list of Point
        One for each arm, ratio, draw, fit and metric.

    Raises
    ------
    MechRewardError
        Nothing to learn, or a ratio outside [0, 1).

    Notes
    -----
    Retraining beside masking, and the null arms, are our choice. A curve is evidence of sparsity
    only where the first arm stays above `random` and `rotated`; `evidence.sparsity` sums that up.

    A `shuffled` draw is centred at 0 and wide. A fit to noise leans on what most varies over the
    problems (a common direction, the step) with a sign that the draw decides, and reads that on
    test: on the demo's data its Spearman has a deviation of .1 with all neurons and .2 with 1%, for
    the fewer neurons the less cancels. As a draw keeps its sign from ratio to ratio, the mean of
    two or three slides along the curve to -.3 or +.3: that is chance, and no trend.
    """
    require(
        all(0 <= r < 1 for r in ratios), f"pruning ratios lie in [0, 1); {list(ratios)} were given."
    )
    kind = "dopamine" if isinstance(probe, DopamineProbe) else "value"
    width = train.x.shape[1]
    rng = streams.rng("curve: random subsets", seed)
    full = clone(probe).fit_examples(train)
    rivals = {
        "magnitude": magnitude(train),
        "mean_difference": mean_difference(train),
        "correlation": correlation(train),
        "l1_penalised": l1_penalised(train),
        "gradient_x_activation": gradient_x_activation(full, train),
        **(others or {}),
    }
    elsewhere: list[_Arm] = []
    for draw in range(draws):
        turned = rotated(train, test, streams.rng("curve: rotations", seed, draw))
        noise = shuffled(train, streams.rng("curve: shuffled targets", seed, draw))
        for name, source, held in (("rotated", *turned), ("shuffled", noise, test)):
            whole = clone(probe).fit_examples(source)
            elsewhere.append(_Arm(name, draw, ranking(whole.scores_), whole, source, held))
    points = []
    for ratio in ratios:
        kept = count(width, 1 - ratio)
        arms = [_Arm(kind, 0, ranking(full.scores_), full, train, test)]
        if kept < width:
            for name, score in rivals.items():
                arms.append(_Arm(name, 0, ranking(score), full, train, test))
            for draw in range(draws):
                arms.append(_Arm("random", draw, rng.permutation(width), full, train, test))
        for arm in arms + elsewhere:
            few = np.sort(arm.neurons[:kept])
            retrained = clone(probe).fit_examples(restrict(arm.train, few))
            reads = {
                "retrained": retrained.predict(arm.test.x[:, few]),
                "masked": arm.whole.predict(masked(arm.test.x, few, arm.whole.mean_)),
            }
            for fit, read in reads.items():
                alone = fit == "retrained" and (arm.name == kind or arm.name in rivals)
                bounds = 200 if alone else 0
                scores = score_read_out(read, arm.test, kind, draws=bounds, seed=seed)
                for metric, score in scores.items():
                    points.append(Point(arm.name, ratio, kept, arm.draw, fit, metric, score))
    return points


def clone(probe: Probe) -> Probe:
    """An unfitted copy with the same parameters."""
    return cast(Probe, base.clone(probe))


def shuffled(data: Examples, rng: np.random.Generator, by_length: bool = False) -> Examples:
    """Targets and rewards moved to other problems, problem after problem.

    Every row's are used once. All problems are put in a random order and laid over all others,
    without regard to where one ends: what is left knows nothing of the answer. Answers to one
    problem stay together, since they are alike: moved one by one they would count as independent.

    Parameters
    ----------
    data : Examples
        The rows.
    rng : np.random.Generator
        Draws the order.
    by_length : bool, default False
        Move whole problems among those whose answers have exactly the same lengths, so that targets
        keep their shape in time and all that step and length of an answer tell (much, where hard
        problems take longer): a test by such shuffles is exact for whatever, given the lengths, has
        nothing to do with the targets. Of several answers hardly two problems have the same
        lengths: test the first alone (`targets.first_answers`).

    Returns
    -------
    Examples
        The same activations with other targets.

    Notes
    -----
    A problem keeps its own by the chance of the permutation, and always where no other is as long,
    which costs power and no level. Both ways are our own choice; to cut, repeat or mix lengths
    makes p of what follows the step too small, or of what keeps to an answer too large.
    """
    problems = _problems(data)
    pools = {(): np.arange(len(problems))}
    if by_length:
        pools = _of_the_same_lengths(data, problems)
    source = np.empty(len(data), dtype=int)
    for _, pool in sorted(pools.items()):
        place = np.concatenate([problems[i] for i in rng.permutation(pool)])
        giver = np.concatenate([problems[i] for i in rng.permutation(pool)])
        source[place] = giver
    return replace(data, y=data.y[source], reward=data.reward[source])


def _problems(data: Examples) -> list[np.ndarray]:
    """Rows of every problem, in the order of the data; its answers by length, so that those of
    equal length meet."""
    _, answer, sizes = np.unique(data.trajectory, return_inverse=True, return_counts=True)
    rows: dict[int, list[int]] = {}
    by_length = np.argsort(sizes[answer], kind="stable")
    for problem in dict.fromkeys(data.group.tolist()):
        rows[problem] = []
    for row in by_length.tolist():
        rows[int(data.group[row])].append(row)
    return [np.array(own) for own in rows.values()]


def _of_the_same_lengths(
    data: Examples, problems: Sequence[np.ndarray]
) -> dict[tuple[int, ...], np.ndarray]:
    """Numbers of the problems by the lengths of their answers."""
    pools: dict[tuple[int, ...], list[int]] = {}
    for number, rows in enumerate(problems):
        _, lengths = np.unique(data.trajectory[rows], return_counts=True)
        pools.setdefault(tuple(sorted(lengths.tolist())), []).append(number)
    return {lengths: np.array(pool) for lengths, pool in pools.items()}


def rotated(train: Examples, test: Examples, rng: np.random.Generator) -> tuple[Examples, Examples]:
    """Both splits in one random orthogonal basis of the standardised inputs.

    Mean and deviation are those of `train`.
    """
    width = train.x.shape[1]
    q, r = np.linalg.qr(rng.normal(size=(width, width)))
    # The signs make it uniform over rotations and reflections.
    turn = torch.from_numpy(q * np.sign(np.diag(r))).float()
    mean, deviation = train.x.mean(0), train.x.std(0, correction=0)
    scale = torch.where(deviation > 1e-8, deviation, torch.inf)

    def turned(data: Examples) -> Examples:
        return replace(data, x=((data.x - mean) / scale) @ turn)

    return turned(train), turned(test)


def masked(x: torch.Tensor, neurons: np.ndarray, mean: torch.Tensor) -> torch.Tensor:
    """`x` [row width] with all but `neurons` at `mean` [width]."""
    out = mean.expand_as(x).clone()
    out[:, neurons] = x[:, neurons]
    return out


def restrict(data: Examples, neurons: np.ndarray) -> Examples:
    """The same rows with only these neurons, in index order."""
    return replace(data, x=data.x[:, np.sort(neurons)])
