"""`Trajectory`, an answer with its steps and verdict, and `Rollouts`, many of one model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int

from mechreward import tasks
from mechreward.base.errors import MechRewardError, of_kind, require, shown
from mechreward.base.files import read_tensors, write_tensors
from mechreward.base.frames import Framed
from mechreward.base.plain import visible
from mechreward.models.engine import Policy
from mechreward.models.identity import ModelId
from mechreward.tasks import Problem, Task, Verdict

TAKE = "take some with task.problems('test', 100)"


@dataclass(frozen=True)
class Trajectory:
    """Prompt and answer as token ids.

    Attributes
    ----------
    problem_id : str
        The question.
    tokens : tensor [pos]
        Prompt and answer.
    prompt_len : int
        How many tokens are the prompt.
    step_ends : tuple of int
        [step + 1] absolute index of each step's last token, entry 0 being the last prompt token
        (state s_0).
    verdict : Verdict
        The task's.
    logprobs : tensor [gen]
        The model's own at temperature 1.
    ended : bool
        Whether it ended by itself: with an end-of-sequence token or a text of `Policy.stop`.
    seed : int, default 0
        Names, with `sample`, the generator that drew it.
    sample : int, default 0
        Number of the answer among those to one problem.
    reward : int
        Terminal reward, 0 or 1.
    steps : int
        Number of steps (lines).
    length : int
        Number of generated tokens.
    """

    problem_id: str
    tokens: Int[torch.Tensor, " pos"] = field(repr=False)
    prompt_len: int
    step_ends: tuple[int, ...]
    verdict: Verdict
    logprobs: Float[torch.Tensor, " gen"] = field(repr=False)
    ended: bool
    seed: int = 0
    sample: int = 0

    @property
    def reward(self) -> int:
        """Terminal reward, 0 or 1."""
        return self.verdict.reward

    @property
    def steps(self) -> int:
        """Number of steps (lines)."""
        return len(self.step_ends) - 1

    @property
    def length(self) -> int:
        """Number of generated tokens."""
        return len(self.tokens) - self.prompt_len

    def span(self, step: int) -> slice:
        """Token positions of a step, 1 to `steps`.

        Raises
        ------
        MechRewardError
            No such step.
        """
        require(
            1 <= step <= self.steps,
            f"this trajectory has steps 1 to {self.steps}; {step} was given.",
        )
        return slice(self.step_ends[step - 1] + 1, self.step_ends[step] + 1)


@dataclass(frozen=True)
class Rollouts(Framed):
    """A sequence of trajectories of one model and policy.

    Attributes
    ----------
    trajectories : tuple of Trajectory
        Ordered by problem.
    problems : tuple of Problem
        Each trajectory's problem.
    policy : Policy
        How tokens were drawn.
    model_id : ModelId
        The model that answered.
    seed : int, default 0
        Seed of `sample`.
    rewards : list of int
        Terminal reward of each trajectory.
    groups : list of int
        Number of each trajectory's prompt, for splits and bootstraps by problem.

    Raises
    ------
    MechRewardError
        One id with two prompts.
    """

    trajectories: tuple[Trajectory, ...] = field(repr=False)
    problems: tuple[Problem, ...] = field(repr=False)
    policy: Policy
    model_id: ModelId
    seed: int = 0

    def __post_init__(self) -> None:
        check_ids(self.problems)

    def __len__(self) -> int:
        return len(self.trajectories)

    def __iter__(self) -> Iterator[Trajectory]:
        return iter(self.trajectories)

    def __getitem__(self, index: int) -> Trajectory:
        return self.trajectories[index]

    def __repr__(self) -> str:
        right = sum(run.reward for run in self)
        temperature = self.policy.temperature
        return (
            f"Rollouts({len(self)} of {visible(self.model_id.name)}, {right} correct, "
            f"temperature {temperature})"
        )

    @property
    def rewards(self) -> list[int]:
        """Terminal reward of each trajectory."""
        return [run.reward for run in self]

    @property
    def groups(self) -> list[int]:
        """Number of each trajectory's prompt, for splits and bootstraps by problem: one prompt
        under several ids is one problem."""
        known: dict[str, int] = {}
        return [known.setdefault(problem.question, len(known)) for problem in self.problems]

    def frame(self) -> pd.DataFrame:
        """A line an answer, with the columns that `read_rollouts` takes: token ids of prompt and
        answer, log-probabilities, reward, and how it was drawn."""
        lines = []
        for run, problem in zip(self.trajectories, self.problems, strict=True):
            line = {
                "problem_id": run.problem_id,
                "sample": run.sample,
                "prompt_token_ids": run.tokens[: run.prompt_len].tolist(),
                "token_ids": run.tokens[run.prompt_len :].tolist(),
                "logprobs": run.logprobs.tolist(),
                "logprobs_are": "before",
                "reward": run.reward,
                "outcome": run.verdict.outcome,
                "reason": run.verdict.reason,
                "finish_reason": "stop" if run.ended else "length",
                "answer": problem.answer,
                "steps": run.steps,
                "length": run.length,
                "model": self.model_id.name,
                "model_revision": self.model_id.revision,
                "tokenizer_hash": self.model_id.tokenizer,
                "temperature": self.policy.temperature,
                "top_p": self.policy.top_p,
                "top_k": self.policy.top_k,
                "stop": list(self.policy.stop) or None,
                "max_tokens": self.policy.max_tokens,
            }
            lines.append(line)
        return pd.DataFrame(lines)

    def subset(self, indices: Sequence[int]) -> Rollouts:
        """The trajectories of the given indices."""
        trajectories = tuple(self.trajectories[i] for i in indices)
        problems = tuple(self.problems[i] for i in indices)
        return Rollouts(trajectories, problems, self.policy, self.model_id, self.seed)

    def save(self, path: Path | str) -> Path:
        """One safetensors file, written atomically.

        Raises
        ------
        MechRewardError
            There is no trajectory.
        """
        require(len(self) > 0, "there are no trajectories to save.")
        rows = []
        for run, problem in zip(self.trajectories, self.problems, strict=True):
            question = {
                "id": problem.id,
                "prompt": problem.prompt,
                "answer": problem.answer,
                "info": problem.info,
            }
            row = {
                "problem": question,
                "task": problem.task.name if problem.task else None,
                "prompt_len": run.prompt_len,
                "step_ends": run.step_ends,
                "verdict": [run.verdict.outcome, run.verdict.reason],
                "ended": run.ended,
                "seed": run.seed,
                "sample": run.sample,
                "tokens": len(run.tokens),
            }
            rows.append(row)
        about = {
            "kind": "rollouts",
            "policy": asdict(self.policy),
            "model_id": asdict(self.model_id),
            "seed": self.seed,
            "trajectories": rows,
        }
        tensors = {
            "tokens": torch.cat([run.tokens for run in self]).int(),
            "logprobs": torch.cat([run.logprobs for run in self]).float(),
        }
        return write_tensors(path, tensors, about)

    @classmethod
    def load(cls, path: Path | str, task: Task | None = None) -> Rollouts:
        """Read what `save` wrote.

        Parameters
        ----------
        path : Path or str
            The file.
        task : Task or None, default None
            Needed only when the rollouts are of a task that does not come with the package.

        Raises
        ------
        MechRewardError
            The file is missing, damaged, or holds something else.
        """
        tensors, about = read_tensors(path, "rollouts")
        require(about.get("kind") == "rollouts", f"{path} holds {about.get('kind')}, not rollouts.")
        try:
            return cls._from_file(tensors, about, task)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise MechRewardError(f"{path} is a damaged rollouts file: {error!r}.") from error

    @classmethod
    def _from_file(
        cls, tensors: dict[str, torch.Tensor], about: dict[str, Any], task: Task | None
    ) -> Rollouts:
        runs, problems = [], []
        token = logprob = 0  # where the next trajectory begins
        for row in about["trajectories"]:
            game = task
            if game is None and row["task"] in tasks.TASKS:
                game = tasks.get(row["task"])
            problem = Problem(**row["problem"], task=game)
            length = row["tokens"] - row["prompt_len"]
            run = Trajectory(
                problem_id=problem.id,
                tokens=tensors["tokens"][token : token + row["tokens"]].long(),
                prompt_len=row["prompt_len"],
                step_ends=tuple(row["step_ends"]),
                verdict=Verdict(*row["verdict"]),
                logprobs=tensors["logprobs"][logprob : logprob + length],
                ended=row["ended"],
                seed=row["seed"],
                sample=row["sample"],
            )
            token += len(run.tokens)
            logprob += len(run.logprobs)
            runs.append(run)
            problems.append(problem)
        if (token, logprob) != (len(tensors["tokens"]), len(tensors["logprobs"])):
            raise ValueError(f"{token} tokens are listed, {len(tensors['tokens'])} are there")
        return cls(
            trajectories=tuple(runs),
            problems=tuple(problems),
            policy=Policy(**about["policy"]),
            model_id=ModelId(**about["model_id"]),
            seed=about["seed"],
        )


def task_of(problems: Sequence[Problem]) -> Task:
    """The one task all problems belong to.

    Raises
    ------
    MechRewardError
        No problems, something else than problems, a problem without a task, problems of several
        tasks, or a task without name or limit.
    """
    if isinstance(problems, str) or not isinstance(problems, Sequence):
        raise MechRewardError(
            f"problems are a list of Problem; {shown(problems)} was given: {TAKE}."
        )
    require(len(problems) > 0, f"no problems were given; {TAKE}.")
    for problem in problems:
        of_kind("every problem", problem, Problem, TAKE)
    names: dict[str, Any] = {}
    for task in {id(problem.task): problem.task for problem in problems}.values():
        if task is not None:
            of_kind("the task of a problem", task, Task)
            task.check()
        names[task.name if task else ""] = task
    if len(names) > 1 or "" in names:
        given = ", ".join(repr(name) for name in sorted(names))
        raise MechRewardError(
            f"problems of exactly one task are needed; these belong to {given}. "
            "Take them with task.problems(...)."
        )
    return next(iter(names.values()))


def check_ids(problems: Sequence[Problem]) -> None:
    """Raise MechRewardError for one id with two prompts."""
    prompts: dict[str, str] = {}
    for problem in problems:
        first = prompts.setdefault(problem.id, problem.question)
        require(
            first == problem.question,
            f"the id {problem.id!r} stands for two prompts, {first!r} and {problem.question!r}: "
            "give every problem an id of its own.",
        )


def check_distinct(problems: Sequence[Problem]) -> None:
    """Raise MechRewardError for a problem that is there twice, whatever its ids: its copies would
    count as independent."""
    check_ids(problems)
    ids: dict[str, str] = {}
    copies = []
    for problem in problems:
        if problem.question in ids:
            copies.append(f"{problem.id!r} is {ids[problem.question]!r} again")
        ids.setdefault(problem.question, problem.id)
    require(
        not copies,
        f"{len(copies)} of {len(problems)} problems are copies of others ({', '.join(copies[:1])}):"
        " give each once; several answers to a problem are sample(..., k=).",
    )


def check_apart(**splits: Sequence[Problem]) -> None:
    """Raise MechRewardError where two splits share a prompt, under whatever ids.

    Parameters
    ----------
    **splits
        Problems by the name that the message gives them.
    """
    names = list(splits)
    for number, name in enumerate(names):
        known = {problem.question: problem.id for problem in splits[name]}
        for other in names[number + 1 :]:
            shared = [problem for problem in splits[other] if problem.question in known]
            if shared:
                first = shared[0]
                raise MechRewardError(
                    f"{len(shared)} of {len(splits[other])} {other} prompts stand in {name} too, "
                    f"first that of {first.id!r} (there {known[first.question]!r}): nothing that "
                    "is fitted on one can be tested on the other; take other problems."
                )
