"""Chosen positions of any pass: against a loop that runs the whole prefix again with a hand-written
hook."""

from __future__ import annotations

from typing import Any

import pytest
import rows as made
import tiny
import torch
from test_intervene import every

from mechreward.base.errors import MechRewardError
from mechreward.causal.attach import attach
from mechreward.causal.intervene import Intervention, mean, patch, scale, steer, zero
from mechreward.models.identity import model_id
from mechreward.models.site import Site
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.sample import sample, sample_arms

SITE, INDEX = Site(0, "resid_post"), (1, 2, 7)
TOKENS = torch.tensor([[1, 5, 40, 8, 60, 61, 4], [1, 6, 33, 9, 70, 4, 12]])
PUSH = torch.tensor([9.0, -7.0, 5.0])
GREEDY: dict[str, Any] = {
    "do_sample": False,
    "stop_at_eos": False,
    "verbose": False,
    "return_type": "tokens",
}


def on(model: Any, site: Site = SITE, indices: tuple[int, ...] = INDEX) -> NeuronSet:
    return NeuronSet(site, indices, site.width(model), model_id(model))


def by_hand(at: tuple[int, ...], site: Site = SITE) -> tuple[str, Any]:
    """Adds PUSH at absolute positions of a whole pass."""

    def hook(x: torch.Tensor, hook: Any) -> torch.Tensor:
        x = x.clone()
        for position in at:
            if position < x.shape[1]:
                x[:, position, list(INDEX)] += PUSH
        return x

    return site.hook, hook


def slow(model: Any, tokens: torch.Tensor, new: int, hooks: list[tuple[str, Any]]) -> torch.Tensor:
    """Greedy generation that runs the whole prefix for every token."""
    for _ in range(new):
        logits = model.run_with_hooks(tokens, fwd_hooks=hooks)
        tokens = torch.cat([tokens, logits[:, -1].argmax(-1, keepdim=True)], 1)
    return tokens


@torch.no_grad()
def test_a_teacher_forced_pass_is_changed_at_the_positions_and_nowhere_else(tiny_model):
    at, change = (2, 5), steer(on(tiny_model), PUSH)
    with attach(tiny_model, change, at=at) as attached:
        found = tiny_model(TOKENS)
        _, cache = tiny_model.run_with_cache(TOKENS)
    assert torch.equal(found, tiny_model.run_with_hooks(TOKENS, fwd_hooks=[by_hand(at)]))
    _, clean = tiny_model.run_with_cache(TOKENS)
    changed = (cache[SITE.hook] != clean[SITE.hook]).nonzero()
    assert set(changed[:, 1].tolist()) == set(at) and set(changed[:, 2].tolist()) == set(INDEX)
    assert attached.fired == (8,), "two rows, two positions, two passes"
    assert tiny.no_hooks_left(tiny_model)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("at", [(3, 8, 9), (0,), (7,), (10, 3)])
@torch.no_grad()
def test_generation_is_that_of_the_whole_prefix_run_again(
    tiny_model, at: tuple[int, ...], cached: bool
):
    """Position 6 is the prompt's last; the token at 11 is never run."""
    with attach(tiny_model, steer(on(tiny_model), PUSH), at=at) as attached:
        said = tiny_model.generate(TOKENS, max_new_tokens=5, use_past_kv_cache=cached, **GREEDY)
    assert torch.equal(said, slow(tiny_model, TOKENS, 5, [by_hand(at)]))
    if cached:
        assert attached.fired == (2 * len(at),), "every token is run once"


@torch.no_grad()
def test_a_table_of_positions_follows_the_cache(tiny_model):
    """A patch `[pos k]` that reaches into the answer: plain hooks refuse to guess, attach knows."""
    table = torch.randn(10, 3, generator=torch.Generator().manual_seed(1)) * 5
    change = patch(on(tiny_model), table)

    def hook(x: torch.Tensor, hook: Any) -> torch.Tensor:
        x, n = x.clone(), min(10, x.shape[1])
        x[:, :n, list(INDEX)] = table[:n]
        return x

    with attach(tiny_model, change):
        said = tiny_model.generate(TOKENS, max_new_tokens=6, **GREEDY)
    assert torch.equal(said, slow(tiny_model, TOKENS, 6, [(SITE.hook, hook)]))
    with (
        pytest.raises(MechRewardError, match="use attach"),
        tiny_model.hooks(fwd_hooks=change.fwd_hooks()),
    ):
        tiny_model.generate(TOKENS, max_new_tokens=6, **GREEDY)
    assert tiny.no_hooks_left(tiny_model)


@torch.no_grad()
def test_several_at_once_act_in_order_and_are_counted_apart(tiny_model):
    site = Site(1, "mlp")
    first = zero(on(tiny_model))
    second = steer(on(tiny_model), PUSH)
    third = scale(on(tiny_model, site, (4, 9)), -1)
    with (
        attach(tiny_model, first, second, third, at=[1, 4]) as attached,
        attach(tiny_model, third, at=[6]) as other,
    ):
        found = tiny_model(TOKENS)

    def at(place: Site, change: Any, positions: list[int]) -> tuple[str, Any]:
        def hook(x: torch.Tensor, hook: Any) -> torch.Tensor:
            x = x.clone()
            x[:, positions] = change(x[:, positions])
            return x

        return place.hook, hook

    hooks = [at(SITE, first, [1, 4]), at(SITE, second, [1, 4]), at(site, third, [1, 4, 6])]
    assert torch.equal(found, tiny_model.run_with_hooks(TOKENS, fwd_hooks=hooks))
    assert attached.fired == (4, 4, 4) and other.fired == (2,)
    assert tiny.no_hooks_left(tiny_model)


@torch.no_grad()
def test_left_padded_rows_keep_their_own_positions(tiny_model):
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), TOKENS], 1)
    mask = (padded > 0).long()
    change = steer(on(tiny_model), PUSH)
    with attach(tiny_model, change, at=[2, 5]) as attached:
        found = tiny_model(padded, attention_mask=mask)
    wanted = tiny_model.run_with_hooks(TOKENS, fwd_hooks=[by_hand((2, 5))])
    torch.testing.assert_close(found[:, 3:], wanted, atol=1e-4, rtol=1e-4)
    assert attached.fired == (4,)


def test_the_packages_own_verbs_are_passes_like_any_other(tiny_model):
    """The fast loop, which moves rows about, and the same change as an edit of its rows."""
    problems = tiny.Even().problems("test", 6)
    change, at = steer(on(tiny_model), PUSH), (3, 6, 7)
    with attach(tiny_model, change, at=at):
        attached = sample(tiny_model, problems, seed=1, batch=2, progress=False)
    (edited,) = sample_arms(tiny_model, problems, [(change.edit(at),)], seed=1, progress=False)
    clean = sample(tiny_model, problems, seed=1, progress=False)
    assert [run.tokens.tolist() for run in attached] == [run.tokens.tolist() for run in edited]
    assert [run.tokens.tolist() for run in attached] != [run.tokens.tolist() for run in clean]


@pytest.mark.parametrize("number", range(6))
def test_every_operation_is_the_same_attached_and_as_an_edit(tiny_model, number: int):
    """References by position reach 22 tokens; prompts and answers are longer, and the lean pass
    takes the edits."""
    problems, change = tiny.Even().problems("test", 5), every(tiny_model, SITE)[number]
    with attach(tiny_model, change):
        attached = sample(tiny_model, problems, seed=1, batch=2, progress=False)
    edited, clean = sample_arms(
        tiny_model, problems, [(change.edit(),), ()], seed=1, progress=False
    )
    assert [run.tokens.tolist() for run in attached] == [run.tokens.tolist() for run in edited]
    for one, other in zip(attached, edited, strict=True):
        torch.testing.assert_close(one.logprobs, other.logprobs, atol=1e-4, rtol=0)
    assert [run.tokens.tolist() for run in edited] != [run.tokens.tolist() for run in clean]


def test_never_fired_is_an_error_and_nothing_is_left(tiny_model):
    change = zero(on(tiny_model))
    told = pytest.raises(
        MechRewardError, match=r"zero of 0\.resid_post never fired at positions 90, 91"
    )
    with told as error, attach(tiny_model, change, at=[91, 90]):
        tiny_model(TOKENS)
    assert "\n" not in str(error.value)
    assert tiny.no_hooks_left(tiny_model)
    with pytest.raises(MechRewardError, match="never fired"), attach(tiny_model, change):
        pass
    far = patch(on(tiny_model), torch.zeros(3, 3))
    with (
        pytest.raises(MechRewardError, match=r"patch of 0\.resid_post never"),
        attach(tiny_model, far, at=[5]),
    ):
        tiny_model(TOKENS)


def test_an_error_in_the_body_is_not_hidden_and_nothing_is_left(tiny_model):
    before = sum(len(module._forward_pre_hooks) for module in tiny_model.modules())
    with pytest.raises(ZeroDivisionError), attach(tiny_model, zero(on(tiny_model)), at=[90]):
        _ = 1 / 0
    with pytest.raises(IndexError), attach(tiny_model, zero(on(tiny_model))):
        tiny_model(torch.tensor([[10**9]]))
    assert tiny.no_hooks_left(tiny_model)
    assert sum(len(module._forward_pre_hooks) for module in tiny_model.modules()) == before


def test_what_it_refuses(tiny_model, tiny_plain):
    change = zero(on(tiny_model))
    foreign = Intervention(made.neurons(1, width=32, site=SITE), "zero", torch.zeros(1))
    for wanted, interventions, at in [
        ("nothing to attach", (), None),
        ("count from 0; -1 was given", (change,), [-1]),
        ("no position was given", (change,), []),
        ("made on made-up", (foreign,), None),
    ]:
        with (
            pytest.raises(MechRewardError, match=wanted),
            attach(tiny_model, *interventions, at=at),
        ):
            tiny_model(TOKENS)
    assert tiny.no_hooks_left(tiny_model)


@torch.no_grad()
def test_a_reference_by_step_at_the_ends_of_steps(tiny_model):
    reference = made.activations(
        torch.arange(4.0)[:, None].expand(4, 32), "states", SITE, step=[0, 1, 1, 2]
    )
    reference = type(reference)(**vars(reference) | {"model_id": model_id(tiny_model)})
    change = mean(on(tiny_model), reference, by="step", ends=(2, 4, 6))
    with attach(tiny_model, change, at=(2, 4)) as attached:
        _, cache = tiny_model.run_with_cache(TOKENS)
    assert cache[SITE.hook][0][:, list(INDEX)][[2, 4]].tolist() == [[0.0] * 3, [1.5] * 3]
    assert attached.fired == (4,)
