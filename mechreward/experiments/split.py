"""One split of the data: what it holds, what it looks like, and a pruning curve over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from mechreward import stats
from mechreward.base.progress import under
from mechreward.experiments.rows import Detail, Row, Setting, row_of, rows_of
from mechreward.models.site import Site
from mechreward.probing.activations import Recording, record
from mechreward.probing.pruning import Probe, pruning_curve
from mechreward.probing.surface import surface
from mechreward.probing.targets import Examples, states, steps
from mechreward.rollouts.trajectory import Rollouts, check_apart
from mechreward.rollouts.value import Values
from mechreward.stats import Interval

SHARES = (0.01, 0.02, 0.05)  # of the neurons of a site, in a set of the top
CUT = 0.3  # |delta| above which a TD error is large: the cut of the paper
# Uncorrected p of a set at which it is ranked among all matched sets, not the first few alone.
SEEN = 0.05


@dataclass(frozen=True)
class Split:
    """One split of the data.

    Attributes:
        runs: the rollouts.
        values: V-hat of their states.
        at_states: activations at the states, by site.
        over_steps: activations over the steps, by site.
        surface: `[row feature]` of every state (`probing.surface`).
    """

    runs: Rollouts
    values: Values
    at_states: Recording
    over_steps: Recording
    surface: Float[np.ndarray, "row feature"] = field(repr=False)

    def states(self, site: Site | str) -> Examples:
        """States of one site with their V-hat."""
        return states(self.at_states[str(site)], self.values)

    def steps(self, site: Site | str) -> Examples:
        """Steps of one site with their TD error."""
        return steps(self.over_steps[str(site)], self.values)

    @property
    def toward(self) -> Float[np.ndarray, " row"]:
        """V-hat of every state, NaN where the answer ends: the way that steering goes."""
        return np.where(self.values.live, self.values.mean, np.nan)


def observe(
    model: Any,
    runs: Rollouts,
    values: Values,
    sites: Sequence[Site],
    progress: bool | str = False,
) -> Split:
    """Replay `runs` once for states, once for steps, and once for the surface.

    Args:
        sites: where activations are recorded.
        progress: whether bars are shown, or their title (default False).
    """
    titles = [under(progress, f"activations {rows}") for rows in ("at states", "over steps")]
    at_states = record(model, runs, list(sites), rows="states", progress=titles[0])
    over_steps = record(model, runs, list(sites), rows="steps", progress=titles[1])
    return Split(runs, values, at_states, over_steps, surface(model, runs))


def shared(experiment: str, model: str, task: str, site: Any, seed: int) -> Setting:
    """The fields that an experiment's rows have in common; `site` is a `Site` or its name."""
    return Setting(experiment=experiment, model=model, task=task, site=str(site), seed=seed)


def check_splits(**splits: Split) -> None:
    """Raise MechRewardError where two splits share a prompt, under whatever ids."""
    check_apart(**{name: split.runs.problems for name, split in splits.items()})


def describe(split: Split, name: str, setting: Setting) -> list[Row]:
    """What the data of one split looks like: accuracy, spread of V-hat, share of large TD errors,
    reliability."""
    values = split.values
    live = values.live
    step = values.is_step
    group = np.array(values.group)
    delta = values.delta[step]
    mean = values.mean[live]
    rewards = np.array(split.runs.rewards, float)
    above = (delta > CUT).astype(float)
    below = (delta < -CUT).astype(float)
    first, second = values.halves()
    first_delta, second_delta = values.delta_halves()
    numbers = {
        "accuracy": _share(rewards, np.array(split.runs.groups)),
        "value_mean": _share(mean, group[live]),
        "value_sd": stats.cluster_bootstrap(np.std, mean, group[live]),
        "delta_above_.3": _share(above, group[step]),
        "delta_below_-.3": _share(below, group[step]),
        "reliability_value": stats.cluster_bootstrap(
            stats.split_half_reliability, [first[live], second[live]], group[live], draws=300
        ),
        "reliability_delta": stats.cluster_bootstrap(
            stats.split_half_reliability,
            [first_delta[step], second_delta[step]],
            group[step],
            draws=300,
        ),
    }
    return rows_of(setting, "baseline", numbers, Detail(split=name, k=values.least))


def curve(
    probe: Probe,
    fit: Examples,
    held: Examples,
    setting: Setting,
    draws: int,
    others: Mapping[str, Float[np.ndarray, " width"]] | None = None,
) -> list[Row]:
    """The points of a pruning curve (`probing.pruning.pruning_curve`) as rows.

    Args:
        fit, held: what the probe is fitted to, and what it is tested on.
        draws: random subsets, bases and shuffles at each ratio.
        others: scores of other rankings, by arm.
    """
    points = pruning_curve(probe, fit, held, draws=draws, seed=setting["seed"], others=others)
    rows = []
    for point in points:
        detail = Detail(ratio=point.ratio, neurons=point.neurons, shape=probe.shape, fit=point.fit)
        if point.arm in ("random", "shuffled", "rotated"):
            detail["draw"] = point.draw
        rows.append(row_of(setting, point.arm, point.metric, point.score, detail))
    return rows


def _share(column: np.ndarray, group: np.ndarray) -> Interval:
    """Mean of what lies in [0, 1], clustered by problem."""
    return stats.cluster_bootstrap(np.mean, column, group, span=(0, 1))
