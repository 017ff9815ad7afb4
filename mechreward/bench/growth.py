"""How cost grows: width, continuations of one state, tokens to generate, and interventions, one at
a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from mechreward.bench.counts import prefill_tokens
from mechreward.bench.ground import Ground
from mechreward.bench.race import exactly, spread, wait
from mechreward.experiments.rows import Row
from mechreward.models.engine import Job, generate

PROMPT = 64  # tokens
BASE = {"width": 128, "k": 16, "length": 32, "interventions": 0}
VARIED = {
    "width": (64, 128, 256),
    "k": (1, 16, 64),
    "length": (16, 32, 64),
    "interventions": (0, 1, 16),
}


def growth(ground: Ground, say: Callable[[str], None]) -> list[Row]:
    """Seconds and prefill tokens of generating, one size varied at a time.

    Untrained two-layer models of each width; 32 tokens of 16 rows from one prompt of 64 tokens,
    unless varied.

    Parameters
    ----------
    ground
        Gives the device, the repeats, and the model that interventions need.
    say
        Takes a line for every size.
    """
    rows = []
    say("growth: seconds and prefill tokens")
    for varied, values in VARIED.items():
        for value in values:
            setting = BASE | {varied: value}
            seconds, tokens = _measure(ground, varied, setting)
            shared: dict[str, Any] = {
                "experiment": "growth",
                "model": "untrained",
                "task": "",
                "site": "",
                "arm": f"{varied}={value}",
                "seed": ground.seed,
                "detail": {"varied": varied, **setting},
            }
            rows.append(Row(metric="seconds", **asdict(spread(seconds)), **shared))
            rows.append(Row(metric="prefill_tokens", **asdict(exactly(tokens)), **shared))
            median = np.median(seconds)
            say(f"  {varied}={value}: {median:.3f} s, {tokens:.0f} prefill tokens")
    return rows


def _measure(ground: Ground, varied: str, setting: dict[str, int]) -> tuple[list[float], float]:
    """Seconds of every repeat, and prefill tokens of the last."""
    # Interventions need hooks, which only the wrapped model has.
    if varied == "interventions":
        model = ground.model
    else:
        model = _untrained(setting["width"], ground.device)
    edits = ground.edits(setting["interventions"])
    prompt = torch.arange(PROMPT) % 200 + 3
    jobs = []
    for number in range(setting["k"]):
        edit = (edits[number % len(edits)],) if edits else ()
        jobs.append(Job(prompt, PROMPT, setting["length"], ("growth", number), edit))
    seconds = []
    tokens = 0.0
    for _ in range(ground.sizes.repeats):
        with prefill_tokens(model) as counted:
            started = time.perf_counter()
            generate(model, jobs, eos=-1)
            wait(ground.device)
        seconds.append(time.perf_counter() - started)
        tokens = float(sum(counted))
    return seconds, tokens


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
