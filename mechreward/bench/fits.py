"""P7: many probes at once beside a loop of fits that reach the same solution."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from mechreward.bench.ground import ERROR, Contest, Ground
from mechreward.bench.batched import folds, logistic, mlps, ridge
from mechreward.probing.probe import DopamineProbe
from mechreward.probing.targets import Examples

FOLDS, ALPHAS, CS = 5, torch.logspace(0, 4, 5), torch.logspace(-3, 0, 3)


def p7(ground: Ground) -> list[Contest]:
    """Made-up rows: correlated inputs as in a residual stream, targets that lie in them, 10 rows a
    problem."""
    size = ground.sizes
    generator = torch.Generator().manual_seed(ground.seed)
    mixing = (
        torch.randn(size.width, size.width, generator=generator)
        * torch.arange(1, size.width + 1) ** -0.5
    )
    x = torch.randn(size.rows, size.width, generator=generator) @ mixing.T
    x = (x - x.mean(0)) / x.std(0, correction=0)
    targets = max(1, size.fits // 4)
    y = x @ torch.randn(size.width, targets, generator=generator) / size.width**0.5
    y = y + torch.randn(size.rows, targets, generator=generator) / 2
    group = torch.arange(size.rows) // 10
    kept = folds(group, FOLDS)
    return [_ridge(x, y, kept), _logistic(x, y, kept), _mlps(x, y, group, size.fits)]


def _ridge(x: torch.Tensor, y: torch.Tensor, kept: torch.Tensor) -> Contest:
    each = [(f, a, t) for f in range(FOLDS) for a in range(len(ALPHAS)) for t in range(y.shape[1])]
    rows, inputs, wanted = kept.numpy(), x.double().numpy(), y.double().numpy()

    def loop() -> list[np.ndarray]:
        found = []
        for f, a, t in each:
            model = Ridge(alpha=float(ALPHAS[a])).fit(inputs[rows[f]], wanted[rows[f], t])
            found.append(np.append(model.coef_, model.intercept_))
        return found

    def together() -> list[np.ndarray]:
        fits = ridge(x, y, kept, ALPHAS)
        return list(torch.cat([fits.coef, fits.intercept[..., None]], -1).flatten(0, -2).numpy())

    return _contest("ridge", 8.0, together, loop, len(each), "scikit-learn")


def _logistic(x: torch.Tensor, y: torch.Tensor, kept: torch.Tensor) -> Contest:
    each = [(f, c, t) for f in range(FOLDS) for c in range(len(CS)) for t in range(y.shape[1])]
    labels = (y > y.median(0).values).float()
    rows, inputs, wanted = kept.numpy(), x.double().numpy(), labels.numpy()

    def loop() -> list[np.ndarray]:
        found = []
        for f, c, t in each:
            # At its own tolerance of 1e-4 scikit-learn stops as far as 0.06 from the solution.
            model = LogisticRegression(C=float(CS[c]), tol=1e-7, max_iter=5000).fit(
                inputs[rows[f]], wanted[rows[f], t]
            )
            found.append(np.append(model.coef_[0], model.intercept_))
        return found

    def together() -> list[np.ndarray]:
        which = (
            torch.stack([labels[:, t] for _, _, t in each], 1),
            torch.stack([kept[f] for f, _, _ in each], 1),
        )
        fits = logistic(x, *which, torch.tensor([float(CS[c]) for _, c, _ in each]))
        return list(torch.cat([fits.coef, fits.intercept[:, None]], 1).numpy())

    return _contest("logistic", 3.0, together, loop, len(each), "scikit-learn")


def _mlps(x: torch.Tensor, y: torch.Tensor, group: torch.Tensor, fits: int) -> Contest:
    shape = {"hidden": 32, "rate": 1e-3, "epochs": 5, "batch": 20}
    each = [(n // y.shape[1], n % y.shape[1]) for n in range(fits)]
    place, ones = group.numpy(), np.ones(len(x), int)
    reward = (place % 2).astype(int)

    def loop() -> list[np.ndarray]:
        found = []
        for seed, t in each:
            data = Examples(x, y[:, t].double().numpy(), reward, place, place, ones, ones > 0)
            found.append(DopamineProbe(seed=seed, **shape).fit_examples(data).predict(x))
        return found

    def together() -> list[np.ndarray]:
        mean, scale = x.mean(0), x.std(0, correction=0)
        inputs = (x - mean) / scale
        nets = mlps(inputs, y[:, [t for _, t in each]], place, [seed for seed, _ in each], **shape)
        with torch.no_grad():
            return [net(inputs)[:, 0].numpy() for net in nets]

    return _contest("MLP", 2.5, together, loop, fits, "one_by_one")


def _contest(kind: str, target: float, together, loop, fits: int, rival: str) -> Contest:
    def parity() -> dict[str, tuple[str, float]]:
        pairs = zip(together(), loop(), strict=True)
        return {rival: (ERROR, max(float(np.abs(a - b).max()) for a, b in pairs))}

    def work(run) -> float:
        run()
        return float(fits)

    arms = {"mechreward": lambda: work(together), rival: lambda: work(loop)}
    return Contest("P7", f"{fits} {kind} fits", "fits/s", arms, parity, target, (rival,))
