"""How little of a coordinate's variance can V or delta be, so that a ranking still finds the
coordinate?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mechreward import stats, tasks
from mechreward.base import streams
from mechreward.base.errors import one_of, require
from mechreward.base.progress import progress
from mechreward.calibration.pipeline import RESID, drawn
from mechreward.experiments.rows import Row
from mechreward.models.load import load
from mechreward.probing import rankings
from mechreward.probing.activations import Activations, record
from mechreward.probing.neurons import count, ranking
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.probing.targets import Examples, states, steps
from mechreward.rollouts.sample import sample
from mechreward.rollouts.value import estimate
from mechreward.testbed.planted import plant, planted
from mechreward.testbed.walks import walks

SHARES = (0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48, 0.64)
POWER = 0.9
RANKINGS: dict[str, dict[str, Callable[[Examples], np.ndarray]]] = {
    "value": {
        "correlation": rankings.correlation,
        "mean difference": rankings.mean_difference,
        "linear probe, mc, L1": lambda data: ValueProbe("mc", "linear").fit_examples(data).scores_,
        "mlp probe, mc, L1": lambda data: ValueProbe().fit_examples(data).scores_,
    },
    "dopamine": {
        "correlation": rankings.correlation,
        "mean difference": rankings.mean_difference,
        "linear probe, delta, L1": lambda data: (
            DopamineProbe(shape="linear").fit_examples(data).scores_
        ),
        "mlp probe, delta, L1": lambda data: DopamineProbe().fit_examples(data).scores_,
    },
}


@dataclass(frozen=True)
class Pool:
    """States or steps: their activations, what is planted (`target` [row]: V or delta, as `kind`
    says), and what rankings see of it (`data`)."""

    name: str
    task: str
    kind: str
    acts: Activations
    target: Float[np.ndarray, " row"]
    data: Examples
    reliability: float


def null_pool(kind: str, problems: int, per: int, k: int, seed: int = 0) -> Pool:
    """Rollouts of the null twin, and V or delta (`kind` "value" or "dopamine") of other answers of
    the same process: no coordinate knows it. V-hat has its exact law, Binomial(k, V)."""
    one_of("kind of neuron", kind, RANKINGS)
    twin = planted("null", seed)
    runs = sample(
        twin.model, twin.task.problems("train", problems, seed), k=per, seed=seed, what=None
    )
    others, rng = (
        walks(4 * len(runs), streams.rng("detection: other answers", seed)),
        streams.rng("detection: V-hat", seed),
    )
    v = others.v[: sum(len(run.step_ends) for run in runs)]
    values = drawn(runs, v, k, seed)
    if kind == "value":
        acts = record(twin.model, runs, RESID, what=None)[RESID]
        data, target, acts = states(acts, values), v[values.live], _only(acts, values.live)
    else:
        acts = record(twin.model, runs, RESID, rows="steps", what=None)[RESID]
        data, delta = steps(acts, values), others.delta(others.v)
        target = delta[: len(data)]
        data = replace(data, y=others.delta(rng.binomial(k, others.v) / k)[: len(data)])
    return Pool(
        "planted-null",
        "planted",
        kind,
        acts,
        target,
        data,
        float(np.corrcoef(target, data.y)[0, 1] ** 2),
    )


def model_pool(
    kind: str, name: str, problems: int, per: int, k: int, site: str = "2.resid_post", seed: int = 0
) -> Pool:
    """Rollouts of a bundled Countdown model. V is unknown: V-hat (or its delta) of one half of `k`
    continuations is planted, and the rankings see that of the other half, so that noise lowers what
    can be found (`reliability`)."""
    one_of("kind of neuron", kind, RANKINGS)
    model, task = load(name), tasks.Countdown()
    runs = sample(model, task.problems("train", problems, seed), k=per, seed=seed, what=None)
    values = estimate(model, runs, k=k, seed=seed, what=f"detection limit: values of {name}")
    half = replace(values, first=values.second, second=np.zeros_like(values.second), k=k // 2)
    if kind == "value":
        acts = record(model, runs, site, what=None)[site]
        data, target = states(acts, half), values.halves()[0][values.live]
        acts = _only(acts, values.live)
    else:
        acts = record(model, runs, site, rows="steps", what=None)[site]
        data, target = steps(acts, half), values.delta_halves()[0][values.is_step]
    return Pool(name, task.name, kind, acts, target, data, stats.spearman(target, data.y))


def _only(acts: Activations, keep: np.ndarray) -> Activations:
    labels = {key: getattr(acts, key)[keep] for key in ("trajectory", "position", "step")}
    return replace(acts, x=acts.x[torch.from_numpy(keep)], **labels)


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
    """The smallest of `shares` from which on a ranking has the planted coordinate in its top 1%
    with 90% power.

    Every repeat draws the coordinate, the problems and the sign anew. Estimate and high are that
    share, low the share below it on the grid, where power was missing (0 if all were found). NaN if
    the largest is not enough.

    Raises:
        MechRewardError: more problems or trajectories than the pool has, or no repeats.
    """
    groups = np.unique(pool.data.group)
    require(repeats >= 1, f"repeats must be at least 1; {repeats} was given.")
    require(
        problems <= len(groups), f"the pool has {len(groups)} problems; {problems} were asked for."
    )
    first = pool.data.trajectory[np.searchsorted(pool.data.group, pool.data.group)]
    nth = pool.data.trajectory - first  # which of its problem's trajectories a row belongs to
    require(
        per <= int(nth.max()) + 1,
        f"the pool has {nth.max() + 1} trajectories a problem, not {per}.",
    )
    ordered, powers, limit = sorted(shares), {}, float("nan")
    for share in ordered[::-1]:
        hits = 0
        for repeat in range(repeats):
            rng = streams.rng("detection: repeat", seed, repeat, problems, per)
            keep = np.isin(pool.data.group, rng.choice(groups, problems, replace=False)) & (
                nth < per
            )
            data, acts = pool.data.only(keep), _only(pool.acts, keep)
            spread = data.x.std(0).numpy()
            column = int(rng.choice(np.flatnonzero(spread > 1e-3 * np.median(spread))))
            made = plant(acts, column, pool.target[keep], share, seed=repeat)
            order = ranking(RANKINGS[pool.kind][name](replace(data, x=made.x)))
            hits += column in order[: count(len(order), 0.01)]
        powers[share] = stats.proportion(hits, repeats)
        if hits < POWER * repeats:
            break
        limit = share
    below = [share for share in ordered if share < limit]
    detail: dict[str, Any] = {
        "planted": pool.kind,
        "problems": problems,
        "trajectories": problems * per,
        "reliability": pool.reliability,
    }
    detail |= {"power": {f"{share:g}": str(one) for share, one in powers.items()}, "n": "repeats"}
    shared = {
        "experiment": "calibrate",
        "model": pool.name,
        "task": pool.task,
        "site": str(pool.acts.site),
    }
    low = (max(below) if below else 0.0) if limit == limit else float("nan")
    return Row(**shared, arm=name, metric="detection_limit", estimate=limit, low=low, high=limit, n=repeats, seed=seed,
               detail=detail)  # fmt: skip


def detection(
    pools: Sequence[Pool], sizes: Sequence[tuple[int, int]], names: Sequence[str], repeats: int
) -> list[Row]:
    """`detection_limit` over pools, (problems, trajectories a problem) and those of the rankings
    `names` that their kind has."""
    grid = [
        (pool, name, n, per)
        for pool in pools
        for name in names
        if name in RANKINGS[pool.kind]
        for n, per in sizes
    ]
    grid = [(p, name, n, per) for p, name, n, per in grid if n <= len(np.unique(p.data.group))]
    bar = progress("detection limits", "cell", grid)
    return [detection_limit(pool, name, n, per, repeats=repeats) for pool, name, n, per in bar]
