"""What a model goes on to say from given states under given edits: rewards and the damage meter,
one entry an answer."""

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
from mechreward.models.text import decode, eos_ids, pieces
from mechreward.rollouts.sample import answer_key, prompt_of
from mechreward.rollouts.trajectory import Rollouts, check_distinct, task_of
from mechreward.tasks import Problem
from mechreward.tasks.judge import judge

BACK = "back"  # what an answer says where it turns back


@dataclass(frozen=True, eq=False)
class State:
    """A prompt and part of an answer.

    Attributes:
        tokens: `[pos]`, the prompt and what has been said; nothing yet at s_0.
        prompt_len: how many of them are the prompt.
    """

    problem: Problem
    tokens: Int[torch.Tensor, " pos"]
    prompt_len: int


@dataclass(frozen=True)
class Answers:
    """One entry for each answer, in any shape.

    Attributes:
        reward: verified, 0 or 1.
        parsed: whether the answer can be read; one that says nothing cannot.
        ended: whether it ended by itself, within the token limit.
        length: in tokens.
        back: whether it turns back.
    """

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

    def premature(self, clean: Answers, share: float = 0.0) -> Bool[np.ndarray, "*job"]:
        """Which answers are wrong and ended by themselves before any sound answer of the clean
        model does, but for the shortest `share` of these (our choice: the most that lengths alone
        can tell, of any task)."""
        lengths = clean.length[clean.sound]
        shortest = np.quantile(lengths, share, method="lower") if len(lengths) else 0
        return self.ended & (self.reward == 0) & (self.length < shortest)

    def damage(self, clean: Answers | None = None) -> dict[str, float]:
        """The damage meter of outcomes: parse rate, end-of-sequence rate, truncation rate and mean
        length over all. That of clean text (KL, norm of the change) is `causal.effect.CleanText`'s.

        Args:
            clean: answers of the model as it is; with them, the rate of premature endings too.
        """
        meter = {
            "parse_rate": float(self.parsed.mean()),
            "eos_rate": float(self.ended.mean()),
            "truncation_rate": float(1 - self.ended.mean()),
        }
        if clean is not None:
            meter["premature_rate"] = float(self.premature(clean).mean())
        return meter | {"length": float(self.length.mean())}


def beginnings(model: Any, problems: Sequence[Problem]) -> list[State]:
    """s_0 of every problem.

    Raises:
        MechRewardError: no problems, several tasks, or one problem twice.
    """
    task_of(problems)
    check_distinct(problems)
    states = []
    for problem in problems:
        prompt = prompt_of(model, problem)
        states.append(State(problem, prompt, len(prompt)))
    return states


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
    progress: bool | str = False,
) -> Answers:
    """Go on from each job's state under its edits, with the random numbers of its key.

    Equal keys draw equal random numbers, so a change is told from its control on common ones. What
    is left of the task's token limit is the limit.

    Args:
        jobs: (state, edits, key) of each answer.
        policy: how tokens are drawn and where answers end; None (default) for its defaults.
        batch: rows decoded at once (default 256).
        progress: whether bars are shown, or their title (default False).

    Returns:
        `[job]`

    Raises:
        MechRewardError: no jobs, states of several tasks, a state without room, or an edit that
            never fired.
    """
    require(len(jobs) > 0, "there is no state to go on from.")
    task = task_of([state.problem for state, _, _ in jobs])
    policy = policy or Policy()
    limit = policy.limit(task)
    wanted = []
    for state, edits, key in jobs:
        length = len(state.tokens)
        begun = length - state.prompt_len
        id_ = state.problem.id
        wanted.append(Job(state.tokens, length, limit - begun, key, edits, id_, begun))
    continuations = generate(
        model, wanted, eos=eos_ids(model), policy=policy, batch=batch, progress=progress
    )
    problems, texts = [], []
    for (state, _, _), continuation in zip(jobs, continuations, strict=True):
        said = torch.cat([state.tokens[state.prompt_len :], continuation.tokens])
        problems.append(state.problem)
        texts.append(decode(model, said))
    ended = [continuation.finished for continuation in continuations]
    verdicts = judge(task, problems, texts, ended)
    tokens = [continuation.tokens for continuation in continuations]
    return Answers(
        np.array([verdict.reward for verdict in verdicts]),
        np.array([verdict.outcome != "unverifiable" for verdict in verdicts]),
        np.array([continuation.finished for continuation in continuations]),
        np.array([len(row) for row in tokens]),
        _turns_back(model, tokens),
    )


def answer_arms(
    model: Any,
    problems: Sequence[Problem],
    arms: Sequence[tuple[Edit, ...]],
    seed: int = 0,
    policy: Policy | None = None,
    progress: bool | str = False,
) -> Answers:
    """Answers [arm problem] from the beginning, under each arm's edits, with common random numbers.

    What is said is that of `rollouts.sample.sample_arms`; this keeps outcomes alone, that one whole
    trajectories.
    """
    states = beginnings(model, problems)
    jobs = []
    for edits in arms:
        for state in states:
            jobs.append((state, edits, answer_key(seed, state.problem)))
    return answer(model, jobs, policy=policy, progress=progress).shaped(len(arms), len(states))


def outcomes(model: Any, runs: Rollouts) -> Answers:
    """Answers [trajectory] that were sampled already."""
    return Answers(
        np.array(runs.rewards),
        np.array([run.verdict.outcome != "unverifiable" for run in runs]),
        np.array([run.ended for run in runs]),
        np.array([run.length for run in runs]),
        _turns_back(model, [run.tokens[run.prompt_len :] for run in runs]),
    )


def rates(answers: Answers) -> Float[np.ndarray, "*row"]:
    """V-hat: the mean reward over the last axis."""
    return answers.reward.mean(-1)


def _turns_back(model: Any, rows: Sequence[torch.Tensor]) -> Bool[np.ndarray, " row"]:
    """Whether any token of each row begins the word that turns back."""
    seen = torch.cat(list(rows)).unique().tolist()
    is_back = np.zeros(max(seen) + 1, dtype=bool)
    is_back[seen] = [text.strip().startswith(BACK) for text in pieces(model, seen)]
    return np.array([is_back[row.numpy()].any() for row in rows])
