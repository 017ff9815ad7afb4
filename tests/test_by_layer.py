"""The top 1% of every layer zeroed: by hand, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from mechreward import stats
from mechreward.causal.effect import Arm, Effect
from mechreward.experiments import ablation_by_layer
from mechreward.experiments.rows import Results, Setting
from mechreward.experiments.split import shared
from mechreward.models.identity import ModelId
from mechreward.models.policy import Policy
from mechreward.models.site import Site
from mechreward.probing.neurons import NeuronSet
from mechreward.report.findings.ablation import by_layer
from mechreward.report.tables_causal import by_layer as table

N = 40
IDENTITY = ModelId("m", "w", "float32", "raw")
METER = {"parse_rate": 1.0, "eos_rate": 1.0, "truncation_rate": 0.0, "length": 9.0, "kl": 0.1}


def effect(layer: int, right: int, matched: list[int]) -> Effect:
    """Of 40 problems 30 are right before; `right` without the set, and without each matched one."""

    def arm(name: str, draw: int, count: int) -> Arm:
        outcomes = np.array([1] * count + [0] * (N - count))
        return Arm(name, "zero" if draw >= 0 else "", max(draw, 0), (1, 2), outcomes, dict(METER))

    neurons = NeuronSet(Site(layer, "resid_post"), (1, 2), 64, IDENTITY)
    arms = [arm("value", 0, right)]
    arms += [arm("matched", draw, count) for draw, count in enumerate(matched)]
    arms += [arm("random", 0, 30), arm("sink_free_random", 0, 30)]
    ids = tuple(f"p{number}" for number in range(N))
    return Effect(neurons, arm("baseline", -1, 30), tuple(arms), ids, (), 0, Policy())


@pytest.fixture
def setting() -> Setting:
    return Setting(**shared("ablation_by_layer", "m", "t", "", 0))


def test_p_is_after_holm_over_layers(setting: Setting):
    effects = {f"{layer}.resid_post": effect(layer, right, [30] * 19) for layer, right in
               ((2, 20), (3, 26), (4, 30))}  # fmt: skip
    rows = ablation_by_layer(effects, setting)
    p = {}
    for row in rows:
        if row.arm == "value" and row.metric == "accuracy":
            p[row.site] = row.detail["p_holm"]
    # McNemar's exact p of 10, 4 and 0 problems lost and none won is 2 / 2^10, 2 / 2^4 and 1.
    assert p["2.resid_post"] == pytest.approx(3 * 2 / 2**10)
    assert p["3.resid_post"] == pytest.approx(2 * 2 / 2**4)
    assert p["4.resid_post"] == 1
    assert list(p.values()) == pytest.approx(stats.holm([2 / 2**10, 2 / 2**4, 1.0]).tolist())


def test_what_is_said(setting: Setting, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Effect, "summary", _matched(Effect.summary))
    effects = {
        "2.resid_post": effect(2, 20, [30] * 19),
        "3.resid_post": effect(3, 20, [30] * 18 + [19]),
        "4.resid_post": effect(4, 29, [30] * 19),
    }
    results = Results({}, tuple(ablation_by_layer(effects, setting)))
    (finding,) = by_layer(results, "resid_post", "residual-stream coordinates")
    assert finding.holds
    assert "costs more accuracy than every set matched in rms at 2. " in finding.sentence
    assert "p after Holm over 3 layers and kinds" in finding.sentence
    assert "3: -0.250" in finding.sentence and "rank 2 of 20" in finding.sentence
    lines = table(results).lines
    assert [line[0] for line in lines] == list(effects)
    assert [line[6] for line in lines] == ["1 of 20", "2 of 20", "1 of 20"]


def test_nothing_is_said_of_nothing():
    assert by_layer(Results({}, ()), "resid_post", "residual-stream coordinates") == []


def _matched(summary):
    """The draws of these effects have no activations: they count as matched here."""

    def told(self, op):
        return summary(self, op) | {"matched": True, "match_error": 0.0}

    return told
