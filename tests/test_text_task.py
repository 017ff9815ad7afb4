"""Tasks from tables: numbers and choices read by hand, steps on text that tokens cut anywhere,
splits, and what is refused."""

from __future__ import annotations

import csv
import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from mechreward.base.errors import MechRewardError
from mechreward.tasks import Verdict
from mechreward.tasks.answers import choice_of, last_line, number_of
from mechreward.tasks.cuts import cut_of
from mechreward.tasks.judge import judge
from mechreward.tasks.named import task_of
from mechreward.tasks.text_task import TextTask

ROWS = [
    {"question": f"What is {a} + {b}?", "answer": str(a + b)} for a in range(20) for b in range(5)
]

NUMBERS = [
    ("it is 1,234 apples", 1234),
    ("$18.00", 18),
    ("-5", -5),
    ("3-5", 5),
    ("x = -5.50", Fraction(-11, 2)),
    ("\u221212 degrees", -12),
    ("\\boxed{42}.", 42),
    ("3/4 cup", Fraction(3, 4)),
    ("1.5e3", 1500),
    ("#### 72", 72),
    ("5%", 5),
    ("12\u202f000 km", 12000),
    ("1'000'000", 1_000_000),
    ("1_000", 1000),
    ("1,23", 23),  # no thousands: two numbers
    ("The 3rd try", 3),
    (".5", Fraction(1, 2)),
    ("12.", 12),
    ("no number", None),
    ("", None),
    ("model a1b", None),
    ("7/0", None),
    ("1e999999", None),
    ("9" * 5000, None),
]


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_the_last_number(text: str, number: Any):
    assert number_of(text) == number


@given(st.integers(-(10**12), 10**12))
def test_numbers_with_separators_are_themselves(number: int):
    for text in (f"{number}", f"{number:,}", f"so: {number:_}.", f"about {number:,} euros"):
        assert number_of(text) == number


@given(st.text())
def test_any_text_has_a_number_or_none(text: str):
    number_of(text), last_line(text), choice_of(text, ("A", "B"))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The answer is B.", "B"),
        ("A dog is (C)", "C"),
        ("I pick D\nbecause of this.", "D"),
        ("answer: d", "D"),
        ("B or C? (B)", "B"),
        ("A\nB\nC", "C"),
        ("nothing", None),
        ("Absolutely", None),
    ],
)
def test_the_last_choice(text: str, label: str | None):
    assert choice_of(text, ("A", "B", "C", "D")) == label


def verdict(task: TextTask, text: str) -> str:
    (problem,) = task.problems("train", 1)
    return task.verify(problem, text.replace("GOLD", problem.answer)).outcome


def test_number():
    task = TextTask(ROWS)
    assert verdict(task, "so it is GOLD apples") == "correct"
    assert verdict(task, "GOLD or 999") == "incorrect"
    assert verdict(task, " ") == "unverifiable"


def test_exact():
    task = TextTask([{"question": "Capital?", "answer": "Den Haag"}] * 1 + ROWS, verify="exact")
    problem = next(p for p in task.rows if p.answer == "Den Haag")
    right = [
        "Den Haag",
        "I think.\nDen  Haag\n",
        "Answer: Den Haag",
        "The final answer is Den Haag",
    ]
    assert {task.verify(problem, text).outcome for text in right} == {"correct"}
    assert task.verify(problem, "Den Haag\nor not").outcome == "incorrect"


def test_choice_takes_the_labels_of_the_data():
    rows = [{"question": f"Q{n}", "answer": "ABCD"[n % 4]} for n in range(40)]
    task = TextTask(rows, verify="choice")
    for problem in task.rows:
        for label in "ABCD":
            right = task.verify(problem, f"Let me see.\nThe answer is ({label})").reward
            assert right == (label == problem.answer)
    with pytest.raises(MechRewardError, match="answers of verify='choice' are labels"):
        TextTask(
            [{"question": "Q", "answer": "a long one"}, {"question": "P", "answer": "x"}],
            verify="choice",
        )


@pytest.mark.parametrize(
    ("returned", "outcome"),
    [
        (True, "correct"),
        (False, "incorrect"),
        (1.0, "correct"),
        (0.999, "incorrect"),
        (0, "incorrect"),
    ],
)
def test_a_function_as_verifier(returned: Any, outcome: str):
    assert verdict(TextTask(ROWS, verify=lambda problem, text: returned), "x") == outcome


def test_a_function_that_fails_costs_its_answer_alone():
    def check(problem: Any, text: str) -> Any:
        if text == "bad":
            raise RuntimeError("broken")
        return Verdict("correct")

    task = TextTask(ROWS, verify=check)
    problems = task.problems("train", 2)
    with pytest.warns(UserWarning, match="broken"):
        verdicts = judge(task, problems, ["bad", "good"], [True, True])
    assert [v.outcome for v in verdicts] == ["unverifiable", "correct"]


# Steps


PIECES = ["<p>", "?", "Let", " x", ".", "\n", "\n", "\n", "Then", " y", ".\n\n", "So", " 3", ".5"]
PIECES += [" is it", ". ", "Yes", "!"]


def cut(kind: str, pieces: list[str] = PIECES, prompt: int = 2) -> list[str]:
    ends = cut_of(kind)(pieces, prompt)
    assert ends[0] == prompt - 1
    return ["".join(pieces[a + 1 : b + 1]) for a, b in pairwise(ends)]


def test_steps_by_hand():
    assert cut("lines") == ["Let x.\n\n\n", "Then y.\n\n", "So 3.5 is it. Yes!"]
    assert cut("paragraphs") == cut("lines")
    assert cut("sentences") == ["Let x.\n\n\n", "Then y.\n\n", "So 3.5 is it. ", "Yes!"]
    assert cut("blocks:5") == ["Let x.\n\n", "\nThen y.\n\nSo", " 3.5 is it. Yes", "!"]
    one = ["q", "a\nb\n\n", "c", "\n", "d"]
    assert cut("paragraphs", one, 1) == ["a\nb\n\n", "c\nd"]
    assert cut("lines", one, 1) == ["a\nb\n\n", "c\n", "d"]


def test_a_step_ends_before_the_space_that_belongs_to_the_next_word():
    """As byte-level tokenizers have it: a word's token begins with its space."""
    bpe = ["q", "He", " has", " 3", ".", " She", " has", " 4", '."', " Both", " wait", "?"]
    assert cut("sentences", bpe, 1) == ["He has 3.", ' She has 4."', " Both wait?"]
    listed = ["q", "First", ":", "\n", " -", " one", "\n", "    ", "code", "\n\n", "  ", "End"]
    assert cut("lines", listed, 1) == ["First:\n", " - one\n", "    code\n\n", "  End"]
    assert cut("paragraphs", listed, 1) == ["First:\n - one\n    code\n\n", "  End"]


@given(st.lists(st.sampled_from(["a", " b", "\n", " ", "c\n", "\n\n", " \n"]), max_size=14))
def test_lines_of_any_answer_are_those_of_every_other_task(pieces: list[str]):
    from mechreward.tasks import Countdown

    text = ["q", *pieces]
    assert cut_of("lines")(text, 1) == Countdown().step_ends(text, 1)


def test_a_token_that_ends_a_step_and_begins_the_next_ends_it():
    assert cut("paragraphs", ["q", "a.", "\n\nb", " c"], 1) == ["a.\n\nb", " c"]


@given(st.lists(st.text(" .\n!?ab\u3002", max_size=4), min_size=1, max_size=30), st.data())
def test_steps_are_a_partition_of_the_answer(pieces: list[str], data: st.DataObject):
    prompt = data.draw(st.integers(1, len(pieces)))
    for kind in ("lines", "paragraphs", "sentences", "blocks:3"):
        ends = cut_of(kind)(pieces, prompt)
        assert ends[0] == prompt - 1 and sorted(set(ends)) == ends
        if len(pieces) > prompt:
            assert ends[-1] == len(pieces) - 1
            steps = ["".join(pieces[a + 1 : b + 1]) for a, b in pairwise(ends)]
            if kind[:6] != "blocks":
                assert all(step.strip() for step in steps) or len(steps) == 1


def test_lines_are_those_of_every_other_task():
    from mechreward.tasks import Countdown

    for pieces in (PIECES, ["q", "a", "\n", "\n", "b"], ["q", "\n", "a"], ["q", "a", "\n"], ["q"]):
        for prompt in range(1, len(pieces)):
            assert cut_of("lines")(pieces, prompt) == Countdown().step_ends(pieces, prompt)


@pytest.mark.parametrize("steps", ["line", "blocks", "blocks:0", "blocks:x", "words", ""])
def test_steps_that_are_none(steps: str):
    with pytest.raises(MechRewardError, match=r"step|block"):
        TextTask(ROWS, steps=steps)


# Rows


def files(folder: Path) -> list[Path]:
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "\n")
    (folder / "b.json").write_text(json.dumps(ROWS))
    with (folder / "c.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows(ROWS)
    Dataset.from_list(ROWS).to_parquet(str(folder / "d.parquet"))
    return [folder / name for name in ("a.jsonl", "b.json", "c.csv", "d.parquet")]


def test_every_form_of_a_table_is_the_same_task(tmp_path: Path):
    wanted = TextTask(ROWS, name="same")
    for rows in (*files(tmp_path), Dataset.from_list(ROWS)):
        task = TextTask(rows, name="same")
        for split in ("train", "validation", "test"):
            n = len(wanted.known[split])
            assert task.problems(split, n, 3) == wanted.problems(split, n, 3)
    assert TextTask(tmp_path / "a.jsonl").name == "a"


def test_splits_by_prompt_do_not_depend_on_the_order_of_rows():
    forward, backward = TextTask(ROWS), TextTask(ROWS[::-1])
    for split in ("train", "validation", "test"):
        ids = {problem.id for problem in forward.known[split]}
        assert ids == {problem.id for problem in backward.known[split]} and ids


def test_other_seeds_shuffle_and_fewer_are_the_first_of_more():
    task = TextTask(ROWS)
    assert task.problems("train", 30)[:9] == task.problems("train", 9)
    assert task.problems("train", 9) != task.problems("train", 9, seed=1)
    with pytest.raises(MechRewardError, match=r"text has only \d+ test problems; 1000 were asked"):
        task.problems("test", 1000)


def test_splits_of_the_data():
    whole = DatasetDict(
        {"train": Dataset.from_list(ROWS[:60]), "test": Dataset.from_list(ROWS[60:])}
    )
    task = TextTask(whole)
    assert {split: len(rows) for split, rows in task.known.items()} == {
        "train": 54, "validation": 6, "test": 40,
    }  # fmt: skip
    column = [{**row, "part": ["train", "validation", "test"][n % 3]} for n, row in enumerate(ROWS)]
    assert [len(rows) for rows in TextTask(column, split="part").known.values()] == [34, 33, 33]
    with pytest.raises(MechRewardError, match="unknown split of row 0 'tset'"):
        TextTask([{**ROWS[0], "part": "tset"}], split="part")


def test_prompts_as_text_chat_and_ids():
    (plain,) = TextTask(ROWS, prompt="Q: {question}\nA:").problems("train", 1)
    assert plain.prompt.startswith("Q: What is") and plain.prompt.endswith("?\nA:")
    shots = [("What is 1 + 1?", "1 + 1 = 2\n2")]
    (few,) = TextTask(ROWS, shots=shots).problems("train", 1)
    assert few.prompt.startswith("What is 1 + 1?1 + 1 = 2\n2\n\nWhat is")
    (chat,) = TextTask(ROWS, system="Be short.", shots=shots).problems("train", 1)
    assert [turn["role"] for turn in chat.prompt] == ["system", "user", "assistant", "user"]
    (alone,) = TextTask(ROWS, chat=True).problems("train", 1)
    assert [turn["role"] for turn in alone.prompt] == ["user"]
    ids = [{"question": [1, 5, n], "answer": "1"} for n in range(30)]
    assert TextTask(ids).rows[0].prompt[:2] == (1, 5)
    with pytest.raises(MechRewardError, match="token ids are a whole prompt"):
        TextTask(ids, system="no")
    turns = [{"question": [{"role": "user", "content": f"{n}?"}], "answer": "1"} for n in range(30)]
    assert TextTask(turns, system="S").rows[0].prompt[0] == {"role": "system", "content": "S"}


def test_copies_are_merged_and_contradictions_refused():
    assert len(TextTask(ROWS + ROWS[:7]).rows) == len(ROWS)
    with pytest.raises(MechRewardError, match="row 100 has the prompt of row 0 and another answer"):
        TextTask([*ROWS, {**ROWS[0], "answer": "77"}])


def test_difficulty_is_a_column():
    rows = [{**row, "level": n % 5} for n, row in enumerate(ROWS)]
    assert {problem.difficulty for problem in TextTask(rows, difficulty="level").rows} == set(
        range(5)
    )
    with pytest.raises(MechRewardError, match="difficulty of row 0"):
        TextTask([{**ROWS[0], "level": "hard"}], difficulty="level")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: TextTask(ROWS, prompt="questoin"),
            "row 0: unknown column 'questoin'; did you mean",
        ),
        (lambda: TextTask(ROWS, prompt="{questoin}?"), "unknown column 'questoin'"),
        (lambda: TextTask(ROWS, answer="gold"), "unknown column 'gold'"),
        (lambda: TextTask(ROWS, verify="numbr"), "unknown verifier 'numbr'; did you mean 'number'"),
        (lambda: TextTask([]), "the data has no rows"),
        (lambda: TextTask(5), "rows are a list of dictionaries"),
        (lambda: TextTask(["x"]), "row 0 is 'x'"),
        (lambda: TextTask("nowhere.jsonl"), "cannot read nowhere.jsonl: No such file"),
        (lambda: TextTask("table.xlsx"), "its name ends in none of"),
        (lambda: TextTask([{"question": "q", "answer": "none"}]), "has no number; verify it as"),
        (lambda: TextTask([{"question": "q", "answer": " "}]), "row 0: its answer is empty"),
        (lambda: TextTask(ROWS, max_tokens=0), "max_tokens must be at least 1"),
        (lambda: TextTask(ROWS, prompt=lambda row: row["x"]), "row 0: KeyError"),
        (lambda: task_of("wrods"), "unknown task 'wrods'; did you mean 'words'"),
        (lambda: task_of("my.py"), "say which task of it, as my.py:MyTask"),
        (lambda: task_of("nowhere.py:X"), "there is no file nowhere.py"),
    ],
)
def test_one_line_says_what_is_wrong(make: Any, words: str):
    with pytest.raises(MechRewardError) as caught:
        make()
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_line_is_named(tmp_path: Path):
    (tmp_path / "x.jsonl").write_text('{"question": "a", "answer": "1"}\n{"question": \n')
    with pytest.raises(MechRewardError, match=r"x\.jsonl, line 2 is no JSON"):
        TextTask(tmp_path / "x.jsonl")


# By name


def test_a_task_by_name_file_and_code(tmp_path: Path):
    assert task_of("words").name == "words"
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert len(task_of(str(tmp_path / "q.jsonl")).rows) == len(ROWS)
    (tmp_path / "mine.py").write_text(
        "from mechreward.tasks import Countdown\n"
        "class Mine(Countdown):\n    name = 'mine'\n"
        "ready = Mine((3,))\nother = 3\n"
    )
    assert task_of(f"{tmp_path}/mine.py:Mine").name == "mine"
    assert task_of(f"{tmp_path}/mine.py:ready").sizes == (3,)
    with pytest.raises(
        MechRewardError, match="has no task 'other'; tasks there: Countdown, Mine, rea"
    ):
        task_of(f"{tmp_path}/mine.py:other")
    (tmp_path / "bad.py").write_text("import nothing_of_the_kind\n")
    with pytest.raises(MechRewardError, match=r"bad\.py fails: ModuleNotFoundError"):
        task_of(f"{tmp_path}/bad.py:X")
