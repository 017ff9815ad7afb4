"""A registration says what will be certified, and its run refuses any difference."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mechreward as mr
from mechreward.base.files import write_json
from mechreward.causal import claims, registration
from mechreward.causal.certificate import Certificate
from mechreward.causal.material import deal, key_of
from mechreward.causal.registration import Registration, measured, register, remember, thresholds
from mechreward.cli import app
from mechreward.experiments.plan import Plan
from mechreward.experiments.subject import Subject
from mechreward.studies.study import Study

SIZES = {"seed": 1, "train": 16, "test": 16, "k": 3, "n": 10, "draws": 3, "pairs": 4}
MODEL = ["--model", "planted-value"]
WORDS = [word for name, size in SIZES.items() for word in (f"--{name}", str(size))]


@pytest.fixture(scope="module")
def plant():
    return mr.testbed.planted("value", 1)


@pytest.fixture(scope="module")
def folder(plant, tmp_path_factory) -> Path:
    """A set by hand, its registration, and its certificate, all by command."""
    here = tmp_path_factory.mktemp("registered")
    plant.truth.value_neurons["1.resid_post"].save(here / "set.json")
    done = call("--register", here / "plan.json", "--model", "planted-value", *named(here), *WORDS)
    assert done.exit_code == 0, done.output
    assert not (here / "out").exists(), "nothing is measured"
    done = call("--registered", here / "plan.json", "--out", here / "out")
    assert done.exit_code == 0, done.output
    return here


def call(*words):
    return CliRunner().invoke(app, ["certify", *map(str, words)])


def made_in(here: Path, kind: str = "json") -> Path:
    """The registered certificate of a folder."""
    (path,) = (here / "out").glob(f"registered-*.{kind}")
    return path


def named(here: Path) -> list:
    return ["--neurons", here / "set.json"]


def fresh(plant) -> Registration:
    neurons = plant.truth.value_neurons["1.resid_post"]
    return register(
        asdict(Subject("planted-value", "planted")), plant.model, plant.task, neurons, SIZES
    )


def test_it_holds_what_will_be_run(folder: Path, plant):
    made = Registration.load(folder / "plan.json")
    assert made.subject["model"] == "planted-value"
    assert (made.task, made.sizes) == ("planted", SIZES)
    assert made.neurons == plant.truth.value_neurons["1.resid_post"]
    assert made.thresholds == thresholds() and made.thresholds["level"] == 0.01
    about = json.loads((folder / "plan.json").read_text())
    for key in ("seal", "kind", "hash"):
        about.pop(key)
    text = json.dumps(about, sort_keys=True)
    assert made.hash == hashlib.sha256(text.encode()).hexdigest()


def test_the_certificate_bears_the_mark(folder: Path, plant):
    made = Registration.load(folder / "plan.json")
    certificate = Certificate.load(made_in(folder))
    assert made_in(folder).name == f"registered-{made.hash[:8]}.json"
    assert certificate.registered == {"hash": made.hash, "made": made.made, "passed_over": 0}
    for text in (str(certificate), certificate.page(), made_in(folder, "md").read_text()):
        assert made.hash in text and made.made in text and "(0 passed over)" in text
    dealt = deal(plant.task, SIZES)
    assert measured(folder / "out") == list(dict.fromkeys(map(key_of, dealt.all)))


def test_it_is_run_once(folder: Path, tmp_path: Path):
    """Whatever is certified in the folder meanwhile, and even if its file is taken away."""
    shutil.copytree(folder, tmp_path / "copy")
    here = tmp_path / "copy"
    before = made_in(here).read_bytes()
    done = call("--model", "planted-value", "--out", here / "out", *named(here), *WORDS)
    assert done.exit_code == 0, done.output
    for _ in range(2):
        done = call("--registered", here / "plan.json", "--out", here / "out")
        assert "it is run once" in str(done.exception)
        if (here / "out" / "certificate.json").exists():
            assert made_in(here).read_bytes() == before
            made_in(here).unlink()
            (here / "out" / "certificate.json").unlink()


@pytest.mark.parametrize(
    "lost",
    [
        ["registered-*.md", "measured.json"],
        ["measured.json"],
        ["registered-*.json", "measured.json"],
    ],
)
def test_a_certificate_that_is_there_was_run(folder: Path, tmp_path: Path, lost: list[str]):
    shutil.copytree(folder, tmp_path / "copy")
    out = tmp_path / "copy" / "out"
    for pattern in lost:
        for path in out.glob(pattern):
            path.unlink()
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    done = call("--registered", folder / "plan.json", "--out", out)
    assert "it is run once" in str(done.exception)
    for name, content in before.items():
        assert (out / name).read_bytes() == content


def test_a_registration_may_lie_in_its_folder(folder: Path, tmp_path: Path):
    """Under the name that a study's plan has."""
    shutil.copy(folder / "plan.json", tmp_path / "plan.json")
    done = call("--registered", tmp_path / "plan.json", "--out", tmp_path)
    assert done.exit_code == 0, done.output


def test_a_page_that_cannot_be_written_leaves_a_run(folder: Path, tmp_path: Path):
    """Its certificate was shown: it is there, and marked."""
    made = Registration.load(folder / "plan.json")
    out = tmp_path / "out"
    (out / f"registered-{made.hash[:8]}.md").mkdir(parents=True)
    done = call("--registered", folder / "plan.json", "--out", out)
    assert done.exit_code and (out / f"registered-{made.hash[:8]}.json").exists()
    assert measured(out, "registrations") == [made.hash]
    (out / f"registered-{made.hash[:8]}.json").unlink()
    done = call("--registered", folder / "plan.json", "--out", out)
    assert "it is run once" in str(done.exception)


def test_a_list_of_problems_without_a_seal_was_changed(folder: Path, tmp_path: Path):
    about = {"kind": "measured", "problems": [], "registrations": []}
    (tmp_path / "measured.json").write_text(json.dumps(about))
    with pytest.raises(mr.MechRewardError, match="no seal"):
        measured(tmp_path)
    done = call("--registered", folder / "plan.json", "--out", tmp_path)
    assert "no seal" in str(done.exception)


def test_a_folder_of_a_study_is_refused(folder: Path, tmp_path: Path):
    """Its problems were measured, and no list of certificates has them."""
    (tmp_path / "plan.json").write_text("{}")
    done = call("--registered", folder / "plan.json", "--out", tmp_path)
    assert "holds a run whose problems were measured" in str(done.exception)


def test_a_run_that_was_stopped_may_be_made_on_other_problems(
    folder: Path, plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*arguments, **keywords):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mechreward.studies.certified.certify", stop)
        call("--registered", folder / "plan.json", "--out", tmp_path / "out")
    spent = measured(tmp_path / "out")
    assert len(spent) == 42 and measured(tmp_path / "out", "registrations") == []
    done = call("--registered", folder / "plan.json", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert Certificate.load(made_in(tmp_path)).registered["passed_over"] == 42


def test_problems_that_were_measured_are_passed_over(folder: Path, plant, tmp_path: Path):
    """Another run in the folder comes first: nothing of it comes again."""
    done = call("--model", "planted-value", "--out", tmp_path / "out", *named(folder), *WORDS)
    assert done.exit_code == 0, done.output
    assert Certificate.load(tmp_path / "out" / "certificate.json").registered == {}
    before = measured(tmp_path / "out")
    done = call("--registered", folder / "plan.json", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    certificate = Certificate.load(made_in(tmp_path))
    assert certificate.registered["passed_over"] == len(before) == 42
    after = measured(tmp_path / "out")
    assert after[: len(before)] == before and len(after) == 2 * len(before)
    first = Certificate.load(made_in(folder))
    assert certificate["causal"].numbers != first["causal"].numbers


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--n", "11"], "--n 11 was given; registered was 10"),
        (["--seed", "2"], "--seed 2 was given; registered was 1"),
        (["--model", "mixed-rl"], "--model mixed-rl was given; registered was planted-value"),
        (["--kind", "mlp"], "--kind mlp was given; registered was nothing of the kind"),
        (["--validation", "30"], "registered was nothing of the kind"),
        (["--register", "other.json"], "not both"),
    ],
)
def test_options_that_differ_are_refused(words: list[str], said: str, folder: Path, tmp_path: Path):
    done = call("--registered", folder / "plan.json", "--out", tmp_path / "out", *words)
    assert isinstance(done.exception, mr.MechRewardError) and said in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_the_same_options_may_be_given_again(folder: Path, plant, monkeypatch: pytest.MonkeyPatch):
    """They are compared and then the run is refused for having been made."""
    words = ["--n", "10", "--task", "planted", *named(folder)]
    done = call("--registered", folder / "plan.json", "--out", folder / "out", *words)
    assert "it is run once" in str(done.exception)


def test_another_set_is_refused(folder: Path, plant, tmp_path: Path):
    neurons = plant.truth.value_neurons["1.resid_post"]
    for change in ({"indices": neurons.indices[:2]}, {"direction": (1.0, 1.0, 1.0)}):
        replace(neurons, **change).save(tmp_path / "set.json")
        words = [*named(tmp_path), "--out", tmp_path / "out"]
        done = call("--registered", folder / "plan.json", *words)
        assert "is not the set that was registered" in str(done.exception)


def test_a_set_has_to_be_there(folder: Path, tmp_path: Path):
    done = call("--register", tmp_path / "plan.json", "--model", "planted-value", *WORDS)
    assert "--register needs --neurons FILE" in str(done.exception)
    done = call("--register", tmp_path / "plan.json", *named(folder), *MODEL, "--kind", "mlp")
    assert "--kind chooses a set: --neurons names one" in str(done.exception)
    assert not (tmp_path / "plan.json").exists()


def test_a_registration_is_not_made_anew(folder: Path):
    words = ["--model", "planted-value", *named(folder), *WORDS]
    done = call("--register", folder / "plan.json", *words)
    assert "a registration is made once" in str(done.exception)


@pytest.mark.parametrize(
    "name", ["certificate.json", "certificate.md", "measured.json", "registered-0.md"]
)
def test_a_registration_has_a_name_that_no_run_writes(folder: Path, tmp_path: Path, name: str):
    words = ["--model", "planted-value", *named(folder), *WORDS]
    done = call("--register", tmp_path / name, *words)
    assert "is what a run writes: name another" in str(done.exception)
    assert not (tmp_path / name).exists()


def test_other_weights_are_refused(folder: Path, plant, tmp_path: Path):
    """The planted model of another seed has the same name."""
    made = Registration.load(folder / "plan.json")
    other = replace(made, sizes=SIZES | {"seed": 2})
    other = replace(other, problems=registration.known_by(plant.task, 2))
    other.save(tmp_path / "plan.json")
    done = call("--registered", tmp_path / "plan.json", "--out", tmp_path / "out")
    assert "weights" in str(done.exception)


def test_thresholds_task_and_version_are_compared(plant, monkeypatch: pytest.MonkeyPatch):
    made = fresh(plant)
    made.check(plant.task)
    with pytest.raises(mr.MechRewardError, match="registered with task planted; here it is count"):
        made.check(mr.tasks.Countdown())
    with pytest.raises(mr.MechRewardError, match="registered with problems"):
        replace(made, problems="0" * 16).check(plant.task)
    with pytest.raises(mr.MechRewardError, match=r"registered with mechreward 0\.0\.1"):
        replace(made, version="0.0.1").check(plant.task)
    monkeypatch.setattr(claims, "READ", 0.1)
    with pytest.raises(mr.MechRewardError, match=r"worth reading 0\.2; this version has 0\.1"):
        made.check(plant.task)


def test_edited_files_are_refused(folder: Path, tmp_path: Path):
    text = (folder / "plan.json").read_text()
    edited = text.replace('"n": 10', '"n": 99')
    assert edited != text
    (tmp_path / "edited.json").write_text(edited)
    with pytest.raises(mr.MechRewardError, match="damaged or changed"):
        Registration.load(tmp_path / "edited.json")
    data = json.loads(edited)
    del data["seal"]
    (tmp_path / "unsealed.json").write_text(json.dumps(data))
    with pytest.raises(mr.MechRewardError, match="changed since it was registered"):
        Registration.load(tmp_path / "unsealed.json")
    for name, change in (("kind", "effect"), ("neurons", {}), ("sizes", 3), ("sizes", None)):
        (tmp_path / "damaged.json").write_text(json.dumps(data | {name: change}))
        with pytest.raises(mr.MechRewardError) as error:
            Registration.load(tmp_path / "damaged.json")
        assert "\n" not in str(error.value)


def test_what_certify_cannot_begin_with_is_not_registered(plant):
    neurons = plant.truth.value_neurons["1.resid_post"]
    made = asdict(Subject("planted-value", "planted"))
    for given, sizes, said in (
        (replace(neurons, indices=()), SIZES, "set is empty"),
        (neurons, SIZES | {"n": 1}, "n must be at least 2"),
    ):
        with pytest.raises(mr.MechRewardError, match=said):
            register(made, plant.model, plant.task, given, sizes)


def test_measured_problems_are_kept_together(plant, tmp_path: Path):
    assert measured(tmp_path) == []
    problems = plant.task.problems("test", 6)
    remember(tmp_path, problems[:4])
    remember(tmp_path, problems[2:])
    assert measured(tmp_path) == [key_of(problem) for problem in problems]
    write_json(tmp_path / "measured.json", {"kind": "measured", "problems": 3})
    with pytest.raises(mr.MechRewardError, match="no list of measured problems"):
        measured(tmp_path)


def test_no_study_takes_the_place_of_a_registration(folder: Path, tmp_path: Path):
    """It lies in a folder under the name of a plan."""
    text = (folder / "plan.json").read_text()
    (tmp_path / "plan.json").write_text(text)
    for overwrite in (False, True):
        with pytest.raises(mr.MechRewardError, match=r"holds no run of mechreward \(plan\.json\)"):
            Study.open(Plan(), tmp_path, overwrite)
    assert (tmp_path / "plan.json").read_text() == text
