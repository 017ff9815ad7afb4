"""What can be read, and from how few neurons: R1, R2, R3, R6."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mechreward import stats
from mechreward.base.streams import rng
from mechreward.experiments.rows import Row, rows_from
from mechreward.experiments.split import Split, measured
from mechreward.models.identity import model_id, randomised
from mechreward.models.site import Site
from mechreward.probing.activations import Activations, record
from mechreward.probing.probe import ValueProbe
from mechreward.probing.pruning import measures, shuffled
from mechreward.probing.surface import increment
from mechreward.probing.targets import TARGETS, Examples, states, tokens
from mechreward.rollouts.trajectory import Rollouts


def R1(
    train: Split,
    validation: Split,
    test: Split,
    site: Site,
    about: dict[str, Any],
    several: tuple[Rollouts, Activations] | None = None,
    every: Activations | None = None,
) -> list[Row]:
    """A value probe works: every target under both shapes, the paper's with shuffled labels, and
    what it adds.

    `shuffled` knows nothing of the answer; `same_length` has targets moved among answers of equal
    length, and so shows what length and step tell (`pruning.shuffled`): hard problems may take
    longer. One shuffle of each; R3 tests.

    `every`: activations at every token of the training rollouts, for TD over tokens as the paper
    has it, read at states like all others (`td over tokens`); our other targets take one row a
    state.

    `several`: more answers to each test problem and their activations at the states of `site`, for
    the AUROC within a problem (`auroc_within`, over the states before the end of problems with
    answers of both outcomes).

    `spread` is the standard deviation of the read-out over that of V-hat: near 0, a probe says the
    same of every state, which TD on few trajectories often does. `increment` is the AUROC that the
    read-out (mc, mlp) adds to the surface of the answer so far, fitted on validation.
    """
    fit, held = train.states(site), test.states(site)
    kinds: list[tuple[str, Any, Any, Examples]] = [
        (t, t, shape, fit) for shape in ("mlp", "linear") for t in TARGETS
    ]
    if every is not None:
        kinds.insert(2, ("td over tokens", "td", "mlp", tokens(every, train.values)))
    rows = []
    for name, target, shape, data in kinds:
        probe = ValueProbe(target, shape).fit_examples(data)
        detail = {"target": name, "shape": shape}
        rows += measured(about, "value", measures(probe, held, draws=200), detail)
        spread = stats.cluster_bootstrap(
            spread_ratio, [probe.predict(held.x), held.y], held.group, draws=200
        )
        rows += rows_from(about, [("value", "spread", spread, detail)])
        if (target, shape) == ("mc", "mlp"):
            rows += _increment(probe, validation, test, site, about)
            rows += _within(about, "value", probe, several)
    for arm, purpose in (
        ("shuffled", "shuffled targets"),
        ("same_length", "targets of the same length"),
    ):
        noise = shuffled(fit, rng(purpose, about["seed"]), by_length=arm == "same_length")
        probe = ValueProbe("mc", "mlp").fit_examples(noise)
        rows += measured(about, arm, measures(probe, held), {"target": "mc", "shape": "mlp"})
        rows += _within(about, arm, probe, several)
    return rows


def random_weights(
    model: Any, train: Split, test: Split, site: Site, about: dict[str, Any]
) -> list[Row]:
    """R1 where nothing was learnt: the same probes on the same answers and V-hat, read by a model
    of random weights.

    What such a model shows of V-hat is in the tokens, which any activations carry.
    """
    other = randomised(model, about["seed"])
    fit, held = (
        states(
            record(other, replace(split.runs, model_id=model_id(other)), site, what=None)[
                str(site)
            ],
            split.values,
        )
        for split in (train, test)
    )
    rows = []
    for shape in ("mlp", "linear"):
        found = measures(ValueProbe("mc", shape).fit_examples(fit), held, draws=200)
        rows += measured(about, "random_weights", found, {"target": "mc", "shape": shape})
    return rows


def _increment(
    probe: ValueProbe, validation: Split, test: Split, site: Site, about: dict[str, Any]
) -> list[Row]:
    sides = []
    for split in (validation, test):
        data = split.states(site)
        sides.append((split.surface[split.values.live], probe.predict(data.x), data.reward))
    scores = increment(sides[0], sides[1], test.states(site).group, seed=about["seed"])
    gain = scores.pop("increment")
    rows = rows_from(
        about,
        [(arm, "auroc_all", score, {"fitted": "validation"}) for arm, score in scores.items()],
    )
    return rows + rows_from(about, [("value", "increment", gain, {"beyond": "surface"})])


def _within(
    about: dict[str, Any], arm: str, probe: ValueProbe, several: tuple[Rollouts, Activations] | None
) -> list[Row]:
    if several is None:
        return []
    runs, acts = several
    going = acts.step < np.array([run.steps for run in runs])[acts.trajectory]
    reward, group = (np.array(each)[acts.trajectory[going]] for each in (runs.rewards, runs.groups))
    read = probe.predict(acts.x[torch.from_numpy(going)])
    score = stats.cluster_bootstrap(
        stats.within_auroc, [read, reward], group, with_cluster=True, seed=about["seed"]
    )
    detail = {
        "target": "mc",
        "shape": "mlp",
        "answers": len(runs),
        "problems": len(set(runs.groups)),
    }
    return rows_from(about, [(arm, "auroc_within", score, detail)])


def spread_ratio(read: np.ndarray, y: np.ndarray) -> float:
    """Standard deviation of a read-out over that of what it should read; NaN for a constant `y`."""
    return float(read.std() / y.std()) if y.std() > 0 else float("nan")
