"""The pipeline on planted models over many seeds: what it finds, what fools it, what it says where nothing is.

Everything goes through the package's own verbs; the truth of `planted.py` is used to count only. Intervals of rates
are Wilson's with seeds as trials, which is conservative for shares of three neurons.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import ceil, floor
from typing import Any

import numpy as np
from jaxtyping import Float

from mechreward import stats
from mechreward._check import one_of, require
from mechreward._progress import progress
from mechreward.causal.effect import ablate
from mechreward.models.site import Site
from mechreward.probing import rankings
from mechreward.probing.activations import record
from mechreward.probing.evidence import Evidence, evidence
from mechreward.probing.neurons import count, ranking
from mechreward.probing.probe import DopamineProbe, ProbeWarning, ValueProbe
from mechreward.probing.targets import TARGETS, Examples, states, steps
from mechreward.results import Row
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import Values, estimate
from mechreward.stats import Interval
from mechreward.testbed.planted import PlantedModel, planted

RESID = "1.resid_post"  # the first site that holds V and delta whatever carries them
VALUE_SITES = {"value": (RESID,), "value-mlp": (RESID, "0.mlp"), "encoded": (RESID,)}
DOPAMINE_SITES = {"value": (RESID,), "value-mlp": (RESID, "1.mlp"), "encoded": (RESID,)}
EXPECTED = {"value": "sparse", "value-mlp": "sparse", "encoded": "sparse"}
EXPECTED |= {"redundant": "redundant", "rotated": "distributed"}
RECOMMENDED = "correlation"  # the ranking that docs/calibration.md recommends
NULLS = ("null", "large", "sink", "length")
SHAPES = ("mlp", "linear")
USED = ("used", "not used")


@dataclass(frozen=True)
class Sizes:
    """How much is run. `train` and `test` count problems, `k` continuations of a state, `draws` nulls of `evidence`."""

    train: int = 80
    test: int = 40
    k: int = 8
    ablated: int = 60
    draws: int = 19


@dataclass(frozen=True)
class Data:
    """Rollouts of a planted model and their values."""

    plant: PlantedModel
    runs: Rollouts
    values: Values

    def states(self, site: str) -> Examples:
        return states(record(self.plant.model, self.runs, site, what=None)[site], self.values)

    def steps(self, site: str) -> Examples:
        acts = record(self.plant.model, self.runs, site, rows="steps", what=None)[site]
        return steps(acts, self.values)

    def next_token(self, site: str) -> Float[np.ndarray, " width"]:
        acts = record(self.plant.model, self.runs, site, rows="tokens", what=None)[site]
        return rankings.next_token(acts, self.runs)


def gather(plant: PlantedModel, split: str, n: int, k: int, seed: int, exact: bool = False) -> Data:
    """Sample and estimate. With `exact`, V-hat is drawn from its exact law (Binomial(k, V) of either half) instead of
    from the model's continuations: the same distribution, hundreds of times faster."""
    runs = sample(plant.model, plant.task.problems(split, n, seed), seed=seed, what=None)
    if not exact:
        return Data(plant, runs, estimate(plant.model, runs, k=k, seed=seed, what=None))
    return Data(plant, runs, drawn(runs, plant.truth.values(runs)[0], k, seed))


def drawn(runs: Rollouts, v: Float[np.ndarray, " row"], k: int, seed: int) -> Values:
    """Values whose successes are binomial with the true `v` of every state, in the rows of `estimate`."""
    lengths = [len(run.step_ends) for run in runs]
    trajectory, step = np.repeat(np.arange(len(runs)), lengths), np.concatenate([np.arange(n) for n in lengths])
    live = np.append(trajectory[1:] == trajectory[:-1], False)
    rng = np.random.default_rng([seed, 17])
    first, second = (np.where(live, rng.binomial(n, np.clip(v, 0, 1)), 0) for n in (k - k // 2, k // 2))
    reward, group = np.array(runs.rewards)[trajectory], np.array(runs.groups)[trajectory]
    return Values(trajectory, step, first, second, reward, group, k, seed)


def value_rankings() -> dict[str, Callable[[Data, str, Examples], np.ndarray]]:
    """Every way the package ranks neurons by value: (data, site, its examples) -> score [width]. Gradient x activation
    is that of one target, V-hat."""
    found: dict[str, Callable[[Data, str, Examples], np.ndarray]] = {}
    for shape in SHAPES:
        for target in TARGETS:
            probe = ValueProbe(target, shape)  # type: ignore[arg-type]
            found[f"{shape} probe, {target}, L1"] = lambda _, __, fit, p=probe: p.fit_examples(fit).scores_
        found[f"{shape} probe, mc, gradient x activation"] = _moved(ValueProbe("mc", shape))
    found["L1-penalised"] = lambda _, __, fit: rankings.l1_penalised(fit)
    found["mean difference"] = lambda _, __, fit: rankings.mean_difference(fit)
    found["correlation"] = lambda _, __, fit: rankings.correlation(fit)
    found["magnitude"] = lambda _, __, fit: rankings.magnitude(fit)
    found["next token"] = lambda data, site, _: data.next_token(site)
    return found


def dopamine_rankings() -> dict[str, Callable[[Data, str, Examples], np.ndarray]]:
    """The same for TD errors."""
    found: dict[str, Callable[[Data, str, Examples], np.ndarray]] = {}
    for shape in SHAPES:
        probe = DopamineProbe(shape=shape)
        found[f"{shape} probe, delta, L1"] = lambda _, __, fit, p=probe: p.fit_examples(fit).scores_
        found[f"{shape} probe, delta, gradient x activation"] = _moved(DopamineProbe(shape=shape))
    found["L1-penalised"] = lambda _, __, fit: rankings.l1_penalised(fit)
    found["mean difference"] = lambda _, __, fit: rankings.mean_difference(fit)
    found["correlation"] = lambda _, __, fit: rankings.correlation(fit)
    return found


def _moved(probe: ValueProbe | DopamineProbe) -> Callable[[Data, str, Examples], np.ndarray]:
    return lambda _, __, fit: rankings.gradient_x_activation(probe.fit_examples(fit), fit)


def recall(datas: Sequence[Data]) -> list[Row]:
    """Recall and precision of the planted sets of one plant, one `Data` a seed, for every ranking.

    As many neurons are taken as were planted, so that precision equals recall; and as many as `select` takes by
    default (`detail["k"]`), where only precision says something. `detail["fooled_by"]` counts, over seeds, the decoys
    among the first.
    """
    plant = datas[0].plant
    rows = []
    for what, sites, ways in (
        ("value", VALUE_SITES[plant.name], value_rankings()),
        ("dopamine", DOPAMINE_SITES[plant.name], dopamine_rankings()),
    ):
        for site in sites:
            fits = [data.states(site) if what == "value" else data.steps(site) for data in datas]
            for name, score in ways.items():
                rows += _found(what, site, name, datas, [score(d, site, f) for d, f in zip(datas, fits, strict=True)])
    return rows


def _found(what: str, site: str, name: str, datas: Sequence[Data], scores: Sequence[np.ndarray]) -> list[Row]:
    shares: dict[tuple[str, int], list[float]] = {}
    fooled: Counter[str] = Counter()
    for data, score in zip(datas, scores, strict=True):
        planted_sets = data.plant.truth.value_neurons if what == "value" else data.plant.truth.dopamine_neurons
        real, order = set(planted_sets[site].indices), ranking(score).tolist()
        k, few = len(real), count(len(score), 0.01)
        shares.setdefault(("recall", k), []).append(hit(order[:k], real))
        shares.setdefault(("precision", k), []).append(hit(order[:k], real))
        if few != k:
            shares.setdefault(("precision", few), []).append(hit(order[:few], real))
        if Site.parse(site).kind != "mlp":
            fooled.update(n for n, where in data.plant.truth.decoys.items() if set(where) & set(order[:k]))
    rows = []
    for (metric, k), each in shares.items():
        more: dict[str, Any] = {"planted": what, "k": k, "all": sum(share == 1 for share in each)}
        if metric == "recall":
            more["fooled_by"] = dict(fooled.most_common())
        rows.append(row(datas[0].plant, site, f"{what}: {name}", metric, share_of(each), more))
    return rows


def hit(taken: Sequence[int], real: set[int]) -> float:
    """The share of `taken` that is `real`."""
    return len(real & set(taken)) / len(taken)


def share_of(each: Sequence[float]) -> Interval:
    """Mean of shares over seeds. The bounds are Wilson's for as many successes, rounded outwards, among the seeds: no
    variable between 0 and 1 has a larger variance than a coin of its mean."""
    total, n = float(np.sum(each)), len(each)
    low = stats.proportion(floor(total + 1e-9), n).low
    return Interval(total / n, low, stats.proportion(ceil(total - 1e-9), n).high, n)


def recognition(trains: Sequence[Data], tests: Sequence[Data], draws: int = 19) -> list[Row]:
    """How often `evidence` reads a plant as what it is. `detail` counts every reading."""
    want = EXPECTED[trains[0].plant.name]
    each = [_evidence(fit, held, draws) for fit, held in zip(trains, tests, strict=True)]
    readings = Counter(one.reading for one in each)
    rate = stats.proportion(readings[want], len(each))
    sparsity = [one.sparsity.estimate for one in each]
    more = {"expected": want, "readings": dict(readings), "sparsity": float(np.mean(sparsity))}
    return [row(trains[0].plant, RESID, "evidence", "recognition_rate", rate, more)]


def use(datas: Sequence[Data], sizes: Sizes) -> list[Row]:
    """Does the printed ablation tell neurons that are read from those that only carry V?

    Called used: McNemar's p at most .05 and the lowest accuracy among all matched sets. `detail` has means over seeds:
    the `change` of accuracy, `kl` to the clean model, and how often that was the largest of all matched sets.
    """
    found: dict[str, list[dict[str, float]]] = {}
    for data in datas:
        plant, neurons = data.plant, data.plant.truth.value_neurons[RESID]
        problems = plant.task.problems("test", sizes.ablated, data.runs.seed + 1)
        options: dict[str, Any] = {"draws": sizes.draws, "random_draws": 1, "seed": data.runs.seed, "what": None}
        effect = ablate(plant.model, problems, neurons, ops=("zero", "mean"), **options)
        for op in effect.ops:
            s, (own,) = effect.summary(op), effect.draws("value", op)
            others = np.array([arm.damage["kl"] for arm in effect.draws("matched", op)])
            found.setdefault(op, []).append(
                {
                    "change": s["change"].estimate,
                    "baseline": effect.baseline.accuracy,
                    "kl": own.damage["kl"],
                    "says": float(s["p_mcnemar"] <= 0.05 and s["p_rank"] <= 0.05),
                    "kl_first": float(stats.rank_among(own.damage["kl"], others, tail="high")[1] <= 0.05),
                }
            )
    plant, rows = datas[0].plant, []
    want = plant.truth.used
    for op, each in found.items():
        mean = {key: float(np.mean([one[key] for one in each])) for key in ("change", "baseline", "kl", "kl_first")}
        right = sum(bool(one["says"]) == want for one in each)
        more = {"expected": USED[not want], "op": op, **mean}
        rate = stats.proportion(right, len(each))
        rows.append(row(plant, RESID, f"{op} ablation", "recognition_rate", rate, more))
    return rows


def alarms(name: str, seeds: int, sizes: Sizes) -> list[Row]:
    """How often `evidence` says anything but `nothing` of a plant without value, nominally .05.

    V-hat comes from its exact law (see `gather`), so that many seeds are cheap. `detail` keeps every p.

    Raises:
        MechRewardError: a plant that has value, or no seeds.
    """
    one_of("plant without value", name, NULLS)
    require(seeds >= 1, f"seeds must be at least 1; {seeds} was given.")
    each = []
    for seed in progress(f"false alarms: {name}", "seed", range(seeds)):
        plant = planted(name, seed)
        splits = (("train", sizes.train), ("test", sizes.test))
        fit, held = (gather(plant, split, n, sizes.k, seed, True) for split, n in splits)
        each.append(_evidence(fit, held, sizes.draws))
    readings = Counter(one.reading for one in each)
    rate = stats.proportion(seeds - readings["nothing"], seeds)
    more = {"readings": dict(readings), "nominal": 0.05, "p": [e.p for e in each], "p_few": [e.p_few for e in each]}
    return [row(f"planted-{name}", RESID, "evidence", "false_alarm_rate", rate, more)]


def plants(name: str, seeds: int, sizes: Sizes) -> list[Row]:
    """Recall, recognition and use of one plant with value, over `seeds`."""
    one_of("plant with value", name, EXPECTED)
    require(seeds >= 1, f"seeds must be at least 1; {seeds} was given.")
    trains, tests = [], []
    for seed in progress(f"rollouts and values: {name}", "seed", range(seeds)):
        plant = planted(name, seed)
        trains.append(gather(plant, "train", sizes.train, sizes.k, seed))
        tests.append(gather(plant, "test", sizes.test, sizes.k, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbeWarning)
        rows = recall(trains) if name in VALUE_SITES else []
        rows += recognition(trains, tests, sizes.draws)
        return rows + (use(trains, sizes) if name in VALUE_SITES else [])


def row(plant: PlantedModel | str, site: str, arm: str, metric: str, value: Interval, detail: dict[str, Any]) -> Row:
    """A row of this experiment; `n` counts seeds."""
    model = f"planted-{plant.name}" if isinstance(plant, PlantedModel) else plant
    shared = {"experiment": "calibrate", "model": model, "task": "planted", "site": site, "seed": 0}
    return Row(**shared, arm=arm, metric=metric, **asdict(value), detail=detail | {"n": "seeds"})


def _evidence(fit: Data, held: Data, draws: int) -> Evidence:
    return evidence(fit.states(RESID), held.states(RESID), draws=draws, seed=fit.runs.seed)
