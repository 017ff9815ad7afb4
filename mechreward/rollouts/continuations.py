"""What a model goes on to say from given states under given edits: rewards and the damage meter,
one row an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from mechreward.base.errors import require
from mechreward.models.engine import Job, Policy, generate
from mechreward.models.row_edits import Edit
from mechreward.models.text import decode, encode, eos_id, pieces
from mechreward.rollouts.trajectory import Rollouts, task_of
from mechreward.tasks import Problem

BACK = "back"


@dataclass(frozen=True, eq=False)
class State:
    """A prompt and part of an answer (none of it: s_0). `tokens` [pos], the first `prompt_len`
    being the prompt."""

    problem: Problem
    tokens: Int[torch.Tensor, " pos"]
    prompt_len: int


@dataclass(frozen=True)
class Answers:
    """One entry for each continuation, in any shape: the verified `reward` 0/1, whether it could be
    `parsed` and `ended` by itself, its `length` in tokens, and whether it says `back`."""

    reward: Int[np.ndarray, "*job"]
    parsed: Bool[np.ndarray, "*job"]
    ended: Bool[np.ndarray, "*job"]
    length: Int[np.ndarray, "*job"]
    back: Bool[np.ndarray, "*job"]

    def shaped(self, *shape: int) -> Answers:
        """The same in another shape."""
        return Answers(*(column.reshape(shape) for column in vars(self).values()))

    def __getitem__(self, index: Any) -> Answers:
        return Answers(*(column[index] for column in vars(self).values()))

    @property
    def sound(self) -> Bool[np.ndarray, "*job"]:
        """Which answers can be read and ended by themselves."""
        return self.parsed & self.ended

    def damage(self) -> dict[str, float]:
        """Parse rate, end-of-sequence rate, truncation rate and mean length over all."""
        rates = {
            "parse_rate": self.parsed.mean(),
            "eos_rate": self.ended.mean(),
            "truncation_rate": 1 - self.ended.mean(),
        }
        return {key: float(rate) for key, rate in (rates | {"length": self.length.mean()}).items()}


def beginnings(model: Any, problems: Sequence[Problem]) -> list[State]:
    """s_0 of every problem."""
    task_of(problems)
    prompts = [encode(model, problem.prompt) for problem in problems]
    return [
        State(problem, prompt, len(prompt))
        for problem, prompt in zip(problems, prompts, strict=True)
    ]


def state_of(runs: Rollouts, trajectory: int, step: int) -> State:
    """The state at the end of a step of one of `runs` (0: s_0)."""
    run = runs[trajectory]
    return State(runs.problems[trajectory], run.tokens[: run.step_ends[step] + 1], run.prompt_len)


def answer(
    model: Any,
    jobs: Sequence[tuple[State, tuple[Edit, ...], tuple[int | str, ...]]],
    *,
    policy: Policy | None = None,
    batch: int = 256,
    what: str | None = None,
) -> Answers:
    """Go on from each job's state under its edits, with the random numbers of its key.

    Equal keys draw equal random numbers, so a change is told from its control on common ones. What
    is left of the task's token limit is the limit. As `rollouts.sample.sample_arms`, but it keeps
    outcomes alone.

    Raises:
        MechRewardError: no jobs, states of several tasks, a state without room, or an edit that
        never fired.
    """
    require(len(jobs) > 0, "there is no state to go on from.")
    task, eos = task_of([state.problem for state, _, _ in jobs]), eos_id(model)
    wanted = [
        Job(
            state.tokens,
            len(state.tokens),
            task.max_tokens - len(state.tokens) + state.prompt_len,
            key,
            edits,
        )
        for state, edits, key in jobs
    ]
    said = generate(model, wanted, eos=eos, policy=policy, batch=batch, what=what)
    seen = torch.cat([one.tokens for one in said]).unique().tolist()
    backs = np.zeros(max(seen) + 1, dtype=bool)
    backs[seen] = [text.strip().startswith(BACK) for text in pieces(model, seen)]
    rows = []
    for (state, _, _), one in zip(jobs, said, strict=True):
        text = decode(model, torch.cat([state.tokens[state.prompt_len :], one.tokens]))
        verdict = task.verify(state.problem, text)
        back = bool(backs[one.tokens.numpy()].any())
        rows.append(
            (verdict.reward, verdict.outcome != "unverifiable", one.finished, len(one.tokens), back)
        )
    reward, parsed, ended, length, back = (np.array(column) for column in zip(*rows, strict=True))
    return Answers(reward, parsed, ended, length, back)


def rates(answers: Answers) -> Float[np.ndarray, "*row"]:
    """V-hat: the mean reward over the last axis."""
    return answers.reward.mean(-1)


def both_ways(
    model: Any,
    problems: Sequence[Problem],
    arms: Sequence[tuple[Edit, ...]],
    seed: int = 0,
    policy: Policy | None = None,
    what: str | None = None,
) -> Answers:
    """Answers [arm problem] from the beginning, under each arm's edits, with common random
    numbers."""
    states = beginnings(model, problems)
    jobs = [(state, edits, (seed, state.problem.id, 0)) for edits in arms for state in states]
    return answer(model, jobs, policy=policy, what=what).shaped(len(arms), len(states))
