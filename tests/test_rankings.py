"""Rival rankings against scipy, hand arithmetic, and a next token that one neuron decides."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import rows as made
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import Lasso

from mechreward.base.errors import MechRewardError
from mechreward.models.engine import Policy
from mechreward.models.site import Site
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.probing.rankings import (
    correlation,
    gradient_x_activation,
    l1_penalised,
    magnitude,
    mean_difference,
    next_token,
    wanda,
    weight_magnitude,
)
from mechreward.rollouts.trajectory import Rollouts, Trajectory
from mechreward.tasks import Problem, Verdict


def test_mean_difference_by_hand():
    data = made.planted(4)
    x = torch.tensor([[0.0, 1.0, 7.0], [2.0, 1.0, 7.0], [4.0, 2.0, 7.0], [6.0, 4.0, 7.0]])
    data = replace(data, x=x, y=np.array([0.1, 0.2, 0.7, 0.9]))
    expected = [4 / np.std([0, 2, 4, 6]), 2 / np.std([1, 1, 2, 4]), 0]
    assert mean_difference(data) == pytest.approx(expected)
    most = replace(data, y=np.array([0.0, 1.0, 1.0, 1.0]))
    assert mean_difference(most)[0] == pytest.approx(4 / np.std([0, 2, 4, 6])), (
        "the median is the largest value"
    )


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
    probe = ValueProbe("mc", "mlp", hidden=32).fit_examples(data)
    for scores in (
        mean_difference(data),
        correlation(data),
        l1_penalised(data),
        gradient_x_activation(probe, data),
    ):
        assert set(np.argsort(-scores)[:2]) == {5, 17}


def test_the_lasso_is_scikit_learns_and_keeps_its_optimality():
    """The coefficients of scikit-learn, and without it the optimum's own condition: a neuron that
    was taken has a covariance with the residual of exactly the penalty, any other at most that."""
    data = made.planted(60, width=40, carriers=(5, 17, 20, 21, 30, 33))
    x = data.x.clone()
    x[:, 8] = 2.5
    found = l1_penalised(replace(data, x=x))
    z = np.delete(x.double().numpy(), 8, 1)
    z, y = (z - z.mean(0)) / z.std(0), data.y - data.y.mean()
    covariance = np.abs(z.T @ y) / 60
    penalty = 0.3 * covariance.max()
    model = Lasso(alpha=penalty, tol=1e-10, max_iter=100_000).fit(z, y)
    taken, score = model.coef_ != 0, np.delete(found, 8)
    assert found[8] == 0 and 2 < taken.sum() < 39
    np.testing.assert_allclose(score[taken], np.abs(model.coef_[taken]), atol=1e-3 * score.max())
    own = np.where(taken, score * np.sign(model.coef_), 0)
    slope = np.abs(z.T @ (y - z @ own)) / 60
    assert (
        slope[taken] == pytest.approx(penalty, rel=0.01) and slope[~taken].max() <= 1.01 * penalty
    )
    assert 0 < score[~taken].max() < score[taken].min(), "the others come after"
    assert np.argsort(score[~taken]).tolist() == np.argsort(covariance[~taken]).tolist(), (
        "in order of correlation"
    )


def test_the_lasso_leaves_out_a_blurred_copy():
    data = made.planted(300, states=2)
    x = data.x.clone()
    x[:, 9] = x[:, 5] + 0.5 * x[:, 9]
    data = replace(data, x=x)
    assert set(np.argsort(-correlation(data))[:3]) == {5, 9, 17}
    assert set(np.argsort(-l1_penalised(data))[:2]) == {5, 17}
    assert l1_penalised(data)[9] <= l1_penalised(data)[[5, 17]].min() / 2, "after those taken"
    stretched = replace(data, x=x * torch.logspace(-2, 2, 32), y=7 * data.y - 3)
    np.testing.assert_allclose(l1_penalised(stretched), 7 * l1_penalised(data), atol=1e-4)


def test_the_lasso_of_nothing_and_of_almost_nothing():
    data = made.planted(50, width=4, carriers=(1,))
    assert l1_penalised(replace(data, x=torch.full((50, 4), 3.0))).tolist() == [0] * 4
    noise = made.planted(20_000, width=1, carriers=(0,))
    alone = l1_penalised(replace(noise, y=np.random.default_rng(0).normal(size=20_000)))
    assert 0 < alone[0] < 0.05
    x = data.x.clone()
    x[3, 2] = torch.nan
    for odd in (replace(data, x=x), replace(data, y=np.where(np.arange(50) == 3, np.inf, data.y))):
        with pytest.raises(MechRewardError, match="finite"):
            l1_penalised(odd)


@pytest.mark.parametrize("probe", [ValueProbe("mc", "linear"), DopamineProbe(0.2, "linear")])
def test_gradient_x_activation_of_a_linear_probe_by_hand(probe):
    data = made.planted(60, width=12, carriers=(5,))
    x = data.x * torch.logspace(-2, 2, 12) + 3
    x[:, 8] = 2.5
    data = replace(data, x=x, y=data.y - 0.5)
    fitted = probe.fit_examples(data)
    rows = x[np.abs(data.y) > getattr(probe, "cut", 0)].double().numpy()
    spread = np.where(rows.std(0) > 0, rows.std(0), np.inf)
    z = (x.double().numpy() - rows.mean(0)) / spread
    weight = fitted.net_.weight[0].detach().double().numpy()
    with torch.no_grad():
        found = gradient_x_activation(fitted, data)
    np.testing.assert_allclose(found, np.abs(weight) * np.abs(z).mean(0), rtol=1e-4, atol=1e-6)
    assert found[8] == 0


@pytest.mark.parametrize("probe", [ValueProbe("mc", "mlp", 16), DopamineProbe(0.0, "mlp", 16)])
def test_gradient_x_activation_of_a_net_is_that_of_finite_differences(probe):
    data = made.planted(40, width=6, carriers=(5,))
    x = data.x * torch.logspace(-1, 1, 6)
    x[:, 2] = 2.5
    fitted = probe.fit_examples(replace(data, x=x))
    net, mean, scale = deepcopy(fitted.net_).double(), fitted.mean_.double(), fitted.scale_.double()
    expected = np.zeros(6)
    for i in range(6):
        step = torch.zeros(6).double()
        step[i] = 1e-6  # in raw units
        with torch.no_grad():
            up, down = (net((x + sign * step - mean) / scale)[:, 0] for sign in (1, -1))
        expected[i] = ((up - down) / 2e-6 * (x[:, i] - mean[i])).abs().mean()
    found = gradient_x_activation(fitted, replace(data, x=x))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)
    assert found[2] == 0 and found.argmax() == 5


def test_gradient_x_activation_needs_a_fitted_probe_of_that_width():
    data = made.planted(20)
    with pytest.raises(MechRewardError, match="not fitted"):
        gradient_x_activation(ValueProbe(), data)
    fitted = ValueProbe("mc", "linear").fit_examples(data)
    with pytest.raises(MechRewardError, match="reads 32 neurons; 31 were given"):
        gradient_x_activation(fitted, replace(data, x=data.x[:, 1:]))


def test_magnitude_is_the_root_mean_square():
    data = replace(made.planted(2), x=torch.tensor([[3.0, 0.0], [4.0, -2.0]]))
    assert magnitude(data) == pytest.approx([np.sqrt(12.5), np.sqrt(2)])


@pytest.mark.parametrize("ranking", [mean_difference, correlation, l1_penalised])
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
            True,
        )
        for i in range(count)
    )
    return Rollouts(runs, (problem,) * count, Policy(), made.MODEL)


def test_the_neuron_that_knows_the_next_token_leads():
    """Neuron 6 holds the next token at generated positions; neuron 2 holds it in the prompt, which
    does not count."""
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
    """Summed absolute weights that read each neuron, from a plain HuggingFace model's own
    matrices."""
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
    attention = (
        ()
        if kind == "resid_mid"
        else (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj)
    )
    return columns(block.mlp.up_proj, block.mlp.gate_proj, *attention)


@pytest.mark.parametrize("site", ["0.resid_post", "1.resid_pre", "0.resid_mid", "1.mlp", "last"])
def test_weights_that_read_are_those_of_the_plain_model(tiny_model, tiny_plain, site):
    site = f"{tiny_model.cfg.n_layers - 1}.resid_post" if site == "last" else site
    np.testing.assert_allclose(
        weight_magnitude(tiny_model, Site.parse(site)), readers(tiny_plain, site), rtol=1e-5
    )


def test_wanda_is_weight_times_activation(tiny_model):
    from types import SimpleNamespace

    site = Site.parse("0.mlp")
    acts = SimpleNamespace(site=site, rms=lambda: torch.arange(tiny_model.cfg.d_mlp).float())
    expected = weight_magnitude(tiny_model, site) * np.arange(tiny_model.cfg.d_mlp)
    assert wanda.__wrapped__(tiny_model, acts) == pytest.approx(expected)
