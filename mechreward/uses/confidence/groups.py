"""Arms that see the same, side by side: raw scores, probabilities, and the best baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan

import numpy as np
from jaxtyping import Float, Int

from mechreward import stats
from mechreward.base.errors import MechRewardError, one_of
from mechreward.uses.confidence.calibrators import Calibrator, calibrator
from mechreward.uses.confidence.logit import Logit
from mechreward.uses.confidence.read_outs import ReadOut
from mechreward.uses.confidence.reader import SURFACE, Reader
from mechreward.uses.confidence.seen import Seen

Key = tuple[str, int]  # name and draw of an arm


@dataclass(frozen=True)
class Arm:
    """Scores of one arm at one stage.

    Attributes
    ----------
    name : str
        value, problem_length, matched, ...
    role : str
        "value", "surface" (no activations), "probe" (of the whole site) or "set" (a control).
    draw : int
        Number of the set of a control.
    neurons : int
        How many are read; 0 for the surface, -1 for the whole site.
    error : float
        Of a matched set's match; NaN elsewhere.
    raw : array [row]
        Higher for what is surer.
    calibrated : array [row]
        Probability of a right answer.
    joined : array [row] or None
        Logit of arm and best baseline together; None where there is no best baseline beside it.
    """

    name: str
    role: str
    draw: int
    neurons: int
    error: float
    raw: Float[np.ndarray, " row"] = field(repr=False)
    calibrated: Float[np.ndarray, " row"] = field(repr=False)
    joined: Float[np.ndarray, " row"] | None = field(repr=False)


@dataclass(frozen=True)
class Group:
    """What may be compared: the arms of one stage, on the rows that are tested.

    Attributes
    ----------
    stage : str
        "prompt", "partial", "answer" or "k answers".
    trajectory, step, problem : array [row]
        Which answer, which of its states, and number of the problem.
    reward : array [row]
        Terminal reward of the answer.
    arms : tuple of Arm
        In the order they were made.
    best : str
        The best surface baseline of the calibration split; empty if there is none.
    missing : mapping of str to str
        Why an arm is not defined, by name.
    """

    stage: str
    trajectory: Int[np.ndarray, " row"] = field(repr=False)
    step: Int[np.ndarray, " row"] = field(repr=False)
    problem: Int[np.ndarray, " row"] = field(repr=False)
    reward: Int[np.ndarray, " row"] = field(repr=False)
    arms: tuple[Arm, ...]
    best: str
    missing: Mapping[str, str]

    def arm(self, name: str, draw: int = 0) -> Arm:
        """One arm.

        Raises
        ------
        MechRewardError
            No such arm, or one that is not defined at this stage.
        """
        if name in self.missing:
            raise MechRewardError(f"{name} is not defined here: {self.missing[name]}.")
        one_of(f"arm at stage {self.stage!r}", name, dict.fromkeys(arm.name for arm in self.arms))
        draws = {arm.draw: arm for arm in self.arms if arm.name == name}
        one_of(f"draw of {name}", draw, draws)
        return draws[draw]

    def draws(self, name: str) -> list[Arm]:
        """All sets of a control; the arm itself where there is one."""
        return [arm for arm in self.arms if arm.name == name]


@dataclass(frozen=True)
class Scale:
    """What was learnt on the calibration split of one stage.

    Attributes
    ----------
    calibrators : mapping of (str, int) to Isotonic or Platt
        By name and draw of the arm.
    order : tuple of str
        Surface baselines from the best AUROC to the worst.
    joint : mapping of (str, int) to Logit
        Of the best of them with each other arm.
    """

    calibrators: Mapping[Key, Calibrator] = field(repr=False)
    order: tuple[str, ...]
    joint: Mapping[Key, Logit] = field(repr=False)


def fit_scale(reader: Reader, seen: Seen, stage: str, how: str) -> Scale:
    """Learn calibrators, the best baseline and joint scores of a stage.

    Parameters
    ----------
    reader : Reader
        Fitted to another split.
    seen : Seen
        The calibration split.
    stage : str
        One that it has.
    how : str
        "isotonic" or "platt".

    Raises
    ------
    MechRewardError
        One class.
    """
    reward = seen.reward(stage)
    raw, calibrators, areas = {}, {}, {}
    for scorer in reader.of(stage):
        if scorer.why_not(seen, stage):
            continue
        key = scorer.name, scorer.draw
        raw[key] = scorer.score(seen, stage)
        calibrators[key] = calibrator(raw[key], reward, how)
        if scorer.role == SURFACE:
            areas[scorer.name] = stats.auroc(raw[key], reward)
    order = tuple(sorted(areas, key=lambda name: -areas[name]))
    joint = {}
    for key, score in raw.items():
        if order and key != (order[0], 0):
            both = np.column_stack([raw[order[0], 0], score])
            joint[key] = Logit.of(both, reward.astype(float))
    return Scale(calibrators, order, joint)


def group_of(reader: Reader, scale: Scale, seen: Seen, stage: str) -> Group:
    """Scores of every arm on rollouts that nothing was fitted to.

    Where they lack the best baseline, as another task may, the next one takes its place; nothing is
    joined then.
    """
    rows = seen.rows(stage)
    missing = {**reader.why_not(stage), **seen.missing.get(stage, {})}
    there = {}
    for scorer in reader.of(stage):
        why = scorer.why_not(seen, stage)
        key = scorer.name, scorer.draw
        if why:
            missing[scorer.name] = why
        elif key in scale.calibrators:
            there[key] = scorer
    order = [name for name in scale.order if (name, 0) in there]
    best = order[0] if order else ""
    scores = {key: scorer.score(seen, stage) for key, scorer in there.items()}
    arms = []
    for key, scorer in there.items():
        joined = None
        if key in scale.joint and best == scale.order[0]:
            joined = scale.joint[key].score(np.column_stack([scores[best, 0], scores[key]]))
        arm = Arm(
            name=scorer.name,
            role=scorer.role,
            draw=scorer.draw,
            neurons=_neurons(scorer),
            error=scorer.error if isinstance(scorer, ReadOut) else nan,
            raw=scores[key],
            calibrated=scale.calibrators[key].prob(scores[key]),
            joined=joined,
        )
        arms.append(arm)
    return Group(
        stage=stage,
        trajectory=seen.acts.trajectory[rows],
        step=seen.acts.step[rows],
        problem=seen.problem(stage),
        reward=seen.reward(stage),
        arms=tuple(arms),
        best=best,
        missing=missing,
    )


def _neurons(scorer: object) -> int:
    """How many neurons an arm reads: -1 for the whole site."""
    if not isinstance(scorer, ReadOut):
        return 0
    return -1 if scorer.neurons is None else len(scorer.neurons)
