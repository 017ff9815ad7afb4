"""The paper's data sets, from local files of the columns that they have on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from mechreward.base.errors import MechRewardError
from mechreward.tasks import DATA_SETS, data_set, get, validate
from mechreward.tasks.judge import judge
from mechreward.tasks.named import task_of


def gsm8k(n: int) -> dict[str, Any]:
    story = f"Weng earns ${n} an hour and works 3 hours. How much does she earn?"
    work = f"She earns {n}*3=<<{n}*3={3 * n}>>{3 * n}.\n#### {3 * n}"
    return {"question": story, "answer": work}


def math500(n: int) -> dict[str, Any]:
    answer = rf"\frac{{{2 * n + 1}}}{{2}}"
    return {
        "problem": f"Compute $\\frac{{{2 * n}}}{{2}} + \\frac{{1}}{{2}}$.",
        "solution": f"It is $\\boxed{{{answer}}}$.",
        "answer": answer,
        "subject": "Algebra",
        "level": 1 + n % 5,
        "unique_id": f"test/algebra/{n}.json",
    }


def arc(n: int) -> dict[str, Any]:
    texts = [f"the sun {n}", "the moon", "a star", "the sea"]
    return {
        "id": f"Mercury_{n}",
        "question": f"Which gives light in case {n}?",
        "choices": {"text": texts, "label": ["A", "B", "C", "D"]},
        "answerKey": "ABCD"[n % 4],
    }


def minerva(n: int) -> dict[str, Any]:
    return {"question": f"A star has {n} solar masses. How many kg?", "answer": f"{2 * n}e30"}


def mbpp(n: int) -> dict[str, Any]:
    return {
        "task_id": n,
        "prompt": f"Write a function that adds {n}.",
        "code": f"def f(x): return x + {n}",
        "test": "",
    }


def ifeval(n: int) -> dict[str, Any]:
    return {
        "key": n,
        "prompt": f"Write {n} words in capitals.",
        "instruction_id_list": ["change_case:english_capital", "length:number_words"],
        "kwargs": "[]",
    }


ROWS = {
    "gsm8k": gsm8k,
    "math500": math500,
    "arc": arc,
    "minerva": minerva,
    "mbpp+": mbpp,
    "ifeval": ifeval,
}
VERIFIED = ("gsm8k", "math500", "arc", "minerva")


def copy_of(name: str, folder: Path, count: int = 40) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(ROWS[name](n)) + "\n" for n in range(1, count)))
    return path


def test_every_data_set_is_tried():
    assert set(ROWS) == set(DATA_SETS)


@pytest.mark.parametrize("name", VERIFIED)
def test_data_sets_are_sound(name: str, tmp_path: Path):
    task = data_set(name, copy=copy_of(name, tmp_path))
    told = validate(task, n=8)
    assert told.passed, str(told)
    assert task.name == name
    (problem,) = task.problems("train", 1)
    first, *_ = problem.prompt
    assert first["role"] == "system"


RIGHT = {
    "gsm8k": ("So she earns $1,\u202f203.\nThe answer is 1203", "1203 dollars, or 12.03"),
    "math500": (r"Thus $\boxed{401.5}$.", r"Thus $\boxed{401}$."),
    "arc": ("Light is of the sun.\nAnswer: B", "Answer: C"),
    "minerva": (r"$\boxed{8.02 \times 10^{32}}$", r"$\boxed{802}$"),
}


@pytest.mark.parametrize("name", VERIFIED)
def test_answers_in_other_words(name: str, tmp_path: Path):
    path = tmp_path / "one.jsonl"
    path.write_text("".join(json.dumps(ROWS[name](n)) + "\n" for n in (401, 7, 8, 10)))
    task = data_set(name, copy=path)
    problem = next(row for row in task.rows if row.info["row"] == 0)
    right, wrong = RIGHT[name]
    verdicts = judge(task, [problem, problem], [right, wrong], [True, True])
    assert [verdict.reward for verdict in verdicts] == [1, 0]


def test_steps_are_the_papers_paragraphs(tmp_path: Path):
    task = data_set("math500", copy=copy_of("math500", tmp_path))
    pieces = ["?", "We", " add", ".\n\n", "So", " 3", ".", "\n\n", "Done"]
    assert task.step_ends(pieces, 1) == [0, 3, 7, 8]


def test_the_level_is_the_difficulty(tmp_path: Path):
    task = data_set("math500", copy=copy_of("math500", tmp_path))
    assert {problem.difficulty for problem in task.rows} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("name", ["mbpp+", "ifeval"])
def test_no_code_is_run_here(name: str, tmp_path: Path):
    path = copy_of(name, tmp_path)
    with pytest.raises(MechRewardError, match=r"needs your own checker, as verify="):
        data_set(name, copy=path)
    task = data_set(name, copy=path, verify=lambda problem, text: text == problem.answer)
    problem = task.rows[0]
    verdicts = judge(task, [problem] * 2, [problem.answer, "no"], [True, True])
    assert [verdict.reward for verdict in verdicts] == [1, 0]


def test_splits_of_a_folder_are_kept(tmp_path: Path):
    """As on the hub: training and test rows, none for validation."""
    parts = {"train": range(1, 41), "test": range(41, 61)}
    for part, numbers in parts.items():
        datasets.Dataset.from_list([gsm8k(n) for n in numbers]).to_json(tmp_path / f"{part}.jsonl")
    task = data_set("gsm8k", copy=tmp_path)
    counts = {part: len(task.known[part]) for part in ("train", "validation", "test")}
    assert counts == {"train": 36, "validation": 4, "test": 20}


def test_the_command_line_names_them(tmp_path: Path):
    path = copy_of("math500", tmp_path)
    task = task_of(f"math500:{path}")
    assert (task.name, task.max_tokens) == ("math500", 2048)


@pytest.mark.parametrize("name", VERIFIED)
def test_revisions_are_commits(name: str):
    assert len(DATA_SETS[name].revision) == 40 or name == "minerva"


def test_without_the_hub_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    def fails(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub (offline)")

    monkeypatch.setattr(datasets, "load_dataset", fails)
    with pytest.raises(
        MechRewardError,
        match=r"cannot read gsm8k from openai/gsm8k on the hub: .*copy='FILE.jsonl'",
    ):
        get("gsm8k")


def test_another_name():
    with pytest.raises(MechRewardError, match="unknown data set 'math50'; did you mean 'math500'"):
        data_set("math50")
