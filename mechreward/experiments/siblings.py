"""R11: of the steps that may follow one state, does a scorer know the better one?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mechreward import stats
from mechreward.experiments.rows import Detail, Row, Setting, rows_of
from mechreward.stats import Interval
from mechreward.uses.siblings import CHANCE, HALF, Siblings

STATES = 40  # that sibling steps are drawn at (our choice)
MEASURES = ("rate", "clear", "gain")


def sibling_rows(made: Siblings, setting: Setting) -> list[Row]:
    """The siblings test as rows.

    Parameters
    ----------
    made : Siblings
        Steps that are drawn, valued and scored.
    setting : Setting
        What the rows have in common.

    Returns
    -------
    list of Row
        Of every scorer, and of the other half of the continuations: `sibling_rate`, how often it
        prefers the better step; `sibling_clear`, the same of clearly different pairs; and
        `sibling_gain`, V-hat of its choice less the mean of all siblings. The rate has the p-value
        of sign flips of states, and that after Holm over the scorers. None where no two siblings
        differ.
    """
    lines = [line for line in made.rates().to_dict("records") if line["scorer"] != CHANCE]
    if not any(line["pairs"] for line in lines):
        return []
    rows = []
    corrected = _over_scorers(lines)
    for line in lines:
        shared = Detail(states=line["states"], pairs=line["pairs"], k=made.k)
        for measure in MEASURES:
            detail = shared.copy()
            if measure == "clear":
                detail["pairs"] = line["clear_pairs"]
            if measure == "rate":
                detail["p"] = line["p"]
                if line["scorer"] in corrected:
                    detail["p_holm"] = corrected[line["scorer"]]
            bounds = line[measure], line[f"{measure}_low"], line[f"{measure}_high"]
            score = Interval(*bounds, line["states"])
            rows += rows_of(setting, line["scorer"], {f"sibling_{measure}": score}, detail)
    return rows


def _over_scorers(lines: Sequence[Mapping]) -> dict[str, float]:
    """p after Holm over the scorers; the other half of the continuations is none."""
    scorers = [line for line in lines if line["scorer"] != HALF]
    p = stats.holm(np.array([line["p"] for line in scorers]))
    return {line["scorer"]: float(each) for line, each in zip(scorers, p, strict=True)}
