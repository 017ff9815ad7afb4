"""What value neurons are good for: R7."""

from __future__ import annotations

import numpy as np

from mechreward.experiments.rows import Detail, Row, Setting, row_of
from mechreward.stats import Interval
from mechreward.uses.confidence import Confidence
from mechreward.uses.confidence.read_outs import SET, VALUE

# Stage of an answer: how metrics of it end, and what is known then.
STAGES = {
    "prompt": ("s0", "before"),
    "partial": ("partial", "meanwhile"),
    "answer": ("answer", "after"),
    "k answers": ("answers", "several"),
}
BOUNDED = ("auroc", "increment", "added")  # a row each; what stands beside them is in the detail
BESIDE = ("brier", "ece", "perfect_ece", "aurc", "excess_aurc", "prr")


def confidence_rows(conf: Confidence, setting: Setting) -> list[Row]:
    """R7: the read-out of a value set before the first token, and at every later state, beside what
    sees as much.

    Parameters
    ----------
    conf : Confidence
        Of rollouts that were verified (`mr.confidence`).
    setting : Setting
        What the rows have in common.

    Returns
    -------
    list of Row
        `auroc_s0` and the like of every arm at every stage, with its calibration in the detail;
        what it has beyond the best surface baseline (`increment_s0`), and what it adds to that
        (`added_s0`).
    """
    rows = []
    for stage, group in conf.groups.items():
        ending, known = STAGES[stage]
        rank = conf.rank(stage)
        for arm, numbers in conf.measured(stage).items():
            sets = group.draws(arm)
            about = Detail(known=known, stage=stage, role=sets[0].role, best=group.best)
            if sets[0].neurons > 0:
                about["neurons"] = sets[0].neurons
            if sets[0].role == SET:
                about["interval"] = "lowest and highest draw"
                about["draws"] = len(sets)
            if arm == "matched":
                about["match_error"] = float(np.mean([each.error for each in sets]))
            if arm == VALUE and rank:
                about |= Detail(rank=rank.place, sets=rank.sets, p_rank=rank.p)
            rows += _rows_of_arm(arm, numbers, ending, about, setting)
    return rows


def _rows_of_arm(
    arm: str, numbers: dict[str, Interval], ending: str, about: Detail, setting: Setting
) -> list[Row]:
    rows = []
    beside = about.copy()
    for metric in BESIDE:
        beside[metric] = numbers[metric].estimate
    for metric in BOUNDED:
        score = numbers[metric]
        detail = beside if metric == "auroc" else about
        if metric == "auroc" or not np.isnan(score.estimate):
            rows.append(row_of(setting, arm, f"{metric}_{ending}", score, detail))
    return rows
