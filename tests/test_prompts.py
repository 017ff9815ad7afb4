"""Prompts as texts, token ids and chat messages; several ends of a text; what is refused before any
work. The reference is plain HuggingFace."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from tokenizers.processors import TemplateProcessing

from mechreward.base.errors import MechRewardError
from mechreward.bundled.vocabulary import WORDS, tokenizer
from mechreward.models import engine, fast_pass, prefill
from mechreward.models.engine import Job, Policy, generate
from mechreward.models.load import load
from mechreward.models.text import encode, eos_ids
from mechreward.rollouts.continuations import answer_arms, outcomes
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import estimate
from mechreward.tasks import Problem

TASK = tiny.Even()
TEXT = "countdown 24 from 3 8\n"
BOS, EOS, LINE = 1, 2, WORDS.index("\n")
CHAT = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ message.role == 'user' and 'from' or 'to' }} {{ message.content }}"
    "{% if not loop.last %}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n' }}to {% endif %}"
)
ASKED = [{"role": "user", "content": "3 8"}]


def words(chat: str | None = None, front: str = "<bos> ", back: str = "") -> Any:
    """The bundled tokenizer, with other tokens around a text."""
    ours = copy.deepcopy(tokenizer())
    ours.chat_template = chat
    special = [("<bos>", 1), ("<eos>", 2), ("<unk>", 3)]
    around = TemplateProcessing(single=f"{front}$A{back}", special_tokens=special)
    ours.backend_tokenizer.post_processor = around
    return ours


def speaker(**around: Any) -> Any:
    return SimpleNamespace(tokenizer=words(**around))


def problem(prompt: Any, name: str = "p1") -> Problem:
    return Problem(name, prompt, "even", {"difficulty": 2}, TASK)


# What is in front of a text


@pytest.mark.parametrize(
    ("front", "back", "given"),
    [
        ("<bos> ", "", "<bos>"),
        ("<bos> ", " <eos>", "<bos>"),
        ("<unk> <bos> ", "", "<unk><bos>"),
        ("", "", ""),
        ("", " <eos>", ""),
    ],
)
def test_a_text_has_its_front_once_and_stays_open(front: str, back: str, given: str):
    model = speaker(front=front, back=back)
    asked = [WORDS.index(word) for word in ("countdown", "24", "from", "3", "8", "\n")]
    wanted = [WORDS.index(word) for word in front.split()] + asked
    assert encode(model, TEXT).tolist() == wanted
    assert encode(model, given + TEXT).tolist() == wanted


def test_what_a_text_says_twice_stays_where_nothing_is_added():
    model = speaker(front="")
    assert encode(model, "<eos><eos>3").tolist() == [EOS, EOS, WORDS.index("3")]


# Ids and messages


@pytest.mark.unchecked
@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, np.array])
def test_token_ids_stay(kind: Any):
    ids = [5, 1, 1, 7]
    assert encode(speaker(), problem(kind(ids)).prompt).tolist() == ids


def test_messages_are_what_the_chat_template_says():
    model = speaker(chat=CHAT)
    whole = [*ASKED, {"role": "assistant", "content": "24"}, {"role": "user", "content": "7"}]
    for messages in (ASKED, whole):
        written = model.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        wanted = model.tokenizer(written, add_special_tokens=False).input_ids
        assert wanted.count(BOS) == 1
        assert encode(model, messages).tolist() == wanted
        # Rendered by hand it is the same prompt: its BOS is not doubled.
        assert encode(model, written).tolist() == wanted


def test_the_assistants_last_message_is_gone_on_with():
    model = speaker(chat=CHAT)
    ids = encode(model, [*ASKED, {"role": "assistant", "content": "24"}]).tolist()
    assert [WORDS[i] for i in ids] == ["<bos>", "from", "3", "8", "\n", "to", "24"]


def test_prompts_of_every_kind_give_the_same_answers_and_come_back_from_a_file(
    tiny_folder: Path, tmp_path: Path
):
    model = load(tiny_folder)
    model.tokenizer.chat_template = CHAT
    text = "from 3 8\nto"
    ids = encode(model, text).tolist()
    problems = [problem(prompt) for prompt in (text, ids, ASKED)]
    runs = [sample(model, [one], k=3, progress=False) for one in problems]
    for one, run in zip(problems, runs, strict=True):
        assert [r.tokens.tolist() for r in run] == [r.tokens.tolist() for r in runs[0]]
        back = Rollouts.load(run.save(tmp_path / "runs"), TASK)
        assert back.problems == run.problems and len({one, *back.problems}) == 1
        values = estimate(model, back, k=2, progress=False)
        assert values.mean.tolist() == estimate(model, runs[0], k=2, progress=False).mean.tolist()


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        (5, "int was given"),
        (None, "NoneType was given"),
        (b"abc", "bytes was given"),
        ({"role": "user", "content": "x"}, "dict was given"),
        ([1, 2.0], "2.0 is no token id"),
        ([1, True], "True is no token id"),
        (["a"], "'a' is no token id"),
        ([[1, 2]], r"\[1, 2\] is no token id"),
        ([1, 2**64], "is no token id"),
        ([*ASKED, "x"], "is no token id"),
        ([{"role": "user"}], "a role and a content; this one has role"),
        ([{}], "this one has nothing"),
        ([{"role": "system", "content": "x"}], "does not take these messages: no system"),
    ],
)
def test_what_is_no_prompt_is_refused_with_its_problem(tiny_folder: Path, prompt: Any, told: str):
    model = load(tiny_folder)
    model.tokenizer.chat_template = CHAT
    with pytest.raises(MechRewardError, match=f"problem 'p1': .*{told}") as caught:
        sample(model, [problem(prompt)], progress=False)
    assert "\n" not in str(caught.value)


def test_messages_need_a_template(tiny_model):
    with pytest.raises(MechRewardError, match=r"problem 'p1': .* set tokenizer\.chat_template"):
        sample(tiny_model, [problem(ASKED)], progress=False)


# Refused before any work


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pass may be run."""
    for name in ("prefill", "decode"):
        monkeypatch.setattr(fast_pass.LeanPass, name, lambda *_: pytest.fail("it was run"))
    for module in (engine, prefill):
        monkeypatch.setattr(module, "forward_step", lambda *_: pytest.fail("it was run"))


GOOD = TASK.problems("test", 3)
LONG = "3 " * 300
BAD = [
    (LONG, "301 tokens to continue are more than the 256"),
    ([5] * 257, "257 tokens to continue are more than the 256"),
    ([5] * 241, r"241 tokens and a limit of 16 new ones are more than the 256 .*max_tokens"),
    ("", "its prompt is empty"),
    ("<bos>", "its prompt is empty"),
    ([], "its prompt is empty"),
    ([5, len(WORDS)], f"vocabulary has tokens 0 to {len(WORDS) - 1}; {len(WORDS)} was given"),
    ([5, -1], "; -1 was given"),
]


@pytest.mark.parametrize(("prompt", "told"), BAD)
@pytest.mark.parametrize("verb", [sample, answer_arms])
def test_bad_prompts_are_refused_by_problem(tiny_model, idle, prompt: Any, told: str, verb: Any):
    more = {"arms": [()]} if verb is answer_arms else {}
    with pytest.raises(MechRewardError, match=f"problem 'worst'.*{told}"):
        verb(tiny_model, [*GOOD, problem(prompt, "worst")], **more)


def test_values_are_refused_by_problem_too(tiny_model, monkeypatch: pytest.MonkeyPatch):
    runs = sample(tiny_model, GOOD, progress=False)
    spoiled = runs[1].tokens.clone()
    spoiled[0] = len(WORDS)
    object.__setattr__(runs[1], "tokens", spoiled)
    monkeypatch.setattr(fast_pass.LeanPass, "prefill", lambda *_: pytest.fail("it was run"))
    with pytest.raises(MechRewardError, match=f"problem {GOOD[1].id!r}.*vocabulary"):
        estimate(tiny_model, runs, k=2, progress=False)


def test_what_just_fits_is_run(tiny_model):
    (run,) = sample(tiny_model, [problem([5] * 240)], progress=False)
    assert run.prompt_len == 240


def test_a_bare_model_has_the_same_limits(tiny_plain):
    with pytest.raises(MechRewardError, match="row 0: 250 tokens and a limit of 7"):
        generate(tiny_plain, [Job(torch.full((250,), 5), 250, 7, ())], eos=EOS)
    with pytest.raises(MechRewardError, match="row 0: the model's vocabulary"):
        generate(tiny_plain, [Job(torch.tensor([999]), 1, 7, ())], eos=EOS)


# A row that has ended does not outgrow the context of the others


@pytest.mark.parametrize("caught", [False, True])
def test_rows_that_have_ended_stay_inside_the_context(caught: bool):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=24, n_embd=16, n_layer=1, n_head=2)
    model: Any = GPT2LMHeadModel(config).eval()
    long, short = torch.arange(20), torch.arange(1)
    jobs = [Job(long, 20, 4, ("full",))]
    jobs += [Job(short, 1, 23, ("others", i)) for i in range(15)]
    options: dict[str, Any] = {"eos": -1, "batch": 16}
    answers = generate(model, jobs, **options)
    for job, said in zip(jobs[:2], answers, strict=False):
        whole = torch.cat([job.trunk, said.tokens])
        with torch.no_grad():
            logits = model(whole[None]).logits[0, job.length - 1 : -1]
        fresh = logits.log_softmax(-1).gather(1, said.tokens[:, None])[:, 0]
        torch.testing.assert_close(said.logprobs, fresh, atol=1e-5, rtol=1e-5)


# Several ends


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The tiny model whose generation config also ends at a line break, loaded and plain."""
    plain = tiny.huggingface()
    plain.generation_config.eos_token_id = [EOS, LINE]
    folder = tiny.save(plain, tmp_path_factory.mktemp("models") / "ends")
    return load(folder), plain


def test_ends_are_the_tokenizers_and_the_generation_configs(ended, tiny_model):
    assert eos_ids(ended[0]) == eos_ids(SimpleNamespace(**vars_of(ended[1]))) == (EOS, LINE)
    assert eos_ids(tiny_model) == (EOS,)
    nameless = copy.deepcopy(tokenizer())
    nameless.eos_token = None
    with pytest.raises(MechRewardError, match=r"set tokenizer\.eos_token"):
        eos_ids(SimpleNamespace(tokenizer=nameless))


def vars_of(plain: Any) -> dict[str, Any]:
    return {"generation_config": plain.generation_config, "tokenizer": tokenizer()}


def test_every_end_stops_a_rollout_as_in_huggingface(ended):
    model, plain = ended
    runs = sample(model, TASK.problems("test", 12), policy=Policy(temperature=0.0), progress=False)
    for run in runs:
        prompt = run.tokens[None, : run.prompt_len]
        theirs = plain.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=TASK.max_tokens,
            do_sample=False,
        )
        assert run.tokens.tolist() == theirs[0].tolist()
    last = [int(run.tokens[-1]) for run in runs]
    assert LINE in last, "the second end does end answers"
    assert outcomes(model, runs).ended.tolist() == [token in (EOS, LINE) for token in last]


def test_no_answer_goes_on_behind_an_end(ended):
    runs = sample(ended[0], TASK.problems("test", 12), k=4, progress=False)
    for run in runs:
        said = run.tokens[run.prompt_len :].tolist()
        assert not {EOS, LINE} & set(said[:-1])
    assert {int(run.tokens[-1]) for run in runs} >= {EOS, LINE}
