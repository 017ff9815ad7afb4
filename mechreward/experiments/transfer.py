"""Transfer: are the neurons of one task, or of one model, those of another? R12."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mechreward import stats
from mechreward.causal.controls import matched
from mechreward.experiments.rows import Detail, Row, Setting, bare, over_draws, row_of
from mechreward.experiments.split import shared
from mechreward.probing.activations import Activations
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.overlap import overlap
from mechreward.probing.probe import ValueProbe
from mechreward.probing.pruning import restrict
from mechreward.probing.targets import Examples

METRICS = {"spearman": (stats.spearman, "y"), "auroc_all": (stats.auroc, "reward")}


@dataclass(frozen=True)
class Home:
    """A task under a model, at one site.

    Attributes:
        model, task: their names.
        neurons: the value set that was found here.
        train, test: states of the site with their V-hat.
        tokens: activations at every token of the training rollouts, to match controls.
    """

    model: str
    task: str
    neurons: NeuronSet
    train: Examples
    test: Examples
    tokens: Activations


def transfer(homes: Mapping[str, Home], seed: int = 0, draws: int = 19) -> list[Row]:
    """R12: every home's value set in every other: overlap against chance, and what it reads there.

    `spearman` and `auroc_all` are those of a linear probe refitted to the set's neurons on the
    other home's training rows and measured on its test rows; `matched` does the same with `draws`
    (default 19) sets of equal activation magnitude there, its bounds are the lowest and the highest
    draw. On the diagonal stands each home's own set.

    `iou` has two chances: any neurons (hypergeometric, in its `detail`), and neurons as large at
    the goal (arm `matched`: mean and 2.5% to 97.5% of the exact law, and its `p`; see
    `probing.overlap.overlap`). The other `matched` rows keep the mean match `error`, and
    `is_matched` false where any draw is over `controls.MATCHED`.
    """
    rows = []
    for source in homes.values():
        for goal in homes.values():
            setting = shared("R12", goal.model, goal.task, goal.neurons.site, seed)
            detail = Detail(
                from_model=source.model,
                from_task=source.task,
                neurons=len(source.neurons),
            )
            rows += _overlap_rows(source, goal, setting, detail)
            rows += _read_rows(source, goal, setting, detail, draws)
    return rows


def _overlap_rows(source: Home, goal: Home, setting: Setting, detail: Detail) -> list[Row]:
    """Intersection over union of two homes' sets, beside neurons as large."""
    any_neurons = overlap(source.neurons, goal.neurons, other_model=True)
    sizes = goal.tokens.rms().numpy()
    as_large = overlap(source.neurons, goal.neurons, sizes, other_model=True)
    iou = bare(any_neurons.iou, any_neurons.width)
    chance = Detail(
        shared=any_neurons.shared,
        expected=any_neurons.expected,
        p=any_neurons.p,
    )
    bounds = Detail(interval="2.5% to 97.5% of the law of chance", p=as_large.p)
    return [
        row_of(setting, "value", "iou", iou, detail | chance),
        row_of(setting, "matched", "iou", as_large.chance, detail | bounds),
    ]


def _read_rows(source: Home, goal: Home, setting: Setting, detail: Detail, draws: int) -> list[Row]:
    """What the source's neurons read at the goal, beside matched sets."""
    seed = setting["seed"]
    how = f"from {source.model} on {source.task}"
    neurons = NeuronSet.of(goal.tokens, source.neurons.indices, how)
    controls = matched(neurons, goal.tokens, draws, seed)
    beside = detail | Detail(
        interval="lowest and highest draw",
        error=float(np.mean([control.error for control in controls])),
        is_matched=all(control.is_matched for control in controls),
    )
    read = _read(goal, neurons)
    others = [_read(goal, control.neurons) for control in controls]
    rows = []
    for metric, (statistic, column) in METRICS.items():
        y = getattr(goal.test, column)
        group = goal.test.group
        score = stats.clustered(statistic, [read, y], group, draws=300, seed=seed)
        spread = over_draws([statistic(other, y) for other in others])
        rows.append(row_of(setting, "value", metric, score, detail))
        rows.append(row_of(setting, "matched", metric, spread, beside))
    return rows


def _read(home: Home, neurons: NeuronSet) -> np.ndarray:
    """What a linear probe refitted to these neurons reads on test [row]."""
    index = np.array(neurons.indices)
    probe = ValueProbe("mc", "linear").fit_examples(restrict(home.train, index))
    return probe.predict(restrict(home.test, index).x)
