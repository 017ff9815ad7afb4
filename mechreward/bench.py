"""`mechreward bench`: every contest, interleaved, medians with min and max, and a parity check beside every ratio."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mechreward._check import one_of, require
from mechreward._files import write_atomic
from mechreward.contests import fits, generation, passes
from mechreward.contests.ground import Contest, Ground, Sizes, prefill_tokens
from mechreward.models.engine import Job, generate
from mechreward.results import Results, Row
from mechreward.stats import Interval

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

    Rows: `rate` of every arm, and for every arm that mechreward is compared to a `ratio` (of rates, theirs = 1; of
    times for P9) with the `parity` of the two. Estimates are medians over the repeats, low and high their extremes,
    n their number.

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


def run(contest: Contest, ground: Ground, say: Callable[[str], None]) -> list[Row]:
    """One contest. The parity check comes first and warms everything up; then every arm once a round."""
    with torch.enable_grad() if contest.experiment == "P7" else torch.no_grad():
        parity = contest.parity()
        rates: dict[str, list[float]] = {name: [] for name in contest.arms}
        for number in range(ground.sizes.repeats):
            # Every second round backwards: what slows a machine down over time then meets all arms alike.
            for name in list(contest.arms)[:: 1 - 2 * (number % 2)]:
                started = time.perf_counter()
                work = contest.arms[name]()
                _wait(ground.device)
                rates[name].append(work / (time.perf_counter() - started))
        extras = contest.extras()
    say(f"{contest.experiment} {contest.work}")
    about = {"work": contest.work}
    rows = [
        _row(contest, ground, name, "rate", _spread(each), about | {"unit": contest.unit})
        for name, each in rates.items()
    ]
    own = np.array(rates["mechreward"])
    for name, theirs in rates.items():
        if name == "mechreward":
            continue
        ratios = theirs / own if contest.slowdown else own / theirs
        kind, close = parity[name]
        aim: dict[str, Any] = {"target": contest.target} if name in contest.aimed else {}
        ratio = _spread(ratios)
        rows.append(_row(contest, ground, name, "ratio", ratio, about | aim | {"times": contest.slowdown}))
        rows.append(_row(contest, ground, name, "parity", Interval(close, close, close, 1), about | {"kind": kind}))
        goal = f", target {'<=' if contest.slowdown else '>='} {contest.target:g}" if aim else ""
        say(
            f"  {name}: ratio {ratio.estimate:.2f} ({ratio.low:.2f} to {ratio.high:.2f}{goal}); "
            f"{np.median(own):.4g} against {np.median(theirs):.4g} {contest.unit}; {kind} {close:.2g}"
        )
    for name in parity.keys() - rates.keys():
        kind, close = parity[name]
        rows.append(_row(contest, ground, name, "parity", Interval(close, close, close, 1), about | {"kind": kind}))
        say(f"  {name}: {kind} {close:.2g}")
    for (name, metric), value in extras.items():
        rows.append(_row(contest, ground, name, metric, Interval(value, value, value, 1), about))
        say(f"  {name}: {metric} {value:,.0f}" if value >= 10 else f"  {name}: {metric} {value:.2f}")
    return rows


def growth(ground: Ground, say: Callable[[str], None]) -> list[Row]:
    """How cost grows: width, continuations of one state, tokens to say, and interventions, one at a time.

    Untrained two-layer models of each width; 32 tokens of 16 rows from one prompt of 64 tokens, unless varied.
    """
    base = {"width": 128, "k": 16, "length": 32, "interventions": 0}
    varied = {"width": (64, 128, 256), "k": (1, 16, 64), "length": (16, 32, 64), "interventions": (0, 1, 16)}
    rows = []
    say("growth: seconds and prefill tokens")
    for name, values in varied.items():
        for value in values:
            now = base | {name: value}
            # Interventions need hooks, which only the wrapped model has.
            model = ground.model if name == "interventions" else _untrained(now["width"], ground.device)
            edits = ground.edits(now["interventions"])
            trunk = torch.arange(64) % 200 + 3
            jobs = [
                Job(trunk, 64, now["length"], ("growth", n), (edits[n % len(edits)],) if edits else ())
                for n in range(now["k"])
            ]
            seconds = []
            for _ in range(ground.sizes.repeats):
                with prefill_tokens(model) as count:
                    started = time.perf_counter()
                    generate(model, jobs, eos=-1)
                    _wait(ground.device)
                seconds.append(time.perf_counter() - started)
            tokens = float(sum(count))
            shared = {"experiment": "growth", "model": "untrained", "task": "", "site": "", "seed": ground.seed}
            about: dict[str, Any] = {"varied": name, **now}
            spreads = {"seconds": _spread(seconds), "prefill_tokens": Interval(tokens, tokens, tokens, 1)}
            for metric, spread in spreads.items():
                rows.append(Row(**shared, arm=f"{name}={value}", metric=metric, **asdict(spread), detail=about))
            say(f"  {name}={value}: {np.median(seconds):.3f} s, {tokens:.0f} prefill tokens")
    return rows


def _untrained(width: int, device: str) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 2}
    config = Qwen2Config(vocab_size=256, hidden_size=width, intermediate_size=3 * width, **heads)
    model: Any = Qwen2ForCausalLM(config)
    return model.to(device).eval()


def machine(device: str) -> dict[str, Any]:
    """What kind of machine this is: its figures mean nothing without it."""
    found = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cpu = found[0].split(":")[1].strip() if found else platform.processor() or platform.machine()
    names = ("mechreward", "torch", "transformers", "transformer-lens", "scikit-learn")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else "not measured",
        "versions": {name: version(name) for name in names} | {"python": platform.python_version()},
    }


def page(results: Results, path: Path | str) -> Path:
    """`docs/performance.md` from the results of a run."""
    info = results.manifest["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in info["versions"].items())
    lines = [
        "# Performance",
        "",
        "Made by `mechreward bench --docs`; ratios are medians over interleaved repeats (min to max).",
        f"CPU: {info['cpu']}, {info['cores']} cores, {info['threads']} threads. GPU: {info['gpu']}. {versions}.",
        "",
        "| | work | compared to | ratio | target | parity |",
        "|---|---|---|---|---|---|",
    ]
    for row in results.where(metric="ratio"):
        beside = results.where(experiment=row.experiment, arm=row.arm, metric="parity")
        (same,) = [one for one in beside if one.detail["work"] == row.detail["work"]]
        times = row.detail["times"]
        goal = f"{'<=' if times else '>='} {row.detail['target']:g}" if "target" in row.detail else ""
        lines.append(
            f"| {row.experiment} | {row.detail['work']} | {row.arm} | {row.estimate:.2f} ({row.low:.2f} to "
            f"{row.high:.2f}){' of the time' if times else ''} | {goal} | {same.detail['kind']} {same.estimate:.2g} |"
        )
    lines += ["", "| how cost grows | seconds | prefill tokens |", "|---|---|---|"]
    for row in results.where(experiment="growth", metric="seconds"):
        (prefill,) = results.where(experiment="growth", arm=row.arm, metric="prefill_tokens")
        lines.append(f"| {row.arm} | {row.estimate:.3f} | {prefill.estimate:.0f} |")
    return write_atomic(path, "\n".join([*lines, *_limits(results)]) + "\n")


def _limits(results: Results) -> list[str]:
    """What stands between a ratio and a better one."""
    lines = ["", "What limits them:", ""]
    for row in results.where(metric="share_elsewhere"):
        parts = [
            results.where(experiment=row.experiment, metric=f"share_{kind}")[0] for kind in ("weights", "attention")
        ]
        weights, attention = (part.estimate for part in parts)
        (ratio,) = results.where(experiment=row.experiment, metric="ratio", arm="generate")
        lines.append(
            f"- {row.experiment}, {row.detail['work']}: {weights:.0%} of our time goes into products with weights, "
            f"{attention:.0%} into products of attention (measured under cProfile, which adds to the rest). "
            f"With these products alone the ratio would be {ratio.estimate / (weights + attention):.1f}."
        )
    for row in results.where(metric="row_passes", arm="mechreward"):
        (plain,) = results.where(experiment=row.experiment, metric="row_passes", arm="plain_decode")
        lines.append(
            f"- {row.experiment}, {row.detail['work']}: the last token of an answer is run only for what is caught "
            f"there. That makes {row.estimate:,.0f} passes of a row where plain decoding takes {plain.estimate:,.0f}: "
            f"{row.estimate / plain.estimate:.3f} of its work, for answers of this length."
        )
    return lines if len(lines) > 3 else []


def _row(contest: Contest, ground: Ground, arm: str, metric: str, value: Interval, detail: dict[str, Any]) -> Row:
    shared = {"model": ground.name, "task": ground.task.name, "site": "", "seed": ground.seed}
    return Row(contest.experiment, **shared, arm=arm, metric=metric, **asdict(value), detail=detail)


def _spread(values: Any) -> Interval:
    return Interval(float(np.median(values)), float(np.min(values)), float(np.max(values)), len(values))


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []
