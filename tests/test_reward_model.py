"""Reward models against plain HuggingFace passes by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
import torch

import mechreward as mr
from mechreward.base.errors import MechRewardError
from mechreward.bundled.vocabulary import tokenizer
from mechreward.uses.search.reward_model import RewardModel
from mechreward.uses.search.search import scorer_of

PROMPT = "countdown 12 from 3 4\n"
STEPS = ["3 + 4 = 7\n", "7 + 3 = 10\n", "10 + 4\n"]
PROBLEMS = tiny.Even().problems("train", 6)


def reward_model(kind: str, labels: int):
    import transformers

    torch.manual_seed(labels)
    config = tiny.huggingface().config
    config.num_labels = labels
    config.architectures = None
    return getattr(transformers, f"Qwen2For{kind}Classification")(config).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """By kind and number of labels; the plain models beside."""
    made = {}
    for kind, labels in (("Token", 2), ("Token", 1), ("Sequence", 1), ("Sequence", 3)):
        plain = reward_model(kind, labels)
        folder = tiny.save(plain, tmp_path_factory.mktemp("reward") / f"{kind}-{labels}")
        made[kind, labels] = folder, plain
    return made


def ids(text: str) -> list[int]:
    return tokenizer()(text, add_special_tokens=False).input_ids


def by_hand(plain, kind: str, label: int) -> list[float]:
    """Token by token: <bos>, prompt, then each step and a line break."""
    tokens = [1, *ids(PROMPT)]
    ends, texts = [], []
    for step in STEPS:
        tokens += ids(step.strip())
        texts.append(list(tokens))
        tokens += ids("\n")
        ends.append(len(tokens) - 1)
    with torch.no_grad():
        if kind == "Token":
            logits = plain(torch.tensor([tokens])).logits[0, ends]
        else:
            logits = torch.cat([plain(torch.tensor([text])).logits for text in texts])
    if logits.shape[-1] == 1:
        return (1 / (1 + torch.exp(-logits[:, 0]))).tolist()
    powers = torch.exp(logits)
    return (powers[:, label] / powers.sum(-1)).tolist()


@pytest.mark.parametrize(
    ("kind", "labels", "label"),
    [("Token", 2, 1), ("Token", 2, 0), ("Token", 1, 1), ("Sequence", 1, 1), ("Sequence", 3, 2)],
)
def test_scores_are_those_of_a_plain_pass(folders, kind: str, labels: int, label: int):
    folder, plain = folders[kind, labels]
    model = RewardModel(folder, label=label)
    scores = model(PROMPT, STEPS)
    np.testing.assert_allclose(scores, by_hand(plain, kind, label), atol=1e-5)
    assert len(set(scores)) == 3 and all(0 < score < 1 for score in scores)
    assert model(PROMPT, []) == []
    assert model.process is (kind == "Token")
    assert folder.name in repr(model)


def test_the_future_is_not_read(folders):
    for kind in ("Token", "Sequence"):
        model = RewardModel(folders[kind, 1][0])
        np.testing.assert_allclose(model(PROMPT, STEPS)[:2], model(PROMPT, STEPS[:2]), atol=1e-6)


def test_another_separator_is_another_score(folders):
    folder = folders["Token", 2][0]
    model = RewardModel(folder, separator="=")
    tokens = [1, *ids(PROMPT), *ids(STEPS[0].strip()), *ids("=")]
    with torch.no_grad():
        logits = folders["Token", 2][1](torch.tensor([tokens])).logits[0, -1]
    assert model(PROMPT, STEPS[:1]) == pytest.approx([float(logits.softmax(-1)[1])], abs=1e-5)
    assert model.mark != RewardModel(folder).mark


@pytest.mark.parametrize("kind", ["Token", "Sequence"])
def test_a_search_is_guided_by_it_and_counts_its_tokens(folders, tiny_model, kind: str):
    """The score that a search ends with is that of the chosen answer; its tokens, counted by hand:
    one pass a candidate, or one for each new step."""
    model = RewardModel(folders[kind, 1][0])
    counted: dict[str, int] = {}
    seen: dict[str, float] = {}

    def counting(prompt: str, steps: list[str]) -> list[float]:
        read = model.tokens(prompt, steps, 1)
        counted[prompt] = counted.get(prompt, 0) + read
        scores = model(prompt, steps)
        seen[prompt + "".join(steps)] = scores[-1]
        return scores

    made = mr.search(tiny_model, PROBLEMS, model, k=3, progress=False)
    again = mr.search(tiny_model, PROBLEMS, counting, k=3, progress=False)
    assert made.scorer == model.name and scorer_of(model).bounded
    for run, other in zip(made.rollouts, again.rollouts, strict=True):
        assert torch.equal(run.tokens, other.tokens)
    for problem, ledger, score, run in zip(
        PROBLEMS, made.ledgers, made.scores, made.rollouts, strict=True
    ):
        assert ledger.scored == counted[problem.question]
        text = mr.models.text.decode(tiny_model, run.tokens[run.prompt_len :])
        assert seen[problem.question + text] == pytest.approx(score)


def test_tokens_by_hand(folders):
    lengths = [1 + len(ids(PROMPT))]
    for step in STEPS:
        lengths.append(lengths[-1] + len(ids(step.strip())) + 1)
    process, outcome = RewardModel(folders["Token", 1][0]), RewardModel(folders["Sequence", 1][0])
    assert process.tokens(PROMPT, STEPS) == process.tokens(PROMPT, STEPS, 1) == lengths[3]
    assert outcome.tokens(PROMPT, STEPS) == sum(lengths[1:]) - 3
    assert outcome.tokens(PROMPT, STEPS, 1) == lengths[3] - 1
    assert process.tokens(PROMPT, []) == 0


def test_beginnings_are_read_once(folders, monkeypatch):
    model = RewardModel(folders["Sequence", 1][0])
    passes = []
    plain = model._logits
    monkeypatch.setattr(model, "_logits", lambda tokens: passes.append(tokens) or plain(tokens))
    model(PROMPT, STEPS[:2])
    model(PROMPT, STEPS)
    assert len(passes) == 3


@pytest.mark.unchecked
def test_what_is_no_reward_model_is_refused_in_one_line(folders, tiny_folder, tmp_path):
    folder = folders["Token", 2][0]
    bare = tmp_path / "bare"
    folders["Token", 2][1].save_pretrained(bare)
    pickled = tmp_path / "pickled"
    tiny.save(folders["Token", 2][1], pickled)
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    headless = tmp_path / "headless"
    tiny.save(tiny.huggingface(), headless)
    config = json.loads((headless / "config.json").read_text())
    config["architectures"] = ["Qwen2ForTokenClassification"]
    (headless / "config.json").write_text(json.dumps(config))
    wrong = [
        ((tmp_path / "nothing",), {}, "no model folder"),
        (("nothing",), {}, "unknown model"),
        (("nobody/nothing",), {}, "no folder here"),
        ((tiny_folder,), {}, "Qwen2ForCausalLM"),
        ((bare,), {}, "no tokenizer"),
        ((pickled,), {}, "safetensors"),
        ((headless,), {}, "score.weight"),
        ((folder,), {"label": 2}, "classes 0 to 1"),
        ((folder,), {"label": -1}, "at least 0"),
        ((folder,), {"separator": ""}, "no token"),
        ((folder,), {"separator": 3}, "separator"),
        ((folder,), {"dtype": "float32"}, "dtype"),
        ((folder,), {"device": "tpu9"}, "tpu9"),
        ((3,), {}, "a model"),
    ]
    for given, options, wanted in wrong:
        with pytest.raises(MechRewardError, match=wanted) as caught:
            RewardModel(*given, **options)
        assert "\n" not in str(caught.value)


def test_a_text_longer_than_the_context_is_refused_with_the_problem(folders, tiny_model):
    model = RewardModel(folders["Token", 1][0])
    with pytest.raises(MechRewardError, match="256"):
        model(PROMPT, ["7 " * 300])
    model.context = 10
    with pytest.raises(MechRewardError, match=r"10.*problem") as caught:
        mr.search(tiny_model, PROBLEMS, model, k=2, progress=False)
    assert repr(PROBLEMS[0].id) in str(caught.value)
