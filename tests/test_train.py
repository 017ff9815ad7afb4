"""Training is seeded and resumable: stopped and gone on with, it gives the weights of a run that
was never stopped."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mechreward.base.errors import MechRewardError
from mechreward.base.files import read_tensors
from mechreward.bundled import train
from mechreward.bundled.train import RECIPES, Recipe
from mechreward.tasks.base import Problem, Verdict, split_of
from mechreward.tasks.lines import LineTask

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
IMITATES = replace(
    RECIPES["countdown-base"], name="first", parent=None, steps=6, batch=4, save_every=2
)
REINFORCES = replace(
    RECIPES["mixed-rl"], name="second", parent="first", steps=3, batch=3, save_every=1
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        train, "ARCHITECTURE", train.ARCHITECTURE | TINY | {"intermediate_size": 24}
    )
    monkeypatch.setattr(train, "validate", lambda *_: {})


def by_chance(task: LineTask, problem: Problem, text: str) -> Verdict:
    """An untrained model is never right."""
    return Verdict("correct" if len(text.split()) % 2 else "incorrect", "")


class Stop(Exception):
    pass


def stopped(recipe: Recipe, work: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until the update `after`, and stop in the middle of it."""
    name = "imitate" if recipe.solver else "reinforce"
    real = getattr(train, name)

    def until(*args):
        if args[-1] == after:
            raise Stop
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(train, name, until)
        with pytest.raises(Stop):
            train.train(recipe, work, "cpu")


def test_a_stopped_run_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(LineTask, "verify", by_chance)
    for recipe, after in ((IMITATES, 5), (REINFORCES, 2)):
        ends = []
        for work in (tmp_path / "straight", tmp_path / "stopped"):
            if work.name == "stopped":
                stopped(recipe, work, after, monkeypatch)
            train.train(recipe, work, "cpu")
            ends.append(read_tensors(work / recipe.name / "checkpoint.safetensors", "checkpoint"))
        (one, about), (other, again) = ends
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
        assert [row["step"] for row in about["log"]] == [row["step"] for row in again["log"]]
        assert (
            about["step"] == recipe.steps and len(about["log"]) == recipe.steps // recipe.save_every
        )


def test_a_checkpoint_of_another_recipe_is_not_gone_on_with(tmp_path: Path):
    train.train(replace(IMITATES, steps=2), tmp_path, "cpu")
    before = (tmp_path / "first" / "checkpoint.safetensors").read_bytes()
    with pytest.raises(MechRewardError, match="begun with another recipe: remove it"):
        train.train(IMITATES, tmp_path, "cpu")
    assert (tmp_path / "first" / "checkpoint.safetensors").read_bytes() == before


def test_answers_that_are_all_alike_change_nothing(tmp_path: Path):
    for recipe in (replace(IMITATES, steps=2), replace(REINFORCES, steps=2)):
        train.train(recipe, tmp_path, "cpu")
    first, _ = read_tensors(tmp_path / "first" / "checkpoint.safetensors", "checkpoint")
    second, about = read_tensors(tmp_path / "second" / "checkpoint.safetensors", "checkpoint")
    assert {row["mixed_groups"] for row in about["log"]} == {0.0}
    assert all(torch.equal(first[key], second[key]) for key in first if key.startswith("model."))


def test_training_learns(tmp_path: Path):
    recipe = replace(IMITATES, steps=60, batch=8, save_every=20, learning_rate=1e-2)
    _, about = read_tensors(
        train.train(recipe, tmp_path, "cpu") / "checkpoint.safetensors", "checkpoint"
    )
    losses = [row["loss"] for row in about["log"]]
    assert losses[-1] < losses[0] - 0.5


def test_problems_are_of_the_training_split():
    drawn = list(train.draw_problems(train.RL_MIXTURE, 200, random.Random(0)))
    assert {split_of(problem.id) for _, problem in drawn} == {"train"}
    assert {task.name for task, _ in drawn} >= {"countdown", "paths"}
