"""The verdict on an answer as it was given: a task reads the text, and silence is no answer."""

from __future__ import annotations

from mechreward.tasks import Problem, Task, Verdict
from mechreward.tasks.base import SILENT, UNFINISHED


def verdict_of(task: Task, problem: Problem, text: str, ended: bool) -> Verdict:
    """What a task says of a whole answer.

    An answer that says nothing is unverifiable, whatever the task says of it; so is one that ends
    by itself where the task finds no answer in it (`tasks.base.UNFINISHED`).

    Parameters
    ----------
    task : Task
        The verifier.
    problem : Problem
        The question.
    text : str
        The answer without the prompt.
    ended : bool
        Whether it ended by itself, within the token limit.

    Returns
    -------
    Verdict
        As `Task.verify`.
    """
    if not text.strip():
        return SILENT
    verdict = task.verify(problem, text)
    if ended and verdict == UNFINISHED:
        return Verdict("unverifiable", "ended without an answer")
    return verdict
