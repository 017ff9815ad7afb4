"""A run on one model and one task: its plan, its data, and where every stage is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mechreward import experiments as paper
from mechreward.base.errors import require, whole
from mechreward.experiments import Split
from mechreward.experiments.choice import KINDS
from mechreward.experiments.plan import Plan, command
from mechreward.experiments.rows import Row, Setting
from mechreward.models.identity import ModelId, model_id
from mechreward.models.site import Site, all_sites
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts, check_apart
from mechreward.rollouts.value import Values, estimate
from mechreward.studies.folder import RESULTS, Folder
from mechreward.studies.provenance import provenance
from mechreward.tasks import Task
from mechreward.tasks.base import SPLITS

SHARD = 40  # trajectories whose values are one stage: what is lost by a stop
LEAST = {"k": 2, "draws": 1, "random_draws": 1, "curve_draws": 1}
WRITTEN = (
    "*.safetensors",
    "*.rows.json",
    "*.neurons.json",
    "effect-*.json",
    "certificate-*.json",
    RESULTS,
    "figure-*.svg",
    "figure-*.csv",
    "report.html",
)


@dataclass
class Study:
    """A model, a task and their splits, in a folder of stages.

    Attributes
    ----------
    plan
        Everything the run depends on.
    folder
        Where every stage is kept.
    model, task
        As the plan names them.
    identity
        The model's name and the hash of its weights.
    say
        Takes a line when something longer begins.
    """

    plan: Plan
    folder: Folder
    model: Any
    task: Task
    identity: ModelId
    say: Callable[[str], None] = print
    _observed: dict[str, Split] = field(default_factory=dict, repr=False)

    @classmethod
    def open(
        cls,
        plan: Plan,
        out: Path | str,
        overwrite: bool = False,
        say: Callable[[str], None] = print,
    ) -> Study:
        """Start or resume a run.

        Parameters
        ----------
        plan
            Everything the run depends on.
        out
            The folder.
        overwrite
            Start anew where there is a run already.
        say
            Takes lines of progress.

        Raises
        ------
        MechRewardError
            Unknown model or task, impossible sizes, a folder that holds something else or that
            another process is at, or a file in it that was changed; no file is changed then.
        """
        folder = Folder(out)
        strangers = folder.strangers
        require(
            not strangers,
            f"{out} is not empty and holds no run of mechreward ({strangers}); "
            "name another folder.",
        )
        model, task = plan.open(plan.seed)
        check_plan(plan, task)
        # A model that lacks a site is refused here.
        all_sites(model, KINDS, plan.layer_numbers(model))
        identity = model_id(model)
        wanted = {"plan": asdict(plan), "model_id": asdict(identity)}
        if folder.begun and overwrite:
            folder.clear(WRITTEN)
        resumed = folder.begun
        folder.begin(wanted)
        # Also of a run that is new here: another process may have begun one meanwhile.
        differ = "; ".join(_differences(folder.plan, wanted))
        require(
            not differ,
            f"{out} holds another run ({differ}). Name another folder, or --overwrite it.",
        )
        folder.check(WRITTEN)
        if resumed:
            say(f"resuming the run in {out}: finished stages are reused")
        return cls(plan, folder, model, task, identity, say)

    @property
    def out(self) -> Path:
        """Where the folder is."""
        return self.folder.path

    @property
    def sites(self) -> list[Site]:
        """Every site whose neurons are looked at."""
        return all_sites(self.model, KINDS, self.plan.layer_numbers(self.model))

    @property
    def splits(self) -> dict[str, Split]:
        """All three, made or read when they are first needed."""
        if not self._observed:
            self.say(f"{self.plan.model} on {self.plan.task}: rollouts and values")
        return {name: self.split(name) for name in SPLITS}

    def split(self, name: str, sites: Sequence[Site] | None = None) -> Split:
        """One split: rollouts and values are kept, activations made again (it takes seconds).

        Parameters
        ----------
        name
            `train`, `validation` or `test`.
        sites
            Where activations are recorded; every site if not given.
        """
        runs = self.rollouts(name)
        values = self.kept(f"{name}.values.safetensors", Values, lambda: self._values(name))
        if sites is None and name in self._observed:
            return self._observed[name]
        with self.folder.timed(f"{name} activations"):
            split = paper.observe(self.model, runs, values, sites or self.sites, name)
        if sites is None:
            self._observed[name] = split
        return split

    def rollouts(self, name: str) -> Rollouts:
        """Answers to the problems of one split, kept."""

        def make() -> Rollouts:
            problems = self.plan.problems(self.task, name)
            plan, title = self.plan, f"{name}: rollouts"
            return sample(self.model, problems, seed=plan.seed, policy=plan.policy, progress=title)

        return self.kept(f"{name}.rollouts.safetensors", Rollouts, make, task=self.task)

    def _values(self, name: str) -> Values:
        """In shards of trajectories, each kept as soon as it is done."""
        shards = []
        number = len(self.rollouts(name))
        for start in range(0, number, SHARD):
            rows = range(start, min(start + SHARD, number))
            title = f"{name}: values {start + 1}-{rows.stop} of {number}"

            def make(rows: range = rows, title: str = title) -> Values:
                plan = self.plan
                part = self.rollouts(name).subset(rows)
                return estimate(self.model, part, k=plan.k, seed=plan.seed, progress=title)

            shards.append(self.kept(f"{name}.values-{start:04d}.safetensors", Values, make))
        return Values.join(shards)

    def kept(self, name: str, kind: Any, make: Callable[[], Any], **how: Any) -> Any:
        """A stage of the folder (`Folder.kept`).

        Whatever it depends on, its `make` asks for: what is asked for meanwhile is its parent.
        """
        return self.folder.kept(name, kind, make, **how)

    def rows(self, name: str, make: Callable[[], Sequence[Row]]) -> list[Row]:
        """A stage of rows (`Folder.rows`)."""
        return self.folder.rows(name, make)

    def neurons(self, name: str, make: Callable[[], NeuronSet]) -> NeuronSet:
        """A stage that chooses neurons."""
        return self.kept(f"{name}.neurons.json", NeuronSet, make)

    def about(self, experiment: str, site: Site | str) -> Setting:
        """What all rows of an experiment at a site share."""
        return paper.shared(experiment, self.plan.model, self.plan.task, site, self.plan.seed)

    def manifest(
        self, chosen: dict[str, tuple[Site, float]], names: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Versions, seeds, model and weight hash, git state, timings; enough to repeat the run.

        Parameters
        ----------
        chosen
            Site and share of each kind of neuron.
        names
            Ids of the paper's experiments that were run; the main job if there are none.
        """
        choices = {}
        for kind, (site, share) in chosen.items():
            choices[kind] = {"site": str(site), "share": share}
        return {
            "title": f"Value and dopamine neurons of {self.plan.model} on {self.plan.task}",
            "command": command(self.plan, names),
            "plan": asdict(self.plan),
            "model_id": asdict(self.identity),
            "chosen": choices,
            **provenance(),
            "seconds_this_call": dict(self.folder.seconds),
        }


def check_plan(plan: Plan, task: Task) -> None:
    """Raise MechRewardError if a count is too small, the task has fewer problems, or a prompt is in
    two of them."""
    purposes = (*SPLITS, "ablated", "confidence")
    whole("seed", plan.seed)
    for name in purposes:
        whole(name, getattr(plan, name), 1)
    check_apart(**{name: plan.problems(task, name) for name in purposes})
    for name, least in LEAST.items():
        whole(name, getattr(plan, name), least)


def _differences(kept: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """The first three fields in which the plan in a folder differs from the wanted one."""
    words = []
    for part, fields in wanted.items():
        before = kept.get(part, {})
        for key, value in fields.items():
            old = before.get(key)
            if json.dumps(old) != json.dumps(value):
                words.append(f"{part}.{key} is {old}, not {value}")
    return words[:3]
