"""`mechreward calibrate`: the whole pipeline on planted models, in resumable stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from mechreward.base.errors import require, whole
from mechreward.base.workers import leave_if_read_anew, side_by_side
from mechreward.calibration import pipeline
from mechreward.calibration.certificates import (
    FALSE,
    PARTLY,
    TRUE,
    certificates,
    found_by_noise,
    pooled,
)
from mechreward.calibration.circuits import PLANTS, circuits
from mechreward.calibration.coverage import SPREADS, coverage, spread_coverage
from mechreward.calibration.detection import RANKINGS, detection, model_pool, null_pool
from mechreward.calibration.nulls import null_pvalues, of_ranks, rejections
from mechreward.calibration.pipeline import (
    DEFAULT,
    EXPECTED,
    NULLS,
    RECOMMENDED,
    VALUE_SITES,
    CalibrationSizes,
)
from mechreward.calibration.trends import FOLLOWED, WIDTHS, trends
from mechreward.experiments.rows import Results, Row
from mechreward.studies.folder import RESULTS, Folder, rows_file
from mechreward.studies.provenance import versions

MODEL = "countdown-base"
PART = 10  # certificates in one stage: what is lost by a stop
POOL = 80  # problems that detection draws from, of a planted model

Stages = dict[str, Callable[[], list[Row]]]


@dataclass(frozen=True)
class Calibration:
    """What a calibration depends on.

    Attributes
    ----------
    seeds
        Planted models of each kind whose values are estimated from continuations.
    full
        More problems, runs and rankings.
    """

    seeds: int = 3
    full: bool = False

    @property
    def exact_seeds(self) -> int:
        """Planted models of each kind where V-hat comes from its exact law: what `evidence` finds,
        and false alarms."""
        return self.per_seed * self.seeds

    @property
    def per_seed(self) -> int:
        """How many of them there are for one whose values are estimated."""
        return 10 if self.full else 2

    def certified(self, plant: str) -> int:
        """Certificates of a plant: fewer where all claims are tried, which takes long."""
        if not self.full:
            return 2
        return 30 if plant in TRUE else 100

    @property
    def sizes(self) -> CalibrationSizes:
        """How much is run on each plant."""
        return CalibrationSizes() if self.full else CalibrationSizes(train=60, ablated=40)

    def stages(self) -> Stages:
        """Every part by name, in the order of the rows."""
        sizes = self.sizes
        stages: Stages = {}
        for name in VALUE_SITES:
            stages[f"plant-{name}"] = partial(pipeline.plants, name, self.seeds, sizes)
        for name in EXPECTED:
            stages[f"evidence-{name}"] = partial(
                pipeline.recognition, name, self.exact_seeds, sizes
            )
        for name in NULLS:
            stages[f"null-{name}"] = partial(pipeline.alarms, name, self.exact_seeds, sizes)
        for kind in RANKINGS:
            stages |= self._detection(kind)
        seeds, draws = (range(100), 99) if self.full else (range(2), 19)
        for name in PLANTS:
            stages[f"circuit-{name}"] = partial(circuits, name, seeds, draws)
        stages["p-values"] = partial(_p_values, 2000 if self.full else 400)
        return stages | self._trends() | self._coverage() | self._certificates()

    def _trends(self) -> Stages:
        """Counters and true neurons under trends; of many neurons only what decides."""
        seeds = range(100 if self.full else 4)
        stages: Stages = {}
        for followed in FOLLOWED:
            stages[f"trend-{followed}"] = partial(trends, followed, WIDTHS[0], seeds)
        if self.full:
            for width in WIDTHS[1:]:
                fewer = range(100 if width < WIDTHS[-1] else 40)
                for followed in ("value", "step"):
                    stages[f"trend-{followed}-{width}"] = partial(trends, followed, width, fewer)
        return stages

    def _detection(self, kind: str) -> Stages:
        """How many problems a ranking needs: on planted nulls, on a bundled model, and with nets,
        which are slow."""
        if self.full:
            numbers = (10, 20, 40, 80)
            rankings = [name for name in RANKINGS[kind] if name != DEFAULT[kind]]
            repeats = 50
            problems = 40
        else:
            numbers = (20, 40)
            rankings = [RECOMMENDED]
            repeats = 20
            problems = 20
        grid = [(number, per) for number in numbers for per in (1, 2)]
        k = self.sizes.k

        def null() -> list[Row]:
            pool = null_pool(kind, POOL, 2, k)
            return detection([pool], grid, rankings, repeats)

        def model() -> list[Row]:
            pool = model_pool(kind, MODEL, problems, 2, 2 * k)
            return detection([pool], grid, rankings, repeats)

        def net() -> list[Row]:
            pool = null_pool(kind, POOL, 1, k)
            return detection([pool], [(20, 1), (40, 1), (80, 1)], [DEFAULT[kind]], 20)

        stages: Stages = {f"detection-null-{kind}": null, f"detection-model-{kind}": model}
        if self.full:
            stages[f"detection-net-{kind}"] = net
        return stages

    def _coverage(self) -> Stages:
        """Intervals of made-up numbers, and those of `evidence`, which is slow: fewer times."""
        runs = ((40, 1000, 300), (200, 200, 200)) if self.full else ((60, 60, 60),)
        stages: Stages = {}
        for problems, times, fewer in runs:
            stages[f"coverage-{problems}"] = partial(coverage, (problems,), times)
            for name in SPREADS:
                stages[f"coverage-{problems}-{name}"] = partial(_spread, name, problems, fewer)
        return stages

    def _certificates(self) -> Stages:
        """A few of every plant in turn: all plants alike, if it is stopped."""
        stages: Stages = {}
        plants = (*TRUE, *PARTLY, *FALSE)
        for first in range(0, max(map(self.certified, plants)), PART):
            for name in plants:
                seeds = range(first, min(first + PART, self.certified(name)))
                if seeds:
                    stages[f"certificate-{name}-{first:03d}"] = partial(certificates, name, seeds)
        again = range(60 if self.full else 2)
        stages["stable-null"] = partial(found_by_noise, "null", again)
        return stages


def calibrate(
    out: Path | str, plan: Calibration | None = None, say: Callable[[str], None] = print
) -> Results:
    """Run all stages, or those that are missing, side by side; write `results.json`.

    Parameters
    ----------
    out
        The folder.
    plan
        What is run; `Calibration()` if not given.
    say
        Takes a line for every stage.

    Raises
    ------
    MechRewardError
        Seeds below 1, a folder that holds something else or another plan's calibration, or a file
        in it that was changed.
    """
    leave_if_read_anew()  # before it touches the folder that the first process works in
    plan = plan or Calibration()
    whole("seeds", plan.seeds, 1)
    folder = Folder(out)
    strangers = folder.strangers
    require(not strangers, f"{out} is not empty and holds no calibration ({strangers}).")
    wanted = {"kind": "calibration", **asdict(plan)}
    folder.begin(wanted)
    before = folder.plan
    require(before.get("kind") == "calibration", f"{out} holds another run; name another folder.")
    require(
        before == wanted,
        f"{out} holds a calibration with {_words(before)}, not {_words(wanted)}; name another.",
    )
    folder.check((RESULTS, rows_file("*")))
    missing = []
    for name in plan.stages():
        if not (folder.path / rows_file(name)).exists():
            missing.append((folder.path, name, plan))
    missing.sort(key=lambda job: not job[1].startswith("coverage"))  # the longest first
    for number, (_, name, _) in enumerate(side_by_side(stage, missing), 1):
        say(f"{name} is done ({number} of {len(missing)})")
    results = collect(folder.path, plan)
    results.save(folder.path / RESULTS)
    return results


def stage(out: Path, name: str, plan: Calibration) -> None:
    """Make the rows of one stage and keep them."""

    def make() -> Results:
        began = process_time()
        rows = tuple(plan.stages()[name]())
        seconds = round(process_time() - began, 1)
        return Results({"stage": name, "seconds": seconds}, rows)

    Folder(out).kept(rows_file(name), Results, make)


def collect(out: Path | str, plan: Calibration) -> Results:
    """The rows of all stages that are finished.

    Returns
    -------
    Results
        Certificates are pooled over seeds, and ranks of all plants without value are tested
        together; `manifest["missing"]` names the stages that are not finished.
    """
    folder = Folder(out)
    finished = {}
    missing = []
    for name in plan.stages():
        if (folder.path / rows_file(name)).exists():
            finished[name] = folder.load(rows_file(name), Results)
        else:
            missing.append(name)
    rows = []
    rates = []
    for results in finished.values():
        for row in results.rows:
            if row.metric == "pass_rate":
                rates.append(row)
            else:
                rows.append(row)
    rows += pooled(rates)
    alarms = [row for row in rows if row.metric == "false_alarm_rate"]
    if alarms:
        draws = alarms[0].detail["draws"]
        for key in ("p", "p_few"):
            p = np.concatenate([row.detail[key] for row in alarms])
            ranks = of_ranks(p, draws)
            rows += rejections(f"evidence.{key}", ranks, of="all plants without value")
    full = " --full" if plan.full else ""
    manifest = {
        "title": "mechreward calibrate",
        "command": f"mechreward calibrate --out DIR{full} --seeds {plan.seeds}",
        "plan": {
            **asdict(plan),
            "sizes": asdict(plan.sizes),
            "seeds by the exact law": plan.exact_seeds,
        },
        "cpu_seconds": {name: results.manifest["seconds"] for name, results in finished.items()},
        "missing": missing,
        "versions": versions("torch", "numpy", "scipy", "scikit-learn"),
    }
    return Results(manifest, tuple(rows))


def _p_values(tests: int) -> list[Row]:
    rows = []
    for name, p in null_pvalues(tests).items():
        rows += rejections(name, p)
    return rows


def _spread(name: str, problems: int, times: int) -> list[Row]:
    return [spread_coverage(name, problems, times)]


def _words(plan: dict[str, Any]) -> str:
    """A plan as options of the command."""
    full = " --full" if plan.get("full") else ""
    return f"--seeds {plan.get('seeds')}{full}"
