"""Not next-token neurons: R6."""

from __future__ import annotations

from collections.abc import Sequence

from mechreward import stats
from mechreward.experiments.rows import Detail, Row, Setting, bare, row_of
from mechreward.experiments.split import Split
from mechreward.probing.activations import Activations
from mechreward.probing.neurons import count, ranking
from mechreward.probing.probe import ValueProbe
from mechreward.probing.rankings import next_token
from mechreward.rollouts.trajectory import Rollouts


def next_token_overlap(
    train: Split,
    every: Activations,
    runs: Rollouts,
    setting: Setting,
    shares: Sequence[float] = (0.01, 0.05, 0.2),
) -> list[Row]:
    """R6: overlap of the value set with the set a next-token probe leans on, against chance.

    A small overlap says that the two sets differ, not that value neurons carry no token.

    Args:
        every: recorded from `runs` with rows="tokens" at the site of the value set.
        shares: of the neurons of the site, in both sets (default .01, .05, .2).
    """
    width = every.width
    value = ranking(ValueProbe("mc", "mlp").fit_examples(train.states(every.site)).scores_)
    token = ranking(next_token(every, runs))
    rows = []
    for share in shares:
        k = count(width, share)
        both = len(set(value[:k].tolist()) & set(token[:k].tolist()))
        expected, p = stats.hypergeometric_iou(k, k, width, both)
        detail = Detail(share=share, neurons=k, shared=both, expected=expected, p=p)
        iou = bare(both / (2 * k - both), width)
        rows.append(row_of(setting, "next_token", "iou", iou, detail))
    return rows
