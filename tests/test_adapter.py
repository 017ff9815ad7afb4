"""Loading, identity, text in and out: against plain HuggingFace."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechreward import tasks
from mechreward.base.errors import MechRewardError
from mechreward.bundled.traces import SOLVERS, trace
from mechreward.bundled.vocabulary import WORDS, tokenizer
from mechreward.models import load as adapter
from mechreward.models import sources
from mechreward.models.identity import ModelId, model_id, randomised
from mechreward.models.text import decode, encode, eos_ids, pieces

TEXT = "countdown 24 from 3 8\n8 * 3 = 24 : 24\nanswer 24"


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    """A model folder to damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def test_logits_are_those_of_plain_huggingface(tiny_model, tiny_plain):
    tokens = torch.randint(0, len(WORDS), (3, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            tiny_model(tokens), tiny_plain(tokens).logits, atol=1e-5, rtol=1e-5
        )


def test_what_is_loaded_does_not_train(tiny_model):
    assert not tiny_model.training


def test_the_tokenizer_of_the_folder_is_used_not_the_architectures_own(tiny_model):
    wanted = tokenizer()(TEXT).input_ids
    assert encode(tiny_model, TEXT).tolist() == wanted
    assert [WORDS[i] for i in wanted] == ["<bos>", *TEXT.replace("\n", " \n ").split(" ")]
    assert tiny_model.to_tokens(TEXT, prepend_bos=True)[0].tolist() == wanted


def test_encode_decode_and_pieces(tiny_model):
    for task in (game() for game in tasks.GAMES.values()):
        for problem in task.problems("test", 5):
            text = problem.prompt + trace(
                task, problem, random.Random(0), SOLVERS["hasty"][task.name]
            )
            ids = encode(tiny_model, text)
            said = ids[1:]  # without <bos>
            assert decode(tiny_model, said) == decode(tiny_model, said.tolist()) == text
            assert pieces(tiny_model, ids) == [WORDS[i] for i in ids]
    assert eos_ids(tiny_model) == (WORDS.index("<eos>"),)


@given(st.lists(st.sampled_from(range(4, len(WORDS)))))
def test_decoded_ids_encode_to_themselves(ids: list[int]):
    words = SimpleNamespace(tokenizer=tokenizer())
    assert encode(words, decode(words, ids)).tolist() == [1, *ids]


@given(st.text())
def test_any_text_encodes(text: str):
    ids = encode(SimpleNamespace(tokenizer=TOKENIZER), text)
    assert ids[0] == 1 and set(ids.tolist()) <= set(range(len(WORDS)))


TOKENIZER = tokenizer()


def test_special_tokens_are_shown_in_text_but_for_the_end(tiny_model):
    assert decode(tiny_model, [1, WORDS.index("answer"), WORDS.index("7"), 2]) == "<bos> answer 7"
    assert decode(tiny_model, []) == ""


def test_a_model_without_a_tokenizer_is_told_so():
    with pytest.raises(MechRewardError, match=r"no tokenizer: set model\.tokenizer"):
        encode(SimpleNamespace(tokenizer=None), "x")


# Loading what cannot be loaded


def test_unknown_names_list_the_bundled_and_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("practised", "exploring"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "no model").mkdir()
    monkeypatch.setattr(sources, "WEIGHTS", tmp_path)
    assert sources.bundled() == ["exploring", "practised"]
    with pytest.raises(
        MechRewardError,
        match=r"unknown model 'practiced'; did you mean 'practised'\? Possible: exp",
    ):
        adapter.load("practiced")
    for name in (str(tmp_path / "nowhere"), "./nowhere", ""):
        with pytest.raises(MechRewardError, match=r"unknown model|no model folder"):
            adapter.load(name)


def test_a_folder_without_a_config(tmp_path: Path):
    with pytest.raises(MechRewardError, match=r"is no model folder: it has no config\.json"):
        adapter.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", None),
        ("model.safetensors", b""),
        ("model.safetensors", b"x" * 5000),
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"[]"),
        ("config.json", b"{"),
        ("config.json", b"{}"),
        ("config.json", b'{"model_type": "zzz"}'),
    ],
)
def test_a_damaged_folder_is_one_line(copy: Path, name: str, damage: bytes | None):
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(MechRewardError, match="cannot load the model folder") as caught:
        adapter.load(copy)
    assert "\n" not in str(caught.value) and str(copy) in str(caught.value)


# Identity


def test_identity_is_that_of_the_weights(tiny_model, copy: Path):
    identity = model_id(tiny_model)
    assert (identity.name, identity.dtype, identity.processing) == ("tiny", "float32", "raw")
    assert len(identity.weights) == 16 and model_id(tiny_model) == identity
    again = model_id(adapter.load(copy))
    assert again.weights == identity.weights and again.name == "copy"
    identity.check(again, "probe")


def test_one_changed_weight_changes_the_identity(copy: Path):
    model = adapter.load(copy)
    first = model_id(model).weights
    for parameter in model.parameters():
        flat = parameter.data.view(-1)
        # Of more than 4,096 values every n-th is looked at, from the first to the very end.
        stride = -(-len(flat) // 4096)
        for at in (0, (len(flat) - 1) // stride * stride):
            kept = flat[at].item()
            flat[at] += 1e-6
            assert model_id(model).weights != first
            flat[at] = kept
    assert model_id(model).weights == first


def test_check_names_both_models_and_what_differs():
    mine = ModelId("tiny", "aaaa", "float32", "raw")
    mine.check(ModelId("renamed", "aaaa", "bfloat16", "raw"), "probe")
    with pytest.raises(MechRewardError) as caught:
        mine.check(ModelId("other", "bbbb", "float32", "raw"), "probe")
    assert str(caught.value) == (
        "this probe was made on tiny (weights aaaa); the model is other (weights bbbb)."
    )
    with pytest.raises(MechRewardError, match=r"processing raw.*processing compatibility mode"):
        mine.check(ModelId("tiny", "aaaa", "float32", "compatibility mode"), "probe")


def test_compatibility_mode_is_another_processing_state(copy: Path):
    model = adapter.load(copy)
    model.enable_compatibility_mode()
    assert model_id(model).processing == "compatibility mode"


def test_a_model_without_huggingface_inside_cannot_be_sampled():
    with pytest.raises(
        MechRewardError, match="SimpleNamespace is no HookedTransformer and has no HuggingFace"
    ):
        adapter.forward_step(
            SimpleNamespace(), torch.zeros(1, 1).long(), torch.ones(1, 1).long(), None
        )


def test_left_padding_and_cache_change_nothing(tiny_model, tiny_plain):
    tokens = torch.randint(4, len(WORDS), (9,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = tiny_plain(tokens[None]).logits[0, -1]
        padded = torch.cat([torch.zeros(4, dtype=torch.long), tokens])[None]
        mask = (torch.arange(13) >= 4).long()[None]
        first, cache = adapter.forward_step(tiny_model, padded[:, :8], mask[:, :8], None)
        torch.testing.assert_close(
            first[0], tiny_plain(tokens[None, :4]).logits[0, -1], atol=1e-5, rtol=1e-5
        )
        last, _ = adapter.forward_step(tiny_model, padded[:, 8:], mask, cache)
    torch.testing.assert_close(last[0], wanted, atol=1e-5, rtol=1e-5)


def test_random_weights_keep_shapes_and_spread_and_leave_the_model_alone(tiny_model):
    before = {name: weight.clone() for name, weight in tiny_model.named_parameters()}
    other, again = randomised(tiny_model, 1), randomised(tiny_model, 1)
    for (name, weight), same in zip(other.named_parameters(), again.parameters(), strict=True):
        old = before[name]
        assert torch.equal(weight, same) and weight.shape == old.shape and weight.dtype == old.dtype
        if old.numel() > 1000:
            assert not torch.equal(weight, old)
            # Within four standard errors.
            assert weight.std().item() == pytest.approx(old.std().item(), rel=0.1)
            assert (
                abs(weight.mean().item() - old.mean().item())
                < 4.5 * old.std().item() / old.numel() ** 0.5
            )
    assert all(torch.equal(weight, before[name]) for name, weight in tiny_model.named_parameters())
    assert model_id(other).weights != model_id(tiny_model).weights
