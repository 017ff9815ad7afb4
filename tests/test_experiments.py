"""`mechreward paper` on a very small plan: two homes, every experiment, the page, a second call,
and mistakes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mechreward import MechRewardError
from mechreward.experiments.plan import (
    BUNDLED,
    EXPERIMENT_IDS,
    PAPER,
    Plan,
    experiment_ids,
    experiment_name,
    repeat,
)
from mechreward.experiments.rows import Results
from mechreward.report.findings.rules import findings
from mechreward.report.results_page import write_page
from mechreward.studies.paper import reproduce
from mechreward.studies.stages import EXPERIMENTS

SMALL = Plan(
    "",
    "",
    train=20,
    validation=10,
    test=10,
    k=4,
    ablated=8,
    confidence=16,
    draws=3,
    random_draws=1,
    curve_draws=1,
)
SIZES = (
    "--train 20 --validation 10 --test 10 --k 4 --ablated 8 --confidence 16 "
    "--draws 3 --random-draws 1 --curve-draws 1"
)
HOMES = (("countdown-base", "chain"), ("mixed-rl", "chain"))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("paper")


@pytest.fixture(scope="module")
def results(out: Path) -> Results:
    return reproduce(["R3", "R5", "R6", "R9", "R12"], out, HOMES, SMALL, say=lambda _: None)


def test_rows_of_every_home_and_experiment(results: Results, out: Path):
    there = {(row.model, row.experiment) for row in results.rows}
    for model, _ in HOMES:
        assert {(model, name) for name in ("R1", "R3", "R5", "R6", "R9", "R12")} <= there
    assert [repr(row) for row in Results.load(out / "results.json").rows] == [
        repr(row) for row in results.rows
    ]
    assert set(results.manifest["runs"]) == {"countdown-base.chain", "mixed-rl.chain"}


def test_every_results_file_says_how_it_is_repeated(results: Results, out: Path):
    names = "R3 R5 R6 R9"
    for model, task in HOMES:
        own = Results.load(out / f"{model}.{task}" / "results.json").manifest["command"]
        assert own == f"mechreward paper {names} --model {model} --task {task} {SIZES}"
    assert Results.load(out / "results.json").manifest["command"] == repeat(
        ["R3", "R5", "R6", "R9", "R12"], HOMES, SMALL
    )


@pytest.mark.parametrize(
    ("homes", "words"),
    [
        (BUNDLED, ""),
        (BUNDLED[2:], " --model mixed-rl"),
        (BUNDLED[:3], " --task countdown"),
        (BUNDLED[3:4], " --task chain"),
        (BUNDLED[:1], " --model countdown-base"),
        ((("planted-value", "planted"),), " --model planted-value --task planted"),
    ],
)
def test_one_command_repeats_all_homes(homes: tuple[tuple[str, str], ...], words: str):
    assert repeat(["R2", "R12"], homes, PAPER) == f"mechreward paper R2 R12{words}"
    assert repeat(["R2"], homes, replace(PAPER, k=16)) == f"mechreward paper R2{words} --k 16"


def test_homes_that_no_command_names_are_a_call_in_Python():
    assert repeat(["R3"], HOMES, SMALL).startswith(
        "mechreward.studies.paper.reproduce(['R3'], 'DIR', [('countdown-base'"
    )


def test_a_second_call_computes_nothing(
    results: Results, out: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("R3", "R5", "R6", "R9", "R12"):
        monkeypatch.setattr(f"mechreward.experiments.{name}", lambda *_: pytest.fail("made again"))
    names = ["layers", "targets", "next_token", "single_neuron", "transfer"]
    again = reproduce(names, out, HOMES, SMALL, say=lambda _: None)
    assert [repr(row) for row in again.rows] == [repr(row) for row in results.rows]
    assert again.manifest["command"] == results.manifest["command"]


def test_the_page_names_every_picture_and_number(results: Results, tmp_path: Path):
    text = write_page(results, tmp_path / "results.md", "mechreward paper ...").read_text()
    pictures = re.findall(r"\((pictures/[^)]+)\)", text)
    assert len(pictures) == len(set(pictures)) == 2 * (2 + 4 + 1 + 2) + 2 * 3
    for picture in pictures:
        ElementTree.parse(tmp_path / picture)
    assert f"`mechreward paper R3 R5 R6 R9 --model mixed-rl --task chain {SIZES}`" not in text
    assert f"`mechreward paper R1 R3 R5 R6 R9 --model mixed-rl --task chain {SIZES}`" in text
    assert "## R12" in text and "nan" not in text


def test_sentences_speak_of_what_is_there(results: Results):
    found, missed = findings(Results({}, tuple(results.where(model="mixed-rl"))))
    told = " ".join(found + missed)
    assert (
        all(f"{name})" in told for name in ("R5", "R6", "R9"))
        and "R2)" not in told
        and "R4)" not in told
    )


def test_other_homes_are_another_comparison(results: Results, out: Path):
    """R12 of two homes is not what R12 of the same two in another order, or of others, was kept
    as."""
    again = reproduce(["R12"], out, HOMES[::-1], SMALL, say=lambda _: None)
    kept, new = results.where(experiment="R12"), again.where(experiment="R12")
    assert len(list(out.glob("R12-*.rows.json"))) == 4
    for rows, homes in ((kept, HOMES), (new, HOMES[::-1])):
        ious = [row for row in rows if (row.arm, row.metric) == ("value", "iou")]
        assert [row.model for row in ious] == [model for model, _ in homes] * 4
        assert [row.site.partition(".")[2] for row in ious] == ["resid_post"] * 4 + ["mlp"] * 4


def test_a_planted_model_is_a_home_like_any_other(tmp_path: Path):
    plan = Plan(
        "",
        "",
        train=20,
        validation=10,
        test=10,
        k=4,
        ablated=8,
        draws=6,
        random_draws=1,
        curve_draws=1,
    )
    found = reproduce(
        ["R1", "R4"], tmp_path, [("planted-value", "planted")], plan, say=lambda _: None
    )
    assert {(row.model, row.task) for row in found.rows} == {("planted-value", "planted")}
    assert not [row for row in found.rows if "on" in row.detail]  # it knows no other task
    assert {"td", "td over tokens"} <= {
        row.detail.get("target") for row in found.where(experiment="R1")
    }
    assert {"value", "shuffled", "same_length", "random_weights"} <= {
        row.arm for row in found.where(experiment="R1")
    }
    for row in found.where(experiment="R4", arm="matched", metric="restored"):
        assert row.detail["sets"] in (5, 6)  # the first few alone, or all
        assert ("p_rank" in row.detail) == (row.detail["sets"] == 6)


@pytest.mark.parametrize(
    ("names", "homes", "said"),
    [
        (["R22"], HOMES, "did you mean 'R2'"),
        (["ablatoin"], HOMES, r"did you mean 'ablation'.*, ablation \(R4\), .*, all\.$"),
        ([], HOMES, "no experiment was named"),
        (["R12"], HOMES[:1], "name at least two"),
    ],
)
def test_mistakes(names: list[str], homes, said: str, tmp_path: Path):
    with pytest.raises(MechRewardError, match=said):
        reproduce(names, tmp_path, homes, SMALL, say=lambda _: None)
    assert not list(tmp_path.iterdir())


def test_all_names_are_experiments_of_the_paper():
    from mechreward import experiments as paper

    experiments = {name for name in paper.__all__ if re.fullmatch(r"R\d+", name)}
    named = {"certificate", "ablation_by_layer", "early_exit"}
    assert set(EXPERIMENTS) - named | {"R12"} == experiments
    assert set(EXPERIMENT_IDS.values()) == experiments | named
    assert len(set(EXPERIMENT_IDS.values())) == len(EXPERIMENT_IDS)


def test_an_experiment_goes_by_name_or_by_id():
    for name, known in EXPERIMENT_IDS.items():
        assert experiment_ids([name]) == experiment_ids([known]) == [known]
    assert experiment_ids(["steering", "all", "R4", "ablation"]) == ["R14", "all", "R4"]
    assert experiment_ids([]) == []
    assert experiment_ids(["r4", "R4"]) == ["R4"], "an id in any case"
    assert experiment_ids(["early-exit", "td-error"]) == ["early_exit", "R8"]
    assert experiment_name("R4") == "ablation (R4)"
    assert experiment_name("certificate") == "certificate"
