"""Interventions: algebra on tensors, and two independent oracles on a real model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rows as made
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechreward._check import MechRewardError
from mechreward.causal.intervene import Intervention, mean, zero
from mechreward.models.adapter import model_id
from mechreward.models.site import Site
from mechreward.probing.neurons import NeuronSet

WIDTH = 8
sets = st.sets(st.integers(0, WIDTH - 1), min_size=1)
seeds = st.integers(0, 2**31 - 1)
kinds = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


def of(indices) -> NeuronSet:
    return made.neurons(*sorted(indices), width=WIDTH)


def tensor(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    x = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(seed)) * 10
    x[..., 0] *= 1e4 if dtype is not torch.float16 else 1
    return x.to(dtype)


def changes(indices, seed: int, strength: float = 1.0, dtype: torch.dtype = torch.float32) -> list[Intervention]:
    reference = made.activations(tensor(seed + 1, dtype).reshape(-1, WIDTH))
    return [zero(of(indices), strength), mean(of(indices), reference, strength)]


@settings(max_examples=40)
@given(sets, seeds, kinds)
def test_strength_0_is_the_identity(indices, seed, dtype):
    x = tensor(seed, dtype)
    for change in changes(indices, seed, 0.0, dtype):
        assert torch.equal(change(x), x)


@settings(max_examples=40)
@given(sets, seeds, kinds)
def test_strength_1_replaces_the_set_and_nothing_else(indices, seed, dtype):
    x, before = tensor(seed, dtype), tensor(seed, dtype)
    inside, outside = sorted(indices), [i for i in range(WIDTH) if i not in indices]
    for change in changes(indices, seed, dtype=dtype):
        out = change(x)
        assert torch.equal(out[..., outside], x[..., outside])
        assert torch.equal(out[..., inside], change.reference.to(dtype).expand(2, 3, -1))
        assert torch.equal(change(out), out), "twice is once"
        assert out.dtype == dtype
        assert torch.equal(x, before), "the input is never edited"
        assert out.data_ptr() != x.data_ptr()
    assert (zero(of(indices))(x)[..., inside] == 0).all()


@settings(max_examples=40)
@given(sets, sets, seeds)
def test_two_disjoint_sets_in_either_order_are_their_union(a, b, seed):
    b = b - a
    if not b:
        return
    x = tensor(seed)
    for one, two, both in zip(changes(a, seed, 0.7), changes(b, seed, 0.7), changes(a | b, seed, 0.7), strict=True):
        assert torch.equal(one(two(x)), both(x))
        assert torch.equal(two(one(x)), both(x))


@settings(max_examples=40)
@given(sets, seeds, st.floats(-2, 3))
def test_the_equation_in_float64(indices, seed, strength):
    x, index = tensor(seed), sorted(indices)
    for change in changes(indices, seed, strength):
        expected = x.double()
        old = expected[..., index]
        expected[..., index] = old + strength * (change.reference.double() - old)
        torch.testing.assert_close(change(x).double(), expected, rtol=1e-5, atol=1e-5 * float(x.abs().max()))


def test_arithmetic_is_in_float32():
    x = torch.stack([torch.arange(100.0, 164.0), torch.linspace(-3, 7, 64)], 1).bfloat16()
    change = Intervention(made.neurons(1, width=2), "mean", torch.tensor([4.25]), 0.3)
    expected = (x.double() + 0.3 * (4.25 - x.double())).float().bfloat16()[:, 1]
    out = change(x)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, torch.stack([x[:, 0], expected], 1))
    inside = x[:, 1] + 0.3 * (torch.tensor(4.25, dtype=torch.bfloat16) - x[:, 1])
    assert not torch.equal(inside, expected), "this example could not tell the difference"


def test_the_mean_is_that_of_the_reference_rows():
    reference = made.activations([[1.0, 10.0, 0.0], [3.0, 20.0, 5.0]])
    change = mean(made.neurons(0, 1, width=3), reference)
    assert change.reference.tolist() == [2.0, 15.0]
    assert change(torch.full((1, 3), -1.0)).tolist() == [[2.0, 15.0, -1.0]]


def test_what_an_intervention_refuses():
    with pytest.raises(MechRewardError, match="this set is empty"):
        zero(made.neurons())
    with pytest.raises(MechRewardError, match="has 16 neurons; the tensor has 8"):
        zero(made.neurons(1))(torch.zeros(2, 8))
    with pytest.raises(MechRewardError, match="the reference has 1 values for 2 neurons"):
        Intervention(made.neurons(1, 2), "mean", torch.zeros(1))
    with pytest.raises(MechRewardError, match="unknown operation 'zeros'; did you mean 'zero'"):
        Intervention(made.neurons(1), "zeros", torch.zeros(1))
    reference = made.activations(np.ones((2, 16)))
    with pytest.raises(MechRewardError, match="the activations are of"):
        mean(made.neurons(1, site=Site(0, "mlp")), reference)
    with pytest.raises(MechRewardError, match="made on another"):
        mean(made.neurons(1, model=made.OTHER), reference)


@pytest.fixture(scope="module")
def tokens():
    return torch.tensor([[1, 5, 40, 8, 60, 61, 4], [1, 6, 33, 9, 70, 4, 12]])


def on(model, site: Site, *indices: int) -> NeuronSet:
    return NeuronSet(site, indices, site.width(model), model_id(model))


@pytest.mark.parametrize("site", ["0.resid_pre", "0.resid_mid", "0.resid_post", "0.mlp", "1.resid_mid", "1.mlp"])
@torch.no_grad()
def test_the_hooked_run_is_the_run_from_the_edited_activation(tiny_model, tokens, site):
    site = Site.parse(site)
    change = zero(on(tiny_model, site, 2, 3, 11, 30))
    clean_logits, clean = tiny_model.run_with_cache(tokens)
    edited = clean[site.hook].clone()
    for i in (2, 3, 11, 30):
        edited[:, :, i] = 0
    expected = tiny_model.run_with_hooks(tokens, fwd_hooks=[(site.hook, lambda tensor, hook: edited)])
    found = tiny_model.run_with_hooks(tokens, fwd_hooks=change.fwd_hooks())
    assert torch.equal(found, expected)
    assert not torch.allclose(found, clean_logits, atol=1e-2)
    with tiny_model.hooks(fwd_hooks=change.fwd_hooks()):
        assert torch.equal(tiny_model(tokens), expected)
        _, hooked = tiny_model.run_with_cache(tokens)
    assert tiny.no_hooks_left(tiny_model)
    assert torch.equal(tiny_model(tokens), clean_logits)
    assert torch.equal(hooked[site.hook], edited)
    order = [Site(layer, kind) for layer in range(2) for kind in ("resid_pre", "resid_mid", "mlp", "resid_post")]
    for earlier in order[: order.index(site)]:
        assert torch.equal(hooked[earlier.hook], clean[earlier.hook]), "layers before the site are bit-identical"


@torch.no_grad()
def test_the_hooked_run_is_the_plain_models_with_the_same_coordinates_set(tiny_model, tiny_plain, tokens):
    """The oracle knows no TransformerLens: a PyTorch hook on the HuggingFace model's first block."""
    site, index = Site(0, "resid_post"), [0, 7, 31]
    with tiny_model.hooks(fwd_hooks=[]):
        _, cache = tiny_model.run_with_cache(tokens)
    rows = made.activations(cache[site.hook].reshape(-1, 32), "tokens", site)
    reference = replace(rows, model_id=model_id(tiny_model))
    averages = cache[site.hook].reshape(-1, 32).double().mean(0)[index].float()

    def edit(module, arguments, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[..., index] = averages
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = tiny_plain.model.layers[0].register_forward_hook(edit)
    try:
        expected = tiny_plain(tokens).logits
    finally:
        handle.remove()
    change = mean(on(tiny_model, site, *index), reference)
    found = tiny_model.run_with_hooks(tokens, fwd_hooks=change.fwd_hooks())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_strength_0_leaves_the_model_as_it_is(tiny_model, tokens):
    clean = tiny_model(tokens)
    change = zero(on(tiny_model, Site(0, "resid_post"), 1, 2), 0.0)
    assert torch.equal(tiny_model.run_with_hooks(tokens, fwd_hooks=change.fwd_hooks()), clean)


def test_check_refuses_another_model_processing_state_or_site(tiny_model):
    mine = on(tiny_model, Site(1, "mlp"), 4)
    change = zero(mine)
    assert change.check(tiny_model) is change
    for part in ("weights", "processing"):
        foreign = replace(mine, model_id=replace(mine.model_id, **{part: "other"}))
        with pytest.raises(MechRewardError, match=f"{part} other") as error:
            zero(foreign).check(tiny_model)
        assert "\n" not in str(error.value)
    with pytest.raises(MechRewardError, match="the model has layers 0 to 1"):
        zero(replace(mine, site=Site(2, "mlp"))).check(tiny_model)
