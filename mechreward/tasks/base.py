"""What there is to reason about: `Problem`, `Task`, `Verdict`, and the line-by-line game the
offline tasks share."""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from mechreward.base.errors import MechRewardError, one_of, require

SPLITS = ("train", "validation", "test")
PATIENCE = 20_000  # draws without a new problem before a split counts as exhausted


@dataclass(frozen=True)
class Problem:
    """One question. `id` decides the split; `info` holds what the exact solver needs (never shown
    to a model)."""

    id: str
    prompt: str
    answer: str
    info: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    task: Task | None = field(default=None, repr=False, compare=False)

    @property
    def difficulty(self) -> int:
        """Number of operations or moves the shortest solution needs (a surface baseline for
        confidence)."""
        return int(self.info["difficulty"])


@dataclass(frozen=True)
class Verdict:
    """Outcome of checking an answer. A text that cannot be read is `unverifiable`, which is not
    `incorrect`."""

    outcome: Literal["correct", "incorrect", "unverifiable"]
    reason: str = ""

    @property
    def reward(self) -> int:
        """Terminal reward: 1 if verified correct, else 0 (paper section 2)."""
        return int(self.outcome == "correct")


class Task(ABC):
    """A family of problems with an exact verifier.

    `max_tokens` limits a rollout (in generated tokens) and is part of the policy: V is defined
    under it.
    """

    name: ClassVar[str]
    max_tokens: ClassVar[int]

    @abstractmethod
    def draw(self, rng: random.Random) -> Problem | None:
        """One random problem, or None when the draw has to be thrown away."""

    @abstractmethod
    def verify(self, problem: Problem, text: str) -> Verdict:
        """Check the whole generated `text` (without the prompt), every line of it."""

    def problems(self, split: str, n: int, seed: int = 0) -> list[Problem]:
        """`n` different problems of a split, the same on every machine.

        Splits are disjoint by problem id (SHA-256 of the id: 70% train, 10% validation, 20% test).

        Raises:
            MechRewardError: unknown split, n < 1, or fewer than n different problems can be found.
        """
        one_of("split", split, SPLITS)
        require(n >= 1, f"a task needs at least one problem: n={n} was given.")
        rng = random.Random(f"{self.name}/{split}/{seed}")
        found: dict[str, Problem] = {}
        idle = 0
        while idle < PATIENCE:
            problem = self.draw(rng)
            idle += 1
            if problem is not None and split_of(problem.id) == split and problem.id not in found:
                found[problem.id], idle = replace(problem, task=self), 0
            if len(found) == n:
                return list(found.values())
        raise MechRewardError(
            f"{self.name} has only {len(found)} {split} problems within reach; {n} were asked for."
        )

    def step_ends(self, pieces: Sequence[str], prompt_len: int) -> list[int]:
        """Absolute index of each step's last token, given the text of every token.

        Entry 0 is the last prompt token (state s_0). A step ends at a token that holds a line
        break, and at the last token of the text.
        """
        ends = [prompt_len - 1]
        ends += [
            i for i in range(prompt_len, len(pieces)) if "\n" in pieces[i] or i == len(pieces) - 1
        ]
        return ends


def split_of(problem_id: str) -> str:
    """The split a problem id belongs to."""
    bucket = int.from_bytes(hashlib.sha256(problem_id.encode()).digest()[:4], "big") % 10
    return "test" if bucket < 2 else "validation" if bucket == 2 else "train"
