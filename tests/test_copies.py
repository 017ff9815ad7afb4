"""Copies are not independent: groups are prompts, a problem that is there twice is refused."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import rows as made
import tiny
import torch

import mechreward as mr
from mechreward import stats
from mechreward.base.errors import MechRewardError
from mechreward.causal.effect import Arm, Effect
from mechreward.experiments.split import check_splits
from mechreward.models.engine import Policy
from mechreward.models.identity import model_id
from mechreward.rollouts.continuations import beginnings
from mechreward.rollouts.trajectory import Rollouts, Trajectory, check_apart, check_distinct
from mechreward.tasks import Problem, Task, Verdict


def problem(number: str, prompt: str) -> Problem:
    return Problem(number, prompt, "", {}, tiny.Even())


def rollouts(*problems: Problem) -> Rollouts:
    runs = []
    for one in problems:
        verdict = Verdict("correct")
        runs.append(Trajectory(one.id, torch.arange(4), 2, (1, 3), verdict, torch.zeros(2), True))
    return Rollouts(tuple(runs), tuple(problems), Policy(), made.MODEL)


def test_groups_are_prompts():
    runs = rollouts(problem("a", "x"), problem("b", "y"), problem("c", "x"), problem("b", "y"))
    assert runs.groups == [0, 1, 0, 1]
    interval = stats.cluster_bootstrap(np.mean, np.array([0.0, 1, 0, 1]), np.array(runs.groups))
    assert interval.n == 2


def test_without_prompts_ids_are_groups():
    runs = rollouts(problem("a", ""), problem("b", ""), problem("a", ""))
    assert runs.groups == [0, 1, 0]


@pytest.mark.unchecked
def test_a_prompt_of_messages_or_tokens_is_a_prompt_too():
    runs = rollouts(problem("a", [1, 2]), problem("b", [1, 3]), problem("c", (1, 2)))  # type: ignore
    assert runs.groups == [0, 1, 0]


def test_one_id_with_two_prompts_is_refused():
    with pytest.raises(MechRewardError, match="id 'a' stands for two prompts, 'x' and 'y'"):
        rollouts(problem("a", "x"), problem("a", "y"))
    with pytest.raises(MechRewardError, match="two prompts"):
        check_distinct([problem("a", "x"), problem("a", "y")])


def test_the_same_problems_five_times_over_are_refused():
    """McNemar of 3 lost and 1 won is .625; of five copies it would be .0414."""
    before, after = np.array([1, 1, 1, 0, 1, 0]), np.array([0, 0, 0, 1, 1, 0])
    assert stats.mcnemar(before, after) == 0.625
    assert stats.mcnemar(np.tile(before, 5), np.tile(after, 5)) < 0.05
    some = [problem(f"p{number}", f"prompt {number}") for number in range(6)]
    renamed = [replace(one, id=f"again {one.id}") for one in some]
    for copies in (some * 5, some + renamed):
        with pytest.raises(MechRewardError, match=f"{len(copies) - 6} of {len(copies)} problems"):
            check_distinct(copies)
    check_distinct(some)


def test_whoever_asks_the_model_refuses_copies(tiny_model):
    some = tiny.Even().problems("test", 3)
    neurons = mr.NeuronSet(mr.Site(1, "mlp"), (1,), 48, model_id(tiny_model))
    for asks in (
        lambda: mr.sample(tiny_model, some * 2, progress=False),
        lambda: beginnings(tiny_model, some * 2),
        lambda: mr.ablate(tiny_model, some * 2, neurons, progress=False),
    ):
        with pytest.raises(MechRewardError, match="3 of 6 problems are copies"):
            asks()


def test_an_effect_of_copies_is_refused():
    arm = Arm("baseline", "", 0, (), np.ones(4, int), {})
    with pytest.raises(MechRewardError, match="2 of 4 problems of the effect are copies"):
        Effect(made.neurons(1), arm, (), ("a", "b", "a", "b"), (), 0)


@pytest.mark.unchecked
def test_splits_that_share_a_prompt_are_refused():
    train = [problem(f"p{number}", f"prompt {number}") for number in range(20)]
    test = [replace(one, id=f"other {one.id}") for one in train[:10]]
    with pytest.raises(MechRewardError, match="10 of 10 test prompts stand in train too"):
        check_apart(train=train, test=test)
    check_apart(train=train, test=[problem("q", "another")], ablated=[])
    sides = [SimpleNamespace(runs=rollouts(*problems)) for problems in (train, test)]
    with pytest.raises(MechRewardError, match=r"first that of 'other p0' \(there 'p0'\)"):
        check_splits(train=sides[0], test=sides[1])  # type: ignore


class Twins(Task):
    """Every prompt has two ids."""

    name = "twins"
    max_tokens = 4

    def draw(self, rng: random.Random) -> Problem:
        number = rng.randrange(40)
        return Problem(f"{number}, {rng.randrange(2)}", f"prompt {number}", "")

    def verify(self, problem: Problem, text: str) -> Verdict:
        return Verdict("incorrect", "")


def test_a_task_deals_every_prompt_once_a_split():
    problems = Twins().problems("train", 20)
    assert len({one.prompt for one in problems}) == 20
    with pytest.raises(MechRewardError, match="prompts stand in train too"):
        check_apart(train=problems, test=Twins().problems("test", 5))
