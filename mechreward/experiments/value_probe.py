"""A value probe works: R1."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mechreward import stats
from mechreward.base.streams import rng
from mechreward.experiments.rows import Detail, Row, Setting, row_of, rows_of
from mechreward.experiments.split import Split, check_splits
from mechreward.models.identity import randomised
from mechreward.models.site import Site
from mechreward.probing.activations import Activations, record
from mechreward.probing.probe import ValueProbe
from mechreward.probing.pruning import measures, shuffled
from mechreward.probing.surface import increment
from mechreward.probing.targets import TARGETS, Examples, first_answers, states, tokens
from mechreward.rollouts.trajectory import Rollouts, check_apart

PAPERS = Detail(target="mc", shape="mlp")  # the probe that R1 looks at more closely
# Arms with wrong targets, and the stream of random numbers that moves them.
SHUFFLES = {"shuffled": "shuffled targets", "same_length": "targets of the same length"}


def value_probe(
    train: Split,
    validation: Split,
    test: Split,
    site: Site,
    setting: Setting,
    several: tuple[Rollouts, Activations] | None = None,
    every: Activations | None = None,
) -> list[Row]:
    """R1: every target under both shapes, the paper's with shuffled labels, and what it adds.

    `shuffled` knows nothing of the answer; `same_length` has targets moved among problems whose
    answer (the first, if there are several) is as long, and so shows what length and step tell
    (`pruning.shuffled`): hard problems may take longer. One shuffle of each; R3 tests.

    `spread` is the standard deviation of the read-out over that of V-hat: near 0, a probe says the
    same of every state, which TD on few trajectories often does. `increment` is the AUROC that the
    read-out (mc, mlp) adds to the surface of the answer so far, fitted on validation.

    Args:
        every: activations at every token of the training rollouts, for TD over tokens as the paper
            has it, read at states like all others (`td over tokens`); our other targets take one
            row a state. Without it (None, default) that probe is left out.
        several: more answers to each test problem and their activations at the states of `site`,
            for the AUROC within a problem (`auroc_within`, over the states before the end of
            problems with answers of both outcomes). Without it (None, default) that row is left
            out.
    """
    check_splits(train=train, validation=validation, test=test)
    if several is not None:
        check_apart(train=train.runs.problems, several=several[0].problems)
    fit, held = train.states(site), test.states(site)
    over_tokens = None if every is None else tokens(every, train.values)
    rows = []
    for name, target, shape, data in _probes(fit, over_tokens):
        probe = ValueProbe(target, shape).fit_examples(data)
        detail = Detail(target=name, shape=shape)
        rows += rows_of(setting, "value", measures(probe, held, draws=200), detail)
        columns = [probe.predict(held.x), held.y]
        spread = stats.cluster_bootstrap(spread_ratio, columns, held.group, draws=200)
        rows.append(row_of(setting, "value", "spread", spread, detail))
        if (target, shape) == ("mc", "mlp"):
            rows += _beyond_surface(probe, validation, test, site, setting)
            rows += within_problems(setting, "value", probe, several)
    for arm, stream in SHUFFLES.items():
        by_length = arm == "same_length"
        given = fit.only(first_answers(fit)) if by_length else fit
        noise = shuffled(given, rng(stream, setting["seed"]), by_length)
        probe = ValueProbe("mc", "mlp").fit_examples(noise)
        rows += rows_of(setting, arm, measures(probe, held), PAPERS)
        rows += within_problems(setting, arm, probe, several)
    return rows


def random_weights(
    model: Any,
    train: Split,
    test: Split,
    site: Site,
    setting: Setting,
) -> list[Row]:
    """R1 where nothing was learnt: the same probes on the same answers and V-hat, read by a model
    of random weights.

    What such a model shows of V-hat is in the tokens, which any activations carry.
    """
    check_splits(train=train, test=test)
    untrained = randomised(model, setting["seed"])
    fit = _read_by(untrained, train, site)
    held = _read_by(untrained, test, site)
    rows = []
    for shape in ("mlp", "linear"):
        scores = measures(ValueProbe("mc", shape).fit_examples(fit), held, draws=200)
        rows += rows_of(setting, "random_weights", scores, Detail(target="mc", shape=shape))
    return rows


def within_problems(
    setting: Setting,
    arm: str,
    probe: ValueProbe,
    several: tuple[Rollouts, Activations] | None,
) -> list[Row]:
    """The AUROC of a probe among states of one problem, from several answers to each; no row
    without them."""
    if several is None:
        return []
    runs, acts = several
    steps = np.array([run.steps for run in runs])
    going = acts.step < steps[acts.trajectory]  # the read-out of an end knows the answer
    answer = acts.trajectory[going]
    reward = np.array(runs.rewards)[answer]
    group = np.array(runs.groups)[answer]
    read = probe.predict(acts.x[torch.from_numpy(going)])
    score = stats.cluster_bootstrap(
        stats.within_auroc, [read, reward], group, with_cluster=True, seed=setting["seed"]
    )
    detail = PAPERS | Detail(answers=len(runs), problems=len(set(runs.groups)))
    return [row_of(setting, arm, "auroc_within", score, detail)]


def spread_ratio(read: np.ndarray, y: np.ndarray) -> float:
    """Standard deviation of a read-out over that of what it should read; NaN for a constant `y`."""
    return float(read.std() / y.std()) if y.std() > 0 else float("nan")


def _probes(fit: Examples, over_tokens: Examples | None) -> list[tuple[str, Any, Any, Examples]]:
    """(name in the rows, target, shape, what it is fitted to) of every probe."""
    probes: list[tuple[str, Any, Any, Examples]] = []
    for shape in ("mlp", "linear"):
        for target in TARGETS:
            probes.append((target, target, shape, fit))
            if (target, shape) == ("td", "mlp") and over_tokens is not None:
                probes.append(("td over tokens", "td", "mlp", over_tokens))
    return probes


def _read_by(model: Any, split: Split, site: Site) -> Examples:
    """States of a split as another model reads the same answers."""
    acts = record(model, split.runs, site, other_model=True, progress=False)[site]
    return states(acts, split.values)


def _beyond_surface(
    probe: ValueProbe,
    validation: Split,
    test: Split,
    site: Site,
    setting: Setting,
) -> list[Row]:
    """What a read-out tells of the outcome, what the surface tells, and what the one adds to the
    other."""
    sides = []
    for split in (validation, test):
        data = split.states(site)
        sides.append((split.surface[split.values.live], probe.predict(data.x), data.reward))
    scores = increment(sides[0], sides[1], test.states(site).group, seed=setting["seed"])
    gain = scores.pop("increment")
    rows = []
    for arm, score in scores.items():
        rows.append(row_of(setting, arm, "auroc_all", score, Detail(fitted="validation")))
    rows.append(row_of(setting, "value", "increment", gain, Detail(beyond="surface")))
    return rows
