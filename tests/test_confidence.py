"""Confidence: the same AUROCs as scikit-learn, from numbers written down by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rows as made
import torch
from sklearn.metrics import roc_auc_score

from mechreward.base.errors import MechRewardError
from mechreward.models.engine import Policy
from mechreward.probing.activations import Activations
from mechreward.probing.probe import ValueProbe
from mechreward.probing.targets import Examples
from mechreward.rollouts.trajectory import Rollouts, Trajectory
from mechreward.tasks import Problem, Verdict
from mechreward.uses.confidence import confidence

REWARD = [1, 0, 1, 1, 0, 0, 1, 0]
PROMPT = [3, 5, 4, 3, 6, 5, 5, 4]
SPOKEN = [
    [-0.1, -0.2],
    [-0.5],
    [-0.3, -0.1, -0.4],
    [-1.0],
    [-0.2, -0.9],
    [-0.1, -0.1],
    [-0.6, -0.6],
    [-2.0],
]
DIFFICULTY = [1, 3, 2, 2, 3, 1, 2, 2]


@pytest.fixture(scope="module")
def runs() -> Rollouts:
    trajectories, problems = [], []
    for i, right in enumerate(REWARD):
        tokens = torch.arange(PROMPT[i] + len(SPOKEN[i]))
        ends = (PROMPT[i] - 1, len(tokens) - 1)
        verdict = Verdict("correct" if right else "incorrect")
        problem = Problem(f"p{i // 2}", f"question {i // 2}", "", {"difficulty": DIFFICULTY[i]})
        trajectories.append(
            Trajectory(problem.id, tokens, PROMPT[i], ends, verdict, torch.tensor(SPOKEN[i]), True)
        )
        problems.append(problem)
    return Rollouts(tuple(trajectories), tuple(problems), Policy(), made.MODEL)


@pytest.fixture(scope="module")
def acts() -> Activations:
    """Two states a trajectory, s_0 and its end."""
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    trajectory, step = np.divmod(np.arange(16), 2)
    ends = [
        [prompt - 1, prompt + len(said) - 1] for prompt, said in zip(PROMPT, SPOKEN, strict=True)
    ]
    return made.activations(x, trajectory=trajectory, step=step, position=np.array(ends).flatten())


@pytest.fixture(scope="module")
def probe(acts) -> ValueProbe:
    reward = np.repeat(REWARD, 2)
    numbers = np.arange(16)
    data = Examples(
        acts.x, reward * 0.9, reward, numbers // 4, numbers // 2, numbers % 2, numbers % 2 == 1
    )
    return ValueProbe("mc", "linear").fit_examples(data)


@pytest.fixture(scope="module")
def found(acts, probe, runs):
    return confidence(probe, acts, runs)


def test_aurocs_are_sklearns(acts, probe, found):
    scores = {
        "value": [probe.predict(acts.x[2 * i : 2 * i + 1])[0] for i in range(8)],
        "problem_length": [-n for n in PROMPT],
        "difficulty": [-n for n in DIFFICULTY],
        "sequence_logprob": [sum(each) for each in SPOKEN],
        "mean_logprob": [sum(each) / len(each) for each in SPOKEN],
        "answer_length": [-len(each) for each in SPOKEN],
    }
    expected = {name: roc_auc_score(REWARD, np.round(score, 5)) for name, score in scores.items()}
    assert {name: interval.estimate for name, interval in found.items()} == pytest.approx(
        expected, abs=1e-9
    )
    assert len(set(expected.values())) > 3, "this example could not tell the baselines apart"
    assert {interval.n for interval in found.values()} == {4}, (
        "problems, not states or trajectories"
    )
    assert all(interval.low <= interval.estimate <= interval.high for interval in found.values())


def test_only_the_first_state_is_read_and_the_seed_decides_the_rest(acts, probe, runs, found):
    later = acts.x.clone()
    later[1::2] = 1e3
    assert confidence(probe, replace(acts, x=later), runs) == found


def test_activations_of_other_rows_or_rollouts_are_refused(acts, probe, runs):
    with pytest.raises(MechRewardError, match="rows='states' are needed; these have 'steps'"):
        confidence(probe, replace(acts, rows="steps"), runs)
    with pytest.raises(MechRewardError, match="8 answers were recorded of 7 rollouts"):
        confidence(probe, acts, runs.subset(range(7)))
