"""How often the certificate says yes, on models whose truth is known: pass rates by claim and
plant, over seeds."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.base.errors import one_of
from mechreward.calibration.data import RESID
from mechreward.calibration.pipeline import NULLS, RECOMMENDED
from mechreward.causal.certificate import by_steering, certify
from mechreward.causal.claims import stable
from mechreward.causal.material import deal, sample_states
from mechreward.causal.stability import found_again
from mechreward.causal.verdict import CLAIMS, verdicts
from mechreward.experiments.rows import Detail, Row, rows_from
from mechreward.experiments.split import shared
from mechreward.models.site import Site
from mechreward.probing.activations import record
from mechreward.probing.evidence import held_p
from mechreward.probing.neurons import NeuronSet, ranking, select
from mechreward.probing.probe import ProbeWarning, ValueProbe
from mechreward.probing.recipe import Recipe, choice
from mechreward.probing.targets import states
from mechreward.rollouts.sample import sample
from mechreward.stats import Interval
from mechreward.testbed.planted import PlantedModel, planted

# The documented n of the rates: what `certify` is given on planted models.
SIZES = {"train": 40, "test": 40, "k": 8, "n": 60, "draws": 99, "pairs": 40}
SITES = {"value-mlp": "0.mlp"}  # elsewhere `RESID`
TRUE = ("value", "value-mlp")  # carry V and are read: all claims must hold
PARTLY = ("back", "shared")  # read for turning back alone; three of six that carry V
FALSE = ("encoded", "null", "sink", "large")  # not read, or no value at all: no cause


def certificates(name: str, seeds: Sequence[int]) -> list[Row]:
    """Pass rates of one plant over seeds (`pooled` joins several such parts).

    Parameters
    ----------
    name : str
        A plant of `TRUE`, `PARTLY` or `FALSE`.
    seeds : sequence of int

    Returns
    -------
    list of Row
        Those of `rates`.

    Raises
    ------
    MechRewardError
        A plant without a documented rate.
    """
    one_of("plant with a documented rate", name, (*TRUE, *PARTLY, *FALSE))
    by_seed = []
    for seed in seeds:
        by_seed.append(certificate_verdicts(name, seed, whole=name in TRUE))
    return rates(name, by_seed)


def certificate_verdicts(
    name: str,
    seed: int,
    whole: bool = True,
    sizes: Mapping[str, Any] = SIZES,
) -> dict[str, str]:
    """Verdicts on one plant.

    Parameters
    ----------
    name : str
    seed : int
        The model's, the problems' and the certificate's alike.
    whole : bool, default True
        Certify all claims; otherwise try only causal and specific, by the same code at the
        same sizes.
    sizes : mapping of str to int, default `SIZES`
        Keywords of `certify`.

    Returns
    -------
    dict of str to str
        Claim to verdict.
    """
    plant = planted(name, seed)
    model, task = plant.model, plant.task
    neurons = suspects(plant)
    if whole:
        neurons = replace(neurons, recipe=recipe(neurons))
        certificate = certify(model, task, neurons, seed=seed, progress=False, **sizes)
        return verdicts(certificate.claims)
    problems = deal(task, {**sizes, "seed": seed})
    runs, values, activations = sample_states(
        model,
        problems.fit,
        neurons.site,
        sizes["k"],
        seed,
        policy=None,
        progress=False,
    )
    _, held_values, held_acts = sample_states(
        model, problems.read, neurons.site, sizes["k"], seed, policy=None, progress=False
    )
    fit, held = states(activations, values), states(held_acts, held_values)
    causal, specific, _ = by_steering(
        model,
        problems.steered,
        neurons,
        runs,
        values,
        activations,
        p_reads=held_p(fit, held, np.array(neurons.indices), seed),
        draws=sizes["draws"],
        seed=seed,
    )
    return verdicts([causal, specific])


def found_by_noise(name: str, seeds: Sequence[int]) -> list[Row]:
    """How often `stable` passes for what a recipe finds where no neuron carries V.

    Parameters
    ----------
    name : str
        A plant without value.
    seeds : sequence of int
        One plant each.

    Returns
    -------
    list of Row
        One, of `rates`.
    """
    one_of("plant without value", name, NULLS)
    by_seed = []
    for seed in seeds:
        plant = planted(name, seed)
        model, site = plant.model, Site.parse(RESID)
        problems = deal(plant.task, {**SIZES, "seed": seed}, again=True)
        _, values, acts = sample_states(model, problems.fit, site, SIZES["k"], seed)
        probe = ValueProbe("mc", "linear")
        with warnings.catch_warnings():  # there is nothing to read
            warnings.simplefilter("ignore", ProbeWarning)
            neurons = select(probe.fit(acts, values), 3 / acts.width, RECOMMENDED)
        found = found_again(model, neurons, problems.again, SIZES["k"], seed)
        by_seed.append(verdicts([stable(found, seed)]))
    return rates(name, by_seed)


def recipe(neurons: NeuronSet) -> Recipe:
    """The ranking that the calibration recommends, said to have chosen this set."""
    probe = ValueProbe("mc", "linear")
    top = len(neurons) / neurons.width
    chose = choice(neurons.site, neurons.indices)
    return Recipe("value", probe.get_params(), "states", top, RECOMMENDED, chose)


def suspects(plant: PlantedModel, k: int = 3) -> NeuronSet:
    """The set to be certified.

    The planted one; of the null twin the three coordinates that move with the state and change
    words, not outcomes; of `sink`, `large` and `length` the decoy and the largest others, as a
    ranking by magnitude has them.

    Parameters
    ----------
    plant : PlantedModel
    k : int, default 3
        Neurons, where none were planted.

    Returns
    -------
    NeuronSet

    Raises
    ------
    MechRewardError
        A plant that has neither a planted set nor a decoy of its own.
    """
    site = Site.parse(SITES.get(plant.name, RESID))
    neurons = plant.truth.value_neurons[str(site)]
    decoys = plant.truth.decoys
    if plant.name == "shared":
        return replace(neurons, indices=neurons.indices[::2], how="planted: half of what carries V")
    if len(neurons):
        return neurons
    if "level" in decoys:
        how = "planted: the level, worth nothing"
        return replace(neurons, indices=decoys["level"], how=how)
    one_of("plant with a decoy of its own", plant.name, ("sink", "large", "length"))
    problems = plant.task.problems("train", 20, plant.seed)
    runs = sample(plant.model, problems, seed=plant.seed, progress=False)
    tokens = record(plant.model, runs, site, rows="tokens", progress=False)[site]
    (decoy, *_) = decoys[plant.name]
    passed_over = {decoy}
    for name in ("massive", "begin", "end"):  # the same in every plant
        passed_over.update(decoys[name])
    chosen = [decoy]
    rms = tokens.rms().numpy()
    for neuron in ranking(rms).tolist():
        if len(chosen) < k and neuron not in passed_over:
            chosen.append(neuron)
    how = f"planted: {plant.name}, and the largest"
    return replace(neurons, indices=tuple(sorted(chosen)), how=how)


def rates(name: str, by_seed: Sequence[Mapping[str, str]]) -> list[Row]:
    """Pass rates of one plant.

    Parameters
    ----------
    name : str
    by_seed : sequence of mapping
        Claim to verdict, one a seed.

    Returns
    -------
    list of Row
        Metric `pass_rate`, one for each claim that was tried, with Wilson's interval over the
        seeds; arm `all` is a pass on all. `detail` counts the verdicts.
    """
    counts: dict[str, Counter[str]] = {arm: Counter() for arm in (*CLAIMS, "all")}
    for verdict_of in by_seed:
        for claim, verdict in verdict_of.items():
            counts[claim][verdict] += 1
        if len(verdict_of) == len(CLAIMS):
            passed = set(verdict_of.values()) == {"pass"}
            counts["all"]["pass" if passed else "other"] += 1
    site = SITES.get(name, RESID)
    about = shared("certificate", f"planted-{name}", "planted", site, 0)
    rows = []
    for arm, verdict_counts in counts.items():
        if verdict_counts:
            value, detail = pass_rate(verdict_counts)
            rows += rows_from(about, [(arm, "pass_rate", value, detail)])
    return rows


def pass_rate(counts: Counter[str]) -> tuple[Interval, Detail]:
    """The share of verdicts that are a pass, and the detail of its row."""
    rate = stats.proportion(counts["pass"], counts.total())
    return rate, Detail(n="seeds", verdicts=dict(counts))


def pooled(rows: Sequence[Row]) -> list[Row]:
    """Pass rates of several parts as one row for each plant and claim.

    Parameters
    ----------
    rows : sequence of Row
        Of `rates`, of different seeds.

    Returns
    -------
    list of Row
    """
    first: dict[tuple[str, str], Row] = {}
    counts: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        key = row.model, row.arm
        first.setdefault(key, row)
        counts.setdefault(key, Counter()).update(row.detail["verdicts"])
    joined = []
    for key, verdict_counts in counts.items():
        rate, detail = pass_rate(verdict_counts)
        joined.append(replace(first[key], **asdict(rate), detail=detail))
    return joined
