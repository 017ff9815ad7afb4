"""One split of the data, and what every experiment's rows have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from mechreward import stats
from mechreward.experiments.rows import Row, rows_from
from mechreward.models.site import Site
from mechreward.probing.activations import Recording, record
from mechreward.probing.pruning import Probe, pruning_curve
from mechreward.probing.surface import surface
from mechreward.probing.targets import Examples, states, steps
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import Values
from mechreward.stats import Interval

SHARES = (0.01, 0.02, 0.05)
CUT = 0.3
SEEN = 0.05  # uncorrected p of a set at which it is ranked among all matched sets, not the first few alone


@dataclass(frozen=True)
class Split:
    """One split of the data: rollouts, their values, activations at states and over steps, and
    `surface` [row feature] of every state (`probing.surface`)."""

    runs: Rollouts
    values: Values
    at_states: Recording
    over_steps: Recording
    surface: Float[np.ndarray, "row feature"] = field(repr=False)

    def states(self, site: Site | str) -> Examples:
        return states(self.at_states[str(site)], self.values)

    def steps(self, site: Site | str) -> Examples:
        return steps(self.over_steps[str(site)], self.values)


def observe(
    model: Any, runs: Rollouts, values: Values, sites: Sequence[Site], what: str | None = None
) -> Split:
    """Replay `runs` once for states, once for steps, and once for the surface."""
    at_states = record(
        model, runs, list(sites), rows="states", what=what and f"{what}: activations at states"
    )
    over_steps = record(
        model, runs, list(sites), rows="steps", what=what and f"{what}: activations over steps"
    )
    return Split(runs, values, at_states, over_steps, surface(model, runs))


def shared(experiment: str, model: str, task: str, site: Any, seed: int) -> dict[str, Any]:
    """The fields that an experiment's rows have in common."""
    return {"experiment": experiment, "model": model, "task": task, "site": str(site), "seed": seed}


def describe(split: Split, name: str, about: dict[str, Any]) -> list[Row]:
    """What the data of one split looks like: accuracy, spread of V-hat, share of large TD errors,
    reliability."""
    values, group = split.values, np.array(split.values.group)
    live, step = values.live, values.is_step
    delta, mean = values.delta[step], values.mean[live]
    rewards, problems = np.array(split.runs.rewards, float), np.array(split.runs.groups)
    numbers = {
        "accuracy": stats.cluster_bootstrap(np.mean, rewards, problems),
        "value_mean": stats.cluster_bootstrap(np.mean, mean, group[live]),
        "value_sd": stats.cluster_bootstrap(np.std, mean, group[live]),
        "delta_above_.3": stats.cluster_bootstrap(
            np.mean, (delta > CUT).astype(float), group[step]
        ),
        "delta_below_-.3": stats.cluster_bootstrap(
            np.mean, (delta < -CUT).astype(float), group[step]
        ),
    }
    a, b = values.halves()
    da, db = (half[step] for half in values.delta_halves())
    numbers["reliability_value"] = stats.cluster_bootstrap(
        stats.split_half_reliability, [a[live], b[live]], group[live], draws=300
    )
    numbers["reliability_delta"] = stats.cluster_bootstrap(
        stats.split_half_reliability, [da, db], group[step], draws=300
    )
    detail = {"split": name, "k": values.k}
    return rows_from(
        about, [("baseline", metric, interval, detail) for metric, interval in numbers.items()]
    )


def curve(
    probe: Probe,
    fit: Examples,
    held: Examples,
    about: dict[str, Any],
    draws: int,
    others: Mapping[str, Float[np.ndarray, " width"]] | None = None,
) -> list[Row]:
    """The points of a pruning curve as rows."""
    rows = []
    for point in pruning_curve(probe, fit, held, draws=draws, seed=about["seed"], others=others):
        detail: dict[str, Any] = {
            "ratio": point.ratio,
            "neurons": point.neurons,
            "shape": probe.shape,
        }
        detail["fit"] = point.fit
        if point.arm in ("random", "shuffled", "rotated"):
            detail["draw"] = point.draw
        rows += rows_from(about, [(point.arm, point.metric, point.score, detail)])
    return rows


def measured(
    about: dict[str, Any], arm: str, scores: dict[str, Interval], detail: dict[str, Any]
) -> list[Row]:
    """One row for each score."""
    return rows_from(about, [(arm, metric, score, detail) for metric, score in scores.items()])


def bare(estimate: float, n: int) -> Interval:
    """A number without a sampling interval: a count, an index, a meter of one set."""
    return Interval(float(estimate), float("nan"), float("nan"), n)


def over_draws(values: Sequence[float]) -> Interval:
    """Mean of draws between the lowest and the highest; `n` counts draws."""
    return Interval(
        float(np.mean(values)), float(np.min(values)), float(np.max(values)), len(values)
    )
