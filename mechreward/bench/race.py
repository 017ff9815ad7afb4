"""`mechreward bench`: every contest, interleaved, medians with min and max, and a parity check
beside every ratio."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mechreward.bench.ground import Contest, Ground, prefill_tokens
from mechreward.experiments.rows import Row
from mechreward.models.engine import Job, generate
from mechreward.stats import Interval


def run(contest: Contest, ground: Ground, say: Callable[[str], None]) -> list[Row]:
    """One contest. The parity check comes first and warms everything up; then every arm once a
    round."""
    with torch.enable_grad() if contest.experiment == "P7" else torch.no_grad():
        parity = contest.parity()
        rates: dict[str, list[float]] = {name: [] for name in contest.arms}
        for number in range(ground.sizes.repeats):
            # Every second round backwards: what slows a machine down over time then meets all arms
            # alike.
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
        rows.append(
            _row(contest, ground, name, "ratio", ratio, about | aim | {"times": contest.slowdown})
        )
        rows.append(
            _row(
                contest,
                ground,
                name,
                "parity",
                Interval(close, close, close, 1),
                about | {"kind": kind},
            )
        )
        goal = f", target {'<=' if contest.slowdown else '>='} {contest.target:g}" if aim else ""
        say(
            f"  {name}: ratio {ratio.estimate:.2f} ({ratio.low:.2f} to {ratio.high:.2f}{goal}); "
            f"{np.median(own):.4g} against {np.median(theirs):.4g} {contest.unit}; {kind} {close:.2g}"
        )
    for name in parity.keys() - rates.keys():
        kind, close = parity[name]
        rows.append(
            _row(
                contest,
                ground,
                name,
                "parity",
                Interval(close, close, close, 1),
                about | {"kind": kind},
            )
        )
        say(f"  {name}: {kind} {close:.2g}")
    for (name, metric), value in extras.items():
        rows.append(_row(contest, ground, name, metric, Interval(value, value, value, 1), about))
        say(
            f"  {name}: {metric} {value:,.0f}" if value >= 10 else f"  {name}: {metric} {value:.2f}"
        )
    return rows


def growth(ground: Ground, say: Callable[[str], None]) -> list[Row]:
    """How cost grows: width, continuations of one state, tokens to say, and interventions, one at a
    time.

    Untrained two-layer models of each width; 32 tokens of 16 rows from one prompt of 64 tokens,
    unless varied.
    """
    base = {"width": 128, "k": 16, "length": 32, "interventions": 0}
    varied = {
        "width": (64, 128, 256),
        "k": (1, 16, 64),
        "length": (16, 32, 64),
        "interventions": (0, 1, 16),
    }
    rows = []
    say("growth: seconds and prefill tokens")
    for name, values in varied.items():
        for value in values:
            now = base | {name: value}
            # Interventions need hooks, which only the wrapped model has.
            model = (
                ground.model if name == "interventions" else _untrained(now["width"], ground.device)
            )
            edits = ground.edits(now["interventions"])
            trunk = torch.arange(64) % 200 + 3
            jobs = [
                Job(
                    trunk,
                    64,
                    now["length"],
                    ("growth", n),
                    (edits[n % len(edits)],) if edits else (),
                )
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
            shared = {
                "experiment": "growth",
                "model": "untrained",
                "task": "",
                "site": "",
                "seed": ground.seed,
            }
            about: dict[str, Any] = {"varied": name, **now}
            spreads = {
                "seconds": _spread(seconds),
                "prefill_tokens": Interval(tokens, tokens, tokens, 1),
            }
            for metric, spread in spreads.items():
                rows.append(
                    Row(
                        **shared,
                        arm=f"{name}={value}",
                        metric=metric,
                        **asdict(spread),
                        detail=about,
                    )
                )
            say(f"  {name}={value}: {np.median(seconds):.3f} s, {tokens:.0f} prefill tokens")
    return rows


def _untrained(width: int, device: str) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    heads: dict[str, Any] = {
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "num_hidden_layers": 2,
    }
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


def _row(
    contest: Contest, ground: Ground, arm: str, metric: str, value: Interval, detail: dict[str, Any]
) -> Row:
    shared = {"model": ground.name, "task": ground.task.name, "site": "", "seed": ground.seed}
    return Row(contest.experiment, **shared, arm=arm, metric=metric, **asdict(value), detail=detail)


def _spread(values: Any) -> Interval:
    return Interval(
        float(np.median(values)), float(np.min(values)), float(np.max(values)), len(values)
    )


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []
