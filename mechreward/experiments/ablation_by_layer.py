"""Layer by layer: the paper's Table 2, beside matched sets and with no layer picked."""

from __future__ import annotations

from collections.abc import Mapping

from mechreward import stats
from mechreward.causal.effect import Effect
from mechreward.experiments.ablation import ablation
from mechreward.experiments.rows import Detail, Row, Setting, at_site

TOP = 0.01  # share of a layer's neurons that the paper zeroes
OP = "zero"  # its ablation


def ablation_by_layer(effects: Mapping[str, Effect], setting: Setting) -> list[Row]:
    """R4 at every layer that is looked at: what zeroing its top 1% costs.

    The paper reports layers 2 to 5 (Table 2) without matched sets. Here every layer has the rows of
    `ablation`, and none is chosen: `p_holm` of `accuracy` is McNemar's after Holm over all of them.

    Parameters
    ----------
    effects : mapping of str to Effect
        By site.
    setting : dict
        What the rows have in common.
    """
    rows = []
    sets = []  # the row of every value set
    p_values = []
    for site, effect in effects.items():
        for row in ablation(effect, at_site(setting, site)):
            if row.arm == "value" and row.metric == "accuracy":
                sets.append(row)
                p_values.append(row.detail["p_mcnemar"])
            rows.append(row)
    for row, corrected in zip(sets, stats.holm(p_values), strict=True):
        row.detail.update(Detail(p_holm=float(corrected)))
    return rows
