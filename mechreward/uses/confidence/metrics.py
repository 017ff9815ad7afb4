"""What the arms of a group come to: every number with its interval, clustered by problem."""

from __future__ import annotations

from collections.abc import Callable
from math import nan
from typing import NamedTuple

import numpy as np
import pandas as pd

from mechreward import stats
from mechreward.stats import Interval
from mechreward.stats.intervals import Span
from mechreward.stats.weighted import (
    weighted_aurc,
    weighted_ece,
    weighted_increment,
    weighted_mean,
    weighted_prr,
)
from mechreward.uses.confidence.groups import Arm, Group
from mechreward.uses.confidence.read_outs import SET, VALUE

DRAWS = 500  # of a bootstrap by problem
OF_ONE, OF_SETS = 200, 20  # draws of labels of an arm, and of each of many control sets
METRICS = (
    "auroc",
    "increment",
    "added",
    "brier",
    "ece",
    "perfect_ece",
    "aurc",
    "excess_aurc",
    "prr",
)
UNBOUNDED = ("perfect_ece", "excess_aurc")  # they stand beside a number that has bounds


class Rank(NamedTuple):
    """Where an AUROC stands among those of control sets.

    Attributes
    ----------
    place : int
        1 for the highest; ties count against it.
    sets : int
        How many sets there are.
    p : float
        Of the randomisation test that it is no higher than theirs.
    """

    place: int
    sets: int
    p: float


def measured(group: Group, draws: int = DRAWS, seed: int = 0) -> dict[str, dict[str, Interval]]:
    """Every metric of every arm of a group.

    - `auroc` of the raw score, with Obuchowski's interval.
    - `increment`: AUROC minus that of the group's best surface baseline, or minus .5 where that
      baseline does worse than chance; paired.
    - `added`: the same of the AUROC of arm and best baseline together, a logistic regression fitted
      on the calibration split.
    - `brier`, `ece` (15 bins) of the calibrated score, and `perfect_ece`, what perfect calibration
      shows at this n, each answer having one outcome however many of its states are asked.
    - `aurc`, `excess_aurc`, `prr`: `stats.selective`, of the raw score.

    Controls have the mean over their sets, between the lowest and the highest; `n` counts sets
    there, problems elsewhere.

    Parameters
    ----------
    group : Group
        Scores on the rows that are tested.
    draws : int, default 500
        Of the bootstrap by problem; 0 leaves the bounds out (NaN), but for those of `auroc`.
    seed : int, default 0
        Of the bootstrap.

    Returns
    -------
    dict of str to dict of str to Interval
        By arm and metric. NaN where a number does not exist.
    """
    table = {}
    for name in dict.fromkeys(arm.name for arm in group.arms):
        arms = group.draws(name)
        if arms[0].role == SET:
            table[name] = _over_sets([_of(group, arm, 0, seed) for arm in arms])
        else:
            table[name] = _of(group, arms[0], draws, seed)
    return table


def rank(group: Group) -> Rank | None:
    """The value arm among the matched sets; None where there are none, or one class."""
    matched = [stats.auroc(arm.raw, group.reward) for arm in group.draws("matched")]
    value = stats.auroc(group.arm(VALUE).raw, group.reward)
    if not matched or np.isnan(value):
        return None
    place, p = stats.rank_among(value, matched, tail="high")
    return Rank(place, len(matched), p)


def frame_of(group: Group, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """`measured` as a table, a row an arm: every metric, with columns `METRIC_low` and
    `METRIC_high` for its bounds."""
    lines = []
    ranked = rank(group)
    for name, numbers in measured(group, draws, seed).items():
        arms = group.draws(name)
        line = {
            "stage": group.stage,
            "arm": name,
            "role": arms[0].role,
            "best": name == group.best,
            "neurons": arms[0].neurons,
            "problems": len(np.unique(group.problem)),
            "rows": len(group.reward),
        }
        for metric, score in numbers.items():
            line[metric] = score.estimate
            if metric not in UNBOUNDED:
                line[f"{metric}_low"], line[f"{metric}_high"] = score.low, score.high
        line["match_error"] = float(np.mean([arm.error for arm in arms]))
        place = ranked if ranked and name == VALUE else (nan, nan, nan)
        line["rank"], line["sets"], line["p_rank"] = place
        lines.append(line)
    return pd.DataFrame(lines)


def reliability_of(group: Group, arm: Arm, bins: int, seed: int) -> pd.DataFrame:
    """A row a bin that holds rows: mean probability beside the share of right answers."""
    bin_of = stats.binned(arm.calibrated, bins)
    lines = []
    for number in np.unique(bin_of):
        here = bin_of == number
        right = stats.cluster_bootstrap(
            np.mean,
            group.reward[here].astype(float),
            group.problem[here],
            draws=DRAWS,
            seed=seed,
            span=(0, 1),
        )
        line = {
            "from": number / bins,
            "to": (number + 1) / bins,
            "rows": int(here.sum()),
            "problems": right.n,
            "confidence": float(arm.calibrated[here].mean()),
            "right": right.estimate,
            "low": right.low,
            "high": right.high,
        }
        lines.append(line)
    return pd.DataFrame(lines)


def risk_coverage_of(group: Group, arm: Arm) -> pd.DataFrame:
    """A row a coverage: the risk of the arm, of an oracle, and of a random order."""
    coverage, risk = stats.risk_coverage(arm.raw, group.reward)
    _, oracle = stats.risk_coverage(group.reward, group.reward)
    wrong = 1 - float(group.reward.mean())
    return pd.DataFrame({"coverage": coverage, "risk": risk, "oracle": oracle, "random": wrong})


def _of(group: Group, arm: Arm, draws: int, seed: int) -> dict[str, Interval]:
    reward, problem = group.reward.astype(float), group.problem

    def interval(
        statistic: Callable[..., np.ndarray], *columns: np.ndarray, span: Span | None = None
    ) -> Interval:
        if not draws:
            once = np.ones((1, len(reward)))
            return _bare(float(statistic(once, *columns)[0]), group)
        return stats.weighted_bootstrap(
            statistic, columns, problem, draws=draws, seed=seed, span=span
        )

    numbers = {"auroc": stats.auroc_interval(arm.raw, reward, problem)}
    numbers["increment"] = numbers["added"] = _bare(nan, group)
    if group.best and arm.name != group.best:
        base = group.arm(group.best).raw
        numbers["increment"] = interval(weighted_increment, arm.raw, base, reward, span=(-1, 1))
        if arm.joined is not None:
            numbers["added"] = interval(weighted_increment, arm.joined, base, reward, span=(-1, 1))
    squares = np.square(arm.calibrated - reward)  # whose mean is the Brier score
    numbers["brier"] = interval(weighted_mean, squares, span=(0, 1))
    numbers["ece"] = interval(weighted_ece, arm.calibrated, reward, span=(0, 1))
    labels = OF_SETS if arm.role == SET else OF_ONE
    perfect = stats.perfect_ece(arm.calibrated, draws=labels, seed=seed, cluster=group.trajectory)
    numbers["perfect_ece"] = _bare(perfect, group)
    numbers["aurc"] = interval(weighted_aurc, arm.raw, reward, span=(0, 1))
    numbers["excess_aurc"] = _bare(stats.excess_aurc(arm.raw, reward), group)
    numbers["prr"] = interval(weighted_prr, arm.raw, reward)
    return {metric: numbers[metric] for metric in METRICS}


def _over_sets(sets: list[dict[str, Interval]]) -> dict[str, Interval]:
    """Mean of each metric over sets, between the lowest and the highest."""
    table = {}
    for metric in METRICS:
        values = [numbers[metric].estimate for numbers in sets]
        low, high = float(np.min(values)), float(np.max(values))
        table[metric] = Interval(float(np.mean(values)), low, high, len(values))
    return table


def _bare(estimate: float, group: Group) -> Interval:
    return Interval(float(estimate), nan, nan, len(np.unique(group.problem)))
