"""A run in a folder, resumable stage by stage: its plan, its data, and where every stage is
kept."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mechreward import experiments as paper
from mechreward.base.errors import require
from mechreward.base.files import read_json, write_json
from mechreward.experiments import Split
from mechreward.experiments.choice import KINDS, by_name
from mechreward.experiments.plan import Plan, command
from mechreward.experiments.rows import Results, Row
from mechreward.models.identity import ModelId, model_id
from mechreward.models.site import Site, all_sites
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import Values, estimate
from mechreward.tasks import Task
from mechreward.tasks.base import SPLITS

PLAN = "plan.json"


@dataclass
class Study:
    """A run in a folder. Every stage writes its file atomically and is skipped when the file is
    there."""

    plan: Plan
    out: Path
    model: Any
    task: Task
    identity: ModelId
    say: Callable[[str], None] = print
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        plan: Plan,
        out: Path | str,
        overwrite: bool = False,
        say: Callable[[str], None] = print,
    ) -> Study:
        """Start or resume the run in `out`.

        Raises:
            MechRewardError: unknown model or task, or a folder that holds something else; no file
            is changed then.
        """
        out = Path(out)
        require(not out.is_file(), f"{out} is a file; --out names a folder.")
        found = sorted(path.name for path in out.iterdir()) if out.exists() else []
        ours = PLAN in found
        require(
            ours or not found,
            f"{out} is not empty and holds no run of mechreward ({', '.join(found[:3])}); name another folder.",
        )
        model, task = by_name(plan.model, plan.task, plan.seed)
        for name in (*SPLITS, "ablated", "confidence"):
            plan.problems(task, name)
        for name, least in (("k", 2), ("draws", 1), ("random_draws", 1), ("curve_draws", 1)):
            given = getattr(plan, name)
            require(given >= least, f"{name} must be at least {least}; {given} was given.")
        identity = model_id(model)
        wanted = {"plan": asdict(plan), "model_id": asdict(identity)}
        if ours and not overwrite:
            there = read_json(out / PLAN, "plan")
            differ = _differences(there, wanted)
            require(
                not differ,
                f"{out} holds another run ({'; '.join(differ)}). Name another folder, or --overwrite it.",
            )
            say(f"resuming the run in {out}: finished stages are reused")
        if ours and overwrite:
            _clear(out)
        study = cls(plan, out, model, task, identity, say)
        if not (out / PLAN).exists():
            write_json(out / PLAN, wanted)
        return study

    @cached_property
    def splits(self) -> dict[str, Split]:
        """All three, made or read when they are first needed."""
        self.say(f"{self.plan.model} on {self.plan.task}: rollouts and values")
        return {name: self.split(name) for name in SPLITS}

    @property
    def sites(self) -> list[Site]:
        return all_sites(self.model, KINDS)

    def about(self, experiment: str, site: Any) -> dict[str, Any]:
        return paper.shared(experiment, self.plan.model, self.plan.task, site, self.plan.seed)

    def split(self, name: str, sites: Sequence[Site] | None = None) -> Split:
        """Rollouts and values of one split (kept), and activations at every site, or at `sites`
        (made again: it takes seconds)."""
        problems, seed = self.plan.problems(self.task, name), self.plan.seed
        runs = self.kept(
            f"{name}.rollouts.safetensors",
            Rollouts,
            lambda: sample(self.model, problems, seed=seed, what=f"{name}: rollouts"),
        )
        values = self.kept(f"{name}.values.safetensors", Values, lambda: self._values(name, runs))
        with self.timed(f"{name} activations"):
            return paper.observe(self.model, runs, values, sites or self.sites, name)

    def _values(self, name: str, runs: Rollouts, shard: int = 40) -> Values:
        """In shards of trajectories, each kept as soon as it is done."""
        parts = []
        for start in range(0, len(runs), shard):
            piece = runs.subset(range(start, min(start + shard, len(runs))))
            what = f"{name}: values {start + 1}-{start + len(piece)} of {len(runs)}"
            parts.append(
                self.kept(
                    f"{name}.values-{start:04d}.safetensors",
                    Values,
                    lambda p=piece, w=what: estimate(
                        self.model, p, k=self.plan.k, seed=self.plan.seed, what=w
                    ),
                )
            )
        return Values.join(parts)

    def neurons(self, name: str, make: Callable[[], NeuronSet]) -> NeuronSet:
        return self.kept(f"{name}.neurons.json", NeuronSet, make)

    def rows(self, name: str, make: Callable[[], list[Row]]) -> list[Row]:
        kept = self.kept(
            f"{name}.rows.json", Results, lambda: Results({"stage": name}, tuple(make()))
        )
        return list(kept.rows)

    def kept(self, name: str, kind: Any, make: Callable[[], Any]) -> Any:
        """What the stage's file holds, if it is there; else make it and write it atomically."""
        path = self.out / name
        if path.exists():
            return kind.load(path)
        with self.timed(name.removesuffix(".json").removesuffix(".safetensors")):
            made = make()
        made.save(path)
        return made

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - began, 2)

    def manifest(
        self, chosen: dict[str, tuple[Site, float]], names: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Versions, seeds, model and weight hash, git state, timings; enough to repeat the run,
        which was one of the paper's experiments `names`, or the main job where there are none."""
        plan = asdict(self.plan)
        return {
            "title": f"Value and dopamine neurons of {self.plan.model} on {self.plan.task}",
            "command": command(self.plan, names),
            "plan": plan,
            "model_id": asdict(self.identity),
            "chosen": {
                kind: {"site": str(site), "share": share} for kind, (site, share) in chosen.items()
            },
            **provenance(),
            "seconds_this_call": dict(self.seconds),
        }


def provenance() -> dict[str, Any]:
    """Versions and git state."""
    names = ("mechreward", "torch", "transformers", "transformer-lens", "scikit-learn", "numpy")
    return {
        "versions": {name: version(name) for name in names} | {"python": platform.python_version()},
        "git": _git(),
    }


def _differences(there: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    both = [
        (f"{part}.{key}", there.get(part, {}).get(key), value)
        for part in wanted
        for key, value in wanted[part].items()
    ]
    return [
        f"{key} is {old}, not {new}" for key, old, new in both if json.dumps(old) != json.dumps(new)
    ][:3]


def _clear(out: Path) -> None:
    """Remove what a run wrote, and nothing else; the plan last, so that a stop in between can be
    repeated."""
    data = ("*.safetensors", "*.rows.json", "*.neurons.json", "effect-*.json", "results.json")
    for pattern in (*data, "figure-*.svg", "report.html"):
        for path in out.glob(pattern):
            path.unlink()
    (out / PLAN).unlink()


def _git() -> str:
    """The commit this code is at, with `+changes` if the tree differs; `no git` outside a
    checkout."""
    here = Path(__file__).parent
    try:
        done = [
            subprocess.run(
                ["git", "-C", str(here), *words],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout
            for words in (
                ("rev-parse", "--short", "HEAD"),
                ("status", "--porcelain", "--untracked-files=no"),
            )
        ]
    except (OSError, subprocess.SubprocessError):
        return "no git"
    return done[0].strip() + ("+changes" if done[1].strip() else "")
