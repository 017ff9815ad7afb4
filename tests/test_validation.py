"""Whether a task is sound, and what is said of one that is not."""

from __future__ import annotations

import random
from typing import Any

import pytest

import mechreward as mr
from mechreward.base.errors import MechRewardError
from mechreward.tasks import TASKS, validate
from mechreward.tasks.base import Problem, Task, Verdict
from mechreward.tasks.text_task import TextTask


@pytest.mark.parametrize("name", TASKS)
def test_bundled_tasks_are_sound(name: str):
    told = validate(TASKS[name](), n=60)
    assert told.passed, str(told)
    assert all(check.cases > 0 for check in told.checks)


ROWS = [{"question": f"What is {n} + {n}?", "answer": f"{2 * n}"} for n in range(1, 60)]


@pytest.mark.parametrize("verify", ["number", "exact", "math"])
def test_tables_are_sound(verify: str):
    told = validate(TextTask(ROWS, verify=verify))
    assert told.passed, str(told)


def test_choices_are_sound():
    rows = [{"question": f"Is {n} even?", "answer": "BA"[n % 2]} for n in range(40)]
    assert validate(TextTask(rows, verify="choice")).passed


class Sums(Task):
    """Sums of two numbers; each fault is one way to spoil it."""

    name = "sums"
    max_tokens = 16

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def draw(self, rng: random.Random) -> Problem | None:
        a, b = rng.randint(1, 99), rng.randint(1, 99)
        return Problem(f"{a} + {b}", f"{a} + {b} =", str(a + b))

    def problems(self, split: str, n: int, seed: int = 0) -> list[Problem]:
        if self.fault == "one split":
            return super().problems("train", n, seed)
        drawn = super().problems(split, n, seed)
        if self.fault == "copies":
            drawn[1] = Problem("again", drawn[0].prompt, drawn[0].answer, {}, self)
        return drawn

    def solve(self, problem: Problem) -> str:
        a, _, b = str(problem.prompt).removesuffix(" =").split(" ")
        return f"{a} and {b}\nmake {problem.answer}"

    def verify(self, problem: Problem, text: str) -> Verdict:
        right = {
            "anything": True,
            "silence": not text or text.endswith(problem.answer),
            "never": False,
            "any line": str(problem.prompt).split(" ")[0] in text,
        }.get(self.fault, text.endswith(f"make {problem.answer}"))
        return Verdict("correct" if right else "incorrect", "" if right else "no")

    def step_ends(self, pieces: Any, prompt_len: int) -> list[int]:
        if self.fault == "steps":
            return [prompt_len]
        if self.fault == "raises":
            raise ZeroDivisionError("of steps")
        return super().step_ends(pieces, prompt_len)


FAULTS = {
    "never": "gold answers are right: 0 of 60",
    "anything": "those of other problems are not: 0 of 60",
    "any line": "nor without their last line: 0 of 60",
    "silence": "gold answers are right: 60 of 60",
    "copies": "prompts are distinct: 56 of 60; 'again' has the prompt of",
    "one split": "no two splits share one: 0 of 3",
    "steps": "steps are cut: 0 of 60; ",
    "raises": "ZeroDivisionError: of steps",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_told(fault: str):
    told = validate(Sums(fault))
    if fault != "silence":  # silence is unverifiable, whatever a task makes of it
        assert not told.passed
        assert str(told).startswith("sums: NOT sound")
    assert FAULTS[fault] in str(told)


def test_a_sound_task_of_ones_own():
    told = validate(Sums())
    assert told.passed
    assert "ok  gold answers are right: 60 of 60" in str(told)


def test_few_problems_are_all_looked_at():
    told = mr.tasks.validate(TextTask(ROWS[:12]))
    assert told.passed and 0 < told.checks[0].cases <= 12


@pytest.mark.unchecked
def test_no_task():
    with pytest.raises(MechRewardError, match=r"tasks\.get makes one of a name"):
        validate("words")  # pyright: ignore[reportArgumentType]
