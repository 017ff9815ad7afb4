"""`mechreward calibrate`: the whole pipeline on planted models, in resumable stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from mechreward._check import require
from mechreward._files import read_json, write_json
from mechreward.results import Results, Row
from mechreward.testbed import calibrate as pipeline
from mechreward.testbed.calibrate import EXPECTED, NULLS, RECOMMENDED, Sizes
from mechreward.testbed.coverage import coverage, null_pvalues, rejections
from mechreward.testbed.detection import RANKINGS, detection, model_pool, null_pool

PLAN = "plan.json"
MODEL = "countdown-base"


@dataclass(frozen=True)
class Plan:
    """What a calibration depends on: `seeds` of every plant with value, `per_null` times as many of one without."""

    seeds: int = 3
    full: bool = False

    @property
    def per_null(self) -> int:
        return 4 if self.full else 2

    @property
    def sizes(self) -> Sizes:
        return Sizes() if self.full else Sizes(train=60, ablated=40)

    def stages(self) -> dict[str, Callable[[], list[Row]]]:
        """Every part by name, in the order they run."""
        sizes, many = self.sizes, self.per_null * self.seeds
        found: dict[str, Callable[[], list[Row]]] = {}
        for name in EXPECTED:
            found[f"plant-{name}"] = lambda n=name: pipeline.plants(n, self.seeds, sizes)
        for name in NULLS:
            found[f"null-{name}"] = lambda n=name: pipeline.alarms(n, many, sizes)
        tests, repeats = (2000, 50) if self.full else (500, 20)
        names = tuple(RANKINGS) if self.full else (RECOMMENDED,)
        grid = [(n, per) for n in ((10, 20, 40, 80) if self.full else (20, 40)) for per in (1, 2)]
        found["detection-null"] = lambda: detection([null_pool(80, 2, sizes.k)], grid, names, repeats)
        found["detection-model"] = lambda: detection(
            [model_pool(MODEL, 40 if self.full else 20, 2, 2 * sizes.k)], grid, names, repeats
        )
        found["p-values"] = lambda: [row for name, p in null_pvalues(tests).items() for row in rejections(name, p)]
        runs = {40: 150, 200: 50} if self.full else {60: 60}
        for n, times in runs.items():
            found[f"coverage-{n}"] = lambda n=n, times=times: coverage((n,), times, 150)
        return found


def calibrate(out: Path | str, plan: Plan | None = None, say: Callable[[str], None] = print) -> Results:
    """Run all stages in folder `out`, or those that are missing there, write `results.json`.

    Raises:
        MechRewardError: seeds below 1, or a folder that holds something else or another plan's calibration.
    """
    out, plan = Path(out), plan or Plan()
    require(plan.seeds >= 1, f"seeds must be at least 1; {plan.seeds} was given.")
    require(not out.is_file(), f"{out} is a file; --out names a folder.")
    holds = sorted(path.name for path in out.iterdir()) if out.exists() else []
    require(not holds or PLAN in holds, f"{out} is not empty and holds no calibration ({', '.join(holds[:3])}).")
    if holds:
        before = read_json(out / PLAN, "plan")
        same = before == {"kind": "calibration", **asdict(plan)}
        require(same, f"{out} holds a calibration with {_words(before)}, not {_words(asdict(plan))}; name another.")
    write_json(out / PLAN, {"kind": "calibration", **asdict(plan)})
    for name, make in plan.stages().items():
        kept = stage(out, name, make)
        say(f"{name}: {len(kept.rows)} rows")
    results = collect(out, plan)
    results.save(out / "results.json")
    return results


def collect(out: Path | str, plan: Plan) -> Results:
    """The rows of all stages that are finished in folder `out`; `manifest["missing"]` names the others."""
    paths = {name: Path(out) / f"{name}.rows.json" for name in plan.stages()}
    done = {name: Results.load(path) for name, path in paths.items() if path.exists()}
    rows = [row for kept in done.values() for row in kept.rows]
    alarms = [row for row in rows if row.metric == "false_alarm_rate"]
    for key in ("p", "p_few") if alarms else ():
        p = np.concatenate([row.detail[key] for row in alarms])
        rows += rejections(f"evidence.{key}", p, of="all plants without value")
    manifest = {
        "title": "mechreward calibrate",
        "command": f"mechreward calibrate --out DIR{' --full' if plan.full else ''} --seeds {plan.seeds}",
        "plan": asdict(plan) | {"sizes": asdict(plan.sizes), "seeds of a null": plan.per_null * plan.seeds},
        "cpu_seconds": {name: kept.manifest["seconds"] for name, kept in done.items()},
        "missing": [name for name in paths if name not in done],
        "versions": {name: version(name) for name in ("mechreward", "torch", "numpy", "scipy", "scikit-learn")},
    }
    return Results(manifest, tuple(rows))


def stage(out: Path, name: str, make: Callable[[], list[Row]]) -> Results:
    """The rows of one stage: those in its file if it is there, else made and written there atomically."""
    path = out / f"{name}.rows.json"
    if not path.exists():
        began = process_time()
        made = tuple(make())
        Results({"stage": name, "seconds": round(process_time() - began, 1)}, made).save(path)
    return Results.load(path)


def _words(plan: dict[str, Any]) -> str:
    return f"--seeds {plan.get('seeds')}{' --full' if plan.get('full') else ''}"
