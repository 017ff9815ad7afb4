"""Self-repair: how much of what an intervention took from a read-out later layers give back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.base.errors import require
from mechreward.causal.intervene import Intervention
from mechreward.models.site import Site
from mechreward.probing.activations import record
from mechreward.probing.probe import ValueProbe
from mechreward.rollouts.trajectory import Rollouts
from mechreward.stats import Interval


def restored(
    model: Any,
    runs: Rollouts,
    change: Intervention,
    probes: Mapping[Site, ValueProbe],
    *,
    seed: int = 0,
) -> dict[Site, Interval]:
    """Self-repair: the part of the change of a read-out that the layers in between undo.

    `direct` [row] is what the probe's read-out changes by if the change of the residual stream
    behind the layer of the intervention is carried on as it is; `total` [row] what it really
    changes by. The part is 1 - sum(total direct) / sum(direct^2) over the states of `runs`: 0 if
    nothing is undone, 1 if all is, below 0 if the change grows.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model.
    runs : Rollouts
        Rollouts whose states are read.
    change : Intervention
        At one site; it acts at every position.
    probes : mapping of Site to ValueProbe
        Fitted to clean states at `resid_post` sites of later layers, linear, so that effects add
        up.
    seed : int, default 0
        Seed of the bootstrap.

    Returns
    -------
    mapping of Site to Interval
        By site, a bootstrap by problem.

    Raises
    ------
    MechRewardError
        No later site, or a probe that is not linear.

    Notes
    -----
    That is total against direct effect, as self-repair is measured on logits (arXiv 2307.15771), on
    a read-out of V-hat (our choice).
    """
    layer = change.check(model).neurons.site.layer
    behind = Site(layer, "resid_post")
    require(len(probes) > 0, f"no site lies behind {change.neurons.site}: nothing can be restored.")
    for site, probe in probes.items():
        later = site.kind == "resid_post" and site.layer > layer
        require(later, f"{site} is no resid_post site behind {change.neurons.site}.")
        require(
            probe.shape == "linear",
            f"the probe at {site} is not linear: direct and total would not add up.",
        )
    sites = [behind, *probes]
    clean = record(model, runs, sites, progress=False)
    after = record(model, runs, sites, hooks=change.fwd_hooks(), progress=False)
    moved = after[str(behind)].x - clean[str(behind)].x
    group = np.array(runs.groups)[clean[str(behind)].trajectory]
    found = {}
    for site, probe in probes.items():
        before = probe.predict(clean[str(site)].x)
        direct = probe.predict(clean[str(site)].x + moved) - before
        total = probe.predict(after[str(site)].x) - before
        found[site] = stats.cluster_bootstrap(undone, [total, direct], group, draws=300, seed=seed)
    return found


def undone(total: np.ndarray, direct: np.ndarray) -> float:
    """The part of a direct change that is missing from the total one; NaN where nothing changes."""
    size = float(direct @ direct)
    return 1 - float(total @ direct) / size if size > 0 else float("nan")
