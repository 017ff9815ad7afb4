"""Evidence on rows whose structure is known: one neuron, many copies, a direction, nothing. Seeds
are fixed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import rows as made
import torch
from scipy.stats import spearmanr

from mechreward import stats
from mechreward.base.errors import MechRewardError
from mechreward.probing.evidence import evidence, sparsity
from mechreward.probing.probe import ValueProbe

WIDTH = 60


def split(kind: str, seed: int):
    """200 problems of two states; the carrier is neuron 5, or its copies, or a direction, or
    nothing."""
    data = made.planted(200, states=2, width=WIDTH, carriers=(5,), seed=seed)
    rng = np.random.default_rng(99)  # the same structure in both splits
    signal = data.x[:, 5].clone()
    noise = np.random.default_rng(seed + 50).normal(size=data.x.shape)
    x = torch.from_numpy(noise).float()
    if kind == "sparse":
        x[:, 5] = signal
    if kind == "redundant":
        x += 1.5 * signal[:, None] * torch.from_numpy(rng.choice([-1.0, 1.0], WIDTH)).float()
    if kind == "distributed":
        direction = torch.from_numpy(rng.normal(size=WIDTH)).float()
        x += 3 * torch.outer(signal, direction / direction.norm())
    return replace(data, x=x)


@pytest.mark.parametrize("kind", ["sparse", "redundant", "distributed"])
def test_each_structure_is_recognised(kind):
    found = evidence(split(kind, 0), split(kind, 1), top=1)
    assert found.reading == kind, str(found)
    assert found.p == 0.05 and found.full.estimate > 0.8


def test_sparsity_is_near_1_and_near_0():
    assert evidence(
        split("sparse", 0), split("sparse", 1), top=1
    ).sparsity.estimate == pytest.approx(1, abs=0.1)
    for kind in ("distributed", "redundant"):
        assert -0.25 < evidence(split(kind, 0), split(kind, 1), top=1).sparsity.estimate < 0.25, (
            kind
        )


def test_nothing_is_found_in_noise_at_the_nominal_rate(monkeypatch: pytest.MonkeyPatch):
    """Under the null the p is uniform on 1/10 to 1: of 30 runs, more than 8 below .11 has
    probability 1 in 400."""

    def alone(statistic, columns, *_, **__):
        """The p is a rank and needs no interval, which is most of the time."""
        return stats.Interval(float(statistic(*columns)), math.nan, math.nan, 0)

    monkeypatch.setattr(stats, "cluster_bootstrap", alone)
    p = [
        evidence(split("nothing", 2 * s), split("nothing", 2 * s + 1), draws=9, seed=s).p
        for s in range(30)
    ]
    assert sum(value <= 0.11 for value in p) <= 8
    assert 0.35 < np.mean(p) < 0.75


def test_a_given_set_is_scored_by_hand():
    train, test = split("sparse", 0), split("sparse", 1)
    found = evidence(train, test, np.array([7, 5]), draws=3)
    probe = ValueProbe("mc", "linear").fit_examples(replace(train, x=train.x[:, [5, 7]]))
    assert found.few.estimate == pytest.approx(
        spearmanr(probe.predict(test.x[:, [5, 7]]), test.y).statistic
    )
    assert (
        found.neurons == 2 and len(found.random) == len(found.rotated) == len(found.shuffled) == 3
    )


def test_sparsity_by_hand():
    y = np.arange(100.0)

    def read(rho: float) -> np.ndarray:
        """Ranks whose Spearman with `y` is `rho` or as near as moving the first of them to the end
        gives."""
        return next(x for n in range(100) if spearmanr(x := np.roll(y, -n), y).statistic <= rho)

    for few, full, random, rotated in (
        (0.6, 0.8, 0.1, 0.3),
        (0.85, 0.9, 0.8, 0.1),
        (0.1, 0.8, 0.3, 0.5),
    ):
        reads = np.stack([read(each) for each in (few, full, random, random, rotated, rotated)], 1)
        a, b, c, d = (spearmanr(reads[:, i], y).statistic for i in (0, 1, 2, 4))
        if few == 0.6:  # sparse
            gap = b - d
        elif few == 0.85:  # redundant
            gap = b / 6
        else:  # worse than nobody's choice
            gap = b
        if few != 0.1:  # the smooth maximum, from its larger side
            gap *= (1 + (min(b - max(c, d), b / 6) / gap) ** 4) ** 0.25
        assert sparsity(y, reads) == pytest.approx((a - max(c, d)) / gap)
    assert math.isnan(sparsity(y, np.stack([y, *[read(0.0)] * 3], 1) * [1, -1, 1, 1]))


def test_refusals():
    data = split("sparse", 0)
    with pytest.raises(MechRewardError, match="at least 3 draws"):
        evidence(data, data, draws=2)
    with pytest.raises(MechRewardError, match="the set is empty"):
        evidence(data, data, np.array([], int))
