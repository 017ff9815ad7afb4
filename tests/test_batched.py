"""Batched fits against scikit-learn and against the one-by-one probes, fit by fit."""

from __future__ import annotations

import numpy as np
import pytest
import rows as made
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from mechreward.base.errors import MechRewardError
from mechreward.bench.batched import folds, logistic, mlps, ridge
from mechreward.probing.probe import DopamineProbe, ValueProbe

ROWS, WIDTH = 240, 24


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Correlated inputs of different scales, off centre; three targets; the problem of each row."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(ROWS, WIDTH, generator=generator) @ torch.randn(
        WIDTH, WIDTH, generator=generator
    )
    x = mixed * torch.logspace(-1, 0.3, WIDTH) + torch.linspace(-5, 5, WIDTH)
    y = mixed[:, :3] * 0.3 + torch.randn(ROWS, 3, generator=generator)
    return x, y, torch.arange(ROWS) // 5 * 7


def test_folds_leave_out_every_problem_once(data):
    _, _, group = data
    kept = folds(group, 4)
    assert torch.equal((~kept).sum(0), torch.ones(ROWS, dtype=torch.long))
    for rows in kept:
        assert (
            not set(group[rows].tolist()) & set(group[~rows].tolist())
            and (~rows).sum() == ROWS // 4
        )
    for count in (1, 49):
        with pytest.raises(MechRewardError, match=f"{count} folds need"):
            folds(group, count)


def test_ridge_equals_scikit_learn(data):
    x, y, group = data
    kept, alphas = folds(group, 4), torch.tensor([0.1, 3.0, 500.0])
    fits = ridge(x, y, kept, alphas)
    read = fits.predict(x)
    for f, rows in enumerate(kept):
        for a, alpha in enumerate(alphas):
            for t in range(3):
                alone = Ridge(alpha=float(alpha)).fit(
                    x[rows].double().numpy(), y[rows, t].double().numpy()
                )
                np.testing.assert_allclose(fits.coef[f, a, t], alone.coef_, atol=1e-8)
                np.testing.assert_allclose(fits.intercept[f, a, t], alone.intercept_, atol=1e-8)
                np.testing.assert_allclose(
                    read[f, a, t], alone.predict(x.double().numpy()), atol=1e-7
                )


def test_ridge_with_more_inputs_than_rows(data):
    x, y, _ = data
    kept = torch.arange(20)[None] % 2 == torch.tensor([[0], [1]])
    fits = ridge(x[:20], y[:20], kept, torch.tensor([1.0]))
    alone = Ridge(alpha=1.0, solver="svd").fit(
        x[:20:2].double().numpy(), y[:20:2, 1].double().numpy()
    )
    np.testing.assert_allclose(fits.coef[0, 0, 1], alone.coef_, atol=1e-8)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_logistic_equals_scikit_learn(data, scale: float):
    """Also where the classes nearly come apart (large scale)."""
    x, y, group = data
    x = (x - x.mean(0)) / x.std(0)
    labels = (scale * y + 0.4 > 0).float().repeat(1, 2)
    kept = folds(group, 6).T
    c = torch.tensor([0.01, 0.1, 1.0, 0.01, 10.0, 0.3])
    fits = logistic(x, labels, kept, c)
    for f in range(6):
        alone = LogisticRegression(C=float(c[f]), tol=1e-9, max_iter=5000)
        alone.fit(x[kept[:, f]].double().numpy(), labels[kept[:, f], f].numpy())
        np.testing.assert_allclose(fits.coef[f], alone.coef_[0], atol=1e-4)
        np.testing.assert_allclose(fits.intercept[f], alone.intercept_[0], atol=1e-4)
        np.testing.assert_allclose(
            fits.predict(x)[f], alone.decision_function(x.double().numpy()), atol=1e-3
        )


def test_many_mlps_are_each_the_probe_fitted_alone():
    """Different seeds (so other first weights and another order), different targets, trajectories
    of ragged length."""
    data = made.planted(30, states=3, per=2)
    ragged = data.only(~((data.trajectory % 3 == 0) & (data.step == 2)))
    noisy = ragged.reward.astype(float)
    shape = {"hidden": 16, "rate": 2e-3, "epochs": 4, "batch": 7}
    probes = [
        ValueProbe(seed=seed, target=target, **shape)
        for seed in (0, 3)
        for target in ("mc", "terminal")
    ]
    for probe in probes:
        probe.fit_examples(ragged)
    mean, scale = probes[0].mean_, probes[0].scale_
    y = torch.from_numpy(np.stack([ragged.y, noisy] * 2, 1)).float()
    nets = mlps((ragged.x - mean) / scale, y, ragged.trajectory, [0, 0, 3, 3], **shape)
    for probe, net in zip(probes, nets, strict=True):
        for ours, alone in zip(net.parameters(), probe.net_.parameters(), strict=True):
            torch.testing.assert_close(ours, alone, atol=2e-5, rtol=1e-4)
    alone = DopamineProbe(seed=5, **shape).fit_examples(ragged)
    (net,) = mlps((ragged.x - mean) / scale, y[:, :1], ragged.trajectory, [5], **shape)
    np.testing.assert_allclose(
        net((ragged.x - mean) / scale)[:, 0].detach(), alone.predict(ragged.x), atol=1e-5
    )


def test_mistakes_are_told(data):
    x, y, group = data
    kept = folds(group, 4)
    with pytest.raises(MechRewardError, match="ridge penalties must be positive"):
        ridge(x, y, kept, torch.tensor([0.0]))
    with pytest.raises(MechRewardError, match="every fold needs rows"):
        ridge(x, y, kept & False, torch.ones(1))
    labels = (y > 0).float()
    with pytest.raises(MechRewardError, match="C must be positive"):
        logistic(x, labels, kept.T[:, :3], torch.zeros(3))
    with pytest.raises(MechRewardError, match="rows of both classes"):
        logistic(x, labels * 0, kept.T[:, :3], torch.ones(3))
    with pytest.raises(MechRewardError, match="3 of 3 logistic fits did not converge in 1 steps"):
        logistic(x, labels, kept.T[:, :3], torch.ones(3), most=1)
    with pytest.raises(MechRewardError, match="3 fits need as many seeds; 1"):
        mlps(x, y, np.arange(ROWS), [0], hidden=2, rate=1e-3, epochs=1, batch=8)
