"""A task by what the command line can say of it: a name, a file of questions, a class in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mechreward.base.code import failed, run_file
from mechreward.base.errors import MechRewardError, unknown_name
from mechreward.tasks import DATA_SETS, TASKS, Gym, data_set, get
from mechreward.tasks.base import Task
from mechreward.tasks.table import FILES
from mechreward.tasks.text_task import TextTask


def task_of(name: str, **of_file: Any) -> Task:
    """A task by name.

    Parameters
    ----------
    name : str
        A bundled task; one of the paper's data sets, from the hub (`math500`) or a local copy
        (`math500:FILE.jsonl`); a data set of reasoning-gym (`gym:NAME`); a file of questions
        (.jsonl, .json, .csv, .parquet); or `FILE.py:NAME`: a task, or a class of tasks, in a Python
        file, which is run.
    **of_file
        Options of `TextTask`, for a file of questions.

    Raises
    ------
    MechRewardError
        None of these, or options for a task that is no file of questions.
    """
    if name.lower().endswith(FILES) and name.partition(":")[0] not in DATA_SETS:
        of_file["chat"] = of_file.get("chat") or None
        return TextTask(name, **of_file)
    for option, value in of_file.items():
        raise MechRewardError(
            f"--{option} is for a file of questions; leave out --{option} {value} for {name}, "
            "which has its own."
        )
    if name in (*TASKS, *DATA_SETS):
        return get(name)
    kind, _, which = name.partition(":")
    if kind in DATA_SETS and which:
        return data_set(kind, copy=which)
    if kind == "gym" and which:
        return Gym(which)
    path, _, inside = name.rpartition(":")
    if path.endswith(".py"):
        return _of_code(Path(path).expanduser(), inside)
    hint = f"{', '.join([*TASKS, *DATA_SETS])}; a file of questions ends in {', '.join(FILES)}"
    if name.endswith(".py"):
        raise MechRewardError(f"{name} is code: say which task of it, as {name}:MyTask.")
    raise MechRewardError(unknown_name("task", name, [*TASKS, *DATA_SETS], hint))


def _of_code(path: Path, name: str) -> Task:
    """A task from a file of the user's own, who asked for it to be run."""
    module = run_file(path)
    found = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, Task):
        try:
            found = found()
        # A user's code, which may do anything.
        except (Exception, SystemExit) as error:
            raise failed(path, error) from error
    if not isinstance(found, Task):
        tasks = [
            key
            for key, value in vars(module).items()
            if isinstance(value, Task) or (isinstance(value, type) and issubclass(value, Task))
        ]
        there = ", ".join(key for key in tasks if key != "Task") or "none"
        raise MechRewardError(f"{path} has no task {name!r}; tasks there: {there}.")
    return found
