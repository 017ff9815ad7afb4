"""What early exits saved and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

from mechreward import stats
from mechreward.base.errors import MechRewardError, one_of, require
from mechreward.base.files import read_tensors, write_tensors
from mechreward.base.frames import Framed
from mechreward.rollouts.trajectory import Rollouts
from mechreward.stats import Interval
from mechreward.tasks import Task
from mechreward.uses.exit_rules import (
    DIRECTIONS,
    Exit,
    Points,
    Stops,
    check_rule,
    levels,
    stopped,
)

SHARES = (0.1, 0.25, 0.5)  # of the tokens, at which signals are compared


@dataclass(frozen=True)
class EarlyExit(Framed):
    """One rollout a problem, where rules stopped it, and what that saved.

    Attributes
    ----------
    rules : tuple of Exit
        In the order in which they are asked.
    rollouts : Rollouts
        Whole ones; live, as far as they were generated.
    points : Points
        Where they could be stopped, with all signals.
    live : bool
        Whether rollouts were stopped indeed, so that how they would have ended is not known.
    block : int or None
        Tokens between points; None: ends of steps.
    marks : mapping of str to str
        What tells the read-outs that were used from others, by signal.
    judged : bool
        Whether the task verified the answers.
    stops : Stops
        What became of every rollout.
    full_reward : array [rollout]
        Reward of the whole rollout; NaN where it is not known.
    full_tokens : array [rollout]
        Tokens of the whole rollout; NaN where that is not known.
    reward : array [rollout]
        What was given: 0 where it was abandoned.
    accuracy : float
        Mean of `reward`.
    abstained : float
        Share of rollouts that were abandoned.
    saved : float
        Share of all tokens that were saved, what was charged taken off; NaN live.
    lost : array [rollout]
        Whether a rollout that would have ended correct gives no correct answer.
    """

    rules: tuple[Exit, ...]
    rollouts: Rollouts = field(repr=False)
    points: Points = field(repr=False)
    live: bool = False
    block: int | None = None
    marks: Mapping[str, str] = field(default_factory=dict, repr=False)
    judged: bool = True

    def __repr__(self) -> str:
        names = []
        for rule in self.rules:
            names.append(f"{rule.signal} {rule.direction} {rule.threshold:.4g}")
        by = ", ".join(names) or "no rule"
        right = f"accuracy {self.accuracy:.3f}" if self.judged else "not judged"
        if self.judged and not self.live:
            right += f" ({self.full_reward.mean():.3f} whole)"
        saved = "live" if self.live else f"{self.saved:.1%} of tokens saved"
        return (
            f"EarlyExit({len(self.rollouts)} problems, {by}; {right}, "
            f"{self.abstained:.1%} abstained, {saved})"
        )

    @cached_property
    def stops(self) -> Stops:
        """What became of every rollout."""
        return stopped(self.points, self.rules, self._length, self._reward)

    @property
    def _length(self) -> Int[np.ndarray, " rollout"]:
        return np.array([run.length for run in self.rollouts], dtype=int)

    @property
    def _reward(self) -> Float[np.ndarray, " rollout"]:
        if not self.judged:
            return np.full(len(self.rollouts), np.nan)
        return np.array(self.rollouts.rewards, dtype=float)

    @property
    def _unknown(self) -> Bool[np.ndarray, " rollout"]:
        return (self.stops.point >= 0) & self.live

    @property
    def full_reward(self) -> Float[np.ndarray, " rollout"]:
        """Reward of the whole rollout; NaN where it is not known."""
        return np.where(self._unknown, np.nan, self._reward)

    @property
    def full_tokens(self) -> Float[np.ndarray, " rollout"]:
        """Tokens of the whole rollout; NaN where that is not known."""
        return np.where(self._unknown, np.nan, self._length)

    @property
    def reward(self) -> Float[np.ndarray, " rollout"]:
        """Of the answer that was given; 0 where the rollout was abandoned."""
        return self.stops.reward

    @property
    def accuracy(self) -> float:
        """Mean reward, abandoned rollouts counted as wrong; NaN without a verifier."""
        return float(self.reward.mean()) if self.judged else float("nan")

    @property
    def abstained(self) -> float:
        """Share of the rollouts that were abandoned."""
        return float(self.stops.abandoned.mean())

    @property
    def saved(self) -> float:
        """Share of the tokens of whole rollouts that were saved, with what was charged; NaN where
        a rollout was stopped live."""
        return float(1 - self.stops.used.sum() / self.full_tokens.sum())

    @property
    def lost(self) -> Bool[np.ndarray, " rollout"]:
        """Whether a rollout that would have ended correct gives no correct answer."""
        return (self.full_reward == 1) & ~(self.reward == 1)

    @property
    def promised(self) -> float | None:
        """The rate of lost answers that conformal rules promise together, the sum of their alphas;
        None where another rule is among them."""
        alphas = [rule.alpha for rule in self.rules if rule.how == "conformal"]
        if not alphas or len(alphas) < len(self.rules):
            return None
        return float(sum(alpha for alpha in alphas if alpha is not None))

    @property
    def realised(self) -> Interval:
        """P(answer lost | would have ended correct) as it was, with Clopper and Pearson's interval.

        Raises
        ------
        MechRewardError
            Live, without a verifier, or where no whole rollout is correct.
        """
        self.need_whole("how often a correct answer was lost")
        correct = int((self.full_reward == 1).sum())
        require(correct > 0, "no whole rollout is correct: no correct answer could be lost.")
        return stats.proportion(int(self.lost.sum()), correct, exact=True)

    def under(self, *rules: Exit) -> EarlyExit:
        """The same rollouts under other rules.

        Raises
        ------
        MechRewardError
            Live, a signal that was not read, answers that were not asked for, or a rule that does
            not go with these rollouts.
        """
        require(not self.live, "rollouts that were stopped live cannot go under other rules.")
        runs = self.rollouts
        for rule in rules:
            check_rule(rule, runs.model_id, runs.policy, self.block, self.marks)
            self.points.signal(rule.signal)
            self.need_answers(rule.direction)
        return replace(self, rules=rules)

    def frame(self) -> pd.DataFrame:
        """A line a problem: where it stopped and why, tokens, rewards."""
        stops = self.stops
        first = np.searchsorted(self.points.rollout, np.arange(len(self.rollouts)))
        lines = []
        for number, run in enumerate(self.rollouts):
            point = int(stops.point[number])
            early = point >= 0
            line = {
                "problem_id": run.problem_id,
                "stopped": early,
                "signal": self.rules[stops.rule[number]].signal if early else "",
                "abandoned": bool(stops.abandoned[number]),
                "point": point - int(first[number]) + 1 if early else 0,
                "generated": int(stops.generated[number]),
                "charged": int(stops.charged[number]),
                "tokens": int(stops.used[number]),
                "full_tokens": self.full_tokens[number],
                "answer": self.points.answers[point] if early else "",
                "reward": self.reward[number] if self.judged else np.nan,
                "full_reward": self.full_reward[number],
                "lost": bool(self.lost[number]),
            }
            lines.append(line)
        return pd.DataFrame(lines)

    def curve(self, signal: str | None = None, direction: str = "below") -> pd.DataFrame:
        """Accuracy and abstention against tokens saved, a line a threshold.

        Parameters
        ----------
        signal : str or None, default None
            Which; None: that of the first rule, or the first that was read.
        direction : {"below", "above"}, default "below"
            Which side stops.

        Returns
        -------
        DataFrame
            `threshold, saved, accuracy, abstained, answered` (accuracy of those not abandoned,
            NaN without any) and `lost` (rate among those that would have ended correct).

        Raises
        ------
        MechRewardError
            Live, without a verifier, an unknown signal or direction, or answers that were not
            asked for.
        """
        if signal is None:
            signal = self.rules[0].signal if self.rules else next(iter(self.points.signals))
        one_of("direction", direction, DIRECTIONS)
        self.need_whole("a curve")
        self.need_answers(direction)
        lines = []
        for threshold in levels(self.points, signal, direction):
            stops = self._at(signal, threshold, direction)
            kept = ~stops.abandoned
            right = self.full_reward == 1
            lost = right & ~(stops.reward == 1)
            line = {
                "threshold": threshold,
                "saved": self._saved(stops),
                "accuracy": stops.reward.mean(),
                "abstained": stops.abandoned.mean(),
                "answered": stops.reward[kept].mean() if kept.any() else np.nan,
                "lost": lost.sum() / right.sum() if right.any() else np.nan,
            }
            lines.append(line)
        return pd.DataFrame(lines)

    def compare(
        self,
        signals: Sequence[str] | None = None,
        *,
        shares: Sequence[float] = SHARES,
        direction: str = "below",
        draws: int = 1000,
    ) -> pd.DataFrame:
        """Accuracy of every signal at the same share of tokens saved.

        Between the two thresholds around a share chance decides, so that each signal saves exactly
        that much in expectation (our choice, as on the hull of a ROC curve). Where asking costs
        more than stopping saves, a signal does not reach a share and has NaN there.

        Parameters
        ----------
        signals : sequence of str or None, default None
            Which; None: all that were read.
        shares : sequence of float, default (0.1, 0.25, 0.5)
            Of the tokens of whole rollouts.
        direction : {"below", "above"}, default "below"
            Which side stops.
        draws : int, default 1000
            Of the bootstrap by problem.

        Returns
        -------
        DataFrame
            `signal, saved, accuracy, low, high` and the gap to random stops that save the same,
            `gap, gap_low, gap_high`.

        Raises
        ------
        MechRewardError
            As `curve`, or a share outside (0, 1).
        """
        one_of("direction", direction, DIRECTIONS)
        self.need_whole("a comparison")
        self.need_answers(direction)
        names = list(self.points.signals) if signals is None else list(signals)
        groups = np.array(self.rollouts.groups)
        lines = []
        for share in shares:
            require(0 < share < 1, f"a share of tokens lies between 0 and 1; {share} was given.")
            chance = self._saving("random", share, direction)
            for name in names:
                rewards = self._saving(name, share, direction)
                line = {"signal": name, "saved": share}
                accuracy = gap = Interval(np.nan, np.nan, np.nan, 0)
                if rewards is not None:
                    accuracy = stats.cluster_bootstrap(
                        np.mean, rewards, groups, draws=draws, span=(0, 1)
                    )
                if rewards is not None and chance is not None:
                    gap = stats.paired_difference(rewards, chance, groups, draws=draws)
                line |= {"accuracy": accuracy.estimate, "low": accuracy.low, "high": accuracy.high}
                line |= {"gap": gap.estimate, "gap_low": gap.low, "gap_high": gap.high}
                lines.append(line)
        return pd.DataFrame(lines)

    def _at(self, signal: str, threshold: float, direction: str) -> Stops:
        rule = Exit(signal, float(threshold), direction)
        return stopped(self.points, [rule], self._length, self._reward)

    def _saved(self, stops: Stops) -> float:
        return float(1 - stops.used.sum() / self._length.sum())

    def _saving(
        self, signal: str, share: float, direction: str
    ) -> Float[np.ndarray, " rollout"] | None:
        """Expected reward of every rollout where a share of tokens is saved; None out of reach."""
        before = None
        for threshold in levels(self.points, signal, direction):
            stops = self._at(signal, threshold, direction)
            saved = self._saved(stops)
            if saved >= share:
                if before is None:
                    return stops.reward
                low, rewards = before
                weight = (share - low) / (saved - low)
                return (1 - weight) * rewards + weight * stops.reward
            before = saved, stops.reward
        return None

    def need_whole(self, what: str) -> None:
        """Raise MechRewardError where the ends of rollouts are not known, or not verified."""
        require(
            not self.live,
            f"{what} needs whole rollouts: call early_exit with live=False.",
        )
        require(self.judged, f"{what} needs a verifier, and the task has none.")

    def need_answers(self, direction: str) -> None:
        """Raise MechRewardError where stopping above needs answers that were not asked for."""
        asked = bool((self.points.asked > 0).all())
        require(
            direction == "below" or asked,
            "stopping above needs the answer at every point: call early_exit with answers=True.",
        )

    def save(self, folder: Path | str) -> Path:
        """A folder: the rollouts, the points, and the rules."""
        folder = Path(folder)
        self.rollouts.save(folder / "rollouts.safetensors")
        tensors = {}
        for name in ("rollout", "tokens", "asked", "reward"):
            tensors[name] = torch.from_numpy(getattr(self.points, name))
        for name, signal in self.points.signals.items():
            tensors[f"signal {name}"] = torch.from_numpy(signal)
        about = {
            "kind": "early exit",
            "signals": list(self.points.signals),
            "answers": list(self.points.answers),
            "live": self.live,
            "block": self.block,
            "marks": dict(self.marks),
            "judged": self.judged,
            "rules": len(self.rules),
        }
        write_tensors(folder / "points.safetensors", tensors, about)
        for number, rule in enumerate(self.rules):
            rule.save(folder / f"rule-{number}.json")
        return folder

    @classmethod
    def load(cls, folder: Path | str, task: Task | None = None) -> EarlyExit:
        """Read what `save` wrote.

        Raises
        ------
        MechRewardError
            A file is missing, damaged, or holds something else.
        """
        folder = Path(folder)
        path = folder / "points.safetensors"
        tensors, about = read_tensors(path, "early exit")
        require(about.get("kind") == "early exit", f"{path} holds no early exit.")
        rollouts = Rollouts.load(folder / "rollouts.safetensors", task)
        try:
            signals = {name: tensors[f"signal {name}"].numpy() for name in about["signals"]}
            points = Points(
                tensors["rollout"].numpy(),
                tensors["tokens"].numpy(),
                signals,
                tuple(about["answers"]),
                tensors["asked"].numpy(),
                tensors["reward"].numpy(),
            )
            rules = [Exit.load(folder / f"rule-{number}.json") for number in range(about["rules"])]
            kept = {name: about[name] for name in ("live", "block", "marks", "judged")}
        except (KeyError, TypeError) as error:
            raise MechRewardError(f"{path} is a damaged early exit: {error!r}.") from error
        return cls(tuple(rules), rollouts, points, **kept)
