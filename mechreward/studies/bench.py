"""The benchmark as a command runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mechreward.base.errors import one_of, whole
from mechreward.bench import fits, generation, passes
from mechreward.bench.ground import BenchSizes, Contest, Ground
from mechreward.bench.growth import growth
from mechreward.bench.race import run
from mechreward.experiments.rows import Results, Row
from mechreward.studies.provenance import machine

CONTESTS: dict[str, tuple[Callable[[Ground], list[Contest]], ...]] = {
    "P1": (passes.p1,),
    "P2": (generation.p2,),
    "P3": (generation.p3,),
    "P4": (generation.p4,),
    "P6": (passes.p6,),
    "P7": (fits.p7,),
    "P8": (passes.p8, generation.p8),
    "P9": (generation.p9,),
    "growth": (),
}


@torch.no_grad()
def bench(
    out: Path | str,
    *,
    only: Sequence[str] = (),
    model: str = "countdown-base",
    device: str = "cpu",
    sizes: BenchSizes | None = None,
    say: Callable[[str], None] = print,
) -> Results:
    """Run contests and write `results.json`.

    Parameters
    ----------
    out
        Folder for `results.json`.
    only
        Names of contests; all, if none is given.
    model
        A bundled model, a model folder, or owner/model on the hub.
    device
        `cpu` or `cuda`.
    sizes
        How much work; `BenchSizes()` if not given.
    say
        Takes a line for every comparison.

    Returns
    -------
    Results
        `rate` of every arm, and for every arm that mechreward is compared to a `ratio` (of rates,
        theirs = 1; of times for P9) with the `parity` of the two. Estimates are medians over the
        repeats, low and high their extremes, n their number.

    Raises
    ------
    MechRewardError
        Unknown contest or model, a device that is not there, or a size below 1.
    """
    sizes = sizes or BenchSizes()
    for name in only:
        one_of("contest", name, CONTESTS)
    for name, value in asdict(sizes).items():
        whole(name, value, 1)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    one_of("device", device, devices)
    began = time.perf_counter()
    ground = Ground(model, sizes, device)
    rows: list[Row] = []
    for name in only or CONTESTS:
        for contests in CONTESTS[name]:
            for contest in contests(ground):
                rows += run(contest, ground, say)
        if name == "growth":
            rows += growth(ground, say)
    manifest: dict[str, Any] = {
        "title": "mechreward bench",
        "sizes": asdict(sizes),
        "machine": machine(device),
        "seconds": round(time.perf_counter() - began, 1),
    }
    results = Results(manifest, tuple(rows))
    results.save(Path(out) / "results.json")
    return results
