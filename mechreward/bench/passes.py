"""P1, P6 and the forward half of P8: passes over whole texts, and what is kept of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mechreward.bench.counts import apart, worth
from mechreward.bench.ground import ERROR, Contest, Extras, Ground, Parity, batches
from mechreward.models.row_edits import forward_arms
from mechreward.models.site import Site
from mechreward.probing.activations import Activations, forward, record


def p1(ground: Ground) -> list[Contest]:
    """Capture of sites over whole texts, against passes that keep nothing and TransformerLens'
    caches."""
    model = ground.model
    sites = ground.sites
    stop = sites[-1].layer + 1
    hooks = {site.hook for site in sites}
    texts = sorted((run.tokens for run in ground.runs), key=len)
    parts = batches(texts, ground.sizes.batch)
    tokens = float(sum(len(text) for text in texts))

    def over_texts(run: Callable[[list[Tensor]], Any]) -> Callable[[], float]:
        def arm() -> float:
            for part in parts:
                run(part)
            return tokens

        return arm

    def ours(part: list[Tensor]) -> dict[Site, Tensor]:
        return forward(model, part, sites, stop)

    def bridge(part: list[Tensor]) -> None:
        padded, _ = ground.pad(part)
        model(padded, return_type="logits")

    def huggingface(part: list[Tensor], **options: Any) -> Any:
        padded, _ = ground.pad(part)
        return ground.plain(padded, **options)

    def cached(part: list[Tensor], wanted: Callable[[str], bool] | None = None) -> Any:
        padded, _ = ground.pad(part)
        mask = torch.ones_like(padded)
        _, cache = model.run_with_cache(padded, attention_mask=mask, names_filter=wanted)
        return cache

    def cached_sites(part: list[Tensor]) -> Any:
        return cached(part, hooks.__contains__)

    def parity() -> Parity:
        x = ours(parts[0])
        cache = cached_sites(parts[0])
        hidden = huggingface(parts[0], output_hidden_states=True).hidden_states
        cache_error = (ERROR, max(apart(x[site], cache[site.hook]) for site in sites))
        # HuggingFace's last hidden state is normalised, so the last layer is left out there.
        inner = [site for site in sites if site.layer + 2 < len(hidden)]
        errors = [apart(x[site], hidden[site.layer + 1]) for site in inner]
        return {
            "bridge_forward": cache_error,
            "huggingface_forward": (ERROR, max(errors, default=float("nan"))),
            "run_with_cache": cache_error,
            "cache_all": cache_error,
        }

    contest = Contest(
        "P1",
        work=f"capture of {len(sites)} sites",
        unit="tokens/s",
        arms={
            "mechreward": over_texts(ours),
            "bridge_forward": over_texts(bridge),
            "huggingface_forward": over_texts(huggingface),
            "run_with_cache": over_texts(cached_sites),
            "cache_all": over_texts(cached),
        },
        parity=parity,
        target=0.95,
        aimed=("bridge_forward",),
    )
    return [contest]


def p6(ground: Ground) -> list[Contest]:
    """Activations written and read, against the bare numbers in one file."""
    model = ground.model
    site = ground.sites[-1]
    every = record(model, ground.runs, site, rows="tokens", progress=False)[site]
    few = record(model, ground.runs, site, rows="states", progress=False)[site]
    wanted = ground.sizes.megabytes * 2**20
    times = max(1, ceil(wanted / (every.x.numel() * 4)))
    x = every.x.repeat(times, 1)
    whole = Activations(
        x,
        site,
        "tokens",
        trajectory=np.tile(every.trajectory, times),
        position=np.tile(every.position, times),
        step=np.tile(every.step, times),
        model_id=every.model_id,
    )
    megabytes = x.numel() * 4 / 2**20
    folder = tempfile.TemporaryDirectory(prefix="mechreward-")
    ours = Path(folder.name) / "ours"
    raw = Path(folder.name) / "raw"

    def write_ours() -> float:
        whole.save(ours)
        return megabytes

    def write_raw() -> float:
        with raw.open("wb") as file:
            x.numpy().tofile(file)
            for label in (whole.trajectory, whole.position, whole.step):
                label.astype(np.int32).tofile(file)
            os.fsync(file.fileno())
        return megabytes

    def read_ours() -> float:
        Activations.load(ours).x.sum()  # a mapped file is not read until it is used
        return megabytes

    def raw_numbers() -> Tensor:
        numbers = np.fromfile(raw, np.float32, x.numel())
        return torch.from_numpy(numbers)

    def read_raw() -> float:
        raw_numbers().sum()
        return megabytes

    def parity() -> Parity:
        write_ours()
        write_raw()
        error = apart(Activations.load(ours).x, raw_numbers().reshape(x.shape))
        return {"raw_file": (ERROR, error)}

    def extras() -> Extras:
        folder.cleanup()  # the last that is asked
        return {
            ("step_rows", "bytes"): float(few.x.numel() * 4),
            ("all_tokens", "bytes"): float(every.x.numel() * 4),
        }

    writing = Contest(
        "P6",
        work="writing activations",
        unit="MiB/s",
        arms={"mechreward": write_ours, "raw_file": write_raw},
        parity=parity,
        target=0.8,
        aimed=("raw_file",),
    )
    reading = replace(
        writing,
        work="reading activations",
        arms={"mechreward": read_ours, "raw_file": read_raw},
        extras=extras,
    )
    return [writing, reading]


def p8(ground: Ground) -> list[Contest]:
    """A forward pass of the same texts under many interventions: all arms of a text in one batch
    against a loop of passes under hooks."""
    model = ground.model
    edits = ground.edits(ground.sizes.arms)
    texts = [run.tokens for run in ground.runs][: ground.sizes.texts]
    tokens, _ = ground.pad(texts)

    def together() -> list[Tensor]:
        arms = [(edit,) for edit in edits]
        return [forward_arms(model, text, arms) for text in texts]

    def loop() -> list[Tensor]:
        parts = []
        for edit in edits:
            keep = edit.keep.to(tokens.device)
            add = edit.add.to(tokens.device)
            hook = (edit.site.hook, lambda x, hook, k=keep, a=add: x * k + a)
            parts.append(model.run_with_hooks(tokens, return_type="logits", fwd_hooks=[hook]))
        logits = []
        for number, text in enumerate(texts):
            rows = [part[number, : len(text)] for part in parts]
            logits.append(torch.stack(rows))
        return logits

    def parity() -> Parity:
        errors = []
        for ours, theirs in zip(together(), loop(), strict=True):
            errors.append(apart(ours, theirs))
        return {"run_with_hooks": (ERROR, max(errors))}

    passes = len(edits) * len(texts)
    contest = Contest(
        "P8",
        work=f"forward passes under {len(edits)} interventions, {len(texts)} texts each",
        unit="passes/s",
        arms={"mechreward": worth(passes, together), "run_with_hooks": worth(passes, loop)},
        parity=parity,
        target=2.5,
        aimed=("run_with_hooks",),
    )
    return [contest]
