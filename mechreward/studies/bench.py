"""The benchmark as a command runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from mechreward.base.errors import one_of, require
from mechreward.bench import fits, generation, passes
from mechreward.bench.ground import Contest, Ground, Sizes
from mechreward.bench.race import growth, machine, run
from mechreward.experiments.rows import Results

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
    sizes: Sizes | None = None,
    say: Callable[[str], None] = print,
) -> Results:
    """Run the contests named in `only` (all, if none is), and write `results.json` in folder `out`.

    Rows: `rate` of every arm, and for every arm that mechreward is compared to a `ratio` (of rates,
    theirs = 1; of times for P9) with the `parity` of the two. Estimates are medians over the
    repeats, low and high their extremes, n their number.

    Raises:
        MechRewardError: unknown contest or model, a device that is not there, or a size below 1.
    """
    sizes = sizes or Sizes()
    for name in only:
        one_of("contest", name, CONTESTS)
    for name, value in asdict(sizes).items():
        require(value >= 1, f"{name} must be at least 1; {value} was given.")
    one_of("device", device, ["cpu", *["cuda"] * torch.cuda.is_available()])
    began = time.perf_counter()
    ground, rows = Ground(model, sizes, device), []
    for name in only or CONTESTS:
        for make in CONTESTS[name]:
            for contest in make(ground):
                rows += run(contest, ground, say)
        if name == "growth":
            rows += growth(ground, say)
    manifest = {"title": "mechreward bench", "sizes": asdict(sizes), "machine": machine(device)}
    manifest["seconds"] = round(time.perf_counter() - began, 1)
    results = Results(manifest, tuple(rows))
    results.save(Path(out) / "results.json")
    return results
