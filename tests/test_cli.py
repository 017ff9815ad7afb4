"""Commands as a user types them: mistakes end in one line and exit code 2."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from mechreward.bench.ground import BenchSizes
from mechreward.cli import app
from mechreward.experiments.plan import PAPER, Plan, repeat
from mechreward.experiments.rows import Results

COMMAND = [sys.executable, "-m", "mechreward.cli"]
FEW = (
    "--train 24 --validation 12 --test 12 --k 4 --ablated 12 --confidence 24 "
    "--draws 3 --random-draws 1 --curve-draws 1"
)


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["demo", "--model", "countdown-r1"],
            "unknown model 'countdown-r1'; did you mean 'countdown-rl'?",
        ),
        (["demo", "--task", "countdwn"], "unknown task 'countdwn'; did you mean 'countdown'?"),
        (["demo", "--train", "0"], "train must be at least 1; 0 was given"),
        (["demo", "--validation", "5000"], "They are the share of 3 numbers in 5000 problems."),
        (["demo", "--k", "1"], "k must be at least 2; 1 was given."),
        (["demo", "--draws", "0"], "draws must be at least 1; 0 was given."),
        (["paper", "ablatoin"], "unknown experiment 'ablatoin'; did you mean 'ablation'?"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    done = call(*words, "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert not (tmp_path / "out").exists(), "a mistake leaves nothing behind"


def test_the_page_of_paper_says_every_option_that_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reproduce(
        names: list[str], out: Path, homes: list[tuple[str, str]], plan: Plan, say: object
    ) -> Results:
        return Results({"versions": {"mechreward": "0"}, "command": repeat(names, homes, plan)}, ())

    monkeypatch.setattr("mechreward.studies.paper.reproduce", reproduce)
    page = tmp_path / "page.md"
    done = CliRunner().invoke(
        app, f"paper R2 R12 --model mixed-rl --k 16 --random-draws 4 --docs {page}".split()
    )
    assert done.exit_code == 0, done.output
    again = f"mechreward paper R2 R12 --model mixed-rl --k 16 --random-draws 4 --docs {page}"
    assert f"Written by `{again}` from" in page.read_text()


@pytest.mark.parametrize(
    ("command", "defaults"), [("demo", Plan()), ("paper", PAPER), ("bench", BenchSizes())]
)
def test_every_size_is_an_option_with_its_default(command: str, defaults: Plan | BenchSizes):
    options = {}
    for option in get_command(app).commands[command].params:
        options[option.name] = option
    for field in fields(defaults):
        if field.name not in ("model", "task"):
            assert options[field.name].default == getattr(defaults, field.name)
            assert options[field.name].help == field.metadata["help"]


def test_sizes_reach_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    def race(out: Path, **arguments: object) -> Results:
        given.update(arguments)
        return Results({}, ())

    monkeypatch.setattr("mechreward.studies.bench.bench", race)
    done = CliRunner().invoke(app, f"bench --only P3 --k 2 --rows 7 --out {tmp_path}".split())
    assert done.exit_code == 0, done.output
    assert given["sizes"] == BenchSizes(k=2, rows=7) and given["only"] == ["P3"]


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    done = call("demo", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "holds no run of mechreward" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["photo.jpg"]


def test_unknown_option_is_a_usage_error() -> None:
    assert call("demo", "--layer", "3").returncode == 2


def test_stopped_in_the_middle_and_resumed(tmp_path: Path) -> None:
    """What is there after a Ctrl-C and after a kill is whole, and the next run keeps it."""
    out = tmp_path / "run"
    words = [*COMMAND, "demo", "--out", str(out), *FEW.split()]
    # What is started in the background of a script ignores SIGINT, and so would all that it starts.
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    told = tmp_path / "told"
    kept: dict[str, bytes] = {}
    for sign, stage in ((signal.SIGINT, "train.values"), (signal.SIGKILL, "validation.values")):
        with told.open("wb") as into:
            run = subprocess.Popen(words, stdout=into, stderr=into, env=os.environ.copy(), **heed)
        began = time.monotonic()
        while not (out / f"{stage}.safetensors").exists() and time.monotonic() - began < 240:
            time.sleep(0.05)
        run.send_signal(sign)
        assert run.wait(60) == (130 if sign == signal.SIGINT else -signal.SIGKILL), told.read_text()
        assert ("stopped. What was finished is kept" in told.read_text()) == (sign == signal.SIGINT)
        there = {p.name: p.read_bytes() for p in out.iterdir() if not p.name.startswith(".")}
        assert f"{stage}.safetensors" in there and all(
            there[name] == data for name, data in kept.items()
        )
        kept = there
    last = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert last.returncode == 0, last.stderr
    assert "resuming" in last.stdout
    assert "report: " in last.stdout
    again = {p.name: p.read_bytes() for p in out.iterdir()}
    assert all(again[name] == data for name, data in kept.items() if not name.startswith("results"))
