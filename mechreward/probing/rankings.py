"""Rankings of neurons that a value probe's own ranking has to be held against.

Each gives a score [width].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import Lasso

from mechreward import stats
from mechreward.base.errors import require
from mechreward.models.site import Site
from mechreward.probing.activations import Activations
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.probing.ridge import Spectrum, check_ridge, choose
from mechreward.probing.targets import Examples
from mechreward.rollouts.trajectory import Rollouts

PENALTY = 0.3  # of the smallest L1 penalty that leaves no neuron (our choice)


def mean_difference(data: Examples) -> Float[np.ndarray, " width"]:
    """|mean where the target is above its median - mean where it is not|, per deviation.

    Parameters
    ----------
    data : Examples
        Rows with their target, V-hat or delta.

    Returns
    -------
    array [width]
        In standard deviations of the neuron; constant neurons get 0.

    Raises
    ------
    MechRewardError
        A constant target.

    Notes
    -----
    Free of any probe: the honest baseline of arXiv 2110.07483, since a ranking must not be judged
    by the probe that made it.
    """
    high = torch.from_numpy(data.y > np.median(data.y))
    if not high.any():  # more than half of the rows share the largest value
        high = torch.from_numpy(data.y >= data.y.max())
    require(0 < int(high.sum()) < len(data), "there is no mean difference: the target is constant.")
    x = data.x.double()
    gap = (x[high].mean(0) - x[~high].mean(0)).abs()
    deviation = x.std(0, correction=0)
    gap = gap / deviation.clamp(min=1e-8)
    return torch.where(deviation > 1e-8, gap, 0.0).numpy()


def correlation(data: Examples) -> Float[np.ndarray, " width"]:
    """|Spearman's correlation| of each neuron alone with the target.

    Parameters
    ----------
    data : Examples
        Rows with their target, V-hat or delta.

    Returns
    -------
    array [width]
        Constant neurons get 0.

    Raises
    ------
    MechRewardError
        A constant target.

    Notes
    -----
    Our choice of baseline, and the ranking that the calibration recommends.
    """
    require(float(np.ptp(data.y)) > 0, "no neuron correlates with it: the target is constant.")
    return np.nan_to_num(np.abs(stats.spearmans(data.x.numpy(), data.y)))


def l1_penalised(data: Examples) -> Float[np.ndarray, " width"]:
    """|Coefficient| of each neuron in a Lasso of the target on standardised activations.

    Neurons that were not taken follow in order of |Pearson correlation| with the target, at most
    half the smallest coefficient.

    Parameters
    ----------
    data : Examples
        Rows with their target, V-hat or delta.

    Returns
    -------
    array [width]
        Constant neurons get 0.

    Raises
    ------
    MechRewardError
        A constant target, or a number that is not finite.

    Notes
    -----
    Our choice of rival: a sparse fit leaves out a neuron that adds little to those it takes, where
    a ridge probe shares the weight among all that say the same and `correlation` looks at each
    alone. The penalty is `PENALTY` of the smallest one at which every coefficient is 0: it needs no
    other rows and no draws, and a stretched target or neuron changes no rank. It was set on planted
    models (`value`, seeds 0-5: recall 1 at shares of .2 to .5 with 80 problems; at .1 and less,
    neurons that cancel noise crowd out copies of V), so recall there is no fresh test of it.
    """
    finite = bool(data.x.isfinite().all()) and bool(np.isfinite(data.y).all())
    require(finite, "a Lasso needs finite numbers only.")
    require(float(np.ptp(data.y)) > 0, "a Lasso takes no neuron: the target is constant.")
    x = data.x.double()
    y = data.y - data.y.mean()
    deviation = x.std(0, correction=0)
    scale = torch.where(deviation > 1e-8, deviation, torch.inf)
    z = ((x - x.mean(0)) / scale).numpy()
    alone = np.abs(y @ z) / len(y)  # |correlation| times the target's deviation
    most = alone.max()
    if not alone.any():
        return alone
    lasso = Lasso(alpha=PENALTY * most, max_iter=10_000, tol=1e-6).fit(z, y)
    taken = np.abs(lasso.coef_)
    least = taken[taken > 0].min() if taken.any() else most
    return np.where(taken > 0, taken, alone / most * least / 2)


def gradient_x_activation(
    probe: ValueProbe | DopamineProbe, data: Examples
) -> Float[np.ndarray, " width"]:
    """Mean over rows of |d read-out / d x_i * (x_i - mean_i)|.

    How far a fitted probe moves when a neuron alone goes to its mean, to first order. The gradient
    is exact, by one backward pass.

    Parameters
    ----------
    probe : ValueProbe or DopamineProbe
        A fitted probe.
    data : Examples
        Rows to take the mean over.

    Returns
    -------
    array [width]
        Neurons constant over the rows of the fit get 0.

    Raises
    ------
    MechRewardError
        A probe that is not fitted, or of another width.

    Notes
    -----
    Our choice; after the pruning score of arXiv 1611.06440, which has the loss and 0 there. Unlike
    a probe's `scores_`, the L1 norm of its first-layer weights, it sees what the net does with a
    hidden unit. The product is the same number in standardised and in raw inputs, so it is
    scale-free; the mean is that of the rows the probe was fitted to.
    """
    probe.predict(data.x[:1])  # refuses both
    with torch.enable_grad():
        z = ((data.x.float() - probe.mean_) / probe.scale_).requires_grad_()
        (gradient,) = torch.autograd.grad(probe.net_(z).sum(), z)
    return (gradient * z.detach()).abs().double().mean(0).numpy()


def magnitude(data: Examples) -> Float[np.ndarray, " width"]:
    """Root mean square activation: what the damage of an ablation follows.

    Parameters
    ----------
    data : Examples
        Rows.

    Returns
    -------
    array [width]
        In the unit of the activations.
    """
    return data.x.square().mean(0).sqrt().double().numpy()


def weight_magnitude(model: Any, site: Site) -> Float[np.ndarray, " width"]:
    """L1 norm of the weights that read each neuron.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model.
    site : Site
        Where the neurons are.

    Returns
    -------
    array [width]
        Summed over all that reads the neuron.

    Raises
    ------
    MechRewardError
        A site the model lacks, or blocks without such weights.

    Notes
    -----
    The paper's "magnitude" may be this one; it does not say. Readers are, for an MLP unit, its row
    of W_out; for a coordinate of the residual stream, its rows of W_Q, W_K, W_V, W_in and W_gate of
    the block that comes next, or of the unembedding. Weights are taken as they are: the gain of a
    norm in between is not multiplied in (our choice).
    """
    site.check(model)
    if site.kind == "mlp":
        return _read_by(model.blocks[site.layer], ("mlp.W_out",), site)
    following = site.layer + (site.kind == "resid_post")
    if following == model.cfg.n_layers:
        return _read_by(model, ("unembed.W_U",), site)
    names = ["mlp.W_in", "mlp.W_gate"]
    if site.kind != "resid_mid":
        names += ["attn.W_Q", "attn.W_K", "attn.W_V"]
    block = model.blocks[following]
    require(
        getattr(getattr(block, "mlp", None), "W_in", None) is not None,
        f"the MLP that reads {site} has no W_in, as with a mixture of experts: what reads a "
        "neuron there cannot be summed.",
    )
    return _read_by(block, names, site)


def wanda(model: Any, acts: Activations) -> Float[np.ndarray, " width"]:
    """`weight_magnitude` times the root mean square activation.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model.
    acts : Activations
        Activations at the site.

    Returns
    -------
    array [width]
        Summed over all that reads the neuron.

    Raises
    ------
    MechRewardError
        As `weight_magnitude`.

    Notes
    -----
    The pruning score of Wanda (arXiv 2306.11695).
    """
    return weight_magnitude(model, acts.site) * acts.rms().double().numpy()


def _read_by(block: Any, names: Sequence[str], site: Site) -> np.ndarray:
    """Absolute weights summed over all but the axis that reads.

    That is the second of three ([head d_model d_head]), else the first.
    """
    reads = []
    for name in names:
        part, _, weight = name.partition(".")
        tensor = getattr(getattr(block, part, None), weight, None)
        if tensor is not None:
            size = tensor.detach().abs().double()
            reads.append(size.sum((0, 2)) if size.ndim == 3 else size.sum(1))
    require(
        bool(reads),
        f"nothing with weights {', '.join(names)} reads {site}: this model is built otherwise.",
    )
    total = reads[0]
    for read in reads[1:]:
        total = total + read
    return total.cpu().numpy()


def next_token(
    acts: Activations, runs: Rollouts, ridge: float | None = None
) -> Float[np.ndarray, " width"]:
    """How much a linear probe for the next token leans on each neuron.

    Parameters
    ----------
    acts : Activations
        Recorded from `runs` with rows="tokens".
    runs : Rollouts
        The rollouts.
    ridge : float or None, default None
        Penalty per row; None chooses it by leaving out each problem in turn, as for value probes.

    Returns
    -------
    array [width]
        L1 norm of a neuron's weights over all tokens, as for the value probe.

    Raises
    ------
    MechRewardError
        Activations of another kind of row, or of other rollouts.

    Notes
    -----
    The paper's rival explanation (R6): ridge regression of the one-hot next token on standardised
    activations at every generated position.
    """
    require(
        acts.rows == "tokens",
        f"the next token follows every position: record rows='tokens', not {acts.rows!r}.",
    )
    lengths = np.bincount(acts.trajectory, minlength=len(runs)).tolist()
    match = lengths == [len(run.tokens) for run in runs]
    require(match, "activations and rollouts differ: record from these rollouts.")
    check_ridge(ridge)
    following, generated = [], []
    for run in runs:
        position = torch.arange(len(run.tokens))
        following.append(run.tokens.roll(-1))
        generated.append((position >= run.prompt_len - 1) & (position < len(run.tokens) - 1))
    kept = torch.cat(generated)
    x = acts.x[kept].double()
    x = (x - x.mean(0)) / x.std(0, correction=0).clamp(min=1e-8)
    _, token = torch.cat(following)[kept].unique(return_inverse=True)
    one_hot = torch.nn.functional.one_hot(token).double().numpy()
    spectrum = Spectrum(x.numpy())
    if ridge is None:
        group = np.array(runs.groups)[acts.trajectory[kept.numpy()]]
        ridge = choose(spectrum, one_hot, group)
    weights, _ = spectrum.fit(one_hot, ridge * len(x))
    return np.abs(weights).sum(1)
