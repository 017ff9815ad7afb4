"""Wrong inputs to the doors of the package (models, tasks, policies, rollouts from elsewhere,
forecasts, commands): each gives one line, which says what was given or what is possible."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import mechreward as mr
from mechreward.base.errors import MechRewardError
from mechreward.cli import app
from mechreward.tasks import TextTask, data_set
from mechreward.tasks.named import task_of

ROWS = [{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(30)]


def rollouts(folder: Path, **change: Any) -> Path:
    """A file of one answer; an entry that is None is left out."""
    row = {
        "problem_id": "a",
        "prompt_token_ids": [1, 5],
        "token_ids": [7, 2],
        "reward": 1,
        "temperature": 1.0,
    }
    kept = {key: value for key, value in (row | change).items() if value is not None}
    path = folder / "rollouts.jsonl"
    path.write_text(json.dumps(kept) + "\n")
    return path


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


Case = tuple[Callable[[Any, Path], Any], str]
CASES: dict[str, Case] = {
    "a model that is not there": (
        lambda model, folder: mr.load("countdown-lr"),
        "did you mean 'countdown-rl'",
    ),
    "a GGUF file that is not there": (
        lambda model, folder: mr.load(str(folder / "mine.gguf")),
        r"mine\.gguf",
    ),
    "a file that is no GGUF file": (
        lambda model, folder: mr.load(written(folder, "mine.gguf", "hello")),
        r"mine\.gguf is no readable GGUF file|GGUF",
    ),
    "an adapter that is not there": (
        lambda model, folder: mr.load("countdown-base", adapter=folder / "lora"),
        "no folder here, and no adapter on the hub",
    ),
    "a revision of what is bundled": (
        lambda model, folder: mr.load("countdown-base", revision="main"),
        "revision='main' names a version on the hub",
    ),
    "a device that is none": (
        lambda model, folder: mr.load("countdown-base", device="gpu"),
        "gpu",
    ),
    "no tokens to choose from": (lambda model, folder: mr.Policy(top_k=0), "top_k"),
    "an empty text that ends answers": (
        lambda model, folder: mr.Policy(stop=("",)),
        "a text of stop must not be empty",
    ),
    "a text instead of texts": (
        lambda model, folder: mr.Policy(stop="###"),
        r"stop .*it holds texts, as in stop=\('###',\)",
    ),
    "an answer of no length": (lambda model, folder: mr.Policy(max_tokens=0), "max_tokens"),
    "a column that is not there": (
        lambda model, folder: TextTask(ROWS, prompt="qestion"),
        "unknown column 'qestion'; did you mean 'question'",
    ),
    "an answer without a number": (
        lambda model, folder: TextTask([{"question": "who?", "answer": "me"}]),
        "row 0: the answer 'me' has no number; verify it as one of exact, choice or math",
    ),
    "a verifier that is none": (
        lambda model, folder: TextTask(ROWS, verify="numbers"),
        "unknown verifier 'numbers'; did you mean 'number'",
    ),
    "steps that are none": (
        lambda model, folder: TextTask(ROWS, steps="line"),
        "'line'; did you mean 'lines'",
    ),
    "a table without rows": (lambda model, folder: TextTask([]), "the data has no rows"),
    "one prompt with two answers": (
        lambda model, folder: TextTask([ROWS[0], ROWS[0] | {"answer": "9"}]),
        "row 1 has the prompt of row 0 and another answer",
    ),
    "a damaged line": (
        lambda model, folder: TextTask(written(folder, "q.jsonl", '{"question": "a"\n')),
        r"q\.jsonl, line 1 is no JSON",
    ),
    "a task that is none": (lambda model, folder: task_of("word"), "did you mean 'words'"),
    "code without a name": (
        lambda model, folder: task_of(written(folder, "my.py", "")),
        "say which task of it",
    ),
    "code without that task": (
        lambda model, folder: task_of(written(folder, "my.py", "x = 1") + ":Mine"),
        "has no task 'Mine'; tasks there: none",
    ),
    "a data set that is none": (
        lambda model, folder: data_set("gsm8"),
        "unknown data set 'gsm8'; did you mean 'gsm8k'",
    ),
    "programs without a checker": (
        lambda model, folder: data_set("mbpp+"),
        "needs your own checker",
    ),
    "rollouts without token ids": (
        lambda model, folder: mr.read_rollouts(
            rollouts(folder, token_ids=None, text="seven"), model, TextTask(ROWS)
        ),
        "token ids",
    ),
    "rollouts under no policy": (
        lambda model, folder: mr.read_rollouts(
            rollouts(folder, temperature=None), model, TextTask(ROWS)
        ),
        "policy",
    ),
    "rollouts of another tokenizer": (
        lambda model, folder: mr.read_rollouts(
            rollouts(folder, tokenizer_hash="0123456789abcdef"), model, TextTask(ROWS)
        ),
        "tokenizer",
    ),
    "rollouts of unknown problems": (
        lambda model, folder: mr.read_rollouts(rollouts(folder), model, TextTask(ROWS)),
        "'a'",
    ),
    "a forecast of something else": (
        lambda model, folder: mr.forecast(mr.select, model),
        "a forecast is made of sample, estimate, record, ablate, certify; select was given",
    ),
    "answers kept in a file": (
        lambda model, folder: mr.sample(
            model, TextTask(ROWS).rows[:2], out=written(folder, "out", ""), progress=False
        ),
        "is a file; out= names a folder",
    ),
    "a task that is no task": (
        lambda model, folder: mr.tasks.validate(None),
        "task must be|tasks\\.get makes one of a name",
    ),
    "a seed that is none": (
        lambda model, folder: mr.tasks.validate(TextTask(ROWS), seed="x"),
        "seed",
    ),
    "progress that is no title": (
        lambda model, folder: mr.sample(model, TextTask(ROWS, max_tokens=8).rows[:2], progress=3.5),
        "progress must be .*False, True or a title",
    ),
    "a model that is nothing": (lambda model, folder: mr.load(None), "its name or folder"),
    "an adapter that is nothing": (
        lambda model, folder: mr.load("countdown-base", adapter=5),
        "adapter must be",
    ),
    "a precision in words": (
        lambda model, folder: mr.load("countdown-base", dtype="bfloat16"),
        r"dtype must be .*such as torch\.bfloat16",
    ),
    "several devices": (
        lambda model, folder: mr.load("countdown-base", device="auto"),
        "takes device_map='auto'",
    ),
    "a temperature that is none": (
        lambda model, folder: mr.Policy(temperature=True),
        "temperature",
    ),
    "answers kept nowhere": (
        lambda model, folder: mr.sample(model, TextTask(ROWS).rows[:2], out="", progress=False),
        "out='' names no folder",
    ),
    "answers kept in a number": (
        lambda model, folder: mr.sample(model, TextTask(ROWS).rows[:2], out=5, progress=False),
        "out must be",
    ),
    "blocks of no size": (
        lambda model, folder: TextTask(ROWS, steps="blocks:\u00b2"),
        "says no size",
    ),
    "steps in a list": (lambda model, folder: TextTask(ROWS, steps=["lines"]), "steps must be"),
    "rollouts from nowhere": (
        lambda model, folder: mr.read_rollouts(None, model, TextTask(ROWS)),
        "path must be",
    ),
    **{
        f"a forecast of {words}": (
            lambda model, folder, verb=verb, given=given: mr.forecast(
                verb, model, *given[0], **given[1]
            ),
            words,
        )
        for verb, given, words in [
            (mr.sample, ([TextTask(ROWS)], {}), "problems must be|every problem must be"),
            (mr.sample, ([None], {}), "problems must be"),
            (mr.sample, ([TextTask(ROWS).rows[:2]], {"k": 0}), "k counts|k must"),
            (mr.sample, ([TextTask(ROWS).rows[:2]], {"k": "2"}), "k "),
            (mr.estimate, ([TextTask(ROWS).rows[:2]], {}), "runs must be"),
            (mr.ablate, ([TextTask(ROWS).rows[:2], "n.json"], {}), "neurons must be"),
            (mr.certify, (["words", "n.json"], {}), "neurons must be|task must be"),
            ([], ([], {}), "a forecast is made of"),
        ]
    },
}


@pytest.mark.unchecked
@pytest.mark.parametrize("name", CASES)
def test_one_line_says_it(name: str, tiny_model, tmp_path: Path):
    act, words = CASES[name]
    with pytest.raises(MechRewardError, match=words) as caught:
        act(tiny_model, tmp_path)
    assert "\n" not in str(caught.value)


COMMANDS: dict[str, tuple[list[str], str]] = {
    "layers beyond the last": (["--layers", "2-9"], "the model has layers 0 to 3; 2-9 was asked"),
    "layers that are none": (["--layers", "two"], "layers are numbers and spans, as in 2-5"),
    "a precision that is none": (["--dtype", "int8"], "unknown dtype 'int8'"),
    "an adapter that is not there": (["--adapter", "nowhere"], "no adapter on the hub"),
    "a policy that is none": (["--top-p", "2"], "top_p must lie in (0, 1]; 2.0 was given"),
    "a task that is none": (["--task", "cuontdown"], "did you mean 'countdown'"),
    "a file that is not there": (["--task", "none.jsonl"], "cannot read none.jsonl"),
    "a verifier of a task that has its own": (
        ["--verify", "nonsense"],
        "--verify is for a file of questions; leave out --verify nonsense for countdown",
    ),
    "a chat of a task that has its own": (["--chat"], "--chat is for a file of questions"),
    "no problems": (["--train", "0"], "train"),
    "no continuations": (["--k", "0"], "k "),
    "less than no draws": (["--draws", "-1"], "draws"),
    "more problems than there are": (["--test", "99999999"], "99999999"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_say_it_too(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    options, words = COMMANDS[name]
    told = CliRunner().invoke(
        app, ["demo", "--model", "countdown-rl", "--out", "run", "--forecast", *options]
    )
    assert isinstance(told.exception, MechRewardError), told.output
    assert words in str(told.exception)
    assert "\n" not in str(told.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_this_machine_lacks(tmp_path: Path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(MechRewardError, match="cuda") as caught:
        mr.load("countdown-base", device="cuda")
    assert "\n" not in str(caught.value)
