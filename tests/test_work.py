"""What the engine says of a call besides answers: work done, spread of distributions, rows that
end early."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from mechreward.bundled.vocabulary import WORDS
from mechreward.models.capture import Capture
from mechreward.models.engine import Job, Policy, generate
from mechreward.models.load import load
from mechreward.models.site import Site
from mechreward.models.text import decode, encode
from mechreward.models.work import counted
from mechreward.rollouts.sample import prompt_of, sample
from mechreward.rollouts.steps import StepEnd, step_ends
from mechreward.tasks import TextTask
from mechreward.tasks.base import Task

EOS = WORDS.index("<eos>")


def jobs_of(lengths: list[int], copies: int = 3, room: int = 12) -> list[Job]:
    jobs = []
    for number, length in enumerate(lengths):
        trunk = torch.tensor([1, *((7 * number + i) % 40 + 5 for i in range(length - 1))])
        for copy in range(copies):
            jobs.append(Job(trunk, length, room, ("work", number, copy)))
    return jobs


@pytest.mark.parametrize("capture", [None, Capture({Site(1, "resid_post"): None})])
@pytest.mark.parametrize("batch", [2, 5, 64])
def test_charges_add_up_to_what_the_engine_counts(tiny_model, batch: int, capture):
    jobs = jobs_of([3, 9, 9, 14])
    with counted() as work:
        answers = generate(tiny_model, jobs, eos=EOS, batch=batch, capture=capture)
    assert work.prefill == sum(answer.prefill for answer in answers) == 2 + 8 + 8 + 13
    again = len(answers) if capture else 0
    assert work.decoded == sum(len(answer.tokens) for answer in answers) + again
    for job, answer in zip(jobs, answers, strict=True):
        assert answer.prefill + answer.cached == job.length - 1


def test_what_prefixes_begin_with_is_charged_once(tiny_model):
    """Forty tokens that four prompts share are run with the first of them."""
    shared = [1, *(i % 40 + 5 for i in range(40))]
    jobs = []
    for number in range(40):
        trunk = torch.tensor([*shared, number % 9 + 5, number // 9 + 5, 7])
        jobs.append(Job(trunk, len(trunk), 4, ("shared", number)))
    with counted() as work:
        answers = generate(tiny_model, jobs, eos=EOS)
    charged = sum(answer.prefill for answer in answers)
    assert work.prefill == charged < sum(job.length - 1 for job in jobs)
    for job, answer in zip(jobs, answers, strict=True):
        assert answer.prefill + answer.cached >= job.length - 1


def test_jobs_of_one_trunk_that_need_more_of_it_cost_nothing_more(tiny_model):
    trunk = torch.tensor([1, *range(5, 20)])
    jobs = [Job(trunk, length, 3, ("cut", length)) for length in (4, 16, 9)]
    with counted() as work:
        answers = generate(tiny_model, jobs, eos=EOS)
    assert work.prefill == 15 == sum(answer.prefill for answer in answers)
    assert sorted(Counter(answer.prefill for answer in answers).items()) == [(0, 2), (15, 1)]


def test_nothing_is_counted_outside(tiny_model):
    with counted() as work:
        pass
    generate(tiny_model, jobs_of([4]), eos=EOS)
    assert (work.prefill, work.decoded, work.passes) == (0, 0, 0)


@pytest.mark.parametrize("policy", [Policy(), Policy(temperature=0.5, top_p=0.6)])
def test_spread_is_that_of_plain_huggingface(tiny_model, tiny_plain, policy: Policy):
    """Entropy and self-certainty of the model's own distribution, whatever the policy."""
    jobs = jobs_of([3, 9], copies=2)
    answers = generate(tiny_model, jobs, eos=EOS, policy=policy, batch=3, spread=True)
    for job, answer in zip(jobs, answers, strict=True):
        tokens = torch.cat([job.trunk, answer.tokens])[None]
        with torch.no_grad():
            logits = tiny_plain(tokens).logits[0, job.length - 1 : -1].double().numpy()
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        entropy = -(p * np.log(p)).sum(1)
        uniform = 1 / p.shape[1]
        certainty = (uniform * np.log(uniform / p)).sum(1)
        assert answer.spread is not None
        np.testing.assert_allclose(answer.spread.entropy, entropy, atol=2e-4)
        np.testing.assert_allclose(answer.spread.certainty, certainty, atol=2e-4)


def test_no_spread_unless_asked(tiny_model):
    (answer,) = generate(tiny_model, jobs_of([4], copies=1), eos=EOS)
    assert answer.spread is None


def stepwise(model, task: Task, prompt: torch.Tensor, key: int, most: int) -> list[int]:
    """Ends of the steps of one answer that is generated a step at a time."""
    tokens, ends = prompt, [len(prompt) - 1]
    until = StepEnd(model, task)
    for step in range(most):
        left = task.max_tokens - (len(tokens) - len(prompt))
        if left < 1:
            break
        begun = len(tokens) - len(prompt)
        job = Job(tokens, len(tokens), left, ("step", key, step), begun=begun)
        (row,) = generate(model, [job], eos=EOS, until=until)
        tokens = torch.cat([tokens, row.tokens])
        ends.append(len(tokens) - 1)
        if row.finished:
            break
    whole, fault = step_ends(model, task, tokens, len(prompt))
    assert not fault
    if int(tokens[-1]) == EOS and ends[-1] - ends[-2] == 1 and len(ends) > 2:
        del ends[-2]  # the end of the text is no step of its own
    assert len(ends) == len(whole)
    # A line break more, which comes later, moves the end of the step before.
    for end, wanted in zip(ends, whole, strict=True):
        assert not decode(model, tokens[end + 1 : wanted + 1]).strip()
    return [end for end in ends if end not in whole]


def test_steps_end_where_the_task_cuts_the_whole_answer(tiny_model):
    task = tiny.Even()
    extra = 0
    for number, problem in enumerate(task.problems("train", 12)):
        prompt = prompt_of(tiny_model, problem)
        extra += len(stepwise(tiny_model, task, prompt, number, 20))
    assert extra <= 2


@pytest.mark.parametrize("steps", ["lines", "paragraphs", "blocks:3"])
def test_steps_of_other_kinds(tiny_model, steps: str):
    rows = [{"question": f"countdown {a} from 3 4\n", "answer": "7"} for a in range(5, 9)]
    task = TextTask(rows, steps=steps, max_tokens=16)
    for number, problem in enumerate(task.rows):
        prompt = encode(tiny_model, problem.prompt)
        assert len(stepwise(tiny_model, task, prompt, number, 20)) <= 2


def test_a_step_that_never_ends_is_the_rest_of_the_answer(tiny_model):
    """A task whose steps cannot be cut ends no row early."""

    class Broken(tiny.Even):
        def step_ends(self, pieces, prompt_len):
            raise RuntimeError("no")

    problems = Broken().problems("train", 3)
    runs = sample(tiny_model, tiny.Even().problems("train", 3), progress=False)
    jobs = []
    for run, problem in zip(runs, problems, strict=True):
        prompt = run.tokens[: run.prompt_len]
        key = ("answer", 0, problem.id, 0)
        jobs.append(Job(prompt, len(prompt), 16, key, problem=problem.id))
    rows = generate(tiny_model, jobs, eos=EOS, until=StepEnd(tiny_model, Broken()))
    for row, run in zip(rows, runs, strict=True):
        assert torch.equal(row.tokens, run.tokens[run.prompt_len :])


def test_rows_that_end_early_have_their_last_token_read(tiny_model):
    task = tiny.Even()
    site = Site(1, "resid_post")
    jobs = []
    for number, problem in enumerate(task.problems("train", 6)):
        prompt = prompt_of(tiny_model, problem)
        jobs.append(Job(prompt, len(prompt), 16, ("read", number)))
    until = StepEnd(tiny_model, task)
    rows = generate(tiny_model, jobs, eos=EOS, until=until, capture=Capture({site: None}))
    early = [row for row in rows if not row.finished and len(row.tokens) < 16]
    assert early, "some row ends with its step"
    for job, row in zip(jobs, rows, strict=True):
        tokens = torch.cat([job.trunk, row.tokens])
        _, cache = tiny_model.run_with_cache(tokens[None])
        expected = cache[site.hook][0, job.length - 1 :]
        assert row.caught is not None
        torch.testing.assert_close(row.caught.x[site], expected, atol=2e-4, rtol=1e-3)


def test_a_stop_text_still_ends_the_answer_beside_steps(tiny_model):
    """`finished` is said of the policy's texts, not of steps."""
    problem = tiny.Even().problems("train", 1)[0]
    prompt = prompt_of(tiny_model, problem)
    jobs = [Job(prompt, len(prompt), 16, ("both", number)) for number in range(24)]
    until = StepEnd(tiny_model, tiny.Even())
    plain = generate(tiny_model, jobs, eos=EOS, until=until)
    stopped = generate(tiny_model, jobs, eos=EOS, until=until, policy=Policy(stop=("\n",)))
    for before, after in zip(plain, stopped, strict=True):
        text = tiny_model.tokenizer.decode(after.tokens)
        if "\n" in text:
            assert after.finished
        else:
            assert torch.equal(before.tokens, after.tokens)
    assert any(not row.finished for row in plain if len(row.tokens) < 16)


def test_a_loaded_model_counts_the_same_without_the_fast_pass(tiny_folder):
    """`run_with_hooks` of the slow path: the same numbers."""
    model = load(tiny_folder)
    jobs = jobs_of([3, 9])
    hook = (Site(0, "resid_post").hook, lambda tensor, hook: tensor)
    with counted() as fast:
        generate(model, jobs, eos=EOS)
    with counted() as slow:
        generate(model, jobs, eos=EOS, hooks=[hook])
    assert replace(fast, passes=0) == replace(slow, passes=0)
