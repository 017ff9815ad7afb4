"""Measures of every token against the plain HuggingFace forward pass, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny
import torch

import mechreward as mr
from mechreward import MechRewardError
from mechreward.probing import measures as module
from mechreward.probing.measures import last_logits, measures


@pytest.fixture(scope="module")
def runs(tiny_model):
    return mr.sample(tiny_model, tiny.Even().problems("test", 5), k=2, progress=False)


@pytest.mark.parametrize("chunk", [128, 3])
def test_every_token_has_plain_models_numbers(tiny_model, tiny_plain, runs, chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    found = measures(tiny_model, runs, batch=4)
    assert len(found) == len(runs)
    for run, seen in zip(runs, found, strict=True):
        with torch.no_grad():
            logs = tiny_plain(run.tokens[None]).logits[0].double().log_softmax(-1)
        words = logs.shape[1]
        uniform = torch.full((words,), 1 / words, dtype=torch.float64)
        assert np.isnan(seen.logprob[0])
        for place in range(len(run.tokens)):
            p = logs[place].exp()
            assert seen.entropy[place] == pytest.approx(float(-(p * logs[place]).sum()), abs=1e-4)
            divergence = float((uniform * (uniform.log() - logs[place])).sum())
            assert seen.certainty[place] == pytest.approx(divergence, abs=1e-4)
            if place:
                told = float(logs[place - 1, run.tokens[place]])
                assert seen.logprob[place] == pytest.approx(told, abs=1e-4)
        kept = seen.logprob[run.prompt_len :]
        np.testing.assert_allclose(kept, run.logprobs.numpy(), atol=1e-4)


def test_self_certainty_of_known_distributions():
    """Uniform: 0. Of two words with p and 1 - p: -log 2 - (log p + log(1 - p)) / 2. Words that are
    ruled out are no words."""
    p = 0.9
    two = torch.tensor([math.log(p), math.log(1 - p)])
    ruled = torch.cat([two, torch.tensor([-math.inf, -math.inf])])
    tokens = torch.zeros(1, dtype=torch.long)
    expected = -math.log(2) - (math.log(p) + math.log(1 - p)) / 2
    for logits in (two, ruled):
        seen = module._of(logits[None], tokens)
        assert seen.certainty[0] == pytest.approx(expected, abs=1e-6)
        entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
        assert seen.entropy[0] == pytest.approx(entropy, abs=1e-6)
    assert module._of(torch.zeros(1, 50), tokens).certainty[0] == pytest.approx(0, abs=1e-6)


def test_last_logits_do_not_see_padding(tiny_model, tiny_plain, runs):
    texts = [run.tokens for run in runs]
    with torch.no_grad():
        alone = [tiny_plain(text[None]).logits[0, -1] for text in texts]
    together = last_logits(tiny_model, texts, batch=10)
    torch.testing.assert_close(torch.stack(together), torch.stack(alone), atol=1e-4, rtol=1e-4)


@pytest.mark.unchecked
def test_mistakes(tiny_model, runs):
    with pytest.raises(MechRewardError, match="no trajectories"):
        measures(tiny_model, runs.subset([]))
    with pytest.raises(MechRewardError, match="batch counts trajectories"):
        measures(tiny_model, runs, batch=0)
    with pytest.raises(MechRewardError, match="runs must be Rollouts"):
        measures(tiny_model, [1, 2])
