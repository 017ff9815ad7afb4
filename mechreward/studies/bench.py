"""The benchmark as a command runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mechreward.base.errors import one_of, require, whole
from mechreward.base.files import held
from mechreward.bench import fits, generation, passes
from mechreward.bench.ground import BenchSizes, Contest, Ground
from mechreward.bench.growth import growth
from mechreward.bench.race import run
from mechreward.experiments.rows import Results, Row
from mechreward.studies.folder import RESULTS, Folder
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
        Unknown contest or model, a device that is not there, a size below 1, or a folder that holds
        a run, that another process is at or that cannot be written.
    """
    sizes = sizes or BenchSizes()
    for name in only:
        one_of("contest", name, CONTESTS)
    for name, value in asdict(sizes).items():
        whole(name, value, 1)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    one_of("device", device, devices)
    folder = Folder(out)
    require(not folder.begun, f"{out} holds a run of something else; name another folder.")
    folder.check((RESULTS,))
    ground = Ground(model, sizes, device)
    # Held from the beginning: a folder that cannot be written is told before the work.
    with held(folder.path / RESULTS, wait=False):
        results = _race(only or tuple(CONTESTS), ground, say)
        results.save(folder.path / RESULTS)
    return results


def _race(names: Sequence[str], ground: Ground, say: Callable[[str], None]) -> Results:
    began = time.perf_counter()
    rows: list[Row] = []
    for name in names:
        for contests in CONTESTS[name]:
            for contest in contests(ground):
                rows += run(contest, ground, say)
        if name == "growth":
            rows += growth(ground, say)
    manifest: dict[str, Any] = {
        "title": "mechreward bench",
        "sizes": asdict(ground.sizes),
        "machine": machine(ground.device),
        "seconds": round(time.perf_counter() - began, 1),
    }
    return Results(manifest, tuple(rows))
