"""Every experiment of the paper on a study, each stage kept; the main job; and all of it over models and tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mechreward import paper
from mechreward._check import one_of, require
from mechreward._files import digest
from mechreward.causal.effect import Effect, ablate
from mechreward.models.site import Site
from mechreward.paper import Home, Split
from mechreward.paper.choice import KINDS
from mechreward.probing.activations import record
from mechreward.probing.neurons import NeuronSet, select
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.probing.targets import TARGETS
from mechreward.results import Results, Row
from mechreward.rollouts.sample import sample
from mechreward.study import Plan, Study, provenance

DEMO = ("R1", "R2", "R3", "R4", "R7", "R8")
# What `paper all` runs on: every bundled model on the task all were trained on, and the mixed one on its other tasks.
BUNDLED = (
    ("countdown-base", "countdown"),
    ("countdown-rl", "countdown"),
    ("mixed-rl", "countdown"),
    ("mixed-rl", "chain"),
    ("mixed-rl", "paths"),
)


def demo(study: Study) -> Results:
    """The main job: what the data is, R1-R4, R7, R8; returns what `results.json` holds."""
    rows = data(study)
    for name in DEMO:
        rows += EXPERIMENTS[name](study)
    results = Results(study.manifest(chosen(study)), tuple(rows))
    results.save(study.out / "results.json")
    return results


def reproduce(
    names: Sequence[str],
    out: Path,
    homes: Sequence[tuple[str, str]] = BUNDLED,
    plan: Plan | None = None,
    say: Callable[[str], None] = print,
) -> Results:
    """The named experiments (or `all`) on every (model, task), each in a folder of its own under `out`.

    R12 compares the homes with each other and needs at least two. Every stage is kept: called again, it goes on.

    Raises:
        MechRewardError: an unknown experiment, or folders that hold runs of another plan.
    """
    every = [*EXPERIMENTS, "R12"]
    for name in names:
        one_of("experiment", name, [*every, "all"])
    wanted = every if "all" in names else [name for name in every if name in names]
    require(bool(wanted), f"no experiment was named; there are {', '.join(every)}, and all.")
    require("R12" not in names or len(homes) > 1, "R12 compares models or tasks: name at least two.")
    rows: list[Row] = []
    studies: dict[str, Study] = {}
    manifest: dict[str, Any] = provenance() | {"title": "The paper's experiments", "runs": {}}
    for model, task in homes:
        own = replace(plan or Plan(), model=model, task=task)
        study = Study.open(own, out / f"{model}.{task}", say=say)
        mine = data(study)
        for name in wanted:
            if name in EXPERIMENTS:
                say(f"{name} on {model}, {task}")
                mine += EXPERIMENTS[name](study)
        Results(study.manifest(chosen(study)), tuple(mine)).save(study.out / "results.json")
        manifest["runs"][f"{model}.{task}"] = {"plan": asdict(own), "model_id": asdict(study.identity)}
        rows += mine
        if "R12" in wanted and len(homes) > 1:
            studies[f"{model}.{task}"] = study
    if studies:
        rows += _transfer(studies, out)
    results = Results(manifest, tuple(rows))
    results.save(out / "results.json")
    return results


def data(study: Study) -> list[Row]:
    """What the rollouts and values of each split look like."""
    rows = []
    for name, split in study.splits.items():
        rows += study.rows(f"data-{name}", lambda s=split, n=name: paper.describe(s, n, study.about("R1", "")))
    return rows


def grid(study: Study) -> list[Row]:
    train, validation, _ = study.splits.values()
    return study.rows("R3", lambda: paper.R3(train, validation, study.sites, study.about("R3", "")))


def chosen(study: Study) -> dict[str, tuple[Site, float]]:
    """Layer and share of each kind of neuron, from validation."""
    rows = grid(study)
    return {kind: paper.choose(rows, kind) for kind in KINDS}


def value_set(study: Study, kind: str) -> NeuronSet:
    site, share = chosen(study)[kind]
    return study.neurons(f"value-{kind}", lambda: select(_fitted(study, site), share))


def dopamine_set(study: Study, kind: str) -> NeuronSet:
    train, validation, _ = study.splits.values()

    def make() -> NeuronSet:
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
        return ablate(study.model, problems, neurons, draws=draws, random_draws=others, seed=plan.seed, what=what)

    return study.kept(f"effect-{kind}.json", Effect, make)


def R1(study: Study) -> list[Row]:
    train, validation, test = study.splits.values()

    def make(site: Site) -> list[Row]:
        return paper.R1(train, validation, test, site, study.about("R1", site))

    return _over_kinds(study, "R1", lambda kind: make(chosen(study)[kind][0]))


def R2(study: Study) -> list[Row]:
    train, _, test = study.splits.values()

    def make(site: Site) -> list[Row]:
        return paper.R2(train, test, site, study.about("R2", site), study.plan.curve_draws)

    return _over_kinds(study, "R2", lambda kind: make(chosen(study)[kind][0]))


def R3(study: Study) -> list[Row]:
    """The grid, with the chosen cells marked."""
    picked = {(str(site), share) for site, share in chosen(study).values()}

    def mark(row: Row) -> Row:
        here = (row.site, row.detail["share"]) in picked
        return replace(row, detail=row.detail | {"split": "validation"} | ({"chosen": True} if here else {}))

    return [mark(row) for row in grid(study)]


def R4(study: Study) -> list[Row]:
    return [row for kind in KINDS for row in paper.R4(effect(study, kind), study.about("R4", chosen(study)[kind][0]))]


def R5(study: Study) -> list[Row]:
    def make(kind: str) -> list[Row]:
        site, share = chosen(study)[kind]
        sets = {target: select(_fitted(study, site, target), share) for target in TARGETS}
        problems, what = study.plan.problems(study.task, "ablated"), f"{kind}: zeroing the set of each target"
        return paper.R5(study.model, problems, sets, study.about("R5", site), what)

    return _over_kinds(study, "R5", make)


def R6(study: Study) -> list[Row]:
    def make(kind: str) -> list[Row]:
        site, runs = chosen(study)[kind][0], study.splits["train"].runs
        tokens = record(study.model, runs, site, rows="tokens", what=None)[site]
        return paper.R6(study.splits["train"], tokens, runs, study.about("R6", site))

    return _over_kinds(study, "R6", make)


def R7(study: Study) -> list[Row]:
    def make() -> list[Row]:
        site, plan = chosen(study)["resid_post"][0], study.plan
        problems = plan.problems(study.task, "confidence")
        runs = sample(study.model, problems, seed=plan.seed + 1, what="confidence: rollouts")
        acts = record(study.model, runs, site, what=None)[site]
        return paper.R7(_fitted(study, site), acts, runs, study.about("R7", site))

    return study.rows("R7", make)


def R8(study: Study) -> list[Row]:
    train, _, test = study.splits.values()

    def make(site: Site) -> list[Row]:
        return paper.R8(train, test, site, study.about("R8", site), study.plan.curve_draws)

    return _over_kinds(study, "R8", lambda kind: make(dopamine_set(study, kind).site))


def R9(study: Study) -> list[Row]:
    train, _, test = study.splits.values()

    def make(site: Site) -> list[Row]:
        return paper.R9(train, test, site, study.about("R9", site))

    return _over_kinds(study, "R9", lambda kind: make(dopamine_set(study, kind).site))


def R10(study: Study) -> list[Row]:
    train, validation, test = study.splits.values()

    def make(kind: str) -> list[Row]:
        site = paper.best_dopamine(train, validation, [site for site in study.sites if site.layer > 0], kind)
        dopamine = select(DopamineProbe().fit(train.over_steps[str(site)], train.values))
        arms = paper.zeroed_below(study.model, train, dopamine, study.sites, study.plan.draws, study.plan.seed)
        about, fit = study.about("R10", site), train.steps(site)
        return paper.R10(study.model, test.runs, test.values, fit, dopamine, arms, about)

    return _over_kinds(study, "R10", make)


def R14(study: Study) -> list[Row]:
    train, plan = study.splits["train"], study.plan

    def make(kind: str) -> list[Row]:
        value, dopamine = value_set(study, kind), dopamine_set(study, kind)
        pushes, tokens = paper.steering_arms(study.model, train, value, dopamine, seed=plan.seed)
        about, problems = study.about("R14", value.site), plan.problems(study.task, "ablated")[:40]
        return paper.R14(study.model, problems, pushes, about, runs=train.runs, tokens=tokens, states=12)

    return _over_kinds(study, "R14", make)


def R13(study: Study) -> list[Row]:
    """R2 and R4 once more, the rows of MLP units alone."""

    def mlp(rows: list[Row]) -> list[Row]:
        return [row for row in rows if row.site.endswith("mlp")]

    return paper.R13(mlp(R2(study)), mlp(R4(study)))


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
}


def _transfer(studies: Mapping[str, Study], out: Path) -> list[Row]:
    """R12 at the residual site the first home chose, with its share: one site, or neurons could not be compared."""
    first = next(iter(studies.values()))
    site, share = chosen(first)["resid_post"]

    def home(study: Study) -> Home:
        train, _, test = study.splits.values()
        tokens = record(study.model, train.runs, site, rows="tokens", what=None)[site]
        neurons = select(_fitted(study, site), share)
        return Home(study.plan.model, study.plan.task, neurons, train.states(site), test.states(site), tokens)

    path = out / f"R12-{digest(*(name.encode() for name in studies))}.rows.json"  # other homes are another comparison
    if not path.exists():
        rows = paper.R12({name: home(study) for name, study in studies.items()}, first.plan.seed)
        Results({"stage": "R12"}, tuple(rows)).save(path)
    return list(Results.load(path).rows)


def _over_kinds(study: Study, name: str, make: Callable[[str], list[Row]]) -> list[Row]:
    return [row for kind in KINDS for row in study.rows(f"{name}-{kind}", lambda k=kind: make(k))]


def _fitted(study: Study, site: Site, target: Any = "mc") -> ValueProbe:
    """The paper's probe on the training split; its activations are kept for whoever wants to look."""
    train: Split = study.splits["train"]
    acts, path = train.at_states[str(site)], study.out / f"train.{site}.activations.safetensors"
    if not path.exists():
        acts.save(path)
    return ValueProbe(target, "mlp").fit(acts, train.values)
