"""One contest: every arm interleaved, medians with min and max, and a parity check beside every
ratio."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import torch

from mechreward.bench.ground import Contest, Ground
from mechreward.experiments.rows import Detail, Row
from mechreward.stats import Interval

OURS = "mechreward"


def run(contest: Contest, ground: Ground, say: Callable[[str], None]) -> list[Row]:
    """Run one contest.

    The parity check comes first and warms everything up; then every arm once a round.

    Parameters
    ----------
    contest, ground
        What is raced, and on what.
    say
        Takes a line for every comparison.

    Returns
    -------
    list of Row
        `rate` of every arm, `ratio` and `parity` of every arm that mechreward is compared to, and
        what else the contest counts.
    """
    with torch.enable_grad() if contest.experiment == "P7" else torch.no_grad():
        parity = contest.parity()
        rates = _rates(contest, ground)
        extras = contest.extras()
    say(f"{contest.experiment} {contest.work}")
    rows = _Rows(contest, ground)
    for arm, numbers in rates.items():
        rows.add(arm, "rate", spread(numbers), unit=contest.unit)
    ours = np.array(rates[OURS])
    for arm, numbers in rates.items():
        if arm == OURS:
            continue
        theirs = np.array(numbers)
        ratio = spread(theirs / ours if contest.slowdown else ours / theirs)
        aim: dict[str, Any] = {"target": contest.target} if arm in contest.aimed else {}
        rows.add(arm, "ratio", ratio, **aim, times=contest.slowdown)
        kind, number = parity[arm]
        rows.add(arm, "parity", exactly(number), kind=kind)
        goal = f", target {'<=' if contest.slowdown else '>='} {contest.target:g}" if aim else ""
        say(
            f"  {arm}: ratio {ratio.estimate:.2f} ({ratio.low:.2f} to {ratio.high:.2f}{goal}); "
            f"{np.median(ours):.4g} against {np.median(theirs):.4g} {contest.unit}; "
            f"{kind} {number:.2g}"
        )
    for arm in parity.keys() - rates.keys():
        kind, number = parity[arm]
        rows.add(arm, "parity", exactly(number), kind=kind)
        say(f"  {arm}: {kind} {number:.2g}")
    for (arm, metric), number in extras.items():
        rows.add(arm, metric, exactly(number))
        say(
            f"  {arm}: {metric} {number:,.0f}"
            if number >= 10
            else f"  {arm}: {metric} {number:.2f}"
        )
    return rows.rows


def _rates(contest: Contest, ground: Ground) -> dict[str, list[float]]:
    """Work per second of every arm, in every round."""
    rates: dict[str, list[float]] = {arm: [] for arm in contest.arms}
    for number in range(ground.sizes.repeats):
        order = list(contest.arms)
        # Every second round backwards: what slows a machine down over time then meets all arms
        # alike.
        if number % 2:
            order.reverse()
        for arm in order:
            started = time.perf_counter()
            work = contest.arms[arm]()
            wait(ground.device)
            rates[arm].append(work / (time.perf_counter() - started))
    return rates


class _Rows:
    """The rows of one contest."""

    def __init__(self, contest: Contest, ground: Ground) -> None:
        self.contest = contest
        self.ground = ground
        self.rows: list[Row] = []

    def add(self, arm: str, metric: str, number: Interval, **detail: Any) -> None:
        row = Row(
            self.contest.experiment,
            self.ground.name,
            self.ground.task.name,
            site="",
            arm=arm,
            metric=metric,
            **asdict(number),
            seed=self.ground.seed,
            detail=cast(Detail, {"work": self.contest.work, **detail}),
        )
        self.rows.append(row)


def spread(numbers: Sequence[float] | np.ndarray) -> Interval:
    """Median, minimum, maximum and number of repeats."""
    low = float(np.min(numbers))
    high = float(np.max(numbers))
    return Interval(float(np.median(numbers)), low, high, len(numbers))


def exactly(number: float) -> Interval:
    """A number that is counted once and does not vary."""
    return Interval(number, number, number, 1)


def wait(device: str) -> None:
    """Until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
