"""The pipeline on planted models over many seeds: what it finds, what fools it, what it says where
nothing is.

Everything goes through the package's own verbs; the truth of `testbed.planted` is used to count
only. Intervals of rates are Wilson's with seeds as trials, which is conservative for shares of
three neurons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np
from jaxtyping import Float

from mechreward import stats
from mechreward.base.errors import one_of, require
from mechreward.base.progress import bar
from mechreward.calibration.data import RESID, TOP, Data, gather
from mechreward.calibration.rows import calibration_row
from mechreward.causal.effect import Effect, ablate
from mechreward.experiments.rows import Row
from mechreward.experiments.split import CUT
from mechreward.models.site import Site
from mechreward.probing import rankings
from mechreward.probing.activations import record
from mechreward.probing.evidence import Evidence, evidence
from mechreward.probing.neurons import count, ranking
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.probing.targets import TARGETS, Examples, tokens
from mechreward.stats import Interval
from mechreward.stats.beyond import FLIPS
from mechreward.testbed.planted import PlantedModel, planted

VALUE_SITES = {"value": (RESID,), "value-mlp": (RESID, "0.mlp"), "encoded": (RESID,)}
DOPAMINE_SITES = {"value": (RESID,), "value-mlp": (RESID, "1.mlp"), "encoded": (RESID,)}
EXPECTED = {  # what `evidence` should read of each plant
    "value": "sparse",
    "value-mlp": "sparse",
    "encoded": "sparse",
    "redundant": "redundant",
    "rotated": "distributed",
}
NULLS = ("null", "large", "sink", "length")
SHAPES = ("mlp", "linear")
RECOMMENDED = "correlation"  # the ranking that the calibration recommends
DEFAULT = {  # what `select` goes by if not told other
    "value": "mlp probe, mc, L1",
    "dopamine": "mlp probe, delta, L1",
}
LEVEL = 0.05  # of McNemar's p and of the ranks by which an ablation is called an effect

Scores = dict[str, Float[np.ndarray, " width"]]


@dataclass(frozen=True)
class CalibrationSizes:
    """How much is run for each seed.

    Attributes
    ----------
    train, test : int, default 80 and 40
        Problems to fit on, and to read.
    k : int, default 8
        Continuations of a state.
    ablated : int, default 60
        Problems answered under ablation.
    draws : int, default 19
        Nulls of `evidence`, and matched sets of an ablation.
    """

    train: int = 80
    test: int = 40
    k: int = 8
    ablated: int = 60
    draws: int = 19


def plants(name: str, seeds: int, sizes: CalibrationSizes) -> list[Row]:
    """Recall and use of one plant with value; V-hat from the model's own continuations.

    Parameters
    ----------
    name : str
        A plant of `VALUE_SITES`.
    seeds : int
    sizes : CalibrationSizes

    Returns
    -------
    list of Row
        Those of `recall`, then those of `use`.

    Raises
    ------
    MechRewardError
        A plant without a planted set, or no seeds.
    """
    one_of("plant with a planted set", name, VALUE_SITES)
    require(seeds >= 1, f"seeds must be at least 1; {seeds} was given.")
    samples = []
    for seed in bar(True, f"rollouts and values: {name}", "seed", range(seeds)):
        plant = planted(name, seed)
        samples.append(gather(plant, "train", sizes.train, sizes.k, seed))
    return recall(samples) + use(samples, sizes)


# Recall


def recall(samples: Sequence[Data]) -> list[Row]:
    """Recall and precision of the planted sets of one plant, for every ranking of neurons.

    As many neurons are taken as were planted, so that precision equals recall; and as many as
    `select` takes by default (`detail["k"]`), where only precision says something.

    Parameters
    ----------
    samples : sequence of Data
        One a seed, all of one plant.

    Returns
    -------
    list of Row
        Metrics `recall` and `precision`. `detail["all"]` counts the seeds in which all neurons
        taken were planted, `detail["fooled_by"]`, by decoy, those in which it was among them.
    """
    plant = samples[0].plant
    rows = []
    for site in VALUE_SITES[plant.name]:
        scores = []
        for data in samples:
            scores.append(value_rankings(data, site))
        rows += recall_at("value", site, samples, scores)
    for site in DOPAMINE_SITES[plant.name]:
        scores = []
        for data in samples:
            scores.append(dopamine_rankings(data, site))
        rows += recall_at("dopamine", site, samples, scores)
    return rows


def value_rankings(data: Data, site: str) -> Scores:
    """Every way the package ranks neurons by value.

    Parameters
    ----------
    data : Data
        What probes are fitted to.
    site : str

    Returns
    -------
    dict of str to array [width]
        Scores by name of the ranking.
    """
    model = data.plant.model
    fit = data.states(site)
    every_token = record(model, data.runs, site, rows="tokens", progress=False)[site]
    fit_tokens = tokens(every_token, data.values)
    scores: Scores = {}
    for shape in SHAPES:
        for target in TARGETS:
            probe = ValueProbe(target, shape)  # type: ignore[arg-type]
            probe.fit_examples(fit)
            scores |= probe_rankings(f"{shape} probe, {target}", probe, fit)
        probe = ValueProbe("td", shape)
        probe.fit_examples(fit_tokens)
        scores |= probe_rankings(f"{shape} probe, td over tokens", probe, fit_tokens)
    scores |= probe_free_rankings(fit)
    scores["magnitude"] = rankings.magnitude(fit)
    scores["weight magnitude"] = rankings.weight_magnitude(model, Site.parse(site))
    scores["wanda"] = rankings.wanda(model, every_token)
    scores["next token"] = rankings.next_token(every_token, data.runs)
    return scores


def dopamine_rankings(data: Data, site: str) -> Scores:
    """Every way the package ranks neurons by TD error, the probes with the paper's cut too.

    Parameters
    ----------
    data : Data
        What probes are fitted to.
    site : str

    Returns
    -------
    dict of str to array [width]
        Scores by name of the ranking.
    """
    fit = data.steps(site)
    scores: Scores = {}
    for shape in SHAPES:
        probe = DopamineProbe(shape=shape)
        probe.fit_examples(fit)
        scores |= probe_rankings(f"{shape} probe, delta", probe, fit)
        probe = DopamineProbe(CUT, shape)
        probe.fit_examples(fit)
        beyond_cut = fit.only(np.abs(fit.y) > CUT)  # the rows it is fitted to
        scores |= probe_rankings(f"{shape} probe, delta with |delta| > {CUT}", probe, beyond_cut)
    return scores | probe_free_rankings(fit)


def probe_rankings(name: str, probe: ValueProbe | DopamineProbe, fit: Examples) -> Scores:
    """The two rankings of a probe that was fitted to the rows `fit`."""
    return {
        f"{name}, L1": probe.scores_,
        f"{name}, gradient x activation": rankings.gradient_x_activation(probe, fit),
    }


def probe_free_rankings(fit: Examples) -> Scores:
    """The rankings that go by the target without any probe."""
    return {
        "L1-penalised": rankings.l1_penalised(fit),
        "mean difference": rankings.mean_difference(fit),
        "correlation": rankings.correlation(fit),
    }


def recall_at(
    kind: str,
    site: str,
    samples: Sequence[Data],
    scores: Sequence[Scores],
) -> list[Row]:
    """Rows of every ranking at one site; `scores` are those of each seed."""
    rows = []
    for name in scores[0]:
        of_ranking = [by_name[name] for by_name in scores]
        rows += recall_rows(kind, site, name, samples, of_ranking)
    return rows


def recall_rows(
    kind: str,
    site: str,
    name: str,
    samples: Sequence[Data],
    scores: Sequence[Float[np.ndarray, " width"]],
) -> list[Row]:
    """Recall and precision of one ranking at one site.

    Parameters
    ----------
    kind : {"value", "dopamine"}
        Which planted set is looked for.
    site, name : str
        Where, and by which ranking.
    samples : sequence of Data
        One a seed.
    scores : sequence of array [width]
        The ranking's scores, one a seed.

    Returns
    -------
    list of Row
    """
    shares: dict[tuple[str, int], list[float]] = {}
    fooled_by: Counter[str] = Counter()
    for data, score in zip(samples, scores, strict=True):
        truth = data.plant.truth
        planted_sets = truth.value_neurons if kind == "value" else truth.dopamine_neurons
        real = set(planted_sets[site].indices)
        order = ranking(score).tolist()
        k = len(real)
        default = count(len(order), TOP)
        share = precision(order[:k], real)
        shares.setdefault(("recall", k), []).append(share)
        shares.setdefault(("precision", k), []).append(share)
        if default != k:
            share = precision(order[:default], real)
            shares.setdefault(("precision", default), []).append(share)
        if Site.parse(site).kind != "mlp":  # decoys are coordinates of the residual stream
            for decoy, coordinates in truth.decoys.items():
                if not set(coordinates).isdisjoint(order[:k]):
                    fooled_by[decoy] += 1
    rows = []
    for (metric, k), by_seed in shares.items():
        detail: dict[str, Any] = {"planted": kind, "k": k, "all": by_seed.count(1)}
        if metric == "recall":
            detail["fooled_by"] = dict(fooled_by.most_common())
        share = mean_share(by_seed)
        rows.append(seeds_row(samples[0].plant, site, f"{kind}: {name}", metric, share, detail))
    return rows


def precision(taken: Sequence[int], real: set[int]) -> float:
    """The share of the neurons `taken` that are `real`."""
    return len(real & set(taken)) / len(taken)


def mean_share(shares: Sequence[float]) -> Interval:
    """Mean of shares over seeds.

    The bounds are Wilson's for as many successes, rounded outwards, among the seeds: no variable
    between 0 and 1 has a larger variance than a coin of its mean.

    Parameters
    ----------
    shares : sequence of float
        One a seed, in [0, 1].

    Returns
    -------
    Interval
    """
    n = len(shares)
    total = float(np.sum(shares))
    low = stats.proportion(floor(total + 1e-9), n).low
    high = stats.proportion(ceil(total - 1e-9), n).high
    return Interval(total / n, low, high, n)


# Use


def use(samples: Sequence[Data], sizes: CalibrationSizes) -> list[Row]:
    """Does the printed ablation tell neurons that are read from those that only carry V?

    Parameters
    ----------
    samples : sequence of Data
        One a seed, all of one plant.
    sizes : CalibrationSizes

    Returns
    -------
    list of Row
        The rate of seeds in which `called_used` is right, for each operation. `detail` has means
        over seeds: the `change` of accuracy, `kl` to the clean model, and how often that was the
        largest of all matched sets.
    """
    by_op: dict[str, list[dict[str, float]]] = {}
    for data in samples:
        effect = ablated(data, sizes)
        for op in effect.ops:
            by_op.setdefault(op, []).append(ablation_figures(effect, op))
    plant = samples[0].plant
    used = plant.truth.used
    rows = []
    for op, figures in by_op.items():
        called = [by_name["called_used"] for by_name in figures]
        right = called.count(float(used))
        detail: dict[str, Any] = {"expected": "used" if used else "not used", "op": op}
        for name in ("change", "baseline", "kl", "kl_first"):
            detail[name] = float(np.mean([by_name[name] for by_name in figures]))
        rate = stats.proportion(right, len(figures))
        rows.append(seeds_row(plant, RESID, f"{op} ablation", "recognition_rate", rate, detail))
    return rows


def ablated(data: Data, sizes: CalibrationSizes) -> Effect:
    """Zero and mean ablation of the planted value neurons, on problems that were not fitted to."""
    plant, seed = data.plant, data.runs.seed
    # Those after the test problems that probes are scored on: dealt from one hand.
    problems = plant.task.problems("test", sizes.test + sizes.ablated, seed)[sizes.test :]
    return ablate(
        plant.model,
        problems,
        plant.truth.value_neurons[RESID],
        ops=("zero", "mean"),
        draws=sizes.draws,
        random_draws=1,
        seed=seed,
        progress=False,
    )


def ablation_figures(effect: Effect, op: str) -> dict[str, float]:
    """What `use` counts of one ablation; `called_used` and `kl_first` are 0 or 1."""
    (own,) = effect.draws("value", op)
    kl = own.damage["kl"]
    matched_kl = [arm.damage["kl"] for arm in effect.draws("matched", op)]
    _, p_kl = stats.rank_among(kl, np.array(matched_kl), tail="high")
    return {
        "change": effect.summary(op)["change"].estimate,
        "baseline": effect.baseline.accuracy,
        "kl": kl,
        "called_used": float(called_used(effect, op)),
        "kl_first": float(p_kl <= LEVEL),
    }


def called_used(effect: Effect, op: str) -> bool:
    """Whether an ablation says that the neurons are read: accuracy changes (McNemar), and is the
    lowest among all matched sets. One ablation of one set has no family to correct for."""
    summary = effect.summary(op)
    changes = summary["p_mcnemar"] <= LEVEL
    return bool(changes and summary["p_rank"] <= LEVEL)


# Evidence


def recognition(name: str, seeds: int, sizes: CalibrationSizes) -> list[Row]:
    """How often `evidence` reads a plant as what it is.

    V-hat comes from its exact law (`gather`), so that many seeds are cheap.

    Parameters
    ----------
    name : str
        A plant of `EXPECTED`.
    seeds : int
    sizes : CalibrationSizes

    Returns
    -------
    list of Row
        One; `detail` counts every reading and keeps every `sparsity`.

    Raises
    ------
    MechRewardError
        A plant that has no value, or no seeds.
    """
    one_of("plant with value", name, EXPECTED)
    by_seed = evidence_by_seed(name, range(seeds), sizes, "recognition")
    readings = Counter(result.reading for result in by_seed)
    rate = stats.proportion(readings[EXPECTED[name]], seeds)
    detail = {
        "expected": EXPECTED[name],
        "readings": dict(readings),
        "sparsity": [result.sparsity.estimate for result in by_seed],
    }
    return [seeds_row(f"planted-{name}", RESID, "evidence", "recognition_rate", rate, detail)]


def alarms(name: str, seeds: int, sizes: CalibrationSizes) -> list[Row]:
    """How often `evidence` says anything but `nothing` of a plant without value, nominally .05.

    V-hat comes from its exact law (`gather`), so that many seeds are cheap. Every plant has seeds
    of its own: those of one seed have the same answers.

    Parameters
    ----------
    name : str
        A plant of `NULLS`.
    seeds : int
    sizes : CalibrationSizes

    Returns
    -------
    list of Row
        One; `detail` keeps every p.

    Raises
    ------
    MechRewardError
        A plant that has value, or no seeds.
    """
    one_of("plant without value", name, NULLS)
    first = NULLS.index(name) * seeds
    by_seed = evidence_by_seed(name, range(first, first + seeds), sizes, "false alarms")
    readings = Counter(result.reading for result in by_seed)
    rate = stats.proportion(seeds - readings["nothing"], seeds)
    detail = {
        "readings": dict(readings),
        "nominal": 0.05,
        "draws": FLIPS,
        "p": [result.full.p for result in by_seed],
        "p_few": [result.few.p for result in by_seed],
    }
    return [seeds_row(f"planted-{name}", RESID, "evidence", "false_alarm_rate", rate, detail)]


def evidence_by_seed(
    name: str,
    seeds: Sequence[int],
    sizes: CalibrationSizes,
    what: str,
) -> list[Evidence]:
    """`evidence` of one plant, a seed each, on V-hat of its exact law; `what` titles the bar."""
    require(len(seeds) > 0, f"seeds must be at least 1; {len(seeds)} was given.")
    by_seed = []
    for seed in bar(True, f"{what}: {name}", "seed", seeds):
        plant = planted(name, seed)
        train = gather(plant, "train", sizes.train, sizes.k, seed, exact=True)
        test = gather(plant, "test", sizes.test, sizes.k, seed, exact=True)
        result = evidence(train.states(RESID), test.states(RESID), draws=sizes.draws, seed=seed)
        by_seed.append(result)
    return by_seed


def seeds_row(
    plant: PlantedModel | str,
    site: str,
    arm: str,
    metric: str,
    value: Interval,
    detail: dict[str, Any],
) -> Row:
    """A row whose `n` counts seeds."""
    model = plant if isinstance(plant, str) else f"planted-{plant.name}"
    detail = detail | {"n": "seeds"}
    return calibration_row(model, arm, metric, value, detail, site=site)
