"""The main job, and the paper's experiments over models and tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from mechreward import experiments as paper
from mechreward.base.errors import require
from mechreward.base.files import digest, safe_name
from mechreward.base.workers import side_by_side
from mechreward.experiments import Home
from mechreward.experiments.choice import KINDS
from mechreward.experiments.plan import (
    ALL,
    APART,
    BUNDLED,
    Plan,
    experiment_ids,
    experiment_list,
    experiment_name,
    repeat,
)
from mechreward.experiments.rows import Results, Row
from mechreward.models.site import Site
from mechreward.probing.activations import record
from mechreward.probing.neurons import select
from mechreward.probing.probe import ValueProbe
from mechreward.studies.folder import RESULTS, Folder, rows_file
from mechreward.studies.pictured import draw
from mechreward.studies.provenance import provenance
from mechreward.studies.sets import chosen
from mechreward.studies.stages import EXPERIMENTS, R2, R3, R7, R8, ablation, data, probes
from mechreward.studies.study import Study

MAIN_JOB = (probes, R2, R3, ablation, R7, R8)
CHOICE = "R3"  # chooses the layers, which all else needs
BETWEEN = "R12"  # compares homes with each other
COPIED = "R13"  # made of the rows of others
LONG = ("R14", "ablation_by_layer", "R4", "certificate")  # the longest first
FLUSHED = partial(print, flush=True)


def demo(study: Study) -> Results:
    """Run the main job: what the data is, R1-R4, R7, R8.

    Returns
    -------
    Results
        What `results.json` in the study's folder holds.
    """
    rows = data(study)
    for experiment in MAIN_JOB:
        rows += experiment(study)
    results = Results(study.manifest(chosen(study)), tuple(rows))
    _save(results, study.folder)
    return results


def reproduce(
    names: Sequence[str],
    out: Path,
    homes: Sequence[tuple[str, str]] = BUNDLED,
    plan: Plan | None = None,
    say: Callable[[str], None] = print,
) -> Results:
    """Run experiments of the paper on models and tasks.

    Several homes run side by side. Every stage is kept: called again, it goes on.

    Parameters
    ----------
    names
        Experiments by name or by id (`ablation` or `R4`); `all` are the paper's, without
        certificates. `transfer` compares homes with each other and needs at least two.
    out
        Folder: one for each home, and `results.json`.
    homes
        Models and tasks.
    plan
        Its sizes count; `Plan()` if not given.
    say
        Takes lines of progress.

    Raises
    ------
    MechRewardError
        An unknown experiment, folders that hold runs of another plan, or files in them that were
        changed.
    """
    names = experiment_ids(names)
    plan = plan or Plan()
    wanted = in_order(names)
    require(bool(wanted), f"no experiment was named; there are {experiment_list()}, and {ALL}.")
    require(
        BETWEEN not in names or len(homes) > 1,
        f"{BETWEEN} compares models or tasks: name at least two.",
    )
    whole = Folder(out)
    require(not whole.begun, f"{out} holds a run of one model; name another folder.")
    whole.check((RESULTS, rows_file(f"{BETWEEN}-*")))
    plans = {}
    for model, task in homes:
        plans[f"{model}.{task}"] = replace(plan, model=model, task=task)
    folders = {home: out / safe_name(home) for home in plans}
    if len(plans) > 1:
        _fill_side_by_side(wanted, plans, folders, say)
    for home, own_plan in plans.items():
        _fill(wanted, own_plan, folders[home], say)
    rows: list[Row] = []
    runs: dict[str, Any] = {}
    for home, own_plan in plans.items():
        results = Results.load(folders[home] / RESULTS)
        draw(Folder(folders[home]), results)
        rows += results.rows
        runs[home] = {"plan": asdict(own_plan), "model_id": results.manifest["model_id"]}
    if BETWEEN in wanted and len(plans) > 1:
        studies = {}
        for home, own_plan in plans.items():
            studies[home] = Study.open(own_plan, folders[home], say=lambda _: None)
        rows += _transfer(studies, whole)
    manifest = {
        **provenance(),
        "title": "The paper's experiments",
        "command": repeat(names, list(homes), plan),
        "runs": runs,
    }
    results = Results(manifest, tuple(rows))
    results.save(out / RESULTS)
    return results


def in_order(names: Sequence[str]) -> list[str]:
    """The experiments that ids ask for, in the order they run."""
    wanted = []
    for name in (*EXPERIMENTS, BETWEEN):
        if name in names or (ALL in names and name not in APART):
            wanted.append(name)
    return wanted


def _fill_side_by_side(
    wanted: Sequence[str],
    plans: Mapping[str, Plan],
    folders: Mapping[str, Path],
    say: Callable[[str], None],
) -> None:
    """Every missing stage of all homes. The parts of a home may begin when its first is done."""
    parts = _parts(wanted)

    def then(job: tuple) -> list[tuple]:
        part, *where = job
        if part != parts[0]:
            return []
        return [(other, *where) for other in parts[1:]]

    def rank(job: tuple) -> int:
        return parts.index(job[0])

    jobs = [(parts[0], plan, folders[home]) for home, plan in plans.items()]
    for part, plan, _ in side_by_side(_fill, jobs, then, rank):
        done = ", ".join(experiment_name(name) for name in part)
        say(f"{done} on {plan.model}, {plan.task}: done")


def _parts(wanted: Sequence[str]) -> list[list[str]]:
    """What may run side by side for a home: first the choice of layers; then what takes long, by
    itself; then the rest."""
    parts = [[CHOICE]]
    parts += [[name] for name in LONG if name in wanted]
    rest = [name for name in wanted if name not in (*LONG, CHOICE, BETWEEN, COPIED)]
    if rest:
        parts.append(rest)
    return parts


def _fill(
    wanted: Sequence[str], plan: Plan, folder: Path, say: Callable[[str], None] = FLUSHED
) -> None:
    """Every stage of one home that is missing, and the rows of all in its `results.json`."""
    study = Study.open(plan, folder, say=say)
    rows = data(study)
    alone = [name for name in wanted if name in EXPERIMENTS]
    for name in alone:
        say(f"{experiment_name(name)} on {plan.model}, {plan.task}")
        rows += EXPERIMENTS[name](study)
    manifest = study.manifest(chosen(study), alone)
    _save(Results(manifest, tuple(rows)), study.folder)


def _save(results: Results, folder: Folder) -> None:
    """The rows of a whole run in its folder, where the file says whose they are."""
    with folder.bound(RESULTS):
        results.save(folder.path / RESULTS)


def _transfer(studies: Mapping[str, Study], out: Folder) -> list[Row]:
    """R12 for each kind, at the site the first home chose, with its share: one site, or neurons
    could not be compared."""
    first = next(iter(studies.values()))
    names = [name.encode() for name in studies]
    homes = digest(*names)  # other homes are another comparison
    rows: list[Row] = []
    for kind in KINDS:

        def make(kind: str = kind) -> Results:
            site, share = chosen(first)[kind]
            compared = {name: _home(study, site, share) for name, study in studies.items()}
            return Results({"stage": BETWEEN}, tuple(paper.R12(compared, first.plan.seed)))

        file = rows_file(f"{BETWEEN}-{kind}-{homes}")
        rows += out.kept(file, Results, make).rows
    return rows


def _home(study: Study, site: Site, share: float) -> Home:
    """What R12 compares: the value neurons of one home, and what it reads."""
    train = study.split("train", [site])
    test = study.split("test", [site])
    probe = ValueProbe("mc", "mlp").fit(train.at_states[str(site)], train.values)
    return Home(
        study.plan.model,
        study.plan.task,
        select(probe, share),
        train.states(site),
        test.states(site),
        record(study.model, train.runs, site, rows="tokens", progress=False)[site],
    )
