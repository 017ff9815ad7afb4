"""Recorded activations against TransformerLens' own cache, one trajectory at a time."""

from __future__ import annotations

import errno
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import rows as made
import tiny
import torch
from safetensors.torch import save_file

from mechreward.base.errors import MechRewardError
from mechreward.models.site import HOOKS, Site, all_sites
from mechreward.probing import activations
from mechreward.probing.activations import ROWS, Activations, forward, record
from mechreward.probing.store import Filling
from mechreward.rollouts.sample import sample


@pytest.fixture(scope="module")
def runs(tiny_model):
    runs = sample(tiny_model, tiny.Even().problems("test", 6), k=2, seed=3, progress=False)
    assert len({len(run.tokens) for run in runs}) > 2
    assert len({run.steps for run in runs}) > 2
    return runs


@pytest.fixture(scope="module")
def alone(tiny_model, runs):
    """What `run_with_cache` says of every trajectory by itself."""
    with torch.no_grad():
        return [tiny_model.run_with_cache(run.tokens[None])[1] for run in runs]


def by_hand(cache, run, site: Site, rows: str) -> tuple[torch.Tensor, list[int], list[int]]:
    """Rows, positions and steps of one trajectory, token by token."""
    x = cache[site.hook][0]
    step_of, step = [], 0
    for position in range(len(run.tokens)):
        if position > run.step_ends[step]:
            step += 1
        step_of.append(step)
    if rows == "tokens":
        return x, list(range(len(x))), step_of
    ends = list(run.step_ends)
    if rows == "states":
        return torch.stack([x[end] for end in ends]), ends, list(range(len(ends)))
    picked, steps = [], list(range(1, len(ends)))
    for step in steps:
        inside = [x[p] for p in range(run.prompt_len, len(run.tokens)) if step_of[p] == step]
        picked.append(sum(inside) / len(inside))
    return torch.stack(picked), ends[1:], steps


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("batch", [5, 64])
def test_record_is_run_with_cache_of_each_trajectory_alone(tiny_model, runs, alone, rows, batch):
    sites = all_sites(tiny_model, tuple(HOOKS))
    assert len(sites) == 8
    recording = record(tiny_model, runs, sites, rows=rows, batch=batch, progress=False)
    assert list(recording) == [str(site) for site in sites]
    for site in sites:
        acts = recording[site]
        expected = [by_hand(cache, run, site, rows) for cache, run in zip(alone, runs, strict=True)]
        torch.testing.assert_close(
            acts.x, torch.cat([part[0] for part in expected]), atol=2e-5, rtol=1e-4
        )
        assert acts.position.tolist() == [position for part in expected for position in part[1]]
        assert acts.step.tolist() == [step for part in expected for step in part[2]]
        assert acts.trajectory.tolist() == [i for i, part in enumerate(expected) for _ in part[1]]
        assert (acts.site, acts.rows, acts.width, acts.model_id) == (
            site,
            rows,
            site.width(tiny_model),
            runs.model_id,
        )
    assert tiny.no_hooks_left(tiny_model)


def test_the_site_may_be_written_in_any_form_and_is_read_back_in_any(tiny_model, runs):
    few = runs.subset([0, 1])
    recording = record(tiny_model, few, "1.mlp", progress=False)
    assert len(recording) == 1
    assert recording["1.mlp"] is recording[Site(1, "mlp")] is recording[Site(1, "mlp").hook]
    with pytest.raises(
        MechRewardError, match=r"unknown recorded site '1.resid_mid'.*Possible: 1.mlp"
    ):
        recording["1.resid_mid"]


def test_an_intervention_is_seen_at_its_site_and_after_it_but_not_before(tiny_model, runs):
    few, at = runs.subset([0, 3]), Site(0, "resid_post")

    def sevens(tensor, hook):
        out = tensor.clone()
        out[..., 4] = 7.0
        return out

    sites = ["0.resid_mid", at, "1.resid_post"]
    clean = record(tiny_model, few, sites, rows="tokens", progress=False)
    seen = record(tiny_model, few, sites, rows="tokens", hooks=[(at.hook, sevens)], progress=False)
    assert torch.equal(seen["0.resid_mid"].x, clean["0.resid_mid"].x)
    assert (seen[at].x[:, 4] == 7).all()
    rest = [i for i in range(seen[at].width) if i != 4]
    assert torch.equal(seen[at].x[:, rest], clean[at].x[:, rest])
    later = []
    for run in few:
        kept = {}

        def catch(tensor, hook, kept=kept):
            kept["x"] = tensor.detach().clone()

        with torch.no_grad():
            hooks = [(at.hook, sevens), (Site(1, "resid_post").hook, catch)]
            tiny_model.run_with_hooks(run.tokens[None], fwd_hooks=hooks)
        later.append(kept["x"][0])
    torch.testing.assert_close(seen["1.resid_post"].x, torch.cat(later), atol=2e-5, rtol=1e-4)
    assert not torch.allclose(seen["1.resid_post"].x, clean["1.resid_post"].x, atol=1e-3)
    assert tiny.no_hooks_left(tiny_model)


def test_no_hook_is_left_when_an_intervention_raises(tiny_model, runs):
    def broken(tensor, hook):
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        record(
            tiny_model, runs, "1.resid_post", hooks=[(Site(0, "mlp").hook, broken)], progress=False
        )
    assert tiny.no_hooks_left(tiny_model)


@pytest.mark.parametrize(
    ("site", "firings"), [("0.resid_pre", 0), ("0.resid_post", 0), ("1.resid_pre", 1)]
)
def test_layers_after_the_last_site_are_not_run(tiny_model, runs, site, firings):
    fired = []

    def count(tensor, hook):
        fired.append(tuple(tensor.shape))

    with tiny_model.hooks(fwd_hooks=[(Site(1, "resid_mid").hook, count)]):
        record(tiny_model, runs, site, progress=False)
    assert len(fired) == firings
    assert tiny.no_hooks_left(tiny_model)


def test_recording_needs_no_gradient_and_shares_nothing(tiny_model, runs):
    both = record(
        tiny_model, runs.subset([0]), ["0.resid_post", "1.resid_pre"], rows="tokens", progress=False
    )
    first, second = both["0.resid_post"].x, both["1.resid_pre"].x
    assert not first.requires_grad
    assert torch.equal(first, second)
    first[0, 0] = 1e6
    assert float(second[0, 0]) != 1e6


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("call", "told"),
    [
        ({"sites": "1.resid_pots"}, "did you mean 'resid_post'"),
        ({"sites": "2.resid_post"}, "the model has layers 0 to 1"),
        ({"sites": "blocks.0.hook_resid_pots"}, "did you mean 'blocks.0.hook_resid_post'"),
        ({"sites": []}, "no site was given"),
        ({"rows": "state"}, "did you mean 'states'"),
        ({"batch": 0}, "at least 1; 0 was given"),
    ],
)
def test_what_cannot_be_recorded_is_told_in_one_line(tiny_model, runs, call, told):
    with pytest.raises(MechRewardError, match=told) as error:
        record(tiny_model, runs, **({"sites": "1.resid_post", "progress": False} | call))
    assert "\n" not in str(error.value)
    assert tiny.no_hooks_left(tiny_model)


@pytest.mark.parametrize("part", ["weights", "processing"])
def test_runs_of_another_model_are_refused(tiny_model, runs, part):
    foreign = replace(runs, model_id=replace(runs.model_id, name="stranger", **{part: "other"}))
    with pytest.raises(MechRewardError, match=rf"made on stranger \({part} other\)") as error:
        record(tiny_model, foreign, "1.resid_post", progress=False)
    assert "\n" not in str(error.value)


def test_no_runs_are_refused(tiny_model, runs):
    with pytest.raises(MechRewardError, match="no trajectories were given"):
        record(tiny_model, runs.subset([]), "1.resid_post", progress=False)


def test_rms_by_hand():
    assert made.activations([[3.0, 0.0], [4.0, 0.0]]).rms().tolist() == pytest.approx(
        [12.5**0.5, 0.0]
    )


def test_file_round_trip(tmp_path, tiny_model, runs):
    acts = record(tiny_model, runs, "1.mlp", rows="steps", progress=False)["1.mlp"]
    back = Activations.load(acts.save(tmp_path / "deep" / "acts.safetensors"))
    assert torch.equal(back.x, acts.x)
    for name in ("trajectory", "position", "step"):
        assert np.array_equal(getattr(back, name), getattr(acts, name))
        assert getattr(back, name).dtype == getattr(acts, name).dtype
    assert (back.site, back.rows, back.model_id) == (acts.site, acts.rows, acts.model_id)
    assert repr(back) == repr(acts)
    assert "\n" not in repr(acts)


def test_a_damaged_or_foreign_file_is_refused(tmp_path):
    good = made.activations(np.eye(4)).save(tmp_path / "good").read_bytes()
    (tmp_path / "cut").write_bytes(good[:-7])
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "pickled").write_bytes(pickle.dumps({"x": 1}))
    torch.save({"x": torch.ones(2)}, tmp_path / "zipped")
    made.two().save(tmp_path / "values")
    save_file({"x": torch.ones(2, 2)}, tmp_path / "bare")
    save_file(
        {"x": torch.ones(2, 2)},
        tmp_path / "headless",
        metadata={"about": '{"kind": "activations"}'},
    )
    told = {
        "absent": "cannot read",
        "cut": "damaged",
        "empty": "empty file",
        "pickled": "pickled files are never opened",
        "zipped": "pickled files are never opened",
        "values": "holds values, not activations",
        "bare": "no readable safetensors",
        "headless": "damaged",
    }
    for name, words in told.items():
        with pytest.raises(MechRewardError, match=words) as error:
            Activations.load(tmp_path / name)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


# Recordings that outgrow memory


def test_what_outgrows_memory_goes_to_disk_and_is_the_same(tiny_model, runs, tmp_path):
    sites = ["0.mlp", "1.resid_post"]
    inside = record(tiny_model, runs, sites, rows="tokens", progress=False)
    outside = record(
        tiny_model, runs, sites, rows="tokens", budget=100, out=tmp_path, progress=False
    )
    again = record(tiny_model, runs, sites, rows="tokens", budget=100, out=tmp_path, progress=False)
    for site in sites:
        for one in (outside[site], again[site]):
            torch.testing.assert_close(one.x, inside[site].x, atol=1e-6, rtol=1e-6)
            assert all(
                (getattr(one, key) == getattr(inside[site], key)).all()
                for key in ("trajectory", "position")
            )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{site}.tokens.safetensors" for site in sites
    ]


def test_a_stopped_recording_goes_on_where_it_was(tiny_model, runs, tmp_path, monkeypatch):
    """Stopped in the middle of its third pass, after rows of two are safe: those trajectories are
    not run again."""
    about = {"rows": "tokens", "budget": 0, "out": tmp_path, "batch": 3, "progress": False}
    passes = []
    monkeypatch.setattr(Filling, "FLUSH", 1)

    def stop(model, tokens, *rest):
        if len(passes) == 2:
            raise KeyboardInterrupt
        passes.append(len(tokens))
        return forward(model, tokens, *rest)

    monkeypatch.setattr(activations, "forward", stop)
    with pytest.raises(KeyboardInterrupt):
        record(tiny_model, runs, "1.resid_post", **about)
    assert not list(tmp_path.glob("[!.]*")), "a reader sees no half file"

    def count(model, tokens, *rest):
        passes.append(len(tokens))
        return forward(model, tokens, *rest)

    monkeypatch.setattr(activations, "forward", count)
    whole = record(tiny_model, runs, "1.resid_post", **about)["1.resid_post"]
    assert passes == [3] * 4 and len(runs) == 12
    inside = record(tiny_model, runs, "1.resid_post", rows="tokens", progress=False)["1.resid_post"]
    # Other batches round otherwise.
    torch.testing.assert_close(whole.x, inside.x, atol=1e-5, rtol=1e-5)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_stop_before_the_labels_are_written_leaves_none_of_them_zero(
    tiny_model, runs, tmp_path, monkeypatch
):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "memmap", stop)
        with pytest.raises(KeyboardInterrupt):
            record(tiny_model, runs, "0.mlp", budget=0, out=tmp_path, progress=False)
    assert list(tmp_path.glob(".*.part")), "the header is there, the labels are not"
    again = record(tiny_model, runs, "0.mlp", budget=0, out=tmp_path, progress=False)["0.mlp"]
    inside = record(tiny_model, runs, "0.mlp", progress=False)["0.mlp"]
    for key in ("trajectory", "position", "step"):
        assert getattr(again, key).tolist() == getattr(inside, key).tolist()


def test_other_rollouts_do_not_resume_or_replace_a_recording(tiny_model, runs, tmp_path):
    record(tiny_model, runs, "0.mlp", budget=0, out=tmp_path, progress=False)
    before = (tmp_path / "0.mlp.states.safetensors").read_bytes()
    with pytest.raises(MechRewardError, match="holds another recording"):
        record(tiny_model, runs.subset([0, 1]), "0.mlp", budget=0, out=tmp_path, progress=False)
    assert (tmp_path / "0.mlp.states.safetensors").read_bytes() == before


def test_too_much_for_memory_or_disk_is_told_before_anything_runs(
    tiny_model, runs, tmp_path, monkeypatch
):
    with pytest.raises(
        MechRewardError, match=r"more than the budget of 0.00 GB: name a folder with out="
    ):
        record(tiny_model, runs, "0.mlp", budget=1000, progress=False)
    kept = record(tiny_model, runs, "0.mlp", budget=0, out=tmp_path, progress=False)["0.mlp"]

    def full(handle, start, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(MechRewardError, match=r"needs .* GB and the disk has .* GB left"):
        record(tiny_model, runs, "1.mlp", budget=0, out=tmp_path, progress=False)
    assert torch.equal(Activations.load(tmp_path / "0.mlp.states.safetensors").x, kept.x)
    assert len(list(tmp_path.iterdir())) == 1, "nothing half done is left"
