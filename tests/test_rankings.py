"""Rival rankings against scipy, hand arithmetic, and a next token that one neuron decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rows as made
import torch
from scipy.stats import spearmanr

from mechreward._check import MechRewardError
from mechreward.models.engine import Policy
from mechreward.models.site import Site
from mechreward.probing.rankings import correlation, magnitude, mean_difference, next_token, wanda, weight_magnitude
from mechreward.rollouts.trajectory import Rollouts, Trajectory
from mechreward.tasks import Problem, Verdict


def test_mean_difference_by_hand():
    data = made.planted(4)
    x = torch.tensor([[0.0, 1.0, 7.0], [2.0, 1.0, 7.0], [4.0, 2.0, 7.0], [6.0, 4.0, 7.0]])
    data = replace(data, x=x, y=np.array([0.1, 0.2, 0.7, 0.9]))
    expected = [4 / np.std([0, 2, 4, 6]), 2 / np.std([1, 1, 2, 4]), 0]
    assert mean_difference(data) == pytest.approx(expected)
    most = replace(data, y=np.array([0.0, 1.0, 1.0, 1.0]))
    assert mean_difference(most)[0] == pytest.approx(4 / np.std([0, 2, 4, 6])), "the median is the largest value"


def test_correlation_is_scipys():
    data = made.planted(80, states=2)
    x = data.x.clone()
    x[:, 3] = 2.5
    found = correlation(replace(data, x=x))
    for column in (0, 5, 17):
        assert found[column] == pytest.approx(abs(spearmanr(x[:, column], data.y).statistic))
    assert found[3] == 0


def test_planted_coordinates_come_first():
    data = made.planted(300, states=2)
    for scores in (mean_difference(data), correlation(data)):
        assert set(np.argsort(-scores)[:2]) == {5, 17}


def test_magnitude_is_the_root_mean_square():
    data = replace(made.planted(2), x=torch.tensor([[3.0, 0.0], [4.0, -2.0]]))
    assert magnitude(data) == pytest.approx([np.sqrt(12.5), np.sqrt(2)])


@pytest.mark.parametrize("ranking", [mean_difference, correlation])
def test_a_constant_target_is_refused(ranking):
    data = made.planted(10)
    with pytest.raises(MechRewardError, match="constant"):
        ranking(replace(data, y=np.full(10, 0.5)))


def written(count: int = 30, length: int = 8, prompt: int = 3) -> Rollouts:
    rng = np.random.default_rng(0)
    problem = Problem("p", "p", "a", {})
    runs = tuple(
        Trajectory(
            str(i),
            torch.from_numpy(rng.integers(0, 4, length)),
            prompt,
            (prompt - 1, length - 1),
            Verdict("correct", ""),
            torch.zeros(length - prompt),
        )
        for i in range(count)
    )
    return Rollouts(runs, (problem,) * count, Policy(), made.MODEL)


def test_the_neuron_that_knows_the_next_token_leads():
    """Neuron 6 holds the next token at generated positions; neuron 2 holds it in the prompt, which does not count."""
    runs = written()
    x = torch.randn(30 * 8, 10, generator=torch.Generator().manual_seed(0))
    following = torch.cat([run.tokens.roll(-1) for run in runs]).float()
    spoken = torch.arange(8).repeat(30)
    x[:, 6] = torch.where((spoken >= 2) & (spoken < 7), following, 0.0)
    x[:, 2] = torch.where(spoken < 2, following, 0.0)
    scores = next_token(made.tokens(x, 8), runs)
    assert scores.argmax() == 6 and scores[2] == 0, "constant where tokens are generated"


def test_next_token_needs_tokens_of_the_same_runs():
    with pytest.raises(MechRewardError, match="record rows='tokens'"):
        next_token(made.activations(torch.zeros(4, 3)), written())
    with pytest.raises(MechRewardError, match="record from these rollouts"):
        next_token(made.tokens(torch.zeros(70, 3), 7), written())


def readers(plain, site: str) -> np.ndarray:
    """Summed absolute weights that read each neuron, from a plain HuggingFace model's own matrices."""
    layer, kind = int(site[0]), site[2:]
    layers = plain.model.layers

    def columns(*matrices) -> np.ndarray:
        return sum(matrix.weight.detach().double().abs().sum(0) for matrix in matrices).numpy()

    if kind == "mlp":
        return columns(layers[layer].mlp.down_proj)
    following = layer + (kind == "resid_post")
    if following == len(layers):
        return columns(plain.lm_head)
    block = layers[following]
    attention = () if kind == "resid_mid" else (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj)
    return columns(block.mlp.up_proj, block.mlp.gate_proj, *attention)


@pytest.mark.parametrize("site", ["0.resid_post", "1.resid_pre", "0.resid_mid", "1.mlp", "last"])
def test_weights_that_read_are_those_of_the_plain_model(tiny_model, tiny_plain, site):
    site = f"{tiny_model.cfg.n_layers - 1}.resid_post" if site == "last" else site
    np.testing.assert_allclose(weight_magnitude(tiny_model, Site.parse(site)), readers(tiny_plain, site), rtol=1e-5)


def test_wanda_is_weight_times_activation(tiny_model):
    from types import SimpleNamespace

    site = Site.parse("0.mlp")
    acts = SimpleNamespace(site=site, rms=lambda: torch.arange(tiny_model.cfg.d_mlp).float())
    expected = weight_magnitude(tiny_model, site) * np.arange(tiny_model.cfg.d_mlp)
    assert wanda.__wrapped__(tiny_model, acts) == pytest.approx(expected)
