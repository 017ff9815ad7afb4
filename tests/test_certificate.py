"""The certificate on planted models, its judges on numbers written down by hand, its file, and
hostile input."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tiny
import torch

import mechreward as mr
from mechreward import experiments as paper
from mechreward import stats
from mechreward.calibration.certificates import certificates, pooled, rates, recipe, suspects
from mechreward.causal import claims, trials
from mechreward.causal.certificate import Certificate, certify
from mechreward.causal.material import deal
from mechreward.causal.steering import like, matched_pushes, own_push, rival
from mechreward.causal.trials import Patched, Steered
from mechreward.causal.verdict import CLAIMS, Claim
from mechreward.causal.verdict import verdicts as judged
from mechreward.experiments.certificate import claim_rows
from mechreward.probing.evidence import Beyond, Evidence
from mechreward.rollouts.continuations import Answers, answer, beginnings
from mechreward.rollouts.sample import sample_arms
from mechreward.stats import Interval

# Smaller than the documented n, with 99 draws all the same: the tests take seconds, the rates take
# minutes.
SMALL = {"train": 24, "test": 24, "k": 6, "n": 30, "pairs": 24, "progress": False}


@cache
def plant(name):
    return mr.testbed.planted(name, 1)


@cache
def certified(name) -> Certificate:
    here = plant(name)
    fewer = (
        {"train": 40, "test": 60, "k": 12, "pairs": 60}
        if name == "value"
        else {"draws": 19, "n": 60}
    )
    neurons = suspects(here)
    if name == "value":
        neurons = replace(neurons, recipe=recipe(neurons))
    return certify(here.model, here.task, neurons, seed=1, **(SMALL | fewer))


def verdicts(name):
    return judged(certified(name).claims)


# On models whose truth is known


def test_a_planted_value_set_passes_every_claim():
    assert verdicts("value") == dict.fromkeys(CLAIMS, "pass")
    assert certified("value").passed
    numbers = certified("value")["causal"].numbers
    here = plant("value")
    problems = deal(here.task, {"train": 40, "test": 60, "n": 30, "seed": 1}).steered
    assert numbers["accuracy"] == np.mean(
        mr.sample(here.model, problems, seed=1, progress=False).rewards
    )
    assert numbers["draws_run"] == numbers["draws"] == 99
    assert numbers["p_rank"]["reward"] == 0.01
    assert numbers["accuracy_zero"] < 0.05, "V reads 0 without the set: every answer ends wrong"


def test_encoded_but_unread_is_no_cause():
    found = verdicts("encoded")
    assert found["decodable"] == "pass", "it is read there, if not by the model"
    assert found["causal"] == found["specific"] == found["sufficient"] == "fail"
    numbers = certified("encoded")["causal"].numbers
    assert numbers["contrast"] == 0 and numbers["draws_run"] < 19, (
        "it ties with the first draws: no need for more"
    )


def test_rows_hold_what_decides_and_the_verdict():
    found = certified("encoded")
    rows = claim_rows(
        found, paper.shared("certificate", "planted-encoded", "planted", found.neurons.site, 1)
    )
    assert [row.metric for row in rows] == list(CLAIMS) and {row.arm for row in rows} == {"value"}
    cause, numbers = rows[2], found["causal"].numbers
    assert (cause.estimate, cause.low, cause.high) == tuple(
        numbers[f"contrast{end}"] for end in ("", "_low", "_high")
    )
    assert (
        cause.n == 60
        and cause.detail["verdict"] == "fail"
        and cause.detail["reason"] == found["causal"].reason
    )
    assert rows[4].n == found["sufficient"].numbers["pairs"] and rows[0].n == 24


def test_nothing_can_be_read_where_value_is_constant():
    found = verdicts("null")
    assert "pass" not in found.values(), found
    numbers = certified("null")["decodable"].numbers
    assert numbers["p"] > 0.05 and numbers["spearman_low"] < 0 < numbers["spearman_high"]


def test_redundant_neurons_are_not_sparse():
    here = plant("redundant")
    neurons = here.truth.value_neurons["1.resid_post"]
    few = replace(neurons, indices=neurons.indices[:3])
    found = certify(
        here.model, here.task, few, **(SMALL | {"draws": 19, "n": 10, "pairs": 4, "k": 4})
    )
    assert found["sparse"].verdict == "fail" and "redundan" in found["sparse"].reason
    assert found["causal"].verdict != "pass"


def test_suspects_hold_the_decoy():
    for name in ("sink", "large"):
        assert set(plant(name).truth.decoys[name]) < set(suspects(plant(name)).indices)
    assert suspects(plant("null")).indices == plant("null").truth.decoys["level"]


# Answers, directions and pairs


def test_answers_are_those_of_sample(tiny_model):
    problems = tiny.Even().problems("test", 6)
    neurons = mr.NeuronSet(
        mr.Site(1, "mlp"), (1, 5), 48, mr.sample(tiny_model, problems, progress=False).model_id
    )
    edits = [(), (mr.zero(neurons).edit(),)]
    runs = sample_arms(tiny_model, problems, edits, seed=4, progress=False)
    states = beginnings(tiny_model, problems)
    found = answer(
        tiny_model, [(s, e, ("answer", 4, s.problem.id, 0)) for e in edits for s in states]
    ).shaped(2, 6)
    assert found.reward.tolist() == [one.rewards for one in runs]
    assert found.length.tolist() == [[run.length for run in one] for one in runs]
    assert found.damage()["length"] == np.mean(found.length)
    assert tiny.no_hooks_left(tiny_model)


def test_back_is_counted_where_it_is_said():
    here = plant("value")
    problems = here.task.problems("test", 30)
    runs = mr.sample(here.model, problems, seed=3, progress=False)
    said = ["back" in here.model.tokenizer.decode(run.tokens[run.prompt_len :]) for run in runs]
    found = answer(
        here.model,
        [(s, (), ("answer", 3, s.problem.id, 0)) for s in beginnings(here.model, problems)],
    )
    assert found.back.tolist() == said and 0 < np.mean(said) < 1


@cache
def rows():
    here = plant("value")
    runs = mr.sample(here.model, here.task.problems("train", 20), progress=False)
    values = mr.estimate(here.model, runs, k=4, progress=False)
    site = "1.resid_post"
    tokens = mr.record(here.model, runs, site, rows="tokens", progress=False)[site]
    return runs, values, mr.record(here.model, runs, site, progress=False)[site], tokens


def test_every_control_is_pushed_as_far_as_the_set():
    _, values, acts, tokens = rows()
    toward = np.where(values.live, values.mean, np.nan)
    neurons = plant("value").truth.value_neurons["1.resid_post"]
    push = own_push(neurons, acts, toward)
    sd = acts.x[torch.from_numpy(values.live)][:, list(neurons.indices)].std(0, correction=0)
    assert push.direction.abs().tolist() == pytest.approx(
        acts.x[:, list(neurons.indices)].std(0, correction=0).tolist()
    )
    assert (push.direction.abs() / sd).std() < 0.01, "collinear neurons move together"
    controls = matched_pushes(push, tokens, acts, toward, 99)
    assert len({one.neurons.indices for one in controls}) == 99
    assert all(one.norm == pytest.approx(push.norm, rel=1e-5) for one in controls)
    assert not any(set(one.neurons.indices) & set(neurons.indices) for one in controls)
    assert np.mean([one.error for one in controls]) < 0.25
    other = rival(push, acts, toward, np.arange(64.0), "magnitude")
    expected = [i for i in range(63, -1, -1) if i not in neurons.indices][:3]
    assert other is not None and other.neurons.indices == tuple(sorted(expected))
    constant = replace(neurons, indices=plant("value").truth.decoys["massive"])
    assert like(push, constant, acts, toward, "x").norm == pytest.approx(push.norm)
    with pytest.raises(mr.MechRewardError, match="constant over"):
        own_push(constant, acts, toward)


def test_no_more_controls_than_the_site_has():
    _, values, acts, tokens = rows()
    toward = np.where(values.live, values.mean, np.nan)
    neurons = plant("value").truth.value_neurons["1.resid_post"]
    one = own_push(replace(neurons, indices=neurons.indices[:1]), acts, toward)
    assert 40 < len(matched_pushes(one, tokens, acts, toward, 99)) < 63
    most = own_push(
        replace(neurons, indices=tuple(i for i in range(64) if i % 2 or i % 4)), acts, toward
    )
    assert matched_pushes(most, tokens, acts, toward, 99) == []


def test_pairs_lie_far_apart_or_close_by():
    _, values, _, _ = rows()
    far, same = trials.choose_pairs(values, 12)
    assert 0 < same <= len(far) <= 12
    assert all(values.mean[high] - values.mean[low] >= trials.GAP for low, high in far)
    assert sum(values.group[a] == values.group[b] for a, b in far) == same
    near = trials.choose_like(values, 12)
    assert near and all(
        a != b and abs(values.mean[a] - values.mean[b]) <= trials.ALIKE for a, b in near
    )
    assert all(values.live[row] for pair in (*far, *near) for row in pair)


# The judges, by hand


def said(rewards: str, ended: bool = True) -> Answers:
    reward = np.array([int(c) for c in rewards])
    yes = np.full(len(reward), True)
    return Answers(reward, yes, yes & ended, np.full(len(reward), 5), ~yes)


def both(down: Answers, up: Answers) -> Answers:
    return Answers(
        *(np.stack(pair) for pair in zip(vars(down).values(), vars(up).values(), strict=True))
    )


def trial(down: str, up: str, draws=(0.0,) * 99, planned: int = 99, readers=(), **more) -> Steered:
    n = len(up)
    flat = both(said("01" * (n // 2)), said("01" * (n // 2)))
    rest = {
        "base": said("01" * (n // 2)),
        "rivals": {"next_token": flat, "magnitude": flat},
        "ablated": {"zero": said("01" * (n // 2))},
    }
    given = {"own": both(said(down), said(up))} | rest | more
    return Steered(
        problems=tuple(map(str, range(n))),
        draws=np.array([draws, draws], float),
        readers=np.array([readers, readers], float),
        damage={},
        planned=planned,
        kl={},
        factor={},
        **given,
    )


def turning(down: str, up: str, base: str) -> dict[str, Answers]:
    """Answers that differ in turning back alone."""
    n = len(base)
    flat = said("01" * (n // 2))

    def back(who: str) -> Answers:
        return replace(flat, back=np.array([c == "1" for c in who]))

    return {"own": both(back(down), back(up)), "base": back(base)}


def test_cause_needs_rank_and_draws():
    zeros, ones = "0" * 20, "1" * 20
    found = claims.causal(trial(zeros, ones))
    assert "sets of equal displacement that do not read V-hat (largest" in found.reason
    assert "rms not matched (error 0.50)" in claims.causal(trial(zeros, ones), error=0.5).reason
    assert found.verdict == "pass" and found.numbers["p_rank"] == {"reward": 0.01}
    assert found.numbers["p_mcnemar"] == {"reward": pytest.approx(2 * 0.5**20)}
    assert found.numbers["p_holm"] == found.numbers["p_mcnemar"], "there is one test: none turns"
    beaten = claims.causal(trial(zeros, ones, draws=(1.0,), planned=99))
    assert beaten.verdict == "fail" and "1 of 1 matched sets" in beaten.reason
    few = claims.causal(trial(zeros, ones, draws=(0.0,) * 19, planned=19))
    assert few.verdict == "inconclusive" and "this site has 19" in few.reason
    asked = claims.causal(trial(zeros, ones, draws=(0.0,) * 19, planned=19), asked=19)
    assert "19 were asked for: run draws=99" in asked.reason
    some = claims.causal(trial(zeros, ones, draws=(0.0,) * 5, planned=54))
    assert "this site has 54" in some.reason and "5 sets" not in some.reason
    none = claims.causal(trial(zeros, ones, draws=(), planned=0))
    assert none.verdict == "inconclusive" and "this site has 0" in none.reason
    assert "nan" not in few.reason + none.reason


def test_direction_is_told_and_does_not_decide():
    zeros, ones = "0" * 20, "1" * 20
    harm = claims.causal(trial(ones, zeros))
    assert harm.verdict == "pass" and "steered down" in harm.reason
    assert harm.numbers["contrast"] == -1
    as_far = claims.causal(trial(ones, zeros, draws=(1.0,), planned=99))
    assert as_far.verdict == "fail", "controls count either way"


def test_the_same_change_under_both_steerings_is_damage():
    base, n = said("1" * 40), 40
    both_ways = claims.causal(trial("0" * n, "0" * 20 + "1" * 20, base=base))
    assert both_ways.verdict == "fail" and "damage" in both_ways.reason
    # Up is not shown to change anything: no damage is shown either.
    one_way = claims.causal(trial("0" * n, "1" * 39 + "0", base=base))
    assert one_way.verdict == "pass"


def test_turning_back_alone_can_be_what_is_caused():
    zeros, ones, half = "0" * 40, "1" * 40, "01" * 20
    found = claims.causal(trial(half, half, **turning(zeros, ones, half)))
    assert found.verdict == "pass" and found.reason.startswith("causal for turning back")
    assert found.numbers["measure"] == "back" and set(found.numbers["p_holm"]) == {"reward", "back"}
    assert found.numbers["p_holm"]["back"] == pytest.approx(4 * 0.5**40)
    unread = claims.causal(trial(half, half, **turning(zeros, ones, half)), p_reads=0.002)
    assert unread.verdict == "inconclusive" and "not shown to read V-hat" in unread.reason
    assert claims.causal(trial("0" * 40, "1" * 40), p_reads=0.5).verdict == "pass", "accuracy is"
    special = claims.specific(trial(half, half, **turning(zeros, ones, half)), found, {})
    assert special.verdict == "pass", "what the other sets do is compared in the same measure"


def test_others_that_read_it_too_share_the_cause():
    zeros, ones = "0" * 20, "1" * 20
    shared = claims.causal(trial(zeros, ones, readers=(1.0, 0.2, -1.0)))
    assert shared.verdict == "pass" and shared.reason.startswith("causal, shared: 2 of 3 other")
    assert shared.numbers["readers_that_move_as_far"] == {"reward": 2}


def test_what_power_cannot_settle_is_said_with_what_to_run():
    small = claims.causal(trial("01" * 10, "01" * 9 + "11"))
    assert small.verdict == "inconclusive"
    see, need = small.numbers["detectable"], int(small.reason.split("run n=")[1].rstrip("."))
    assert (
        need == pytest.approx(20 * (see / claims.MOVE) ** 2, abs=10) and "with n=20" in small.reason
    )
    assert claims.causal(trial("01" * 200, "01" * 200)).verdict == "fail"


def test_damage_and_rivals_are_not_specific():
    zeros, ones = "0" * 20, "1" * 20
    good = trial(zeros, ones)
    cause = claims.causal(good)
    assert claims.specific(good, cause, {}).verdict == "pass"
    broken = replace(good, own=both(said(zeros, ended=False), said(ones)))
    assert claims.specific(broken, cause, {}).verdict == "fail"
    assert "damage" in claims.specific(broken, cause, {}).reason
    same = replace(good, rivals=good.rivals | {"at_kl magnitude": good.own})
    assert "others move as much" in claims.specific(same, cause, {}).reason
    weak = claims.specific(
        replace(good, factor={"magnitude": math.inf, "matched 0": 3.5}), cause, {}
    )
    assert weak.verdict == "pass" and "1 of 2 controls do less damage at 32 times" in weak.reason
    assert weak.numbers["never_at_kl"] == ["magnitude"] and weak.numbers["factor"] == {
        "matched 0": 3.5
    }
    large = trial("0" * 200, "1" * 200)
    some = both(said("0" * 200), said("0" * 12 + "1" * 188))  # of the contrast of 1 it has .94
    near = claims.specific(
        replace(large, rivals=large.rivals | {"at_kl magnitude": some}), cause, {}
    )
    assert near.verdict == "pass", "a small difference that is sure is a difference"
    alone = replace(good, rivals={})
    assert claims.specific(alone, cause, {}).verdict == "inconclusive"
    for verdict in ("fail", "inconclusive"):
        assert claims.specific(good, Claim("causal", verdict, ""), {}).verdict == verdict


def patching(share: float, equal: float = 0.0, gain: float = 0.5, n: int = 40) -> Patched:
    noise = np.random.default_rng(0).normal(0, 0.02, n)
    low, ids = np.full(n, 0.2), np.arange(n)
    whole = low + gain + noise
    after = np.full(n, 0.5) + equal + noise
    few, none = low + share * (whole - low), np.zeros((4, n))
    return Patched(
        low, few, whole, np.stack([low]), ids, np.full(n, 0.5), after, ids, n, none, none + 1
    )


def test_sufficiency_is_a_share_of_the_whole_patch():
    assert claims.sufficient(patching(0.9), 8).verdict == "pass"
    assert claims.sufficient(patching(0.9), 8).numbers["share"] == pytest.approx(0.9)
    assert claims.sufficient(patching(0.2), 8).verdict == "fail"
    moved = claims.sufficient(patching(0.9, equal=-0.4), 8)
    assert moved.verdict == "fail" and "whatever it brings" in moved.reason
    assert claims.sufficient(patching(0.9, gain=0.0), 8).verdict == "inconclusive"
    worse = claims.sufficient(patching(0.9, gain=-0.2), 8)
    assert (
        worse.verdict == "inconclusive"
        and "lowers V-hat" in worse.reason
        and "run" not in worse.reason
    )
    good = patching(0.9)
    for others, verdict, told in (
        (good.matched[:0], "inconclusive", "no matched set"),
        (np.stack([good.few] * 2), "fail", "others raise it as much"),
        (np.stack([good.low, good.few + 0.01]), "fail", "others raise it as much"),
    ):
        claim = claims.sufficient(replace(good, matched=others), 8)
        assert claim.verdict == verdict and told in claim.reason
    apart = claims.sufficient(replace(good, same=3), 8)
    assert apart.verdict == "inconclusive" and "of two problems" in apart.reason
    assert "run test=" in claims.sufficient(None, 8).reason


def test_reading_needs_the_nulls_and_the_power():
    def found(rho, low, high, p=0.001, n=60, further=None):
        some, nothing = Beyond(Interval(rho, low, high, n), p), (0.0,) * 99
        one, plain = Interval(1.0, 0.9, 1.1, n), Interval(0.7, 0.6, 0.8, n)
        return Evidence(3, some, some, nothing, nothing, one, plain, 0.4, further or {})

    good = found(0.6, 0.5, 0.7)
    claim = claims.decodable(good)
    assert claim.verdict == "pass"
    assert (
        "0.70 on held-out problems; step, position and prompt length alone read 0.40"
        in claim.reason
    )
    assert claims.decodable(found(0.6, 0.5, 0.7, p=0.02)).verdict == "inconclusive"
    assert claims.decodable(found(0.02, -0.1, 0.14, p=0.4)).verdict == "fail"
    few = claims.sparse(replace(good, random=(0.0,) * 18))
    assert few.verdict == "inconclusive" and "run draws=19" in few.reason
    wide = claims.decodable(found(0.1, -0.3, 0.5, p=0.3))
    assert wide.verdict == "inconclusive" and "run test=" in wide.reason
    lost = found(0.6, 0.5, 0.7, further={"difficulty": Beyond(Interval(0.05, -0.1, 0.2, 60), 0.3)})
    for claim in (claims.decodable(lost), claims.sparse(lost)):
        assert claim.verdict == "inconclusive" and "not told apart from difficulty" in claim.reason
    assert claims.sparse(good).verdict == "pass"
    assert claims.sparse(replace(good, sparsity=Interval(0.2, 0.1, 0.3, 60))).verdict == "fail"
    assert (
        claims.sparse(replace(good, sparsity=Interval(0.6, 0.3, 0.9, 60))).verdict == "inconclusive"
    )
    assert claims.sparse(replace(good, random=(0.5,) * 99)).verdict == "fail"


def test_pass_rates_have_wilson_intervals_and_parts_are_pooled():
    every = dict.fromkeys(CLAIMS, "pass")
    parts = [
        *rates("value", [every, every | {"sparse": "fail"}]),
        *rates("null", [{"causal": "fail"}] * 3),
    ]
    by = {(row.model, row.arm): row for row in parts}
    assert by["planted-value", "all"].estimate == 0.5 and by["planted-value", "all"].n == 2
    row = by["planted-null", "causal"]
    assert (row.metric, row.estimate, row.detail["verdicts"]) == ("pass_rate", 0, {"fail": 3})
    assert row.high == pytest.approx(stats.proportion(0, 3).high)
    assert ("planted-null", "all") not in by
    whole = rates(
        "value", [every, every | {"sparse": "fail"}, every | {"sparse": "inconclusive"}, every]
    )
    joined = pooled([*parts, *rates("value", [every | {"sparse": "inconclusive"}, every])])
    assert [row for row in joined if row.model == "planted-value"] == whole


def test_only_plants_with_a_documented_rate_are_certified():
    with pytest.raises(mr.MechRewardError, match="plant with a documented rate"):
        certificates("rotated", [0])


# Files and hostile input


def test_a_certificate_is_saved_and_loaded(tmp_path):
    for name in ("value", "null"):
        here = certified(name)
        back = Certificate.load(here.save(tmp_path / "deep" / f"{name}.json"))
        assert str(back) == str(here) and back.neurons == here.neurons and back.sizes == here.sizes
        assert repr(back) == repr(here) and back.page() == here.page()
        assert json.loads((tmp_path / "deep" / f"{name}.json").read_text())["kind"] == "certificate"
    for claim in certified("value").claims:
        assert f"{claim.claim:<11} PASS" in str(certified("value"))
        assert claim.reason.count(". ") == 0 and claim.reason.endswith(".")


def test_damaged_certificates_are_refused(tmp_path):
    good = json.loads(certified("value").save(tmp_path / "good.json").read_text())
    del good["seal"]  # else it would be refused for that alone
    broken = {
        "kind": good | {"kind": "effect"},
        "no-claims": {key: value for key, value in good.items() if key != "claims"},
        "four": good | {"claims": good["claims"][:4]},
        "verdict": good | {"claims": [good["claims"][0] | {"verdict": "yes"}, *good["claims"][1:]]},
        "site": good | {"site": "nowhere"},
        "model": good | {"model_id": {}},
    }
    for name, data in broken.items():
        (tmp_path / name).write_text(json.dumps(data))
    (tmp_path / "cut").write_text((tmp_path / "good.json").read_text()[:-20])
    for name in [*broken, "cut", "absent"]:
        with pytest.raises(mr.MechRewardError) as error:
            Certificate.load(tmp_path / name)
        assert "\n" not in str(error.value)


def test_what_cannot_be_certified_is_told_before_anything_runs(monkeypatch):
    here = plant("value")
    neurons = here.truth.value_neurons["1.resid_post"]

    def never(*arguments, **keywords):
        raise AssertionError("sampled")

    monkeypatch.setattr("mechreward.causal.material.sample", never)
    foreign = plant("encoded").truth.value_neurons["1.resid_post"]
    for given, sizes, told in (
        (replace(neurons, indices=()), {}, "the set is empty"),
        (foreign, {}, "made on planted-encoded"),
        (neurons, {"draws": 2}, "draws must be at least 3"),
        (neurons, {"n": 1}, "n must be at least 2"),
        (neurons, {"k": 0}, "k must be at least 1"),
    ):
        with pytest.raises(mr.MechRewardError, match=told) as error:
            certify(here.model, here.task, given, **(SMALL | sizes))
        assert "\n" not in str(error.value)
