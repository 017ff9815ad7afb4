"""R10 and R14 on planted models, where dynamic programming says what steering and zeroing must
do."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import mechreward as mr
from mechreward import experiments as paper
from mechreward import stats
from mechreward.causal.steering import matched_pushes, own_push, random_pushes
from mechreward.probing.targets import steps

SITE = "1.resid_post"


@cache
def plant(name):
    return mr.testbed.planted(name)


@cache
def seen(name, split="train", n=30):
    here = plant(name)
    runs = mr.sample(here.model, here.task.problems(split, n), progress=False)
    return runs, mr.estimate(here.model, runs, k=6, progress=False)


def row(rows, **wanted):
    (found,) = [
        one
        for one in rows
        if all(getattr(one, key, one.detail.get(key)) == value for key, value in wanted.items())
    ]
    return found


@cache
def dependence():
    """Value units of layer 0 under dopamine units of layer 1, beside units that write nothing of
    the kind."""
    here, (runs, values) = plant("value-mlp"), seen("value-mlp")
    dopamine, value = here.truth.dopamine_neurons["1.mlp"], here.truth.value_neurons["0.mlp"]
    acts = mr.record(here.model, runs, "1.mlp", rows="steps", progress=False)["1.mlp"]
    others = [i for i in range(96) if i not in value.indices]
    draws = [[replace(value, indices=tuple(others[d : d + 3]))] for d in range(0, 15, 3)]
    about = paper.shared("R10", "planted", "planted", dopamine.site, 0)
    zeroed = {"value": [[value]], "matched": draws}
    return paper.R10(here.model, runs, values, steps(acts, values), dopamine, zeroed, about)


def test_dopamine_dies_with_value_and_not_with_others():
    rows = dependence()
    clean = row(rows, arm="baseline", metric="spearman").estimate
    runs, values = seen("value-mlp")
    exact = plant("value-mlp").truth.values(runs)[1][values.is_step]
    # A perfect reader of the exact delta against an estimate from six continuations; delta has few
    # values, and what the units add to it (1e-3) breaks its ties, which costs some hundredths of a
    # Spearman.
    perfect = stats.spearman(exact, values.delta[values.is_step])
    assert perfect - 0.05 < clean < perfect + 0.01 and clean > 0.4
    assert row(rows, arm="value", metric="spearman").estimate == pytest.approx(0, abs=0.25)
    assert row(rows, arm="value", metric="change").high < -0.2
    for draw in range(5):
        assert row(rows, arm="matched", metric="change", draw=draw).estimate == pytest.approx(
            0, abs=0.02
        )
    beyond = row(rows, arm="value", metric="beyond_matched")
    assert (
        beyond.high < -0.2
        and beyond.detail["rank"] == 1
        and beyond.detail["p_rank"] == pytest.approx(1 / 6)
    )


def test_what_is_zeroed_lies_below():
    here, (runs, values) = plant("value-mlp"), seen("value-mlp")
    dopamine = here.truth.dopamine_neurons["1.mlp"]
    fit = steps(mr.record(here.model, runs, "1.mlp", rows="steps", progress=False)["1.mlp"], values)
    with pytest.raises(mr.MechRewardError, match="no earlier layer"):
        paper.R10(
            here.model,
            runs,
            values,
            fit,
            dopamine,
            {"value": [[dopamine]], "matched": [[dopamine]]},
            {},
        )
    with pytest.raises(mr.MechRewardError, match="needs the arms value and matched"):
        paper.R10(here.model, runs, values, fit, dopamine, {"value": []}, {})


@cache
def steerable():
    """The planted model, clean rollouts, activations at tokens and states, which way V goes, and
    the set's push."""
    here, (runs, values) = plant("value"), seen("value")
    acts = mr.record(here.model, runs, SITE, progress=False)[SITE]
    tokens = mr.record(here.model, runs, SITE, rows="tokens", progress=False)
    toward = np.where(values.live, values.mean, np.nan)
    return here, runs, tokens, acts, toward, own_push(here.truth.value_neurons[SITE], acts, toward)


@cache
def both_ways():
    here, runs, tokens, acts, toward, push = steerable()
    about = paper.shared("R14", "planted", "planted", SITE, 0)
    rows = paper.R14(
        here.model,
        here.task.problems("test", 60),
        [push, *random_pushes(push, tokens[SITE], acts, toward, 2)],
        about,
        runs=runs,
        tokens=tokens,
        strengths=(-0.2, 0.2),
        states=12,
        k=8,
    )
    return rows, push


def test_steering_does_what_dynamic_programming_says():
    rows, push = both_ways()
    here = plant("value")
    problems = here.task.problems("test", 60)
    for strength in (-0.2, 0.2):
        exact = here.truth.accuracy(problems, push.by(strength))
        found = row(rows, arm="value", metric="accuracy", strength=strength, place="all")
        assert abs(found.estimate - exact) < 4 * np.sqrt(max(exact * (1 - exact), 0.01) / 60)
        low = row(rows, arm="value", metric="back", strength=-0.2, place="all").estimate
        assert 0 <= low <= 1
        value = row(rows, arm="value", metric="value", strength=strength)
        still = row(rows, arm="baseline", metric="value")
        assert np.sign(value.estimate - still.estimate) == np.sign(strength)
    gap = row(rows, arm="value", metric="contrast", place="all")
    ups = [
        row(rows, arm="value", metric="accuracy", strength=s, place="all").estimate
        for s in (0.2, -0.2)
    ]
    assert gap.estimate == pytest.approx(ups[0] - ups[1]) and gap.low > 0


def test_random_directions_of_one_displacement_do_nothing_here():
    rows, _ = both_ways()
    for strength in (-0.2, 0.2):
        assert row(rows, arm="random", metric="change", strength=strength).estimate == 0
        mine, other = (
            row(rows, arm=arm, metric="accuracy", strength=strength, place="all")
            for arm in ("value", "random")
        )
        assert mine.detail["displacement"] == pytest.approx(other.detail["displacement"], rel=1e-5)
    assert row(rows, arm="random", metric="contrast").estimate == 0


def test_a_contrast_that_is_seen_is_ranked_among_all_matched_sets():
    """Nothing but the set moves this model: all 19 are run where the set does, and only there, and
    none moves it."""
    here, runs, tokens, acts, toward, push = steerable()
    others = matched_pushes(push, tokens[SITE], acts, toward, 19)
    about = paper.shared("R14", "planted", "planted", SITE, 0)
    for arm in ("value", "unmoved"):
        own = push if arm == "value" else replace(others[-1], arm="value")
        rows = paper.R14(
            here.model, here.task.problems("test", 40), [own, *others], about,
            runs=runs, tokens=tokens, strengths=(-1, 1), places=("all", "late"), states=4, k=2,
        )  # fmt: skip
        found = [one for one in rows if one.arm == "matched" and one.metric == "contrast"]
        if arm == "unmoved":
            assert [one.n for one in found] == [2] and "p_rank" not in found[0].detail
            continue
        assert {one.detail["place"]: one.n for one in found} == {"all": 19, "late": 19}
        assert all(one.detail["p_rank"] == 0.05 and one.estimate == 0 for one in found)
        assert row(rows, arm="matched", metric="accuracy", strength=1).n == 2


def test_early_and_late_have_their_own_rows():
    rows, _ = both_ways()
    for place in ("early", "late"):
        assert row(rows, arm="value", metric="contrast", place=place).estimate >= 0
    meters = {one.metric for one in rows if one.arm == "value" and one.detail.get("place") == "all"}
    assert {
        "parse_rate",
        "eos_rate",
        "truncation_rate",
        "length",
        "kl",
        "change_norm",
        "value",
        "back",
    } <= meters
