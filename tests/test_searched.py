"""`mechreward search`: on one's own model and questions, resumed, and wrong options in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from mechreward.base.errors import MechRewardError
from mechreward.cli import app
from mechreward.models.identity import model_id
from mechreward.models.site import Site
from mechreward.probing.neurons import NeuronSet
from mechreward.uses.search.search import Search

SMALL = ["--n", "6", "--candidates", "2", "--max-tokens", "12"]
CODE = """
def longer(prompt, steps):
    return [float(len(step)) for step in steps]

number = 3
"""


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = []
    for a in range(3, 63):
        for b in (5, 9):
            rows.append({"question": f"countdown {a} from {b} 7\n", "answer": str(a % 7)})
    path = tmp_path_factory.mktemp("questions") / "sums.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def run(*words: str):
    done = CliRunner().invoke(app, ["search", *words])
    if isinstance(done.exception, MechRewardError):
        return 2, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_ones_own_model_and_questions(tiny_folder: Path, questions: Path, tmp_path: Path):
    code = tmp_path / "mine.py"
    code.write_text(CODE)
    out = tmp_path / "out"
    words = ["--model", str(tiny_folder), "--task", str(questions), "--out", str(out), *SMALL]
    done, said = run(*words, "--scorer", f"{code}:longer")
    assert done == 0, said
    assert "Search(beam by longer, 6 problems" in said
    table = pd.read_csv(out / "search.csv")
    assert len(table) == 6 and set(table["scorer"]) == {"longer"}
    made = Search.load(out)
    assert made.ledger.generated == table["generated"].sum()
    before = {path: path.read_bytes() for path in (out / "problems").iterdir()}
    done, again = run(*words, "--scorer", f"{code}:longer")
    assert done == 0 and again.partition("Search(")[2] == said.partition("Search(")[2]
    assert {path: path.read_bytes() for path in (out / "problems").iterdir()} == before


@pytest.mark.parametrize("scorer", ["value", "dopamine"])
def test_neurons_are_chosen_and_kept(scorer: str, tmp_path: Path):
    """On a planted model, whose task every size of this fits."""
    out = tmp_path / scorer
    sizes = ["--train", "20", "--validation", "10", "--k", "4", "--n", "5", "--candidates", "2"]
    model = ["--model", "planted-value", "--task", "planted", "--scorer", scorer]
    done, said = run(*model, *sizes, "--out", str(out))
    assert done == 0, said
    neurons = NeuronSet.load(out / "neurons.json")
    assert neurons.recipe is not None and neurons.recipe.probe == scorer
    assert f"by {scorer} neurons" in said
    given = ["--neurons", str(out / "neurons.json"), "--out", str(tmp_path / "given")]
    done, again = run(*model, *sizes, *given)
    assert done == 0 and again.splitlines()[0] == said.splitlines()[0]


def test_algorithms_without_a_scorer(tiny_folder: Path, questions: Path, tmp_path: Path):
    words = ["--model", str(tiny_folder), "--task", str(questions), *SMALL]
    done, said = run(*words, "--algorithm", "greedy", "--out", str(tmp_path / "greedy"))
    assert done == 0 and "Search(greedy, 6 problems" in said


WRONG = {
    "scorer": (["--scorer", "dopamin"], "dopamine"),
    "algorithm": (["--scorer", "logprob", "--algorithm", "beams"], "beam"),
    "no file": (["--scorer", "none.py:f"], "there is no file"),
    "no function": (["--scorer", "CODE:longest"], "longer"),
    "candidates": (["--scorer", "logprob", "--candidates", "0"], "at least 1"),
    "budget": (["--scorer", "logprob", "--budget", "5"], "under one answer"),
    "kind": (["--kind", "attention"], "resid_post"),
    "split": (["--scorer", "logprob", "--split", "tests"], "test"),
}


@pytest.mark.unchecked
@pytest.mark.parametrize("name", WRONG)
def test_wrong_options(tiny_folder: Path, questions: Path, tmp_path: Path, name: str):
    code = tmp_path / "mine.py"
    code.write_text(CODE)
    words, wanted = WRONG[name]
    words = [word.replace("CODE", str(code)) for word in words]
    base = ["--model", str(tiny_folder), "--task", str(questions), "--out", str(tmp_path / "o")]
    done, said = run(*base, *SMALL, *words)
    assert done == 2 and wanted in said and "\n" not in said.strip()


def test_neurons_beside_another_scorer(
    tiny_model, tiny_folder: Path, questions: Path, tmp_path: Path
):
    neurons = NeuronSet(Site(0, "resid_post"), (1,), 32, model_id(tiny_model))
    path = neurons.save(tmp_path / "n.json")
    base = ["--model", str(tiny_folder), "--task", str(questions), "--out", str(tmp_path / "o")]
    done, said = run(*base, *SMALL, "--scorer", "logprob", "--neurons", str(path))
    assert done == 2 and "--scorer dopamine or value" in said
