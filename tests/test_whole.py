"""Weights that are not whole, other logits than plain HuggingFace's, names that are no model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_conformance import GATED
from test_lean import build

from mechreward.base.errors import MechRewardError
from mechreward.models import load as adapter
from mechreward.models.plain import Plain

Tensors = dict[str, torch.Tensor]
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    """A model folder to damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def rewrite(folder: Path, change: Callable[[Tensors], Any]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def without(name: str) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.pop(name)


def having(name: str, *shape: int) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.update({name: torch.zeros(shape)})


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without(UP), f"missing: {UP}"),
        (without("lm_head.weight"), r"missing: lm_head\.weight"),
        (without("model.norm.weight"), r"missing: model\.norm\.weight"),
        (having("model.layers.2.mlp.up_proj.weight", 48, 32), r"left over: model\.layers\.2\.mlp"),
        (having("v_head.weight", 1, 32), r"left over: v_head\.weight"),
        (having(UP, 47, 32), rf"of another shape: {UP} \(\[47, 32\] for \[48, 32\]\)"),
        (
            lambda tensors: tensors.update({f"{name}_": tensors.pop(name) for name in [*tensors]}),
            r"missing: .*, \.\.\. \(\d+ in all\); left over: .*_, \.\.\. \(\d+ in all\)",
        ),
    ],
)
def test_tensors_that_are_not_those_of_the_config_are_named(
    copy: Path, change: Callable[[Tensors], Any], words: str, check: bool
):
    rewrite(copy, change)
    with pytest.raises(MechRewardError, match=words) as caught:
        adapter.load(copy, check=check)
    assert "\n" not in str(caught.value) and str(copy) in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"num_hidden_layers": 3}, {"num_hidden_layers": 1}, {"intermediate_size": 40}]
)
def test_a_config_of_another_model_is_refused(copy: Path, change: dict[str, Any]):
    config = json.loads((copy / "config.json").read_text())
    config.pop("layer_types", None)
    (copy / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(MechRewardError, match="its tensors are not those of its config"):
        adapter.load(copy)


def test_what_may_be_missing_is_no_damage(tmp_path: Path):
    """Tied embeddings are written once, and the numbers of an old file's rotation are not read."""
    bare = build("Llama", GATED | {"tie_word_embeddings": True})
    folder = tiny.save(bare, tmp_path / "tied")
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    rewrite(folder, having("model.layers.0.self_attn.rotary_emb.inv_freq", 4))
    tokens = torch.arange(4, 24)[None]
    with torch.no_grad():
        torch.testing.assert_close(adapter.load(folder)(tokens), bare(tokens).logits)


def other(*args: Any, **place: Any) -> Any:
    """The bridge of a library that changes a weight."""
    model = adapter._load_bridge(*args, **place)
    with torch.no_grad():
        next(model.parameters())[7:9] *= 1.1
    return model


def test_other_logits_than_huggingface_are_refused(copy: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(adapter.LOADERS, "bridge", other)
    with pytest.raises(MechRewardError, match=r"other logits than plain HuggingFace \(off by \d"):
        adapter.load(copy)
    adapter.load(copy, check=False)


def test_other_logits_behind_a_cache_are_refused(copy: Path, monkeypatch: pytest.MonkeyPatch):
    step = adapter.forward_step

    def forgets(model: Any, tokens: Any, mask: Any, cache: Any) -> Any:
        return step(model, tokens, mask[:, -tokens.shape[1] :], None)

    monkeypatch.setattr(adapter, "forward_step", forgets)
    with pytest.raises(MechRewardError, match="token by token as TransformerBridge it gives other"):
        adapter.load(copy)


def test_weights_that_are_no_numbers_are_refused(copy: Path):
    rewrite(copy, lambda tensors: tensors[UP].fill_(float("nan")))
    with pytest.raises(MechRewardError, match="other logits than plain HuggingFace"):
        adapter.load(copy)


def test_nothing_is_read_where_nothing_is_compared(copy: Path, monkeypatch: pytest.MonkeyPatch):
    from transformers import Qwen2ForCausalLM

    passes = []
    run = Qwen2ForCausalLM.forward

    @wraps(run)
    def counted(*args: Any, **kwargs: Any) -> Any:
        passes.append(1)
        return run(*args, **kwargs)

    monkeypatch.setattr(Qwen2ForCausalLM, "forward", counted)
    adapter.load(copy, check=False)
    assert not passes
    adapter.load(copy)
    assert len(passes) == 4  # plain, as a bridge, and twice behind a cache


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_passes_the_comparison(copy: Path, dtype: torch.dtype):
    assert adapter.load(copy, dtype=dtype).cfg.dtype == dtype


def test_a_short_context_is_not_exceeded(tmp_path: Path):
    bare = build("GPT2", {"n_positions": 8, "max_position_embeddings": 8})
    assert adapter.load(tiny.save(bare, tmp_path / "short")).cfg.n_ctx == 8
    plain = Plain(reads=True)
    plain.from_pretrained(tmp_path / "short")
    assert plain.tokens.shape == (1, 8)


# Names


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        ("gpt2", "openai-community/gpt2"),
        ("gpt2-medium", "openai-community/gpt2-medium"),
        ("distilgpt2", "distilbert/distilgpt2"),
        ("pythia-70m", "EleutherAI/pythia-70m"),
    ],
)
def test_a_hub_name_without_its_owner_is_completed(name: str, hub: str):
    with pytest.raises(MechRewardError, match=f"unknown model '{name}'; on the hub it is '{hub}'"):
        adapter.load(name)


def test_an_unknown_name_is_told_how_models_are_named():
    with pytest.raises(MechRewardError, match=r"did you mean 'countdown-rl'\?.*hub as OWNER/NAME"):
        adapter.load("countdown-rll")


def test_a_missing_folder_names_the_nearest(copy: Path):
    with pytest.raises(MechRewardError, match=f"no model folder .*; did you mean {copy}"):
        adapter.load(copy.parent / "cpoy")
    with pytest.raises(MechRewardError, match=f"and no folder {copy.parent}/runs either"):
        adapter.load(copy.parent / "runs" / "model")
    with pytest.raises(MechRewardError, match=f"is a file; a model is the folder .*: {copy}"):
        adapter.load(copy / "model.safetensors")


def test_a_folder_around_the_model_names_it(copy: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(MechRewardError, match=f"it has no config.json. {copy} in it has one"):
        adapter.load(copy.parent)
    (copy / "config.json").rename(copy / "adapter_config.json")
    with pytest.raises(MechRewardError, match=r"adapter_config\.json names no base model"):
        adapter.load(copy)


def test_a_home_folder_is_found(copy: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(copy.parent))
    assert adapter.load("~/copy").cfg.model_name == str(copy)
