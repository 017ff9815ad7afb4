"""Rankings of neurons that a value probe's own ranking has to be held against. Each gives a score [width]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import Ridge

from mechreward import stats
from mechreward._check import require
from mechreward.models.site import Site
from mechreward.probing.activations import Activations
from mechreward.probing.targets import Examples
from mechreward.rollouts.trajectory import Rollouts


def mean_difference(data: Examples) -> Float[np.ndarray, " width"]:
    """|mean where the target is above its median - mean where it is not|, in standard deviations of the neuron.

    Free of any probe: the honest baseline of arXiv 2110.07483, since a ranking must not be judged by the probe that
    made it. Constant neurons get 0.

    Raises:
        MechRewardError: a constant target.
    """
    high = torch.from_numpy(data.y > np.median(data.y))
    if not high.any():  # more than half of the rows share the largest value
        high = torch.from_numpy(data.y >= data.y.max())
    require(0 < int(high.sum()) < len(data), "there is no mean difference: the target is constant.")
    gap = (data.x[high].double().mean(0) - data.x[~high].double().mean(0)).abs()
    return _per_deviation(gap, data.x)


def correlation(data: Examples) -> Float[np.ndarray, " width"]:
    """|Spearman's correlation| of each neuron alone with the target; constant neurons get 0 (our choice of baseline).

    Raises:
        MechRewardError: a constant target.
    """
    require(float(np.ptp(data.y)) > 0, "no neuron correlates with it: the target is constant.")
    return np.nan_to_num(np.abs(stats.spearmans(data.x.numpy(), data.y)))


def magnitude(data: Examples) -> Float[np.ndarray, " width"]:
    """Root mean square activation: what the damage of an ablation follows (SCIENCE: replications)."""
    return data.x.square().mean(0).sqrt().double().numpy()


def weight_magnitude(model: Any, site: Site) -> Float[np.ndarray, " width"]:
    """L1 norm of the weights that read each neuron (the paper's "magnitude" may be this one; it does not say).

    Readers are, for an MLP unit, its row of W_out; for a coordinate of the residual stream, its rows of W_Q, W_K, W_V,
    W_in and W_gate of the block that comes next, or of the unembedding. Weights are taken as they are: the gain of a
    norm in between is not multiplied in (our choice).

    Raises:
        MechRewardError: a site the model lacks, or blocks without such weights.
    """
    site.check(model)
    if site.kind == "mlp":
        return _read_by(model.blocks[site.layer], ("mlp.W_out",), site)
    following = site.layer + (site.kind == "resid_post")
    if following == model.cfg.n_layers:
        return _read_by(model, ("unembed.W_U",), site)
    names = ("mlp.W_in", "mlp.W_gate") + (() if site.kind == "resid_mid" else ("attn.W_Q", "attn.W_K", "attn.W_V"))
    return _read_by(model.blocks[following], names, site)


def wanda(model: Any, acts: Activations) -> Float[np.ndarray, " width"]:
    """`weight_magnitude` times the root mean square activation: the pruning score of Wanda (2306.11695), summed over
    what reads a neuron."""
    return weight_magnitude(model, acts.site) * acts.rms().double().numpy()


def _read_by(block: Any, names: Sequence[str], site: Site) -> np.ndarray:
    """Absolute weights summed over all but the axis that reads: the second of three ([head d_model d_head]), else the
    first."""
    total = None
    for name in names:
        part, _, weight = name.partition(".")
        tensor = getattr(getattr(block, part, None), weight, None)
        if tensor is not None:
            size = tensor.detach().abs().double()
            read = size.sum((0, 2)) if size.ndim == 3 else size.sum(1)
            total = read if total is None else total + read
    require(total is not None, f"nothing with weights {', '.join(names)} reads {site}: this model is built otherwise.")
    assert total is not None
    return total.cpu().numpy()


def next_token(acts: Activations, runs: Rollouts, ridge: float = 1e-2) -> Float[np.ndarray, " width"]:
    """How much a linear probe for the next token leans on each neuron: the paper's rival explanation (R6).

    Ridge regression of the one-hot next token on standardised activations at every generated position; the score is
    the L1 norm of a neuron's weights over all tokens, as for the value probe.

    Args:
        acts: recorded from `runs` with rows="tokens".

    Raises:
        MechRewardError: activations of another kind of row, or of other rollouts.
    """
    require(acts.rows == "tokens", f"the next token follows every position: record rows='tokens', not {acts.rows!r}.")
    lengths = np.bincount(acts.trajectory, minlength=len(runs)).tolist()
    match = lengths == [len(run.tokens) for run in runs]
    require(match, "activations and rollouts differ: record from these rollouts.")
    following = torch.cat([run.tokens.roll(-1) for run in runs])
    kept = np.concatenate([_spoken(len(run.tokens), run.prompt_len) for run in runs])
    x, tokens = acts.x[torch.from_numpy(kept)].double(), following[torch.from_numpy(kept)]
    said = tokens.unique(return_inverse=True)[1]
    x = (x - x.mean(0)) / x.std(0, correction=0).clamp(min=1e-8)
    model = Ridge(alpha=ridge * len(x)).fit(x.numpy(), torch.nn.functional.one_hot(said).double().numpy())
    return np.abs(np.atleast_2d(model.coef_)).sum(0)


def _spoken(length: int, prompt_len: int) -> np.ndarray:
    """Positions whose next token was generated."""
    position = np.arange(length)
    return (position >= prompt_len - 1) & (position < length - 1)


def _per_deviation(gap: torch.Tensor, x: torch.Tensor) -> np.ndarray:
    deviation = x.double().std(0, correction=0)
    return torch.where(deviation > 1e-8, gap / deviation.clamp(min=1e-8), 0.0).numpy()
