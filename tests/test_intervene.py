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

from mechreward.base.errors import MechRewardError
from mechreward.causal.intervene import (
    PULL,
    Intervention,
    mean,
    patch,
    resample,
    scale,
    steer,
    zero,
)
from mechreward.models.identity import model_id
from mechreward.models.row_edits import RowEdits, forward_arms
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


def changes(
    indices, seed: int, strength: float = 1.0, dtype: torch.dtype = torch.float32
) -> list[Intervention]:
    """Every operation; those that replace come first."""
    reference = made.activations(tensor(seed + 1, dtype).reshape(-1, WIDTH))
    toward = np.random.default_rng(seed).normal(size=len(reference.x))
    values = reference.x[:3, sorted(indices)]
    return [
        zero(of(indices), strength),
        mean(of(indices), reference, strength),
        resample(of(indices), reference, strength, seed=seed),
        patch(of(indices), values[0], strength),
        patch(of(indices), values, strength),
        steer(of(indices), reference, strength, toward=toward),
        scale(of(indices), strength + 1),
    ]


def replacing(
    indices, seed: int, strength: float = 1.0, dtype: torch.dtype = torch.float32
) -> list[Intervention]:
    return [change for change in changes(indices, seed, strength, dtype) if PULL[change.op] == -1]


def test_every_operation_is_in_the_tests():
    assert {change.op for change in changes({1}, 0)} == set(PULL)


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
    for change in replacing(indices, seed, dtype=dtype):
        out = change(x)
        values = change.reference[:3] if change.by_position else change.reference
        assert torch.equal(out[..., inside], values.to(dtype).expand(2, 3, -1))
        assert torch.equal(change(out), out), "twice is once"
    for change in changes(indices, seed, dtype=dtype):
        out = change(x)
        assert torch.equal(out[..., outside], x[..., outside])
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
    for one, two, both in zip(
        changes(a, seed, 0.7), changes(b, seed, 0.7), changes(a | b, seed, 0.7), strict=True
    ):
        assert torch.equal(one(two(x)), both(x))
        assert torch.equal(two(one(x)), both(x))


@settings(max_examples=40)
@given(sets, seeds, st.floats(-2, 3))
def test_the_equation_in_float64(indices, seed, strength):
    x, index = tensor(seed), sorted(indices)
    for change in changes(indices, seed, strength):
        expected = x.double()
        old = expected[..., index]
        reference = change.reference.double()[: 3 if change.by_position else None]
        expected[..., index] = old + change.strength * (reference + PULL[change.op] * old)
        torch.testing.assert_close(
            change(x).double(), expected, rtol=1e-5, atol=1e-5 * float(x.abs().max())
        )


@settings(max_examples=40)
@given(sets, seeds, st.floats(-3, 3))
def test_an_intervention_can_be_undone(indices, seed, strength):
    """Steering by v, then by -v; a factor, then one over it."""
    x = tensor(seed)
    close = {"rtol": 1e-4, "atol": 1e-4 * float(x.abs().max())}
    up, down = (changes(indices, seed, s)[5] for s in (strength, -strength))
    torch.testing.assert_close(down(up(x)), x, **close)
    if abs(strength) > 0.01:
        torch.testing.assert_close(
            scale(of(indices), 1 / strength)(scale(of(indices), strength)(x)), x, **close
        )


@settings(max_examples=40)
@given(sets, seeds, st.floats(-1, 2), st.sets(st.integers(0, 2), min_size=1))
def test_an_edit_is_the_call(indices, seed, strength, at):
    """What a row of a batch carries, against the callable with positions, for every operation and
    some positions."""
    x, chosen = tensor(seed), torch.tensor([p if p in at else -1 for p in range(3)])
    for change in changes(indices, seed, strength):
        edit = change.edit(sorted(at))
        rows = RowEdits([(edit,)], torch.device("cpu"))
        rows.set(torch.ones(2, 1).long(), torch.arange(3).expand(2, -1))
        ((name, hook),) = rows.hooks()
        torch.testing.assert_close(
            hook(x, None), change(x, chosen.expand(2, -1)), rtol=1e-6, atol=1e-6
        )
        assert name == change.neurons.site.hook


@settings(max_examples=20)
@given(sets, seeds)
def test_positions_choose_tokens(indices, seed):
    x, positions = tensor(seed), torch.tensor([[5, -1, 0], [-1, -1, 2]])
    for change in changes(indices, seed):
        out = change(x, positions)
        for row, column in np.ndindex(2, 3):
            position = int(positions[row, column])
            if position < 0 or (change.known is not None and position not in change.known):
                assert torch.equal(out[row, column], x[row, column])
            else:
                padded = x[row, column].expand(1, position + 2, -1)
                assert torch.equal(out[row, column], change(padded)[0, position])


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


LABELLED = made.activations(
    [[1.0, 10.0], [3.0, 20.0], [5.0, 30.0], [9.0, 60.0]], position=[2, 4, 2, 9], step=[0, 1, 0, 2]
)
PAIR = made.neurons(0, 1, width=2)


def test_a_mean_may_be_that_of_a_position():
    change = mean(PAIR, LABELLED, by="position")
    out = change(torch.zeros(1, 12, 2))
    assert out[0].nonzero()[:, 0].unique().tolist() == [2, 4, 9]
    assert out[0, [2, 4, 9]].tolist() == [[3.0, 20.0], [3.0, 20.0], [9.0, 60.0]]
    assert change.edit([4, 5, 6]).at == (4,)


def test_a_mean_may_be_that_of_the_step_a_position_lies_in():
    """Steps end at 1 (the prompt), 4 and 6: positions 0-1 are step 0, 2-4 step 1, 5-6 step 2, the
    rest unknown."""
    out = mean(PAIR, LABELLED, by="step", ends=(1, 4, 6))(torch.zeros(1, 9, 2))
    assert out[0, :, 0].tolist() == [3.0, 3.0, 3.0, 3.0, 3.0, 9.0, 9.0, 0.0, 0.0]
    assert out[0, :, 1].tolist() == [20.0] * 5 + [60.0] * 2 + [0.0] * 2


def test_resampled_rows_are_rows_and_the_seed_decides():
    reference = made.activations(torch.arange(40.0)[:, None] * torch.tensor([1.0, 100.0]))
    one, same, other = (resample(PAIR, reference, seed=seed) for seed in (0, 0, 1))
    x = torch.zeros(2, 40, 2)
    out = one(x)
    assert torch.equal(out, same(x)) and not torch.equal(out, other(x))
    assert torch.equal(out[..., 1], 100 * out[..., 0]), "joint values of one row"
    assert torch.equal(out[0], out[1]), "rows of a batch share the draw"
    assert sorted(out[0, :, 0].tolist()) == list(range(40)), "without replacement"
    assert torch.equal(one(torch.zeros(1, 80, 2))[0, 40:], out[0]), "and then from the first again"


def test_resampling_by_position_or_step_draws_there():
    reference = made.activations(
        np.arange(200.0)[:, None] * [1, 1], position=np.arange(200) % 4, step=np.arange(200) // 100
    )
    drawn = {
        resample(PAIR, reference, by="position", seed=s).reference[2, 0].item() for s in range(200)
    }
    assert len(drawn) > 30 and all(row % 4 == 2 for row in drawn)
    steps = resample(PAIR, reference, by="step", ends=(3, 9)).reference[:, 0]
    assert (steps[:4] < 100).all() and (steps[4:] >= 100).all() and len(set(steps.tolist())) > 5


def test_a_patch_takes_a_state_a_table_activations_or_a_cache(tiny_model, tokens):
    neurons = on(tiny_model, Site(0, "resid_post"), 3, 8)
    with torch.no_grad():
        _, cache = tiny_model.run_with_cache(tokens[:1])
    values, x = cache[neurons.site.hook][0][:, [3, 8]], torch.zeros(2, 9, 32)
    rows = made.activations(
        cache[neurons.site.hook][0], "tokens", neurons.site, trajectory=[4] * 7, position=range(7)
    )
    rows = replace(rows, model_id=neurons.model_id)
    columns = {key: getattr(rows, key)[[2, 5]] for key in ("x", "trajectory", "position", "step")}
    some = replace(rows, **columns)
    state, table, acts, run, few = (
        patch(neurons, each) for each in (values[4], values, rows, cache, some)
    )
    assert torch.equal(state(x)[..., [3, 8]], values[4].expand(2, 9, 2))
    for change in (table, acts, run):
        assert torch.equal(change(x)[:, :7, [3, 8]], values.expand(2, 7, 2))
        assert not change(x)[:, 7:].any(), "behind the source's end nothing happens"
    assert few(x)[0].nonzero()[:, 0].unique().tolist() == [2, 5]
    assert torch.equal(few(x)[0, 5, [3, 8]], values[5])


def test_steering_moves_a_standard_deviation_toward_what_is_wanted():
    rng = np.random.default_rng(0)
    toward = rng.normal(size=400)
    x = np.stack(
        [
            3 * toward + rng.normal(size=400),
            -0.5 * toward + rng.normal(size=400),
            np.full(400, 7.0),
        ],
        1,
    )
    reference, chosen = made.activations(x), made.neurons(0, 1, 2, width=3)
    toward[:3] = np.nan
    change = steer(chosen, reference, 2.0, toward=toward)
    own = replace(
        chosen, direction=tuple(steer(chosen, reference, toward=toward).reference.tolist())
    )
    assert torch.equal(steer(own, 2.0)(torch.zeros(3)), change(torch.zeros(3))), (
        "a set's own direction"
    )
    moved = change(torch.zeros(1, 1, 3))[0, 0].numpy()
    np.testing.assert_allclose(moved, 2 * x.std(0) * [1, -1, 1], rtol=1e-5, atol=1e-5)
    assert torch.equal(
        steer(chosen, torch.tensor([1.0, -2.0, 0.0]), 3)(torch.ones(3)),
        torch.tensor([4.0, -5.0, 1.0]),
    )


def test_what_the_references_refuse():
    two = made.activations(np.ones((4, 2)), trajectory=[0, 0, 1, 1])
    for call, told in [
        (
            lambda: mean(PAIR, LABELLED, by="place"),
            "unknown condition 'place'. Possible: position, step",
        ),
        (
            lambda: mean(PAIR, LABELLED, by="step"),
            "by='step' needs ends=: the step_ends of the trajectory",
        ),
        (lambda: mean(PAIR, LABELLED, ends=(1,)), "goes with by='step' alone"),
        (lambda: resample(PAIR, LABELLED, by="position", ends=(1,)), "goes with by='step' alone"),
        (
            lambda: mean(PAIR, replace(LABELLED, step=LABELLED.step + 9), by="step", ends=(1,)),
            "rows of steps 9, 10, 11",
        ),
        (lambda: patch(PAIR, two), "comes from one run; the activations are of 2 trajectories"),
        (lambda: patch(PAIR, {made.SITE.hook: torch.zeros(2, 3, 2)}), "the source holds 2 rows"),
        (
            lambda: patch(PAIR, torch.zeros(1, 1, 2, 2)),
            r"\[k\] or \[pos k\]; a tensor of shape \[1, 1, 2, 2\]",
        ),
        (lambda: patch(PAIR, torch.zeros(3)), "the reference has 3 values for 2 neurons"),
        (lambda: patch(PAIR, torch.full((2,), torch.nan)), "not finite"),
        (lambda: patch(PAIR, torch.zeros(0, 2)), "the reference has no row"),
        (
            lambda: patch(PAIR, torch.zeros(2, 2)).edit([5]),
            "none of the positions has a reference; .* have: 0, 1",
        ),
        (lambda: patch(PAIR, torch.zeros(2, 2))(torch.zeros(1, 1, 2)), "use attach"),
        (lambda: zero(PAIR).edit([-2]), "count from 0; -2 was given"),
        (lambda: steer(PAIR, LABELLED), "not which way: give toward="),
        (lambda: steer(PAIR, LABELLED, toward=np.ones(3)), "3 numbers for 4 rows"),
        (lambda: steer(PAIR, LABELLED, toward=np.ones(4)), "shows no way up"),
        (lambda: steer(PAIR, torch.ones(2), toward=np.ones(4)), "has signs already"),
        (lambda: steer(PAIR, 2.0), "the set has no direction of its own"),
        (lambda: steer(replace(PAIR, direction=(1.0, 1.0)), 2.0, 3.0), "is the strength"),
        (lambda: steer(PAIR, torch.ones(2, 2)), r"a direction is \[k\]"),
    ]:
        with pytest.raises(MechRewardError, match=told) as error:
            call()
        assert "\n" not in str(error.value)


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


@pytest.mark.parametrize(
    "site", ["0.resid_pre", "0.resid_mid", "0.resid_post", "0.mlp", "1.resid_mid", "1.mlp"]
)
@torch.no_grad()
def test_the_hooked_run_is_the_run_from_the_edited_activation(tiny_model, tokens, site):
    site = Site.parse(site)
    change = zero(on(tiny_model, site, 2, 3, 11, 30))
    clean_logits, clean = tiny_model.run_with_cache(tokens)
    edited = clean[site.hook].clone()
    for i in (2, 3, 11, 30):
        edited[:, :, i] = 0
    expected = tiny_model.run_with_hooks(
        tokens, fwd_hooks=[(site.hook, lambda tensor, hook: edited)]
    )
    found = tiny_model.run_with_hooks(tokens, fwd_hooks=change.fwd_hooks())
    assert torch.equal(found, expected)
    assert not torch.allclose(found, clean_logits, atol=1e-2)
    with tiny_model.hooks(fwd_hooks=change.fwd_hooks()):
        assert torch.equal(tiny_model(tokens), expected)
        _, hooked = tiny_model.run_with_cache(tokens)
    assert tiny.no_hooks_left(tiny_model)
    assert torch.equal(tiny_model(tokens), clean_logits)
    assert torch.equal(hooked[site.hook], edited)
    order = [
        Site(layer, kind)
        for layer in range(2)
        for kind in ("resid_pre", "resid_mid", "mlp", "resid_post")
    ]
    for earlier in order[: order.index(site)]:
        assert torch.equal(hooked[earlier.hook], clean[earlier.hook]), (
            "layers before the site are bit-identical"
        )


@torch.no_grad()
def test_the_hooked_run_is_the_plain_models_with_the_same_coordinates_set(
    tiny_model, tiny_plain, tokens
):
    """The oracle knows no TransformerLens: a PyTorch hook on the HuggingFace model's first
    block."""
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


def every(model, site: Site, strength: float = 1.0) -> list[Intervention]:
    """Every operation on a set of the model, with references of its own activations."""
    neurons = on(model, site, 2, 3, 11, 30)
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.arange(3, 25)[None])
    rows = made.activations(
        cache[site.hook][0], "tokens", site, position=range(22), trajectory=[0] * 22
    )
    rows = replace(rows, model_id=neurons.model_id)
    toward = np.random.default_rng(0).normal(size=22)
    return [
        zero(neurons, strength),
        mean(neurons, rows, strength, by="position"),
        resample(neurons, rows, strength),
        patch(neurons, rows, strength),
        steer(neurons, rows, strength, toward=toward),
        scale(neurons, 1 + strength),
    ]


@pytest.mark.parametrize("site", ["0.resid_post", "1.mlp"])
@torch.no_grad()
def test_every_operation_as_hook_and_as_edit_is_the_run_from_the_edited_activation(
    tiny_model, tokens, site
):
    site = Site.parse(site)
    _, clean = tiny_model.run_with_cache(tokens[:1])
    for change in every(tiny_model, site, 0.8):
        edited = clean[site.hook].clone()
        old = edited[..., [2, 3, 11, 30]]
        reference = change.reference[:7] if change.by_position else change.reference
        edited[..., [2, 3, 11, 30]] = old + 0.8 * (reference + PULL[change.op] * old)
        expected = tiny_model.run_with_hooks(
            tokens[:1], fwd_hooks=[(site.hook, lambda x, hook, e=edited: e)]
        )
        found = tiny_model.run_with_hooks(tokens[:1], fwd_hooks=change.fwd_hooks())
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            forward_arms(tiny_model, tokens[0], [(change.edit(),)]), expected, atol=1e-4, rtol=1e-4
        )
        assert tiny.no_hooks_left(tiny_model)


@torch.no_grad()
def test_the_remaining_blocks_by_hand(tiny_model, tiny_plain, tokens):
    """Edit the cached residual and resume from that layer: block, norm and unembedding of the bare
    model."""
    site = Site(0, "resid_post")
    _, clean = tiny_model.run_with_cache(tokens)
    body = tiny_plain.model
    places = torch.arange(tokens.shape[1])[None]
    shut = torch.full((7, 7), torch.finfo(torch.float32).min).triu(1)[None, None]
    for change in every(tiny_model, site):
        x = change(clean[site.hook])
        out = body.layers[1](x, attention_mask=shut, position_embeddings=body.rotary_emb(x, places))
        expected = tiny_plain.lm_head(body.norm(out[0] if isinstance(out, tuple) else out))
        found = tiny_model.run_with_hooks(tokens, fwd_hooks=change.fwd_hooks())
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_strength_0_leaves_the_model_as_it_is(tiny_model, tokens):
    clean = tiny_model(tokens)
    for change in every(tiny_model, Site(0, "resid_post"), 0.0):
        assert torch.equal(tiny_model.run_with_hooks(tokens, fwd_hooks=change.fwd_hooks()), clean)


@torch.no_grad()
def test_no_hook_is_left_when_an_operation_fails(tiny_model, tokens):
    for change in every(tiny_model, Site(0, "resid_post")):
        narrow = replace(change, neurons=replace(change.neurons, width=31))
        with pytest.raises(MechRewardError, match="has 31 neurons; the tensor has 32"):
            tiny_model.run_with_hooks(tokens, fwd_hooks=narrow.fwd_hooks())
        assert tiny.no_hooks_left(tiny_model)


@torch.no_grad()
def test_strength_0_of_a_plain_zero_is_the_model(tiny_model, tokens):
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
