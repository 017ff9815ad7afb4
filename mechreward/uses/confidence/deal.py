"""Three sets of problems: what is fitted, chosen and measured on one is never seen in another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mechreward.base.errors import finite, of_kind, require
from mechreward.base.streams import rng
from mechreward.rollouts.trajectory import Rollouts, check_apart

HALF = 0.5  # of the problems of one set of rollouts that baselines are fitted to (our choice)
TRIES = 100  # draws of a split, of which one with both outcomes on either side is taken
MAKE = "sample makes them of problems"


@dataclass(frozen=True)
class Dealt:
    """Rollouts by what they serve.

    Attributes
    ----------
    fit : Rollouts
        What read-outs and baselines are fitted to.
    calibration : Rollouts
        Where scores become probabilities and the best baseline is chosen.
    test : Rollouts
        What is measured.
    """

    fit: Rollouts
    calibration: Rollouts
    test: Rollouts


def deal(
    runs: Rollouts,
    fit: Rollouts | None,
    calibration: Rollouts | None,
    share: float,
    seed: int,
) -> Dealt:
    """The three splits; what is not given is taken from `runs`, whole problems at random.

    Parameters
    ----------
    runs : Rollouts
        What is measured, but for what the other two need.
    fit : Rollouts or None
        None takes `HALF` of the problems of `runs`.
    calibration : Rollouts or None
        None takes `share` of the problems that are then left.
    share : float
        In (0, 1).
    seed : int
        Of the draw.

    Raises
    ------
    MechRewardError
        No rollouts, a single problem, a share outside (0, 1), or one prompt in two splits.
    """
    given = {"runs": runs, "fit": fit, "calibration": calibration}
    for name, part in given.items():
        if part is not None:
            of_kind(name, part, Rollouts, MAKE)
            require(len(part) > 0, f"{name} holds no trajectories.")
    require(
        0 < finite("share", share) < 1,
        f"share is that of the problems to calibrate on, in (0, 1); {share} was given.",
    )
    if fit is None:
        fit, runs = _split(runs, HALF, seed, "fit")
    if calibration is None:
        calibration, runs = _split(runs, share, seed, "calibration")
    check_apart(fit=fit.problems, calibration=calibration.problems, runs=runs.problems)
    return Dealt(fit, calibration, runs)


def enough(runs: Rollouts) -> bool:
    """Whether right and wrong answers can both be on either side of a split."""
    groups, rewards = np.array(runs.groups), np.array(runs.rewards)
    return all(len(np.unique(groups[rewards == outcome])) > 1 for outcome in (0, 1))


def _split(runs: Rollouts, share: float, seed: int, purpose: str) -> tuple[Rollouts, Rollouts]:
    """The answers to a share of the problems, and those to the rest.

    Problems are drawn without regard to outcomes: with equal shares of right answers on either
    side, calibration would look better than it is. A draw that leaves right or wrong answers alone
    on a side is drawn anew.
    """
    groups, rewards = np.array(runs.groups), np.array(runs.rewards)
    problems = int(groups.max()) + 1
    require(
        problems > 1,
        f"these rollouts are of one problem; {purpose} and test need different ones: give more, or "
        f"rollouts of other problems as {purpose}=.",
    )
    taken = min(max(2, round(share * problems)), problems - 1)
    chosen = np.zeros(len(groups), bool)
    for attempt in range(TRIES):
        order = rng("confidence: problems", seed, purpose, attempt).permutation(problems)
        chosen = np.isin(groups, order[:taken])
        if all(len(np.unique(rewards[side])) == 2 for side in (chosen, ~chosen)):
            break
    return _of(runs, chosen), _of(runs, ~chosen)


def _of(runs: Rollouts, side: np.ndarray) -> Rollouts:
    return runs.subset(np.flatnonzero(side).tolist())
