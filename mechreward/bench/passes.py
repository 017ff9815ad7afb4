"""P1, P6 and the forward half of P8: passes over whole texts, and what is kept of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mechreward.bench.ground import ERROR, Contest, Ground, apart
from mechreward.models.row_edits import forward_arms
from mechreward.probing.activations import Activations, forward, record


def p1(ground: Ground) -> list[Contest]:
    model, sites, size = ground.model, ground.sites, ground.sizes.batch
    texts = sorted((run.tokens for run in ground.runs), key=len)
    batches = [texts[start : start + size] for start in range(0, len(texts), size)]
    work = float(sum(map(len, texts)))
    stop, names = sites[-1].layer + 1, {site.hook for site in sites}

    def each(run: Callable[[list[torch.Tensor]], Any]) -> Callable[[], float]:
        def arm() -> float:
            for batch in batches:
                run(batch)
            return work

        return arm

    def cached(batch: list[torch.Tensor], wanted: Callable[[str], bool] | None) -> Any:
        tokens, _ = ground.pad(batch)
        return model.run_with_cache(
            tokens, attention_mask=torch.ones_like(tokens), names_filter=wanted
        )[1]

    def parity() -> dict[str, tuple[str, float]]:
        ours, theirs = (
            forward(model, batches[0], sites, stop),
            cached(batches[0], names.__contains__),
        )
        hidden = ground.plain(ground.pad(batches[0])[0], output_hidden_states=True).hidden_states
        # HuggingFace's last hidden state is normalised, so the last layer is left out there.
        plain = [
            apart(ours[site], hidden[site.layer + 1])
            for site in sites
            if site.layer + 2 < len(hidden)
        ]
        lens = ERROR, max(apart(ours[site], theirs[site.hook]) for site in sites)
        close = ERROR, max(plain, default=float("nan"))
        return {
            "bridge_forward": lens,
            "huggingface_forward": close,
            "run_with_cache": lens,
            "cache_all": lens,
        }

    arms = {
        "mechreward": each(lambda batch: forward(model, batch, sites, stop)),
        "bridge_forward": each(lambda batch: model(ground.pad(batch)[0], return_type="logits")),
        "huggingface_forward": each(lambda batch: ground.plain(ground.pad(batch)[0])),
        "run_with_cache": each(lambda batch: cached(batch, names.__contains__)),
        "cache_all": each(lambda batch: cached(batch, None)),
    }
    return [
        Contest(
            "P1",
            f"capture of {len(sites)} sites",
            "tokens/s",
            arms,
            parity,
            0.95,
            ("bridge_forward",),
        )
    ]


def p6(ground: Ground) -> list[Contest]:
    size = ground.sizes
    acts = record(ground.model, ground.runs, ground.sites[-1], rows="tokens", what=None)[
        ground.sites[-1]
    ]
    few = record(ground.model, ground.runs, ground.sites[-1], rows="states", what=None)[
        ground.sites[-1]
    ]
    times = max(1, -(-size.megabytes * 2**20 // (acts.x.numel() * 4)))
    labels = {
        name: np.tile(getattr(acts, name), times) for name in ("trajectory", "position", "step")
    }
    whole = Activations(
        acts.x.repeat(times, 1), acts.site, "tokens", **labels, model_id=acts.model_id
    )
    folder = tempfile.TemporaryDirectory(prefix="mechreward-")
    ours, raw, work = (
        Path(folder.name) / "ours",
        Path(folder.name) / "raw",
        whole.x.numel() * 4 / 2**20,
    )

    def write_raw() -> float:
        with raw.open("wb") as file:
            whole.x.numpy().tofile(file)
            for label in labels.values():
                label.astype(np.int32).tofile(file)
            os.fsync(file.fileno())
        return work

    def read_ours() -> float:
        Activations.load(ours).x.sum()  # a mapped file is not read until it is used
        return work

    def read_raw() -> float:
        torch.from_numpy(np.fromfile(raw, np.float32, whole.x.numel())).sum()
        return work

    def parity() -> dict[str, tuple[str, float]]:
        whole.save(ours)
        write_raw()
        theirs = np.fromfile(raw, np.float32, whole.x.numel()).reshape(whole.x.shape)
        return {"raw_file": (ERROR, apart(Activations.load(ours).x, torch.from_numpy(theirs)))}

    def extras() -> dict[tuple[str, str], float]:
        folder.cleanup()  # the last that is asked
        return {
            ("step_rows", "bytes"): float(few.x.numel() * 4),
            ("all_tokens", "bytes"): float(acts.x.numel() * 4),
        }

    def write_ours() -> float:
        whole.save(ours)
        return work

    def contest(work: str, arms: dict[str, Callable[[], float]], **more: Any) -> Contest:
        return Contest("P6", work, "MiB/s", arms, parity, 0.8, ("raw_file",), **more)

    return [
        contest("writing activations", {"mechreward": write_ours, "raw_file": write_raw}),
        contest(
            "reading activations", {"mechreward": read_ours, "raw_file": read_raw}, extras=extras
        ),
    ]


def p8(ground: Ground) -> list[Contest]:
    """A forward pass of the same texts under many interventions."""
    edits, model = ground.edits(ground.sizes.arms), ground.model
    texts = [run.tokens for run in ground.runs][: ground.sizes.texts]
    tokens, _ = ground.pad(texts)

    def together() -> list[torch.Tensor]:
        return [forward_arms(model, text, [(edit,) for edit in edits]) for text in texts]

    def loop() -> list[torch.Tensor]:
        parts = []
        for edit in edits:
            keep, add = edit.keep.to(tokens.device), edit.add.to(tokens.device)
            hook = (edit.site.hook, lambda x, hook, k=keep, a=add: x * k + a)
            parts.append(model.run_with_hooks(tokens, return_type="logits", fwd_hooks=[hook]))
        return [
            torch.stack([part[n, : len(text)] for part in parts]) for n, text in enumerate(texts)
        ]

    def work(run: Callable[[], list[torch.Tensor]]) -> float:
        run()
        return float(len(edits) * len(texts))

    def parity() -> dict[str, tuple[str, float]]:
        return {
            "run_with_hooks": (
                ERROR,
                max(apart(a, b) for a, b in zip(together(), loop(), strict=True)),
            )
        }

    arms = {"mechreward": lambda: work(together), "run_with_hooks": lambda: work(loop)}
    name = f"forward passes under {len(edits)} interventions, {len(texts)} texts each"
    return [Contest("P8", name, "passes/s", arms, parity, 2.5, ("run_with_hooks",))]
