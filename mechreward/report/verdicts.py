"""What a calibration is held against: one line for each goal, reached or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, t

from mechreward import stats
from mechreward.calibration.certificates import FALSE, PARTLY
from mechreward.calibration.coverage import BAND
from mechreward.calibration.pipeline import DEFAULT, RECOMMENDED
from mechreward.experiments.rows import Results, Row
from mechreward.report.select import LEVEL
from mechreward.stats import Interval

KINDS = ("value", "dopamine")
NEAR = {"sparse": 1, "redundant": 0, "distributed": 0}  # what sparsity beyond redundancy should be


@dataclass(frozen=True)
class Goal:
    """Something that a calibration should show, and whether it does.

    Attributes
    ----------
    reached : bool
        Whether the figures are what they should be.
    sentence : str
        The goal with its figures.
    """

    reached: bool
    sentence: str

    def __str__(self) -> str:
        return f"{'reached' if self.reached else 'NOT reached'}: {self.sentence}"


def verdicts(results: Results) -> list[str]:
    """One line a goal, reached or not, with the figures.

    A goal is reached where (our choice)

    - recall: all planted neurons are found in every planted set, and no decoy is taken;
    - false alarms: at most .05 of the runs without value are called anything;
    - recognition: every seed of a plant is called what it is, and the mean sparsity of its seeds is
      within .25 of what it should be;
    - levels: no null rate is above its level, exact binomial after Holm at .05;
    - uniform p-values: no Kolmogorov-Smirnov p is at most .05 after Holm;
    - certificates: .95 of the seeds pass all claims, .01 of those without value `causal`, and .95
      of those that are read for turning back alone or share the cause with others;
    - trends: .95 of the seeds pass `decodable` and `sparse` for neurons that carry V, and .05 for
      those that follow what V goes with;
    - coverage: no interval covers less or more often than 93 to 97%, beyond sampling error.

    Parameters
    ----------
    results : Results
        Rows of `mechreward calibrate`.

    Returns
    -------
    lines : list of str
        Each begins with "reached" or "NOT reached".
    """
    goals = []
    for kind in KINDS:
        goals.append(_recall(results, kind, RECOMMENDED, "the recommended ranking"))
    for kind in KINDS:
        role = "what `select` goes by if not told other"
        goals.append(_recall(results, kind, DEFAULT[kind], role))
    goals.append(_false_alarms(results))
    goals += _recognition(results)
    goals.append(_levels(results))
    goals.append(_uniform(results))
    goals += _certificates(results)
    goals.append(_coverage(results))
    return [str(goal) for goal in goals]


def covers(row: Row) -> str:
    """How often an interval covers.

    Returns
    -------
    answer : str
        `yes`: in 93 to 97% of the runs. Otherwise `too seldom` or `too often` if that is beyond the
        sampling error of the runs, else `unclear`.
    """
    lowest, highest = BAND
    if lowest <= row.estimate <= highest:
        return "yes"
    if row.high < lowest:
        return "too seldom"
    if row.low > highest:
        return "too often"
    return "unclear"


def adjusted(row: Row) -> bool:
    """Whether a null rate is that of p-values after Holm: bounds, which are not uniform."""
    return row.arm.startswith("holm")


def over_seeds(values: Sequence[float | None]) -> Interval:
    """Mean over seeds with Student's interval; of fewer than three the range.

    Parameters
    ----------
    values : sequence of float
        A number for each seed; None, as NaN comes out of JSON, makes the mean NaN.
    """
    x = np.array(values, dtype=float)
    n = len(x)
    mean = float(x.mean())
    if n < 3:
        return Interval(mean, float(x.min()), float(x.max()), n)
    half = float(t.ppf(0.975, n - 1) * x.std(ddof=1) / n**0.5)
    return Interval(mean, mean - half, mean + half, n)


def counted(counts: dict[str, int]) -> str:
    """Names with how often each was counted."""
    return ", ".join(f"{name} {times}" for name, times in counts.items()) or "none"


def _recall(results: Results, kind: str, ranking: str, role: str) -> Goal:
    """Planted neurons found by a ranking."""
    rows = results.where(metric="recall", arm=f"{kind}: {ranking}")
    if not rows:
        sentence = f"planted {kind} neurons were not looked for by {ranking}, {role}."
        return Goal(False, sentence)
    seeds = sum(row.n for row in rows)
    complete = sum(row.detail["all"] for row in rows)
    decoys: set[str] = set()
    for row in rows:
        decoys.update(row.detail["fooled_by"])

    reached = complete == seeds and not decoys

    sentence = (
        f"planted {kind} neurons found by {ranking}, {role}: all of them in "
        f"{stats.proportion(complete, seeds)} of planted sets; decoys taken: "
        f"{', '.join(sorted(decoys)) or 'none'}."
    )
    return Goal(reached, sentence)


def _false_alarms(results: Results) -> Goal:
    """Plants without value that were called anything."""
    rows = results.where(metric="false_alarm_rate")
    runs = sum(row.n for row in rows)
    alarms = sum(_count(row) for row in rows)
    rate = stats.proportion(alarms, runs)

    reached = rate.estimate <= LEVEL

    near = ""
    if rate.low <= LEVEL < rate.estimate:
        near = "; the nominal level is within sampling error"
    sentence = f"false alarms where there is no value: {rate}, nominally .05{near}."
    return Goal(reached, sentence)


def _recognition(results: Results) -> list[Goal]:
    """Plants that were called what they are, and their sparsity."""
    goals = []
    for row in results.where(metric="recognition_rate"):
        detail = row.detail
        readings = ""
        if "readings" in detail:
            readings = f"; it said {counted(detail['readings'])}"
        sentence = (
            f"{row.model} is {detail['expected']}, by {row.arm}: {row.interval} of seeds{readings}."
        )
        goals.append(Goal(row.estimate == 1, sentence))
        if "sparsity" in detail:
            goals.append(_sparsity(detail["sparsity"], NEAR[detail["expected"]]))
    return goals


def _sparsity(values: Sequence[float | None], expected: int) -> Goal:
    """The mean sparsity of a plant's seeds."""
    mean = over_seeds(values)

    reached = abs(mean.estimate - expected) <= 0.25

    bounds = "Student's interval" if mean.n > 2 else "lowest and highest"
    return Goal(reached, f"its mean sparsity is {mean} seeds ({bounds}), near {expected} (.25).")


def _levels(results: Results) -> Goal:
    """Null rates that are not above their level."""
    rows = results.where(metric="null_rejection_rate")
    p_values = []
    for row in rows:
        test = binomtest(_count(row), row.n, row.detail["level"], alternative="greater")
        p_values.append(test.pvalue)

    above = []
    for row, p in zip(rows, _after_holm(p_values), strict=True):
        if p <= LEVEL:
            above.append(f"{row.arm} ({row.interval} at {row.detail['level']:g})")

    sentence = (
        f"{len(rows) - len(above)} of {len(rows)} null rates keep their level (exact binomial, "
        f"Holm at .05){_but_not(above)}."
    )
    return Goal(not above, sentence)


def _uniform(results: Results) -> Goal:
    """P-values that are uniform under the null."""
    p_values = {}
    for row in results.where(metric="null_rejection_rate"):
        if not adjusted(row):
            p_values[row.arm] = row.detail["ks_uniform"]

    uneven = []
    for name, p in zip(p_values, _after_holm(list(p_values.values())), strict=True):
        if p <= LEVEL:
            uneven.append(name)

    sentence = (
        f"{len(p_values) - len(uneven)} of {len(p_values)} p-values are uniform under the null "
        "within sampling error (two-sided Kolmogorov-Smirnov of the randomised p, Holm at .05)"
        f"{_but_not(uneven)}."
    )
    return Goal(not uneven, sentence)


def _certificates(results: Results) -> list[Goal]:
    """Plants with value that pass, and plants without that do not; the same under trends."""
    goals = []
    for row in results.where(metric="pass_rate", arm="all"):
        sentence = f"{row.model} passes all claims in {row.interval} of seeds."
        goals.append(Goal(row.estimate >= 0.95, sentence))
    for row in results.where(metric="pass_rate", arm="causal"):
        name = row.model.removeprefix("planted-")
        sentence = f"{row.model} passes `causal` in {row.interval} of seeds."
        if name in FALSE:
            goals.append(Goal(row.estimate <= 0.01, sentence))
        elif name in PARTLY:
            goals.append(Goal(row.estimate >= 0.95, sentence))
    for row in results.where(metric="trend_pass_rate"):
        sentence = f"{row.model}, {row.detail['neurons']} neurons: `{row.arm}` passes in "
        sentence += f"{row.interval} of seeds."
        true = row.model == "drawn: value"
        goals.append(Goal(row.estimate >= 0.95 if true else row.estimate <= 0.05, sentence))
    return goals


def _coverage(results: Results) -> Goal:
    """Intervals that cover as often as they should."""
    rows = results.where(metric="interval_coverage")
    good = 0
    unclear = 0
    missed = []
    for row in rows:
        answer = covers(row)
        if answer == "yes":
            good += 1
        elif answer == "unclear":
            unclear += 1
        else:
            missed.append(f"{row.arm} at n={row.detail['problems']} ({row.estimate:.3f})")

    sentence = (
        f"{good} of {len(rows)} intervals cover in 93 to 97% of runs, {unclear} cannot be told "
        f"from that with these runs{_but_not(missed)}."
    )
    return Goal(not missed, sentence)


def _count(row: Row) -> int:
    """How many of the runs a rate counts."""
    return round(row.estimate * row.n)


def _after_holm(p_values: Sequence[float]) -> list[float]:
    """P-values after Holm; none of none."""
    return stats.holm(p_values).tolist() if p_values else []


def _but_not(names: Sequence[str]) -> str:
    """Names of what misses a goal."""
    return f"; not: {', '.join(names)}" if names else ""
