"""Answers that are kept as they come: a run that was stopped goes on, and comes to the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

import mechreward as mr
from mechreward.base.errors import MechRewardError
from mechreward.models import engine, shards
from mechreward.rollouts.sample import sample_arms
from mechreward.studies.folder import Folder

TASK = tiny.Even()
PROBLEMS = TASK.problems("test", 20)
SITE = "1.resid_post"
FOLLOWING = shards.following


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shard holds 8 answers."""
    monkeypatch.setattr(shards, "FIRST", 8)
    monkeypatch.setattr(shards, "following", lambda size, seconds: 8)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Jobs of every run of the decode loop; `stop` of them are let through."""
    counted: list[int] = []
    begin = engine._Run.__init__

    def begun(self: Any, model: Any, jobs: Any, *rest: Any, **more: Any) -> None:
        counted.append(len(jobs))
        begin(self, model, jobs, *rest, **more)

    monkeypatch.setattr(engine._Run, "__init__", begun)
    return counted


class Stopped(KeyboardInterrupt):
    """As Ctrl-C."""


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    begin = engine._Run.__init__
    left = [count]

    def begun(self: Any, *args: Any, **more: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Stopped
        begin(self, *args, **more)

    monkeypatch.setattr(engine._Run, "__init__", begun)


def same_runs(a: mr.Rollouts, b: mr.Rollouts) -> None:
    for one, other in zip(a, b, strict=True):
        assert torch.equal(one.tokens, other.tokens)
        torch.testing.assert_close(one.logprobs, other.logprobs, atol=1e-5, rtol=1e-5)
        assert (one.ended, one.verdict) == (other.ended, other.verdict)


def test_sampling_goes_on(tiny_model, tmp_path: Path, calls, monkeypatch):
    plain = mr.sample(tiny_model, PROBLEMS, k=2, progress=False)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Stopped):
            mr.sample(tiny_model, PROBLEMS, k=2, batch=4, out=tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 3
    calls.clear()
    again = mr.sample(tiny_model, PROBLEMS, k=2, batch=4, out=tmp_path, progress=False)
    assert calls == [8, 8]
    same_runs(plain, again)
    calls.clear()
    mr.sample(tiny_model, PROBLEMS[5:9], k=2, out=tmp_path, progress=False)
    assert calls == [], "whatever they were made with"
    calls.clear()
    same_runs(plain, mr.sample(tiny_model, PROBLEMS, k=2, batch=4, out=tmp_path, progress=False))
    assert calls == []


CHANGES = [
    {"seed": 1},
    {"policy": mr.Policy(temperature=0.5)},
    {"policy": mr.Policy(max_tokens=5)},
    {"k": 3},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_what_is_asked_otherwise_is_made_anew(
    tiny_model, tmp_path: Path, calls, change: dict[str, Any]
):
    first = mr.sample(tiny_model, PROBLEMS, out=tmp_path, progress=False)
    calls.clear()
    kept = mr.sample(tiny_model, PROBLEMS, out=tmp_path, progress=False, **change)
    assert calls != []
    same_runs(kept, mr.sample(tiny_model, PROBLEMS, progress=False, **change))
    calls.clear()
    same_runs(first, mr.sample(tiny_model, PROBLEMS, out=tmp_path, progress=False))
    assert calls == [], "nothing was written over"


def test_another_model_makes_its_own(tiny_model, tmp_path: Path, calls):
    from mechreward.models.identity import randomised

    mr.sample(tiny_model, PROBLEMS, out=tmp_path, progress=False)
    calls.clear()
    mr.sample(randomised(tiny_model), PROBLEMS, out=tmp_path, progress=False)
    assert calls == [8, 8, 4]


def test_edits_are_told_apart(tiny_model, tmp_path: Path, calls):
    neurons = mr.NeuronSet.of(
        mr.record(tiny_model, mr.sample(tiny_model, PROBLEMS, progress=False), SITE)[SITE],
        [3, 8],
        "given",
    )
    arms = [(mr.zero(neurons).edit(),), (mr.zero(neurons).edit([2, 3]),)]
    plain = sample_arms(tiny_model, PROBLEMS, arms, progress=False)
    with shards.kept_in(tmp_path):
        kept = [sample_arms(tiny_model, PROBLEMS, [arm], progress=False)[0] for arm in arms]
        calls.clear()
        fresh = [(mr.zero(neurons).edit(),), (mr.zero(neurons).edit([2, 3]),)]
        again = [sample_arms(tiny_model, PROBLEMS, [arm], progress=False)[0] for arm in fresh]
    assert calls == []
    for a, b, c in zip(plain, kept, again, strict=True):
        same_runs(a, b)
        same_runs(a, c)


def test_values_go_on(tiny_model, tmp_path: Path, calls, monkeypatch):
    runs = mr.sample(tiny_model, PROBLEMS, progress=False)
    plain = mr.estimate(tiny_model, runs, k=4, progress=False)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stopped):
            mr.estimate(tiny_model, runs, k=4, batch=16, out=tmp_path, progress=False)
    calls.clear()
    kept = mr.estimate(tiny_model, runs, k=4, batch=16, out=tmp_path, progress=False)
    assert sum(calls) == 4 * plain.live.sum() - 16
    np.testing.assert_array_equal(kept.successes, plain.successes)


def test_an_ablation_and_a_certificate_go_on(tiny_model, tmp_path: Path, calls, monkeypatch):
    runs = mr.sample(tiny_model, PROBLEMS, progress=False)
    acts = mr.record(tiny_model, runs, SITE, progress=False)[SITE]
    neurons = mr.NeuronSet.of(acts, [3, 8], "given")

    def ablated(out: Path | None) -> Any:
        return mr.ablate(
            tiny_model, PROBLEMS, neurons, ops="zero", draws=2, random_draws=1, out=out,
            progress=False,
        )  # fmt: skip

    def certified(out: Path | None) -> Any:
        return mr.certify(
            tiny_model, TASK, neurons, train=16, test=12, k=2, n=8, draws=5, pairs=4, out=out,
            progress=False,
        )  # fmt: skip

    for run in (ablated, certified):
        plain = run(None)
        out = tmp_path / run.__name__
        with monkeypatch.context() as patch:
            stop_after(patch, 1)
            with pytest.raises(Stopped):
                run(out)
        before = len(list(out.iterdir()))
        assert before > 0
        calls.clear()
        assert str(run(out)) == str(plain)
        assert len(list(out.iterdir())) > before
        calls.clear()
        run(out)
        assert calls == []


def test_recordings_go_to_a_folder(tiny_model, tmp_path: Path):
    runs = mr.sample(tiny_model, PROBLEMS, progress=False)
    plain = mr.record(tiny_model, runs, SITE, rows="tokens", progress=False)[SITE]
    kept = mr.record(tiny_model, runs, SITE, rows="tokens", out=tmp_path, progress=False)[SITE]
    assert [path.name for path in tmp_path.iterdir()] == [f"{SITE}.tokens.safetensors"]
    torch.testing.assert_close(kept.x, plain.x)


def test_a_shard_that_was_changed_is_refused_by_name(tiny_model, tmp_path: Path):
    mr.sample(tiny_model, PROBLEMS, out=tmp_path, progress=False)
    path, *_ = tmp_path.iterdir()
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(MechRewardError, match=f"{path.name} is not a answers file|{path.name}"):
        mr.sample(tiny_model, PROBLEMS, out=tmp_path, progress=False)


def test_hooks_are_not_kept(tiny_model, tmp_path: Path):
    hooks = [("blocks.0.hook_resid_post", lambda x, hook: x)]
    with pytest.raises(MechRewardError, match="answers under hooks cannot be kept"):
        mr.sample(tiny_model, PROBLEMS, hooks=hooks, out=tmp_path, progress=False)


def test_a_file_is_no_folder(tiny_model, tmp_path: Path):
    file = tmp_path / "a"
    file.write_text("")
    with pytest.raises(MechRewardError, match="is a file; out= names a folder"):
        mr.sample(tiny_model, PROBLEMS, out=file, progress=False)


def test_a_stage_of_a_run_goes_on_and_leaves_nothing(
    tiny_model, tmp_path: Path, calls, monkeypatch
):
    monkeypatch.setattr("mechreward.studies.folder.WORTH", 0.0)
    folder = Folder(tmp_path)
    folder.begin({"plan": 1})

    def make() -> mr.Rollouts:
        return mr.sample(tiny_model, PROBLEMS, batch=4, progress=False)

    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(Stopped):
            folder.kept("a.rollouts.safetensors", mr.Rollouts, make, task=TASK)
    assert len(list((tmp_path / ".a.rollouts.safetensors.parts").iterdir())) == 1
    calls.clear()
    folder.kept("a.rollouts.safetensors", mr.Rollouts, make, task=TASK)
    assert calls == [8, 4]
    assert {path.name for path in tmp_path.iterdir()} == {"a.rollouts.safetensors", "plan.json"}


def test_what_is_quickly_made_is_not_kept(tiny_model, tmp_path: Path):
    with shards.kept_in(tmp_path / "parts", least=1e9):
        mr.sample(tiny_model, PROBLEMS, progress=False)
    assert not (tmp_path / "parts").exists()


def test_shards_grow_until_they_take_long():
    assert FOLLOWING(64, 0.1) == 64 * 16
    assert FOLLOWING(64, 30.0) == 128
    assert FOLLOWING(64, 600.0) == 6
    assert FOLLOWING(1, 1e6) == 1
