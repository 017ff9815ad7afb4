"""Strange scorers and strange folders: one line with scorer and problem, and nothing finished is
lost or taken for something else."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pytest
import tiny

import mechreward as mr
from mechreward.base.errors import MechRewardError
from mechreward.models.text import UnknownWordWarning
from mechreward.tasks import TextTask
from mechreward.uses.search.search import search

TASK = tiny.Even()
PROBLEMS = TASK.problems("train", 6)


class NoList:
    def tolist(self):
        raise RuntimeError("no list")


class NoNumber:
    def __float__(self):
        raise RuntimeError("no float")


class Endless(list):
    def __iter__(self):
        raise RuntimeError("no end")


def found(model, scorer, **how):
    return search(model, PROBLEMS, scorer, k=2, progress=False, **how)


@pytest.mark.parametrize(
    ("give", "why"),
    [
        (lambda prompt, steps: [10**400] * len(steps), "for a score"),
        (lambda prompt, steps: NoList(), "no list"),
        (lambda prompt, steps: [NoNumber()] * len(steps), "no float"),
        (lambda prompt, steps: Endless([1.0] * len(steps)), "RuntimeError: no end"),
    ],
)
def test_what_a_scorer_gives_is_read_under_its_guard(tiny_model, give, why: str):
    with pytest.raises(MechRewardError, match=why) as caught:
        found(tiny_model, give)
    assert "'<lambda>'" in str(caught.value) and "on problem" in str(caught.value)


def test_a_scorer_may_change_the_list_it_is_given(tiny_model):
    """It is a copy, so that the count of its scores is held against the steps there are."""

    def longer(prompt: str, steps: list[str]) -> list[float]:
        steps.append("one more")
        return [1.0] * len(steps)

    with pytest.raises(MechRewardError, match=r"'longer' gave \d+ scores for \d+ steps"):
        found(tiny_model, longer)


@pytest.mark.unchecked
@pytest.mark.parametrize("timeout", [-1, 0, float("nan"), float("inf"), 1e30, "a", True])
def test_a_timeout_is_seconds(tiny_model, timeout):
    with pytest.raises(MechRewardError, match="timeout"):
        found(tiny_model, lambda prompt, steps: [1.0] * len(steps), timeout=timeout)


@pytest.mark.unchecked
def test_numbers_of_numpy_are_numbers(tiny_model, tmp_path):
    made = found(tiny_model, "random", budget=np.int64(300), block=np.int64(4), out=tmp_path / "a")
    made.save(tmp_path / "made")
    before = sorted((tmp_path / "a").iterdir())
    again = found(tiny_model, "random", budget=300, block=4, out=tmp_path / "a")
    assert sorted((tmp_path / "a").iterdir()) == before
    assert again.scores == made.scores


def test_a_kept_file_of_another_problem_is_refused(tiny_model, tmp_path):
    found(tiny_model, "random", out=tmp_path)
    one, other = sorted(tmp_path.iterdir())[:2]
    shutil.copy(other, one)
    with pytest.raises(MechRewardError, match="should hold the search of problem"):
        found(tiny_model, "random", out=tmp_path)
    runs = mr.sample(tiny_model, PROBLEMS, progress=False)
    runs.save(one)
    with pytest.raises(MechRewardError, match="and holds 'something else'"):
        found(tiny_model, "random", out=tmp_path)


def test_an_edited_function_starts_anew(tiny_model, tmp_path):
    def score(prompt: str, steps: list[str]) -> list[float]:
        return [1.0 * len(step) for step in steps]

    first = score

    def score(prompt: str, steps: list[str]) -> list[float]:
        return [-1.0 * len(step) for step in steps]

    kept = found(tiny_model, first, out=tmp_path)
    count = len(list(tmp_path.iterdir()))
    assert found(tiny_model, first, out=tmp_path).scores == kept.scores
    assert len(list(tmp_path.iterdir())) == count
    assert found(tiny_model, score, out=tmp_path).scores == found(tiny_model, score).scores
    assert len(list(tmp_path.iterdir())) == 2 * count


def test_problems_are_kept_as_they_end(tiny_model, tmp_path):
    """Stopped in the middle of a batch: those that were done by then are there."""
    calls = []

    def stopped(prompt: str, steps: list[str]) -> list[float]:
        calls.append(len(steps))
        if len(steps) > 3:
            raise KeyboardInterrupt
        return [0.0] * len(steps)

    with pytest.raises(KeyboardInterrupt):
        found(tiny_model, stopped, out=tmp_path)
    assert max(calls) > 3, "some answer is longer than three steps"
    assert 0 < len(list(tmp_path.iterdir())) < len(PROBLEMS)


def test_words_that_the_tokenizer_does_not_know_are_named(tiny_model):
    rows = [{"question": f"What is {n} + 3?", "answer": str(n + 3)} for n in range(60)]
    task = TextTask(rows, verify="number", max_tokens=8)
    problems = task.problems("train", 4)
    with pytest.warns(UnknownWordWarning, match="does not know 'What'"):
        search(tiny_model, problems, "random", progress=False)
    with pytest.warns(UnknownWordWarning, match="does not know 'What'"):
        mr.sample(tiny_model, problems, progress=False)
    known = PROBLEMS[:2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mr.sample(tiny_model, known, progress=False)


def test_neurons_are_no_names(tiny_model):
    with pytest.raises(MechRewardError, match="NeuronSet"):
        found(tiny_model, "dopamine")
