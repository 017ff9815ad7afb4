"""A real language model: SmolLM2-135M-Instruct, 30 layers, 49,152 tokens, a chat template."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import mechreward as mr
from mechreward.cli import app
from mechreward.experiments.rows import Results
from mechreward.models.real import real_folder
from mechreward.models.text import decode, encode
from mechreward.rollouts.sample import prompt_of
from mechreward.tasks.text_task import TextTask

WORDS = mr.tasks.get("words")
PROBLEMS = WORDS.problems("validation", 12)
SITE = "14.resid_post"
EXAMPLES = [(problem.prompt[1]["content"], WORDS.solve(problem)) for problem in PROBLEMS[:3]]
PROPER = mr.Policy(max_tokens=24)


@pytest.fixture(scope="module")
def plain(real_model) -> Any:
    """The model without anything of ours."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(real_folder(), dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def runs(real_model) -> mr.Rollouts:
    return mr.sample(real_model, PROBLEMS, policy=PROPER, progress=False)


def test_it_is_the_model_of_the_hub(real_model):
    cfg = real_model.cfg
    assert (cfg.n_layers, cfg.d_model, cfg.d_vocab) == (30, 576, 49152)


def test_log_probabilities_are_huggingfaces(plain, runs):
    for run in runs:
        with torch.no_grad():
            logits = plain(run.tokens[None]).logits[0]
        wanted = logits[run.prompt_len - 1 : -1].log_softmax(-1)
        said = run.tokens[run.prompt_len :, None]
        torch.testing.assert_close(run.logprobs, wanted.gather(1, said)[:, 0], atol=2e-4, rtol=1e-4)


def test_greedy_answers_are_huggingfaces(real_model, plain):
    problems = PROBLEMS[:3]
    runs = mr.sample(
        real_model, problems, policy=mr.Policy(temperature=0.0, max_tokens=20), progress=False
    )
    for run in runs:
        prompt = run.tokens[None, : run.prompt_len]
        theirs = plain.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False
        )
        assert run.tokens.tolist() == theirs[0].tolist()


def test_chat_prompts_are_the_tokenizers_own(real_model):
    (problem,) = PROBLEMS[:1]
    wanted = real_model.tokenizer.apply_chat_template(
        list(problem.prompt), add_generation_prompt=True, tokenize=False
    )
    assert decode(real_model, prompt_of(real_model, problem)) == wanted


def test_activations_are_those_of_run_with_cache(real_model, runs):
    acts = mr.record(real_model, runs, SITE, rows="tokens", progress=False)[SITE]
    run = runs[0]
    with torch.no_grad():
        _, cache = real_model.run_with_cache(run.tokens[None])
    wanted = cache[acts.site.hook][0]
    mine = acts.x[acts.trajectory == 0]
    torch.testing.assert_close(mine, wanted.float(), atol=1e-3, rtol=1e-3)


def test_examples_are_read_once(real_model, monkeypatch: pytest.MonkeyPatch):
    """Three examples before every question: 12 prompts share some 300 tokens."""
    from mechreward.models.fast_pass import LeanPass

    rows = [
        {"question": problem.prompt[1]["content"], "answer": problem.answer} for problem in PROBLEMS
    ]
    task = TextTask(rows, system="Solve it.", shots=EXAMPLES, max_tokens=8)
    problems = task.rows
    read = []
    first = LeanPass.prefill

    def prefill(self: Any, tokens: torch.Tensor, *past: Any) -> Any:
        read.append(tokens.numel())
        return first(self, tokens, *past)

    monkeypatch.setattr(LeanPass, "prefill", prefill)
    shared = mr.sample(real_model, problems, progress=False)
    whole = sum(run.prompt_len for run in shared)
    assert sum(read) < 0.6 * whole
    for run, problem in zip(shared, problems, strict=True):
        (alone,) = mr.sample(real_model, [problem], progress=False)
        assert alone.tokens.tolist() == run.tokens.tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_says_nearly_the_same(real_model, runs, dtype: torch.dtype):
    """What differs: log-probabilities by some hundredths of a nat, and so answers after a while;
    neurons and log-probabilities are close, and the rollouts say which precision made them."""
    half = mr.load("smollm2", dtype=dtype)
    texts = [run.tokens for run in runs]
    gaps = []
    with torch.no_grad():
        for text in texts:
            a = real_model(text[None])[0].float().log_softmax(-1)
            b = half(text[None])[0].float().log_softmax(-1)
            gaps.append((a.exp() * (a - b)).sum(-1))
    kl = float(torch.cat(gaps).mean())
    assert 0 < kl < (0.01 if dtype == torch.bfloat16 else 1e-4)
    acts = mr.record(real_model, runs, SITE, progress=False)[SITE]
    other = mr.record(half, runs, SITE, other_model=True, progress=False)[SITE]
    assert other.model_id.dtype == str(dtype).removeprefix("torch.")
    near = torch.nn.functional.cosine_similarity(acts.x, other.x)
    assert float(near.min()) > 0.99
    again = mr.sample(half, PROBLEMS, policy=PROPER, progress=False)
    assert again.model_id != runs.model_id
    same = sum(a.tokens[0] == b.tokens[0] for a, b in zip(runs, again, strict=True))
    assert same >= 9, "the first tokens of 12 answers are nearly all the same"


def test_an_ablation_equals_run_with_hooks(real_model, runs):
    acts = mr.record(real_model, runs, SITE, rows="tokens", progress=False)[SITE]
    top = acts.rms().topk(4).indices.tolist()
    change = mr.zero(mr.NeuronSet.of(acts, top, "largest"))
    text = encode(real_model, "Tom has 3 apples and buys 4 more. How many does he have?")
    with torch.no_grad():
        hooked = real_model.run_with_hooks(text[None], fwd_hooks=change.fwd_hooks())[0]
        clean = real_model(text[None])[0]
    from mechreward.models.row_edits import forward_arms

    mine = forward_arms(real_model, text, [(), (change.edit(),)])
    torch.testing.assert_close(mine[0], clean, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(mine[1], hooked, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(hooked, clean, atol=0.1)


def test_the_headline_command_from_end_to_end(real_model, tmp_path, monkeypatch):
    """Layers zeroed beside matched draws on a local copy with MATH-500's columns. The sums are easy
    and the temperature is low: a small model has to be right sometimes on every machine, and
    rounding decides what is drawn."""
    rows = []
    for a in range(1, 11):
        for b in range(1, 11):
            rows.append(
                {
                    "problem": f"What is ${a} + {b}$?",
                    "solution": f"${a} + {b} = \\boxed{{{a + b}}}$",
                    "answer": str(a + b),
                    "subject": "Prealgebra",
                    "level": 1 + (a + b) % 5,
                    "unique_id": f"test/prealgebra/{a}-{b}.json",
                }
            )
    file = tmp_path / "math.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = (
        f"paper ablation_by_layer --model smollm2 --task math500:{file} --layers 2-3 --draws 2 "
        "--random-draws 1 --curve-draws 1 --train 12 --validation 4 --test 4 --ablated 4 "
        f"--confidence 2 --k 2 --max-tokens 32 --temperature 0.4 --out {tmp_path / 'run'}"
    )
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, [*command.split(), "--forecast"])
    assert told.exit_code == 0, told.output
    assert "smollm2 on math500" in told.output and "ablation_by_layer" in told.output
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 0, done.output
    results = Results.load(tmp_path / "run" / "results.json")
    found = results.where(experiment="ablation_by_layer")
    assert {row.site for row in found} == {"2.resid_post", "3.resid_post", "2.mlp", "3.mlp"}
    repeated = results.manifest["command"].split()
    assert repeated[0] == "mechreward" and set(repeated[1:]) <= set(command.split())
