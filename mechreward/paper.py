"""The paper's experiments, one function each, in its order: data in, tidy rows out.

Here are those of the main job (R1-R4, R7, R8). Numbers are those of docs/experiments.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.causal.effect import Effect
from mechreward.models.site import Site
from mechreward.probing.activations import Recording
from mechreward.probing.neurons import NeuronSet, count, ranking
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.probing.pruning import Probe, measures, pruning_curve, restrict, shuffled
from mechreward.probing.targets import TARGETS, Examples, states, steps
from mechreward.results import Row, rows_from
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import Values
from mechreward.stats import Interval
from mechreward.uses.confidence import confidence

SHARES = (0.01, 0.02, 0.05)
CUT = 0.3


@dataclass(frozen=True)
class Split:
    """One split of the data: rollouts, their values, and activations at states and over steps."""

    runs: Rollouts
    values: Values
    at_states: Recording
    over_steps: Recording

    def states(self, site: Site | str) -> Examples:
        return states(self.at_states[str(site)], self.values)

    def steps(self, site: Site | str) -> Examples:
        return steps(self.over_steps[str(site)], self.values)


def shared(experiment: str, model: str, task: str, site: Any, seed: int) -> dict[str, Any]:
    """The fields that an experiment's rows have in common."""
    return {"experiment": experiment, "model": model, "task": task, "site": str(site), "seed": seed}


def describe(split: Split, name: str, about: dict[str, Any]) -> list[Row]:
    """What the data of one split looks like: accuracy, spread of V-hat, share of large TD errors, reliability."""
    values, group = split.values, np.array(split.values.group)
    live, step = values.live, values.is_step
    delta, mean = values.delta[step], values.mean[live]
    rewards, problems = np.array(split.runs.rewards, float), np.array(split.runs.groups)
    numbers = {
        "accuracy": stats.cluster_bootstrap(np.mean, rewards, problems),
        "value_mean": stats.cluster_bootstrap(np.mean, mean, group[live]),
        "value_sd": stats.cluster_bootstrap(np.std, mean, group[live]),
        "delta_above_.3": stats.cluster_bootstrap(np.mean, (delta > CUT).astype(float), group[step]),
        "delta_below_-.3": stats.cluster_bootstrap(np.mean, (delta < -CUT).astype(float), group[step]),
    }
    a, b = values.halves()
    da, db = (np.where(step, np.append(np.nan, np.diff(half)), np.nan)[step] for half in (a, b))
    numbers["reliability_value"] = stats.cluster_bootstrap(
        stats.split_half_reliability, [a[live], b[live]], group[live], draws=300
    )
    numbers["reliability_delta"] = stats.cluster_bootstrap(
        stats.split_half_reliability, [da, db], group[step], draws=300
    )
    detail = {"split": name, "k": values.k}
    return rows_from(about, [("baseline", metric, interval, detail) for metric, interval in numbers.items()])


def R1(train: Split, test: Split, site: Site, about: dict[str, Any]) -> list[Row]:
    """A value probe works: every target under both shapes, and the paper's with shuffled labels, on test."""
    fit, held = train.states(site), test.states(site)
    rows = []
    for shape in ("mlp", "linear"):
        for target in TARGETS:
            probe = ValueProbe(target, shape).fit_examples(fit)
            rows += _measured(about, "value", measures(probe, held), {"target": target, "shape": shape})
    probe = ValueProbe("mc", "mlp").fit_examples(shuffled(fit, seed=about["seed"]))
    return rows + _measured(about, "shuffled", measures(probe, held), {"target": "mc", "shape": "mlp"})


def R2(train: Split, test: Split, site: Site, about: dict[str, Any], draws: int = 3) -> list[Row]:
    """Sparse: the pruning curve of the paper's probe (retrained), beside random subsets and shuffled labels."""
    return _curve(ValueProbe("mc", "mlp"), train.states(site), test.states(site), about, draws)


def R3(train: Split, validation: Split, sites: Sequence[Site], about: dict[str, Any]) -> list[Row]:
    """Over layers: Spearman with V-hat on validation at every site, for all neurons and for each share of the top."""
    rows = []
    for site in sites:
        fit, held = train.states(site), validation.states(site)
        full = ValueProbe("mc", "mlp").fit_examples(fit)
        score = {1.0: measures(full, held, draws=200)["spearman"]}
        for share in SHARES:
            top = ranking(full.scores_)[: count(fit.x.shape[1], share)]
            few = ValueProbe("mc", "mlp").fit_examples(restrict(fit, top))
            score[share] = measures(few, restrict(held, top), draws=200)["spearman"]
        here = about | {"site": str(site)}
        rows += rows_from(here, [("value", "spearman", s, {"share": share}) for share, s in score.items()])
    return rows


def choose(rows: Sequence[Row], kind: str) -> tuple[Site, float]:
    """Layer and share for one kind of neuron, from R3's validation rows: the layer whose top 1% reads V-hat best, then
    the smallest share that keeps 90% of that layer's best Spearman (the largest share, if none does)."""
    own = [row for row in rows if Site.parse(row.site).kind == kind]
    smallest = [row for row in own if row.detail["share"] == SHARES[0]]
    site = max(smallest, key=lambda row: row.estimate).site
    here = {row.detail["share"]: row.estimate for row in own if row.site == site}
    enough = [share for share in SHARES if here[share] >= 0.9 * max(here.values())]
    return Site.parse(site), min(enough, default=SHARES[-1])


def R4(effect: Effect, about: dict[str, Any]) -> list[Row]:
    """Causal: the ablation beside every control, with paired tests and the damage meter."""
    n = len(effect.problems)
    base = stats.proportion(int(effect.baseline.outcomes.sum()), n)
    rows = rows_from(about, [("baseline", "accuracy", base, {"detectable_drop": effect.power()})])
    rows += _damage(about, "baseline", effect.baseline.damage, n, {})
    for op in effect.ops:
        s = effect.summary(op)
        tests = {key: s[key] for key in ("rank", "draws", "p_rank", "p_mcnemar", "match_error", "matched")}
        own = effect.draws("value", op)[0]
        rows += rows_from(
            about,
            [
                ("value", "accuracy", s["accuracy"], {"op": op, "neurons": len(effect.neurons)} | tests),
                ("value", "change", s["change"], {"op": op}),
                ("value", "change_beyond_matched", s["beyond_matched"], {"op": op}),
            ],
        )
        rows += _damage(about, "value", own.damage, n, {"op": op})
        for name in ("matched", "random", "sink_free_random"):
            arms = effect.draws(name, op)
            mean = np.mean([arm.outcomes for arm in arms], axis=0)
            over = stats.cluster_bootstrap(np.mean, mean, np.array(effect.problems), seed=about["seed"])
            rows += rows_from(about, [(name, "accuracy", over, {"op": op, "sets": len(arms)})])
            for arm in arms:
                one = stats.proportion(int(arm.outcomes.sum()), n)
                rows += rows_from(about, [(name, "accuracy", one, {"op": op, "draw": arm.draw})])
            for key in own.damage:
                each = np.array([arm.damage[key] for arm in arms])
                spread = Interval(float(each.mean()), float(each.min()), float(each.max()), n)
                detail = {"op": op, "sets": len(arms), "interval": "lowest and highest draw"}
                rows += rows_from(about, [(name, key, spread, detail)])
    return rows


def R7(probe: ValueProbe, acts: Any, runs: Rollouts, about: dict[str, Any]) -> list[Row]:
    """Confidence: AUROC of the value read-out at s_0, beside what the surface of problem and answer gives."""
    scores = confidence(probe, acts, runs, seed=about["seed"])
    known = {"value": "before", "problem_length": "before", "difficulty": "before"}
    numbers = [(arm, "auroc_s0", score, {"known": known.get(arm, "after")}) for arm, score in scores.items()]
    return rows_from(about, numbers)


def R8(train: Split, test: Split, site: Site, about: dict[str, Any], draws: int = 3) -> list[Row]:
    """Dopamine neurons: Spearman of the read-out with delta, with and without the paper's cut, and against pruning."""
    fit, held = train.steps(site), test.steps(site)
    reliable = test.values.reliability()["delta"]
    rows = []
    for cut in (0.0, CUT):
        probe = DopamineProbe(cut=cut).fit_examples(fit)
        for tested, data in (("all steps", held), (f"|delta| > {CUT}", held.only(np.abs(held.y) > CUT))):
            score = measures(probe, data)["spearman"]
            detail = {"fitted": f"|delta| > {cut}" if cut else "all steps", "tested": tested}
            rows += rows_from(about, [("dopamine", "spearman", score, detail)])
            if tested == "all steps":
                parts = [stats.disattenuated(part, reliable) for part in (score.estimate, score.low, score.high)]
                fixed = Interval(parts[0], parts[1], parts[2], score.n)
                more = {"reliability": round(reliable, 4)}
                rows += rows_from(about, [("dopamine", "spearman_disattenuated", fixed, detail | more)])
    return rows + _curve(DopamineProbe(), fit, held, about, draws)


def best_dopamine(train: Split, validation: Split, sites: Sequence[Site], kind: str) -> Site:
    """The site of one kind whose dopamine probe has the best validation Spearman with delta."""
    own = [site for site in sites if site.kind == kind]

    def score(site: Site) -> float:
        probe = DopamineProbe().fit_examples(train.steps(site))
        held = validation.steps(site)
        return stats.spearman(probe.predict(held.x), held.y)

    return max(own, key=score)


def overlap(value: NeuronSet, dopamine: NeuronSet) -> dict[str, float]:
    """IoU of two sets of one site, with its chance expectation and P(at least that much) by the hypergeometric."""
    shared_count = len(set(value.indices) & set(dopamine.indices))
    expected, p = stats.hypergeometric_iou(len(value), len(dopamine), value.width, shared_count)
    return {"iou": value.iou(dopamine), "expected": expected, "p": p}


def _curve(probe: Probe, fit: Examples, held: Examples, about: dict[str, Any], draws: int) -> list[Row]:
    rows = []
    for point in pruning_curve(probe, fit, held, draws=draws, seed=about["seed"]):
        detail: dict[str, Any] = {"ratio": point.ratio, "neurons": point.neurons}
        if point.arm in ("random", "shuffled"):
            detail["draw"] = point.draw
        rows += rows_from(about, [(point.arm, point.metric, point.score, detail)])
    return rows


def _measured(about: dict[str, Any], arm: str, scores: dict[str, Interval], detail: dict[str, Any]) -> list[Row]:
    return rows_from(about, [(arm, metric, score, detail) for metric, score in scores.items()])


def _damage(about: dict[str, Any], arm: str, damage: dict[str, float], n: int, detail: dict[str, Any]) -> list[Row]:
    """The damage meter has no interval: it is a meter of one set on these problems."""
    nan = float("nan")
    return rows_from(about, [(arm, key, Interval(value, nan, nan, n), detail) for key, value in damage.items()])
