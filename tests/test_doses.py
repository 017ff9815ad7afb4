"""Doses, patches up and down, and other tasks, on planted models, where dynamic programming says
what must happen."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut

import mechreward as mr
from mechreward import experiments as paper
from mechreward.causal.effect import CleanText, ablate
from mechreward.causal.steering import like, own_push
from mechreward.experiments.doses import TEXTS
from mechreward.experiments.steering_run import CURVE
from mechreward.models.site import Site
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.ridge import RIDGES

SITE = "1.resid_post"


def only(rows, **wanted):
    (found,) = [
        one
        for one in rows
        if all(getattr(one, key, one.detail.get(key)) == value for key, value in wanted.items())
    ]
    return found


@cache
def plant():
    return mr.testbed.planted("value")


@cache
def split(name="train", n=40):
    here = plant()
    runs = mr.sample(here.model, here.task.problems(name, n), progress=False)
    return paper.observe(
        here.model, runs, mr.estimate(here.model, runs, k=6, progress=False), [Site.parse(SITE)]
    )


def pushes(inert: int = 2):
    train, own = split(), plant().truth.value_neurons[SITE]
    acts, toward = train.at_states[SITE], np.where(train.values.live, train.values.mean, np.nan)
    push = own_push(own, acts, toward)
    free = [i for i in range(acts.width) if i not in own.indices][:inert]
    others = [
        like(push, NeuronSet.of(acts, [i], "other"), acts, toward, "matched", i) for i in free
    ]
    return push, others


def test_a_dose_is_what_dynamic_programming_says():
    here, (push, others) = plant(), pushes()
    problems, about = (
        here.task.problems("test", 60),
        paper.shared("R14", "planted", "planted", SITE, 0),
    )
    rows = paper.share_dose(here.model, problems, {0.05: [push, *others]}, about)
    exact = {
        "zero": here.truth.accuracy(problems, mr.zero(push.neurons)),
        "still": here.truth.accuracy(problems),
    }
    exact |= {
        "up": here.truth.accuracy(problems, push.by(1)),
        "down": here.truth.accuracy(problems, push.by(-1)),
    }

    def near(found: float, true: float) -> bool:
        return abs(found - true) < 4 * np.sqrt(max(true * (1 - true), 0.01) / 60)

    zeroed = only(rows, arm="value", metric="accuracy_zeroed")
    still = only(rows, arm="baseline", metric="accuracy_zeroed")
    assert near(zeroed.estimate, exact["zero"]) and near(still.estimate, exact["still"])
    change = only(rows, arm="value", metric="change_zeroed")
    assert change.estimate == pytest.approx(zeroed.estimate - still.estimate)
    gap = only(rows, arm="value", metric="contrast_at_share")
    assert (
        gap.estimate == pytest.approx(exact["up"] - exact["down"], abs=0.2)
        and gap.detail["p_mcnemar"] < 1e-6
    )
    beside = only(rows, arm="matched", metric="contrast_at_share")
    assert beside.detail["sets"] == beside.n == 2 and beside.low <= beside.estimate <= beside.high


def test_controls_get_the_damage_of_the_set_and_are_no_match_for_it():
    """By dynamic programming for the set; controls that no strength damages so far are counted, and
    leave no row."""
    here, (push, others) = plant(), pushes()
    problems, about = (
        here.task.problems("test", 60),
        paper.shared("R14", "planted", "planted", SITE, 0),
    )
    train, text = split(), CleanText(here.model, split().runs, TEXTS)
    tokens = mr.record(here.model, train.runs, SITE, rows="tokens", progress=False)
    acts, toward = train.at_states[SITE], np.where(train.values.live, train.values.mean, np.nan)
    token = NeuronSet.of(acts, here.truth.decoys["next_token"], "read, but not for V")
    able = like(push, token, acts, toward, "random")
    given = [push, *others, able]
    rows = paper.same_damage(
        here.model, problems, given, about, runs=train.runs, tokens=tokens, strength=1
    )
    own, beside = only(rows, arm="value"), only(rows, arm="random")
    exact = here.truth.accuracy(problems, push.by(1)) - here.truth.accuracy(problems, push.by(-1))
    assert own.estimate == pytest.approx(exact, abs=0.2) and own.detail["p_mcnemar"] < 1e-6

    def kl(one, strength):
        return np.mean(
            [text.compare(one.by(sign * strength), tokens[SITE])["kl"] for sign in (-1, 1)]
        )

    assert own.detail["kl"] == pytest.approx(kl(push, 1))
    assert {row.arm for row in rows} == {
        "value",
        "random",
    }  # nothing reads the matched ones: no strength is enough
    factor = beside.detail["factor"]
    assert factor > 1 and kl(able, 0.95 * factor) < own.detail["kl"] <= kl(able, factor)
    many = [push, *(like(push, token, acts, toward, "matched", draw) for draw in range(3))]
    rows = paper.same_damage(
        here.model, problems, many, about, runs=train.runs, tokens=tokens, strength=1
    )
    assert only(rows, arm="matched").detail["sets"] == 3 > CURVE, (
        "a contrast that is seen stands beside all"
    )


def test_shares_of_as_many_neurons_are_one():
    train, here = split(), plant()
    probe = mr.ValueProbe("mc", "linear").fit(train.at_states[SITE], train.values)
    found = paper.by_share(
        here.model, train, probe, Site.parse(SITE), shares=(0.001, 0.01, 0.05), draws=2
    )
    assert {share: len(sets[0].neurons) for share, sets in found.items()} == {0.001: 1, 0.05: 3}
    for sets in found.values():
        assert [one.norm for one in sets] == pytest.approx([sets[0].norm] * len(sets), rel=1e-5)


def test_patches_go_both_ways_and_equal_states_stay():
    """The policy reads V from these neurons alone: the set does what all neurons do, pair by pair.
    As it does something it stands beside all matched sets; one that does nothing, beside the first
    few."""
    push, others = pushes(5)
    about = paper.shared("R14", "planted", "planted", SITE, 0)
    sets = {"value": (push.neurons, [one.neurons for one in others])}
    # K of 32: how often an answer turns back, a tenth of the time, is the noisiest of all.
    rows = paper.both_patched(plant().model, split("test"), sets, about, pairs=20, k=32)
    up, down = (only(rows, arm="value", metric="patched", into=into) for into in ("low", "high"))
    assert up.low > 0.1 and down.high < -0.1
    for into, own in (("low", up), ("high", down)):
        assert only(rows, arm="all neurons", metric="patched", into=into).estimate == pytest.approx(
            own.estimate
        )
        assert only(rows, arm="matched", metric="patched", into=into).estimate == pytest.approx(
            0, abs=0.1
        )
        assert only(rows, arm="matched", metric="patched_back", into=into).n == 5
    inert = {"value": (others[0].neurons, [one.neurons for one in others])}
    still = paper.both_patched(plant().model, split("test"), inert, about, pairs=20, k=8)
    assert {row.n for row in still if row.arm == "matched"} == {3}
    assert abs(only(rows, arm="value", metric="patched", into="equal").estimate) < up.estimate / 2
    for metric in ("patched_back", "patched_ended"):
        for into in ("low", "high"):
            own, whole = (
                only(rows, arm=arm, metric=metric, into=into) for arm in ("value", "all neurons")
            )
            assert own.estimate == whole.estimate and own.detail["pairs"] == own.n
    less, more = (
        only(rows, arm="value", metric="patched_back", into=into).estimate
        for into in ("low", "high")
    )
    assert less < more  # the policy turns back where V is low


def test_other_rankings_stand_beside_the_set_pair_by_pair():
    """The set against itself is 0 exactly; neurons that nothing reads cost nothing: the gap is the
    set's own cost."""
    here, own = plant(), plant().truth.value_neurons[SITE]
    problems = here.task.problems("test", 30)
    effect = ablate(here.model, problems, own, draws=3, random_draws=1, progress=False)
    acts = mr.record(here.model, split().runs, SITE, rows="tokens", progress=False)[SITE]
    unread = [NeuronSet.of(acts, here.truth.decoys[name], name) for name in ("length", "length")]
    about = paper.shared("R4", "planted", "planted", SITE, 0)
    sets, ops = {"itself": [own], "unread": unread}, ("zero", "mean")
    rows = paper.other_rankings(here.model, problems, effect, sets, acts, about, ops=ops)
    damage = effect.draws("value", "zero")[0].damage
    for key in ("parse_rate", "eos_rate", "truncation_rate", "length"):
        assert only(rows, arm="itself", metric=key, op="zero").estimate == pytest.approx(
            damage[key]
        )
    for op in ops:
        same = only(rows, arm="itself", metric="gap", op=op)
        assert (same.estimate, same.detail["p"], same.detail["shared"]) == (0, 1, len(own))
        assert (
            only(rows, arm="itself", metric="accuracy", op=op).estimate
            == effect.draws("value", op)[0].accuracy
        )
        gap, change = only(rows, arm="unread", metric="gap", op=op), effect.summary(op)["change"]
        assert gap.estimate == pytest.approx(-change.estimate, abs=0.05) and gap.detail["sets"] == 2
    with pytest.raises(mr.MechRewardError, match="other problems"):
        paper.other_rankings(here.model, problems[::-1], effect, {"itself": [own]}, acts, about)


def test_random_weights_read_the_same_answers_and_the_same_values():
    """Against TransformerLens's own cache of the randomised model, the same rows, and
    scikit-learn's ridge, its penalty searched for by leaving out each problem."""
    from mechreward.models.identity import randomised

    here, train, test = plant(), split(), split("test")
    about = paper.shared("R1", "planted", "planted", SITE, 3)
    rows = paper.random_weights(here.model, train, test, Site.parse(SITE), about)
    assert {(row.arm, row.detail["shape"]) for row in rows} == {
        ("random_weights", "mlp"),
        ("random_weights", "linear"),
    }
    other, sides = randomised(here.model, 3), []
    for part in (train, test):
        cached = [
            other.run_with_cache(run.tokens[None])[1][Site.parse(SITE).hook][0] for run in part.runs
        ]
        x = np.concatenate(
            [one[list(run.step_ends)].numpy() for one, run in zip(cached, part.runs, strict=True)]
        )
        sides += [x[part.values.live], part.values.mean[part.values.live]]
    fit, goal, held, true = sides
    mean, deviation = fit.mean(0), np.where(fit.std(0) > 1e-8, fit.std(0), np.inf)
    ridge = GridSearchCV(
        Ridge(),
        {"alpha": [penalty * len(fit) for penalty in RIDGES]},
        cv=LeaveOneGroupOut(),
        scoring="neg_mean_squared_error",
    ).fit((fit - mean) / deviation, goal, groups=train.values.group[train.values.live])
    found = only(rows, metric="spearman", shape="linear")
    assert found.estimate == pytest.approx(
        spearmanr(ridge.predict((held - mean) / deviation), true)[0], abs=1e-3
    )


def test_other_tasks_are_measured_where_the_model_solves_any():
    here, own = plant(), plant().truth.value_neurons[SITE]
    problems = here.task.problems("test", 30)
    options = {"draws": 6, "random_draws": 1, "progress": False}
    effect = ablate(here.model, here.task.problems("test", 20, 1), own, ops=("zero",), **options)
    acts = mr.record(here.model, split().runs, SITE, rows="tokens", progress=False)[SITE]
    about = paper.shared("R4", "planted", "planted", SITE, 0)
    rows = paper.elsewhere(here.model, {"itself": problems}, effect, acts, about)
    base, value = (
        only(rows, arm=arm, metric="accuracy_elsewhere") for arm in ("baseline", "value")
    )
    for found, exact in (
        (base, here.truth.accuracy(problems)),
        (value, here.truth.accuracy(problems, mr.zero(own))),
    ):
        assert abs(found.estimate - exact) < 4 * np.sqrt(max(exact * (1 - exact), 0.01) / 30)
    change = only(rows, arm="value", metric="change_elsewhere")
    assert change.estimate == pytest.approx(value.estimate - base.estimate)
    beside = only(rows, arm="matched", metric="accuracy_elsewhere")
    assert change.detail["p_mcnemar"] <= 0.05 and beside.detail["sets"] == 6, (
        "seen, so all matched sets are run"
    )
    unread = ablate(
        here.model,
        problems[:8],
        NeuronSet.of(acts, here.truth.decoys["length"], "length"),
        **options,
    )
    still = paper.elsewhere(here.model, {"itself": problems}, unread, acts, about)
    assert only(still, arm="matched", metric="accuracy_elsewhere").detail["sets"] == 5
    lost = [
        problem
        for problem in problems
        if not mr.sample(here.model, [problem], progress=False).rewards[0]
    ][:4]
    few = paper.elsewhere(here.model, {"lost": lost}, effect, acts, about)
    assert [(row.arm, row.estimate) for row in few] == [("baseline", 0.0)]
