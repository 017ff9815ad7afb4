"""Which readers of a large model are computed exactly: those that a gradient says matter most."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mechreward.causal.edges_read import ALL, OUT, Rows, points_of
from mechreward.causal.edges_written import Component
from mechreward.models.ability import evaluation
from mechreward.models.engine import Hooks
from mechreward.models.load import device_of
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.trajectory import Rollouts, Trajectory

MOST = 30  # readers that are computed exactly
TEXTS = 12  # trajectories that the gradient is taken on (our choice)


def screened(
    model: Any,
    runs: Rollouts,
    sets: Sequence[NeuronSet],
    means: Sequence[torch.Tensor],
    who: Sequence[Component],
    units: Sequence[NeuronSet] = (),
    hooks: Hooks = (),
    most: int = MOST,
) -> tuple[Component, ...]:
    """At most so many of the readers, in their order; the unembedding and all together stay.

    A reader counts by its largest score over the set and all matched sets, each over that set's
    largest: what chooses the cells treats the set as any other, or its rank among them would mean
    nothing.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model.
    runs : Rollouts
        Of other problems than the map is measured on.
    sets, means, who, units, hooks
        As for `path_patched`.
    most : int, default 30
        Readers that stay.

    Returns
    -------
    tuple of Component
    """
    if len(who) <= most:
        return tuple(who)
    inner = [reader for reader in who if reader not in (OUT, ALL)]
    scores = np.zeros((len(sets), len(inner)))
    for run in list(runs)[:TEXTS]:
        scores += np.abs(first_order(model, run, sets, means, inner, units, hooks))
    largest = scores.max(1, keepdims=True)
    largest[largest == 0] = 1
    weight = (scores / largest).max(0)
    best = np.argsort(-weight, kind="stable")[: most - 2].tolist()
    kept = {inner[number] for number in best} | {OUT, ALL}
    return tuple(reader for reader in who if reader in kept)


def first_order(
    model: Any,
    run: Trajectory,
    sets: Sequence[NeuronSet],
    means: Sequence[torch.Tensor],
    who: Sequence[Component],
    units: Sequence[NeuronSet] = (),
    hooks: Hooks = (),
) -> Float[np.ndarray, "set reader"]:
    """Change of the log-probability of what came next, summed over states, when a reader alone has
    a set at its mean: gradient times change of what the reader gives out.

    Attribution patching (Syed et al. 2023, arXiv 2310.10348), in two passes and one backward.
    """
    names = [name for reader in who for name in points_of(reader)]
    text = run.tokens[None].to(device_of(model))
    changes: dict[str, torch.Tensor] = {}
    rows = Rows(model, list(sets), list(means), [], list(units))

    def compare(x: torch.Tensor, hook: Any, name: str) -> None:
        changes[name] = (x[rows.shadow] - x[0]).detach()

    caught: dict[str, torch.Tensor] = {}

    def keep(x: torch.Tensor, hook: Any, name: str) -> torch.Tensor:
        caught[name] = x.clone()
        return caught[name]

    watch = [(name, partial(compare, name=name)) for name in dict.fromkeys(names)]
    many = text.expand(1 + len(sets), -1)
    with evaluation(model, len(run.tokens)):
        with torch.no_grad(), model.hooks(fwd_hooks=[*hooks, *rows.pairs(), *watch]):
            model(many, return_type="logits")
        take = [(name, partial(keep, name=name)) for name in dict.fromkeys(names)]
        with torch.enable_grad(), model.hooks(fwd_hooks=[*hooks, *take]):
            logits = model(text, return_type="logits")[0]
            at = list(run.step_ends[:-1])
            following = run.tokens[[end + 1 for end in at]].to(logits.device)
            said = logits[at].float().log_softmax(-1).gather(1, following[:, None]).sum()
            slopes = torch.autograd.grad(said, list(caught.values()))
    slope = dict(zip(caught, slopes, strict=True))
    table = np.zeros((len(sets), len(who)))
    for column, reader in enumerate(who):
        for name in points_of(reader):
            product = changes[name] * slope[name][0]
            if reader.kind == "units":
                product = product[..., list(units[reader.index].indices)]
            elif reader.kind != "mlp":
                product = product[:, :, reader.index]
            table[:, column] += product.flatten(1).sum(1).double().cpu().numpy()
    return table
