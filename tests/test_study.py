"""The main job on a very small plan: resume, overwrite, other folders, and what the files hold."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mechreward import MechRewardError, NeuronSet, Rollouts
from mechreward import experiments as paper
from mechreward.causal.effect import Effect
from mechreward.experiments.plan import PAPER, Plan, command
from mechreward.experiments.rows import Results, Row
from mechreward.probing.activations import Activations
from mechreward.report.findings.rules import findings
from mechreward.report.study_page import write
from mechreward.rollouts.value import Values
from mechreward.studies.folder import Folder
from mechreward.studies.paper import demo
from mechreward.studies.study import Study

SMALL = Plan(
    train=24,
    validation=12,
    test=12,
    k=4,
    ablated=12,
    confidence=24,
    draws=3,
    random_draws=1,
    curve_draws=1,
)


def snapshot(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "run"
    study = Study.open(SMALL, out, say=lambda _: None)
    write(study.out, study.plan, study.model, demo(study), study.splits["test"])
    return out


def test_files_can_all_be_read(done: Path) -> None:
    results = Results.load(done / "results.json")
    assert {row.experiment for row in results.rows} == {"R1", "R2", "R3", "R4", "R7", "R8"}
    assert {
        "value",
        "dopamine",
        "random",
        "matched",
        "sink_free_random",
        "shuffled",
        "baseline",
    } <= {row.arm for row in results.rows}
    for key in (
        "versions",
        "plan",
        "model_id",
        "git",
        "seconds_this_call",
        "chosen",
        "found",
        "not_found",
        "command",
    ):
        assert key in results.manifest
    raw = json.loads((done / "results.json").read_text())
    fields = {
        "experiment",
        "model",
        "task",
        "site",
        "arm",
        "metric",
        "estimate",
        "low",
        "high",
        "n",
        "seed",
        "detail",
    }
    assert raw["schema"] == 1
    assert all(set(row) == fields for row in raw["rows"])
    for kind in ("resid_post", "mlp"):
        assert NeuronSet.load(done / f"value-{kind}.neurons.json").site.kind == kind
        assert NeuronSet.load(done / f"dopamine-{kind}.neurons.json").site.kind == kind
        effect = Effect.load(done / f"effect-{kind}.json")
        assert len(effect.draws("matched", "zero")) == len(effect.draws("matched", "mean")) == 3
    runs = Rollouts.load(done / "test.rollouts.safetensors")
    values = Values.load(done / "test.values.safetensors")
    assert len(values.step) == sum(run.steps + 1 for run in runs)
    assert len(list(done.glob("train.*.activations.safetensors"))) == 4
    assert all(
        Activations.load(path).rows in ("states", "steps")
        for path in done.glob("train.*.activations.*")
    )


def test_report_stands_alone(done: Path) -> None:
    page = (done / "report.html").read_text()
    assert "<script" not in page
    assert "src=" not in page
    assert page.count("<svg") >= 10
    results = Results.load(done / "results.json")
    assert len(results.manifest["found"]) + len(results.manifest["not_found"]) >= 12
    assert "mechreward demo --out DIR --train 24" in page


def test_layer_and_share_come_from_validation_only(done: Path) -> None:
    results = Results.load(done / "results.json")
    both = results.where(experiment="R3")
    grid, test = (
        [row for row in both if row.detail["split"] == split] for split in ("validation", "test")
    )
    assert len(grid) == len(test) == len(both) / 2 == 2 * 4 * (1 + len(paper.SHARES))
    assert not any(row.detail.get("chosen") for row in test)
    for kind, chosen in results.manifest["chosen"].items():
        frame = Results({}, tuple(grid)).frame()
        frame = frame[frame.site.str.endswith(kind)]
        # The rule of `choose`: the layer that is best over all its shares, not at one.
        assert chosen["site"] == frame.groupby("site").estimate.mean().idxmax()
        marked = [row for row in grid if row.detail.get("chosen") and row.site.endswith(kind)]
        assert [(row.site, row.detail["share"]) for row in marked] == [
            (chosen["site"], chosen["share"])
        ]


def test_splits_share_no_problem(done: Path) -> None:
    ids = [
        {run.problem_id for run in Rollouts.load(done / f"{s}.rollouts.safetensors")}
        for s in ("train", "validation", "test")
    ]
    assert not (ids[0] & ids[1] or ids[0] & ids[2] or ids[1] & ids[2])


def test_running_again_reuses_every_stage(done: Path) -> None:
    before = snapshot(done)
    said: list[str] = []
    study = Study.open(SMALL, done, say=said.append)
    demo(study)
    assert said[0].startswith("resuming")
    after = snapshot(done)
    assert {k: v for k, v in after.items() if k != "results.json"} == {
        k: v for k, v in before.items() if k != "results.json"
    }


def test_a_lost_stage_is_made_again_the_same(done: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in done.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    for name in (
        "test.values.safetensors",
        "test.values-0000.safetensors",
        "value-mlp.neurons.json",
    ):
        (copy / name).unlink()
    demo(Study.open(SMALL, copy, say=lambda _: None))
    for name in ("test.values.safetensors", "value-mlp.neurons.json"):
        assert (copy / name).read_bytes() == (done / name).read_bytes()


def test_another_plan_is_refused_and_nothing_changes(done: Path) -> None:
    before = snapshot(done)
    with pytest.raises(MechRewardError, match=r"another run \(plan\.k is 4, not 8\)"):
        Study.open(Plan(**{**SMALL.__dict__, "k": 8}), done)
    assert snapshot(done) == before


def test_a_strange_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("important")
    for overwrite in (False, True):
        with pytest.raises(MechRewardError, match=r"holds no run of mechreward \(thesis\.tex\)"):
            Study.open(SMALL, tmp_path, overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_overwrite_removes_only_the_run(tmp_path: Path) -> None:
    Study.open(SMALL, tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    (tmp_path / "run" / "test.values.safetensors").write_text("old")
    Study.open(SMALL, tmp_path / "run", overwrite=True)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["notes.txt", "plan.json"]


ROW = Row("R1", "tiny", "chain", "1.mlp", "value", "auroc", 0.7, 0.6, 0.8, 50, 3)


def test_a_stage_is_made_once_and_timed(tmp_path: Path) -> None:
    made = []

    def make() -> list[Row]:
        made.append("made")
        return [ROW]

    first, second = Folder(tmp_path), Folder(tmp_path)
    assert first.rows("R1", make) == second.rows("R1", make) == [ROW]
    assert made == ["made"]
    assert set(first.seconds) == {"R1.rows"} and second.seconds == {}


def test_a_stage_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def stop() -> list[Row]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Folder(tmp_path).rows("R1", stop)
    assert not list(tmp_path.iterdir())


def test_a_folder_knows_its_plan_and_what_is_strange(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run")
    assert not folder.begun and not folder.strangers
    folder.begin({"seed": 1})
    folder.begin({"seed": 2})
    assert folder.begun and folder.plan == {"seed": 1}
    for name in "dcba":
        (tmp_path / name).write_text(name)
    assert Folder(tmp_path).strangers == "a, b, c"
    with pytest.raises(MechRewardError, match="a is a file"):
        Folder(tmp_path / "a")


def test_clearing_takes_what_matches_and_the_plan(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.begin({})
    folder.rows("R1", lambda: [ROW])
    (tmp_path / "notes.txt").write_text("mine")
    folder.clear(["*.rows.json"])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_command_names_what_differs() -> None:
    assert command(Plan()) == "mechreward demo --out DIR"
    assert command(Plan(k=8, random_draws=3)) == "mechreward demo --out DIR --k 8 --random-draws 3"


def test_the_command_of_the_paper_names_what_differs_from_its_own_sizes() -> None:
    own = replace(PAPER, model="mixed-rl", task="chain")
    assert command(own, ["R1", "R4"]) == "mechreward paper R1 R4 --model mixed-rl --task chain"
    assert command(replace(own, k=16, draws=99, seed=3), ["R2"]) == (
        "mechreward paper R2 --model mixed-rl --task chain --seed 3 --k 16 --draws 99"
    )


def test_a_null_reads_as_a_null(done: Path) -> None:
    """Rows in which nothing holds: every sentence must land among what was not found."""
    results = Results.load(done / "results.json")
    flat = []
    for row in results.rows:
        chance = 0.5 if row.metric.startswith("auroc") else 0.0
        null = {"estimate": chance, "low": chance - 0.1, "high": chance + 0.1}
        detail = dict(row.detail)
        if "p_mcnemar" in detail:
            detail |= {"p_mcnemar": 1.0, "rank": 3, "p_rank": 1.0}
            null = {}
        flat.append(Row(**{**row.__dict__, **null, "detail": detail}))
    found, missed = findings(Results(results.manifest, tuple(flat)))
    assert found == []
    assert any(s.startswith("Zero ablation") for s in missed)
    assert any("No sparser than chance" in s for s in missed)
