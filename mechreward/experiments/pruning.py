"""Few neurons are enough: R2."""

from __future__ import annotations

import numpy as np

from mechreward.experiments.rows import Detail, Row, Setting, row_of
from mechreward.experiments.split import SHARES, Split, check_splits, curve
from mechreward.models.site import Site
from mechreward.probing.activations import Activations
from mechreward.probing.evidence import evidence
from mechreward.probing.neurons import count
from mechreward.probing.probe import ValueProbe
from mechreward.probing.targets import tokens


def pruning(
    train: Split,
    test: Split,
    site: Site,
    setting: Setting,
    draws: int = 3,
    every: Activations | None = None,
) -> list[Row]:
    """R2: the pruning curve beside every null, for the paper's net and for a linear probe, and what
    it comes to.

    The set is that of the net fitted to V-hat, here and everywhere. `sparsity` (linear, the top 1%
    that follow V-hat) is the part of the gap between redundancy or another basis and the full probe
    that the few neurons close, beyond what step, position and prompt length tell; its detail holds
    the reading in a word.

    Args:
        draws: random subsets, bases and shuffles at each ratio (default 3).
        every: activations at every token of the training rollouts, for the paper's own ranking,
            that of the net fitted by TD over tokens (`td_over_tokens`); without it (None, default)
            that ranking is left out.
    """
    check_splits(train=train, test=test)
    fit, held = train.states(site), test.states(site)
    others = {}
    if every is not None:
        over_tokens = ValueProbe("td", "mlp").fit_examples(tokens(every, train.values))
        others["td_over_tokens"] = over_tokens.scores_
    rows = curve(ValueProbe("mc", "mlp"), fit, held, setting, draws, others)
    rows += curve(ValueProbe("mc", "linear"), fit, held, setting, draws, others)
    few = count(fit.x.shape[1], SHARES[0])
    case = evidence(fit, held, top=few, seed=setting["seed"])
    detail = Detail(
        neurons=case.neurons,
        shape="linear",
        reading=case.reading,
        p=case.full.p,
        p_few=case.few.p,
        random=float(np.mean(case.random)),
        rotated=float(np.mean(case.rotated)),
        few=case.few.score.estimate,
        full=case.full.score.estimate,
        plain=case.plain.estimate,
        told=case.known,
    )
    rows.append(row_of(setting, "value", "sparsity", case.sparsity, detail))
    for neurons, beyond in ((fit.x.shape[1], case.full), (few, case.few)):
        detail = Detail(neurons=neurons, shape="linear", p=beyond.p)
        rows.append(row_of(setting, "value", "beyond_known", beyond.score, detail))
    return rows
