"""Tasks with exact verifiers: what a model reasons about."""

from mechreward.base.errors import one_of
from mechreward.tasks.base import Problem, Task, Verdict
from mechreward.tasks.chain import Chain
from mechreward.tasks.countdown import Countdown
from mechreward.tasks.gym import Gym
from mechreward.tasks.hub import DATA_SETS, data_set
from mechreward.tasks.lines import LineTask
from mechreward.tasks.paths import Paths
from mechreward.tasks.rewards import taskset, trl_reward
from mechreward.tasks.text_task import TextTask
from mechreward.tasks.validation import validate
from mechreward.tasks.words import Words

# What the models of some hundred words play.
GAMES: dict[str, type[LineTask]] = {task.name: task for task in (Countdown, Chain, Paths)}
TASKS: dict[str, type[Task]] = {**GAMES, Words.name: Words}


def get(name: str) -> Task:
    """The task of that name.

    Parameters
    ----------
    name : str
        A bundled task ("countdown", "chain", "paths" or "words"), or one of the paper's data sets
        ("gsm8k", "math500", "arc", "minerva"; see `data_set`).

    Returns
    -------
    Task
        The task with its default sizes.

    Raises
    ------
    MechRewardError
        No task has this name, or a data set cannot be had.
    """
    one_of("task", name, [*TASKS, *DATA_SETS])
    return TASKS[name]() if name in TASKS else data_set(name)


__all__ = [
    "DATA_SETS",
    "GAMES",
    "TASKS",
    "Chain",
    "Countdown",
    "Gym",
    "LineTask",
    "Paths",
    "Problem",
    "Task",
    "TextTask",
    "Verdict",
    "Words",
    "data_set",
    "get",
    "taskset",
    "trl_reward",
    "validate",
]
