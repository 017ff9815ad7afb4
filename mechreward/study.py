"""The main job, resumable stage by stage: from a model and a task to neuron sets, controls, results and a report."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mechreward import paper, tasks
from mechreward._check import require
from mechreward._files import read_json, write_json
from mechreward.causal.effect import Effect, ablate
from mechreward.models.adapter import ModelId, load, model_id
from mechreward.models.site import Site, all_sites
from mechreward.paper import Split
from mechreward.probing.activations import record
from mechreward.probing.neurons import NeuronSet, select
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.results import Results, Row
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import Values, estimate
from mechreward.tasks.base import SPLITS

KINDS = ("resid_post", "mlp")
PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """Everything a run depends on. Counts are problems; `k` continuations estimate each state's value."""

    model: str = "countdown-rl"
    task: str = "countdown"
    seed: int = 0
    train: int = 80
    validation: int = 30
    test: int = 40
    k: int = 16
    ablated: int = 60
    confidence: int = 200
    draws: int = 19
    random_draws: int = 2
    curve_draws: int = 2

    def problems(self, task: tasks.Task, name: str) -> list[tasks.Problem]:
        """The problems of a split, or of the `ablated` or `confidence` ones: test problems that no choice has seen."""
        number, seed = getattr(self, name), {"confidence": self.seed + 1, "ablated": self.seed + 2}.get(name, self.seed)
        return task.problems(name if name in SPLITS else "test", number, seed)


@dataclass
class Study:
    """A run in a folder. Every stage writes its file atomically and is skipped when the file is there."""

    plan: Plan
    out: Path
    model: Any
    task: tasks.Task
    identity: ModelId
    say: Callable[[str], None] = print
    seconds: dict[str, float] = field(default_factory=dict)
    splits: dict[str, Split] = field(default_factory=dict)

    @classmethod
    def open(cls, plan: Plan, out: Path | str, overwrite: bool = False, say: Callable[[str], None] = print) -> Study:
        """Start or resume the run in `out`.

        Raises:
            MechRewardError: unknown model or task, or a folder that holds something else; no file is changed then.
        """
        out = Path(out)
        task = tasks.get(plan.task)
        require(not out.is_file(), f"{out} is a file; --out names a folder.")
        found = sorted(path.name for path in out.iterdir()) if out.exists() else []
        ours = PLAN in found
        require(
            ours or not found,
            f"{out} is not empty and holds no run of mechreward ({', '.join(found[:3])}); name another folder.",
        )
        for name in (*SPLITS, "ablated", "confidence"):
            plan.problems(task, name)
        for name, least in (("k", 2), ("draws", 1), ("random_draws", 1), ("curve_draws", 1)):
            given = getattr(plan, name)
            require(given >= least, f"{name} must be at least {least}; {given} was given.")
        model = load(plan.model)
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

    def run(self) -> Results:
        """All stages; returns what `results.json` holds."""
        self.say(f"{self.plan.model} on {self.plan.task}: rollouts and values, then probes, then ablation")
        self.splits = {name: self.split(name) for name in SPLITS}
        rows = []
        for name, split in self.splits.items():
            about = self.about("R1", "")
            rows += self.rows(f"data-{name}", lambda s=split, n=name, a=about: paper.describe(s, n, a))
        sites = all_sites(self.model, KINDS)
        train, validation, test = self.splits.values()
        grid = self.rows("R3", lambda: paper.R3(train, validation, sites, self.about("R3", "")))
        chosen = {kind: paper.choose(grid, kind) for kind in KINDS}
        rows += [self.mark(row, chosen) for row in grid]
        for kind in KINDS:
            site, share = chosen[kind]
            rows += self.rows(f"R1-{kind}", lambda s=site: paper.R1(train, test, s, self.about("R1", s)))
            rows += self.rows(
                f"R2-{kind}",
                lambda s=site: paper.R2(train, test, s, self.about("R2", s), self.plan.curve_draws),
            )
            value = self.neurons(f"value-{kind}", lambda s=site, k=share: self._value(train, s, k))
            effect = self.effect(kind, value)
            rows += paper.R4(effect, self.about("R4", site))
        rows += self.rows("R7", lambda: self._confidence(train, chosen["resid_post"][0]))
        for kind in KINDS:
            with self.timed(f"dopamine site {kind}"):
                site = self._dopamine_site(train, validation, sites, kind)
            self.neurons(f"dopamine-{kind}", lambda s=site: select(DopamineProbe().fit(*self._steps(train, s))))
            rows += self.rows(
                f"R8-{kind}",
                lambda s=site: paper.R8(train, test, s, self.about("R8", s), self.plan.curve_draws),
            )
        results = Results(self.manifest(chosen), tuple(rows))
        results.save(self.out / "results.json")
        return results

    def about(self, experiment: str, site: Any) -> dict[str, Any]:
        return paper.shared(experiment, self.plan.model, self.plan.task, site, self.plan.seed)

    def split(self, name: str) -> Split:
        """Rollouts and values of one split (kept), and activations at every site (made again: it takes seconds)."""
        problems, seed = self.plan.problems(self.task, name), self.plan.seed
        runs = self.kept(
            f"{name}.rollouts.safetensors",
            Rollouts,
            lambda: sample(self.model, problems, seed=seed, what=f"{name}: rollouts"),
        )
        values = self.kept(f"{name}.values.safetensors", Values, lambda: self._values(name, runs))
        sites = all_sites(self.model, KINDS)
        with self.timed(f"{name} activations"):
            at_states = record(self.model, runs, sites, rows="states", what=f"{name}: activations at states")
            over_steps = record(self.model, runs, sites, rows="steps", what=f"{name}: activations over steps")
        return Split(runs, values, at_states, over_steps)

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
                    lambda p=piece, w=what: estimate(self.model, p, k=self.plan.k, seed=self.plan.seed, what=w),
                )
            )
        return Values.join(parts)

    def _value(self, train: Split, site: Site, share: float) -> NeuronSet:
        acts = train.at_states[str(site)]
        acts.save(self.out / f"train.{site}.activations.safetensors")
        return select(ValueProbe("mc", "mlp").fit(acts, train.values), share)

    def _steps(self, train: Split, site: Site) -> tuple[Any, Values]:
        acts = train.over_steps[str(site)]
        acts.save(self.out / f"train.{site}.steps.activations.safetensors")
        return acts, train.values

    def _dopamine_site(self, train: Split, validation: Split, sites: list[Site], kind: str) -> Site:
        path = self.out / f"dopamine-{kind}.neurons.json"
        return NeuronSet.load(path).site if path.exists() else paper.best_dopamine(train, validation, sites, kind)

    def _confidence(self, train: Split, site: Site) -> list[Row]:
        probe = ValueProbe("mc", "mlp").fit(train.at_states[str(site)], train.values)
        problems = self.plan.problems(self.task, "confidence")
        runs = sample(self.model, problems, seed=self.plan.seed + 1, what="confidence: rollouts")
        acts = record(self.model, runs, site, what=None)[str(site)]
        return paper.R7(probe, acts, runs, self.about("R7", site))

    def effect(self, kind: str, neurons: NeuronSet) -> Effect:
        """The ablation of one set beside its controls, on test problems that no choice has seen."""
        problems = self.plan.problems(self.task, "ablated")
        return self.kept(
            f"effect-{kind}.json",
            Effect,
            lambda: ablate(
                self.model,
                problems,
                neurons,
                draws=self.plan.draws,
                random_draws=self.plan.random_draws,
                seed=self.plan.seed,
                what=f"ablating {len(neurons)} {kind} neurons",
            ),
        )

    def neurons(self, name: str, make: Callable[[], NeuronSet]) -> NeuronSet:
        return self.kept(f"{name}.neurons.json", NeuronSet, make)

    def rows(self, name: str, make: Callable[[], list[Row]]) -> list[Row]:
        kept = self.kept(f"{name}.rows.json", Results, lambda: Results({"stage": name}, tuple(make())))
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

    def mark(self, row: Row, chosen: dict[str, tuple[Site, float]]) -> Row:
        picked = any(row.site == str(site) and row.detail["share"] == share for site, share in chosen.values())
        return Row(
            **{**asdict(row), "detail": row.detail | {"split": "validation"} | ({"chosen": True} if picked else {})}
        )

    def manifest(self, chosen: dict[str, tuple[Site, float]]) -> dict[str, Any]:
        """Versions, seeds, model and weight hash, git state, timings; enough to repeat the run."""
        names = ("mechreward", "torch", "transformers", "transformer-lens", "scikit-learn", "numpy")
        plan = asdict(self.plan)
        return {
            "title": f"Value and dopamine neurons of {self.plan.model} on {self.plan.task}",
            "command": command(self.plan),
            "plan": plan,
            "model_id": asdict(self.identity),
            "chosen": {kind: {"site": str(site), "share": share} for kind, (site, share) in chosen.items()},
            "versions": {name: version(name) for name in names} | {"python": platform.python_version()},
            "git": _git(),
            "seconds_this_call": dict(self.seconds),
        }


def command(plan: Plan) -> str:
    """The shell command that repeats a run."""
    default = asdict(Plan())
    flags = [f"--{key.replace('_', '-')} {value}" for key, value in asdict(plan).items() if value != default[key]]
    return " ".join(["mechreward demo --out DIR", *flags])


def _differences(there: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    both = [
        (f"{part}.{key}", there.get(part, {}).get(key), value) for part in wanted for key, value in wanted[part].items()
    ]
    return [f"{key} is {old}, not {new}" for key, old, new in both if json.dumps(old) != json.dumps(new)][:3]


def _clear(out: Path) -> None:
    """Remove what a run wrote, and nothing else; the plan last, so that a stop in between can be repeated."""
    data = ("*.safetensors", "*.rows.json", "*.neurons.json", "effect-*.json", "results.json")
    for pattern in (*data, "figure-*.svg", "report.html"):
        for path in out.glob(pattern):
            path.unlink()
    (out / PLAN).unlink()


def _git() -> str:
    """The commit this code is at, with `+changes` if the tree differs; `no git` outside a checkout."""
    here = Path(__file__).parent
    try:
        done = [
            subprocess.run(
                ["git", "-C", str(here), *words], capture_output=True, text=True, check=True, timeout=10
            ).stdout
            for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.SubprocessError):
        return "no git"
    return done[0].strip() + ("+changes" if done[1].strip() else "")
