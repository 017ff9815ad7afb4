"""The main job, and the paper's experiments over models and tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from mechreward import paper
from mechreward._check import one_of, require
from mechreward._files import digest
from mechreward._workers import side_by_side
from mechreward.experiments import EXPERIMENTS, chosen, data, fitted
from mechreward.paper import Home
from mechreward.probing.activations import record
from mechreward.probing.neurons import select
from mechreward.results import Results, Row
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
    """The named experiments (`all`: the paper's) on every (model, task), each in a folder of its own under `out`.

    Several homes run side by side, one process each. R12 compares them with each other and needs at least two. Every
    stage is kept: called again, it goes on.

    Raises:
        MechRewardError: an unknown experiment, or folders that hold runs of another plan.
    """
    every = [*EXPERIMENTS, "R12"]
    for name in names:
        one_of("experiment", name, [*every, "all"])
    wanted = [name for name in every if name in names or ("all" in names and name != "certificate")]
    require(bool(wanted), f"no experiment was named; there are {', '.join(every)}, and all.")
    require("R12" not in names or len(homes) > 1, "R12 compares models or tasks: name at least two.")
    plans = {f"{model}.{task}": replace(plan or Plan(), model=model, task=task) for model, task in homes}
    if len(plans) > 1:
        for _, own, folder in side_by_side(_fill, [(wanted, own, out / name) for name, own in plans.items()]):
            say(f"{own.model} on {own.task} is done: {folder}")
    rows: list[Row] = []
    studies: dict[str, Study] = {}
    manifest: dict[str, Any] = provenance() | {"title": "The paper's experiments", "runs": {}}
    for name, own in plans.items():
        studies[name] = study = Study.open(own, out / name, say=say if len(plans) == 1 else _nothing)
        rows += _every(study, wanted)
        manifest["runs"][name] = {"plan": asdict(own), "model_id": asdict(study.identity)}
    if "R12" in wanted and len(studies) > 1:
        rows += _transfer(studies, out)
    results = Results(manifest, tuple(rows))
    results.save(out / "results.json")
    return results


def _every(study: Study, wanted: Sequence[str]) -> list[Row]:
    """All rows of one home, also written to its own `results.json`."""
    rows = data(study)
    for name in wanted:
        if name in EXPERIMENTS:
            study.say(f"{name} on {study.plan.model}, {study.plan.task}")
            rows += EXPERIMENTS[name](study)
    Results(study.manifest(chosen(study)), tuple(rows)).save(study.out / "results.json")
    return rows


def _fill(wanted: Sequence[str], own: Plan, folder: Path) -> None:
    """Every stage of one home, in a process of its own."""
    _every(Study.open(own, folder, say=partial(print, flush=True)), wanted)


def _nothing(_: str) -> None:
    pass


def _transfer(studies: Mapping[str, Study], out: Path) -> list[Row]:
    """R12 at the residual site the first home chose, with its share: one site, or neurons could not be compared."""
    first = next(iter(studies.values()))
    site, share = chosen(first)["resid_post"]

    def home(study: Study) -> Home:
        train, _, test = study.splits.values()
        tokens = record(study.model, train.runs, site, rows="tokens", what=None)[site]
        neurons = select(fitted(study, site), share)
        return Home(study.plan.model, study.plan.task, neurons, train.states(site), test.states(site), tokens)

    path = out / f"R12-{digest(*(name.encode() for name in studies))}.rows.json"  # other homes are another comparison
    if not path.exists():
        rows = paper.R12({name: home(study) for name, study in studies.items()}, first.plan.seed)
        Results({"stage": "R12"}, tuple(rows)).save(path)
    return list(Results.load(path).rows)
