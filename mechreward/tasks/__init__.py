"""Tasks with exact verifiers: what a model reasons about."""

from mechreward.base.errors import one_of
from mechreward.tasks.base import Problem, Task, Verdict
from mechreward.tasks.chain import Chain
from mechreward.tasks.countdown import Countdown
from mechreward.tasks.lines import LineTask
from mechreward.tasks.paths import Paths

TASKS: dict[str, type[LineTask]] = {task.name: task for task in (Countdown, Chain, Paths)}


def get(name: str) -> LineTask:
    """The bundled task of that name.

    Parameters
    ----------
    name : str
        "countdown", "chain" or "paths".

    Returns
    -------
    LineTask
        The task with its default sizes.

    Raises
    ------
    MechRewardError
        No bundled task has this name.
    """
    one_of("task", name, TASKS)
    return TASKS[name]()


__all__ = ["TASKS", "Chain", "Countdown", "LineTask", "Paths", "Problem", "Task", "Verdict", "get"]
