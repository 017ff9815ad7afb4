"""Answers in mathematics: by math-verify in its own process, ended when it takes too long."""

from __future__ import annotations

import pickle
import time

import pytest

from mechreward.base.errors import MechRewardError
from mechreward.tasks import maths
from mechreward.tasks.judge import judge
from mechreward.tasks.maths import Maths
from mechreward.tasks.text_task import TextTask

pytest.importorskip("math_verify", reason="math-verify is not installed")

ROWS = [
    {"problem": "Half of 3?", "answer": "\\frac{3}{2}"},
    {"problem": "A pair?", "answer": "(3, \\frac{\\pi}{2})"},
    {"problem": "x?", "answer": "x^2 + 2x + 1"},
    {"problem": "How many?", "answer": "1{,}024"},
    {"problem": "In words?", "answer": "\\text{even}"},
]


@pytest.fixture(scope="module")
def task() -> TextTask:
    return TextTask(ROWS, prompt="problem", verify="math")


@pytest.mark.parametrize(
    ("question", "text", "outcome"),
    [
        ("Half of 3?", "so $\\boxed{1.5}$", "correct"),
        ("Half of 3?", "The answer is $\\frac{6}{4}$.", "correct"),
        ("Half of 3?", "\\boxed{\\frac{2}{3}}", "incorrect"),
        ("A pair?", "\\boxed{(3, \\pi/2)}", "correct"),
        ("A pair?", "\\boxed{(\\pi/2, 3)}", "incorrect"),
        ("x?", "\\boxed{(x+1)^2}", "correct"),
        ("How many?", "\\boxed{1024}", "correct"),
        ("How many?", "It is 1,024.", "correct"),
        ("How many?", "\\boxed{1025}", "incorrect"),
        ("How many?", "I do not know", "incorrect"),  # and unverifiable where it ended so
        ("In words?", "\\boxed{\\text{even}}", "correct"),
    ],
)
def test_verdicts(task: TextTask, question: str, text: str, outcome: str):
    problem = next(problem for problem in task.rows if problem.prompt == question)
    assert task.verify(problem, text).outcome == outcome


def test_one_that_takes_too_long_is_ended_and_the_next_is_answered():
    asks = Maths(2.0)
    assert asks.ask("4", "\\boxed{4}")[0] == "equal"
    first = asks.process
    began = time.monotonic()
    assert asks.ask("4", "\\boxed{" + "9^" * 12 + "9}")[0] in ("late", "none", "other")
    assert time.monotonic() - began < 20
    assert asks.ask("4", "\\boxed{4}")[0] == "equal"
    asks.close()
    assert first is not None and first.poll() is not None


def test_a_process_that_dies_is_begun_anew():
    asks = Maths(5.0)
    assert asks.ask("4", "\\boxed{4}")[0] == "equal"
    assert asks.process is not None
    asks.process.kill()
    asks.process.wait()
    assert asks.ask("4", "\\boxed{5}")[0] == "other"
    again = pickle.loads(pickle.dumps(asks))  # noqa: S301
    assert again.seconds == 5.0 and again.process is None


def test_it_says_what_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(maths, "find_spec", lambda name: None)
    with pytest.raises(MechRewardError, match="verify='math' needs math-verify: pip install"):
        Maths(1.0)


class Ring(BaseException):
    """As the alarm of whoever asks."""


def test_an_alarm_in_between_leaves_no_answer_behind(monkeypatch: pytest.MonkeyPatch):
    """The answer that comes late is none to the next question."""
    asks = Maths(5.0)
    assert asks.ask("4", "\\boxed{4}")[0] == "equal"
    read = Maths._line

    def ring(process, question, seconds):
        read(process, question, 0.0)  # asked, and never read
        raise Ring

    with monkeypatch.context() as patch:
        patch.setattr(Maths, "_line", staticmethod(ring))
        with pytest.raises(Ring):
            asks.ask("4", "\\boxed{4}")
    assert asks.ask("4", "\\boxed{5}")[0] == "other"
    assert asks.ask("4", "\\boxed{4}")[0] == "equal"


def test_slow_answers_cost_themselves_alone():
    """Through the limit that all verifiers have, which is as long."""
    rows = [{"question": f"{n}?", "answer": str(n)} for n in range(4)]
    task = TextTask(rows, verify="math", seconds=3.0)
    slow = "\\boxed{" + "+".join(f"x^{{{n}}}" for n in range(2, 150)) + "}"
    texts = [slow, "\\boxed{1}", "\\boxed{77}", "\\boxed{3}"]
    task.verify(task.rows[1], "\\boxed{1}")  # its libraries are read
    problems = sorted(task.rows, key=lambda problem: problem.answer)
    verdicts = judge(task, problems, texts, [True] * 4)
    assert verdicts[0].outcome != "correct"
    assert [one.outcome for one in verdicts[1:]] == ["correct", "incorrect", "correct"]
