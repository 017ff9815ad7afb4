"""Stages are bound to what made them, two processes do not meet in one folder, and a disk that
refuses is one line: on made-up stages of every kind of file, and on a run of a tiny plan."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rows as made
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mechreward import MechRewardError, NeuronSet, Rollouts, cli
from mechreward.base.files import held, safe_name, write_atomic, write_json
from mechreward.causal.certificate import Certificate
from mechreward.causal.effect import Arm, Effect
from mechreward.causal.patching import PatchingSweep
from mechreward.causal.verdict import CLAIMS, Claim
from mechreward.experiments.plan import Plan
from mechreward.experiments.rows import Results, Row
from mechreward.models.engine import Policy
from mechreward.models.site import Site
from mechreward.probing.activations import Activations
from mechreward.probing.store import Filling, filled
from mechreward.rollouts.trajectory import Trajectory
from mechreward.rollouts.value import Values
from mechreward.studies import paper
from mechreward.studies.folder import Folder
from mechreward.studies.paper import reproduce
from mechreward.studies.sets import value_set
from mechreward.studies.study import Study
from mechreward.tasks import Problem, Verdict

PATTERNS = ("*.safetensors", "*.json")
ROW = Row("R1", "tiny", "chain", "1.mlp", "value", "auroc", 0.7, 0.6, 0.8, 50, 3)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rollouts(seed: int) -> Rollouts:
    problem = Problem(f"p{seed}", "3 4", "7")
    tokens = torch.tensor([1, 5 + seed, 6, 7])
    scores = torch.tensor([-0.5, -1.0])
    run = Trajectory(problem.id, tokens, 2, (1, 3), Verdict("correct"), scores, True)
    return Rollouts((run,), (problem,), Policy(), made.MODEL, seed)


def effect(neurons: NeuronSet, seed: int) -> Effect:
    right = np.array([1, 0, 1, 1])
    arms = (Arm("value", "zero", 0, (1,), right, {"kl": 0.25}),)
    baseline = Arm("baseline", "", 0, (), right, {"kl": 0.0})
    return Effect(neurons, baseline, arms, ("a", "b", "c", "d"), (), seed)


def stages(folder: Folder, seed: int) -> None:
    """A made-up run: a stage of every kind of file, each asks for those that it is made from."""

    def runs() -> Rollouts:
        return folder.kept("train.rollouts.safetensors", Rollouts, lambda: rollouts(seed))

    def values() -> Values:
        def make() -> Values:
            assert len(runs()) == 1
            return replace(made.two(), seed=seed)

        return folder.kept("train.values.safetensors", Values, make)

    def acts() -> Activations:
        def make() -> Activations:
            assert runs().seed == seed
            return made.activations(torch.eye(16) + seed)

        return folder.kept("train.3.mlp.activations.safetensors", Activations, make)

    def neurons(kind: str) -> NeuronSet:
        def make() -> NeuronSet:
            assert (values().seed, acts().width) == (seed, 16)
            return made.neurons(1 + seed, 5, how=kind)

        return folder.kept(f"{kind}.neurons.json", NeuronSet, make)

    def ablated() -> Effect:
        return folder.kept("effect-mlp.json", Effect, lambda: effect(neurons("value"), seed))

    def certificate() -> Certificate:
        claims = tuple(Claim(name, "fail", f"seed {seed}.") for name in CLAIMS)
        return Certificate(claims, neurons("value"), "chain", {"n": seed})

    def sweep() -> PatchingSweep:
        sites, places = (Site(0, "mlp"),), (4, 5)
        table = np.array([[0.5 + seed, 1.0]])
        words = f"{len(neurons('dopamine'))} neurons"
        return PatchingSweep(sites, places, places, table, 2.0, -1.0, words, made.MODEL)

    def rows() -> list:
        return [replace(ROW, seed=ablated().seed)]

    values()
    neurons("value")
    folder.kept("certificate-mlp.json", Certificate, certificate)
    folder.kept("patching.json", PatchingSweep, sweep)
    folder.rows("R1-mlp", rows)
    folder.rows("R2-mlp", rows)
    with folder.bound("results.json"):
        Results({"seed": seed}, (ROW,)).save(folder.path / "results.json")


def resumed(path: Path, seed: int = 0, k: int = 4) -> None:
    """What a command does with such a folder."""
    folder = Folder(path)
    folder.begin({"seed": seed, "k": k})
    folder.check(PATTERNS)
    stages(folder, seed)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run, one of another seed, and one of another k whose files hold the same numbers."""
    out = tmp_path_factory.mktemp("runs")
    for name, plan in {"own": {}, "seed": {"seed": 1}, "k": {"k": 8}}.items():
        resumed(out / name, **plan)
    return {name: out / name for name in ("own", "seed", "k")}


def copy(runs: dict[str, Path], to: Path) -> Path:
    return Path(shutil.copytree(runs["own"], to / "copy"))


def kept_files(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


STAGES = [
    "R1-mlp.rows.json",
    "R2-mlp.rows.json",
    "certificate-mlp.json",
    "dopamine.neurons.json",
    "effect-mlp.json",
    "patching.json",
    "plan.json",
    "results.json",
    "train.3.mlp.activations.safetensors",
    "train.rollouts.safetensors",
    "train.values.safetensors",
    "value.neurons.json",
]


def refused(path: Path, name: str) -> None:
    """A command ends in one line that names the file, and changes nothing."""
    before = snapshot(path)
    with pytest.raises(MechRewardError) as caught:
        resumed(path)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert snapshot(path) == before


def test_a_whole_run_is_resumed_as_it_is(runs, tmp_path: Path):
    path = copy(runs, tmp_path)
    assert kept_files(path) == STAGES, "and nothing is left beside"
    before = snapshot(path)
    resumed(path)
    assert snapshot(path) == before


def flip(data: bytes, bit: int) -> bytes:
    byte, place = divmod(bit % (8 * len(data)), 8)
    return data[:byte] + bytes([data[byte] ^ 1 << place]) + data[byte + 1 :]


def edited(data: bytes) -> bytes:
    """The first number that stands in the file, another one."""
    where = next(i for i, byte in enumerate(data) if i > 70 and chr(byte) in "012345678")
    return data[:where] + bytes([data[where] + 1]) + data[where + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "a byte less": lambda data: data[:-1],
    "a byte more": lambda data: data + b"\n",
    "zeros": lambda data: bytes(len(data)),
    "edited": edited,
    "pickled": lambda data: b"\x80\x04K\x01.",
}


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_any_kind_is_refused_by_name(runs, tmp_path: Path, name, damage):
    path = copy(runs, tmp_path)
    data = (path / name).read_bytes()
    (path / name).write_bytes(DAMAGE[damage](data))
    refused(path, name)


@pytest.mark.parametrize("name", STAGES)
def test_any_flipped_bit_is_found(runs, tmp_path: Path, name: str):
    path = copy(runs, tmp_path)
    data = (path / name).read_bytes()
    size = 8 * len(data)
    bits = range(size) if size < 3000 else np.random.default_rng(0).integers(0, size, 400).tolist()
    # The bits that tell a sealed file from one of an older version, which has no seal.
    for word in (b'"seal"', b'"digest"', b'"made"'):
        if word in data:
            bits = [*bits, *range(8 * data.rindex(word), 8 * (data.rindex(word) + len(word)))]
    for bit in bits:
        (path / name).write_bytes(flip(data, bit))
        with pytest.raises(MechRewardError, match=name):
            Folder(path).check([name])


@pytest.mark.parametrize("other", ["seed", "k"])
@pytest.mark.parametrize("name", STAGES)
def test_a_file_of_another_run_is_refused_by_name(runs, tmp_path: Path, name: str, other: str):
    path = copy(runs, tmp_path)
    shutil.copy(runs[other] / name, path / name)
    if name == "plan.json":  # all other files are of another run then
        with pytest.raises(MechRewardError, match="of a run with another plan"):
            resumed(path)
    else:
        refused(path, name)


def test_two_files_of_one_kind_are_not_taken_for_each_other(runs, tmp_path: Path):
    for pair in (
        ("value.neurons.json", "dopamine.neurons.json"),
        ("R1-mlp.rows.json", "R2-mlp.rows.json"),
    ):
        path = copy(runs, tmp_path / pair[0])
        first, second = ((path / name).read_bytes() for name in pair)
        (path / pair[0]).write_bytes(second)
        (path / pair[1]).write_bytes(first)
        refused(path, min(pair))


def without_seal(path: Path) -> None:
    """A file as older versions wrote it."""
    if path.suffix == ".json":
        data = json.loads(path.read_text())
        del data["seal"]
        path.write_text(json.dumps(data, indent=1))
        return
    with safe_open(path, framework="pt") as file:
        about = {"about": file.metadata()["about"]}
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata=about)


KINDS: dict[str, Any] = {
    "R1-mlp.rows.json": Results,
    "certificate-mlp.json": Certificate,
    "effect-mlp.json": Effect,
    "patching.json": PatchingSweep,
    "train.3.mlp.activations.safetensors": Activations,
    "train.rollouts.safetensors": Rollouts,
    "train.values.safetensors": Values,
    "value.neurons.json": NeuronSet,
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_an_older_version_is_read_alone_and_no_stage(runs, tmp_path: Path, name: str):
    path = copy(runs, tmp_path)
    without_seal(path / name)
    assert repr(KINDS[name].load(path / name)) == repr(KINDS[name].load(runs["own"] / name))
    with pytest.raises(MechRewardError, match=f"{name} does not say what it was made from"):
        resumed(path)


@pytest.mark.parametrize("name", KINDS)
def test_a_single_file_that_was_changed_is_refused(runs, tmp_path: Path, name: str):
    path = copy(runs, tmp_path) / name
    path.write_bytes(edited(path.read_bytes()))
    with pytest.raises(MechRewardError, match=name):
        KINDS[name].load(path)


def test_a_file_that_anyone_saved_is_no_stage(runs, tmp_path: Path):
    path = copy(runs, tmp_path)
    made.neurons(2, 3).save(path / "value.neurons.json")
    refused(path, "value.neurons.json")


def test_a_lost_stage_is_made_again_and_has_to_be_the_same(runs, tmp_path: Path):
    path = copy(runs, tmp_path)
    (path / "value.neurons.json").unlink()
    (path / "train.values.safetensors").unlink()
    resumed(path)
    assert snapshot(path) == snapshot(runs["own"])

    folder = Folder(path)
    (path / "value.neurons.json").unlink()
    folder.check(PATTERNS)
    # As another version of the code might choose.
    with pytest.raises(MechRewardError, match=r"made from another value\.neurons\.json"):
        folder.kept("value.neurons.json", NeuronSet, lambda: made.neurons(9))
    with pytest.raises(MechRewardError, match=r"made from another value\.neurons\.json"):
        resumed(path)


# A run of the package itself

TINY = Plan("countdown-base", "chain", train=6, validation=6, test=6, k=2, ablated=4, confidence=4)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny") / "run"
    study = Study.open(TINY, out, say=lambda _: None)
    value_set(study, "mlp")
    return out


def test_every_file_of_a_run_says_what_it_was_made_from(studied: Path):
    made_from = {}
    for path in studied.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            made_from[path.name] = json.loads(file.metadata()["made"])
    for path in (studied / "R3.rows.json", studied / "value-mlp.neurons.json"):
        made_from[path.name] = json.loads(path.read_text())["seal"]["made"]
    assert set(made_from) | {"plan.json"} == set(kept_files(studied))
    for name, seal in made_from.items():
        assert seal["stage"] == name and seal["plan"]
    acts = next(name for name in made_from if name.endswith("activations.safetensors"))
    parents = {name: set(seal["from"]) for name, seal in made_from.items()}
    data = {"train.rollouts.safetensors", "train.values.safetensors"}
    assert parents["train.values-0000.safetensors"] == {"train.rollouts.safetensors"}
    assert "train.values-0000.safetensors" in parents["train.values.safetensors"]
    assert data <= parents[acts] and "test.values.safetensors" in parents["R3.rows.json"]
    assert {acts, "R3.rows.json", "train.values.safetensors"} <= parents["value-mlp.neurons.json"]


def test_a_study_refuses_what_is_not_its_own(studied: Path, tmp_path: Path):
    path = Path(shutil.copytree(studied, tmp_path / "copy"))
    shutil.copy(path / "validation.values.safetensors", path / "train.values.safetensors")
    before = snapshot(path)
    for _ in range(2):
        with pytest.raises(MechRewardError, match=r"train\.values.* is validation\.values.* under"):
            Study.open(TINY, path, say=lambda _: None)
    assert snapshot(path) == before
    Study.open(TINY, path, overwrite=True, say=lambda _: None)
    assert kept_files(path) == ["plan.json"]


def test_a_resumed_run_of_a_planted_model_knows_its_task(tmp_path: Path):
    """Its task is not among those that go by name."""
    plan = replace(TINY, model="planted-value", task="planted")
    for _ in range(2):
        study = Study.open(plan, tmp_path / "run", say=lambda _: None)
        assert {problem.task for problem in study.rollouts("train").problems} == {study.task}


# Kills, and two at once


def child(code: str, *words: str, **how: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
        **how,
    )


DIES = """
import os, signal, sys
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from mechreward.base.files import write_json
write_json(sys.argv[1], {"seed": 0, "k": 4})
"""


def test_a_kill_while_the_plan_is_written_does_not_block_the_folder(tmp_path: Path):
    path = tmp_path / "run"
    dead = child(DIES, str(path / "plan.json"))
    assert dead.wait(120) == -signal.SIGKILL
    left = kept_files(path)
    assert left and all(name.startswith(".plan.json.") for name in left)
    (path / ".plan.json.k3x_a91b").write_text("{")  # as older versions named it
    assert not Folder(path).strangers
    resumed(path)
    assert kept_files(path) == STAGES


def test_what_a_killed_process_left_of_a_file_is_cleaned_by_the_next(tmp_path: Path):
    path = tmp_path / "x.json"
    assert child(DIES, str(path)).wait(120) == -signal.SIGKILL
    assert kept_files(tmp_path) != []
    write_json(path, {"seed": 1})
    assert kept_files(tmp_path) == ["x.json"]


HOLDS = """
import sys, time
from pathlib import Path
from mechreward.studies.folder import Folder
from mechreward.experiments.rows import Row
def make():
    print("makes", flush=True)
    sys.stdin.readline()
    return [Row("R1", "tiny", "chain", "1.mlp", "value", "auroc", 0.7, 0.6, 0.8, 50, 3)]
Folder(sys.argv[1]).rows("R1", make)
print("made", flush=True)
"""


def test_of_two_processes_one_makes_a_stage_and_the_other_waits(tmp_path: Path):
    Folder(tmp_path).begin({"seed": 0})
    first = child(HOLDS, str(tmp_path), stdin=subprocess.PIPE)
    assert first.stdout.readline() == "makes\n"
    with pytest.raises(MechRewardError, match=r"another process is writing .*R1\.rows\.json"):
        Folder(tmp_path).clear(["*.rows.json"])
    assert (tmp_path / "plan.json").exists()
    second = child(HOLDS, str(tmp_path), stdin=subprocess.PIPE)
    assert "waiting for it" in second.stderr.readline()
    first.stdin.write("\n")
    first.stdin.flush()
    assert (first.wait(60), second.wait(60)) == (0, 0)
    assert second.stdout.read() == "made\n", "it was read, not made again"
    assert kept_files(tmp_path) == ["R1.rows.json", "plan.json"]


def test_a_killed_process_holds_nothing(tmp_path: Path):
    first = child(HOLDS, str(tmp_path), stdin=subprocess.PIPE)
    assert first.stdout.readline() == "makes\n"
    first.kill()
    first.wait(60)
    began = time.monotonic()
    assert Folder(tmp_path).rows("R1", lambda: [ROW]) == [ROW]
    assert time.monotonic() - began < 10
    assert kept_files(tmp_path) == ["R1.rows.json"]


def test_two_plans_do_not_begin_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another process begins between the look at the folder and the beginning."""
    begin = Folder.begin

    def late(folder: Folder, plan: dict[str, Any]) -> None:
        begin(Folder(folder.path), plan | {"plan": plan["plan"] | {"k": 8}})
        begin(folder, plan)

    monkeypatch.setattr(Folder, "begin", late)
    with pytest.raises(MechRewardError, match=r"another run \(plan\.k is 8, not 2\)"):
        Study.open(TINY, tmp_path / "run", say=lambda _: None)


FILLS = """
import sys, torch
from pathlib import Path
from mechreward.probing.store import Filling, filled
labels = {"trajectory": torch.zeros(3, dtype=torch.int32)}
file = Filling(Path(sys.argv[1]), 2, labels, {"kind": "activations"}, True)
with filled([file]):
    print("fills", flush=True)
    sys.stdin.readline()
"""


def test_two_processes_do_not_fill_one_file(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    labels = {"trajectory": torch.zeros(3, dtype=torch.int32)}
    first = child(FILLS, str(path), stdin=subprocess.PIPE)
    assert first.stdout.readline() == "fills\n"
    with pytest.raises(MechRewardError, match="another process is writing"):
        Filling(path, 2, labels, {"kind": "activations"}, True)
    first.communicate("\n", timeout=60)
    file = Filling(path, 2, labels, {"kind": "activations"}, True)
    assert file.complete and kept_files(tmp_path) == ["x.safetensors"]
    path.write_bytes(flip(path.read_bytes(), 8 * path.stat().st_size - 5))
    with pytest.raises(MechRewardError, match="damaged or changed"):
        Filling(path, 2, labels, {"kind": "activations"}, True)


def test_a_stop_between_the_digest_and_the_name_loses_no_rows(tmp_path: Path, monkeypatch):
    path, labels = tmp_path / "x.safetensors", {"trajectory": torch.arange(3).int()}
    file = Filling(path, 2, labels, {"kind": "activations"}, True)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    file.x[:] = 7
    file.wrote([0, 1, 2], 3)
    file._safe()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        patch.setattr(Filling, "_safe", lambda file: None)
        with pytest.raises(KeyboardInterrupt):
            file.finish()
    file.lock.close()
    file = Filling(path, 2, labels, {"kind": "activations"}, True)
    with filled([file]):
        assert file.x.tolist() == [[7, 7]] * 3
    assert kept_files(tmp_path) == ["x.safetensors"]


# A disk that refuses


@pytest.mark.parametrize("name", ["x.json", "x.safetensors", "page.md"])
def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path: Path, monkeypatch, name: str):
    path = tmp_path / name
    values = made.two()
    write: dict[str, Callable[[], Any]] = {
        "x.json": lambda: write_json(path, {"a": 1}),
        "x.safetensors": lambda: values.save(path),
        "page.md": lambda: write_atomic(path, "words"),
    }
    write[name]()
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(MechRewardError, match="No space left on device") as caught:
            write[name]()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_bytes() == before and kept_files(tmp_path) == [name]


LIMITED = """
import sys
from mechreward.base.errors import MechRewardError
from mechreward.base.files import write_json
try:
    write_json(sys.argv[1], {"a": "x" * 100_000})
except MechRewardError as error:
    print(error)
"""


def test_a_file_that_outgrows_what_is_allowed_is_one_line(tmp_path: Path):
    """A real refusal of the system, in the middle of a write."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    write_json(tmp_path / "x.json", {"a": 1})
    writer = child(LIMITED, str(tmp_path / "x.json"), preexec_fn=limit)
    said, wrong = writer.communicate(timeout=120)
    assert "File too large. Nothing that was finished is lost." in said, wrong
    assert json.loads((tmp_path / "x.json").read_text())["a"] == 1
    assert kept_files(tmp_path) == ["x.json"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper", Path("/proc/mechreward")):
        for write in (
            lambda folder=folder: write_json(folder / "x.json", {}),
            lambda folder=folder: Folder(folder / "run").begin({}),
            lambda folder=folder: Folder(folder / "run").rows("R1", lambda: pytest.fail("made")),
        ):
            with pytest.raises(MechRewardError, match=f"cannot write {folder}") as caught:
                write()
            assert "\n" not in str(caught.value)

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    monkeypatch.setattr(Path, "iterdir", denied)
    monkeypatch.setattr(sys, "argv", ["mechreward", "calibrate", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 2


def test_what_is_finished_can_be_read_from_a_folder_that_cannot_be_written(
    runs, tmp_path: Path, monkeypatch
):
    path = copy(runs, tmp_path)

    def denied(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("mechreward.base.files.FileLock.acquire", denied)
    rows = Folder(path).rows("R1-mlp", lambda: pytest.fail("made"))
    assert rows == [replace(ROW, seed=0)]
    with pytest.raises(MechRewardError, match="Read-only file system"), held(path / "x"):
        pytest.fail("held")


# Names never become paths


@pytest.mark.parametrize(
    "name",
    [
        "/etc/model.chain",
        "../../model.chain",
        "owner/model.chain",
        "..",
        ".",
        "",
        ".hidden",
        "a\nb\x00c",
        "C:\\x",
        "x" * 300,
        "\ud800",
        "\u202etxt.exe",
    ],
)
def test_any_text_is_the_name_of_one_file(tmp_path: Path, name: str):
    safe = safe_name(name)
    path = write_atomic(tmp_path / safe, "x")
    assert path.parent == tmp_path and path.resolve().parent == tmp_path.resolve()
    assert len(safe) < 100 and safe.isascii() and safe.isprintable() and safe[0] not in "."


def test_different_names_stay_different_and_good_ones_as_they_are():
    assert safe_name("countdown-base.chain") == "countdown-base.chain"
    names = ["a/b", "a-b", "a b", "/a/b", "../a-b", "..a-b", "A/B", "a\\b"]
    assert len({safe_name(name) for name in names}) == len(names)


@pytest.mark.parametrize("model", ["{}/model", "../../model", "owner/model"])
def test_a_run_stays_in_its_folder_whatever_its_model_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
):
    model = model.format(tmp_path / "elsewhere")
    filled_folders = []

    def fill(wanted: list[str], plan: Plan, folder: Path, say: object) -> None:
        filled_folders.append(folder)
        Results({"model_id": {}}, ()).save(folder / "results.json")

    monkeypatch.setattr(paper, "_fill", fill)
    out = tmp_path / "deep" / "er" / "out"
    found = reproduce(["R2"], out, [(model, "chain")], TINY, say=lambda _: None)
    assert [folder.parent for folder in filled_folders] == [out]
    assert all(out in path.parents for path in tmp_path.rglob("*.json"))
    assert list(found.manifest["runs"]) == [f"{model}.chain"]


def test_results_of_something_else_are_not_written_over(tmp_path: Path):
    Folder(tmp_path / "demo").begin({"plan": {}})
    with pytest.raises(MechRewardError, match="holds a run of one model"):
        reproduce(["R2"], tmp_path / "demo", [("countdown-base", "chain")], TINY)
    path = Results({}, (ROW,)).save(tmp_path / "out" / "results.json")
    path.write_text(path.read_text().replace("0.7", "0.9"))
    with pytest.raises(MechRewardError, match=r"results\.json is not a kept file as it was"):
        reproduce(["R2"], tmp_path / "out", [("countdown-base", "chain")], TINY)
    assert "0.9" in path.read_text()
