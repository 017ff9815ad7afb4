"""`mechreward calibrate`: the whole pipeline on planted models, in resumable stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from mechreward.base.errors import require
from mechreward.base.files import read_json, write_json
from mechreward.base.workers import side_by_side
from mechreward.calibration import pipeline
from mechreward.calibration.certificates import FALSE, TRUE, certificates, pooled
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
from mechreward.experiments.rows import Results, Row

PLAN = "plan.json"
MODEL = "countdown-base"
PART = 10  # certificates in one stage: what is lost by a stop


@dataclass(frozen=True)
class Plan:
    """What a calibration depends on: `seeds` of every plant whose values are estimated from
    continuations, `per_seed` times as many where V-hat comes from its exact law (what `evidence`
    says, false alarms), and `certified` of every plant that has a certificate."""

    seeds: int = 3
    full: bool = False

    @property
    def per_seed(self) -> int:
        return 10 if self.full else 2

    @property
    def certified(self) -> int:
        return 100 if self.full else 2

    @property
    def sizes(self) -> CalibrationSizes:
        return CalibrationSizes() if self.full else CalibrationSizes(train=60, ablated=40)

    def stages(self) -> dict[str, Callable[[], list[Row]]]:
        """Every part by name, in the order they run."""
        sizes, many = self.sizes, self.per_seed * self.seeds
        found: dict[str, Callable[[], list[Row]]] = {}
        for name in VALUE_SITES:
            found[f"plant-{name}"] = lambda n=name: pipeline.plants(n, self.seeds, sizes)
        for name in EXPECTED:
            found[f"evidence-{name}"] = lambda n=name: pipeline.recognition(n, many, sizes)
        for name in NULLS:
            found[f"null-{name}"] = lambda n=name: pipeline.alarms(n, many, sizes)
        repeats = 50 if self.full else 20
        grid = [(n, per) for n in ((10, 20, 40, 80) if self.full else (20, 40)) for per in (1, 2)]
        for kind in RANKINGS:
            quick = (
                [name for name in RANKINGS[kind] if name != DEFAULT[kind]]
                if self.full
                else [RECOMMENDED]
            )
            found[f"detection-null-{kind}"] = lambda k=kind, names=quick: detection(
                [null_pool(k, 80, 2, sizes.k)], grid, names, repeats
            )
            found[f"detection-model-{kind}"] = lambda k=kind, names=quick: detection(
                [model_pool(k, MODEL, 40 if self.full else 20, 2, 2 * sizes.k)],
                grid,
                names,
                repeats,
            )
            if self.full:  # nets are slow
                found[f"detection-net-{kind}"] = lambda k=kind: detection(
                    [null_pool(k, 80, 1, sizes.k)], [(n, 1) for n in (20, 40, 80)], [DEFAULT[k]], 20
                )
        tests = 2000 if self.full else 400
        found["p-values"] = lambda: [
            row for name, p in null_pvalues(tests).items() for row in rejections(name, p)
        ]
        runs = (
            {40: (2000, 600), 200: (600, 600)} if self.full else {60: (60, 60)}
        )  # the second of `evidence`: slow
        for n, (times, fewer) in runs.items():
            found[f"coverage-{n}"] = lambda n=n, times=times: coverage((n,), times)
            for name in SPREADS:
                found[f"coverage-{n}-{name}"] = lambda n=n, times=fewer, s=name: [
                    spread_coverage(s, n, times)
                ]
        for first in range(0, self.certified, PART):
            for name in (*TRUE, *FALSE):  # all plants alike, if it is stopped
                seeds = range(first, min(first + PART, self.certified))
                found[f"certificate-{name}-{first:03d}"] = lambda n=name, s=seeds: certificates(
                    n, s
                )
        return found


def calibrate(
    out: Path | str, plan: Plan | None = None, say: Callable[[str], None] = print
) -> Results:
    """Run all stages in folder `out`, or those that are missing there, side by side; write
    `results.json`.

    Raises:
        MechRewardError: seeds below 1, or a folder that holds something else or another plan's
        calibration.
    """
    out, plan = Path(out), plan or Plan()
    require(plan.seeds >= 1, f"seeds must be at least 1; {plan.seeds} was given.")
    require(not out.is_file(), f"{out} is a file; --out names a folder.")
    holds = sorted(path.name for path in out.iterdir()) if out.exists() else []
    require(
        not holds or PLAN in holds,
        f"{out} is not empty and holds no calibration ({', '.join(holds[:3])}).",
    )
    if holds:
        before = read_json(out / PLAN, "plan")
        same = before == {"kind": "calibration", **asdict(plan)}
        require(
            same,
            f"{out} holds a calibration with {_words(before)}, not {_words(asdict(plan))}; name another.",
        )
    write_json(out / PLAN, {"kind": "calibration", **asdict(plan)})
    missing = [
        (out, name, plan) for name in plan.stages() if not (out / f"{name}.rows.json").exists()
    ]
    missing.sort(key=lambda job: not job[1].startswith("coverage"))  # the longest first
    for number, (_, name, _) in enumerate(side_by_side(stage, missing), 1):
        say(f"{name} is done ({number} of {len(missing)})")
    results = collect(out, plan)
    results.save(out / "results.json")
    return results


def collect(out: Path | str, plan: Plan) -> Results:
    """The rows of all stages that are finished in folder `out`; `manifest["missing"]` names the
    others."""
    paths = {name: Path(out) / f"{name}.rows.json" for name in plan.stages()}
    done = {name: Results.load(path) for name, path in paths.items() if path.exists()}
    rows = [row for kept in done.values() for row in kept.rows]
    rows = [row for row in rows if row.metric != "pass_rate"] + pooled(
        [r for r in rows if r.metric == "pass_rate"]
    )
    alarms = [row for row in rows if row.metric == "false_alarm_rate"]
    for key in ("p", "p_few") if alarms else ():
        p = np.concatenate([row.detail[key] for row in alarms])
        rows += rejections(
            f"evidence.{key}", of_ranks(p, alarms[0].detail["draws"]), of="all plants without value"
        )
    manifest = {
        "title": "mechreward calibrate",
        "command": f"mechreward calibrate --out DIR{' --full' if plan.full else ''} --seeds {plan.seeds}",
        "plan": asdict(plan)
        | {"sizes": asdict(plan.sizes), "seeds by the exact law": plan.per_seed * plan.seeds},
        "cpu_seconds": {name: kept.manifest["seconds"] for name, kept in done.items()},
        "missing": [name for name in paths if name not in done],
        "versions": {
            name: version(name)
            for name in ("mechreward", "torch", "numpy", "scipy", "scikit-learn")
        },
    }
    return Results(manifest, tuple(rows))


def stage(out: Path, name: str, plan: Plan) -> None:
    """Make the rows of one stage and write them to its file atomically."""
    began = process_time()
    made = tuple(plan.stages()[name]())
    Results({"stage": name, "seconds": round(process_time() - began, 1)}, made).save(
        out / f"{name}.rows.json"
    )


def _words(plan: dict[str, Any]) -> str:
    return f"--seeds {plan.get('seeds')}{' --full' if plan.get('full') else ''}"
