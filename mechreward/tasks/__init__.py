"""Tasks with exact verifiers: what a model reasons about."""

from mechreward.base.errors import one_of
from mechreward.tasks.base import Problem, Task, Verdict
from mechreward.tasks.chain import Chain
from mechreward.tasks.countdown import Countdown
from mechreward.tasks.lines import LineTask
from mechreward.tasks.paths import Paths
from mechreward.tasks.validation import validate
from mechreward.tasks.words import Words

# What the models of some hundred words play.
GAMES: dict[str, type[LineTask]] = {task.name: task for task in (Countdown, Chain, Paths)}
TASKS: dict[str, type[Task]] = {**GAMES, Words.name: Words}


def get(name: str) -> Task:
    """The bundled task of that name.

    Parameters
    ----------
    name : str
        "countdown", "chain", "paths" or "words".

    Returns
    -------
    Task
        The task with its default sizes.

    Raises
    ------
    MechRewardError
        No bundled task has this name.
    """
    one_of("task", name, TASKS)
    return TASKS[name]()


__all__ = [
    "GAMES",
    "TASKS",
    "Chain",
    "Countdown",
    "LineTask",
    "Paths",
    "Problem",
    "Task",
    "Verdict",
    "Words",
    "get",
    "validate",
]
