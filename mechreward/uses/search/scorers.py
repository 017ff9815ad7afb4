"""What says how good a step is: names, neurons, probes, functions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int

from mechreward.base import streams
from mechreward.base.errors import MechRewardError, shown
from mechreward.base.limit import TimeUp, within
from mechreward.models.capture import Caught, Read
from mechreward.models.jobs import Spread
from mechreward.models.site import Site
from mechreward.tasks import Problem
from mechreward.tasks.judge import judge


@dataclass(frozen=True, eq=False)
class Draft:
    """A partial or whole answer that has just grown, as scorers see it.

    Attributes
    ----------
    problem : Problem
        The question.
    path : tuple of int
        Names the candidate (`tree.Node`).
    seed : int
        Of the search.
    steps : tuple of str
        [step] texts of all its steps so far.
    spans : tuple of slice
        [new] the tokens of each new step, among those of this continuation.
    tokens : tensor [gen]
        Those tokens.
    logprobs : tensor [gen]
        The model's own at temperature 1.
    ended : bool
        Whether the answer is whole.
    finished : bool
        Whether it ended by itself, within the limit.
    begun : int
        Tokens of prompt and answer before this continuation.
    spread : Spread or None
        Entropy and self-certainty, where the scorer asked for them.
    caught : Caught or None
        What was read in the generating pass: a row for the last token before this continuation and
        one for each of its tokens.
    """

    problem: Problem
    path: tuple[int, ...]
    seed: int
    steps: tuple[str, ...]
    spans: tuple[slice, ...]
    tokens: Int[torch.Tensor, " gen"] = field(repr=False)
    logprobs: Float[torch.Tensor, " gen"] = field(repr=False)
    ended: bool
    finished: bool
    begun: int
    spread: Spread | None = field(default=None, repr=False)
    caught: Caught | None = field(default=None, repr=False)


class Scorer(ABC):
    """Scores the new steps of a candidate; the higher, the better.

    Attributes
    ----------
    name : str
        How results and errors call it.
    bounded : bool
        Whether scores are probabilities.
    spread : bool
        Whether it needs entropy or self-certainty.
    whole : bool
        Whether it can score whole answers alone.
    trained : int
        Generated tokens that its making cost, for the ledger's last column.
    """

    name: str
    bounded: bool = False
    spread: bool = False
    whole: bool = False
    trained: int = 0

    @abstractmethod
    def __call__(self, draft: Draft) -> list[float]:
        """[new] of every new step."""

    def reads(self) -> Mapping[Site, Read | None]:
        """What it reads in the generating pass (`models.capture.Capture`)."""
        return {}

    def scored(self, draft: Draft) -> int:
        """Tokens that it reads in passes of its own."""
        return 0


class Chance(Scorer):
    """Random numbers: what the search itself is worth."""

    name = "random"

    def __call__(self, draft: Draft) -> list[float]:
        key = ("search: chance", draft.seed, draft.problem.id, *draft.path)
        return streams.rng(*key).random(len(draft.spans)).tolist()


class LogProbability(Scorer):
    """Mean log-probability of a step's tokens, nats."""

    name = "logprob"

    def __call__(self, draft: Draft) -> list[float]:
        return [float(draft.logprobs[span].mean()) for span in draft.spans]


class SelfCertainty(Scorer):
    """Mean self-certainty of a step's tokens, nats (arXiv 2502.18581)."""

    name = "self_certainty"
    spread = True

    def __call__(self, draft: Draft) -> list[float]:
        if draft.spread is None:
            raise RuntimeError("self-certainty was not measured")
        return [float(draft.spread.certainty[span].mean()) for span in draft.spans]


class Length(Scorer):
    """Minus the tokens of a step: short ones first."""

    name = "length"

    def __call__(self, draft: Draft) -> list[float]:
        return [float(span.start - span.stop) for span in draft.spans]


class Oracle(Scorer):
    """The verified reward: what a perfect choice among whole answers reaches (pass@k)."""

    name = "oracle"
    bounded = True
    whole = True

    def __call__(self, draft: Draft) -> list[float]:
        task = draft.problem.task
        if task is None:
            raise RuntimeError("checked by search")
        text = "".join(draft.steps)
        (verdict,) = judge(task, [draft.problem], [text], [draft.finished])
        return [float(verdict.reward)] * len(draft.spans)


class _NoScores(Exception):
    """What a function gave is not what was asked for."""


@dataclass(frozen=True, eq=False)
class Outside(Scorer):
    """A function `score(prompt, steps) -> list of float`, such as a process reward model.

    It is given the prompt as text and all steps of a candidate, and gives a score for each; those
    of new steps count. What it reads is counted as scored tokens.

    Attributes
    ----------
    function : callable
        Anybody's code.
    timeout : float
        Seconds that one call may take.
    mark : str, default ""
        Tells functions of one name apart where finished problems are kept.
    """

    name: str
    function: Callable[[str, list[str]], Any]
    timeout: float = 60.0
    bounded: bool = False
    trained: int = 0
    mark: str = ""

    def __call__(self, draft: Draft) -> list[float]:
        steps = len(draft.steps)
        try:
            # Whatever it gives is read under the same guard: that is code of theirs too.
            given = within(self.timeout, lambda: self._read(draft))
        except TimeUp:
            raise self._fault(draft, f"gave nothing within {self.timeout:g} seconds") from None
        except _NoScores as error:
            raise self._fault(draft, str(error)) from None
        except MechRewardError as error:
            raise self._fault(draft, f"failed: {error}") from error
        # It may do anything; what it does is told with the problem.
        except (Exception, SystemExit) as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise self._fault(draft, f"failed: {why}") from error
        if len(given) != steps:
            raise self._fault(draft, f"gave {len(given)} scores for {steps} steps")
        return given[steps - len(draft.spans) :]

    def _read(self, draft: Draft) -> list[float]:
        """What the function gives, as numbers."""
        given = self.function(draft.problem.question, list(draft.steps))
        if hasattr(given, "tolist"):
            given = given.tolist()
        if not isinstance(given, list | tuple):
            raise _NoScores(f"gave {shown(given)}, not a score for each step")
        return [self._number(score) for score in given]

    def scored(self, draft: Draft) -> int:
        return draft.begun + len(draft.tokens)

    def _number(self, score: Any) -> float:
        try:
            return float(score)
        except (TypeError, ValueError, OverflowError):
            raise _NoScores(f"gave {shown(score)} for a score") from None

    def _fault(self, draft: Draft, why: str) -> MechRewardError:
        return MechRewardError(f"scorer {self.name!r} {why}, on problem {draft.problem.id!r}.")


def checked(scorer: Scorer, draft: Draft) -> list[float]:
    """The scores of a draft's new steps.

    Raises
    ------
    MechRewardError
        One that is not a number.
    """
    scores = scorer(draft)
    for number, score in enumerate(scores, start=len(draft.steps) - len(scores) + 1):
        if not math.isfinite(score):
            raise MechRewardError(
                f"scorer {scorer.name!r} gave {score} for step {number}, on problem "
                f"{draft.problem.id!r}; a score is a finite number."
            )
    return scores
