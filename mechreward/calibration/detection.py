"""How little of a coordinate's variance can V or delta be, so that a ranking still finds the
coordinate?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from mechreward import stats, tasks
from mechreward.base import streams
from mechreward.base.errors import one_of, require
from mechreward.base.progress import bar
from mechreward.calibration.data import RESID, TOP, drawn
from mechreward.calibration.rows import calibration_row
from mechreward.experiments.rows import Row
from mechreward.models.load import load
from mechreward.probing import rankings
from mechreward.probing.activations import Activations, record
from mechreward.probing.neurons import count, ranking
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.probing.targets import Examples, states, steps
from mechreward.rollouts.sample import sample
from mechreward.rollouts.value import estimate
from mechreward.stats import Interval
from mechreward.testbed.planted import plant, planted
from mechreward.testbed.walks import walks

SHARES = (0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48, 0.64)
POWER = 0.9

Shape = Literal["linear", "mlp"]
Score = Callable[[Examples], Float[np.ndarray, " width"]]


def value_l1(shape: Shape) -> Score:
    """The ranking of a value probe on V-hat."""

    def score(data: Examples) -> np.ndarray:
        return ValueProbe("mc", shape).fit_examples(data).scores_

    return score


def dopamine_l1(shape: Shape) -> Score:
    """The ranking of a dopamine probe on all steps."""

    def score(data: Examples) -> np.ndarray:
        return DopamineProbe(shape=shape).fit_examples(data).scores_

    return score


RANKINGS: dict[str, dict[str, Score]] = {
    "value": {
        "correlation": rankings.correlation,
        "mean difference": rankings.mean_difference,
        "linear probe, mc, L1": value_l1("linear"),
        "mlp probe, mc, L1": value_l1("mlp"),
    },
    "dopamine": {
        "correlation": rankings.correlation,
        "mean difference": rankings.mean_difference,
        "linear probe, delta, L1": dopamine_l1("linear"),
        "mlp probe, delta, L1": dopamine_l1("mlp"),
    },
}


@dataclass(frozen=True)
class Pool:
    """States or steps that something can be planted into.

    Attributes
    ----------
    name, task : str
        The model's and the task's.
    kind : {"value", "dopamine"}
        Whether rows are states and V is planted, or steps and delta.
    acts : Activations
        [row width]
    target : array [row]
        What is planted.
    data : Examples
        What rankings see of it, in the same rows.
    reliability : float
        How well they see it.
    """

    name: str
    task: str
    kind: str
    acts: Activations
    target: Float[np.ndarray, " row"]
    data: Examples
    reliability: float


def null_pool(
    kind: str,
    problems: int,
    per: int,
    k: int,
    seed: int = 0,
) -> Pool:
    """Rollouts of the null twin, and V or delta of other answers of the same process: no coordinate
    knows it.

    Parameters
    ----------
    kind : {"value", "dopamine"}
    problems, per : int
        Problems, and answers to each.
    k : int
        Continuations of a state; V-hat has its exact law, Binomial(k, V).
    seed : int, default 0

    Returns
    -------
    Pool
        `reliability` is the squared correlation of `target` with `data.y`.

    Raises
    ------
    MechRewardError
        Another kind.
    """
    one_of("kind of neuron", kind, RANKINGS)
    twin = planted("null", seed)
    problem_set = twin.task.problems("train", problems, seed)
    runs = sample(twin.model, problem_set, k=per, seed=seed, progress=False)
    others = walks(4 * len(runs), streams.rng("detection: other answers", seed))
    rng = streams.rng("detection: V-hat", seed)
    v = others.v[: sum(len(run.step_ends) for run in runs)]
    values = drawn(runs, v, k, seed)
    if kind == "value":
        acts = record(twin.model, runs, RESID, progress=False)[RESID]
        data = states(acts, values)
        acts = only(acts, values.live)
        target = v[values.live]
    else:
        acts = record(twin.model, runs, RESID, rows="steps", progress=False)[RESID]
        data = steps(acts, values)
        target = others.delta(others.v)[: len(data)]
        v_hat = rng.binomial(k, others.v) / k
        data = replace(data, y=others.delta(v_hat)[: len(data)])
    reliability = float(np.corrcoef(target, data.y)[0, 1] ** 2)
    return Pool("planted-null", "planted", kind, acts, target, data, reliability)


def model_pool(
    kind: str,
    name: str,
    problems: int,
    per: int,
    k: int,
    site: str = "2.resid_post",
    seed: int = 0,
) -> Pool:
    """Rollouts of a bundled Countdown model, whose V is unknown.

    V-hat (or its delta) of one half of the continuations is planted, and the rankings see that of
    the other half, so that noise lowers what can be found.

    Parameters
    ----------
    kind : {"value", "dopamine"}
    name : str
        Of a bundled model.
    problems, per : int
        Problems, and answers to each.
    k : int
        Continuations of a state, both halves together.
    site : str, default "2.resid_post"
    seed : int, default 0

    Returns
    -------
    Pool
        `reliability` is Spearman's correlation of `target` with `data.y`.

    Raises
    ------
    MechRewardError
        Another kind, or no such model.
    """
    one_of("kind of neuron", kind, RANKINGS)
    model = load(name)
    task = tasks.Countdown()
    problem_set = task.problems("train", problems, seed)
    runs = sample(model, problem_set, k=per, seed=seed, progress=False)
    values = estimate(model, runs, k=k, seed=seed, progress=f"detection limit: values of {name}")
    nothing = np.zeros_like(values.second)
    second_half = replace(values, first=values.second, second=nothing, k=values.k // 2)
    if kind == "value":
        acts = record(model, runs, site, progress=False)[site]
        data = states(acts, second_half)
        acts = only(acts, values.live)
        target = values.halves()[0][values.live]
    else:
        acts = record(model, runs, site, rows="steps", progress=False)[site]
        data = steps(acts, second_half)
        target = values.delta_halves()[0][values.is_step]
    reliability = stats.spearman(target, data.y)
    return Pool(name, task.name, kind, acts, target, data, reliability)


def only(acts: Activations, keep: np.ndarray) -> Activations:
    """The rows where `keep` [row] is True."""
    return replace(
        acts,
        x=acts.x[torch.from_numpy(keep)],
        trajectory=acts.trajectory[keep],
        position=acts.position[keep],
        step=acts.step[keep],
    )


def detection_limit(
    pool: Pool,
    name: str,
    problems: int,
    per: int,
    *,
    shares: Sequence[float] = SHARES,
    repeats: int = 50,
    seed: int = 0,
) -> Row:
    """The smallest share from which on a ranking has the planted coordinate in its top 1% with 90%
    power.

    Parameters
    ----------
    pool : Pool
    name : str
        A ranking of `RANKINGS` for the pool's kind.
    problems, per : int
        How much of the pool a ranking sees: problems, and answers to each.
    shares : sequence of float, default `SHARES`
        Of the coordinate's variance: the grid.
    repeats : int, default 50
        Each draws the coordinate, the problems and the sign anew.
    seed : int, default 0

    Returns
    -------
    Row
        Estimate and high are that share, low the share below it on the grid, where power was
        missing (0 if all were found). NaN if the largest is not enough.

    Raises
    ------
    MechRewardError
        More problems or trajectories than the pool has, or no repeats.
    """
    available = len(np.unique(pool.data.group))
    require(repeats >= 1, f"repeats must be at least 1; {repeats} was given.")
    require(problems <= available, f"the pool has {available} problems; {problems} were asked for.")
    most = int(answer_numbers(pool.data).max()) + 1
    require(per <= most, f"the pool has {most} trajectories a problem, not {per}.")
    low, limit = 0.0, float("nan")
    power = {}
    for share in sorted(shares, reverse=True):
        hits = 0
        for repeat in range(repeats):
            hits += is_found(pool, name, problems, per, share, repeat, seed)
        power[f"{share:g}"] = str(stats.proportion(hits, repeats))
        if hits < POWER * repeats:
            low = share
            break
        limit = share
    if np.isnan(limit):
        low = limit
    detail: dict[str, Any] = {
        "planted": pool.kind,
        "problems": problems,
        "trajectories": problems * per,
        "reliability": pool.reliability,
        "power": power,
        "n": "repeats",
    }
    return calibration_row(
        pool.name,
        name,
        "detection_limit",
        Interval(limit, low, limit, repeats),
        detail,
        task=pool.task,
        site=str(pool.acts.site),
        seed=seed,
    )


def answer_numbers(data: Examples) -> Int[np.ndarray, " row"]:
    """Which of its problem's trajectories a row belongs to, from 0."""
    first_row = np.searchsorted(data.group, data.group)
    return data.trajectory - data.trajectory[first_row]


def is_found(
    pool: Pool,
    name: str,
    problems: int,
    per: int,
    share: float,
    repeat: int,
    seed: int,
) -> bool:
    """Whether a ranking has a coordinate in its top 1% of which so large a share is planted."""
    # Common random numbers on purpose: rankings and shares of a pool are compared on equal draws.
    key = (pool.name, pool.kind, seed, repeat, problems, per)
    rng = streams.rng("detection: repeat", *key)
    chosen = rng.choice(np.unique(pool.data.group), problems, replace=False)
    keep = np.isin(pool.data.group, chosen) & (answer_numbers(pool.data) < per)
    data = pool.data.only(keep)
    spread = data.x.std(0).numpy()
    column = int(rng.choice(np.flatnonzero(spread > 1e-3 * np.median(spread))))
    sign = streams.stream("detection: sign", *key)
    acts = plant(only(pool.acts, keep), column, pool.target[keep], share, sign)
    scores = RANKINGS[pool.kind][name](replace(data, x=acts.x))
    top = ranking(scores)[: count(len(scores), TOP)]
    return column in top


def detection(
    pools: Sequence[Pool],
    sizes: Sequence[tuple[int, int]],
    names: Sequence[str],
    repeats: int,
) -> list[Row]:
    """`detection_limit` over a grid.

    Parameters
    ----------
    pools : sequence of Pool
    sizes : sequence of (int, int)
        Problems, and trajectories a problem. Those that a pool has not are left out.
    names : sequence of str
        Rankings. Those that a pool's kind has not are left out.
    repeats : int

    Returns
    -------
    list of Row
    """
    cells = []
    for pool in pools:
        available = len(np.unique(pool.data.group))
        for name in names:
            for problems, per in sizes:
                if name in RANKINGS[pool.kind] and problems <= available:
                    cells.append((pool, name, problems, per))
    rows = []
    for cell in bar(True, "detection limits", "cell", cells):
        rows.append(detection_limit(*cell, repeats=repeats))
    return rows
