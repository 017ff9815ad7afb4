"""One contract for every kind of TransformerLens model and many architectures: the engine against
slow, plain passes.

Runs on whatever kinds the installed transformer-lens offers: HookedTransformer up to version 3,
TransformerBridge with and without compatibility mode.
"""

from __future__ import annotations

import random
from importlib.metadata import version
from typing import Any

import pytest
import tiny
import torch
from test_attach import GREEDY, INDEX, PUSH, TOKENS, by_hand, on, slow
from test_edits import make, plain_hooks
from test_engine import assert_same, slowly
from test_intervene import every

from mechreward.base.errors import MechRewardError
from mechreward.bundled.vocabulary import WORDS
from mechreward.causal.attach import attach
from mechreward.causal.intervene import steer, zero
from mechreward.causal.patching import logit_difference, patching_sweep
from mechreward.models.engine import Job, Policy, generate
from mechreward.models.identity import model_id
from mechreward.models.load import load
from mechreward.models.site import HOOKS, Site
from mechreward.probing.activations import forward, record
from mechreward.rollouts.sample import sample

OLD = int(version("transformer-lens").split(".")[0]) < 4
KINDS = ["bridge", "compatible", *(["hooked"] if OLD else [])]
EOS = WORDS.index("<eos>")
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
}
SHAPE |= {
    "vocab_size": len(WORDS),
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.25,
}
GATED = SHAPE | {"num_key_value_heads": 2, "intermediate_size": 48}
WINDOW = {"sliding_window": 6, "head_dim": 8, "query_pre_attn_scalar": 8}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2", GATED),
    "qwen3": ("Qwen3", GATED | {"head_dim": 8}),
    "llama": ("Llama", GATED),
    "phi3": ("Phi3", GATED),
    "gemma2": ("Gemma2", GATED | WINDOW),
    "gemma3": ("Gemma3", GATED | WINDOW),
    "gpt2": ("GPT2", SHAPE | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96}),
    "gptneox": ("GPTNeoX", SHAPE | {"intermediate_size": 64}),
}


def jobs_of(edits: tuple[Any, ...] = ()) -> list[Job]:
    """Ragged trunks and cuts, so that rows are padded, leave, and enter."""
    rng = random.Random(1)
    trunks = [
        torch.tensor([1, *(rng.randrange(4, len(WORDS)) for _ in range(n))]) for n in (3, 11, 20)
    ]
    return [
        Job(trunks[i % 3], len(trunks[i % 3]) - i % 2, 4 + 3 * (i % 4), ("c", i), edits)
        for i in range(9)
    ]


def plain(model: Any) -> Any:
    @torch.no_grad()
    def run(tokens: torch.Tensor) -> torch.Tensor:
        return model(tokens[None]).logits[0].float()

    return run


def hooked(model: Any, hooks: Any) -> Any:
    @torch.no_grad()
    def run(tokens: torch.Tensor) -> torch.Tensor:
        return model.run_with_hooks(tokens[None], fwd_hooks=hooks)[0].float()

    return run


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tiny_folder) -> Any:
    found = load(tiny_folder, kind="hooked" if request.param == "hooked" else "bridge")
    if request.param == "compatible":
        found.enable_compatibility_mode(disable_warnings=True)
    return found


@pytest.mark.parametrize("batch", [2, 256])
def test_answers_are_those_of_the_plain_model(model, tiny_plain, batch: int):
    wanted = [slowly(plain(tiny_plain), job, Policy()) for job in jobs_of()]
    assert_same(generate(model, jobs_of(), eos=EOS, batch=batch), wanted)


@pytest.mark.parametrize("kind", HOOKS)
def test_edits_in_a_batch_are_run_with_hooks_one_by_one(model, kind: str):
    edits = (make(model, Site(0, kind), 1), make(model, Site(1, kind), 2, (3, 12, 21)))
    jobs = [job for i, job in enumerate(jobs_of(edits)) if i % 3] + jobs_of()[:3]
    wanted = [slowly(hooked(model, plain_hooks(job.edits)), job, Policy()) for job in jobs]
    assert_same(generate(model, jobs, eos=EOS, batch=4), wanted)
    assert tiny.no_hooks_left(model)


@pytest.mark.parametrize("kind", HOOKS)
@torch.no_grad()
def test_every_operation_is_the_run_from_the_edited_activation(model, kind: str):
    site = Site(1, kind)
    _, clean = model.run_with_cache(TOKENS)
    for change in every(model, site, 0.7):
        edited = change(clean[site.hook])
        wanted = model.run_with_hooks(TOKENS, fwd_hooks=[(site.hook, lambda x, hook, e=edited: e)])
        assert torch.equal(model.run_with_hooks(TOKENS, fwd_hooks=change.fwd_hooks()), wanted)
        with attach(model, change) as attached:
            torch.testing.assert_close(model(TOKENS), wanted, atol=1e-5, rtol=1e-5)
        assert attached.fired == (TOKENS.numel(),)
        assert tiny.no_hooks_left(model)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("kind", HOOKS)
@torch.no_grad()
def test_attached_generation_is_that_of_the_whole_prefix_run_again(model, kind: str, cached: bool):
    site, at = Site(0, kind), (3, 8, 9)
    with attach(model, steer(on(model, site), PUSH), at=at) as attached:
        said = model.generate(TOKENS, max_new_tokens=5, use_past_kv_cache=cached, **GREEDY)
    assert torch.equal(said, slow(model, TOKENS, 5, [by_hand(at, site)]))
    assert attached.fired == (2 * len(at),) or not cached
    assert tiny.no_hooks_left(model)


@torch.no_grad()
def test_attached_padding_is_no_position(model):
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), TOKENS], 1)
    with attach(model, steer(on(model), PUSH), at=(2, 5)):
        found = model(padded, attention_mask=(padded > 0).long())
    wanted = model.run_with_hooks(TOKENS, fwd_hooks=[by_hand((2, 5))])
    torch.testing.assert_close(found[:, 3:], wanted, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_plain_hooks_stay_on_while_generating(model):
    change = zero(on(model))

    def hook(x: torch.Tensor, hook: Any) -> torch.Tensor:
        x = x.clone()
        x[..., list(INDEX)] = 0
        return x

    with model.hooks(fwd_hooks=change.fwd_hooks()):
        said = model.generate(TOKENS, max_new_tokens=5, **GREEDY)
    assert torch.equal(said, slow(model, TOKENS, 5, [(change.neurons.site.hook, hook)]))
    assert tiny.no_hooks_left(model)


@torch.no_grad()
def test_plain_hooks_of_every_operation_generate_with_a_cache_what_they_do_without(model):
    """What depends on the position refuses single tokens, but for a resample without `by`: it takes
    the next rows."""
    for change in every(model, Site(0, "resid_post"), 0.7):
        said = []
        for cached in (True, False):
            with model.hooks(fwd_hooks=change.fwd_hooks()):
                if change.by_position and change.op != "resample" and cached:
                    with pytest.raises(MechRewardError, match="use attach"):
                        model.generate(TOKENS, max_new_tokens=5, use_past_kv_cache=True, **GREEDY)
                    continue
                said.append(
                    model.generate(TOKENS, max_new_tokens=5, use_past_kv_cache=cached, **GREEDY)
                )
        assert all(torch.equal(one, said[0]) for one in said), change.op
    assert tiny.no_hooks_left(model)


def test_nothing_is_left_after_an_error(model):
    before = sum(len(module._forward_pre_hooks) for module in model.modules())
    with (
        pytest.raises(MechRewardError, match="never fired"),
        attach(model, zero(on(model)), at=[90]),
    ):
        model(TOKENS)
    for change in every(model, Site(0, "resid_post"), 0.7):
        with pytest.raises(ZeroDivisionError), attach(model, change):
            _ = 1 / 0
        with pytest.raises(ZeroDivisionError), model.hooks(fwd_hooks=change.fwd_hooks()):
            _ = 1 / 0
    assert tiny.no_hooks_left(model)
    assert sum(len(module._forward_pre_hooks) for module in model.modules()) == before


def test_the_engine_under_attached_interventions(model):
    """Rows that stand at different positions in one batch, moved about, against the same change as
    an edit."""
    at, change = (3, 8, 12, 21), steer(on(model), PUSH)
    with attach(model, change, at=at):
        attached = generate(model, jobs_of(), eos=EOS, batch=4)
    assert_same(attached, generate(model, jobs_of((change.edit(at),)), eos=EOS, batch=4))


@torch.no_grad()
def test_a_sweep_is_run_with_hooks_one_by_one(model):
    clean, corrupted = TOKENS
    metric = logit_difference(7, 90)
    sites = [str(Site(layer, kind)) for layer in (0, 1) for kind in HOOKS]
    sweep = patching_sweep(
        model, clean, corrupted, sites, metric, positions=[1, 2, 6], progress=False
    )
    _, cache = model.run_with_cache(clean[None])
    for row, site in enumerate(sweep.sites):
        for column, position in enumerate(sweep.positions):

            def hook(
                x: torch.Tensor, hook: Any, site: Site = site, position: int = position
            ) -> torch.Tensor:
                x = x.clone()
                x[:, position] = cache[site.hook][:, position]
                return x

            logits = model.run_with_hooks(corrupted[None], fwd_hooks=[(site.hook, hook)])[0]
            assert sweep.metric[row, column] == pytest.approx(metric(logits), abs=1e-4)
    assert tiny.no_hooks_left(model)


@pytest.mark.parametrize("rows", ["states", "steps", "tokens"])
def test_records_are_run_with_cache(model, rows: Any):
    runs = sample(model, tiny.Even().problems("train", 6), seed=3, progress=False)
    sites = [Site(layer, kind) for layer in (0, 1) for kind in HOOKS]
    for site, acts in record(model, runs, sites, rows=rows, progress=False).items():
        hook = Site.parse(site).hook
        for i, run in enumerate(runs):
            cache = model.run_with_cache(run.tokens[None])[1]
            mine, alone = acts.x[acts.trajectory == i], cache[hook][0].float()
            at = {"tokens": range(len(run.tokens)), "states": run.step_ends}.get(
                rows, range(1, run.steps + 1)
            )
            wanted = torch.stack(
                [alone[run.span(t)].mean(0) if rows == "steps" else alone[t] for t in at]
            )
            torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-5)


def test_the_processing_state_is_known(model, tiny_folder):
    raw = model_id(load(tiny_folder))
    mine = model_id(model)
    if mine.processing == raw.processing:
        assert mine.weights == raw.weights
    else:
        with pytest.raises(MechRewardError, match=r"processing|weights"):
            mine.check(raw, "neuron set")


@pytest.mark.skipif(OLD, reason="this transformer-lens has HookedTransformer")
def test_a_missing_hooked_transformer_is_told(tiny_folder):
    with pytest.raises(MechRewardError, match=r'pip install "transformer-lens<4"'):
        load(tiny_folder, kind="hooked")


@pytest.mark.skipif(not OLD, reason="needs HookedTransformer")
@pytest.mark.parametrize("name", ["countdown-base", "countdown-rl", "mixed-rl"])
def test_bundled_models_are_the_same_as_either_kind(name: str):
    tokens = torch.tensor([[1, 5, 60, 7, 33, 35, 4]])
    one, other = (load(name, kind=kind)(tokens) for kind in ("bridge", "hooked"))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_an_unknown_kind_is_told(tiny_folder):
    with pytest.raises(
        MechRewardError, match="unknown kind of model 'hoked'; did you mean 'hooked'"
    ):
        load(tiny_folder, kind="hoked")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any]:
    """A tiny random model as a bridge, and the same as plain HuggingFace."""
    import transformers

    name, shape = ARCHITECTURES[request.param]
    torch.manual_seed(3)
    config = getattr(transformers, "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config")(
        **shape
    )
    bare = getattr(transformers, "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")(
        config
    ).eval()
    folder = tiny.save(bare, tmp_path_factory.mktemp(request.param) / "model")
    return load(folder), bare


def test_every_architecture_answers_like_huggingface(architecture):
    model, bare = architecture
    wanted = [slowly(plain(bare), job, Policy()) for job in jobs_of()]
    assert_same(generate(model, jobs_of(), eos=EOS, batch=4), wanted)


@pytest.mark.parametrize("kind", HOOKS)
def test_every_architecture_is_captured_and_edited(architecture, kind: str):
    model, _ = architecture
    site = Site(1, kind)
    if site.hook not in model.hook_dict:
        with pytest.raises(MechRewardError, match=kind):
            site.check(model)
        return
    tokens = jobs_of()[2].trunk
    caught = forward(model, [tokens, tokens[:5]], [site], 2)[site]
    with torch.no_grad():
        alone = model.run_with_cache(tokens[None])[1][site.hook][0]
    torch.testing.assert_close(caught[0], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(caught[1, :5], alone[:5], atol=1e-5, rtol=1e-5)
    width = alone.shape[-1]
    edit = make(model, site, 4) if site.width(model) == width else None
    assert edit is not None, f"{site.width(model)} neurons were expected; the hook carries {width}"
    wanted = [slowly(hooked(model, plain_hooks((edit,))), job, Policy()) for job in jobs_of()[:5]]
    assert_same(generate(model, jobs_of((edit,))[:5], eos=EOS, batch=3), wanted)


@torch.no_grad()
def test_every_architecture_tells_its_positions(architecture):
    model, _ = architecture
    change, at = steer(on(model), PUSH), (3, 8, 9)
    with attach(model, change, at=at) as attached:
        said = model.generate(TOKENS, max_new_tokens=5, **GREEDY)
    assert torch.equal(said, slow(model, TOKENS, 5, [by_hand(at)]))
    assert attached.fired == (6,)


def test_an_edit_is_not_seen_by_what_was_caught_before_it(model):
    """resid_post of a layer and resid_pre of the next share their memory: an edit in place would
    reach back."""
    runs = sample(model, tiny.Even().problems("train", 3), seed=3, progress=False)
    hooks = plain_hooks((make(model, Site(1, "resid_pre"), 1),))
    both = ["0.resid_post", "1.resid_pre"]
    clean = record(model, runs, both, rows="tokens", progress=False)
    edited = record(model, runs, both, rows="tokens", hooks=hooks, progress=False)
    assert torch.equal(edited["0.resid_post"].x, clean["0.resid_post"].x)
    assert not torch.equal(edited["1.resid_pre"].x, clean["1.resid_pre"].x)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "compatible"])
def test_half_precision_is_computed_in_float32_and_given_back(tiny_folder, kind: str):
    model = load(tiny_folder, kind=kind, dtype=torch.bfloat16)
    site, seen = Site(0, "resid_post"), []
    edit = make(model, site, 1)
    after = (Site(1, "resid_pre").hook, lambda x, hook: seen.append(x.dtype))
    said = generate(model, jobs_of((edit,)), eos=EOS, batch=4, hooks=[after])
    assert set(seen) == {torch.bfloat16} and all(len(one.tokens) for one in said)
    runs = sample(model, tiny.Even().problems("train", 3), seed=3, progress=False)
    acts = record(model, runs, site, rows="tokens", progress=False)[site]
    plain = torch.cat([model.run_with_cache(run.tokens[None])[1][site.hook][0] for run in runs])
    assert acts.x.dtype == torch.float32 and plain.dtype == torch.bfloat16
    torch.testing.assert_close(acts.x, plain.float(), atol=0.05, rtol=0.05)
