"""Rollouts and state values: reproducible, saved whole, and V-hat against answers sampled by other
means."""

from __future__ import annotations

import math
import pickle
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechreward import tasks
from mechreward.base.errors import MechRewardError
from mechreward.base.files import write_tensors
from mechreward.bundled.traces import Habits, trace
from mechreward.models.engine import Policy
from mechreward.models.identity import ModelId, model_id
from mechreward.models.site import Site
from mechreward.models.text import decode, encode, eos_ids, pieces
from mechreward.rollouts import value
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts, Trajectory, task_of
from mechreward.rollouts.value import GAMMA, Values, estimate
from mechreward.tasks import Problem, Verdict

TASK = tiny.Even()
PROBLEMS = TASK.problems("test", 6)
LETTERS = {"\n": "\n", "<eos>": "e"}
KEPT = ("problem_id", "prompt_len", "step_ends", "verdict", "seed", "sample")


def assert_same(ours: Rollouts, theirs: Rollouts) -> None:
    assert (ours.policy, ours.model_id, ours.seed) == (theirs.policy, theirs.model_id, theirs.seed)
    assert ours.problems == theirs.problems and len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert [getattr(a, name) for name in KEPT] == [getattr(b, name) for name in KEPT]
        assert a.tokens.tolist() == b.tokens.tolist()
        torch.testing.assert_close(a.logprobs, b.logprobs, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def runs(tiny_model) -> Rollouts:
    return sample(tiny_model, PROBLEMS, k=4, seed=3, progress=False)


@pytest.fixture(scope="module")
def values(tiny_model, runs) -> Values:
    return estimate(tiny_model, runs, k=9, progress=False)


# Rollouts


def test_the_fixture_has_every_kind_of_answer(runs):
    assert 0 < sum(runs.rewards) < len(runs)
    assert {run.steps > 1 for run in runs} == {True, False}
    assert {run.length == TASK.max_tokens for run in runs} == {True, False}


@pytest.mark.parametrize("batch", [1, 5])
def test_same_answers_for_any_batch(tiny_model, runs, batch: int):
    assert_same(sample(tiny_model, PROBLEMS, k=4, seed=3, batch=batch, progress=False), runs)


def test_same_answers_in_any_company(tiny_model, runs):
    alone = sample(tiny_model, PROBLEMS[4:5], k=2, seed=3, progress=False)
    assert_same(alone, runs.subset([16, 17]))
    other = sample(tiny_model, PROBLEMS, k=4, seed=4, progress=False)
    assert [run.tokens.tolist() for run in other] != [run.tokens.tolist() for run in runs]


def test_trajectories_hold_prompt_answer_verdict_and_steps(tiny_model, runs):
    for number, (run, problem) in enumerate(zip(runs, runs.problems, strict=True)):
        assert (problem, run.problem_id) == (PROBLEMS[number // 4], problem.id)
        assert (run.seed, run.sample) == (3, number % 4)
        assert run.tokens[: run.prompt_len].tolist() == encode(tiny_model, problem.prompt).tolist()
        said = run.tokens[run.prompt_len :]
        assert len(said) == run.length == len(run.logprobs) <= TASK.max_tokens
        assert (
            run.verdict == TASK.verify(problem, decode(tiny_model, said))
            and run.reward == run.verdict.reward
        )
        assert run.step_ends[0] == run.prompt_len - 1 and run.step_ends[-1] == len(run.tokens) - 1
        spans = [pieces(tiny_model, run.tokens[run.span(step)]) for step in range(1, run.steps + 1)]
        assert [piece for span in spans for piece in span] == pieces(tiny_model, said)
        letters = ["".join(LETTERS.get(piece, "x") for piece in span) for span in spans]
        # Lines with the empty ones and the end behind them, or an answer of nothing else.
        assert letters == re.findall(r"(?:\A\n*)?x+(?:\n+e?|e)?|\A\n*e?\Z", "".join(letters))
    for wrong in (0, runs[0].steps + 1, -1):
        with pytest.raises(
            MechRewardError, match=f"has steps 1 to {runs[0].steps}; {wrong} was given"
        ):
            runs[0].span(wrong)


def test_groups_rewards_subset_and_repr(runs):
    assert runs.groups == [number // 4 for number in range(24)]
    assert runs.rewards == [run.reward for run in runs.trajectories]
    few = runs.subset([20, 3, 21])
    assert (
        few.groups == [0, 1, 0]
        and [few[i] is runs[j] for i, j in enumerate((20, 3, 21))] == [True] * 3
    )
    assert few.problems == (PROBLEMS[5], PROBLEMS[0], PROBLEMS[5]) and few.seed == 3
    assert repr(runs) == f"Rollouts(24 of tiny, {sum(runs.rewards)} correct, temperature 1.0)"


def test_hooks_change_the_policy_and_use_the_same_random_numbers(tiny_model, runs):
    hook = Site(1, "resid_post").hook
    idle = sample(
        tiny_model,
        PROBLEMS,
        k=4,
        seed=3,
        hooks=[(hook, lambda tensor, hook: tensor)],
        progress=False,
    )
    assert_same(idle, runs)
    mute = sample(
        tiny_model,
        PROBLEMS,
        k=4,
        seed=3,
        hooks=[(hook, lambda tensor, hook: tensor * 0)],
        progress=False,
    )
    assert [run.tokens.tolist() for run in mute] != [run.tokens.tolist() for run in runs]
    assert tiny.no_hooks_left(tiny_model)


def test_what_cannot_be_sampled(tiny_model):
    with pytest.raises(MechRewardError, match=r"k counts answers .* 0 was given"):
        sample(tiny_model, PROBLEMS, k=0)
    with pytest.raises(MechRewardError, match="no problems were given"):
        sample(tiny_model, [])
    mixed = [*PROBLEMS[:1], *tasks.Chain().problems("test", 1)]
    with pytest.raises(MechRewardError, match="belong to 'chain', 'even'"):
        sample(tiny_model, mixed)
    with pytest.raises(MechRewardError, match=r"Take them with task\.problems"):
        task_of([Problem("x", "x\n", "1")])


@pytest.mark.parametrize("name", ["countdown", "chain", "paths"])
def test_bundled_tasks_come_back_from_a_file_with_their_task(tiny_model, tmp_path: Path, name: str):
    problems = tasks.get(name).problems("test", 2)
    runs = sample(tiny_model, problems, k=2, policy=Policy(0.7, 0.9), progress=False)
    back = Rollouts.load(runs.save(tmp_path / "runs"))
    assert_same(back, runs)
    for old, new in zip(runs.problems, back.problems, strict=True):
        assert type(new.task) is type(old.task) and new.difficulty == old.difficulty
        right = trace(old.task, old, tiny.random.Random(0), Habits(1.0, 1.0, 1.0, 0))
        assert new.task.verify(new, right).outcome == "correct"


def test_a_task_of_ones_own_is_given_when_loading(tiny_model, runs, tmp_path: Path):
    path = runs.save(tmp_path / "runs.safetensors")
    assert_same(Rollouts.load(path, TASK), runs)
    assert {problem.task for problem in Rollouts.load(path, TASK).problems} == {TASK}
    without = Rollouts.load(path)
    assert_same(without, runs)
    with pytest.raises(MechRewardError, match="exactly one task"):
        estimate(tiny_model, without, k=2)


@pytest.mark.parametrize("kind", [Rollouts, Values])
def test_damaged_files_are_refused(runs, values, tmp_path: Path, kind: type):
    whole = (runs if kind is Rollouts else values).save(tmp_path / "whole").read_bytes()
    other = (values if kind is Rollouts else runs).save(tmp_path / "other").read_bytes()
    for damage in (b"", whole[:100], whole[:-1], pickle.dumps({"kind": "rollouts"}), b"{}", other):
        (tmp_path / "damaged").write_bytes(damage)
        with pytest.raises(MechRewardError) as caught:
            kind.load(tmp_path / "damaged")
        assert "\n" not in str(caught.value) and "damaged" in str(caught.value)
    with pytest.raises(MechRewardError, match="cannot read"):
        kind.load(tmp_path / "missing")
    write_tensors(tmp_path / "foreign", {"x": torch.zeros(1)}, {"kind": "activations"})
    with pytest.raises(MechRewardError, match="holds activations, not"):
        kind.load(tmp_path / "foreign")


# Values


def test_rows_are_the_states(runs, values):
    states = [(t, s) for t, run in enumerate(runs) for s in range(len(run.step_ends))]
    assert list(zip(values.trajectory.tolist(), values.step.tolist(), strict=True)) == states
    assert values.group.tolist() == [runs.groups[t] for t, _ in states]
    assert values.reward.tolist() == [runs[t].reward for t, _ in states]
    assert values.live.tolist() == [s < runs[t].steps for t, s in states]
    assert values.is_step.tolist() == [s > 0 for _, s in states]


def test_values_are_shares_and_ends_are_rewards(runs, values):
    live = values.live
    assert np.array_equal(values.mean[~live], runs.rewards)
    assert not values.successes[~live].any() and not values.error[~live].any()
    assert set(values.first) <= set(range(6)) and set(values.second) <= set(range(5))
    assert np.allclose(values.mean[live], values.successes[live] / 9)
    assert values.first[live].any() and values.second[live].any()
    first, second = values.halves()
    assert np.allclose((5 * first + 4 * second) / 9, values.mean)
    assert np.array_equal(first[~live], runs.rewards) and np.allclose(
        second[live], values.second[live] / 4
    )


def test_errors_by_hand(values):
    for row in np.flatnonzero(values.live)[:10]:
        p = (values.successes[row] + 1) / 11
        assert values.error[row] == pytest.approx(math.sqrt(p * (1 - p) / 9))


def test_deltas_by_hand_and_telescoping(runs, values):
    row = 0
    for number, run in enumerate(runs):
        v, delta = values.mean[row : row + run.steps + 1], values.delta[row : row + run.steps + 1]
        assert math.isnan(delta[0])
        for step in range(1, run.steps):
            assert delta[step] == pytest.approx(GAMMA * v[step] - v[step - 1], abs=1e-12)
        assert delta[-1] == pytest.approx(run.reward - v[-2], abs=1e-12)
        assert np.nansum(delta) == pytest.approx(runs.rewards[number] - v[0], abs=1e-3)
        row += run.steps + 1
    assert row == len(values.mean)


def test_a_deterministic_policy_has_the_value_of_its_outcome(tiny_model):
    for temperature, top_p in ((0.0, 1.0), (1.0, 1e-6)):
        runs = sample(tiny_model, PROBLEMS, policy=Policy(temperature, top_p), progress=False)
        values = estimate(tiny_model, runs, k=3, progress=False)
        assert len(set(runs.rewards)) == 2
        assert np.array_equal(values.mean, values.reward)
        assert np.abs(values.delta[values.is_step]).max() <= 1.1e-5


@pytest.mark.parametrize(("batch", "chosen"), [(1, [0]), (7, [3, 9, 2])])
def test_neither_batch_nor_company_changes_a_value(
    tiny_model, runs, values, batch: int, chosen: list[int]
):
    few = estimate(tiny_model, runs.subset(chosen), k=9, batch=batch, progress=False)
    rows = np.concatenate([np.flatnonzero(values.trajectory == number) for number in chosen])
    assert np.array_equal(few.first, values.first[rows]) and np.array_equal(
        few.second, values.second[rows]
    )


def test_pieces_join_to_the_whole(tiny_model, runs, values):
    pieces_ = [
        estimate(tiny_model, runs.subset(part), k=9, progress=False)
        for part in (range(8), range(8, 12), range(12, 24))
    ]
    whole = Values.join(pieces_)
    for name in ("trajectory", "step", "first", "second", "reward", "group"):
        assert np.array_equal(getattr(whole, name), getattr(values, name))
    assert np.array_equal(whole.k, values.k) and whole.seed == 0
    with pytest.raises(MechRewardError, match="one seed and one policy"):
        Values.join([pieces_[0], replace(pieces_[1], seed=8)])


def test_more_continuations_begin_with_the_fewer_and_seeds_differ(tiny_model, runs, values):
    few = runs.subset(range(8))
    rows = values.trajectory < 8
    more = estimate(tiny_model, few, k=18, progress=False)
    assert np.array_equal(more.first, values.successes[rows])
    other = estimate(tiny_model, few, k=9, seed=1, progress=False)
    assert not np.array_equal(other.first, values.first[rows])


@pytest.mark.parametrize("policy", [Policy(), Policy(temperature=1.4, top_p=0.8)], ids=repr)
def test_values_agree_with_answers_of_huggingface_generate(tiny_model, tiny_plain, policy: Policy):
    """Every state of two answers. Four states a policy at 4.5 standard errors: a right estimate
    with other seeds would fail less than once in 10,000."""
    runs = sample(tiny_model, PROBLEMS[:3], k=3, seed=1, policy=policy, progress=False)
    longest = sorted(range(len(runs)), key=lambda i: runs[i].steps)[-2:]
    runs = runs.subset(longest)
    k, n, row, spread = 200, 400, 0, []
    values = estimate(tiny_model, runs, k=k, batch=512, progress=False)
    torch.manual_seed(0)
    for run, problem in zip(runs, runs.problems, strict=True):
        for step, end in enumerate(run.step_ends[:-1]):
            if step < 2:
                prefix = run.tokens[: end + 1][None]
                texts = tiny_plain.generate(
                    prefix,
                    attention_mask=torch.ones_like(prefix),
                    max_new_tokens=TASK.max_tokens - (prefix.shape[1] - run.prompt_len),
                    do_sample=True,
                    top_k=0,
                    temperature=policy.temperature,
                    top_p=policy.top_p,
                    num_return_sequences=n,
                )[:, run.prompt_len :]
                share = np.mean(
                    [TASK.verify(problem, decode(tiny_model, text)).reward for text in texts]
                )
                error = math.sqrt(max(share * (1 - share), 0.01) * (1 / k + 1 / n))
                assert abs(values.mean[row + step] - share) < 4.5 * error
                spread.append(share)
        row += run.steps + 1
    assert len(spread) > 2 and 0.05 < min(spread) < 0.95


def test_reliability(values, tiny_model, runs):
    assert all(-1 <= one <= 1 or math.isnan(one) for one in values.reliability().values())
    n = 400
    rng = np.random.default_rng(0)
    truth = rng.random(n)
    step = np.tile([0, 1], n)
    draws = np.where(np.repeat([True, True], n), rng.binomial(16, np.repeat(truth, 2)), 0)
    first, second = (
        np.where(step == 0, one, 0) for one in (draws, rng.binomial(16, np.repeat(truth, 2)))
    )
    trajectory = np.repeat(np.arange(n), 2)
    reward, k = np.repeat(rng.integers(0, 2, n), 2), np.full(2 * n, 32)
    made = Values(trajectory, step, first, second, reward, trajectory, k)
    # var(p) / (var(p) + E p(1-p) / 32) for uniform p.
    assert made.reliability()["value"] == pytest.approx((1 / 12) / (1 / 12 + 1 / 6 / 32), abs=0.03)
    noise = replace(made, second=rng.permutation(first[::2]).repeat(2) * (step == 0))
    assert abs(noise.reliability()["value"]) < 0.2
    both = np.mean(made.delta_halves(), axis=0)  # k is even: delta is the mean of its halves
    np.testing.assert_allclose(both, made.delta, atol=1e-12)
    one = estimate(tiny_model, runs.subset([0]), k=1, progress=False)
    with pytest.raises(MechRewardError, match="halves need k >= 2"):
        one.reliability()


@settings(max_examples=30)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 7), st.data())
def test_any_values_telescope_and_come_back_from_a_file(
    tmp_path_factory, lengths: list[int], k: int, data
):
    rows = [(t, s, s < n) for t, n in enumerate(lengths) for s in range(n + 1)]
    half = [st.integers(0, size) for size in (k - k // 2, k // 2)]
    first, second = (np.array([data.draw(one) if live else 0 for *_, live in rows]) for one in half)
    outcomes = data.draw(st.lists(st.integers(0, 1), min_size=len(lengths), max_size=len(lengths)))
    trajectory, step, _ = np.array(rows, dtype=np.int64).T
    made = Values(
        trajectory,
        step,
        first,
        second,
        np.array(outcomes)[trajectory],
        trajectory.copy(),
        np.full(len(rows), k),
        seed=5,
    )
    assert made.live.tolist() == [live for *_, live in rows]
    for t, outcome in enumerate(outcomes):
        mine = trajectory == t
        assert np.nansum(made.delta[mine]) == pytest.approx(outcome - made.mean[mine][0], abs=1e-3)
    assert ((made.error > 0) == made.live).all() and np.isnan(made.delta).tolist() == (
        step == 0
    ).tolist()
    back = Values.load(made.save(tmp_path_factory.getbasetemp() / "values"))
    assert back.k.tolist() == [k * live for *_, live in rows] and back.seed == 5
    for name in (
        "trajectory",
        "step",
        "first",
        "second",
        "reward",
        "group",
        "mean",
        "error",
        "delta",
    ):
        assert np.array_equal(getattr(back, name), getattr(made, name), equal_nan=True)


def test_what_cannot_be_estimated(tiny_model, runs, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(MechRewardError, match=r"k counts continuations .* 0 was given"):
        estimate(tiny_model, runs, k=0)
    with pytest.raises(MechRewardError, match="no trajectories"):
        estimate(tiny_model, runs.subset([]))
    strange = ModelId("strange", "0" * 16, "float32", "raw")
    with pytest.raises(
        MechRewardError,
        match=r"set of rollouts was made on strange \(weights 0000.*the model is tiny",
    ):
        estimate(tiny_model, Rollouts(runs.trajectories, runs.problems, runs.policy, strange))
    monkeypatch.setattr(
        value, "generate", lambda *_, **__: pytest.fail("generated for the wrong model")
    )
    with pytest.raises(MechRewardError, match="processing"):
        estimate(
            tiny_model,
            replace(runs, model_id=replace(model_id(tiny_model), processing="compatibility mode")),
        )


def test_the_continuation_limit_is_what_is_left(tiny_model, runs, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def spy(model, jobs, **options):
        asked.extend(jobs)
        assert options["policy"] is runs.policy and options["eos"] == eos_ids(model)
        return value_generate(model, jobs, **options)

    value_generate = value.generate
    monkeypatch.setattr(value, "generate", spy)
    estimate(tiny_model, runs, k=2, progress=False)
    wanted = [
        (end + 1, run.prompt_len + TASK.max_tokens - end - 1)
        for run in runs
        for end in run.step_ends[:-1]
        for _ in "ab"
    ]
    assert [(job.length, job.max_new) for job in asked] == wanted
    assert len({job.key for job in asked}) == len(asked)


def test_an_answer_of_nothing_has_one_state():
    verdict = Verdict("incorrect", "x")
    run = Trajectory("x", torch.tensor([1, 5]), 2, (1,), verdict, torch.zeros(0), True)
    assert (run.steps, run.length, run.reward) == (0, 0, 0)
    text = SimpleNamespace(tokenizer=tiny.tokenizer())
    assert TASK.step_ends(pieces(text, run.tokens), 2) == [1]
