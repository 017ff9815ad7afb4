"""Every experiment of the paper on a study, each stage kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mechreward import experiments, tasks
from mechreward.base.streams import stream
from mechreward.causal.certificate import Certificate, certify
from mechreward.causal.effect import Effect, ablate
from mechreward.experiments import Split
from mechreward.experiments.ablation_by_layer import OP, TOP
from mechreward.experiments.choice import KINDS
from mechreward.experiments.rows import Detail, Row
from mechreward.models.site import Site
from mechreward.probing.activations import record
from mechreward.probing.neurons import select
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.probing.targets import TARGETS
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts
from mechreward.studies.sets import (
    chosen,
    dopamine_set,
    fitted,
    grid,
    setting_of,
    tokens_of,
    value_set,
)
from mechreward.studies.stages_uses import R7, R11, early_exit
from mechreward.studies.study import Study
from mechreward.tasks import GAMES
from mechreward.tasks.base import SPLITS

STEERED = 100  # problems at most that sets are steered on


def data(study: Study) -> list[Row]:
    """What the rollouts and values of each split look like."""
    rows = []
    for name in SPLITS:

        def make(name: str = name) -> list[Row]:
            return experiments.describe(study.splits[name], name, setting_of(study, "R1", ""))

        rows += study.rows(f"data-{name}", make)
    return rows


def effect(study: Study, kind: str) -> Effect:
    """The ablation of a value set beside its controls, on test problems that no choice has seen."""
    value_set(study, kind)  # also where the effect is kept: a set that was lost is made again

    def make() -> Effect:
        neurons, plan = value_set(study, kind), study.plan
        return ablate(
            study.model,
            plan.problems(study.task, "ablated"),
            neurons,
            draws=plan.draws,
            random_draws=plan.random_draws,
            seed=plan.seed,
            policy=plan.policy,
            progress=f"ablating {len(neurons)} {kind} neurons",
        )

    return study.kept(f"effect-{kind}.json", Effect, make)


def probes(study: Study) -> list[Row]:
    """R1 as the main job has it."""
    problems = study.plan.problems(study.task, "test")
    seed = stream("several answers", study.plan.seed)

    def answers() -> Rollouts:
        policy = study.plan.policy
        title = "four answers each"
        return sample(study.model, problems, k=4, seed=seed, policy=policy, progress=title)

    def make(kind: str) -> list[Row]:
        site = _site(study, kind)
        train, validation, test = study.splits.values()
        runs = study.kept("several.rollouts.safetensors", Rollouts, answers, task=study.task)
        several = (runs, record(study.model, runs, site, progress=False)[site])
        return experiments.value_probe(
            train,
            validation,
            test,
            site,
            setting_of(study, "R1", site),
            several,
            tokens_of(study, "train", site),
        )

    return _over_kinds(study, "R1", make)


def R1(study: Study) -> list[Row]:
    """The probes, and the same ones on a model of random weights."""

    def make(kind: str) -> list[Row]:
        site = _site(study, kind)
        train, test = _train_and_test(study)
        setting = setting_of(study, "R1", site)
        return experiments.random_weights(study.model, train, test, site, setting)

    return probes(study) + _over_kinds(study, "R1-random", make)


def R2(study: Study) -> list[Row]:
    """The pruning curves."""

    def make(kind: str) -> list[Row]:
        site = _site(study, kind)
        train, test = _train_and_test(study)
        every = tokens_of(study, "train", site)
        setting = setting_of(study, "R2", site)
        return experiments.pruning(train, test, site, setting, study.plan.curve_draws, every)

    return _over_kinds(study, "R2", make)


def R3(study: Study) -> list[Row]:
    """The grid on validation with the chosen cells marked, and the same grid on test, none
    picked."""

    def make() -> list[Row]:
        train, test = _train_and_test(study)
        return experiments.layers(train, test, study.sites, setting_of(study, "R3", ""), "test")

    picked = {(str(site), share) for site, share in chosen(study).values()}
    rows = []
    for row in grid(study):
        detail = row.detail | Detail(split="validation")
        if (row.site, row.detail["share"]) in picked:
            detail["chosen"] = True
        rows.append(replace(row, detail=detail))
    return rows + study.rows("R3-test", make)


def ablation(study: Study) -> list[Row]:
    """R4 as the main job has it: beside matched and random sets."""
    rows = []
    for kind in KINDS:
        site = _site(study, kind)
        rows += experiments.ablation(effect(study, kind), setting_of(study, "R4", site))
    return rows


def R4(study: Study) -> list[Row]:
    """The ablation; besides it the sets of other rankings, other tasks' accuracy, and
    self-repair."""
    rows = ablation(study)
    rows += _over_kinds(study, "R4-rankings", lambda kind: _rankings(study, kind))
    rows += _over_kinds(study, "R4-besides", lambda kind: _besides(study, kind))
    return rows


def R5(study: Study) -> list[Row]:
    """The sets of other targets zeroed."""

    def make(kind: str) -> list[Row]:
        site, share = chosen(study)[kind]
        sets = {}
        for target in TARGETS:
            sets[target] = select(fitted(study, site, target), share)
        over_tokens = ValueProbe("td", "mlp").fit(
            tokens_of(study, "train", site), study.splits["train"].values
        )
        sets["td over tokens"] = select(over_tokens, share)
        problems = study.plan.problems(study.task, "ablated")
        title = f"{kind}: zeroing the set of each target"
        setting = setting_of(study, "R5", site)
        return experiments.targets(study.model, problems, sets, setting, title, study.plan.policy)

    return _over_kinds(study, "R5", make)


def R6(study: Study) -> list[Row]:
    """The overlap with next-token neurons."""

    def make(kind: str) -> list[Row]:
        site = _site(study, kind)
        train = study.splits["train"]
        every = tokens_of(study, "train", site)
        setting = setting_of(study, "R6", site)
        return experiments.next_token_overlap(train, every, train.runs, setting)

    return _over_kinds(study, "R6", make)


def R8(study: Study) -> list[Row]:
    """The dopamine probe."""

    def make(kind: str) -> list[Row]:
        site = dopamine_set(study, kind).site
        train, test = _train_and_test(study)
        every = (tokens_of(study, "train", site), tokens_of(study, "test", site))
        setting = setting_of(study, "R8", site)
        return experiments.td_error(train, test, site, setting, study.plan.curve_draws, every)

    return _over_kinds(study, "R8", make)


def R9(study: Study) -> list[Row]:
    """A single neuron that follows surprise."""

    def make(kind: str) -> list[Row]:
        site = dopamine_set(study, kind).site
        train, test = _train_and_test(study)
        return experiments.single_neuron(train, test, site, setting_of(study, "R9", site))

    return _over_kinds(study, "R9", make)


def R10(study: Study) -> list[Row]:
    """What the dopamine read-out loses without value neurons; the dopamine site is not the first
    layer, which has none below it."""

    def make(kind: str) -> list[Row]:
        model, plan = study.model, study.plan
        train, validation, test = study.splits.values()
        later = [site for site in study.sites if site.layer > 0]
        site = experiments.best_dopamine(train, validation, later, kind)
        dopamine = select(DopamineProbe().fit(train.over_steps[str(site)], train.values))
        arms = experiments.zeroed_below(model, train, dopamine, study.sites, plan.draws, plan.seed)
        setting = setting_of(study, "R10", site)
        return experiments.dependence(
            model, test.runs, test.values, train.steps(site), dopamine, arms, setting
        )

    return _over_kinds(study, "R10", make)


def R13(study: Study) -> list[Row]:
    """R2 and R4 once more, the rows of MLP units alone."""

    def mlp(rows: list[Row]) -> list[Row]:
        return [row for row in rows if row.site.endswith("mlp")]

    return experiments.mlp_neurons(mlp(R2(study)), mlp(R4(study)))


def R14(study: Study) -> list[Row]:
    """Sets steered both ways, at one damage, by share, and patched."""
    return _over_kinds(study, "R14", lambda kind: _both_directions(study, kind))


def ablation_by_layer(study: Study) -> list[Row]:
    """The value set of every layer zeroed."""
    effects = {str(site): _effect_at(study, site) for site in study.sites}
    setting = setting_of(study, "ablation_by_layer", "")
    return experiments.ablation_by_layer(effects, setting)


def certificate(study: Study) -> list[Row]:
    """The claims about each kind's value set: one row a claim, with the number that decides
    it."""
    rows = []
    for kind in KINDS:

        def make(kind: str = kind) -> Certificate:
            neurons = value_set(study, kind)
            title = f"certificate of {kind} neurons"
            plan = study.plan
            return certify(
                study.model,
                study.task,
                neurons,
                seed=plan.seed,
                policy=plan.policy,
                progress=title,
            )

        kept: Certificate = study.kept(f"certificate-{kind}.json", Certificate, make)
        setting = setting_of(study, "certificate", kept.neurons.site)
        rows += experiments.claim_rows(kept, setting)
    return rows


EXPERIMENTS: Mapping[str, Callable[[Study], list[Row]]] = {
    "R1": R1,
    "R2": R2,
    "R3": R3,
    "R4": R4,
    "R5": R5,
    "R6": R6,
    "R7": R7,
    "R8": R8,
    "R9": R9,
    "R10": R10,
    "R11": R11,
    "R13": R13,
    "R14": R14,
    "early_exit": early_exit,
    "ablation_by_layer": ablation_by_layer,
    "certificate": certificate,
}


def _effect_at(study: Study, site: Site) -> Effect:
    """The paper's share of a layer's neurons, zeroed beside their controls, kept."""

    def make() -> Effect:
        plan = study.plan
        return ablate(
            study.model,
            plan.problems(study.task, "ablated"),
            select(fitted(study, site), TOP),
            ops=OP,
            draws=plan.draws,
            random_draws=plan.random_draws,
            seed=plan.seed,
            policy=plan.policy,
            progress=f"zeroing value neurons at {site}",
        )

    return study.kept(f"effect-{site}.json", Effect, make)


def _rankings(study: Study, kind: str) -> list[Row]:
    """The ablation beside sets of other rankings."""
    ablated = effect(study, kind)
    problems = study.plan.problems(study.task, "ablated")
    sets, acts = experiments.rivals(
        study.model, study.splits["train"], ablated.neurons, seed=study.plan.seed
    )
    setting = setting_of(study, "R4", ablated.neurons.site)
    title = f"{kind}: sets of other rankings"
    return experiments.other_rankings(study.model, problems, ablated, sets, acts, setting, title)


def _besides(study: Study, kind: str) -> list[Row]:
    """The ablation on other tasks, and self-repair."""
    ablated = effect(study, kind)
    site = ablated.neurons.site
    setting = setting_of(study, "R4", site)
    problems = {}
    if study.plan.task in GAMES:  # other models know one task alone
        for name in GAMES:
            if name != study.plan.task:
                problems[name] = study.plan.problems(tasks.get(name), "ablated")
    acts = tokens_of(study, "train", site)
    rows = experiments.elsewhere(
        study.model, problems, ablated, acts, setting, f"{kind}: other tasks"
    )
    train, test = _train_and_test(study)
    _, share = chosen(study)[kind]
    rows += experiments.repair(study.model, train, test, kind, share, setting, study.plan.draws)
    return rows


def _both_directions(study: Study, kind: str) -> list[Row]:
    """R14 of one kind of neuron."""
    model, plan = study.model, study.plan
    train, test = _train_and_test(study)
    value, dopamine = value_set(study, kind), dopamine_set(study, kind)
    pushes, tokens = experiments.steering_arms(
        model, train, value, dopamine, plan.draws, plan.random_draws, plan.seed
    )
    setting = setting_of(study, "R14", value.site)
    problems = plan.problems(study.task, "ablated")[:STEERED]
    shares = experiments.by_share(
        model, train, fitted(study, value.site), value.site, draws=plan.draws, seed=plan.seed
    )
    matched = [push.neurons for push in pushes if push.arm == "matched"]
    matched_dopamine = [push.neurons for push in pushes if push.arm == "matched_dopamine"]
    sets = {"value": (value, matched), "dopamine": (dopamine, matched_dopamine)}
    clean: dict[str, Any] = {"runs": train.runs, "tokens": tokens}
    neurons = f"{kind} neurons"
    rows = experiments.steering(
        model, problems, pushes, setting, **clean, progress=f"{neurons} steered"
    )
    rows += experiments.same_damage(
        model, problems, pushes, setting, **clean, progress=f"{kind} at one KL"
    )
    rows += experiments.share_dose(
        model, problems, shares, setting, f"{neurons}, by share", plan.policy
    )
    rows += experiments.both_patched(model, test, sets, setting, progress=f"{neurons} patched")
    return rows


def _site(study: Study, kind: str) -> Site:
    """Where the value set of a kind is."""
    site, _ = chosen(study)[kind]
    return site


def _train_and_test(study: Study) -> tuple[Split, Split]:
    return study.splits["train"], study.splits["test"]


def _over_kinds(study: Study, name: str, make: Callable[[str], list[Row]]) -> list[Row]:
    """A stage for each kind of neuron."""
    rows = []
    for kind in KINDS:
        rows += study.rows(f"{name}-{kind}", lambda kind=kind: make(kind))
    return rows
