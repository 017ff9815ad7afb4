"""Surface features against the HuggingFace forward pass, and what a read-out adds to them."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

import mechreward as mr
from mechreward import MechRewardError
from mechreward.probing.surface import FEATURES, increment, surface


def test_features_of_every_state(tiny_model, tiny_plain):
    runs = mr.sample(tiny_model, tiny.Even().problems("test", 6), k=2, progress=False)
    found = dict(zip(FEATURES, surface(tiny_model, runs, batch=5).T, strict=True))
    row = 0
    for run in runs:
        with torch.no_grad():
            said = tiny_plain(run.tokens[None]).logits[0].double().log_softmax(-1)
        for step, end in enumerate(run.step_ends):
            spoken = said[run.prompt_len - 1 : end].gather(
                1, run.tokens[run.prompt_len : end + 1, None]
            )
            expected = {
                "prompt_length": run.prompt_len,
                "difficulty": 2,
                "position": end + 1 - run.prompt_len,
                "step": step,
                "entropy": float(-(said[end].exp() * said[end]).sum()),
                "mean_logprob": float(spoken.mean()) if len(spoken) else 0,
            }
            for name, value in expected.items():
                assert found[name][row] == pytest.approx(value, abs=1e-4), (name, step)
            row += 1
    assert row == len(found["step"])


def rows(seed: int, knows: float):
    """A surface that tells something, and a read-out that adds `knows` of its own."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 600))
    reward = (rng.random(600) < 1 / (1 + np.exp(-(a + 1.5 * b)))).astype(int)
    return (
        np.column_stack([a, rng.normal(size=600)]),
        knows * b + 0.1 * rng.normal(size=600),
        reward,
    )


def test_an_increment_is_seen_where_there_is_one_and_only_there():
    group = np.arange(600) // 3
    new = increment(rows(0, 1.0), rows(1, 1.0), group)
    assert new["increment"].low > 0.1
    gap = new["surface_and_value"].estimate - new["surface"].estimate
    assert new["increment"].estimate == pytest.approx(gap) and new["increment"].n == 200
    none = increment(rows(0, 0.0), rows(1, 0.0), group)
    assert none["increment"].low <= 0.005 and abs(none["increment"].estimate) < 0.02


def test_refusals(tiny_model):
    x, read, _ = rows(0, 1.0)
    with pytest.raises(MechRewardError, match="all answers are right"):
        increment((x, read, np.ones(600, int)), rows(1, 1.0), np.arange(600))
    runs = mr.sample(tiny_model, tiny.Even().problems("test", 2), progress=False)
    with pytest.raises(MechRewardError, match="no trajectories"):
        surface(tiny_model, runs.subset([]))
