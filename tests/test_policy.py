"""How tokens are drawn and where answers end, against a loop of whole HuggingFace passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
import torch

import mechreward as mr
from mechreward.base.errors import MechRewardError
from mechreward.base.streams import rng
from mechreward.models.engine import Job, generate
from mechreward.models.policy import Policy, draw
from mechreward.models.text import decode
from mechreward.rollouts.continuations import answer_arms, outcomes
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import estimate

EOS = 2
PROBLEMS = tiny.Even().problems("train", 12)
# The bundled vocabulary decodes a line break as one; " 3" and the like are parts of what is said.
STOPS = ("\n", "3", "a>b", "from countdown")


@torch.no_grad()
def slow(model: Any, words: Any, job: Job, policy: Policy) -> tuple[list[int], bool]:
    """Tokens, and whether the answer ended by itself."""
    tokens = job.trunk[: job.length].tolist()
    begun = tokens[job.length - job.begun :]
    before = words.decode(begun)
    uniforms = rng(*job.key).random(job.max_new)
    new: list[int] = []
    for uniform in uniforms:
        logits = model(torch.tensor([tokens + new])).logits[0, -1].double().numpy()
        if policy.top_k is not None:
            kept = min(policy.top_k, len(logits))
            logits = np.where(logits >= np.sort(logits)[-kept], logits, -np.inf)
        p = np.exp(logits / policy.temperature - np.max(logits / policy.temperature))
        p /= p.sum()
        if policy.top_p < 1:
            order = np.argsort(-p, kind="stable")
            reached = np.cumsum(p[order]) - p[order]
            p[order[reached >= policy.top_p]] = 0
        cdf = np.cumsum(p)
        new.append(int(np.searchsorted(cdf, uniform * cdf[-1], side="right")))
        text = words.decode(begun + new)
        if new[-1] == EOS:
            return new, True
        if any(text.count(stop) > before.count(stop) for stop in policy.stop):
            return new, True
    return new, False


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    draws = np.random.default_rng(3)
    made = []
    for number in range(24):
        trunk = torch.tensor([1, *draws.integers(4, 120, 9)])
        begun = int(draws.integers(0, 4))
        key = ("policy", number)
        made.append(Job(trunk, int(draws.integers(5, 10)), 12, key, begun=begun))
    return made


@pytest.mark.parametrize(
    "policy",
    [
        Policy(top_k=1),
        Policy(top_k=7),
        Policy(1.3, 0.8, top_k=20),
        Policy(top_k=10_000),
        Policy(stop=STOPS[:1]),
        Policy(1.5, stop=STOPS),
        Policy(0.8, top_k=30, stop=STOPS[1:3]),
    ],
    ids=repr,
)
def test_every_setting_is_that_of_whole_passes(tiny_model, tiny_plain, jobs, policy: Policy):
    ours = generate(tiny_model, jobs, eos=EOS, policy=policy, batch=7)
    for job, row in zip(jobs, ours, strict=True):
        tokens, ended = slow(tiny_plain, tiny_model.tokenizer, job, policy)
        assert (row.tokens.tolist(), row.finished) == (tokens, ended)


def test_top_k_is_greedy_at_1_and_everything_at_the_size_of_the_vocabulary():
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(5, generator=torch.Generator().manual_seed(1))
    assert draw(logits, Policy(top_k=1), uniform).tolist() == logits.argmax(-1).tolist()
    whole = draw(logits, Policy(), uniform).tolist()
    assert draw(logits, Policy(top_k=40), uniform).tolist() == whole


def test_rollouts_end_at_a_stop_and_know_it(tiny_model):
    policy = Policy(stop=("\n",))
    runs = sample(tiny_model, PROBLEMS, k=3, policy=policy, progress=False)
    stopped = 0
    for run in runs:
        text = decode(tiny_model, run.tokens[run.prompt_len :])
        assert "\n" not in text[:-1]
        at_stop = text.endswith("\n")
        stopped += at_stop
        assert run.ended == (at_stop or int(run.tokens[-1]) == EOS)
        assert run.ended or run.length == tiny.Even.max_tokens
    assert stopped > 10
    assert outcomes(tiny_model, runs).ended.tolist() == [run.ended for run in runs]


def test_continuations_go_on_to_the_same_end(tiny_model):
    """Continuations and arms under a policy end as its rollouts do."""
    policy = Policy(stop=("a>b", "7"), max_tokens=10)
    runs = sample(tiny_model, PROBLEMS, policy=policy, progress=False)
    assert max(run.length for run in runs) <= 10
    values = estimate(tiny_model, runs, k=8, progress=False)
    for row in np.flatnonzero(values.live):
        assert 0 <= values.successes[row] <= 8
    answers = answer_arms(tiny_model, PROBLEMS, [()], policy=policy)
    assert answers.length.max() <= 10
    assert answers.length[0].tolist() == [run.length for run in runs]
    assert answers.ended[0].tolist() == [run.ended for run in runs]


def test_the_limit_is_the_policys_or_the_tasks():
    assert Policy().limit(PROBLEMS[0].task) == tiny.Even.max_tokens
    assert Policy(max_tokens=5).limit(PROBLEMS[0].task) == 5


def test_a_policy_travels_with_what_was_made_under_it(tiny_model, tmp_path):
    policy = Policy(0.9, 0.95, 50, ("\n\n", "###"), 14)
    runs = sample(tiny_model, PROBLEMS[:2], policy=policy, progress=False)
    again = Rollouts.load(runs.save(tmp_path / "runs.safetensors"), task=tiny.Even())
    assert again.policy == policy and again[0].ended == runs[0].ended


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_k": 1.5}, "top_k"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"stop": "###"}, r"stop must be .* it holds texts, as in stop=\('###',\)"),
        ({"stop": ("",)}, "must not be empty"),
        ({"stop": (3,)}, "a text of stop"),
    ],
)
def test_settings_that_are_none(settings: dict[str, Any], words: str):
    with pytest.raises(MechRewardError, match=words):
        Policy(**settings)


def test_it_is_public():
    assert mr.Policy is Policy


def test_values_and_certificates_keep_it(tiny_model, tmp_path):
    problems = tiny.Even().problems("test", 24)
    policy = Policy(temperature=0.7, stop=("\n",), max_tokens=14)
    runs = mr.sample(tiny_model, problems, policy=policy, progress=False)
    values = mr.estimate(tiny_model, runs, k=2, progress=False)
    assert mr.Values.load(values.save(tmp_path / "v.safetensors")).policy == policy
    with pytest.raises(MechRewardError, match="one seed and one policy"):
        mr.Values.join([values, replace(values, policy=Policy())])
    acts = mr.record(tiny_model, runs, "1.resid_post", progress=False)["1.resid_post"]
    assert mr.Activations.load(acts.save(tmp_path / "a.safetensors")).policy == policy
    chosen = mr.select(mr.ValueProbe("mc", "linear").fit(acts, values), top=0.1)
    kept = mr.NeuronSet.load(chosen.save(tmp_path / "n.json"))
    assert kept.recipe == chosen.recipe and Policy(**kept.recipe.policy) == policy
    neurons = mr.NeuronSet.of(acts, [3, 8], "given")
    made = mr.certify(
        tiny_model, tiny.Even(), neurons, train=12, test=8, k=2, n=6, draws=5, pairs=4,
        policy=policy, progress=False,
    )  # fmt: skip
    assert mr.Certificate.load(made.save(tmp_path / "c.json")).policy == policy
    assert "answers drawn by Policy(temperature=0.7" in str(made)
