"""Rollouts: the model answers, the task verifies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mechreward._check import require
from mechreward.models.adapter import decode, encode, eos_id, model_id, pieces
from mechreward.models.engine import Continuation, Hooks, Job, Policy, generate
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

    Every row has its own generator, keyed by (seed, problem id, sample): the same answers for any batch size or
    order, and common random numbers between runs with and without `hooks` (an intervention, see `causal`).

    Raises:
        MechRewardError: no problems, several tasks, or k < 1.
    """
    task = task_of(problems)
    require(k >= 1, f"k counts answers to each problem and must be at least 1; {k} was given.")
    policy = policy or Policy()
    jobs, owners = [], []
    for problem in problems:
        prompt = encode(model, problem.prompt)
        for number in range(k):
            jobs.append(Job(prompt, len(prompt), task.max_tokens, (seed, problem.id, number)))
            owners.append((problem, number))
    said = generate(model, jobs, eos=eos_id(model), policy=policy, batch=batch, hooks=hooks, what=what)
    runs = tuple(
        finish(model, problem, job.trunk, answer, seed, number)
        for (problem, number), job, answer in zip(owners, jobs, said, strict=True)
    )
    return Rollouts(runs, tuple(problem for problem, _ in owners), policy, model_id(model), seed)


def finish(
    model: Any, problem: Problem, prompt: torch.Tensor, answer: Continuation, seed: int, number: int
) -> Trajectory:
    """A trajectory from a prompt and what was generated after it."""
    task = task_of([problem])
    tokens = torch.cat([prompt, answer.tokens])
    ends = task.step_ends(pieces(model, tokens), len(prompt))
    verdict = task.verify(problem, decode(model, answer.tokens))
    return Trajectory(problem.id, tokens, len(prompt), tuple(ends), verdict, answer.logprobs, seed, number)
