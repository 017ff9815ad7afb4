"""What a text answers: the same rule as the verdict's, and never the verdict."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechreward import tasks
from mechreward.bundled.traces import Habits, trace
from mechreward.tasks import Chain, Countdown, Paths, Problem, Task, TextTask, Verdict, Words
from mechreward.tasks.judge import VerifierWarning, answers_of
from mechreward.testbed.process import Planted

WORDS = Words()
PROBLEMS = WORDS.problems("train", 20)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3 + 4 = 7\nAnswer: 7", "7"),
        ("Answer: 07.", "7"),
        ("answer:   7 apples", "7"),
        ("Answer: 5\nno\nAnswer: 1,007", "1007"),
        ("Answer: -3", "-3"),
        ("Answer: 3 of 7", None),
        ("Answer: none", None),
        ("3 + 4 = 7", None),
        ("", None),
    ],
)
def test_words(text: str, answer: str | None):
    assert WORDS.answer(text) == answer


@given(st.integers(0, 19), st.integers(-5, 120))
def test_the_answer_to_words_is_right_exactly_where_it_is_the_gold_one(number: int, said: int):
    problem = PROBLEMS[number]
    text = f"1 + 1 = 3\nAnswer: {said}"
    right = WORDS.verify(problem, text).reward
    assert right == (WORDS.answer(text) == WORDS.answer(WORDS.solve(problem)))


@pytest.mark.parametrize("problem", Chain().problems("test", 12), ids=lambda problem: problem.id)
def test_the_answer_to_a_chain_is_the_gold_one_wherever_it_is_right(problem: Problem):
    """The converse fails where a wrong line was left standing: lines are no part of the answer."""
    task = Chain()
    gold = task.answer(task.solve(problem))
    assert gold == problem.answer
    answers = set()
    for seed in range(40):
        text = trace(task, problem, random.Random(seed), Habits(0.5, 0.6, 0.3, 1))
        said = task.answer(text)
        assert said is None or said == text.splitlines()[-1].removeprefix("answer ")
        answers.add(said)
        if task.verify(problem, text).reward:
            assert said == gold
    assert len(answers) > 1, "this example has no wrong answer"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3 + 4 = 7\nanswer 7", "7"),
        ("answer  7 \nfail", "7"),
        ("answer 5\nanswer 6", "6"),
        ("answer", None),
        ("fail", None),
        ("answers 7", None),
    ],
)
def test_chains(text: str, answer: str | None):
    assert Chain().answer(text) == answer


@pytest.mark.parametrize("task", [Countdown(), Paths(), Planted()], ids=lambda task: task.name)
def test_where_any_valid_answer_counts_there_is_none_to_compare(task: Task):
    for problem in task.problems("test", 5):
        assert task.answer(f"answer {problem.answer}") is None
        assert task.answer("right.a") is None


ROWS = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(1, 40)]


@pytest.mark.parametrize(
    ("text", "answer"),
    [("so it is 1,234.50", "2469/2"), ("-3/6", "-1/2"), ("2 1/2 cups", "5/2"), ("many", None)],
)
def test_numbers_have_one_spelling(text: str, answer: str | None):
    assert TextTask(ROWS).answer(text) == answer


@given(st.sampled_from(ROWS), st.integers(0, 90))
def test_a_number_is_right_exactly_where_it_is_the_gold_one(row, said: int):
    task = TextTask(ROWS)
    problem = next(each for each in task.rows if each.prompt == row["question"])
    text = f"I think it is {said}.0"
    right = task.verify(problem, text).reward
    assert right == (task.answer(text) == task.answer(task.solve(problem)))


def test_choices_and_lines():
    choices = [{"question": f"{n}?", "answer": "ABCD"[n % 4]} for n in range(12)]
    task = TextTask(choices, verify="choice")
    assert task.answer("Not A. The answer is (c).") == "C"
    assert task.answer("no idea at all") is None
    for problem in task.rows:
        for letter in "ABCD":
            text = f"Answer: {letter}"
            assert task.verify(problem, text).reward == (task.answer(text) == problem.answer)
    lines = TextTask(ROWS, verify="exact")
    assert lines.answer("so\nAnswer:  New   York\n") == "New York"
    assert lines.answer(" \n ") is None


def test_mathematics_is_read_as_exact_numbers():
    pytest.importorskip("math_verify")
    task = TextTask([{"question": "a?", "answer": "1/2"}], verify="math")
    half = task.answer("so \\boxed{\\frac{1}{2}}")
    assert half == "1/2" == task.answer("\\boxed{0.5}") == task.answer("\\boxed{2/4}")
    assert task.answer("\\boxed{3}") == "3" and task.answer("I do not know") is None
    (problem,) = task.rows
    for text in ("\\boxed{0.5}", "\\boxed{3}", "\\boxed{\\frac{2}{4}}"):
        assert task.verify(problem, text).reward == (task.answer(text) == half)


class Bare(Task):
    """A task of somebody's own."""

    name = "bare"
    max_tokens = 4
    seconds = 0.5

    def draw(self, rng: random.Random) -> Problem:
        return Problem("p", "p", "p")

    def verify(self, problem: Problem, text: str) -> Verdict:
        return Verdict("correct")


class Moody(Bare):
    def answer(self, text: str) -> str | None:
        if text == "bad":
            raise ZeroDivisionError("no")
        return 7 if text == "number" else text  # pyright: ignore[reportReturnType]


@pytest.mark.unchecked
def test_a_task_that_fails_on_a_text_reads_no_answer_in_it():
    problem = Problem("p", "p", "p", task=Moody())
    texts = ["good", "bad", "number", ""]
    with pytest.warns(VerifierWarning, match=r"2 of 4 texts.*ZeroDivisionError: no.*no text but 7"):
        assert answers_of([problem] * 4, texts) == ["good", None, None, ""]
    assert answers_of([Problem("p", "p", "p", task=Bare())], ["good"]) == [None]
    assert answers_of([Problem("p", "p", "p")], ["good"]) == [None]
    own = TextTask(ROWS, verify=lambda problem, text: True)
    assert own.answer("7") is None
    assert tasks.get("words").answer("Answer: 3") == "3"
