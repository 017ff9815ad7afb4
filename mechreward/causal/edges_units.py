"""Who writes MLP units: their pre-activations are linear in the stream once the norm is held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mechreward.base.errors import require
from mechreward.causal.edges_weights import fitted_weights
from mechreward.causal.edges_written import ROUNDING, Parts, written
from mechreward.models.bins import length_bins
from mechreward.models.engine import Hooks
from mechreward.models.site import Site, point
from mechreward.probing.activations import forward
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.targets import Examples
from mechreward.rollouts.trajectory import Rollouts


def preactivations(
    model: Any,
    fitted: Rollouts,
    held: Rollouts,
    sets: Sequence[NeuronSet],
    train: Examples,
    others: Mapping[str, NeuronSet],
    *,
    hooks: Hooks = (),
    batch: int = 64,
    progress: bool | str = False,
) -> tuple[dict[str, Parts], dict[str, Float[np.ndarray, " neuron"]]]:
    """Split read-outs of MLP units, at the pre-activation, among who wrote them.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one that made the runs.
    fitted, held : Rollouts
        Those that read-outs are fitted to, and those that are split.
    sets : sequence of NeuronSet
        Of one MLP: a read-out each.
    train : Examples
        States of `fitted`, with V-hat.
    others : mapping of str to NeuronSet
        Sets of earlier MLPs that are parts of their own (`written`).
    hooks : sequence of (str, function), default ()
        TransformerLens pairs that stay on meanwhile.
    batch : int, default 64
        Trajectories run at once.
    progress : bool or str, default False
        Whether a bar is shown, or its title.

    Returns
    -------
    parts : dict of str to Parts
        By `parts_of` the MLP.
    weights : dict of str to array [neuron]
        The first set's read-outs.

    Raises
    ------
    MechRewardError
        An MLP whose hidden units are no linear map of its norm's output.
    """
    layer = sets[0].site.layer
    about = {"hooks": hooks, "batch": batch}
    found, weights = {}, {}
    for part in parts_of(model, layer):
        units = _at_states(model, fitted, layer, part, **about)
        reads = np.zeros((sets[0].width, len(sets)))
        for column, neurons in enumerate(sets):
            chosen = list(neurons.indices)
            reads[chosen, column] = fitted_weights(units[:, chosen], train.y, train.group)
        others_units = list(others.values())
        found[part] = unit_parts(
            model, held, layer, part, reads, others_units, progress=progress, **about
        )
        weights[part] = reads[list(sets[0].indices), 0]
    return found, weights


def parts_of(model: Any, layer: int) -> tuple[str, ...]:
    """What is written of an MLP's units: "gate" and "up" where it is gated, else "pre"."""
    return ("gate", "up") if point("up", layer) in model.hook_dict else ("pre",)


def unit_parts(
    model: Any,
    runs: Rollouts,
    layer: int,
    part: str,
    reads: Float[np.ndarray, "unit column"],
    units: Sequence[NeuronSet] = (),
    *,
    hooks: Hooks = (),
    batch: int = 64,
    progress: bool | str = False,
) -> Parts:
    """Split read-outs of pre-activations, the norm's scale held, among who wrote them.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one that made the runs.
    runs : Rollouts
        Whose states are read.
    layer : int
        Of the MLP.
    part : str
        One of `parts_of`.
    reads : array [unit column]
        A column for each read-out.
    units : sequence of NeuronSet, default ()
        Sets of earlier MLPs that are parts of their own (`written`).
    hooks : sequence of (str, function), default ()
        TransformerLens pairs that stay on meanwhile.
    batch : int, default 64
        Trajectories run at once.
    progress : bool or str, default False
        Whether a bar is shown, or its title.

    Returns
    -------
    Parts

    Raises
    ------
    MechRewardError
        An MLP whose hidden units are no linear map of its norm's output.
    """
    stream = Site(layer, "resid_mid")
    if stream.hook not in model.hook_dict:  # attention and MLP stand side by side
        stream = Site(layer, "resid_pre")
    about = {"hooks": hooks, "batch": batch}
    weights = _map_in(model, layer, part) @ reads
    split = written(
        model, runs, stream, weights, units=units, scaled=True, progress=progress, **about
    )
    _check(split.whole, _at_states(model, runs, layer, part, **about) @ reads, model)
    return split


def _map_in(model: Any, layer: int, part: str) -> Float[np.ndarray, "d_model unit"]:
    """From the stream over the norm's scale to pre-activations: the norm's gains, and for a
    LayerNorm its centring, are in it."""
    block = model.blocks[layer]
    norm = block.ln2
    gains = getattr(norm, "w", None)
    if gains is None:
        gains = torch.ones(int(model.cfg.d_model))
    gains = gains.detach().to("cpu", torch.float64)
    if getattr(norm, "uses_weight_offset", False):
        gains = 1 + gains
    matrix = block.mlp.W_gate if part == "gate" else block.mlp.W_in
    matrix = gains[:, None] * matrix.detach().to("cpu", torch.float64)
    if "RMS" not in str(model.cfg.normalization_type):
        matrix = matrix - matrix.mean(0)
    return matrix.numpy()


@torch.no_grad()
def _at_states(
    model: Any, runs: Rollouts, layer: int, part: str, hooks: Hooks, batch: int
) -> Float[np.ndarray, "state unit"]:
    """Pre-activations at every state that goes on."""
    name = point("up" if part == "up" else "gate", layer)
    rows: list[np.ndarray] = [np.zeros(0)] * len(runs)
    caught: dict[str, torch.Tensor] = {}

    def keep(tensor: torch.Tensor, hook: Any, name: str) -> None:
        caught[name] = tensor.detach().to("cpu", torch.float64)

    acting = [*hooks, (name, partial(keep, name=name))]
    for numbers in length_bins([len(run.tokens) for run in runs], batch):
        texts = [runs[number].tokens for number in numbers]
        forward(model, texts, [Site(layer, "resid_pre")], layer + 1, acting)
        for row, number in enumerate(numbers):
            rows[number] = caught[name][row, list(runs[number].step_ends[:-1])].numpy()
    return np.concatenate(rows)


def _check(whole: np.ndarray, shown: np.ndarray, model: Any) -> None:
    """Raise MechRewardError unless both are one up to a constant: biases are no part of either."""
    rest = whole - shown
    eps = torch.finfo(next(model.parameters()).dtype).eps
    wide = ROUNDING * eps * max(float(np.abs(shown).max()), float(np.abs(whole).max()))
    require(
        float(np.abs(rest - rest.mean(0)).max()) <= wide,
        "the units of this MLP are no linear map of what its norm gives out: who writes them "
        "cannot be told.",
    )
