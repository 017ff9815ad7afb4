"""P7: many probes at once beside a loop of fits that reach the same solution."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from mechreward.bench.batched import folds, logistic, mlps, ridge
from mechreward.bench.counts import worth
from mechreward.bench.ground import ERROR, Contest, Ground, Parity
from mechreward.probing.probe import DopamineProbe
from mechreward.probing.targets import Examples

FOLDS = 5
ALPHAS = torch.logspace(0, 4, 5)
CS = torch.logspace(-3, 0, 3)

# Coefficients or read-outs, one array a fit.
Fitted = list[np.ndarray]


def p7(ground: Ground) -> list[Contest]:
    """Made-up rows: correlated inputs as in a residual stream, targets that lie in them, 10 rows a
    problem."""
    sizes = ground.sizes
    generator = torch.Generator().manual_seed(ground.seed)
    width = sizes.width
    targets = max(1, sizes.fits // 4)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    scale = torch.arange(1, width + 1) ** -0.5
    mixing = normal(width, width) * scale
    x = normal(sizes.rows, width) @ mixing.T
    x = (x - x.mean(0)) / x.std(0, correction=0)
    y = x @ normal(width, targets) / width**0.5
    y = y + normal(sizes.rows, targets) / 2
    group = torch.arange(sizes.rows) // 10
    kept = folds(group, FOLDS)
    return [
        _ridge(x, y, kept),
        _logistic(x, y, kept),
        _mlps(x, y, group, sizes.fits),
    ]


def _ridge(x: Tensor, y: Tensor, kept: Tensor) -> Contest:
    fits = list(product(range(FOLDS), ALPHAS.tolist(), range(y.shape[1])))
    inputs = _folded(x, kept)
    targets = _folded(y, kept)

    def loop() -> Fitted:
        coefs = []
        for fold, alpha, target in fits:
            model = Ridge(alpha=alpha)
            model.fit(inputs[fold], targets[fold][:, target])
            coefs.append(np.append(model.coef_, model.intercept_))
        return coefs

    def together() -> Fitted:
        batched = ridge(x, y, kept, ALPHAS)
        intercept = batched.intercept[..., None]
        coefs = torch.cat([batched.coef, intercept], -1)
        return list(coefs.flatten(0, -2).numpy())

    return _contest("ridge", 8.0, together, loop, len(fits), "scikit-learn")


def _logistic(x: Tensor, y: Tensor, kept: Tensor) -> Contest:
    fits = list(product(range(FOLDS), CS.tolist(), range(y.shape[1])))
    labels = (y > y.median(0).values).float()
    inputs = _folded(x, kept)
    targets = _folded(labels, kept)

    def loop() -> Fitted:
        coefs = []
        for fold, c, target in fits:
            # At its own tolerance of 1e-4 scikit-learn stops as far as 0.06 from the solution.
            model = LogisticRegression(C=c, tol=1e-7, max_iter=5000)
            model.fit(inputs[fold], targets[fold][:, target])
            coefs.append(np.append(model.coef_[0], model.intercept_))
        return coefs

    def together() -> Fitted:
        folds_of, cs, targets_of = (list(column) for column in zip(*fits, strict=True))
        columns = labels[:, targets_of]
        batched = logistic(x, columns, kept[folds_of].T, torch.tensor(cs))
        intercept = batched.intercept[:, None]
        coefs = torch.cat([batched.coef, intercept], 1)
        return list(coefs.numpy())

    return _contest("logistic", 3.0, together, loop, len(fits), "scikit-learn")


def _folded(x: Tensor, kept: Tensor) -> list[np.ndarray]:
    """The rows that each fold is fitted to."""
    whole = x.double().numpy()
    return [whole[rows] for rows in kept.numpy()]


def _mlps(x: Tensor, y: Tensor, group: Tensor, count: int) -> Contest:
    shape = {"hidden": 32, "rate": 1e-3, "epochs": 5, "batch": 20}
    seeds = [number // y.shape[1] for number in range(count)]
    targets = [number % y.shape[1] for number in range(count)]
    place = group.numpy()
    ones = np.ones(len(x), int)
    reward = (place % 2).astype(int)

    def loop() -> Fitted:
        reads = []
        for seed, target in zip(seeds, targets, strict=True):
            goal = y[:, target].double().numpy()
            data = Examples(x, goal, reward, place, place, ones, ones > 0)
            probe = DopamineProbe(seed=seed, **shape)
            probe.fit_examples(data)
            reads.append(probe.predict(x))
        return reads

    def together() -> Fitted:
        inputs = (x - x.mean(0)) / x.std(0, correction=0)
        nets = mlps(inputs, y[:, targets], place, seeds, **shape)
        with torch.no_grad():
            return [net(inputs)[:, 0].numpy() for net in nets]

    return _contest("MLP", 2.5, together, loop, count, "one_by_one")


def _contest(
    kind: str,
    target: float,
    together: Callable[[], Fitted],
    loop: Callable[[], Fitted],
    count: int,
    rival: str,
) -> Contest:
    """Fits of one kind: all together against a loop, which goes by the name `rival`."""

    def parity() -> Parity:
        errors = []
        for ours, theirs in zip(together(), loop(), strict=True):
            errors.append(float(np.abs(ours - theirs).max()))
        return {rival: (ERROR, max(errors))}

    return Contest(
        "P7",
        work=f"{count} {kind} fits",
        unit="fits/s",
        arms={"mechreward": worth(count, together), rival: worth(count, loop)},
        parity=parity,
        target=target,
        aimed=(rival,),
    )
