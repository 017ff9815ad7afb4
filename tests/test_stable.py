"""A set found again by its own recipe: the recipe, the second look, the claim."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

import mechreward as mr
from mechreward.causal import claims
from mechreward.causal.certificate import Certificate
from mechreward.causal.material import REPEATS, deal, sample_states
from mechreward.causal.stability import FoundAgain, found_again
from mechreward.causal.verdict import CLAIMS, Claim
from mechreward.probing.neurons import find_again
from mechreward.probing.recipe import Recipe, choice

SIZES = {"train": 40, "test": 20, "n": 20, "seed": 3}
CHANCE = np.full(5, 0.03)


@pytest.fixture(scope="module")
def plant():
    return mr.testbed.planted("value", 3)


@pytest.fixture(scope="module")
def material(plant):
    return deal(plant.task, SIZES, again=True)


@pytest.fixture(scope="module")
def states(plant, material):
    return sample_states(plant.model, material.fit, mr.Site.parse("1.resid_post"), 6, 3)


@pytest.fixture(scope="module")
def chosen(states) -> mr.NeuronSet:
    """Three by correlation, as users find them."""
    _, values, acts = states
    return mr.select(mr.ValueProbe(shape="linear").fit(acts, values), 3 / 64, by="correlation")


def found(*ious: float) -> FoundAgain:
    return FoundAgain(np.array(ious, float), CHANCE[: len(ious)], 20)


# The recipe


def test_select_writes_its_recipe_and_the_file_keeps_it(chosen: mr.NeuronSet, tmp_path: Path):
    recipe = chosen.recipe
    assert recipe is not None
    assert (recipe.probe, recipe.rows, recipe.top, recipe.by) == (
        "value",
        "states",
        3 / 64,
        "correlation",
    )
    assert recipe.params == mr.ValueProbe(shape="linear").get_params()
    back = mr.NeuronSet.load(chosen.save(tmp_path / "set.json"))
    assert back == chosen and back.recipe == recipe


def test_the_same_rows_give_the_same_set_again(chosen: mr.NeuronSet, states):
    _, values, acts = states
    again = find_again(chosen, acts, values, seed=9)
    assert again == chosen and again.recipe == replace(
        chosen.recipe, params=chosen.recipe.params | {"seed": 9}
    )


def test_a_dopamine_set_has_one_too(plant, material):
    _, values, acts = sample_states(
        plant.model, material.fit, mr.Site.parse("1.resid_post"), 6, 3, rows="steps"
    )
    probe = mr.DopamineProbe(cut=0.1, shape="linear").set_params(seed=np.int64(4))
    recipe = mr.select(probe.fit(acts, values), 0.05).recipe
    assert (recipe.probe, recipe.rows, recipe.by) == ("dopamine", "steps", "L1")
    assert recipe.params["cut"] == 0.1 and type(recipe.params["seed"]) is int
    json.dumps(asdict(recipe))


def test_sets_made_otherwise_have_none(plant, chosen: mr.NeuronSet, states, tmp_path: Path):
    _, values, acts = states
    planted = plant.truth.value_neurons["1.resid_post"]
    for made in (planted, chosen | planted, mr.NeuronSet.of(acts, [1, 2], "by hand")):
        assert made.recipe is None
        with pytest.raises(mr.MechRewardError, match="given by hand"):
            find_again(made, acts, values)
    for changed in (
        replace(chosen, indices=chosen.indices[:2]),
        replace(chosen, indices=(1, 2, 5)),
        replace(chosen, site=mr.Site.parse("0.resid_post")),
    ):
        assert chosen.by_recipe and not changed.by_recipe
        with pytest.raises(mr.MechRewardError, match="given by hand"):
            find_again(changed, acts, values)
    older = json.loads(chosen.save(tmp_path / "set.json").read_text())
    del older["seal"], older["recipe"]
    (tmp_path / "older.json").write_text(json.dumps(older))
    assert mr.NeuronSet.load(tmp_path / "older.json").recipe is None


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"probe": "vlaue"}, "did you mean 'value'"),
        ({"by": "L2"}, "ranking"),
        ({"rows": "row"}, "kind of row"),
        ({"top": float("nan")}, "top"),
        ({"top": 2.0}, r"a share in \(0, 1\]"),
        ({"params": {"shape": "cubic"}}, "probe shape"),
        ({"params": {"depth": 3}}, "no parameter depth"),
    ],
)
def test_strange_recipes_are_refused(change: dict, said: str, chosen: mr.NeuronSet, tmp_path: Path):
    with pytest.raises(mr.MechRewardError, match=said):
        Recipe(**(asdict(chosen.recipe) | change))
    damaged = json.loads(chosen.save(tmp_path / "set.json").read_text())
    del damaged["seal"]
    damaged["recipe"] |= change
    (tmp_path / "damaged.json").write_text(json.dumps(damaged))
    with pytest.raises(mr.MechRewardError, match=said) as error:
        mr.NeuronSet.load(tmp_path / "damaged.json")
    assert "\n" not in str(error.value)


def test_activations_of_another_site_are_refused(plant, chosen: mr.NeuronSet, states):
    runs, values, _ = states
    other = mr.record(plant.model, runs, "0.resid_post", progress=False)["0.resid_post"]
    with pytest.raises(mr.MechRewardError, match=r"activations are of 0\.resid_post"):
        find_again(chosen, other, values)


# Problems of the repeats


def test_every_repeat_has_other_problems_and_half_as_many(material):
    assert len(material.again) == REPEATS and {len(some) for some in material.again} == {20}
    names = [frozenset(problem.id for problem in some) for some in material.again]
    assert len(set(names)) == REPEATS
    assert not deal(mr.tasks.Countdown(), SIZES).again


def test_avoided_problems_are_never_dealt(plant):
    from mechreward.causal.material import key_of

    first = deal(plant.task, SIZES, again=True)
    avoid = {key_of(problem) for problem in first.all}
    second = deal(plant.task, SIZES, again=True, avoid=avoid)
    assert avoid.isdisjoint(key_of(problem) for problem in second.all)
    assert second.passed_over > 0 and first.passed_over == 0
    assert [len(part) for part in second[:3]] == [len(part) for part in first[:3]]


# Looked for again


def test_planted_neurons_are_found_again(plant, material, chosen: mr.NeuronSet):
    assert chosen.indices == plant.truth.value_neurons["1.resid_post"].indices
    again = found_again(plant.model, chosen, material.again, 6, seed=3)
    assert again.problems == 20 and again.iou.shape == again.chance.shape == (REPEATS,)
    assert claims.stable(again).verdict == "pass"
    # By hand: 3 of 64 share 9/64 on average.
    assert ((again.chance > 0.02) & (again.chance < 0.2)).all()


def test_what_noise_chose_is_not(plant, material, states, chosen: mr.NeuronSet):
    """Neurons of the last ranks, said to come of a recipe that finds the first."""
    _, values, acts = states
    worst = np.argsort(mr.ValueProbe(shape="linear").fit(acts, values).correlation_)[:3]
    wrong = mr.NeuronSet.of(acts, worst, "worst")
    said = replace(chosen.recipe, chose=choice(wrong.site, wrong.indices))
    wrong = replace(wrong, recipe=said)
    claim = claims.stable(found_again(plant.model, wrong, material.again, 6, seed=3))
    assert claim.verdict == "fail" and "other rollouts find other neurons" in claim.reason


def test_repeats_without_anything_to_learn_leave_it_open(tiny_model):
    """A model that is never right: every repeat fails, the claim says so, nothing is raised."""

    class Never(mr.tasks.Countdown):
        name = "never"

        def verify(self, problem, answer):
            return mr.tasks.Verdict("incorrect")

    task = Never()
    problems = [task.problems("train", 4, seed) for seed in range(2)]
    width = tiny_model.cfg.d_model
    runs = mr.sample(tiny_model, problems[0], progress=False)
    site = mr.Site.parse("0.resid_post")
    recipe = Recipe("value", {"shape": "linear"}, "states", 1 / width, "L1", choice(site, [1]))
    neurons = mr.NeuronSet(site, (1,), width, runs.model_id, recipe=recipe)
    again = found_again(tiny_model, neurons, problems, 2)
    assert np.isnan(again.iou).all()
    claim = claims.stable(again)
    assert claim.verdict == "inconclusive" and "In 2 of 2 repeats" in claim.reason
    assert "run train=32" in claim.reason and "wrong answers" in claim.reason


# The claim


@pytest.mark.parametrize(
    ("ious", "verdict"),
    [
        ((1, 1, 1, 1, 1), "pass"),
        ((1, 0.5, 0.5, 1, 0.5), "pass"),
        ((0, 0, 0, 0, 0), "fail"),
        ((0.2, 0.2, 0, 0.2, 0), "fail"),
        ((0.5, 0.2, 0.5, 0.2, 0.2), "inconclusive"),
        ((1, 0.2, 0.2, 1, 0.2), "inconclusive"),
        ((1, 1, 1, 0, 0), "inconclusive"),  # a median of 1, and an interval that holds chance
    ],
)
def test_stable_needs_the_interval_and_the_median(ious: tuple, verdict: str):
    claim = claims.stable(found(*ious))
    assert claim.verdict == verdict, claim.reason
    assert claim.numbers["median"] == np.median(ious)
    assert claim.numbers["iou"] == pytest.approx(np.mean(ious))
    assert claim.numbers["iou_low"] < claim.numbers["iou_high"]
    assert claim.reason.endswith(".")


def test_overlap_that_chance_gives_is_no_stability():
    """Most of the site in every set: an IoU of .9 is what chance gives."""
    again = replace(found(0.9, 0.9, 0.9, 0.9, 0.9), chance=np.full(5, 0.9))
    assert claims.stable(again).verdict == "inconclusive"


def test_a_set_given_by_hand_is_open():
    claim = claims.stable(None)
    assert claim.verdict == "inconclusive" and "given by hand" in claim.reason


def test_older_certificates_load_with_the_claim_not_run(chosen: mr.NeuronSet, tmp_path: Path):
    passed = tuple(Claim(name, "pass", "Yes.") for name in CLAIMS)
    whole = Certificate(passed, chosen, "x", {"n": 2})
    assert whole.passed
    older = json.loads(whole.save(tmp_path / "now.json").read_text())
    for key in ("seal", "recipe", "registered"):
        del older[key]
    older["claims"].pop()
    (tmp_path / "older.json").write_text(json.dumps(older))
    back = Certificate.load(tmp_path / "older.json")
    assert back["stable"].verdict == "not run" and "certify again" in back["stable"].reason
    assert not back.passed and back.claims[:5] == whole.claims[:5]
    assert "stable" in back.page() and "NOT RUN" in str(back)
