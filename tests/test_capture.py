"""Capture in the generating pass against plain forward passes over the finished text, one job at a
time."""

from __future__ import annotations

import random
from typing import Any

import pytest
import tiny
import torch

from mechreward.base.errors import MechRewardError
from mechreward.bundled.vocabulary import WORDS
from mechreward.models.capture import ROWS, Capture
from mechreward.models.engine import Continuation, Job, generate
from mechreward.models.row_edits import Edit
from mechreward.models.site import Site

EOS, LINE = WORDS.index("<eos>"), WORDS.index("\n")
SITES = [Site(0, "resid_pre"), Site(0, "mlp"), Site(1, "resid_mid"), Site(1, "resid_post")]
CHANGE = Edit(Site(0, "resid_post"), torch.full((32,), 0.5), torch.linspace(-1, 1, 32))


def make_jobs() -> list[Job]:
    """Ragged starts, limits from one token up, jobs that share a trunk, every third under an
    edit."""
    rng = random.Random(1)
    trunks = [
        torch.tensor([1, *(rng.randrange(3, len(WORDS)) for _ in range(n - 1))]) for n in (1, 6, 15)
    ]
    return [
        Job(
            trunk,
            rng.randint(1, len(trunk)),
            rng.choice((1, 2, 5, 17)),
            ("capture", number, n),
            (CHANGE,) * (n % 3 == 0),
        )
        for number, trunk in enumerate(trunks)
        for n in range(6)
    ]


JOBS = make_jobs()


@torch.no_grad()
def replay(model: Any, job: Job, said: Continuation) -> dict[Site, torch.Tensor]:
    """Activations `[pos width]` of the whole text, from TransformerLens itself."""
    whole = torch.cat([job.trunk[: job.length], said.tokens])[None]

    def change(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        return tensor * CHANGE.keep + CHANGE.add

    with model.hooks(fwd_hooks=[(CHANGE.site.hook, change)] if job.edits else []):
        _, cache = model.run_with_cache(
            whole, names_filter=lambda name: name in [s.hook for s in SITES]
        )
    return {site: cache[site.hook][0] for site in SITES}


def wanted(job: Job, said: Continuation, rows: str) -> list[list[int]]:
    """The positions that each row stands for, said slowly."""
    start, last = job.length - 1, job.length + len(said.tokens) - 1
    if rows == "tokens":
        return [[position] for position in range(start, last + 1)]
    found, step = [], []
    for position in range(job.length, last + 1):
        step.append(position)
        if said.tokens[position - job.length] == LINE or position == last:
            found.append(step)
            step = []
    return found if rows == "steps" else [[start]] + [step[-1:] for step in found]


@pytest.mark.parametrize("batch", [1, 4, 7, 256])
@pytest.mark.parametrize("rows", ROWS)
def test_what_is_caught_equals_a_replay(tiny_model, rows: str, batch: int):
    capture = Capture(dict.fromkeys(SITES), rows, frozenset({LINE}))
    said = generate(tiny_model, JOBS, eos=EOS, batch=batch, capture=capture)
    assert {len(one.tokens) for one in said} >= {1, 2, 5} and {one.finished for one in said} == {
        True,
        False,
    }
    for job, one in zip(JOBS, said, strict=True):
        places, truth = wanted(job, one, rows), replay(tiny_model, job, one)
        assert one.caught is not None and one.caught.position.tolist() == [
            place[-1] for place in places
        ]
        for site in SITES:
            means = torch.stack([truth[site][place].mean(0) for place in places])
            torch.testing.assert_close(one.caught.x[site], means, atol=5e-5, rtol=1e-4)
    assert tiny.no_hooks_left(tiny_model)


@pytest.mark.parametrize("batch", [3, 256])
@pytest.mark.parametrize("rows", ROWS)
def test_capture_changes_no_token(tiny_model, rows: str, batch: int):
    plain = generate(tiny_model, JOBS, eos=EOS, batch=batch)
    capture = Capture({SITES[0]: None}, rows, frozenset({LINE}))
    for a, b in zip(
        plain, generate(tiny_model, JOBS, eos=EOS, batch=batch, capture=capture), strict=True
    ):
        assert (
            a.tokens.tolist() == b.tokens.tolist() and a.finished == b.finished and a.caught is None
        )
        torch.testing.assert_close(a.logprobs, b.logprobs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", ROWS)
def test_a_read_out_is_the_read_out_of_what_is_caught(tiny_model, rows: str):
    site, weights = SITES[-1], torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    ends = frozenset({LINE})
    raw = generate(tiny_model, JOBS, eos=EOS, capture=Capture({site: None}, rows, ends))
    read = generate(
        tiny_model, JOBS, eos=EOS, capture=Capture({site: lambda x: x @ weights + 1}, rows, ends)
    )
    for a, b in zip(raw, read, strict=True):
        assert a.caught and b.caught
        torch.testing.assert_close(
            b.caught.x[site], a.caught.x[site] @ weights + 1, atol=1e-5, rtol=1e-5
        )


def test_long_captures_leave_the_device_on_the_way(tiny_model):
    jobs = [Job(JOBS[0].trunk, 1, n, ("long", n)) for n in (150, 20, 1)]
    for job, one in zip(
        jobs,
        generate(tiny_model, jobs, eos=-1, batch=2, capture=Capture(dict.fromkeys(SITES))),
        strict=True,
    ):
        assert one.caught and len(one.caught.position) == job.max_new + 1
        truth = replay(tiny_model, job, one)
        torch.testing.assert_close(one.caught.x[SITES[3]], truth[SITES[3]], atol=1e-4, rtol=1e-4)


def test_a_hook_behind_the_capture_does_not_reach_it(tiny_model):
    """What is kept is a copy: a later layer that writes in place cannot change it."""
    site = Site(0, "resid_post")

    def spoil(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        return tensor.zero_()

    spoiled = [(Site(1, "resid_pre").hook, spoil)]
    clean = generate(tiny_model, JOBS[:1], eos=EOS, capture=Capture({site: None}))
    again = generate(tiny_model, JOBS[:1], eos=EOS, hooks=spoiled, capture=Capture({site: None}))
    assert clean[0].caught and again[0].caught
    torch.testing.assert_close(
        clean[0].caught.x[site][0], again[0].caught.x[site][0], atol=1e-5, rtol=1e-5
    )


def test_bad_captures_are_refused(tiny_model):
    with pytest.raises(
        MechRewardError, match="unknown kind of rows 'state'; did you mean 'states'"
    ):
        Capture({SITES[0]: None}, "state")
    with pytest.raises(MechRewardError, match="name at least one site"):
        Capture({})
    with pytest.raises(MechRewardError, match="layers 0 to 1"):
        generate(tiny_model, JOBS, eos=EOS, capture=Capture({Site(2, "mlp"): None}))


def test_a_site_that_never_fires_is_told(tiny_model, monkeypatch: pytest.MonkeyPatch):
    from mechreward.models import engine

    monkeypatch.setattr(engine.LeanPass, "fits", lambda model: False)
    monkeypatch.setattr(
        engine, "_hooked", lambda model, hooks: tiny_model.hooks(fwd_hooks=hooks[1:])
    )
    jobs = [job for job in JOBS if not job.edits]
    with pytest.raises(
        MechRewardError, match=r"nothing passed through 0\.mlp: the hook never fired"
    ):
        generate(tiny_model, jobs, eos=EOS, capture=Capture(dict.fromkeys([SITES[1], SITES[3]])))
