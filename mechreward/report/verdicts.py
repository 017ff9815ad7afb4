"""What a calibration is held against: one line for each target, reached or not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, t

from mechreward import stats
from mechreward.calibration.certificates import FALSE
from mechreward.calibration.coverage import BAND
from mechreward.calibration.pipeline import DEFAULT, RECOMMENDED
from mechreward.experiments.rows import Results, Row
from mechreward.stats import Interval

KINDS = ("value", "dopamine")
NEAR = {"sparse": 1, "redundant": 0, "distributed": 0}  # what sparsity beyond redundancy should be


def verdicts(results: Results) -> list[str]:
    """One line a target: reached or not, with the figures."""
    return [
        *(_recall(results, what, RECOMMENDED, "the recommended ranking") for what in KINDS),
        *(
            _recall(results, what, DEFAULT[what], "what `select` goes by if not told other")
            for what in KINDS
        ),
        _alarms(results),
        *_recognised(results),
        _levels(results),
        _uniform(results),
        *_certified(results),
        _coverage(results),
    ]


def covers(row: Row) -> str:
    """`yes`: 93 to 97% of the runs. Otherwise `too seldom` or `too often` if that is beyond the
    sampling error of the runs, else `unclear`."""
    if BAND[0] <= row.estimate <= BAND[1]:
        return "yes"
    return "too seldom" if row.high < BAND[0] else "too often" if row.low > BAND[1] else "unclear"


def adjusted(row: Row) -> bool:
    """Whether a null rate is that of p-values after Holm: bounds, which are not uniform."""
    return row.arm.startswith("holm")


def over_seeds(values: Sequence[float | None]) -> Interval:
    """Mean over seeds with Student's interval; of fewer than three the range."""
    x, n = np.array(values, dtype=float), len(values)
    mean = float(x.mean())
    if n < 3:
        return Interval(mean, float(x.min()), float(x.max()), n)
    half = float(t.ppf(0.975, n - 1) * x.std(ddof=1) / n**0.5)
    return Interval(mean, mean - half, mean + half, n)


def _recall(results: Results, what: str, name: str, role: str) -> str:
    rows = results.where(metric="recall", arm=f"{what}: {name}")
    if not rows:
        return f"{_reached(False)}: planted {what} neurons were not looked for by {name}, {role}."
    whole, seeds = sum(row.detail["all"] for row in rows), sum(row.n for row in rows)
    fooled = sorted({name for row in rows for name in row.detail["fooled_by"]})
    return (
        f"{_reached(whole == seeds and not fooled)}: planted {what} neurons found by {name}, {role}: all of them in "
        f"{stats.proportion(whole, seeds)} of planted sets; decoys taken: {', '.join(fooled) or 'none'}."
    )


def _alarms(results: Results) -> str:
    rows = results.where(metric="false_alarm_rate")
    false, n = sum(round(row.estimate * row.n) for row in rows), sum(row.n for row in rows)
    rate = stats.proportion(false, n)
    near = (
        "; the nominal level is within sampling error" if rate.estimate > 0.05 >= rate.low else ""
    )
    return f"{_reached(rate.estimate <= 0.05)}: false alarms where there is no value: {rate}, nominally .05{near}."


def _recognised(results: Results) -> list[str]:
    lines = []
    for row in results.where(metric="recognition_rate"):
        said = f"; it said {counted(row.detail['readings'])}" if "readings" in row.detail else ""
        lines.append(
            f"{_reached(row.estimate == 1)}: {row.model} is {row.detail['expected']}, by {row.arm}: {row.interval} of "
            f"seeds{said}."
        )
        if "sparsity" in row.detail:
            mean, goal = over_seeds(row.detail["sparsity"]), NEAR[row.detail["expected"]]
            near = abs(mean.estimate - goal) <= 0.25
            kind = "Student's interval" if mean.n > 2 else "lowest and highest"
            lines.append(
                f"{_reached(near)}: its mean sparsity is {mean} seeds ({kind}), near {goal} (.25)."
            )
    return lines


def _levels(results: Results) -> str:
    rows = results.where(metric="null_rejection_rate")
    above = [
        binomtest(
            round(row.estimate * row.n), row.n, row.detail["level"], alternative="greater"
        ).pvalue
        for row in rows
    ]
    bad = [
        f"{row.arm} ({row.interval} at {row.detail['level']:g})"
        for row, p in zip(rows, stats.holm(above) if rows else (), strict=True)
        if p <= 0.05
    ]
    return (
        f"{_reached(not bad)}: {len(rows) - len(bad)} of {len(rows)} null rates keep their level (exact binomial, Holm "
        f"at .05){_list(bad)}."
    )


def _uniform(results: Results) -> str:
    rows = results.where(metric="null_rejection_rate")
    each = {row.arm: row.detail["ks_uniform"] for row in rows if not adjusted(row)}
    corrected = dict(zip(each, stats.holm(list(each.values())), strict=True)) if each else {}
    bad = [name for name, p in corrected.items() if p <= 0.05]
    return (
        f"{_reached(not bad)}: {len(each) - len(bad)} of {len(each)} p-values are uniform under the null within "
        f"sampling error (two-sided Kolmogorov-Smirnov of the randomised p, Holm at .05){_list(bad)}."
    )


def _certified(results: Results) -> list[str]:
    lines = []
    for row in results.where(metric="pass_rate", arm="all"):
        lines.append(
            f"{_reached(row.estimate >= 0.95)}: {row.model} passes all five claims in {row.interval} of seeds."
        )
    for row in results.where(metric="pass_rate", arm="causal"):
        if row.model.removeprefix("planted-") in FALSE:
            lines.append(
                f"{_reached(row.estimate <= 0.01)}: {row.model} passes `causal` in {row.interval} of seeds."
            )
    return lines


def _coverage(results: Results) -> str:
    rows = results.where(metric="interval_coverage")
    each = [covers(row) for row in rows]
    missed = [
        f"{row.arm} at n={row.detail['problems']} ({row.estimate:.3f})"
        for row, word in zip(rows, each, strict=True)
        if word.startswith("too")
    ]
    return (
        f"{_reached(not missed)}: {each.count('yes')} of {len(rows)} intervals cover in 93 to 97% of runs, "
        f"{each.count('unclear')} cannot be told from that with these runs{_list(missed)}."
    )


def counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {times}" for name, times in counts.items()) or "none"


def _list(names: Sequence[str]) -> str:
    return f"; not: {', '.join(names)}" if names else ""


def _reached(yes: bool) -> str:
    return "reached" if yes else "NOT reached"
