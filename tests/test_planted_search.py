"""Guided search on planted models: what exact V predicts, by dynamic programming, is reached by the
planted neurons and by no decoy.

Accuracies of fixed seeds: what is to lie in a 95% interval misses it with one seed in twenty. What
is not to beat random has 99% intervals, for there are four such arms: one seed in fifty has one of
them above 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import norm

import mechreward as mr
from mechreward import stats
from mechreward.models.identity import model_id
from mechreward.models.text import encode
from mechreward.probing.probe import directions
from mechreward.testbed.process import SYNONYMS, WORDS, WORTH
from mechreward.uses.search.readouts import Readout, of_neurons

K = 2  # candidates a step: exact V leaves room above and below
MANY, FEW = 120, 80  # problems
SITE = "2.resid_post"


@cache
def plant(name: str):
    return mr.testbed.planted(name)


@cache
def recorded(name: str, site: str, rows: str):
    """Activations, and V (`states`) or delta (`steps`) of each of their rows."""
    here = plant(name)
    runs = mr.sample(here.model, here.task.problems("train", 40), progress=False)
    v, delta = here.truth.values(runs)
    acts = mr.record(here.model, runs, site, rows=rows, progress=False)[site]
    return acts, v if rows == "states" else delta[np.isfinite(delta)]


def readout(name: str, indices: Sequence[int], site: str, rows: str, sign: int = 1) -> Readout:
    """Coordinates, each with the sign that goes with exact V or delta."""
    acts, y = recorded(name, site, rows)
    neurons = mr.NeuronSet.of(acts, indices, "given")
    direction = sign * directions(neurons.read(acts), y)
    return of_neurons(replace(neurons, direction=tuple(direction.tolist())), rows=rows)


@cache
def problems_of(name: str, n: int):
    return plant(name).task.problems("test", n)


def beam(name: str, scorer, n: int):
    """One token is one step."""
    here, problems = plant(name), problems_of(name, n)
    return mr.search(here.model, problems, scorer, k=K, block=1, batch=1024, progress=False)


def reached(name: str, n: int, k: int, best: bool = True) -> np.ndarray:
    """Chance of a right end [problem] where of `k` next words one of the highest V is taken (or of
    the lowest), by dynamic programming over what words are worth."""
    moves = plant(name).truth.transitions()
    worth = [WORTH.get(word.split(".")[0], np.nan) for word in WORDS]
    kinds = sorted({round(w, 9) for w in worth if not np.isnan(w)})
    going = kinds[1:-1]
    # Probability of each kind after a level; all words of a level move alike.
    after = np.zeros((len(going), len(kinds)))
    for row in range(len(going)):
        level = WORDS.index(f"{row + 1}.a")
        for word, w in enumerate(worth):
            if not np.isnan(w):
                after[row, kinds.index(round(w, 9))] += moves[level, word]
    np.testing.assert_allclose(after.sum(1), 1, atol=1e-6)
    # The best of k is at most a kind if all k are.
    at_most = after.cumsum(1)
    least = at_most**k if best else 1 - (1 - at_most).clip(0) ** k
    taken = np.diff(least, axis=1, prepend=0)
    right = np.zeros(len(kinds))
    right[-1] = 1
    for _ in range(plant(name).task.max_tokens):
        right = np.concatenate([[0], taken @ right, [1]])
    starts = [problem.question.split()[-1].split(".")[0] for problem in problems_of(name, n)]
    return right[[kinds.index(round(WORTH[start], 9)) for start in starts]]


def within(rewards: np.ndarray, expected: np.ndarray, level: float = 0.95) -> bool:
    """Whether accuracy lies in the interval of independent problems with these chances."""
    deviation = np.sqrt((expected * (1 - expected)).sum()) / len(expected)
    return abs(rewards.mean() - expected.mean()) < norm.ppf((1 + level) / 2) * deviation


def test_the_program_is_right_where_it_is_known():
    """One candidate is no choice, and the worst of two is the mirror image of the best."""
    here = plant("value")
    one, two = (reached("value", MANY, k) for k in (1, 2))
    problems = problems_of("value", MANY)
    assert one.mean() == pytest.approx(here.truth.accuracy(problems), abs=1e-6)
    # Levels and outcomes are mirrored about .5; what is not over in 96 words is wrong.
    best = dict(zip(one.round(2), two, strict=True))
    worst = dict(zip(one.round(2), reached("value", MANY, 2, False), strict=True))
    assert len(best) == 5
    for w, p in best.items():
        assert 1 - p == pytest.approx(worst[round(1 - w, 2)], abs=1e-3)
    assert 0.9 < best[0.5] < reached("value", MANY, 4).mean()


@cache
def guided(name: str, what: str, site: str, n: int = MANY, sign: int = 1) -> np.ndarray:
    """Rewards of the search by a planted set."""
    neurons = getattr(plant(name).truth, what)[site]
    assert len(neurons) == 3
    rows = "states" if what == "value_neurons" else "steps"
    return beam(name, readout(name, neurons.indices, site, rows, sign), n).rewards


@pytest.mark.parametrize(
    ("name", "what", "site"),
    [
        ("value", "value_neurons", SITE),
        ("value", "dopamine_neurons", SITE),
        ("value-mlp", "dopamine_neurons", "1.mlp"),
    ],
)
def test_planted_neurons_reach_what_exact_value_predicts(name: str, what: str, site: str):
    expected = reached(name, MANY, K)
    assert expected.mean() > 0.95
    assert within(guided(name, what, site), expected)


def test_the_wrong_way_round_they_lead_to_the_worst():
    expected = reached("value", FEW, K, best=False)
    assert expected.mean() < 0.05
    assert within(guided("value", "dopamine_neurons", SITE, FEW, -1), expected)


@cache
def by_chance(name: str) -> np.ndarray:
    return beam(name, "random", FEW).rewards


def gain(name: str, rewards: np.ndarray) -> stats.Interval:
    """Over random choice, on the same problems."""
    return stats.paired_difference(rewards, by_chance(name), np.arange(FEW), level=0.99)


def test_random_choice_is_the_policy_itself():
    assert within(by_chance("value"), reached("value", FEW, 1))
    planted = guided("value", "dopamine_neurons", SITE)[:FEW]
    assert gain("value", planted).low > 0.2


@pytest.mark.parametrize("decoys", [("large",), ("sink", "length", "next_token")])
def test_decoys_do_not_beat_random(decoys: tuple[str, ...]):
    places = plant("value").truth.decoys
    indices = [index for decoy in decoys for index in places[decoy]]
    made = beam("value", readout("value", indices, SITE, "states"), FEW)
    assert gain("value", made.rewards).low <= 0
    assert within(made.rewards, reached("value", FEW, 1), 0.99)


@pytest.mark.parametrize(("decoy", "rows"), [("level", "states"), ("change", "steps")])
def test_nothing_beats_random_where_value_is_constant(decoy: str, rows: str):
    """The null twin's coordinates are those that carry V and delta in `value`, and are read with
    the signs they have there."""
    here = plant("null")
    what = "value_neurons" if rows == "states" else "dopamine_neurons"
    indices = getattr(plant("value").truth, what)[SITE].indices
    assert here.truth.decoys[decoy] == indices
    twin = readout("value", indices, SITE, rows)
    made = beam("null", replace(twin, model_id=model_id(here.model)), FEW)
    assert gain("null", made.rewards).low <= 0
    assert within(made.rewards, np.full(FEW, 0.5), 0.99)


@pytest.mark.parametrize(("decoy", "rows"), [("level", "states"), ("change", "steps")])
def test_the_null_twin_reads_nothing_of_the_verdict(decoy: str, rows: str):
    """`right` and `unlucky`, which end alike and are judged apart, read the same, whatever the
    synonym: so the choice among ends is a coin's too."""
    here = plant("null")
    read = readout("value", here.truth.decoys[decoy], SITE, rows)
    scores = []
    for state in ("right", "unlucky"):
        texts = [f"q1 q7 q2 4.c 9.k {state}.{synonym}" for synonym in SYNONYMS]
        tokens = torch.stack([encode(here.model, text) for text in texts])
        _, kept = here.model.run_with_cache(tokens)
        x = kept[read.site.hook][:, -1]
        scores.append(read.read(x[:, list(read.columns)]))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    np.testing.assert_allclose(scores[0], scores[0].mean(), atol=1e-3)
