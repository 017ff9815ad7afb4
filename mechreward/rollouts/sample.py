"""Rollouts: the model answers, the task verifies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mechreward.base.errors import require
from mechreward.models.engine import Continuation, Hooks, Job, Policy, generate
from mechreward.models.identity import model_id
from mechreward.models.row_edits import Edit
from mechreward.models.text import decode, encode, eos_id, pieces
from mechreward.rollouts.trajectory import Rollouts, Trajectory, task_of
from mechreward.tasks import Problem


def sample(
    model: Any,
    problems: Sequence[Problem],
    *,
    k: int = 1,
    seed: int = 0,
    policy: Policy | None = None,
    batch: int = 256,
    hooks: Hooks = (),
    what: str | None = "rollouts",
) -> Rollouts:
    """`k` answers to every problem, ordered by problem.

    Every row has its own generator, keyed by (seed, problem id, sample): the same answers for any
    batch size or order, and common random numbers between runs with and without `hooks` (an
    intervention, see `causal`).

    Raises:
        MechRewardError: no problems, several tasks, or k < 1.
    """
    (runs,) = sample_arms(
        model, problems, [()], k=k, seed=seed, policy=policy, batch=batch, hooks=hooks, what=what
    )
    return runs


def sample_arms(
    model: Any,
    problems: Sequence[Problem],
    arms: Sequence[tuple[Edit, ...]],
    *,
    k: int = 1,
    seed: int = 0,
    policy: Policy | None = None,
    batch: int = 256,
    hooks: Hooks = (),
    what: str | None = "rollouts",
) -> list[Rollouts]:
    """The same problems with the same random numbers under each arm's edits, all arms in one batch.

    An arm is the edits its rows carry (see `Edit`); `()` leaves the model as it is.

    Raises:
        MechRewardError: no problems, several tasks, k < 1, or an edit that never fired.
    """
    task = task_of(problems)
    require(k >= 1, f"k counts answers to each problem and must be at least 1; {k} was given.")
    policy = policy or Policy()
    prompts = [encode(model, problem.prompt) for problem in problems]
    each = [
        (problem, prompt, number)
        for problem, prompt in zip(problems, prompts, strict=True)
        for number in range(k)
    ]
    jobs = [
        Job(prompt, len(prompt), task.max_tokens, (seed, problem.id, number), edits)
        for edits in arms
        for problem, prompt, number in each
    ]
    said = generate(
        model, jobs, eos=eos_id(model), policy=policy, batch=batch, hooks=hooks, what=what
    )
    identity, owners = model_id(model), tuple(problem for problem, _, _ in each)
    runs = [
        finish(model, problem, prompt, answer, seed, number)
        for (problem, prompt, number), answer in zip(each * len(arms), said, strict=True)
    ]
    parts = [tuple(runs[start : start + len(each)]) for start in range(0, len(runs), len(each))]
    return [Rollouts(part, owners, policy, identity, seed) for part in parts]


def finish(
    model: Any, problem: Problem, prompt: torch.Tensor, answer: Continuation, seed: int, number: int
) -> Trajectory:
    """A trajectory from a prompt and what was generated after it."""
    task = task_of([problem])
    tokens = torch.cat([prompt, answer.tokens])
    ends = task.step_ends(pieces(model, tokens), len(prompt))
    verdict = task.verify(problem, decode(model, answer.tokens))
    return Trajectory(
        problem.id, tokens, len(prompt), tuple(ends), verdict, answer.logprobs, seed, number
    )
