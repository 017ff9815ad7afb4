"""What a model can do: said when it is loaded, kept by every verb; dropout, and positions that
depend on other rows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from test_conformance import GATED, SHAPE, jobs_of, plain
from test_engine import EOS, assert_same, slowly

from mechreward.base.errors import MechRewardError
from mechreward.bundled.vocabulary import WORDS
from mechreward.causal.effect import CleanText
from mechreward.causal.patching import logit_difference, patching_sweep
from mechreward.experiments.choice import find
from mechreward.models.ability import evaluation, limits, reach_of
from mechreward.models.engine import Job, Policy, generate
from mechreward.models.identity import model_id
from mechreward.models.load import load
from mechreward.models.row_edits import forward_arms
from mechreward.models.site import HOOKS, Site, all_sites
from mechreward.probing.activations import forward, record
from mechreward.probing.rankings import weight_magnitude
from mechreward.probing.surface import surface
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts, Trajectory
from mechreward.tasks import Verdict

EXPERTS = GATED | {
    "num_local_experts": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
}
LATENT = {
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
OLD = {"vocab_size": len(WORDS), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
OLD_GPT = OLD | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96, "n_inner": 80}
SCAN = OLD | {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 2}
HYBRID = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
# Class, config, the kinds of sites of layers 0 and 1, the MLP's widths, whether it can be sampled.
ALL, PARALLEL = "pre mid post mlp", "pre post mlp"
MODELS: dict[str, tuple[dict[str, Any], tuple[str, str], tuple[int, int], bool]] = {
    "MixtralForCausalLM": (EXPERTS, ("pre mid post", "pre mid post"), (0, 0), True),
    "Qwen2MoeForCausalLM": (EXPERTS, ("pre mid post", "pre mid post"), (0, 0), True),
    "Qwen3MoeForCausalLM": (
        EXPERTS | {"head_dim": 8},
        ("pre mid post", "pre mid post"),
        (0, 0),
        True,
    ),
    "DeepseekV3ForCausalLM": (EXPERTS | LATENT, (ALL, "pre mid post"), (48, 0), True),
    "MambaForCausalLM": (SCAN, ("pre post", "pre post"), (0, 0), False),
    "Mamba2ForCausalLM": (
        SCAN | {"num_heads": 8, "head_dim": 8, "n_groups": 1},
        ("pre post", "pre post"),
        (0, 0),
        False,
    ),
    "BambaForCausalLM": (GATED | HYBRID | {"attn_layer_indices": [1]}, (ALL, ALL), (48, 48), False),
    "Lfm2ForCausalLM": (
        GATED | {"layer_types": ["conv", "full_attention"]},
        (ALL, ALL),
        (256, 256),
        False,
    ),
    "OPTForCausalLM": (
        SHAPE | {"ffn_dim": 80, "word_embed_proj_dim": 32},
        (ALL, ALL),
        (80, 80),
        True,
    ),
    "XGLMForCausalLM": (
        OLD
        | {"d_model": 32, "ffn_dim": 80, "num_layers": 2, "attention_heads": 4}
        | {"max_position_embeddings": 96},
        (ALL, ALL),
        (80, 80),
        True,
    ),
    "FalconForCausalLM": (SHAPE | {"ffn_hidden_size": 80}, (PARALLEL, PARALLEL), (80, 80), True),
    "GPTNeoXForCausalLM": (SHAPE | {"intermediate_size": 80}, (PARALLEL, PARALLEL), (80, 80), True),
    "PhiForCausalLM": (
        GATED | {"num_key_value_heads": 4},
        (PARALLEL, PARALLEL),
        (48, 48),
        True,
    ),
    "GPTJForCausalLM": (OLD_GPT | {"rotary_dim": 4}, (PARALLEL, PARALLEL), (80, 80), True),
    "GPT2LMHeadModel": (OLD_GPT, (ALL, ALL), (80, 80), True),
}
TEXT = torch.arange(4, 24)


def build(name: str, shape: dict[str, Any]) -> Any:
    import transformers

    torch.manual_seed(3)
    cls = getattr(transformers, name)
    return cls(cls.config_class(**shape)).eval()


def loaded(bare: Any, folder: Path) -> tuple[Any, list[str]]:
    """The model, and what was said of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = load(tiny.save(bare, folder))
    words = [str(warning.message) for warning in caught]
    return model, [line for line in words if line.startswith(f"{folder.name}: ")]


@pytest.fixture(scope="module", params=MODELS)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Any, Any, list[str]]:
    bare = build(request.param, MODELS[request.param][0])
    return request.param, bare, *loaded(bare, tmp_path_factory.mktemp("models") / request.param)


def rollouts_of(model: Any) -> Rollouts:
    """As from elsewhere: nothing is sampled."""
    problem = tiny.Even().problems("train", 1)[0]
    run = Trajectory(
        problem.id, TEXT, 8, (7, 12, 19), Verdict("correct", ""), torch.zeros(12), True
    )
    return Rollouts((run,), (problem,), Policy(), model_id(model), 0)


@torch.no_grad()
def test_a_site_is_there_with_its_width_or_says_why_not(case):
    name, _, model, _ = case
    _, kinds, widths, _ = MODELS[name]
    seen: dict[str, torch.Tensor] = {}
    for layer in (0, 1):
        possible = set(kinds[layer].split())
        for kind in HOOKS:
            site = Site(layer, kind)
            if kind.removeprefix("resid_") not in possible:
                with pytest.raises(MechRewardError, match=f"no site {site}: .*this layer has"):
                    record(model, rollouts_of(model), [site], progress=False)
                continue
            assert site.check(model) is site
            hook = (site.hook, lambda x, hook, site=site: seen.__setitem__(str(site), x))
            with model.hooks(fwd_hooks=[hook]):
                model(TEXT[None])
            if str(site) in seen:
                assert seen[str(site)].shape == (1, 20, site.width(model))
        if widths[layer]:
            assert Site(layer, "mlp").width(model) == widths[layer]


def test_what_works_is_said_in_one_line(case):
    name, _, model, lines = case
    _, kinds, _, sampled = MODELS[name]
    if kinds == (ALL, ALL) and sampled:
        assert lines == [] and limits(model) == ""
        return
    (line,) = lines
    assert "\n" not in line and "what works: sites resid_pre" in line
    assert ("no rollouts" in line) == (not sampled)
    assert ("no site resid_mid" in line) == ("mid" not in kinds[0])
    assert ("no site mlp" in line) == ("mlp" not in kinds[1])
    if "mlp" in kinds[0] and "mlp" not in kinds[1]:
        assert "no site mlp in layer 1 (" in line and "mlp elsewhere" in line


def test_a_hook_point_that_shows_something_else_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    width = Site.width
    monkeypatch.setattr(
        Site, "width", lambda site, model: width(site, model) + (str(site) == "1.resid_post")
    )
    _, (line,) = loaded(build("GPT2LMHeadModel", OLD_GPT), tmp_path / "odd")
    assert "no site resid_post in layer 1 (its hook point shows another)" in line
    assert "what works: sites resid_pre, resid_mid, resid_post elsewhere, mlp and roll" in line


def test_a_model_that_keeps_no_keys_and_values_cannot_be_sampled():
    """GPT-1 passes over a cache that it is given."""
    shape = {key: OLD_GPT[key] for key in OLD_GPT if key != "n_inner"}
    with pytest.raises(MechRewardError, match="keeps no keys and values"):
        generate(build("OpenAIGPTLMHeadModel", shape), jobs_of(), eos=EOS)


def test_a_mask_of_ones_that_changes_something_is_refused(tmp_path: Path):
    """As in the bridge of GPT-1, whose recordings would be wrong."""
    shape = {key: OLD_GPT[key] for key in OLD_GPT if key != "n_inner"}
    folder = tiny.save(build("OpenAIGPTLMHeadModel", shape), tmp_path / "first")
    with pytest.raises(MechRewardError, match="other logits than plain HuggingFace"):
        load(folder)


def test_rollouts_are_those_of_huggingface_or_refused(case):
    name, bare, model, _ = case
    if MODELS[name][3]:
        wanted = [slowly(plain(bare), job, Policy()) for job in jobs_of()[:4]]
        assert_same(generate(model, jobs_of()[:4], eos=EOS, batch=3), wanted)
        return
    with pytest.raises(MechRewardError, match="cannot be sampled from here: "):
        generate(model, jobs_of(), eos=EOS)


def test_rollouts_of_elsewhere_are_recorded(case):
    _, _, model, _ = case
    site = Site(1, "resid_pre")
    acts = record(model, rollouts_of(model), site, rows="tokens", progress=False)[site]
    with torch.no_grad():
        wanted = model.run_with_cache(TEXT[None])[1][site.hook][0]
    torch.testing.assert_close(acts.x, wanted, atol=1e-5, rtol=1e-5)


def test_units_of_experts_are_refused_and_the_stream_is_not(tmp_path: Path):
    model, _ = loaded(build("MixtralForCausalLM", EXPERTS), tmp_path / "experts")
    with pytest.raises(MechRewardError, match=r"no site 0\.mlp: its MLP is a mixture of experts"):
        all_sites(model)
    with pytest.raises(MechRewardError, match=r"this layer has 0\.resid_pre, 0\.resid_mid, 0\.r"):
        find(model, tiny.Even(), "mlp", progress=False)
    assert len(all_sites(model, ("resid_post",))) == 2
    with pytest.raises(MechRewardError, match=r"reads 0\.resid_post has no W_in"):
        weight_magnitude(model, Site(0, "resid_post"))  # attention alone would be half of it
    assert weight_magnitude(model, Site(1, "resid_post")).shape == (32,)  # the unembedding


@pytest.mark.parametrize(
    ("name", "shape"), [("BertForMaskedLM", SHAPE), ("T5ForConditionalGeneration", {"d_model": 32})]
)
def test_what_does_not_read_from_left_to_right_is_refused(
    name: str, shape: dict[str, Any], tmp_path: Path
):
    size = {"num_layers": 1, "num_hidden_layers": 1, "d_ff": 8, "intermediate_size": 8}
    folder = tiny.save(build(name, shape | size), tmp_path / "model")
    with pytest.raises(MechRewardError, match="no causal language model"):
        load(folder)


# Dropout


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """With dropout wherever GPT-2 has it."""
    bare = build("GPT2LMHeadModel", OLD_GPT | dict.fromkeys(("resid_pdrop", "attn_pdrop"), 0.5))
    return load(tiny.save(bare, tmp_path_factory.mktemp("models") / "forgetful"))


def measured(model: Any) -> list[torch.Tensor]:
    """What every verb that runs the model gives."""
    problems = tiny.Even().problems("train", 3)
    runs = sample(model, problems, seed=3, progress=False)
    clean = TEXT
    corrupted = TEXT.flip(0)
    sites = [Site(0, "resid_post")]
    sweep = patching_sweep(
        model, clean, corrupted, sites, logit_difference(7, 90), positions=[3], progress=False
    )
    return [
        *(run.tokens for run in runs),
        record(model, runs, "1.mlp", progress=False)["1.mlp"].x,
        torch.from_numpy(surface(model, runs)),
        CleanText(model, runs).logprobs,
        forward_arms(model, TEXT, [()]),
        torch.from_numpy(sweep.metric),
        forward(model, [TEXT], sites, 1)[sites[0]],
    ]


def test_every_verb_measures_without_dropout_and_gives_the_mode_back(forgetful):
    wanted = measured(forgetful)
    forgetful.train()
    kept = forgetful.original_model.transformer.h[1]
    kept.eval()
    modes = [module.training for module in forgetful.original_model.modules()]
    assert any(modes) and not all(modes)
    for mine, theirs in zip(measured(forgetful), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert [module.training for module in forgetful.original_model.modules()] == modes
    with evaluation(forgetful, 1):
        assert not any(module.training for module in forgetful.original_model.modules())
    with pytest.raises(ZeroDivisionError), evaluation(forgetful, 1):
        _ = 1 / 0
    assert [module.training for module in forgetful.original_model.modules()] == modes
    forgetful.eval()


# Positions that depend on the batch

MOVING = {
    "dynamic": ("LlamaForCausalLM", {"factor": 4.0}, {"max_position_embeddings": 32}),
    "longrope": (
        "Phi3ForCausalLM",
        {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4},
        {"original_max_position_embeddings": 32},
    ),
}


@pytest.fixture(params=MOVING)
def moving(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any, list[str]]:
    name, rope, shape = MOVING[request.param]
    rope = rope | {"rope_type": request.param, "rope_theta": 1e4}
    if request.param == "longrope":
        rope |= shape
    bare = build(name, GATED | shape | {"rope_parameters": rope})
    return bare, *loaded(bare, tmp_path / "moving")


def test_texts_end_where_rows_would_depend_on_each_other(moving):
    bare, model, lines = moving
    assert reach_of(model) == reach_of(bare) == 32
    assert ["no texts beyond 32 tokens" in line for line in lines] == [True]
    short = [job for job in jobs_of() if job.length + job.max_new <= 32]
    assert len(short) > 5
    wanted = [slowly(plain(bare), job, Policy()) for job in short]
    for batch in (1, 4):
        assert_same(generate(model, short, eos=EOS, batch=batch), wanted)
    with pytest.raises(
        MechRewardError, match=r"end at 32 tokens|more than the 32 that the model's"
    ):
        generate(model, [*short, Job(TEXT, 20, 13, ("long",))], eos=EOS)
    long = torch.arange(4, 44)
    for run in (
        lambda: forward(model, [TEXT, long], [Site(0, "resid_post")], 1),
        lambda: forward_arms(model, long, [()]),
    ):
        with pytest.raises(MechRewardError, match="end at 32 tokens, 40 were asked for"):
            run()


def test_most_positions_depend_on_nobody(tiny_model, tiny_plain):
    assert reach_of(tiny_model) is None and reach_of(tiny_plain) is None
