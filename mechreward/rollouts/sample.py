"""Rollouts: the model answers, the task verifies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mechreward.base.errors import MechRewardError, of_kind, require, whole
from mechreward.models.checks import check_hooks
from mechreward.models.engine import Hooks, Job, Policy, generate
from mechreward.models.identity import model_id
from mechreward.models.row_edits import Edit
from mechreward.models.shards import kept_in
from mechreward.models.text import decode, encode, eos_ids
from mechreward.rollouts.steps import step_ends, warn_of
from mechreward.rollouts.trajectory import Rollouts, Trajectory, check_distinct, task_of
from mechreward.tasks import Problem
from mechreward.tasks.judge import check_problems, judge


def sample(
    model: Any,
    problems: Sequence[Problem],
    *,
    k: int = 1,
    seed: int = 0,
    policy: Policy | None = None,
    batch: int = 256,
    hooks: Hooks = (),
    out: Path | str | None = None,
    progress: bool | str = True,
) -> Rollouts:
    """Let the model answer problems, and verify the answers.

    Every row has its own generator, keyed by `answer_key`: the same answers for any
    batch size or order, and common random numbers between runs with and without `hooks`.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model that answers.
    problems : sequence of Problem
        Of one task.
    k : int, default 1
        Answers to every problem.
    seed : int, default 0
        Part of the key of every row.
    policy : Policy or None, default None
        How tokens are drawn; the model's own distribution if None.
    batch : int, default 256
        Rows decoded at once.
    hooks : sequence of (str, function), default ()
        TransformerLens `(name, fn)` pairs that stay on, such as an intervention (see `causal`).
    out : Path or str or None, default None
        Folder that keeps what is generated, shard by shard: stopped and called again, it goes on.
        Not with `hooks`, whose effect nothing can tell apart.
    progress : bool or str, default True
        Whether a bar is shown, or its title.

    Returns
    -------
    Rollouts
        `k` answers to every problem, ordered by problem.

    Raises
    ------
    MechRewardError
        No problems, several tasks, one problem twice, problems that no file can hold, hooks of
        another kind, k < 1, or a verifier that fails throughout (see `tasks.judge`). Before any
        work, with the problem's id: a prompt that is empty, does not fit into the model's context
        with the task's limit, or has tokens outside the vocabulary. Later, likewise: logits that
        are not finite.
    """
    require(
        out is None or not hooks,
        "answers under hooks cannot be kept: nothing tells one hook from another. Leave out= away, "
        "or use an Intervention with sample_arms.",
    )
    with kept_in(out):
        (runs,) = sample_arms(
            model,
            problems,
            [()],
            k=k,
            seed=seed,
            policy=policy,
            batch=batch,
            hooks=hooks,
            progress=progress,
        )
    return runs


def answer_key(seed: int, problem: Problem, number: int = 0) -> tuple[str, int, str, int]:
    """Name of the random numbers of one answer: the same for a baseline and every arm beside it."""
    return ("answer", seed, problem.id, number)


def prompt_of(model: Any, problem: Problem) -> torch.Tensor:
    """Tokens [pos] of a problem's prompt.

    Raises
    ------
    MechRewardError
        No tokens can be made of it, or none but those that an empty text has.
    """
    try:
        tokens = encode(model, problem.prompt)
    except MechRewardError as error:
        raise MechRewardError(f"problem {problem.id!r}: {error}") from error
    empty = len(tokens) == 0
    if isinstance(problem.prompt, str):
        empty = empty or torch.equal(tokens, encode(model, ""))
    require(not empty, f"problem {problem.id!r}: its prompt is empty.")
    return tokens


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
    progress: bool | str = True,
) -> list[Rollouts]:
    """The same problems with the same random numbers under each arm's edits, all arms in one batch.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model that answers.
    problems : sequence of Problem
        Of one task.
    arms : sequence of tuple of Edit
        The edits that the rows of an arm carry; `()` leaves the model as it is.
    k : int, default 1
        Answers to every problem.
    seed : int, default 0
        Part of the key of every row.
    policy : Policy or None, default None
        How tokens are drawn; the model's own distribution if None.
    batch : int, default 256
        Rows decoded at once.
    hooks : sequence of (str, function), default ()
        TransformerLens `(name, fn)` pairs that stay on, such as an intervention (see `causal`).
    progress : bool or str, default True
        Whether a bar is shown, or its title.

    Returns
    -------
    list of Rollouts
        One for each arm.

    Raises
    ------
    MechRewardError
        As `sample`, or an edit that never fired.
    """
    identity = model_id(model)
    task = task_of(problems)
    check_distinct(problems)
    k = whole("k", k, 1, "answers to each problem")
    seed = whole("seed", seed)
    batch = whole("batch", batch, 1, "rows decoded at once")
    policy = Policy() if policy is None else policy
    of_kind("policy", policy, Policy)
    check_hooks(model, hooks)
    check_problems(task, problems)
    asked = []  # every answer of an arm: problem, prompt, number of the answer
    for problem in problems:
        prompt = prompt_of(model, problem)
        for number in range(k):
            asked.append((problem, prompt, number))
    jobs = []
    limit = policy.limit(task)
    for edits in arms:
        for problem, prompt, number in asked:
            key = answer_key(seed, problem, number)
            jobs.append(Job(prompt, len(prompt), limit, key, edits, problem.id))
    answers = generate(
        model, jobs, eos=eos_ids(model), policy=policy, batch=batch, hooks=hooks, progress=progress
    )
    owners = tuple(problem for problem, _, _ in asked)
    texts = [decode(model, answer.tokens) for answer in answers]
    ended = [answer.finished for answer in answers]
    verdicts = judge(task, owners * len(arms), texts, ended)
    rollouts = []
    faults: dict[str, str] = {}
    for start in range(0, len(answers), len(asked)):
        runs = []
        made = zip(asked, answers[start:], verdicts[start:], strict=False)
        for (problem, prompt, number), answer, verdict in made:
            tokens = torch.cat([prompt, answer.tokens])
            ends, fault = step_ends(model, task, tokens, len(prompt))
            if fault:
                faults.setdefault(problem.id, fault)
            run = Trajectory(
                problem_id=problem.id,
                tokens=tokens,
                prompt_len=len(prompt),
                step_ends=ends,
                verdict=verdict,
                logprobs=answer.logprobs,
                ended=answer.finished,
                seed=seed,
                sample=number,
            )
            runs.append(run)
        rollouts.append(Rollouts(tuple(runs), owners, policy, identity, seed))
    warn_of(task, faults, len(answers))
    return rollouts
