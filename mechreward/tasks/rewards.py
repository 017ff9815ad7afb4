"""Rewards from elsewhere as verifiers: functions that TRL takes, and tasksets of verifiers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mechreward.base.errors import MechRewardError, require, shown
from mechreward.tasks.answers import Check
from mechreward.tasks.base import Problem
from mechreward.tasks.text_task import TextTask

OWN = ("prompt", "prompts", "completion", "completions")  # arguments that are no columns


def trl_reward(function: Callable[..., Any], *, conversation: bool = False) -> Check:
    """A reward function as TRL's trainers take it, as `verify=` of a `TextTask`.

    It is called with one prompt and one completion, and with the columns of the problem's row as
    lists of one; a column `prompt`, `prompts` or `completions` is not passed on, as in TRL. A
    reward of 1 is right.

    Parameters
    ----------
    function : callable
        `function(prompts, completions, **columns) -> list of float`.
    conversation : bool, default False
        Whether completions are lists of chat messages, as for conversational data, and not texts.
    """

    def check(problem: Problem, text: str) -> float | None:
        completion: Any = [{"role": "assistant", "content": text}] if conversation else text
        prompt: Any = problem.prompt
        task: Any = problem.task
        row = task.columns[problem.id]
        columns = {name: [value] for name, value in row.items() if name not in OWN}
        rewards = function(prompts=[prompt], completions=[completion], **columns)
        require(
            isinstance(rewards, list | tuple) and len(rewards) == 1,
            f"a reward function returns a list with a reward for each completion; "
            f"{shown(rewards)} was returned for one.",
        )
        require(rewards[0] is not None, "the reward function gives None: not its kind of problem.")
        return float(rewards[0])

    return check


def taskset(tasks: Any, answer: str = "answer", **options: Any) -> TextTask:
    """A taskset of verifiers (v1) as a task: single answers, scored by its reward functions.

    Parameters
    ----------
    tasks : verifiers.v1.Taskset, or an iterable of its tasks
        Those without tools, containers and judges, and with an end.
    answer : str, default "answer"
        The field of a task's data that holds its gold answer, for `tasks.validate`; the data need
        not have it.
    **options
        Of `TextTask`: `max_tokens`, `steps`, `name`.

    Raises
    ------
    MechRewardError
        verifiers is not installed, an endless taskset, or a task that needs more than one prompt
        and one text to be scored.
    """
    try:
        from verifiers import v1  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MechRewardError("a taskset needs verifiers: pip install verifiers.") from error
    require(
        getattr(tasks, "bounded", True),
        "the taskset has no end: give some of it, such as tasks.take(200).",
    )
    rows = []
    known: dict[int, Any] = {}
    loaded: Iterable[Any] = tasks
    for number, task in enumerate(loaded):
        data = task.data
        require(
            not task.NEEDS_CONTAINER and data.image is None,
            f"task {number} needs a container; only tasks scored by the text alone can be taken.",
        )
        given = data.prompt
        if isinstance(given, str) or given is None:
            messages = [{"role": "user", "content": given or ""}]
        else:
            messages = [{"role": turn.role, "content": turn.content} for turn in given]
        texts = all(isinstance(turn["content"], str) and turn["content"] for turn in messages)
        require(texts, f"task {number} has no prompt of text alone.")
        if data.system_prompt:
            messages.insert(0, {"role": "system", "content": data.system_prompt})
        known[number] = task
        gold = str(getattr(data, answer, number))
        rows.append({"id": data.id or data.name, "question": messages, "answer": gold})
    # What its traces call a problem, where that tells all of them apart.
    names = {row["id"] for row in rows}
    column = "id" if len(names) == len(rows) and None not in names else None

    def check(problem: Problem, text: str) -> float:
        return _alone(_score(v1, known[problem.info["row"]], problem, text))

    return TextTask(rows, verify=check, id=column, **options)


def _alone(work: Coroutine[Any, Any, float]) -> float:
    """What a coroutine returns; in a thread of its own where an event loop runs already, as in a
    notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as one:
        return one.submit(asyncio.run, work).result()


async def _score(v1: Any, task: Any, problem: Problem, text: str) -> float:
    """What the task's rewards give to a trace that holds the answer alone."""
    nodes = []
    messages = [*problem.prompt, {"role": "assistant", "content": text}]
    for number, message in enumerate(messages):
        parent = number - 1 if number else None
        last = number == len(messages) - 1
        nodes.append({"parent": parent, "message": message, "sampled": last})
    record = {
        "task": {"type": type(task).__name__, "data": task.data.model_dump()},
        "agent": {"config": {}},
        "nodes": nodes,
    }
    trace = v1.Trace.model_validate(record)
    await task.score(trace)
    unscored = [name for name, reward in trace.rewards.items() if reward is None]
    require(
        bool(trace.rewards) and not unscored,
        f"its rewards cannot be had from the text alone ({', '.join(unscored) or 'none'}).",
    )
    return float(trace.reward)
