"""The main job, and the paper's experiments over models and tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from mechreward import experiments as paper
from mechreward.base.errors import one_of, require
from mechreward.base.files import digest
from mechreward.base.workers import side_by_side
from mechreward.experiments import Home
from mechreward.experiments.plan import BUNDLED, Plan, repeat
from mechreward.experiments.rows import Results, Row
from mechreward.models.site import Site
from mechreward.probing.activations import record
from mechreward.probing.neurons import select
from mechreward.probing.probe import ValueProbe
from mechreward.studies.stages import EXPERIMENTS, R2, R3, R7, R8, ablation, chosen, data, probes
from mechreward.studies.study import Study, provenance

DEMO = (probes, R2, R3, ablation, R7, R8)
LONG = ("R14", "R4", "certificate")  # the longest first
FLUSHED = partial(print, flush=True)


def demo(study: Study) -> Results:
    """The main job: what the data is, R1-R4, R7, R8; returns what `results.json` holds."""
    rows = data(study)
    for experiment in DEMO:
        rows += experiment(study)
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
    """The named experiments (`all`: the paper's) on every (model, task), each in a folder of its
    own under `out`.

    Several homes run side by side. R12 compares them with each other and needs at least two. Every
    stage is kept: called again, it goes on.

    Raises:
        MechRewardError: an unknown experiment, or folders that hold runs of another plan.
    """
    every = [*EXPERIMENTS, "R12"]
    for name in names:
        one_of("experiment", name, [*every, "all"])
    wanted = [name for name in every if name in names or ("all" in names and name != "certificate")]
    require(bool(wanted), f"no experiment was named; there are {', '.join(every)}, and all.")
    require(
        "R12" not in names or len(homes) > 1, "R12 compares models or tasks: name at least two."
    )
    plans = {
        f"{model}.{task}": replace(plan or Plan(), model=model, task=task) for model, task in homes
    }
    if len(plans) > 1:
        parts = _parts(wanted)
        jobs = [(parts[0], own, out / name) for name, own in plans.items()]
        for done, own, _ in side_by_side(
            _fill,
            jobs,
            then=lambda job: [(part, *job[1:]) for part in parts[1:]] if job[0] == parts[0] else [],
            rank=lambda job: parts.index(job[0]),
        ):
            say(f"{', '.join(done)} on {own.model}, {own.task}: done")
    for name, own in plans.items():
        _fill(wanted, own, out / name, say)
    rows: list[Row] = []
    again = repeat(names, list(homes), plan or Plan())
    manifest: dict[str, Any] = provenance() | {
        "title": "The paper's experiments",
        "command": again,
        "runs": {},
    }
    for name, own in plans.items():
        found = Results.load(out / name / "results.json")
        rows += found.rows
        manifest["runs"][name] = {"plan": asdict(own), "model_id": found.manifest["model_id"]}
    if "R12" in wanted and len(plans) > 1:
        rows += _transfer(
            {name: Study.open(own, out / name, say=lambda _: None) for name, own in plans.items()},
            out,
        )
    results = Results(manifest, tuple(rows))
    results.save(out / "results.json")
    return results


def _parts(wanted: Sequence[str]) -> list[list[str]]:
    """What may run side by side for a home: first the choice of layers, which all else needs; then
    what takes long, by itself, the longest first; then the rest. R13 is made of others' rows."""
    long = [name for name in LONG if name in wanted]
    rest = [name for name in wanted if name not in (*LONG, "R3", "R12", "R13")]
    return [["R3"], *([name] for name in long), *([rest] if rest else [])]


def _fill(
    wanted: Sequence[str], own: Plan, folder: Path, say: Callable[[str], None] = FLUSHED
) -> None:
    """Every stage of one home that is missing, and the rows of all in its `results.json`."""
    study = Study.open(own, folder, say=say)
    rows = data(study)
    for name in wanted:
        if name in EXPERIMENTS:
            say(f"{name} on {own.model}, {own.task}")
            rows += EXPERIMENTS[name](study)
    mine = [name for name in wanted if name in EXPERIMENTS]
    Results(study.manifest(chosen(study), mine), tuple(rows)).save(folder / "results.json")


def _transfer(studies: Mapping[str, Study], out: Path) -> list[Row]:
    """R12 for each kind, at the site the first home chose, with its share: one site, or neurons
    could not be compared."""
    first = next(iter(studies.values()))

    def home(study: Study, site: Site, share: float) -> Home:
        train, test = (study.split(name, [site]) for name in ("train", "test"))
        tokens = record(study.model, train.runs, site, rows="tokens", what=None)[site]
        neurons = select(
            ValueProbe("mc", "mlp").fit(train.at_states[str(site)], train.values), share
        )
        return Home(
            study.plan.model,
            study.plan.task,
            neurons,
            train.states(site),
            test.states(site),
            tokens,
        )

    rows: list[Row] = []
    for kind, where in chosen(first).items():
        names = digest(*(name.encode() for name in studies))  # other homes are another comparison
        path = out / f"R12-{kind}-{names}.rows.json"
        if not path.exists():
            homes = {name: home(study, *where) for name, study in studies.items()}
            Results({"stage": "R12"}, tuple(paper.R12(homes, first.plan.seed))).save(path)
        rows += Results.load(path).rows
    return rows
