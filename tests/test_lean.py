"""The lean passes against the model's own, which `LeanPass.fits` can be made to fall back on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_conformance import GATED, SHAPE, jobs_of
from test_edits import make
from test_engine import EOS

from mechreward.models import engine, prefill
from mechreward.models.capture import Capture
from mechreward.models.engine import Continuation, generate
from mechreward.models.fast_pass import LeanPass
from mechreward.models.linears import Linears
from mechreward.models.row_edits import Edit
from mechreward.models.site import HOOKS, Site

SITES = [Site(layer, kind) for layer in (0, 1) for kind in HOOKS]
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
FITTING: dict[str, tuple[str, dict[str, Any]]] = {
    "one key head": ("Qwen2", {"num_key_value_heads": 1}),
    "tied": ("Qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "biases everywhere": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "scaled positions": (
        "Llama",
        {"rope_parameters": SCALED | {"original_max_position_embeddings": 32}},
    ),
    "wide heads": ("Qwen3", {"head_dim": 16}),
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "moving positions": (
        "Llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    ),
    "another activation": ("Llama", {"hidden_act": "gelu"}),
    "another family": ("Mistral", {}),
    "GPT-2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96}),
}


def build(family: str, more: dict[str, Any]) -> Any:
    import transformers

    torch.manual_seed(0)
    shape = SHAPE if family == "GPT2" else GATED
    config = getattr(transformers, f"{family}Config")(**shape | more)
    kind = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    return getattr(transformers, family + kind)(config).eval()


def slow(monkeypatch: pytest.MonkeyPatch, *args: Any, **kwargs: Any) -> list[Continuation]:
    with monkeypatch.context() as patch:
        patch.setattr(LeanPass, "fits", staticmethod(lambda model: False))
        return generate(*args, **kwargs)


@pytest.mark.parametrize("name", FITTING)
def test_tokens_are_those_of_the_models_own_pass(name: str, monkeypatch: pytest.MonkeyPatch):
    model = build(*FITTING[name])
    for parameter in model.parameters():  # biases and norms begin as zeros and ones
        torch.nn.init.normal_(parameter, std=0.25)
    assert LeanPass.fits(model)
    for a, b in zip(
        generate(model, jobs_of(), eos=EOS, batch=4),
        slow(monkeypatch, model, jobs_of(), eos=EOS, batch=4),
        strict=True,
    ):
        assert a.tokens.tolist() == b.tokens.tolist()
        torch.testing.assert_close(a.logprobs, b.logprobs, atol=1e-5, rtol=1e-5)


def test_every_site_is_read_and_changed_as_by_hooks(tiny_model, monkeypatch: pytest.MonkeyPatch):
    edits = tuple(make(tiny_model, site, seed) for seed, site in enumerate(SITES))
    jobs = jobs_of(edits) + jobs_of()
    capture = Capture(dict.fromkeys(SITES))
    assert LeanPass.fits(tiny_model)
    lean = generate(tiny_model, jobs, eos=EOS, batch=5, capture=capture)
    for a, b in zip(
        lean, slow(monkeypatch, tiny_model, jobs, eos=EOS, batch=5, capture=capture), strict=True
    ):
        assert a.tokens.tolist() == b.tokens.tolist() and a.caught and b.caught
        for site in SITES:
            torch.testing.assert_close(a.caught.x[site], b.caught.x[site], atol=2e-5, rtol=1e-4)


def test_bfloat16_is_as_close_to_float32_as_the_models_own_pass(monkeypatch: pytest.MonkeyPatch):
    def off(said: list[Continuation]) -> float:
        """Of the first tokens, where both drew the same."""
        pairs = [(a, b) for a, b in zip(said, exact, strict=True) if a.tokens[0] == b.tokens[0]]
        assert len(pairs) > 6
        return max(abs(float(a.logprobs[0] - b.logprobs[0])) for a, b in pairs)

    exact = generate(build("Qwen2", {}), jobs_of(), eos=EOS)
    model = build("Qwen2", {}).bfloat16()
    assert (
        off(generate(model, jobs_of(), eos=EOS))
        < 2 * off(slow(monkeypatch, model, jobs_of(), eos=EOS)) + 1e-3
    )


@pytest.mark.parametrize("name", OTHERS)
def test_other_blocks_take_the_models_own_pass(name: str):
    assert not LeanPass.fits(build(*OTHERS[name]))


def test_an_unknown_part_takes_the_models_own_pass():
    model = build("Llama", {})
    assert LeanPass.fits(model)
    model.model.layers[1].adapter = torch.nn.Linear(2, 2)
    assert not LeanPass.fits(model)


def test_dropout_and_quantised_weights_take_the_models_own_pass():
    model = build("Llama", {"attention_dropout": 0.1})
    assert LeanPass.fits(model) and not LeanPass.fits(model.train())
    model = build("Llama", {})
    model.model.layers[1].mlp.up_proj.half()
    assert not LeanPass.fits(model)
    model = build("Llama", {})
    packed = torch.zeros(48, 32, dtype=torch.uint8)
    model.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(packed, requires_grad=False)
    assert not LeanPass.fits(model)


def test_hooks_of_the_user_are_obeyed(tiny_model, tiny_plain):
    """However they were put there: the lean pass steps aside."""

    def silence(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        return tensor * 0

    hook = Site(0, "resid_post").hook
    wanted = [
        one.tokens.tolist()
        for one in generate(tiny_model, jobs_of(), eos=EOS, hooks=[(hook, silence)])
    ]
    assert wanted != [one.tokens.tolist() for one in generate(tiny_model, jobs_of(), eos=EOS)]
    with tiny_model.hooks(fwd_hooks=[(hook, silence)]):
        assert not LeanPass.fits(tiny_model)
        assert [one.tokens.tolist() for one in generate(tiny_model, jobs_of(), eos=EOS)] == wanted
    assert LeanPass.fits(tiny_model) and LeanPass.fits(tiny_plain)
    for place in (
        tiny_plain.model.norm.register_forward_hook,
        tiny_plain.model.register_forward_pre_hook,
    ):
        handle = place(lambda *_: None)
        assert not LeanPass.fits(tiny_plain)
        handle.remove()
    model = build("Qwen2", {})
    model.model.norm.forward = torch.nn.Identity().forward
    assert not LeanPass.fits(model)


@pytest.mark.parametrize("site", SITES, ids=str)
def test_a_pass_taken_up_at_a_layer_is_the_whole_pass(tiny_model, site: Site):
    tokens = torch.randint(1, 20, (3, 9), generator=torch.Generator().manual_seed(0))
    hooks = [(site.hook, lambda x, hook: 1.5 * x + 0.25)]
    lean = LeanPass(tiny_model)
    with torch.no_grad():
        whole = tiny_model.run_with_hooks(tokens, fwd_hooks=hooks)
        _, cache = tiny_model.run_with_cache(tokens)
        streams = lean.streams(tokens)
        found = lean.under(hooks).read(streams[site.layer], site.layer)
    torch.testing.assert_close(found, whole.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(streams[1], cache["blocks.0.hook_resid_post"], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(lean.read(streams[0]), whole, atol=1e-3)


def test_a_hook_elsewhere_is_refused(tiny_model):
    with pytest.raises(ValueError, match="hook_embed is no site"):
        LeanPass(tiny_model, [("hook_embed", print)])


def test_the_engine_takes_it(tiny_model, monkeypatch: pytest.MonkeyPatch):
    def never(*_: Any) -> Any:
        raise AssertionError("the model's own pass was taken")

    for module in (engine, prefill):
        monkeypatch.setattr(module, "forward_step", never)
    generate(tiny_model, jobs_of(), eos=EOS)


def test_weights_that_are_not_packed_give_the_same(tiny_model, monkeypatch: pytest.MonkeyPatch):
    packed = generate(tiny_model, jobs_of(), eos=EOS)
    assert LeanPass(tiny_model).linears[0]["qkv"].packed is not None
    monkeypatch.setattr(Linears, "LARGEST", 0)
    assert LeanPass(tiny_model).linears[0]["qkv"].packed is None
    for a, b in zip(packed, generate(tiny_model, jobs_of(), eos=EOS), strict=True):
        assert a.tokens.tolist() == b.tokens.tolist()
        torch.testing.assert_close(a.logprobs, b.logprobs, atol=1e-5, rtol=1e-5)


def test_weights_trained_between_two_calls_are_the_new_ones():
    """Packed weights are copies: none may outlive its call."""
    model = build("Qwen2", {})
    before = generate(model, jobs_of(), eos=EOS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    after = generate(model, jobs_of(), eos=EOS)
    assert [one.tokens.tolist() for one in before] != [one.tokens.tolist() for one in after]
    whole = torch.cat([jobs_of()[0].trunk[: jobs_of()[0].length], after[0].tokens])
    fresh = model(whole[None]).logits[0, jobs_of()[0].length - 1 : -1].log_softmax(-1)
    torch.testing.assert_close(
        fresh.gather(1, after[0].tokens[:, None])[:, 0], after[0].logprobs, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("site", [Site(1, kind) for kind in HOOKS])
def test_a_change_of_the_prompt_at_the_last_layer_has_fired(
    tiny_model, site: Site, monkeypatch: pytest.MonkeyPatch
):
    """The prefill leaves out what no token needs; what is asked for there is not left out."""
    edit = Edit(
        site, torch.ones(site.width(tiny_model)), torch.ones(site.width(tiny_model)), at=(1,)
    )
    jobs = [job for job in jobs_of((edit,)) if job.length > 2]
    for a, b in zip(
        generate(tiny_model, jobs, eos=EOS),
        slow(monkeypatch, tiny_model, jobs, eos=EOS),
        strict=True,
    ):
        assert a.tokens.tolist() == b.tokens.tolist()
