"""Passes over texts of different lengths: the cheapest cut, what is padded, and the fast pass."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations, pairwise

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechreward.models import bins, engine, prefill
from mechreward.models.bins import length_bins
from mechreward.models.engine import Job, generate
from mechreward.models.fast_pass import LeanPass
from mechreward.models.site import HOOKS, Site, all_sites
from mechreward.probing import activations, measures, surface
from mechreward.probing.activations import record
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts


def price(lengths: list[int], passes: list[list[int]]) -> int:
    return sum(bins.PASS + len(rows) * max(lengths[row] for row in rows) for rows in passes)


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 900), min_size=1, max_size=8), st.integers(1, 5), st.integers(1, 2000)
)
def test_no_cut_is_cheaper(lengths: list[int], most: int, tokens: int):
    """Against every way to cut the texts in order of length."""
    passes = length_bins(lengths, most, tokens)
    assert sorted(chain(*passes)) == list(range(len(lengths)))
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    prices = []
    for count in range(len(order)):
        for cuts in combinations(range(1, len(order)), count):
            ends = [0, *cuts, len(order)]
            cut = [order[a:b] for a, b in pairwise(ends)]
            if all(
                len(rows) == 1 or (len(rows) <= most and len(rows) * lengths[rows[-1]] <= tokens)
                for rows in cut
            ):
                prices.append(price(lengths, cut))
    assert price(lengths, passes) == min(prices)


def test_one_long_text_stands_alone_and_equal_ones_share():
    assert length_bins([20] * 63 + [230], 64) == [list(range(63)), [63]]
    assert length_bins([20] * 64, 64) == [list(range(64))]
    assert length_bins([20] * 64, 32) == [list(range(32)), list(range(32, 64))]
    assert length_bins([9000, 9001], 64) == [[0], [1]], "longer than a pass may be"
    assert length_bins([], 64) == []


@pytest.fixture(scope="module")
def runs(tiny_model) -> Rollouts:
    """Fifteen short trajectories and one of 230 tokens, first of all."""
    short = sample(tiny_model, tiny.Even().problems("test", 15), seed=3, progress=False)
    run = short[0]
    tokens = torch.cat([run.tokens, run.tokens.repeat(30)])[:230]
    long = replace(run, problem_id="long", tokens=tokens, prompt_len=200, step_ends=(199, 209, 229))
    return Rollouts(
        (long, *short), (short.problems[0], *short.problems), short.policy, short.model_id
    )


def test_a_long_trajectory_pads_nobody(tiny_model, runs, monkeypatch):
    passes: list[tuple[int, int]] = []
    replay = LeanPass.replay

    def counting(self: LeanPass, tokens: torch.Tensor, layers: int) -> None:
        passes.append(tuple(tokens.shape))
        replay(self, tokens, layers)

    monkeypatch.setattr(LeanPass, "replay", counting)
    sites = all_sites(tiny_model, tuple(HOOKS))
    recording = record(tiny_model, runs, sites, rows="tokens", progress=False)
    texts = sum(len(run.tokens) for run in runs)
    assert sum(rows * length for rows, length in passes) < 1.5 * texts, "the fast pass, few padded"
    assert (1, 230) in passes
    with torch.no_grad():
        _, cache = tiny_model.run_with_cache(runs[0].tokens[None])
    for site in sites:
        x = recording[site].x[:230]
        torch.testing.assert_close(x, cache[site.hook][0], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("lean", [True, False])
def test_a_long_prompt_pads_no_prefill(tiny_model, runs, lean: bool, monkeypatch):
    """Two answers to sixteen prompts, one of them of 230 tokens: the same tokens as one by one."""
    prompts = [run.tokens[: run.prompt_len] for run in runs]
    prompts[0] = runs[0].tokens
    jobs = []
    for number, prompt in enumerate(prompts):
        jobs += [Job(prompt, len(prompt), 6, ("bins", number, n)) for n in range(2)]
    alone = [generate(tiny_model, [job], eos=2)[0].tokens.tolist() for job in jobs]
    shapes = []

    def counting(tokens: torch.Tensor, *_: object) -> None:
        shapes.append(tuple(tokens.shape))

    if lean:
        first = LeanPass.prefill
        monkeypatch.setattr(
            LeanPass, "prefill", lambda self, x, *past: counting(x) or first(self, x, *past)
        )
    else:
        step = engine.forward_step
        monkeypatch.setattr(LeanPass, "fits", lambda model: False)
        for module in (engine, prefill):
            monkeypatch.setattr(
                module, "forward_step", lambda m, x, *rest: counting(x) or step(m, x, *rest)
            )
    together = generate(tiny_model, jobs, eos=2)
    assert [one.tokens.tolist() for one in together] == alone
    prefills = [rows * length for rows, length in shapes if length > 1]
    assert sum(prefills) < 1.5 * sum(map(len, prompts))


def test_surface_pads_as_little(tiny_model, runs, monkeypatch):
    passes = []

    def counting(lengths: list[int], most: int) -> list[list[int]]:
        passes.append(length_bins(lengths, most))
        return passes[-1]

    monkeypatch.setattr(measures, "length_bins", counting)
    rows = surface.surface(tiny_model, runs)
    assert passes[0][-1] == [0]
    with torch.no_grad():
        logits = tiny_model(runs[0].tokens[None], return_type="logits")[0]
    entropy = torch.distributions.Categorical(logits=logits[199]).entropy()
    assert rows[0][surface.FEATURES.index("entropy")] == pytest.approx(float(entropy), abs=1e-4)


@pytest.mark.parametrize("site", ["0.resid_pre", "1.resid_mid", "1.mlp", "1.resid_post"])
def test_the_fast_pass_is_the_models_own(tiny_model, runs, site, monkeypatch):
    """Also under a hook of somebody's, which the fast pass runs at its place."""

    def shift(tensor: torch.Tensor, hook: object) -> torch.Tensor:
        return tensor + 0.25

    for hooks in ([], [(Site(0, "resid_post").hook, shift)]):
        fast = record(tiny_model, runs, site, rows="tokens", hooks=hooks, progress=False)[site].x
        with monkeypatch.context() as patch:
            patch.setattr(LeanPass, "fits", lambda model: False)
            own = record(tiny_model, runs, site, rows="tokens", hooks=hooks, progress=False)[site].x
        assert torch.equal(fast, own), "every operation is the model's own"


def test_a_hook_elsewhere_takes_the_models_own_pass(tiny_model, runs, monkeypatch):
    fired = []
    monkeypatch.setattr(activations, "LeanPass", None)  # not even asked
    hooks = [("blocks.0.attn.hook_z", lambda tensor, hook: fired.append(tensor.shape))]
    record(tiny_model, runs.subset([1, 2]), "1.mlp", hooks=hooks, progress=False)
    assert fired and tiny.no_hooks_left(tiny_model)
