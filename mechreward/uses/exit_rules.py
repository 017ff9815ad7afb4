"""When a rollout is stopped: rules, and thresholds that a conformal bound sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mechreward.base.errors import MechRewardError, finite, of_kind, one_of, require, shown
from mechreward.base.files import read_json, write_json
from mechreward.models.identity import ModelId
from mechreward.models.policy import Policy

DIRECTIONS = ("below", "above")
HOW = ("given", "validation", "conformal")
ASKED = ("confidence", "stability")  # signals of a forced answer, which is paid for at every point
LEVELS = 200  # thresholds that are tried at most


class ExitWarning(UserWarning):
    """A rule that can stop nothing."""


@dataclass(frozen=True)
class Exit:
    """Stop a rollout at the first point where a signal crosses a threshold.

    Below it a rollout is abandoned: it gives no answer, which counts as wrong. Above it the task's
    answer prefix is put behind the text and the model answers at once.

    Attributes
    ----------
    signal : str
        Name of the signal; the higher, the likelier the rollout is to end correct.
    threshold : float
        In the signal's unit; a rollout is stopped strictly below or above it.
    direction : {"below", "above"}, default "below"
        Which side stops.
    how : {"given", "validation", "conformal"}, default "given"
        How the threshold was set.
    alpha : float or None, default None
        Promised by a conformal threshold: P(answer lost | would have ended correct) <= alpha.
    tolerance : float or None, default None
        How far accuracy might fall on validation.
    n : int, default 0
        Rollouts that set it: those that ended correct for a conformal one, else all.
    block : int or None, default None
        Tokens between points; None: points are the ends of steps.
    policy : Policy or None, default None
        Of those rollouts.
    model_id : ModelId or None, default None
        The model that they are of.
    mark : str, default ""
        Tells the read-out of the signal from others; empty where the signal reads no activation.

    Raises
    ------
    MechRewardError
        An unknown direction or origin, a threshold that is no number, alpha outside (0, 1).
    """

    signal: str
    threshold: float
    direction: str = "below"
    how: str = "given"
    alpha: float | None = None
    tolerance: float | None = None
    n: int = 0
    block: int | None = None
    policy: Policy | None = field(default=None, repr=False)
    model_id: ModelId | None = field(default=None, repr=False)
    mark: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        of_kind("signal", self.signal, str, "the name of a signal, as in 'value'")
        one_of("direction", self.direction, DIRECTIONS)
        one_of("origin of a threshold", self.how, HOW)
        is_number = isinstance(self.threshold, Real) and not isinstance(self.threshold, bool)
        require(is_number, f"a threshold is a number; {shown(self.threshold)} was given.")
        object.__setattr__(self, "threshold", float(self.threshold))
        require(not math.isnan(self.threshold), "a threshold is a number; NaN was given.")
        if self.alpha is not None:
            check_alpha(self.alpha)

    def __repr__(self) -> str:
        if self.idle:
            return f"Exit({self.signal} {self.direction}: stops nothing{self._origin()})"
        return f"Exit({self.signal} {self.direction} {self.threshold:.4g}{self._origin()})"

    @property
    def idle(self) -> bool:
        """Whether no finite signal crosses it."""
        return self.threshold == (-math.inf if self.direction == "below" else math.inf)

    @property
    def asks(self) -> bool:
        """Whether its signal is of a forced answer, paid for at every point."""
        return self.signal in ASKED

    def crossed(self, signal: Float[np.ndarray, " point"]) -> Bool[np.ndarray, " point"]:
        """Where it stops a rollout."""
        return signal < self.threshold if self.direction == "below" else signal > self.threshold

    def _origin(self) -> str:
        if self.how == "conformal":
            return f", conformal at alpha {self.alpha:g} from {self.n} correct"
        if self.how == "validation":
            return f", within {self.tolerance:g} of accuracy on {self.n}"
        return ""

    def save(self, path: Path | str) -> Path:
        """One JSON file."""
        about: dict[str, Any] = {"kind": "exit", **asdict(self)}
        about["threshold"] = None if math.isinf(self.threshold) else self.threshold
        about["all"] = math.isinf(self.threshold) and not self.idle
        about["policy"] = self.policy.to_json() if self.policy else None
        return write_json(path, about)

    @classmethod
    def load(cls, path: Path | str) -> Exit:
        """Read what `save` wrote.

        Raises
        ------
        MechRewardError
            A file that is missing, damaged, or holds something else.
        """
        about = read_json(path, "exit rule")
        require(about.pop("kind", None) == "exit", f"{path} holds no exit rule.")
        try:
            return cls(**_rule_of(about))
        except (KeyError, TypeError) as error:
            raise MechRewardError(f"{path} is a damaged exit rule: {error!r}.") from error


def _rule_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Exit` from a file."""
    given = dict(about)
    every = given.pop("all")
    if given["threshold"] is None:
        below = given["direction"] == "below"
        given["threshold"] = math.inf if below is every else -math.inf
    if given["policy"] is not None:
        given["policy"] = Policy(**given["policy"])
    if given["model_id"] is not None:
        given["model_id"] = ModelId(**given["model_id"])
    return given


@dataclass(frozen=True)
class Points:
    """Where rollouts could be stopped: ends of steps, or of blocks of tokens, while they go on.

    Attributes
    ----------
    rollout : array [point]
        Number of the rollout, rising.
    tokens : array [point]
        Tokens generated up to the point.
    signals : mapping of str to array [point]
        The higher, the likelier the rollout is to end correct.
    answers : tuple of str
        [point] what the model answers if it is stopped there; "" where it was not asked.
    asked : array [point]
        Tokens of the answer prefix and that answer; 0 where it was not asked.
    reward : array [point]
        Reward of that answer; NaN where it was not asked or cannot be verified.
    """

    rollout: Int[np.ndarray, " point"]
    tokens: Int[np.ndarray, " point"]
    signals: Mapping[str, Float[np.ndarray, " point"]]
    answers: tuple[str, ...]
    asked: Int[np.ndarray, " point"]
    reward: Float[np.ndarray, " point"]

    def __repr__(self) -> str:
        return f"Points({len(self.tokens)}, {', '.join(self.signals)})"

    def signal(self, name: str) -> Float[np.ndarray, " point"]:
        """A signal by name.

        Raises
        ------
        MechRewardError
            It was not read.
        """
        one_of("signal (answers=True adds confidence and stability)", name, self.signals)
        return self.signals[name]


@dataclass(frozen=True)
class Stops:
    """What became of rollouts under rules.

    Attributes
    ----------
    point : array [rollout]
        The point at which each was stopped; -1 where it went to its end.
    rule : array [rollout]
        Number of the rule that stopped it; -1.
    abandoned : array [rollout]
        Whether it was stopped below a threshold.
    generated : array [rollout]
        Tokens that it generated.
    charged : array [rollout]
        Tokens of answer prefixes and of answers that were asked for.
    reward : array [rollout]
        That of the answer it gave; 0 where it was abandoned.
    """

    point: Int[np.ndarray, " rollout"]
    rule: Int[np.ndarray, " rollout"]
    abandoned: Bool[np.ndarray, " rollout"]
    generated: Int[np.ndarray, " rollout"]
    charged: Int[np.ndarray, " rollout"]
    reward: Float[np.ndarray, " rollout"]

    @property
    def used(self) -> Int[np.ndarray, " rollout"]:
        """All tokens of each."""
        return self.generated + self.charged


def stopped(
    points: Points,
    rules: Sequence[Exit],
    length: Int[np.ndarray, " rollout"],
    reward: Float[np.ndarray, " rollout"],
) -> Stops:
    """Stop every rollout at its first point that a rule crosses; of several, the first rule does.

    Parameters
    ----------
    points : Points
        Of the rollouts.
    rules : sequence of Exit
        May be none.
    length : array [rollout]
        Tokens of the whole rollouts.
    reward : array [rollout]
        Their rewards.

    Returns
    -------
    Stops
        What is left of them.
    """
    by = np.full(len(points.tokens), -1)  # of every point: the rule that stops there
    for number in reversed(range(len(rules))):
        by[rules[number].crossed(points.signal(rules[number].signal))] = number
    where = np.flatnonzero(by >= 0)
    point = np.full(len(length), -1)
    point[points.rollout[where[::-1]]] = where[::-1]  # the first is written last
    ends = point >= 0
    rule = np.where(ends, np.append(by, -1)[point], -1)
    below = np.array([each.direction == "below" for each in rules] + [False])
    abandoned = below[rule]
    answered = ends & ~abandoned
    asked = np.append(points.asked, 0)
    charged = np.where(answered, asked[point], 0)
    if any(each.asks for each in rules):
        last = np.where(ends, point, len(points.tokens))
        paid = np.arange(len(points.tokens)) <= last[points.rollout]
        charged = np.bincount(points.rollout, points.asked * paid, len(length)).astype(int)
    given = np.where(answered, np.append(points.reward, np.nan)[point], reward)
    generated = np.where(ends, np.append(points.tokens, 0)[point], length)
    return Stops(point, rule, abandoned, generated, charged, np.where(abandoned, 0.0, given))


def conformal_threshold(scores: Float[np.ndarray, " n"], alpha: float) -> float:
    """The threshold that a new score is strictly below with probability alpha at most.

    Split conformal: the floor(alpha (n + 1))-th smallest of n scores. Among n + 1 exchangeable
    scores the new one is below it only where it is among the floor(alpha (n + 1)) smallest.

    Parameters
    ----------
    scores : array [n]
        Of exchangeable cases; infinity for one that cannot be stopped.
    alpha : float
        In (0, 1).

    Returns
    -------
    float
        Minus infinity where n is too small to promise anything: alpha (n + 1) < 1.

    Raises
    ------
    MechRewardError
        No score, or alpha outside (0, 1).
    """
    check_alpha(alpha)
    require(len(scores) > 0, "a conformal threshold needs at least one score.")
    # A product that is whole but for rounding, as .29 * 100, is whole.
    rank = math.floor(alpha * (len(scores) + 1) + 1e-9)
    return float(np.sort(scores)[rank - 1]) if rank >= 1 else -math.inf


def conformal_scores(
    points: Points, signal: str, direction: str, rollouts: int
) -> Float[np.ndarray, " rollout"]:
    """The extremum of a signal over all points at which stopping would lose a correct answer.

    Below, that is every point, for nothing is answered. Above, it is those at which the forced
    answer is wrong. The sign is turned above, so that low scores are stopped; infinity where
    nothing would be lost.
    """
    x = points.signal(signal)
    loses = np.ones(len(x), bool)
    if direction == "above":
        x, loses = -x, points.reward < 1
    scores = np.full(rollouts, np.inf)
    np.minimum.at(scores, points.rollout[loses], x[loses])
    return scores


def levels(points: Points, signal: str, direction: str) -> Float[np.ndarray, " level"]:
    """Thresholds to try, from one that stops nothing to one that stops everything: the values of a
    signal, or 200 quantiles of them (our choice)."""
    x = points.signal(signal)
    if direction == "above":
        x = -x
    values = np.unique(x)
    if len(values) > LEVELS:
        values = np.unique(np.quantile(x, np.linspace(0, 1, LEVELS), method="nearest"))
    every = np.array([-np.inf, *values[1:], np.inf])
    return -every if direction == "above" else every


def check_rule(
    rule: Exit,
    identity: ModelId,
    policy: Policy,
    block: int | None,
    marks: Mapping[str, str],
) -> None:
    """Raise MechRewardError for a rule that was set under other conditions: another model, policy,
    distance of points, or read-out. What it promises would not hold."""
    if rule.how == "given":
        return
    if rule.model_id is not None:
        rule.model_id.check(identity, "exit rule")
    require(
        rule.policy == policy,
        f"this rule was set on rollouts of another policy ({rule.policy}); these have {policy}.",
    )
    require(
        rule.block == block,
        f"this rule was set with block={rule.block}, and block={block} was given: give the same.",
    )
    require(
        rule.mark == marks.get(rule.signal, ""),
        f"this rule was set for another read-out called {rule.signal!r}: give value= as then.",
    )


def check_alpha(alpha: Any) -> None:
    """Raise MechRewardError for an alpha that promises nothing."""
    finite("alpha", alpha)
    require(
        0 < alpha < 1,
        f"alpha is the promised rate of lost answers, strictly between 0 and 1; {alpha} was given.",
    )
