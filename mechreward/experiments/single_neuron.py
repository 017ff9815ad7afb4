"""Traces of single neurons: R9."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mechreward import stats
from mechreward.base.streams import rng
from mechreward.experiments.rows import Row, rows_from
from mechreward.experiments.split import Split, bare
from mechreward.experiments.td_error import ITEMS
from mechreward.models.site import Site
from mechreward.probing.pruning import shuffled
from mechreward.stats import Interval


def R9(train: Split, test: Split, site: Site, about: dict[str, Any], draws: int = 99) -> list[Row]:
    """A single neuron that follows surprise: chosen on train, reported on test, beside a
    max-statistic null.

    `spearman` is that of the neuron, with the sign it had on train, with delta on test.
    `max_spearman` is the largest
    |Spearman| of any neuron on test, and its p the rank among `draws` shuffles of delta between answers of equal
    length, each with the maximum over all neurons: with d neurons, one of them always looks good.
    `trace` is the neuron over the steps of the first `ITEMS` test answers, chosen blind.
    """
    fit, held = train.steps(site), test.steps(site)
    seen = stats.spearmans(fit.x.numpy(), fit.y)
    neuron = int(np.nanargmax(np.abs(seen)))
    sign = float(np.sign(seen[neuron]))
    own = stats.cluster_bootstrap(
        stats.spearman, [sign * held.x[:, neuron].numpy(), held.y], held.group
    )
    most = largest(held.x, held.y)
    null = []
    for draw in range(draws):
        moves = rng("single neuron: moved targets", about["seed"], draw)
        null.append(largest(held.x, shuffled(held, moves, by_length=True).y))
    p = stats.rank_among(most, np.array(null), tail="high")[1]
    spread = Interval(
        float(np.mean(null)),
        float(np.quantile(null, 0.025)),
        float(np.quantile(null, 0.975)),
        draws,
    )
    z = (held.x[:, neuron] - fit.x[:, neuron].mean()) / fit.x[:, neuron].std().clamp(min=1e-8)
    traces = [
        (
            "dopamine",
            "trace",
            bare(float(z[row]), 1),
            {"item": item, "step": int(held.step[row]), "delta": float(held.y[row])},
        )
        for item in range(min(ITEMS, held.trajectory.max() + 1))
        for row in np.flatnonzero(held.trajectory == item)
    ]
    return rows_from(about, traces) + rows_from(
        about,
        [
            (
                "dopamine",
                "spearman",
                own,
                {"neuron": neuron, "sign": sign, "train": float(abs(seen[neuron]))},
            ),
            ("dopamine", "max_spearman", bare(most, held.x.shape[1]), {"p": p, "draws": draws}),
            ("shuffled", "max_spearman", spread, {"interval": "2.5% to 97.5% of draws"}),
        ],
    )


def largest(x: Float[torch.Tensor, "row width"], y: np.ndarray) -> float:
    return float(np.nanmax(np.abs(stats.spearmans(x.numpy(), y))))
