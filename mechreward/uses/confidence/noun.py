"""`Confidence`: how sure each arm is of each answer, at each stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from mechreward.base.errors import MechRewardError, one_of, require, whole
from mechreward.base.frames import Framed
from mechreward.base.plain import visible
from mechreward.models.identity import ModelId
from mechreward.stats import Interval
from mechreward.uses.confidence import kept
from mechreward.uses.confidence.fitted import Fitted
from mechreward.uses.confidence.groups import Group
from mechreward.uses.confidence.metrics import (
    DRAWS,
    Rank,
    frame_of,
    measured,
    rank,
    reliability_of,
    risk_coverage_of,
)
from mechreward.uses.confidence.read_outs import SET, VALUE


@dataclass(frozen=True, repr=False)
class Confidence(Framed):
    """Scores of the value arm and of every baseline on rollouts that nothing was fitted to.

    Attributes
    ----------
    groups : mapping of str to Group
        By stage, what may be compared: "prompt" (before the first token), "partial" (at every state
        in the middle of an answer), "answer" (finished), "k answers" (several to one problem).
    missing : mapping of str to str
        Why a stage is not defined, by its name.
    problems : tuple of str
        Ids of the problems, by number.
    model_id : ModelId
        The model that answered.
    task : str
        Its task; empty if the problems know none.
    verified : bool
        Whether any answer was verified: without that there is confidence, and nothing to measure
        it by.
    seed : int
        Of draws, fits and bootstraps.
    fitted : Fitted
        All that was learnt, which other rollouts can be read with: `confidence(model, runs, conf)`.
    """

    groups: Mapping[str, Group]
    missing: Mapping[str, str]
    problems: tuple[str, ...] = field(repr=False)
    model_id: ModelId
    task: str
    verified: bool
    seed: int
    fitted: Fitted

    def __repr__(self) -> str:
        (answers, problems) = self._counts()
        return (
            f"Confidence({visible(self.model_id.name)}, {answers} answers to {problems} problems; "
            f"value: {self.fitted.value}; {', '.join(self.groups)})"
        )

    def __str__(self) -> str:
        """What the value arm comes to at each stage, and what is not defined."""
        lines = [repr(self)]
        for stage, group in self.groups.items():
            if self.verified:
                lines.append(f"  {stage}: {_told(group, self.seed)}")
        for stage, why in self.missing.items():
            lines.append(f"  not defined here: {stage} ({why})")
        for stage, group in self.groups.items():
            for name, why in group.missing.items():
                lines.append(f"  not defined here: {name} at {stage} ({why})")
        return "\n".join(visible(line) for line in lines)

    def group(self, stage: str) -> Group:
        """The arms of one stage.

        Raises
        ------
        MechRewardError
            No such stage, or one that is not defined for these answers.
        """
        if stage in self.missing:
            raise MechRewardError(f"{stage!r} is not defined here: {self.missing[stage]}.")
        one_of("stage", stage, self.groups)
        return self.groups[stage]

    def frame(self) -> pd.DataFrame:
        """A row an answer and a state: where it is, the reward (NaN where nothing was verified),
        and of every arm its raw score in a column of its name and its probability of a right
        answer in `NAME_calibrated`. NaN at stages that an arm does not belong to. Single control
        sets are in `groups`."""
        parts = []
        for stage, group in self.groups.items():
            reward = group.reward.astype(float)
            columns = {
                "stage": stage,
                "trajectory": group.trajectory,
                "step": group.step,
                "problem": np.array(self.problems, dtype=object)[group.problem],
                "reward": reward if self.verified else np.full(len(reward), np.nan),
            }
            for arm in group.arms:
                if arm.role != SET:
                    columns[arm.name] = arm.raw
                    columns[f"{arm.name}_calibrated"] = arm.calibrated
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    def metrics(self, draws: int = DRAWS) -> pd.DataFrame:
        """A row an arm and stage, with bounds clustered by problem (`measured` says what each
        column is).

        Controls have the mean over their sets between the lowest and the highest; the value arm has
        its `rank` among the matched `sets`, 1 the highest AUROC, with its p. `best` marks the
        surface baseline of each stage that the calibration split chose. `neurons` is -1 for the
        whole site.

        Parameters
        ----------
        draws : int, default 500
            Of the bootstrap; 0 leaves out bounds that need one.

        Raises
        ------
        MechRewardError
            No answer was verified.
        """
        self._check_verified()
        draws = whole("draws", draws, 0)
        parts = [frame_of(group, draws, self.seed) for group in self.groups.values()]
        return pd.concat(parts, ignore_index=True)

    def measured(self, stage: str, draws: int = DRAWS) -> dict[str, dict[str, Interval]]:
        """The same of one stage as intervals, by arm and metric.

        Raises
        ------
        MechRewardError
            No such stage, or no answer was verified.
        """
        self._check_verified()
        return measured(self.group(stage), whole("draws", draws, 0), self.seed)

    def rank(self, stage: str) -> Rank | None:
        """Where the value arm's AUROC stands among the matched sets'; None without such sets.

        Raises
        ------
        MechRewardError
            No such stage, or no answer was verified.
        """
        self._check_verified()
        return rank(self.group(stage))

    def reliability(self, arm: str = VALUE, stage: str = "prompt", bins: int = 15) -> pd.DataFrame:
        """A row a bin of the calibrated score: its mean beside the share of right answers, with
        bounds clustered by problem.

        Raises
        ------
        MechRewardError
            No such arm or stage, no bin, or no answer was verified.
        """
        self._check_verified()
        group = self.group(stage)
        return reliability_of(group, group.arm(arm), whole("bins", bins, 1), self.seed)

    def risk_coverage(self, arm: str = VALUE, stage: str = "prompt") -> pd.DataFrame:
        """A row a coverage: share of wrong answers among the surest of an arm, beside an oracle's
        and that of a random order.

        Raises
        ------
        MechRewardError
            No such arm or stage, or no answer was verified.
        """
        self._check_verified()
        group = self.group(stage)
        return risk_coverage_of(group, group.arm(arm))

    def save(self, path: Path | str) -> Path:
        """One safetensors file, written atomically: scores, and all that was learnt."""
        return kept.write(path, self)

    @classmethod
    def load(cls, path: Path | str) -> Confidence:
        """Read what `save` wrote.

        Raises
        ------
        MechRewardError
            The file is missing, damaged, or holds something else.
        """
        return kept.read(path, cls)

    def _counts(self) -> tuple[int, int]:
        group = next(iter(self.groups.values()))
        return len(np.unique(group.trajectory)), len(np.unique(group.problem))

    def _check_verified(self) -> None:
        require(
            self.verified,
            "no answer was verified, so that nothing can be measured: frame() has the confidence "
            "of every answer. Give rollouts of a task with a verifier to measure it.",
        )


def _told(group: Group, seed: int) -> str:
    """The value arm in a line."""
    numbers = measured(group, 0, seed)
    value = numbers[VALUE]
    words = [f"AUROC {value['auroc']}"]
    if group.best:
        best = numbers[group.best]["auroc"]
        words.append(f"best baseline {group.best} {best}")
        words.append(f"adds {value['added'].estimate:.3f} to it")
    words.append(
        f"ECE {value['ece'].estimate:.3f} ({value['perfect_ece'].estimate:.3f} if perfect)"
    )
    ranked = rank(group)
    if ranked:
        words.append(f"rank {ranked.place} of {ranked.sets + 1} with matched sets")
    return ", ".join(words)


__all__ = ["Confidence"]
