"""Entries of a table that are no prompts and no answers, what stays where it is when a table is
read otherwise, and what texts answer."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mechreward.base.errors import MechRewardError
from mechreward.tasks.answers import choice_of, last_line, number_of
from mechreward.tasks.text_task import TextTask

ROWS = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(60)]


@pytest.mark.parametrize("gold", [None, float("nan"), "", "  "])
def test_an_answer_that_is_not_there_is_told(gold):
    with pytest.raises(MechRewardError, match=r"row 1: .* is empty"):
        TextTask([ROWS[0], {"question": "q", "answer": gold}], verify="exact")


@pytest.mark.parametrize("gold", [["4"], {"a": 4}])
def test_an_answer_that_is_no_text_is_told(gold):
    with pytest.raises(MechRewardError, match="answer of row 0"):
        TextTask([{"question": "q", "answer": gold}], verify="exact")


@pytest.mark.parametrize("prompt", [None, 5, "", " ", [], [{}, 3], [1, "a"], [True]])
def test_a_prompt_that_is_none_is_told(prompt):
    with pytest.raises(MechRewardError, match="row 0: "):
        TextTask([{"question": prompt, "answer": "4"}])


def test_nulls_of_files_are_told(tmp_path: Path):
    pd.DataFrame({"question": ["a", None], "answer": ["1", "2"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(MechRewardError, match="row 1: 'question' is empty"):
        TextTask(tmp_path / "a.parquet", prompt="Q: {question}")
    (tmp_path / "b.csv").write_text("question,answer\na,1\nb\n")
    with pytest.raises(MechRewardError, match="row 1: 'answer' is empty"):
        TextTask(tmp_path / "b.csv", verify="exact")


def split_by_question(task: TextTask) -> dict[str, str]:
    found = {}
    for part, problems in task.known.items():
        for problem in problems:
            text = (
                problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1]["content"]
            )
            found[text] = part
    return found


def test_no_question_changes_its_split():
    """Whatever the table is called and whatever stands around its questions."""
    plain = split_by_question(TextTask(ROWS, name="a"))
    assert len(set(plain.values())) == 3
    for other in (
        TextTask(ROWS, name="b"),
        TextTask(ROWS, system="Think."),
        TextTask(ROWS, shots=[("1 + 1?", "2")], chat=True),
        TextTask(ROWS[::-1]),
    ):
        assert split_by_question(other) == plain


def test_problems_go_by_the_ids_of_the_table():
    rows = [{**row, "id": f"n{n}"} for n, row in enumerate(ROWS)]
    task = TextTask(rows, id="id")
    assert {problem.id for problem in task.rows} == {f"n{n}" for n in range(60)}
    with pytest.raises(MechRewardError, match="row 1 has the id of row 0 and another prompt"):
        TextTask([{**row, "id": "one"} for row in ROWS[:2]], id="id")
    with pytest.raises(MechRewardError, match="row 0: its id is empty"):
        TextTask([{**ROWS[0], "id": None}], id="id")


def test_a_difficulty_may_be_written():
    rows = [{**row, "level": f"Level {n % 5}"} for n, row in enumerate(ROWS)]
    task = TextTask(rows, difficulty="level")
    assert {problem.difficulty for problem in task.rows} == set(range(5))
    with pytest.raises(MechRewardError, match="difficulty of row 0 must be a number; 'hard'"):
        TextTask([{**ROWS[0], "level": "hard"}], difficulty="level")


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"shots": "abc"}, "shots"),
        ({"shots": [("a", "b", "c")]}, "two texts"),
        ({"shots": [{"a": 1, "b": 2}]}, "two texts"),
        ({"shots": None}, "shots"),
        ({"system": 5}, "system"),
        ({"chat": "yes"}, "chat"),
        ({"chat": False, "system": "S"}, "goes with chat"),
    ],
)
def test_what_stands_around_a_question(given, said: str):
    with pytest.raises(MechRewardError, match=said):
        TextTask(ROWS, **given)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12 m^2", "12"),
        ("12 m^{2}", "12"),
        ("1{,}234", "1234"),
        ("-$5", "-5"),
        ("-\u20ac1,250.50", "-1250.5"),
        ("2 1/2", "5/2"),
        ("-2 1/2 cups", "-5/2"),
        (r"\frac{3}{4}", "3/4"),
        (r"it is -\dfrac{3}{4}", "-3/4"),
        (r"2\frac{1}{2}", "5/2"),
        ("3 4", "4"),
        ("10 - 5", "5"),
        ("4/0", None),
        ("1/" + "9" * 5000, None),
    ],
)
def test_numbers(text: str, number: str | None):
    assert number_of(text) == (None if number is None else Fraction(number))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("**Answer:** Paris", "Paris"),
        ("**Answer: Paris**", "Paris"),
        ("Answering machine", "Answering machine"),
        ("The final answer is: Rome", "Rome"),
        ("the answer", ""),
        ("answers 42", "answers 42"),
    ],
)
def test_last_lines(text: str, line: str):
    assert last_line(text) == line


@pytest.mark.parametrize(
    ("text", "labels", "choice"),
    [
        ("Option A is tempting, but wrong.\nAnswer: C", "AB", "C"),
        ("so (C)", "AB", "C"),
        ("C.", "AB", "C"),
        ("Answer: b", "ABCD", "B"),
        ("The answer is a bit hard", "AB", None),
        ("answer is 3", "12", "3"),
        ("I take B", "AB", "B"),
        ("I take E", "AB", None),  # a letter that stands free may be a word
    ],
)
def test_choices(text: str, labels: str, choice: str | None):
    assert choice_of(text, tuple(labels)) == choice


@pytest.mark.parametrize("one", [np.bool_(True), np.float32(1), torch.tensor(1.0), 1, 1.0, True])
def test_what_a_verifier_may_return(one):
    task = TextTask(ROWS, verify=lambda problem, text: one)
    assert task.verify(task.rows[0], "x").outcome == "correct"
    task = TextTask(ROWS, verify=lambda problem, text: 0 * one)
    assert task.verify(task.rows[0], "x").outcome == "incorrect"
