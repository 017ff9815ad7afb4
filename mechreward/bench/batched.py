"""Many probes of the same rows at once: shared Gram matrices and single large products instead of a
loop of fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechreward.base.errors import MechRewardError, require
from mechreward.base.streams import stream
from mechreward.probing.probe import net


@dataclass(frozen=True)
class Fits:
    """Linear read-outs `x @ coef + intercept`, one for each fit.

    Attributes
    ----------
    coef
        Weights `[*fit width]`.
    intercept
        Intercepts `[*fit]`.
    """

    coef: Float[Tensor, "*fit width"] = field(repr=False)
    intercept: Float[Tensor, "*fit"] = field(repr=False)

    def predict(self, x: Float[Tensor, "row width"]) -> Float[Tensor, "*fit row"]:
        """Read-outs; for logistic fits, log-odds."""
        return self.coef @ x.to(self.coef).T + self.intercept[..., None]


def folds(group: Int[Tensor, " row"], count: int) -> Bool[Tensor, "fold row"]:
    """Divide rows into folds that leave out whole groups, so that no problem is on both sides.

    Parameters
    ----------
    group
        The group of every row `[row]`.
    count
        Number of folds: each leaves out every `count`-th group.

    Returns
    -------
    Tensor
        True where a row is fitted on `[fold row]`.

    Raises
    ------
    MechRewardError
        Fewer than 2 folds, or more folds than groups.
    """
    _, member = group.unique(return_inverse=True)
    require(
        2 <= count <= int(member.max()) + 1,
        f"{count} folds need at least 2 and as many groups as folds.",
    )
    return member % count != torch.arange(count, device=group.device)[:, None]


@torch.no_grad()
def ridge(
    x: Float[Tensor, "row width"],
    y: Float[Tensor, "row target"],
    kept: Bool[Tensor, "fold row"],
    alphas: Float[Tensor, " alpha"],
) -> Fits:
    """Ridge regression of every target on every fold at every penalty.

    Each equals scikit-learn's `Ridge(alpha)` fitted to the fold's rows alone (sum of squares +
    alpha |w|^2, intercept free). A fold's Gram matrix is that of all rows less that of the rows it
    leaves out, and one eigendecomposition of it serves all penalties and targets; in float64,
    because differences of Gram matrices cancel.

    Parameters
    ----------
    x
        Inputs `[row width]`.
    y
        Targets `[row target]`.
    kept
        The rows that each fold is fitted to `[fold row]`, as `folds` gives them.
    alphas
        Penalties `[alpha]`.

    Returns
    -------
    Fits
        With `coef` `[fold alpha target width]`.

    Raises
    ------
    MechRewardError
        A penalty that is not positive, or a fold without rows.
    """
    require(
        bool((alphas > 0).all()),
        f"ridge penalties must be positive; {alphas.tolist()} were given.",
    )
    require(bool(kept.any(1).all()), "every fold needs rows to fit on.")
    centre = x.double().mean(0)
    x = x.double() - centre
    y = y.double()
    gram = x.T @ x
    moment = x.T @ y
    penalties = alphas.double()[:, None, None]
    coefs = []
    intercepts = []
    for rows in kept:
        n = int(rows.sum())
        x_out = x[~rows]
        y_out = y[~rows]
        x_mean = x[rows].mean(0)
        y_mean = y[rows].mean(0)
        fold_gram = gram - x_out.T @ x_out - n * torch.outer(x_mean, x_mean)
        fold_moment = moment - x_out.T @ y_out - n * torch.outer(x_mean, y_mean)
        values, vectors = torch.linalg.eigh(fold_gram)
        values = values.clamp(min=0)[:, None]
        turned = vectors.T @ fold_moment
        coef = vectors @ (turned / (values + penalties))
        coef = coef.transpose(1, 2)
        coefs.append(coef)
        intercepts.append(y_mean - coef @ (x_mean + centre))
    return Fits(torch.stack(coefs), torch.stack(intercepts))


@torch.no_grad()
def logistic(
    x: Float[Tensor, "row width"],
    y: Float[Tensor, "row fit"],
    kept: Bool[Tensor, "row fit"],
    c: Float[Tensor, " fit"],
    *,
    tolerance: float = 1e-4,
    most: int = 300,
) -> Fits:
    """Logistic regression of every column of `y` on its own rows.

    Each equals scikit-learn's `LogisticRegression(C=c)`: |w|^2 / 2 + c times the summed log loss,
    intercept free. Conjugate gradients (Polak-Ribiere) on all fits at once, so that each pass over
    `x` is a matrix product. The coordinates are the eigenvectors of the Gram matrix of all rows,
    which leaves the penalty as it is and makes a diagonal preconditioner a good one; the line
    search is Newton's in one variable, on numbers that need no further pass. A fit stops where its
    gradient proves (the objective is strongly convex) that no coefficient is further than
    `tolerance` from the solution; in float64, because float32 cannot prove it.

    Parameters
    ----------
    x
        Inputs `[row width]`.
    y
        Labels of every fit, 0 or 1 `[row fit]`.
    kept
        The rows that each fit is fitted to `[row fit]`.
    c
        `C` of each fit `[fit]`.
    tolerance
        Largest distance of a coefficient from the solution.
    most
        Steps until a fit counts as one that does not converge.

    Returns
    -------
    Fits
        With `coef` `[fit width]`.

    Raises
    ------
    MechRewardError
        A penalty that is not positive, a fit whose rows hold one class only, or no convergence.
    """
    require(bool((c > 0).all()), f"C must be positive; {c.tolist()} were given.")
    right = (y * kept).sum(0)
    rows = kept.sum(0)
    require(bool(((right > 0) & (right < rows)).all()), "a fit needs rows of both classes.")
    n, fits = y.shape
    x = x.double()
    c = c.double()
    centre = x.mean(0)
    x = x - centre
    values, vectors = torch.linalg.eigh(x.T @ x)
    values = values.clamp(min=0)
    # One column more for the intercept.
    z = torch.cat([x @ vectors, x.new_ones(n, 1)], 1)
    share = torch.cat([values / n, values.new_ones(1)])
    solution = x.new_zeros(z.shape[1], fits)
    solution[-1] = torch.logit(right / rows)
    # The objective is divided by c and the number of rows.
    penalty = (1 / (c * rows)).expand(z.shape[1], -1).clone()
    penalty[-1] = 0
    descent = _Descent(
        y=y.to(x),
        weight=kept.to(x) / rows,
        penalty=penalty,
        w=solution.clone(),
        reach=z @ solution,
    )
    live = torch.arange(fits, device=x.device)
    for _ in range(most):
        chance = descent.reach.sigmoid()
        miss = descent.weight * (chance - descent.y)
        slope = z.T @ miss + descent.penalty * descent.w
        solution[:, live] = descent.w
        going = slope.norm(dim=0) > tolerance * descent.penalty[0]
        if not going.any():
            break
        if not going.all():
            live = live[going]
            descent = descent.only(going)
            chance = chance[:, going]
            slope = slope[:, going]
        descent.move(z, share, chance, slope)
    else:
        raise MechRewardError(
            f"{len(live)} of {fits} logistic fits did not converge in {most} steps."
        )
    coef = (vectors @ solution[:-1]).T
    return Fits(coef, solution[-1] - coef @ centre)


@dataclass
class _Descent:
    """Logistic fits that have not converged yet, one a column, and the state of their conjugate
    gradients: labels, weights of rows, penalties, coefficients `w`, log-odds `reach`, and the step,
    slope and preconditioned slope of the last move."""

    y: Tensor
    weight: Tensor
    penalty: Tensor
    w: Tensor
    reach: Tensor
    step: Tensor | None = None
    slope: Tensor | None = None
    ready: Tensor | None = None

    def only(self, going: Tensor) -> _Descent:
        """The fits where `going` `[fit]` is True."""
        columns = {}
        for part in fields(self):
            tensor = getattr(self, part.name)
            columns[part.name] = None if tensor is None else tensor[:, going]
        return _Descent(**columns)

    def move(
        self,
        z: Tensor,
        share: Tensor,
        chance: Tensor,
        slope: Tensor,
    ) -> None:
        """One step of every fit, along a direction conjugate to the last one."""
        curved = (self.weight * chance * (1 - chance)).sum(0)
        curved = share[:, None] * curved + self.penalty
        ready = slope / curved.clamp(min=1e-12)
        step = -ready
        if self.step is not None and self.slope is not None and self.ready is not None:
            change = (slope - self.slope) * ready
            before = self.slope * self.ready
            beta = change.sum(0) / before.sum(0)
            step = beta.clamp(min=0) * self.step - ready
        self.step = step
        self.slope = slope
        self.ready = ready
        ahead = z @ step
        length = self.length(step, ahead)
        self.w = self.w + length * step
        self.reach = self.reach + length * ahead

    def length(self, step: Tensor, ahead: Tensor) -> Tensor:
        """How far along `step` the lowest point lies: Newton's method in one variable, which a
        convex loss allows. `ahead` is what the whole step adds to the log-odds."""
        length = torch.zeros_like(self.w[0])
        inner = (self.penalty * self.w * step).sum(0)
        square = (self.penalty * step * step).sum(0)
        for _ in range(3):
            chance = (self.reach + length * ahead).sigmoid()
            rise = self.weight * (chance - self.y) * ahead
            rise = rise.sum(0) + inner + length * square
            bend = self.weight * chance * (1 - chance) * ahead * ahead
            bend = bend.sum(0) + square
            length = length - rise / bend.clamp(min=1e-20)
        return length


def mlps(
    x: Float[Tensor, "row width"],
    y: Float[Tensor, "row fit"],
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

    Each equals what `ValueProbe` and `DopamineProbe` fit alone (AdamW, the same first weights and
    order for the same seed) on the same standardised `x`: an update is one batched product over all
    fits, padded where their trajectories differ in length. Without bootstrapped targets.

    Parameters
    ----------
    x
        Standardised inputs `[row width]`.
    y
        Targets `[row fit]`.
    trajectory
        The trajectory of every row `[row]`; rows of one lie side by side.
    seeds
        One for each fit.
    hidden, rate, epochs, batch
        As for `ValueProbe`: hidden units, learning rate, passes over the rows, and whole
        trajectories an update.

    Returns
    -------
    list of torch.nn.Sequential
        One net for each fit.

    Raises
    ------
    MechRewardError
        Not one seed for each column.
    """
    require(
        len(seeds) == y.shape[1],
        f"{y.shape[1]} fits need as many seeds; {len(seeds)} were given.",
    )
    nets = [net(x.shape[1], hidden, seed).to(x.device) for seed in seeds]
    parameters = [list(alone.parameters()) for alone in nets]
    weights = []
    for parts in zip(*parameters, strict=True):
        stacked = torch.stack(parts).detach()
        weights.append(stacked.requires_grad_())
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.01, fused=True)
    generators = [torch.Generator().manual_seed(stream("probe: order", seed)) for seed in seeds]
    changes = trajectory[1:] != trajectory[:-1]
    numbers = torch.arange(len(trajectory))
    rows = numbers.tensor_split((np.flatnonzero(changes) + 1).tolist())
    for _ in range(epochs):
        orders = []
        for generator in generators:
            order = torch.randperm(len(rows), generator=generator)
            orders.append(order.tolist())
        for begin in range(0, len(rows), batch):
            picked = []
            for order in orders:
                chosen = order[begin : begin + batch]
                picked.append(torch.cat([rows[number] for number in chosen]))
            loss = _loss(weights, x, y, picked)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        for fit, alone in enumerate(parameters):
            for parameter, stacked in zip(alone, weights, strict=True):
                parameter.copy_(stacked[fit])
    return nets


def _loss(
    weights: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    picked: Sequence[Tensor],
) -> Tensor:
    """Summed over fits, the mean squared error of each on the rows picked for it."""
    first, first_bias, second, second_bias = weights
    count = torch.tensor([[len(rows)] for rows in picked], device=x.device)
    index = torch.nn.utils.rnn.pad_sequence(list(picked), batch_first=True).to(x.device)
    inside = torch.arange(index.shape[1], device=x.device) < count
    fit = torch.arange(len(picked), device=x.device)[:, None]
    inner = torch.baddbmm(first_bias[:, None], x[index], first.mT).relu()
    read = einsum(inner, second[:, 0], "fit row hidden, fit hidden -> fit row")
    miss = read + second_bias - y[index, fit]
    return (miss.square() * inside / count).sum()
