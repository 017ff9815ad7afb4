"""What R14 runs: the plan of every arm, and the run of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from mechreward.causal.effect import CleanText
from mechreward.causal.intervene import Intervention
from mechreward.causal.steering import Push, by_arm
from mechreward.experiments.rows import Detail
from mechreward.models.engine import Policy
from mechreward.models.row_edits import Edit
from mechreward.probing.activations import Activations
from mechreward.rollouts.continuations import Answers, State, answer, answer_arms, rates, state_of
from mechreward.rollouts.trajectory import Rollouts
from mechreward.tasks import Problem

BESIDE = {"matched": "value", "matched_dopamine": "dopamine"}  # whose rank is among which sets
CURVE = 2  # matched sets that every strength is tried on

Where = tuple[str, int | float]  # place and strength


@dataclass(frozen=True)
class ArmPlan:
    """What is run of one arm.

    Attributes:
        arm: its name.
        draws: all its pushes; a set is one push.
        tried: those that every strength is tried on.
        strengths: that are tried.
        measured: strengths at which V-hat, KL and the norm of the change are taken as well, at all
            positions.
        places: positions that are steered.
    """

    arm: str
    draws: Sequence[Push]
    tried: Sequence[Push]
    strengths: Sequence[int | float]
    measured: Sequence[int | float]
    places: Sequence[str]

    @property
    def is_set(self) -> bool:
        return len(self.draws) == 1

    @property
    def site(self) -> str:
        return str(self.draws[0].neurons.site)

    def detail(self, where: Where) -> Detail:
        """What a row of this arm says of its place and strength."""
        place, strength = where
        return Detail(
            strength=strength,
            place=place,
            neurons=len(self.draws[0].neurons),
            displacement=self.draws[0].norm * abs(strength),
        )


def arm_plans(
    pushes: Sequence[Push],
    strengths: Sequence[int | float],
    places: Sequence[str],
) -> list[ArmPlan]:
    """Sets at every strength and place; matched sets at every strength, the first few of them;
    other controls at the middle strength."""
    opposed = [strength for strength in strengths if strength > 0 and -strength in strengths]
    middle = list(strengths)
    if opposed:
        size = opposed[len(opposed) // 2]
        middle = [strength for strength in strengths if abs(strength) == size]
    plans = []
    for arm, draws in by_arm(pushes).items():
        if len(draws) == 1:
            plan = ArmPlan(arm, draws, draws, strengths, strengths, places)
        elif arm in BESIDE:
            plan = ArmPlan(arm, draws, draws[:CURVE], strengths, middle, ("all",))
        else:
            plan = ArmPlan(arm, draws, draws, middle, middle, ("all",))
        plans.append(plan)
    return plans


@dataclass(frozen=True)
class Trial:
    """Problems from the beginning, and states in the middle of clean answers, under any push.

    Attributes:
        halves: the states.
        positions: that are steered, by place; None for all.
        longest: position that no answer reaches.
        k: continuations of each state.
    """

    model: Any
    problems: Sequence[Problem]
    halves: Sequence[State]
    positions: Mapping[str, range | None]
    longest: int
    seed: int
    k: int
    policy: Policy
    progress: bool | str

    @classmethod
    def of(
        cls,
        model: Any,
        problems: Sequence[Problem],
        runs: Rollouts,
        seed: int,
        k: int,
        states: int,
        progress: bool | str,
    ) -> Trial:
        """From clean `runs`, of which the first `states` of more than one step are gone on with."""
        middle = int(np.median([(run.prompt_len + len(run.tokens)) / 2 for run in runs]))
        task = problems[0].task
        longest = 512
        if task is not None:
            longest = max(len(run.tokens) for run in runs) + runs.policy.limit(task)
        halves = []
        for number, run in enumerate(runs):
            if run.steps > 1:
                halves.append(state_of(runs, number, max(1, run.steps // 2)))
        positions = {"all": None, "early": range(middle), "late": range(middle, longest)}
        return cls(
            model, problems, halves[:states], positions, longest, seed, k, runs.policy, progress
        )

    @property
    def ids(self) -> np.ndarray:
        """[problem]"""
        return np.array([problem.id for problem in self.problems])

    @property
    def owners(self) -> np.ndarray:
        """Problems of the states in the middle, [state]."""
        return np.array([state.problem.id for state in self.halves])

    def answers(self, edits: Sequence[tuple[Edit, ...]]) -> Answers:
        """[arm problem] from the beginning."""
        return answer_arms(self.model, self.problems, edits, self.seed, self.policy, self.progress)

    def steered(
        self,
        pushes: Sequence[Push],
        strengths: Sequence[int | float],
        place: str,
    ) -> dict[int | float, Answers]:
        """Answers [draw problem] by strength."""
        edits = []
        for strength in strengths:
            for push in pushes:
                edits.append((push.by(strength).edit(self.positions[place]),))
        answers = self.answers(edits).shaped(len(strengths), len(pushes), -1)
        return {strength: answers[number] for number, strength in enumerate(strengths)}

    def onward(self, changes: Sequence[Intervention | None]) -> Float[np.ndarray, "change state"]:
        """V-hat of the continuation of every state, changed from its last token on."""
        jobs = []
        for change in changes:
            for number, state in enumerate(self.halves):
                edits: tuple[Edit, ...] = ()
                if change is not None:
                    edits = (change.edit(range(len(state.tokens) - 1, self.longest)),)
                for draw in range(self.k):
                    jobs.append((state, edits, (self.seed, "onward", number, draw)))
        answers = answer(self.model, jobs, policy=self.policy, progress=self.progress)
        return rates(answers.shaped(len(changes), -1, self.k))


@dataclass(frozen=True)
class Cell:
    """What one strength at one place gave.

    Attributes:
        answers: `[draw problem]`.
        values: `[draw state]`, V-hat from the middle of clean answers; no draws where it is not
            measured.
        meters: KL and norm of the change of every draw; none where they are not measured.
    """

    answers: Answers
    values: Float[np.ndarray, "draw state"]
    meters: Sequence[Mapping[str, float]]


def run_arm(plan: ArmPlan, trial: Trial, text: CleanText, acts: Activations) -> dict[Where, Cell]:
    """All that is planned of one arm, by place and strength."""
    changes = [push.by(strength) for strength in plan.measured for push in plan.tried]
    values = trial.onward(changes).reshape(len(plan.measured), len(plan.tried), -1)
    later = dict(zip(plan.measured, values, strict=True))
    cells = {}
    for place in plan.places:
        steered = trial.steered(plan.tried, plan.strengths, place)
        for strength, answers in steered.items():
            if place == "all" and strength in later:
                meters = [text.compare(push.by(strength), acts) for push in plan.tried]
                cell = Cell(answers, later[strength], meters)
            else:
                cell = Cell(answers, values[0, :0], [])
            cells[place, strength] = cell
    return cells
