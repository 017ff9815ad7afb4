"""Pure statistics on numpy columns: scores, intervals, tests.

A column is one-dimensional, numeric, finite and not empty; columns given together have one length.
Anything else raises `MechRewardError`. What the data cannot give (AUROC of one class, correlation
with a constant) is nan. The paper prints bare numbers: every interval, exact test and level here is
our own choice.
"""

from mechreward.stats.intervals import (
    Interval,
    auroc_interval,
    cluster_bootstrap,
    clustered,
    difference,
    paired_difference,
    proportion,
)
from mechreward.stats.scores import (
    auroc,
    disattenuated,
    ece,
    iou,
    perfect_ece,
    spearman,
    spearmans,
    split_half_reliability,
    within_auroc,
)
from mechreward.stats.tests import (
    can_see,
    detectable_effect,
    holm,
    hypergeometric_iou,
    mcnemar,
    rank_among,
    sign_flips,
)

__all__ = [
    "Interval",
    "auroc",
    "auroc_interval",
    "can_see",
    "cluster_bootstrap",
    "clustered",
    "detectable_effect",
    "difference",
    "disattenuated",
    "ece",
    "holm",
    "hypergeometric_iou",
    "iou",
    "mcnemar",
    "paired_difference",
    "perfect_ece",
    "proportion",
    "rank_among",
    "sign_flips",
    "spearman",
    "spearmans",
    "split_half_reliability",
    "within_auroc",
]
