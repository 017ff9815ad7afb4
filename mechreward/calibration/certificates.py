"""How often the certificate says yes, on models whose truth is known: pass rates by claim and
plant, over seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.base.errors import one_of
from mechreward.causal.certificate import by_steering, certify, observe, test_problems
from mechreward.causal.claims import CLAIMS, verdicts
from mechreward.experiments.rows import Row, rows_from
from mechreward.models.site import Site
from mechreward.probing.activations import record
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.sample import sample
from mechreward.testbed.planted import PlantedModel, planted

# The documented n of the rates: what `certify` is given on planted models.
SIZES = {"train": 40, "test": 40, "k": 8, "n": 60, "draws": 99, "pairs": 40}
SITES = {"value-mlp": "0.mlp"}  # elsewhere the residual stream after layer 1
# What must hold: all five for a set that carries V and is read; no cause for one that is not, or is
# no value at all.
TRUE, FALSE = ("value", "value-mlp"), ("encoded", "null", "sink", "large")


def suspects(here: PlantedModel, k: int = 3) -> NeuronSet:
    """The set to be certified: the planted one; of the null twin the three coordinates that move
    with the state and change words, not outcomes; of `sink`, `large` and `length` the decoy and the
    largest others, as a ranking by magnitude has them."""
    site = Site.parse(SITES.get(here.name, "1.resid_post"))
    own = here.truth.value_neurons[str(site)]
    if len(own):
        return own
    if "level" in here.truth.decoys:
        return replace(
            own, indices=here.truth.decoys["level"], how="planted: the level, worth nothing"
        )
    one_of("plant with a decoy of its own", here.name, ("sink", "large", "length"))
    runs = sample(here.model, here.task.problems("train", 20, here.seed), seed=here.seed, what=None)
    acts = record(here.model, runs, site, rows="tokens", what=None)[site]
    fixed = [i for name in ("massive", "begin", "end") for i in here.truth.decoys[name]]
    free = [int(i) for i in np.argsort(-acts.rms().numpy()) if int(i) not in fixed]
    decoy = here.truth.decoys[here.name][0]
    chosen = [decoy, *(i for i in free if i != decoy)][:k]
    return replace(own, indices=tuple(sorted(chosen)), how=f"planted: {here.name}, and the largest")


def verdict_of(
    name: str, seed: int, whole: bool = True, sizes: Mapping[str, Any] = SIZES
) -> dict[str, str]:
    """Claim -> verdict for one plant and seed, which is the model's, the problems' and the
    certificate's alike.

    `whole` certifies; otherwise only causal and specific are tried, by the same code at the same
    sizes.
    """
    here = planted(name, seed)
    neurons = suspects(here)
    if whole:
        return verdicts(
            certify(here.model, here.task, neurons, seed=seed, what=None, **sizes).claims
        )
    site, task = neurons.site, here.task
    known = task.problems("train", sizes["train"], seed)
    seen = observe(here.model, known, site, sizes["k"], seed, None, None)
    steered_on = test_problems(task, sizes["test"], sizes["n"], seed)[1]
    cause, special, _ = by_steering(
        here.model, steered_on, neurons, *seen, draws=sizes["draws"], seed=seed
    )
    return verdicts([cause, special])


def certificates(name: str, seeds: Sequence[int]) -> list[Row]:
    """Pass rates of one plant over `seeds` (`pooled` joins several such parts)."""
    one_of("plant with a documented rate", name, (*TRUE, *FALSE))
    return rates(name, [verdict_of(name, seed, whole=name in TRUE) for seed in seeds])


def rates(name: str, each: Sequence[Mapping[str, str]]) -> list[Row]:
    """Rows of metric `pass_rate`, one for each claim of a plant, with Wilson's interval over the
    seeds; arm `all` is a pass on all five. `detail` counts the verdicts. Claims that were not tried
    have no row."""
    rows: list[Row] = []
    about: dict[str, Any] = {
        "experiment": "certificate",
        "model": f"planted-{name}",
        "task": "planted",
    }
    about |= {"site": SITES.get(name, "1.resid_post"), "seed": 0}
    full = [one for one in each if len(one) == len(CLAIMS)]
    counts = {claim: Counter(one[claim] for one in each if claim in one) for claim in CLAIMS}
    counts["all"] = Counter("pass" if set(one.values()) == {"pass"} else "other" for one in full)
    for claim, found in counts.items():
        n = found.total()
        if n:
            detail = {"n": "seeds", "verdicts": dict(found)}
            rows += rows_from(
                about, [(claim, "pass_rate", stats.proportion(found["pass"], n), detail)]
            )
    return rows


def pooled(rows: Sequence[Row]) -> list[Row]:
    """One row for each plant and claim, of the rows of several parts."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.model, row.arm), []).append(row)
    joined = []
    for parts in found.values():
        counts = sum((Counter(part.detail["verdicts"]) for part in parts), Counter())
        rate = stats.proportion(counts["pass"], counts.total())
        joined.append(
            replace(parts[0], **asdict(rate), detail={"n": "seeds", "verdicts": dict(counts)})
        )
    return joined
