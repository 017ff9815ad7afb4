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
    binned,
    brier,
    disattenuated,
    ece,
    iou,
    perfect_ece,
    spearman,
    spearmans,
    split_half_reliability,
    within_auroc,
)
from mechreward.stats.selective import (
    aurc,
    excess_aurc,
    prediction_rejection_ratio,
    risk_coverage,
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
from mechreward.stats.weighted import weighted_bootstrap

__all__ = [
    "Interval",
    "aurc",
    "auroc",
    "auroc_interval",
    "binned",
    "brier",
    "can_see",
    "cluster_bootstrap",
    "clustered",
    "detectable_effect",
    "difference",
    "disattenuated",
    "ece",
    "excess_aurc",
    "holm",
    "hypergeometric_iou",
    "iou",
    "mcnemar",
    "paired_difference",
    "perfect_ece",
    "prediction_rejection_ratio",
    "proportion",
    "rank_among",
    "risk_coverage",
    "sign_flips",
    "spearman",
    "spearmans",
    "split_half_reliability",
    "weighted_bootstrap",
    "within_auroc",
]
