"""The pipeline on planted models over many seeds: what it finds, what fools it, what it says where
nothing is.

Everything goes through the package's own verbs; the truth of `planted.py` is used to count only.
Intervals of rates are Wilson's with seeds as trials, which is conservative for shares of three
neurons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil, floor
from typing import Any

import numpy as np
from jaxtyping import Float

from mechreward import stats
from mechreward.base import streams
from mechreward.base.errors import one_of, require
from mechreward.base.progress import progress
from mechreward.causal.effect import ablate
from mechreward.experiments.rows import Row
from mechreward.models.site import Site
from mechreward.probing import rankings
from mechreward.probing.activations import record
from mechreward.probing.evidence import Evidence, evidence
from mechreward.probing.neurons import count, ranking
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.probing.targets import TARGETS, Examples, states, steps, tokens
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
DEFAULT = {
    "value": "mlp probe, mc, L1",
    "dopamine": "mlp probe, delta, L1",
}  # what `select` goes by if not told other
CUT = 0.3  # the paper's, on |delta|
NULLS = ("null", "large", "sink", "length")
SHAPES = ("mlp", "linear")
USED = ("used", "not used")


@dataclass(frozen=True)
class Sizes:
    """How much is run. `train` and `test` count problems, `k` continuations of a state, `draws`
    nulls of `evidence`."""

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


def gather(plant: PlantedModel, split: str, n: int, k: int, seed: int, exact: bool = False) -> Data:
    """Sample and estimate. With `exact`, V-hat is drawn from its exact law (Binomial(k, V) of
    either half) instead of from the model's continuations: the same distribution, hundreds of times
    faster."""
    runs = sample(plant.model, plant.task.problems(split, n, seed), seed=seed, what=None)
    if not exact:
        return Data(plant, runs, estimate(plant.model, runs, k=k, seed=seed, what=None))
    return Data(plant, runs, drawn(runs, plant.truth.values(runs)[0], k, seed))


def drawn(runs: Rollouts, v: Float[np.ndarray, " row"], k: int, seed: int) -> Values:
    """Values whose successes are binomial with the true `v` of every state, in the rows of
    `estimate`."""
    lengths = [len(run.step_ends) for run in runs]
    trajectory, step = (
        np.repeat(np.arange(len(runs)), lengths),
        np.concatenate([np.arange(n) for n in lengths]),
    )
    live = np.append(trajectory[1:] == trajectory[:-1], False)
    rng = streams.rng("exact law of V-hat", seed)
    first, second = (
        np.where(live, rng.binomial(n, np.clip(v, 0, 1)), 0) for n in (k - k // 2, k // 2)
    )
    reward, group = np.array(runs.rewards)[trajectory], np.array(runs.groups)[trajectory]
    return Values(trajectory, step, first, second, reward, group, k, seed)


def value_rankings(data: Data, site: str, fit: Examples) -> dict[str, Float[np.ndarray, " width"]]:
    """Scores by every way the package ranks neurons by value, from the states of a site (`fit`)."""
    model, at = data.plant.model, Site.parse(site)
    every = record(model, data.runs, at, rows="tokens", what=None)[site]
    found: dict[str, np.ndarray] = {}
    for shape in SHAPES:
        for target in TARGETS:
            probe = ValueProbe(target, shape)  # type: ignore[arg-type]
            found |= _both(f"{shape} probe, {target}", probe.fit_examples(fit), fit)
        over = tokens(every, data.values)
        found |= _both(
            f"{shape} probe, td over tokens", ValueProbe("td", shape).fit_examples(over), over
        )
    return found | {
        **_alone(fit),
        "magnitude": rankings.magnitude(fit),
        "weight magnitude": rankings.weight_magnitude(model, at),
        "wanda": rankings.wanda(model, every),
        "next token": rankings.next_token(every, data.runs),
    }


def dopamine_rankings(
    data: Data, site: str, fit: Examples
) -> dict[str, Float[np.ndarray, " width"]]:
    """The same for TD errors, from the steps of a site; the probes with the paper's cut too."""
    found: dict[str, np.ndarray] = {}
    for shape in SHAPES:
        for cut in (0.0, CUT):
            name = f"{shape} probe, delta" + (f" with |delta| > {cut}" if cut else "")
            seen = fit.only(np.abs(fit.y) > cut) if cut else fit  # the rows it is fitted to
            found |= _both(name, DopamineProbe(cut, shape).fit_examples(fit), seen)
    return found | _alone(fit)


def _both(name: str, probe: ValueProbe | DopamineProbe, fit: Examples) -> dict[str, np.ndarray]:
    """The two rankings of a probe that was fitted to `fit`."""
    return {
        f"{name}, L1": probe.scores_,
        f"{name}, gradient x activation": rankings.gradient_x_activation(probe, fit),
    }


def _alone(fit: Examples) -> dict[str, np.ndarray]:
    return {
        "L1-penalised": rankings.l1_penalised(fit),
        "mean difference": rankings.mean_difference(fit),
        "correlation": rankings.correlation(fit),
    }


def recall(datas: Sequence[Data]) -> list[Row]:
    """Recall and precision of the planted sets of one plant, one `Data` a seed, for every ranking.

    As many neurons are taken as were planted, so that precision equals recall; and as many as
    `select` takes by default (`detail["k"]`), where only precision says something.
    `detail["fooled_by"]` counts, over seeds, the decoys among the first.
    """
    plant = datas[0].plant
    rows = []
    for what, sites, ways in (
        ("value", VALUE_SITES[plant.name], value_rankings),
        ("dopamine", DOPAMINE_SITES[plant.name], dopamine_rankings),
    ):
        for site in sites:
            each = [
                ways(data, site, data.states(site) if what == "value" else data.steps(site))
                for data in datas
            ]
            for name in each[0]:
                rows += _found(what, site, name, datas, [scores[name] for scores in each])
    return rows


def _found(
    what: str, site: str, name: str, datas: Sequence[Data], scores: Sequence[np.ndarray]
) -> list[Row]:
    shares: dict[tuple[str, int], list[float]] = {}
    fooled: Counter[str] = Counter()
    for data, score in zip(datas, scores, strict=True):
        planted_sets = (
            data.plant.truth.value_neurons if what == "value" else data.plant.truth.dopamine_neurons
        )
        real, order = set(planted_sets[site].indices), ranking(score).tolist()
        k, few = len(real), count(len(score), 0.01)
        shares.setdefault(("recall", k), []).append(hit(order[:k], real))
        shares.setdefault(("precision", k), []).append(hit(order[:k], real))
        if few != k:
            shares.setdefault(("precision", few), []).append(hit(order[:few], real))
        if Site.parse(site).kind != "mlp":
            fooled.update(
                n for n, where in data.plant.truth.decoys.items() if set(where) & set(order[:k])
            )
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
    """Mean of shares over seeds. The bounds are Wilson's for as many successes, rounded outwards,
    among the seeds: no variable between 0 and 1 has a larger variance than a coin of its mean."""
    total, n = float(np.sum(each)), len(each)
    low = stats.proportion(floor(total + 1e-9), n).low
    return Interval(total / n, low, stats.proportion(ceil(total - 1e-9), n).high, n)


def recognition(name: str, seeds: int, sizes: Sizes) -> list[Row]:
    """How often `evidence` reads a plant as what it is. `detail` counts every reading and keeps
    every `sparsity`.

    V-hat comes from its exact law (see `gather`), so that many seeds are cheap.

    Raises:
        MechRewardError: a plant that has no value, or no seeds.
    """
    one_of("plant with value", name, EXPECTED)
    each = _evidences(name, range(seeds), sizes, "recognition")
    readings = Counter(one.reading for one in each)
    rate = stats.proportion(readings[EXPECTED[name]], len(each))
    more = {
        "expected": EXPECTED[name],
        "readings": dict(readings),
        "sparsity": [e.sparsity.estimate for e in each],
    }
    return [row(f"planted-{name}", RESID, "evidence", "recognition_rate", rate, more)]


def use(datas: Sequence[Data], sizes: Sizes) -> list[Row]:
    """Does the printed ablation tell neurons that are read from those that only carry V?

    Called used: McNemar's p at most .05 and the lowest accuracy among all matched sets. `detail`
    has means over seeds: the `change` of accuracy, `kl` to the clean model, and how often that was
    the largest of all matched sets.
    """
    found: dict[str, list[dict[str, float]]] = {}
    for data in datas:
        plant, neurons = data.plant, data.plant.truth.value_neurons[RESID]
        problems = plant.task.problems(
            "test", sizes.ablated, streams.stream("calibration: ablated", data.runs.seed)
        )
        options: dict[str, Any] = {
            "draws": sizes.draws,
            "random_draws": 1,
            "seed": data.runs.seed,
            "what": None,
        }
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
                    "kl_first": float(
                        stats.rank_among(own.damage["kl"], others, tail="high")[1] <= 0.05
                    ),
                }
            )
    plant, rows = datas[0].plant, []
    want = plant.truth.used
    for op, each in found.items():
        mean = {
            key: float(np.mean([one[key] for one in each]))
            for key in ("change", "baseline", "kl", "kl_first")
        }
        right = sum(bool(one["says"]) == want for one in each)
        more = {"expected": USED[not want], "op": op, **mean}
        rate = stats.proportion(right, len(each))
        rows.append(row(plant, RESID, f"{op} ablation", "recognition_rate", rate, more))
    return rows


def alarms(name: str, seeds: int, sizes: Sizes) -> list[Row]:
    """How often `evidence` says anything but `nothing` of a plant without value, nominally .05.

    V-hat comes from its exact law (see `gather`), so that many seeds are cheap. Every plant has
    seeds of its own: those of one seed have the same answers. `detail` keeps every p.

    Raises:
        MechRewardError: a plant that has value, or no seeds.
    """
    one_of("plant without value", name, NULLS)
    first = NULLS.index(name) * seeds
    each = _evidences(name, range(first, first + seeds), sizes, "false alarms")
    readings = Counter(one.reading for one in each)
    rate = stats.proportion(seeds - readings["nothing"], seeds)
    more: dict[str, Any] = {"readings": dict(readings), "nominal": 0.05, "draws": sizes.draws}
    more |= {"p": [one.p for one in each], "p_few": [one.p_few for one in each]}
    return [row(f"planted-{name}", RESID, "evidence", "false_alarm_rate", rate, more)]


def plants(name: str, seeds: int, sizes: Sizes) -> list[Row]:
    """Recall and use of one plant with value, over `seeds`; V-hat from the model's own
    continuations."""
    one_of("plant with a planted set", name, VALUE_SITES)
    require(seeds >= 1, f"seeds must be at least 1; {seeds} was given.")
    numbers = progress(f"rollouts and values: {name}", "seed", range(seeds))
    datas = [gather(planted(name, seed), "train", sizes.train, sizes.k, seed) for seed in numbers]
    return recall(datas) + use(datas, sizes)


def row(
    plant: PlantedModel | str,
    site: str,
    arm: str,
    metric: str,
    value: Interval,
    detail: dict[str, Any],
) -> Row:
    """A row of this experiment; `n` counts seeds."""
    model = f"planted-{plant.name}" if isinstance(plant, PlantedModel) else plant
    shared = {"experiment": "calibrate", "model": model, "task": "planted", "site": site, "seed": 0}
    return Row(**shared, arm=arm, metric=metric, **asdict(value), detail=detail | {"n": "seeds"})


def _evidences(name: str, seeds: Sequence[int], sizes: Sizes, what: str) -> list[Evidence]:
    """`evidence` of one plant, a seed each, on V-hat of its exact law."""
    require(len(seeds) > 0, f"seeds must be at least 1; {len(seeds)} was given.")
    found = []
    for seed in progress(f"{what}: {name}", "seed", seeds):
        plant = planted(name, seed)
        splits = (("train", sizes.train), ("test", sizes.test))
        fit, held = (
            gather(plant, split, n, sizes.k, seed, True).states(RESID) for split, n in splits
        )
        found.append(evidence(fit, held, draws=sizes.draws, seed=seed))
    return found
