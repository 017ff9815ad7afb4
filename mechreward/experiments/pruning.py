"""Few neurons are enough: R2."""

from __future__ import annotations

from typing import Any

import numpy as np

from mechreward.experiments.rows import Row, rows_from
from mechreward.experiments.split import SHARES, Split, curve
from mechreward.models.site import Site
from mechreward.probing.activations import Activations
from mechreward.probing.evidence import evidence
from mechreward.probing.neurons import count
from mechreward.probing.probe import ValueProbe
from mechreward.probing.targets import tokens


def R2(
    train: Split,
    test: Split,
    site: Site,
    about: dict[str, Any],
    draws: int = 3,
    every: Activations | None = None,
) -> list[Row]:
    """Sparse: the pruning curve beside every null, for the paper's net and for a linear probe, and
    what it comes to.

    The set is that of the net fitted to V-hat, here and everywhere. `every`, activations at every
    token of the training rollouts, adds the paper's own ranking, that of the net fitted by TD over
    tokens (`td_over_tokens`). `sparsity` (linear, the top 1% by correlation) is the part of the gap
    between redundancy or another basis and the full probe that the few neurons close; its detail
    holds the reading in a word and the rank of the full probe among shuffles.
    """
    fit, held = train.states(site), test.states(site)
    others = {}
    if every is not None:
        others["td_over_tokens"] = (
            ValueProbe("td", "mlp").fit_examples(tokens(every, train.values)).scores_
        )
    rows = curve(ValueProbe("mc", "mlp"), fit, held, about, draws, others)
    rows += curve(ValueProbe("mc", "linear"), fit, held, about, draws, others)
    found = evidence(fit, held, top=count(fit.x.shape[1], SHARES[0]), seed=about["seed"])
    detail = {
        "neurons": found.neurons,
        "shape": "linear",
        "reading": found.reading,
        "p": found.p,
        "p_few": found.p_few,
    }
    detail |= {"random": float(np.mean(found.random)), "rotated": float(np.mean(found.rotated))}
    detail |= {"few": found.few.estimate, "full": found.full.estimate}
    return rows + rows_from(about, [("value", "sparsity", found.sparsity, detail)])
