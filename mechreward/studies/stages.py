"""Every experiment of the paper on a study, each stage kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mechreward import experiments as paper
from mechreward import tasks
from mechreward.base.streams import stream
from mechreward.causal.certificate import Certificate, certify
from mechreward.causal.effect import Effect, ablate
from mechreward.experiments import Split
from mechreward.experiments.certificate import claim_rows
from mechreward.experiments.choice import KINDS
from mechreward.experiments.rows import Row
from mechreward.models.site import Site
from mechreward.probing.activations import Activations, record
from mechreward.probing.neurons import NeuronSet, select
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.probing.targets import TARGETS
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts
from mechreward.studies.study import Study
from mechreward.tasks import TASKS
from mechreward.tasks.base import SPLITS


def data(study: Study) -> list[Row]:
    """What the rollouts and values of each split look like."""
    rows = []
    for name in SPLITS:
        rows += study.rows(
            f"data-{name}", lambda n=name: paper.describe(study.splits[n], n, study.about("R1", ""))
        )
    return rows


def grid(study: Study) -> list[Row]:
    def make() -> list[Row]:
        train, validation, _ = study.splits.values()
        return paper.R3(train, validation, study.sites, study.about("R3", ""))

    return study.rows("R3", make)


def chosen(study: Study) -> dict[str, tuple[Site, float]]:
    """Layer and share of each kind of neuron, from validation."""
    rows = grid(study)
    return {kind: paper.choose(rows, kind) for kind in KINDS}


def value_set(study: Study, kind: str) -> NeuronSet:
    site, share = chosen(study)[kind]
    return study.neurons(f"value-{kind}", lambda: select(fitted(study, site), share))


def dopamine_set(study: Study, kind: str) -> NeuronSet:
    def make() -> NeuronSet:
        train, validation, _ = study.splits.values()
        site = paper.best_dopamine(train, validation, study.sites, kind)
        acts = train.over_steps[str(site)]
        acts.save(study.out / f"train.{site}.steps.activations.safetensors")
        return select(DopamineProbe().fit(acts, train.values))

    return study.neurons(f"dopamine-{kind}", make)


def effect(study: Study, kind: str) -> Effect:
    """The ablation of a value set beside its controls, on test problems that no choice has seen."""
    neurons, plan = value_set(study, kind), study.plan

    def make() -> Effect:
        what = f"ablating {len(neurons)} {kind} neurons"
        problems = plan.problems(study.task, "ablated")
        draws, others = plan.draws, plan.random_draws
        return ablate(
            study.model,
            problems,
            neurons,
            draws=draws,
            random_draws=others,
            seed=plan.seed,
            what=what,
        )

    return study.kept(f"effect-{kind}.json", Effect, make)


def probes(study: Study) -> list[Row]:
    """R1 as the main job has it."""
    problems = study.plan.problems(study.task, "test")
    seed = stream("several answers", study.plan.seed)

    def answers() -> Rollouts:
        return sample(study.model, problems, k=4, seed=seed, what="four answers each")

    def make(site: Site) -> list[Row]:
        train, validation, test = study.splits.values()
        runs = study.kept("several.rollouts.safetensors", Rollouts, answers)
        several = runs, record(study.model, runs, site, what=None)[site]
        every = _tokens(study, "train", site)
        return paper.R1(train, validation, test, site, study.about("R1", site), several, every)

    return _over_kinds(study, "R1", lambda kind: make(chosen(study)[kind][0]))


def R1(study: Study) -> list[Row]:
    """The probes, and the same ones on a model of random weights."""

    def make(site: Site) -> list[Row]:
        train, _, test = study.splits.values()
        return paper.random_weights(study.model, train, test, site, study.about("R1", site))

    return probes(study) + _over_kinds(
        study, "R1-random", lambda kind: make(chosen(study)[kind][0])
    )


def R2(study: Study) -> list[Row]:
    def make(site: Site) -> list[Row]:
        train, _, test = study.splits.values()
        every = _tokens(study, "train", site)
        return paper.R2(train, test, site, study.about("R2", site), study.plan.curve_draws, every)

    return _over_kinds(study, "R2", lambda kind: make(chosen(study)[kind][0]))


def R3(study: Study) -> list[Row]:
    """The grid on validation with the chosen cells marked, and the same grid on test, none
    picked."""
    picked = {(str(site), share) for site, share in chosen(study).values()}

    def mark(row: Row) -> Row:
        here = (row.site, row.detail["share"]) in picked
        return replace(
            row, detail=row.detail | {"split": "validation"} | ({"chosen": True} if here else {})
        )

    def make() -> list[Row]:
        train, _, test = study.splits.values()
        return paper.R3(train, test, study.sites, study.about("R3", ""), "test")

    return [mark(row) for row in grid(study)] + study.rows("R3-test", make)


def ablation(study: Study) -> list[Row]:
    """R4 as the main job has it: beside matched and random sets."""
    return [
        row
        for kind in KINDS
        for row in paper.R4(effect(study, kind), study.about("R4", chosen(study)[kind][0]))
    ]


def R4(study: Study) -> list[Row]:
    """The ablation; besides it the sets of other rankings, other tasks' accuracy, and
    self-repair."""
    others = (
        [name for name in TASKS if name != study.plan.task] if study.plan.task in TASKS else []
    )  # planted: its own

    def besides(kind: str) -> list[Row]:
        done, (train, _, test) = effect(study, kind), study.splits.values()
        site = done.neurons.site
        about, acts = study.about("R4", site), _tokens(study, "train", site)
        problems = {name: study.plan.problems(tasks.get(name), "ablated") for name in others}
        rows = paper.elsewhere(study.model, problems, done, acts, about, f"{kind}: other tasks")
        return rows + paper.repair(
            study.model, train, test, kind, chosen(study)[kind][1], about, study.plan.draws
        )

    def rankings(kind: str) -> list[Row]:
        done, problems = effect(study, kind), study.plan.problems(study.task, "ablated")
        sets, acts = paper.rivals(
            study.model, study.splits["train"], done.neurons, seed=study.plan.seed
        )
        about, what = study.about("R4", done.neurons.site), f"{kind}: sets of other rankings"
        return paper.other_rankings(study.model, problems, done, sets, acts, about, what)

    beside = _over_kinds(study, "R4-rankings", rankings) + _over_kinds(study, "R4-besides", besides)
    return ablation(study) + beside


def R5(study: Study) -> list[Row]:
    def make(kind: str) -> list[Row]:
        site, share = chosen(study)[kind]
        sets = {target: select(fitted(study, site, target), share) for target in TARGETS}
        every = ValueProbe("td", "mlp").fit(
            _tokens(study, "train", site), study.splits["train"].values
        )
        sets["td over tokens"] = select(every, share)
        problems, what = (
            study.plan.problems(study.task, "ablated"),
            f"{kind}: zeroing the set of each target",
        )
        return paper.R5(study.model, problems, sets, study.about("R5", site), what)

    return _over_kinds(study, "R5", make)


def R6(study: Study) -> list[Row]:
    def make(kind: str) -> list[Row]:
        site, train = chosen(study)[kind][0], study.splits["train"]
        return paper.R6(train, _tokens(study, "train", site), train.runs, study.about("R6", site))

    return _over_kinds(study, "R6", make)


def R7(study: Study) -> list[Row]:
    def make() -> list[Row]:
        site, plan = chosen(study)["resid_post"][0], study.plan
        problems = plan.problems(study.task, "confidence")
        runs = sample(study.model, problems, seed=plan.seed, what="confidence: rollouts")
        acts = record(study.model, runs, site, what=None)[site]
        return paper.R7(fitted(study, site), acts, runs, study.about("R7", site))

    return study.rows("R7", make)


def R8(study: Study) -> list[Row]:
    def make(site: Site) -> list[Row]:
        train, _, test = study.splits.values()
        every = _tokens(study, "train", site), _tokens(study, "test", site)
        return paper.R8(train, test, site, study.about("R8", site), study.plan.curve_draws, every)

    return _over_kinds(study, "R8", lambda kind: make(dopamine_set(study, kind).site))


def R9(study: Study) -> list[Row]:
    def make(site: Site) -> list[Row]:
        train, _, test = study.splits.values()
        return paper.R9(train, test, site, study.about("R9", site))

    return _over_kinds(study, "R9", lambda kind: make(dopamine_set(study, kind).site))


def R10(study: Study) -> list[Row]:
    def make(kind: str) -> list[Row]:
        train, validation, test = study.splits.values()
        site = paper.best_dopamine(
            train, validation, [site for site in study.sites if site.layer > 0], kind
        )
        dopamine = select(DopamineProbe().fit(train.over_steps[str(site)], train.values))
        arms = paper.zeroed_below(
            study.model, train, dopamine, study.sites, study.plan.draws, study.plan.seed
        )
        about, fit = study.about("R10", site), train.steps(site)
        return paper.R10(study.model, test.runs, test.values, fit, dopamine, arms, about)

    return _over_kinds(study, "R10", make)


def R14(study: Study) -> list[Row]:
    model, plan = study.model, study.plan

    def make(kind: str) -> list[Row]:
        train, _, test = study.splits.values()
        value, dopamine = value_set(study, kind), dopamine_set(study, kind)
        pushes, tokens = paper.steering_arms(
            model, train, value, dopamine, plan.draws, plan.random_draws, plan.seed
        )
        about, problems = study.about("R14", value.site), plan.problems(study.task, "ablated")[:100]
        sets = {
            arm: (own, [one.neurons for one in pushes if one.arm == control])
            for arm, own, control in (
                ("value", value, "matched"),
                ("dopamine", dopamine, "matched_dopamine"),
            )
        }
        shares = paper.by_share(
            model, train, fitted(study, value.site), value.site, draws=plan.draws, seed=plan.seed
        )
        return [
            *paper.R14(
                model,
                problems,
                pushes,
                about,
                runs=train.runs,
                tokens=tokens,
                what=f"{kind} neurons steered",
            ),
            *paper.same_damage(
                model,
                problems,
                pushes,
                about,
                runs=train.runs,
                tokens=tokens,
                what=f"{kind} at one KL",
            ),
            *paper.share_dose(model, problems, shares, about, f"{kind} neurons, by share"),
            *paper.both_patched(model, test, sets, about, what=f"{kind} neurons patched"),
        ]

    return _over_kinds(study, "R14", make)


def R13(study: Study) -> list[Row]:
    """R2 and R4 once more, the rows of MLP units alone."""

    def mlp(rows: list[Row]) -> list[Row]:
        return [row for row in rows if row.site.endswith("mlp")]

    return paper.R13(mlp(R2(study)), mlp(R4(study)))


def certificate(study: Study) -> list[Row]:
    """The five claims about each kind's value set: one row a claim, with the number that decides
    it."""

    def make(kind: str) -> Certificate:
        neurons, what = value_set(study, kind), f"certificate of {kind} neurons"
        return certify(study.model, study.task, neurons, seed=study.plan.seed, what=what)

    found = [
        study.kept(f"certificate-{kind}.json", Certificate, lambda k=kind: make(k))
        for kind in KINDS
    ]
    return [
        row
        for one in found
        for row in claim_rows(one, study.about("certificate", one.neurons.site))
    ]


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
    "R13": R13,
    "R14": R14,
    "certificate": certificate,
}


def _over_kinds(study: Study, name: str, make: Callable[[str], list[Row]]) -> list[Row]:
    return [row for kind in KINDS for row in study.rows(f"{name}-{kind}", lambda k=kind: make(k))]


def _tokens(study: Study, name: str, site: Site) -> Activations:
    """Activations at every token of a split's rollouts."""
    return record(study.model, study.splits[name].runs, site, rows="tokens", what=None)[site]


def fitted(study: Study, site: Site, target: Any = "mc") -> ValueProbe:
    """The paper's probe on the training split; its activations are kept for whoever wants to
    look."""
    train: Split = study.splits["train"]
    acts, path = train.at_states[str(site)], study.out / f"train.{site}.activations.safetensors"
    if not path.exists():
        acts.save(path)
    return ValueProbe(target, "mlp").fit(acts, train.values)
