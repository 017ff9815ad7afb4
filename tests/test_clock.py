"""Positions of every pass against counting by hand, through every way of calling a model."""

from __future__ import annotations

import pytest
import torch
from transformers.cache_utils import DynamicCache

from mechreward.base.errors import MechRewardError
from mechreward.models.positions import Clock
from mechreward.models.site import Site

TOKENS = torch.tensor([[1, 5, 40, 8, 60], [1, 6, 33, 9, 70]])


def seen(model, run, layer: int = 1) -> list[list[list[int]]]:
    """Positions at a layer in every pass that `run` makes."""
    found = []
    with Clock(model, [0, layer]) as clock:

        def hook(tensor, hook):
            found.append(clock.positions(layer, *tensor.shape[:2], tensor.device).tolist())

        with model.hooks(fwd_hooks=[(Site(layer, "resid_pre").hook, hook)]), torch.no_grad():
            run()
    return found


def watchers(model) -> int:
    return sum(len(module._forward_pre_hooks) for module in model.original_model.modules())


def test_a_whole_pass_begins_at_0(tiny_model):
    assert seen(tiny_model, lambda: tiny_model(TOKENS)) == [[[0, 1, 2, 3, 4]] * 2]
    assert seen(tiny_model, lambda: tiny_model(TOKENS, stop_at_layer=2)) == [[[0, 1, 2, 3, 4]] * 2]


def test_a_cache_moves_what_comes_after_it(tiny_model):
    cache = DynamicCache()

    def run():
        tiny_model(TOKENS[:, :3], past_key_values=cache)
        tiny_model(TOKENS[:, 3:], past_key_values=cache)
        tiny_model(TOKENS[:, :1], past_key_values=cache, attention_mask=torch.ones(2, 6).long())

    assert seen(tiny_model, run) == [[[0, 1, 2]] * 2, [[3, 4]] * 2, [[5]] * 2]


@pytest.mark.parametrize("cached", [True, False])
def test_generate_counts_on(tiny_model, cached: bool):
    def run():
        tiny_model.generate(
            TOKENS,
            max_new_tokens=3,
            stop_at_eos=False,
            verbose=False,
            do_sample=False,
            use_past_kv_cache=cached,
        )

    whole = [[list(range(n))] * 2 for n in (5, 6, 7)]
    assert seen(tiny_model, run) == (whole if not cached else [whole[0], [[5]] * 2, [[6]] * 2])


def test_padding_is_no_position(tiny_model):
    left = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    assert seen(tiny_model, lambda: tiny_model(TOKENS, attention_mask=left)) == [
        [[-1, -1, 0, 1, 2], [0, 1, 2, 3, 4]]
    ]
    right = left.flip(1)
    assert seen(tiny_model, lambda: tiny_model(TOKENS, attention_mask=right)) == [
        [[0, 1, 2, -1, -1], [0, 1, 2, 3, 4]]
    ]


def test_texts_of_different_lengths_are_generated_from_with_their_own_counts(tiny_model):
    texts = ["countdown 5 from 6", "countdown 5"]
    lengths = [len(tiny_model.to_tokens(text)[0]) for text in texts]
    passes = seen(
        tiny_model,
        lambda: tiny_model.generate(texts, max_new_tokens=2, stop_at_eos=False, verbose=False),
    )
    gap = lengths[0] - lengths[1]
    assert passes[0] == [list(range(lengths[0])), [-1] * gap + list(range(lengths[1]))]
    assert passes[1] == [[lengths[0]], [lengths[1]]]


def test_arguments_without_names_are_read(tiny_model):
    mask = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
    assert seen(tiny_model, lambda: tiny_model.original_model(TOKENS, mask))[0][0] == [
        -1,
        0,
        1,
        2,
        3,
    ]


def test_what_it_refuses_and_that_nothing_is_left(tiny_model, tiny_plain):
    before = watchers(tiny_model)
    four = torch.zeros(2, 1, 5, 5)
    with pytest.raises(MechRewardError, match=r"one of shape \[2, 1, 5, 5\]"):
        seen(tiny_model, lambda: tiny_model(TOKENS, attention_mask=four))
    cache = DynamicCache()
    tiny_model(TOKENS, past_key_values=cache)
    with pytest.raises(
        MechRewardError, match=r"5 cached and 2 new columns has one of shape \[2, 2\]"
    ):
        seen(
            tiny_model,
            lambda: tiny_model(
                TOKENS[:, :2], past_key_values=cache, attention_mask=torch.ones(2, 2)
            ),
        )
    with pytest.raises(MechRewardError, match="is no TransformerBridge and no HookedTransformer"):
        Clock(tiny_plain, [0])
    with (
        pytest.raises(MechRewardError, match="does not tell its positions"),
        Clock(tiny_model, [0]) as clock,
    ):
        clock.positions(0, 1, 1, torch.device("cpu"))
    assert watchers(tiny_model) == before
