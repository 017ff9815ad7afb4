"""A task's verifier, called so that its failure on one answer costs that answer and no other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from mechreward.base.errors import MechRewardError, shown
from mechreward.base.limit import TimeUp, within
from mechreward.tasks.base import SILENT, UNFINISHED, Problem, Task, Verdict

FEW = 10  # problems on all of which a verifier fails before it is given up (our choice)


class Failure(NamedTuple):
    """What went wrong in a task's code."""

    why: str


class VerifierWarning(UserWarning):
    """A verifier failed on some answers: they count as unverifiable."""


def judge(
    task: Task,
    problems: Iterable[Problem],
    texts: Iterable[str],
    ended: Iterable[bool],
    sound: bool = False,
) -> list[Verdict]:
    """Verdicts of whole answers (`as_said`).

    A verifier fails where it raises, takes longer than `task.seconds`, or returns no `Verdict`. The
    answer is unverifiable then, its reason says why, and a warning names its problem.

    Parameters
    ----------
    task : Task
        The task that verifies.
    problems : iterable of Problem
        The question of each answer.
    texts : iterable of str
        The answers.
    ended : iterable of bool
        Whether each ended by itself, within the token limit.
    sound : bool, default False
        Whether the verifier is known to work, from answers before these: then it is not given up
        where it fails on all of these.

    Returns
    -------
    list of Verdict
        One for each answer.

    Raises
    ------
    MechRewardError
        The verifier fails on every answer, and is not known to work.
    """
    verdicts: list[Verdict] = []
    failures: list[tuple[str, str]] = []  # problem, and what went wrong
    for problem, text, finished in zip(problems, texts, ended, strict=True):
        verdict = _ask(task, problem, text)
        if isinstance(verdict, str):
            failures.append((problem.id, verdict))
            verdict = Verdict("unverifiable", f"the verifier failed: {verdict}")
        verdicts.append(as_said(verdict, text, finished))
        hopeless = len(failures) == len(verdicts) and len(dict(failures)) == FEW
        if hopeless and not sound:
            break
    if not failures:
        return verdicts
    named = "; ".join(f"problem {name!r}: {why}" for name, why in list(dict(failures).items())[:3])
    if len(failures) == len(verdicts) and not sound:
        raise MechRewardError(
            f"the verifier of {task.name} failed on all of {len(verdicts)} answers ({named})."
        )
    warnings.warn(
        f"the verifier of {task.name} failed on {len(failures)} of {len(verdicts)} answers, which "
        f"count as unverifiable ({named}).",
        VerifierWarning,
        stacklevel=3,
    )
    return verdicts


def answers_of(problems: Iterable[Problem], texts: Iterable[str]) -> list[str | None]:
    """What each text answers by its problem's task (`Task.answer`); never whether it is right.

    A task that fails on a text (as for `judge`) reads no answer in it, and a warning says so.

    Parameters
    ----------
    problems : iterable of Problem
        The question of each text; one without a task has no answers.
    texts : iterable of str
        The answers without their prompts.

    Returns
    -------
    list of str or None
        One for each text.
    """
    read: list[str | None] = []
    failures = []
    for problem, text in zip(problems, texts, strict=True):
        task = problem.task
        said = None
        if task is not None:
            said = _guarded(task, lambda task=task, text=text: task.answer(text))
        if isinstance(said, str | None):
            read.append(said)
            continue
        read.append(None)
        why = said.why if isinstance(said, Failure) else f"no text but {shown(said)}"
        failures.append(f"problem {problem.id!r}: {why}")
    if failures:
        warnings.warn(
            f"no answer was read in {len(failures)} of {len(read)} texts "
            f"({'; '.join(failures[:3])}).",
            VerifierWarning,
            stacklevel=3,
        )
    return read


def as_said(verdict: Verdict, text: str, ended: bool) -> Verdict:
    """The verdict on a whole answer.

    An answer that says nothing is unverifiable, whatever its task makes of it; so is one that ends
    by itself where the task finds no answer in it yet (`tasks.base.UNFINISHED`).

    Parameters
    ----------
    verdict : Verdict
        Of the task's verifier.
    text : str
        The answer without the prompt.
    ended : bool
        Whether it ended by itself, within the token limit.

    Returns
    -------
    Verdict
        The same, or an unverifiable one with its reason.
    """
    if not text.strip():
        return SILENT
    if ended and verdict == UNFINISHED:
        return Verdict("unverifiable", "ended without an answer")
    return verdict


def check_problems(task: Task, problems: Sequence[Problem]) -> None:
    """Raise MechRewardError for what would only break once the answers are there.

    That is a problem that JSON cannot hold, so that its rollouts could not be kept, and a verifier
    that fails on an empty answer to the first problem.
    """
    for problem in problems:
        for name in ("id", "answer", "info"):
            fault = _no_json(getattr(problem, name), name)
            if fault:
                raise MechRewardError(
                    f"JSON cannot hold problem {problem.id!r}: {fault}. Use text, numbers, "
                    "True, False, None, lists, and dicts whose keys are text."
                )
    failure = _ask(task, problems[0], "")
    if isinstance(failure, str):
        raise MechRewardError(
            f"the verifier of {task.name} fails on an empty answer to problem {problems[0].id!r}: "
            f"{failure}. It returns a Verdict for any text."
        )


def _ask(task: Task, problem: Problem, text: str) -> Verdict | str:
    """The verdict, or what went wrong."""
    verdict = _guarded(task, lambda: task.verify(problem, text))
    if isinstance(verdict, Failure):
        return verdict.why
    return verdict if isinstance(verdict, Verdict) else f"no Verdict but {shown(verdict)}"


def _guarded(task: Task, call: Callable[[], Any]) -> Any:
    """What a call of a task's code returns, or how it failed."""
    try:
        return within(task.seconds, call)
    except TimeUp:
        return Failure(f"no verdict within {task.seconds:g} seconds")
    except MechRewardError as error:
        return Failure(str(error))
    # A task is anybody's code, which may do anything; what it does is told with the verdict.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return Failure(" ".join(f"{type(error).__name__}: {error}".split())[:200])


def _no_json(value: Any, where: str) -> str:
    """What in a value JSON cannot hold; empty if there is nothing."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                return f"{where} has the key {shown(key)}"
            fault = _no_json(entry, f"{where}[{key!r}]")
            if fault:
                return fault
    elif isinstance(value, list | tuple):
        for number, entry in enumerate(value):
            fault = _no_json(entry, f"{where}[{number}]")
            if fault:
                return fault
    elif value is not None and not isinstance(value, str | int | float):
        return f"{where} is {shown(value)}"
    return ""
