"""Transfer: are the neurons of one task, or of one model, those of another? R12."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.causal.controls import Control, matched
from mechreward.experiments.rows import Row, rows_from
from mechreward.experiments.split import bare, over_draws
from mechreward.probing.activations import Activations
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.overlap import overlap
from mechreward.probing.probe import ValueProbe
from mechreward.probing.pruning import restrict
from mechreward.probing.targets import Examples

METRICS = {"spearman": (stats.spearman, "y"), "auroc_all": (stats.auroc, "reward")}


@dataclass(frozen=True)
class Home:
    """A task under a model, at one site: its value set, its rows, and activations at every token to
    match controls."""

    model: str
    task: str
    neurons: NeuronSet
    train: Examples
    test: Examples
    tokens: Activations


def R12(homes: Mapping[str, Home], seed: int = 0, draws: int = 19) -> list[Row]:
    """Every home's value set in every other: overlap against chance, and what it reads there.

    `spearman` and `auroc_all` are those of a linear probe refitted to the set's neurons on the
    other home's training rows and measured on its test rows; `matched` does the same with `draws`
    sets of equal activation magnitude there, its bounds are the lowest and the highest draw. On the
    diagonal stands each home's own set.

    `iou` has two chances: any neurons (hypergeometric, in its `detail`), and neurons as large at
    the goal (arm `matched`: mean and 2.5% to 97.5% of the exact law, and its `p`; see
    `probing.transfer.overlap`). The other `matched` rows keep the mean match `error`, and
    `is_matched` false where any draw is over `controls.MATCHED`.
    """
    rows = []
    for source in homes.values():
        for goal in homes.values():
            about = {
                "experiment": "R12",
                "model": goal.model,
                "task": goal.task,
                "site": str(goal.neurons.site),
            }
            about |= {"seed": seed}
            detail: dict[str, Any] = {"from_model": source.model, "from_task": source.task}
            detail["neurons"] = len(source.neurons)
            both = overlap(source.neurons, goal.neurons)
            chance = {"shared": both.shared, "expected": both.expected, "p": both.p}
            large = overlap(source.neurons, goal.neurons, goal.tokens.rms().numpy())
            beside = {"interval": "2.5% to 97.5% of the law of chance", "p": large.p}
            ious = [("value", "iou", bare(both.iou, both.width), detail | chance)]
            rows += rows_from(about, [*ious, ("matched", "iou", large.chance, detail | beside)])
            here = NeuronSet.of(
                goal.tokens, source.neurons.indices, f"from {source.model} on {source.task}"
            )
            own = _reads(goal, np.array(here.indices))
            controls = matched(here, goal.tokens, draws, seed)
            others = [_reads(goal, np.array(control.neurons.indices)) for control in controls]
            for metric, (statistic, column) in METRICS.items():
                y = getattr(goal.test, column)
                score = stats.clustered(statistic, [own, y], goal.test.group, draws=300, seed=seed)
                spread = over_draws([statistic(other, y) for other in others])
                beside = _beside(controls)
                both_arms = [
                    ("value", metric, score, detail),
                    ("matched", metric, spread, detail | beside),
                ]
                rows += rows_from(about, both_arms)
    return rows


def _beside(controls: Sequence[Control]) -> dict[str, Any]:
    """What the bounds of a row of matched sets are, and whether the sets may be called matched."""
    error, close = float(np.mean([c.error for c in controls])), all(c.is_matched for c in controls)
    return {"interval": "lowest and highest draw", "error": error, "is_matched": close}


def _reads(home: Home, neurons: np.ndarray) -> np.ndarray:
    """What a linear probe refitted to these neurons says on test [row]."""
    probe = ValueProbe("mc", "linear").fit_examples(restrict(home.train, neurons))
    return probe.predict(restrict(home.test, neurons).x)
