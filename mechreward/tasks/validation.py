"""Is a task sound? Gold answers are right, spoiled ones are not, problems are apart, steps are
cut."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from mechreward.base.errors import MechRewardError, of_kind, whole
from mechreward.base.plain import visible
from mechreward.tasks.base import SPLITS, Problem, Task
from mechreward.tasks.judge import check_problems, judge

PROMPT = 3  # pieces that stand for a prompt
NOTHING = "I do not know."


@dataclass(frozen=True)
class Check:
    """One question about a task.

    Attributes
    ----------
    asked : str
        What was asked.
    right : int
        In how many cases it is so.
    cases : int
        How many there were; 0 where it could not be asked.
    first : str
        The first case where it is not so; empty if there is none.
    optional : bool
        Whether there need be no case.
    """

    asked: str
    right: int
    cases: int
    first: str = ""
    optional: bool = False

    @property
    def passed(self) -> bool:
        """Whether it is always so, and was asked at all."""
        return self.right == self.cases and (self.cases > 0 or self.optional)


@dataclass(frozen=True)
class Validation:
    """What `validate` asked, and found.

    Attributes
    ----------
    task : str
        The task's name.
    checks : tuple of Check
        In the order they were asked.
    """

    task: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether the task is sound, as far as was asked."""
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        """The page as text."""
        lines = [f"{self.task}: {'sound' if self.passed else 'NOT sound'}"]
        for check in self.checks:
            mark = "ok  " if check.passed else "NOT "
            told = f"; {check.first}" if check.first else ""
            lines.append(f"  {mark}{check.asked}: {check.right} of {check.cases}{told}")
        return "\n".join(visible(line) for line in lines)


def validate(task: Task, n: int = 20, seed: int = 0) -> Validation:
    """Whether a task does what every experiment relies on; no model is asked.

    A gold answer is what `Task.solve` writes. It has to be right, and not right any more where it
    answers another problem (with another answer), has lost its last line, or says nothing, or no
    answer. Every split has problems; prompts are distinct and no two splits share one. Steps rise
    from the last token of the prompt to the last of the answer.

    Parameters
    ----------
    task : Task
        The task.
    n : int, default 20
        Problems of each split that are looked at; all, where a split has fewer.
    seed : int, default 0
        Of the problems.

    Returns
    -------
    Validation
        Prints as a list; `passed` says whether all is well.

    Raises
    ------
    MechRewardError
        No task, or one that fails on everything.
    """
    of_kind("task", task, Task, "tasks.get makes one of a name")
    task.check()
    seed = whole("seed", seed)
    splits = {split: _some(task, split, whole("n", n, 1, "problems"), seed) for split in SPLITS}
    problems = [problem for some in splits.values() for problem in some]
    check_problems(task, problems)
    golds = [task.solve(problem) for problem in problems]
    checks = [
        _verified("gold answers are right", task, problems, golds, wanted=True),
        _verified(
            "those of other problems are not", task, *_swapped(problems, golds), wanted=False
        ),
        # Answers of one line have no other.
        replace(
            _verified("nor without their last line", task, *_cut(problems, golds), wanted=False),
            optional=True,
        ),
        _verified("nor is silence", task, problems, [""] * len(problems), wanted=False),
        _verified("nor is no answer", task, problems, [NOTHING] * len(problems), wanted=False),
        _filled(splits),
        _distinct(problems, getattr(task, "copies", 0)),
        _apart(splits),
        _steps(task, golds),
    ]
    return Validation(task.name, tuple(checks))


def _some(task: Task, split: str, n: int, seed: int) -> list[Problem]:
    """As many problems of a split as there are, up to `n`."""
    while n:
        try:
            return task.problems(split, n, seed)
        except MechRewardError:
            n //= 2
    return []


def _verified(
    asked: str, task: Task, problems: Sequence[Problem], texts: Sequence[str], *, wanted: bool
) -> Check:
    """Whether texts are right, or are not."""
    if not problems:
        return Check(asked, 0, 0)
    verdicts = judge(task, problems, texts, [True] * len(texts))
    wrong = []
    for problem, text, verdict in zip(problems, texts, verdicts, strict=True):
        if bool(verdict.reward) != wanted:
            why = verdict.reason or verdict.outcome
            wrong.append(f"problem {problem.id!r}, {text[-60:]!r}: {why}")
    return _check(asked, len(problems), wrong)


def _swapped(problems: Sequence[Problem], golds: Sequence[str]) -> tuple[list[Problem], list[str]]:
    """Every problem with the gold answer of the next that has another one."""
    asked, texts = [], []
    for number, problem in enumerate(problems):
        others = [*range(number + 1, len(problems)), *range(number)]
        for other in others:
            if problems[other].answer != problem.answer:
                asked.append(problem)
                texts.append(golds[other])
                break
    return asked, texts


def _cut(problems: Sequence[Problem], golds: Sequence[str]) -> tuple[list[Problem], list[str]]:
    """Gold answers of several lines without the last."""
    asked, texts = [], []
    for problem, gold in zip(problems, golds, strict=True):
        before, _, _ = gold.strip().rpartition("\n")
        if before:
            asked.append(problem)
            texts.append(before)
    return asked, texts


def _filled(splits: dict[str, list[Problem]]) -> Check:
    empty = [f"there is no {name} problem" for name, some in splits.items() if not some]
    return _check("every split has problems", len(splits), empty)


def _distinct(problems: Sequence[Problem], left_out: int) -> Check:
    known: dict[str, str] = {}
    copies = []
    for problem in problems:
        first = known.setdefault(problem.question, problem.id)
        if first != problem.id:
            copies.append(f"{problem.id!r} has the prompt of {first!r}")
    ids = {problem.id for problem in problems}
    if len(ids) < len(problems):
        copies.append("an id stands for two problems")
    found = _check("prompts are distinct", len(problems), copies)
    if left_out and not copies:
        return replace(found, first=f"{left_out} rows were copies, and were left out")
    return found


def _apart(splits: dict[str, list[Problem]]) -> Check:
    shared = []
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        known = {problem.question for problem in splits[first]}
        for problem in splits[second]:
            if problem.question in known:
                shared.append(f"{problem.id!r} is in {first} and in {second}")
    return _check("no two splits share one", len(splits), shared)


def _steps(task: Task, golds: Iterable[str]) -> Check:
    """Steps of gold answers whose tokens are words with the blanks before them."""
    wrong, cases = [], 0
    for gold in golds:
        pieces = [*["?"] * PROMPT, *re.findall(r"\n|[ \t]*[^\s]+|\s", gold)]
        if len(pieces) == PROMPT:
            continue
        cases += 1
        fault = _fault(lambda pieces=pieces: task.step_ends(pieces, PROMPT), len(pieces) - 1)
        if fault:
            wrong.append(f"{gold[:60]!r}: {fault}")
    return _check("steps are cut", cases, wrong)


def _fault(cut: Callable[[], Sequence[int]], last: int) -> str:
    """What is wrong with the ends of steps; empty if nothing is."""
    try:
        ends = list(cut())
    # A task is anybody's code, which may do anything.
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    rising = all(a < b for a, b in pairwise(ends))
    if rising and len(ends) > 1 and ends[0] == PROMPT - 1 and ends[-1] == last:
        return ""
    return f"steps end at {ends}, of tokens {PROMPT} to {last}"


def _check(asked: str, cases: int, wrong: Sequence[str]) -> Check:
    return Check(asked, cases - min(cases, len(wrong)), cases, wrong[0] if wrong else "")
