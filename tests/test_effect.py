"""Ablation beside its controls: on a tiny model, and the deciding figures on outcomes written down
by hand."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import tiny
import torch
from scipy.stats import binomtest

from mechreward.base.errors import MechRewardError
from mechreward.causal import effect as module
from mechreward.causal.attach import attach
from mechreward.causal.effect import Arm, CleanText, Effect, ablate
from mechreward.causal.intervene import Intervention, resample, zero
from mechreward.models import load as adapter
from mechreward.models.identity import ModelId, model_id
from mechreward.models.site import Site
from mechreward.models.text import eos_ids
from mechreward.probing.activations import record
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.sample import sample

MLP = Site(1, "mlp")
DUMB = (7, 20)  # MLP units of layer 1 that nothing reads
FEW = {"draws": 2, "random_draws": 1, "progress": False}


def on(model, site: Site, *indices: int) -> NeuronSet:
    return NeuronSet(site, indices, site.width(model), model_id(model), (), "by hand")


@pytest.fixture(scope="module")
def dumb(tmp_path_factory):
    """The tiny model with two MLP units whose outgoing weights are zero."""
    plain = tiny.huggingface()
    with torch.no_grad():
        plain.model.layers[1].mlp.down_proj.weight[:, list(DUMB)] = 0
    return adapter.load(tiny.save(plain, tmp_path_factory.mktemp("dumb")))


@pytest.fixture(scope="module")
def problems():
    return tiny.Even().problems("test", 10)


@pytest.fixture(scope="module")
def nothing(dumb, problems) -> Effect:
    """Ablation of neurons that do nothing."""
    return ablate(dumb, problems, on(dumb, MLP, *DUMB), seed=5, **FEW)


def test_the_baseline_is_sample_alone(dumb, problems, nothing):
    runs = sample(dumb, problems, seed=5, progress=False)
    assert nothing.baseline.outcomes.tolist() == runs.rewards
    assert 0 < nothing.baseline.accuracy < 1
    assert nothing.problems == tuple(problem.id for problem in problems)
    damage, eos = nothing.baseline.damage, eos_ids(dumb)
    ended = [int(run.tokens[-1]) in eos for run in runs]
    assert damage["eos_rate"] == pytest.approx(np.mean(ended))
    assert damage["truncation_rate"] == pytest.approx(1 - np.mean(ended))
    assert damage["length"] == pytest.approx(
        np.mean([len(run.tokens) - run.prompt_len for run in runs])
    )
    assert damage["parse_rate"] == 1


@pytest.mark.parametrize("op", ["zero", "mean"])
def test_neurons_that_nothing_reads_change_nothing(nothing, op):
    (own,) = nothing.draws("value", op)
    assert own.outcomes.tolist() == nothing.baseline.outcomes.tolist()
    assert own.damage["kl"] == 0
    assert own.damage["change_norm"] > 0, "the activations did change: only nobody reads them"
    assert own.damage["length"] == nothing.baseline.damage["length"]
    summary = nothing.summary(op)
    change = summary["change"]
    assert change.estimate == 0 and change.low < 0, "none of ten changed: others still might"
    assert change.low == pytest.approx(-change.high)
    assert summary["p_mcnemar"] == 1
    assert np.isnan(own.match_error)


def test_common_random_numbers(dumb, problems):
    """A change without effect draws the same tokens; one with an effect does not."""
    clean = sample(dumb, problems, seed=5, progress=False)
    same = sample(
        dumb, problems, seed=5, hooks=zero(on(dumb, MLP, *DUMB)).fwd_hooks(), progress=False
    )
    other = sample(
        dumb, problems, seed=5, hooks=zero(on(dumb, MLP, *range(7))).fwd_hooks(), progress=False
    )
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(clean, same, strict=True))
    assert not all(torch.equal(a.tokens, b.tokens) for a, b in zip(clean, other, strict=True))
    first = [
        (int(a.tokens[a.prompt_len]), int(b.tokens[b.prompt_len]))
        for a, b in zip(clean, other, strict=True)
    ]
    assert any(a == b for a, b in first), (
        "the same uniform number mostly draws the same first token"
    )


def test_every_control_is_there_under_every_operation(nothing):
    names = [("value", 0), ("matched", 0), ("matched", 1), ("random", 0), ("sink_free_random", 0)]
    assert [(arm.op, arm.name, arm.draw) for arm in nothing.arms] == [
        (op, *n) for op in ("zero", "mean", "resample") for n in names
    ]
    assert nothing.ops == ["zero", "mean", "resample"]
    by_draw = {}
    for arm in nothing.arms:
        assert len(arm.indices) == 2
        assert arm.name == "value" or not set(arm.indices) & set(DUMB)
        assert by_draw.setdefault((arm.name, arm.draw), arm.indices) == arm.indices, (
            "one set, both operations"
        )
        assert set(arm.damage) == {
            "parse_rate",
            "eos_rate",
            "truncation_rate",
            "premature_rate",
            "length",
            "kl",
            "change_norm",
        }
    assert np.isfinite(
        [arm.match_error for op in nothing.ops for arm in nothing.draws("matched", op)]
    ).all()


def test_resampling_is_run_with_the_same_rows_for_every_set(tiny_model, problems):
    """Against answers sampled with the hook attached: another loop, and positions counted another
    way."""
    neurons = on(tiny_model, Site(0, "resid_post"), 0, 3, 8, 21)
    found = ablate(tiny_model, problems, neurons, ops=("resample",), seed=2, **FEW)
    clean = sample(tiny_model, problems, seed=2, progress=False)
    acts = record(tiny_model, clean, neurons.site, rows="tokens", progress=False)[neurons.site]
    for arm in [*found.draws("value", "resample"), *found.draws("matched", "resample")[:2]]:
        chosen = replace(neurons, indices=arm.indices)
        with attach(tiny_model, resample(chosen, acts, seed=2)):
            runs = sample(tiny_model, problems, seed=2, progress=False)
        assert arm.outcomes.tolist() == runs.rewards
        assert arm.damage["kl"] > 0 and arm.damage["change_norm"] > 0
    assert "resample: accuracy" in str(found)


@torch.no_grad()
def test_kl_and_outcomes_of_one_problem_against_the_plain_model(tiny_model, tiny_plain, problems):
    """The oracle knows no TransformerLens: HuggingFace logits, a PyTorch hook, and the sum over the
    vocabulary."""
    site, index = Site(0, "resid_post"), (0, 3, 8, 21)
    found = ablate(
        tiny_model, problems[:1], on(tiny_model, site, *index), ops=("zero",), seed=2, **FEW
    )
    (run,) = sample(tiny_model, problems[:1], seed=2, progress=False)

    def edit(module, arguments, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        before.append(hidden.clone())
        hidden[..., list(index)] = 0
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    before: list[torch.Tensor] = []
    clean = tiny_plain(run.tokens[None]).logits[0].double()
    handle = tiny_plain.model.layers[0].register_forward_hook(edit)
    try:
        changed = tiny_plain(run.tokens[None]).logits[0].double()
    finally:
        handle.remove()
    each = []
    for position in range(run.prompt_len, len(run.tokens)):
        p, q = clean[position - 1].softmax(-1), changed[position - 1].softmax(-1)
        each.append(float((p * (p / q).log()).sum()))
    (own,) = found.draws("value", "zero")
    assert own.damage["kl"] == pytest.approx(np.mean(each), rel=1e-3)
    assert own.damage["kl"] > 0.01
    hidden = before[0][0]
    moved = hidden[:, list(index)].norm(dim=-1).mean() / hidden.norm(dim=-1).mean()
    assert own.damage["change_norm"] == pytest.approx(float(moved), rel=1e-4)
    hooks = zero(found.neurons).fwd_hooks()
    assert (
        own.outcomes.tolist()
        == sample(tiny_model, problems[:1], seed=2, hooks=hooks, progress=False).rewards
    )


def by_hand() -> Effect:
    """Baseline 9 of 10; the set leaves 2; four matched draws leave 5, 2, 7 and 1."""

    def arm(
        name: str, outcomes: str, draw: int = 0, error: float = float("nan"), op: str = "zero"
    ) -> Arm:
        damage = {"parse_rate": 1.0, "kl": 0.25}
        return Arm(name, op, draw, (draw, 9), np.array([int(c) for c in outcomes]), damage, error)

    neurons = NeuronSet(
        Site(1, "mlp"), (2, 5), 48, ModelId("m", "w", "float32", "raw"), (), "by hand"
    )
    arms = [arm("value", "0000000011")]
    drawn = ["1111100000", "1100000000", "1111111000", "0000000001"]
    arms += [arm("matched", outcomes, i, error=0.1 * (i + 1)) for i, outcomes in enumerate(drawn)]
    arms += [arm("random", "1111111110"), arm("sink_free_random", "1111111111")]
    same = {
        name: arm(name, "1111111110", error=0.2, op="mean")
        for name in ("value", "matched", "random")
    }
    arms += [*same.values(), arm("sink_free_random", "1111111110", op="mean")]
    ids = tuple(f"problem {i}" for i in range(10))
    return Effect(neurons, arm("baseline", "1111111110", op=""), tuple(arms), ids, (3,), 4)


def test_the_deciding_figures_by_hand():
    summary = by_hand().summary("zero")
    assert summary["accuracy"].estimate == pytest.approx(0.2)
    assert summary["change"].estimate == pytest.approx(0.2 - 0.9)
    assert summary["change"].n == 10
    # eight answers lost, one won
    assert summary["p_mcnemar"] == pytest.approx(binomtest(8, 9).pvalue)
    # of .5 .2 .7 .1 the draws at .2 and .1 are at least as low: third lowest of five, ties against
    # us
    assert (summary["rank"], summary["draws"]) == (3, 4)
    assert summary["p_rank"] == pytest.approx(3 / 5)
    assert summary["beyond_matched"].estimate == pytest.approx(0.2 - (0.5 + 0.2 + 0.7 + 0.1) / 4)
    assert summary["match_error"] == pytest.approx(0.25)
    assert summary["matched"]
    other = by_hand().summary("mean")
    assert (other["change"].estimate, other["p_mcnemar"], other["rank"], other["draws"]) == (
        0,
        1,
        2,
        1,
    )


def test_a_bad_match_is_not_called_matched():
    effect = by_hand()
    arms = tuple(replace(arm, match_error=arm.match_error + 0.01) for arm in effect.arms)
    effect = replace(effect, arms=arms)
    assert not effect.summary("zero")["matched"]
    assert "NOT matched: over 0.25" in str(effect)


def test_the_power_is_stated():
    """Ten problems show no drop under .4 (exact McNemar: 5 lost gives p = .06); a thousand show .02
    to .05."""
    assert not by_hand().power() < 0.4
    assert 0.02 < replace(by_hand(), problems=tuple(map(str, range(1000)))).power() < 0.05


def test_the_text_says_what_decides():
    text = str(by_hand())
    for words in (
        "2 neurons of 1.mlp (by hand), 10 problems",
        "rank 3 of 5",
        "sink or massive neurons: [3]",
        "kl 0.25",
    ):
        assert words in text
    assert "  matched: 0.375 (0.100 to 0.700, 4 sets)" in text


def test_an_unknown_operation_of_an_effect():
    with pytest.raises(MechRewardError, match="Possible: zero, mean"):
        by_hand().summary("zap")


def same(a: Arm, b: Arm) -> bool:
    fields = ("name", "op", "draw", "indices", "damage")
    errors = np.array_equal([a.match_error], [b.match_error], equal_nan=True)
    outcomes = (
        np.array_equal(a.outcomes, b.outcomes) and a.outcomes.dtype.kind == b.outcomes.dtype.kind
    )
    return all(getattr(a, name) == getattr(b, name) for name in fields) and errors and outcomes


@pytest.mark.parametrize("which", ["by_hand", "nothing"])
def test_file_round_trip(tmp_path, which, nothing):
    effect = by_hand() if which == "by_hand" else nothing
    back = Effect.load(effect.save(tmp_path / "deep" / "effect.json"))
    assert (back.neurons, back.problems, back.sinks, back.seed) == (
        effect.neurons,
        effect.problems,
        effect.sinks,
        effect.seed,
    )
    assert back.neurons.how == effect.neurons.how
    assert same(back.baseline, effect.baseline)
    assert len(back.arms) == len(effect.arms)
    assert all(same(a, b) for a, b in zip(back.arms, effect.arms, strict=True))
    assert back.summary("zero") == effect.summary("zero")
    assert str(back) == str(effect)


def test_damaged_files_are_refused(tmp_path):
    good = json.loads(by_hand().save(tmp_path / "good.json").read_text())
    del good["seal"]  # else it would be refused for that alone
    broken = {
        "cut": (tmp_path / "good.json").read_text()[:-20],
        "kind": json.dumps(good | {"kind": "neurons"}),
        "no-arms": json.dumps({key: value for key, value in good.items() if key != "arms"}),
        "arm": json.dumps(good | {"arms": [{"name": "value"}]}),
        "outcomes": json.dumps(good | {"baseline": good["baseline"] | {"outcomes": "10x"}}),
        "model": json.dumps(good | {"model_id": {}}),
    }
    for name, text in broken.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pickled").write_bytes(pickle.dumps(1))
    for name in [*broken, "pickled", "absent"]:
        with pytest.raises(MechRewardError) as error:
            Effect.load(tmp_path / name)
        assert "\n" not in str(error.value)


def refused(told: str, *arguments, **keywords) -> None:
    with pytest.raises(MechRewardError, match=told) as error:
        ablate(*arguments, **(FEW | keywords))
    assert "\n" not in str(error.value)


def test_what_cannot_be_ablated_is_told_before_anything_runs(monkeypatch, tiny_model, problems):
    own = on(tiny_model, MLP, 1, 2)

    def never(*arguments, **keywords):
        raise AssertionError("sampled")

    monkeypatch.setattr(module, "sample", never)
    refused("the set is empty", tiny_model, problems, on(tiny_model, MLP))
    refused(
        "unknown operation 'zer'; did you mean 'zero'",
        tiny_model,
        problems,
        own,
        ops=("zero", "zer"),
    )
    for part in ("weights", "processing"):
        foreign = replace(own, model_id=replace(own.model_id, name="stranger", **{part: "other"}))
        refused("made on stranger", tiny_model, problems, foreign)
    refused("layers 0 to 1", tiny_model, problems, replace(own, site=Site(5, "mlp")))


def test_no_problems_and_no_matched_draws(tiny_model, problems):
    refused("no problems were given", tiny_model, [], on(tiny_model, MLP, 1, 2))
    refused(
        "at least one matched draw", tiny_model, problems[:1], on(tiny_model, MLP, 1, 2), draws=0
    )
    refused(
        "neurons are left to match", tiny_model, problems[:1], on(tiny_model, MLP, 1, 2), draws=99
    )


def test_no_hook_is_left_after_success_or_failure(monkeypatch, tiny_model, problems, dumb, nothing):
    assert tiny.no_hooks_left(dumb)
    calls = []
    whole = Intervention.__call__

    def breaks(self, x, *more):
        calls.append(x.shape)
        if len(calls) > 5:
            raise RuntimeError("in the middle")
        return whole(self, x, *more)

    monkeypatch.setattr(Intervention, "__call__", breaks)
    with pytest.raises(RuntimeError, match="in the middle"):
        ablate(tiny_model, problems[:2], on(tiny_model, MLP, 1, 2), **FEW)
    assert len(calls) == 6
    assert tiny.no_hooks_left(tiny_model)


def test_texts_of_any_length_are_read_as_each_alone(tiny_model, tiny_plain, problems):
    """Short texts first, each as plain HuggingFace reads it without padding."""
    runs = sample(tiny_model, problems, seed=8, progress=False)
    text = CleanText(tiny_model, runs)
    lengths = [len(runs[row].tokens) for rows in text.bins for row in rows]
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]
    wanted = []
    with torch.no_grad():
        for row in chain.from_iterable(text.bins):
            run = runs[row]
            logits = tiny_plain(run.tokens[None]).logits[0, run.prompt_len - 1 : -1]
            wanted.append(logits.log_softmax(-1))
    torch.testing.assert_close(text.logprobs, torch.cat(wanted), atol=1e-4, rtol=1e-4)
