"""Not next-token neurons: R6."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mechreward import stats
from mechreward.experiments.rows import Row, rows_from
from mechreward.experiments.split import Split, bare
from mechreward.probing.activations import Activations
from mechreward.probing.neurons import count, ranking
from mechreward.probing.probe import ValueProbe
from mechreward.probing.rankings import next_token
from mechreward.rollouts.trajectory import Rollouts


def R6(
    train: Split,
    every: Activations,
    runs: Rollouts,
    about: dict[str, Any],
    shares: Sequence[float] = (0.01, 0.05, 0.2),
) -> list[Row]:
    """Not next-token neurons: overlap of the value set with the set a next-token probe leans on,
    against chance.

    `every`: recorded from `runs` with rows="tokens" at the site of the value set. A small overlap
    says that the two sets differ, not that value neurons carry no token.
    """
    site, width = every.site, every.width
    value = ranking(ValueProbe("mc", "mlp").fit_examples(train.states(site)).scores_)
    token = ranking(next_token(every, runs))
    rows = []
    for share in shares:
        k = count(width, share)
        both = len(set(value[:k].tolist()) & set(token[:k].tolist()))
        expected, p = stats.hypergeometric_iou(k, k, width, both)
        detail = {"share": share, "neurons": k, "shared": both, "expected": expected, "p": p}
        rows += rows_from(
            about, [("next_token", "iou", bare(both / (2 * k - both), width), detail)]
        )
    return rows
