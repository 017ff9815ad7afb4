"""Many probes of the same rows at once: shared Gram matrices and single large products instead of a
loop of fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from einops import einsum
from jaxtyping import Bool, Float, Int

from mechreward.base.errors import require
from mechreward.base.streams import stream


@dataclass(frozen=True)
class Fits:
    """Linear read-outs `x @ coef + intercept`, one for each fit."""

    coef: Float[torch.Tensor, "*fit width"] = field(repr=False)
    intercept: Float[torch.Tensor, "*fit"] = field(repr=False)

    def predict(self, x: Float[torch.Tensor, "row width"]) -> Float[torch.Tensor, "*fit row"]:
        """Read-outs; for logistic fits, log-odds."""
        return self.coef @ x.to(self.coef).T + self.intercept[..., None]


def folds(group: Int[torch.Tensor, " row"], count: int) -> Bool[torch.Tensor, "fold row"]:
    """True where a row is fitted on: each fold leaves out every `count`-th group, so no problem is
    on both sides."""
    _, member = group.unique(return_inverse=True)
    require(
        2 <= count <= int(member.max()) + 1,
        f"{count} folds need at least 2 and as many groups as folds.",
    )
    return member % count != torch.arange(count, device=group.device)[:, None]


@torch.no_grad()
def ridge(
    x: Float[torch.Tensor, "row width"],
    y: Float[torch.Tensor, "row target"],
    kept: Bool[torch.Tensor, "fold row"],
    alphas: Float[torch.Tensor, " alpha"],
) -> Fits:
    """Ridge regression of every target on every fold at every penalty: `coef` [fold alpha target
    width].

    Each equals scikit-learn's `Ridge(alpha)` fitted to the fold's rows alone (sum of squares +
    alpha |w|^2, intercept free). A fold's Gram matrix is that of all rows less that of the rows it
    leaves out, and one eigendecomposition of it serves all penalties and targets; in float64,
    because differences of Gram matrices cancel.

    Raises:
        MechRewardError: a penalty that is not positive, or a fold without rows.
    """
    require(
        bool((alphas > 0).all()), f"ridge penalties must be positive; {alphas.tolist()} were given."
    )
    require(bool(kept.any(1).all()), "every fold needs rows to fit on.")
    centre = x.double().mean(0)
    x, y = x.double() - centre, y.double()
    gram, moment = x.T @ x, x.T @ y
    coefs, intercepts = [], []
    for rows in kept:
        n, out, wanted = int(rows.sum()), x[~rows], y[~rows]
        x_mean, y_mean = x[rows].mean(0), y[rows].mean(0)
        values, vectors = torch.linalg.eigh(gram - out.T @ out - n * torch.outer(x_mean, x_mean))
        turned = vectors.T @ (moment - out.T @ wanted - n * torch.outer(x_mean, y_mean))
        coef = vectors @ (turned / (values.clamp(min=0)[:, None] + alphas.double()[:, None, None]))
        coefs.append(coef.transpose(1, 2))
        intercepts.append(y_mean - coefs[-1] @ (x_mean + centre))
    return Fits(torch.stack(coefs), torch.stack(intercepts))


@torch.no_grad()
def logistic(
    x: Float[torch.Tensor, "row width"],
    y: Float[torch.Tensor, "row fit"],
    kept: Bool[torch.Tensor, "row fit"],
    c: Float[torch.Tensor, " fit"],
    *,
    tolerance: float = 1e-4,
    most: int = 300,
) -> Fits:
    """Logistic regression of every column of `y` (0/1) on the rows of its column of `kept`: `coef`
    [fit width].

    Each equals scikit-learn's `LogisticRegression(C=c)`: |w|^2 / 2 + c times the summed log loss,
    intercept free. Conjugate gradients (Polak-Ribiere) on all fits at once, so that each pass over
    `x` is a matrix product. The coordinates are the eigenvectors of the Gram matrix of all rows,
    which leaves the penalty as it is and makes a diagonal preconditioner a good one; the line
    search is Newton's in one variable, on numbers that need no further pass. A fit stops where its
    gradient proves (the objective is strongly convex) that no coefficient is further than
    `tolerance` from the solution; in float64, because float32 cannot prove it.

    Raises:
        MechRewardError: a penalty that is not positive, a fit whose rows hold one class only, or no
        convergence.
    """
    require(bool((c > 0).all()), f"C must be positive; {c.tolist()} were given.")
    right, rows = (y * kept).sum(0), kept.sum(0)
    require(bool(((right > 0) & (right < rows)).all()), "a fit needs rows of both classes.")
    x, c = x.double(), c.double()
    centre = x.mean(0)
    values, vectors = torch.linalg.eigh((x - centre).T @ (x - centre))
    # One column more for the intercept.
    z = torch.cat([(x - centre) @ vectors, x.new_ones(len(x), 1)], 1)
    share = torch.cat([values.clamp(min=0) / len(x), values.new_ones(1)])
    whole = x.new_zeros(z.shape[1], y.shape[1])
    whole[-1] = torch.logit(right / rows)
    live = torch.arange(y.shape[1], device=x.device)
    y, weight = y.to(x), kept.to(x) / rows  # the objective is divided by c and the number of rows
    penalty = (1 / (c * rows)).expand(z.shape[1], -1).clone()
    penalty[-1] = 0
    w, reach = whole.clone(), z @ whole
    step = before = None
    for _ in range(most):
        chance = reach.sigmoid()
        slope = z.T @ (weight * (chance - y)) + penalty * w
        whole[:, live] = w
        going = slope.norm(dim=0) > tolerance * penalty[0]
        if not going.any():
            break
        if not going.all():
            live, w, slope, penalty = live[going], w[:, going], slope[:, going], penalty[:, going]
            y, weight, reach, chance = (
                y[:, going],
                weight[:, going],
                reach[:, going],
                chance[:, going],
            )
            step, before = (
                (None, None)
                if step is None or before is None
                else (step[:, going], before[:, going])
            )
        curved = (weight * chance * (1 - chance)).sum(0)
        ready = slope / (share[:, None] * curved + penalty).clamp(min=1e-12)
        if step is None or before is None:
            step = -ready
        else:
            old_slope, old_ready = before.unbind(-1)
            beta = ((slope - old_slope) * ready).sum(0) / (old_slope * old_ready).sum(0)
            step = beta.clamp(min=0) * step - ready
        before = torch.stack([slope, ready], -1)
        w, reach = _search(w, reach, step, z @ step, y, weight, penalty)
    else:
        require(
            False,
            f"{len(live)} of {whole.shape[1]} logistic fits did not converge in {most} steps.",
        )
    coef = (vectors @ whole[:-1]).T
    return Fits(coef, whole[-1] - coef @ centre)


def _search(
    w: torch.Tensor,
    reach: torch.Tensor,
    step: torch.Tensor,
    ahead: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor,
    penalty: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The lowest point along `step`: Newton's method in one variable, which a convex loss
    allows."""
    length = torch.zeros_like(w[0])
    inner, square = (penalty * w * step).sum(0), (penalty * step * step).sum(0)
    for _ in range(3):
        chance = (reach + length * ahead).sigmoid()
        rise = (weight * (chance - y) * ahead).sum(0) + inner + length * square
        bend = (weight * chance * (1 - chance) * ahead * ahead).sum(0) + square
        length = length - rise / bend.clamp(min=1e-20)
    return w + length * step, reach + length * ahead


def mlps(
    x: Float[torch.Tensor, "row width"],
    y: Float[torch.Tensor, "row fit"],
    trajectory: Int[np.ndarray, " row"],
    seeds: Sequence[int],
    *,
    hidden: int,
    rate: float,
    epochs: int,
    batch: int,
) -> list[torch.nn.Sequential]:
    """The paper's d -> hidden -> 1 ReLU nets, one for each column of `y` and its seed, trained side
    by side.

    Each equals what `ValueProbe` and `DopamineProbe` fit alone (AdamW, `batch` whole trajectories
    an update, the same first weights and order for the same seed) on the same standardised `x`: an
    update is one batched product over all fits, padded where their trajectories differ in length.
    Without bootstrapped targets.

    Raises:
        MechRewardError: not one seed for each column.
    """
    require(
        len(seeds) == y.shape[1], f"{y.shape[1]} fits need as many seeds; {len(seeds)} were given."
    )
    nets = [net(x.shape[1], hidden, seed).to(x.device) for seed in seeds]
    stacked = [
        torch.stack(same).detach() for same in zip(*(one.parameters() for one in nets), strict=True)
    ]
    first, first_bias, second, second_bias = (part.requires_grad_() for part in stacked)
    weights = [first, first_bias, second, second_bias]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.01, fused=True)
    generators = [torch.Generator().manual_seed(stream("probe: order", seed)) for seed in seeds]
    rows = np.split(
        np.arange(len(trajectory)), np.flatnonzero(trajectory[1:] != trajectory[:-1]) + 1
    )
    parts = [torch.from_numpy(part) for part in rows]
    fit = torch.arange(len(seeds), device=x.device)[:, None]
    for _ in range(epochs):
        orders = [
            torch.randperm(len(parts), generator=generator).tolist() for generator in generators
        ]
        for begin in range(0, len(parts), batch):
            picked = [
                torch.cat([parts[t] for t in order[begin : begin + batch]]) for order in orders
            ]
            count = torch.tensor([[len(one)] for one in picked], device=x.device)
            index = torch.nn.utils.rnn.pad_sequence(picked, batch_first=True).to(x.device)
            inside = torch.arange(index.shape[1], device=x.device) < count
            inner = torch.baddbmm(first_bias[:, None], x[index], first.mT).relu()
            read = (
                einsum(inner, second[:, 0], "fit row hidden, fit hidden -> fit row") + second_bias
            )
            loss = ((read - y[index, fit]).square() * inside / count).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        for number, one in enumerate(nets):
            for own, shared in zip(
                one.parameters(), (first, first_bias, second, second_bias), strict=True
            ):
                own.copy_(shared[number])
    return nets


def net(width: int, hidden: int, seed: int) -> torch.nn.Sequential:
    """A fresh d -> hidden -> 1 ReLU net. Its first layer begins at a hundredth of PyTorch's default
    (our choice): from the default, a column's L1 norm, which ranks the neurons, is mostly the
    random weights that it began with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream("probe: first weights", seed))
        first, second = torch.nn.Linear(width, hidden), torch.nn.Linear(hidden, 1)
    with torch.no_grad():
        first.weight.mul_(0.01)
    return torch.nn.Sequential(first, torch.nn.ReLU(), second)
