"""Confidence before the answer: does the value read-out at s_0 know more than the surface of the problem?"""

from __future__ import annotations

import numpy as np

from mechreward import stats
from mechreward.probing.probe import ValueProbe
from mechreward.probing.targets import Examples
from mechreward.rollouts.trajectory import Rollouts
from mechreward.stats import Interval


def confidence(probe: ValueProbe, data: Examples, runs: Rollouts, seed: int = 0) -> dict[str, Interval]:
    """AUROC of the terminal reward for what may be known, grouped by when it is known.

    Before the first token: `value` (the probe at s_0), `problem_length` (prompt tokens, longer = less sure),
    `difficulty` (operations needed; known to the task, not to the model). After the answer: `sequence_logprob` (sum),
    `mean_logprob`, `answer_length`. Intervals are clustered by problem.

    Args:
        data: states of `runs` (`probing.targets.states`).
    """
    at_start = data.step == 0
    order = data.trajectory[at_start]
    reward, group = data.reward[at_start], data.group[at_start]
    chosen = [runs[int(i)] for i in order]
    scores = {
        "value": probe.predict(data.x)[at_start],
        "problem_length": np.array([-float(run.prompt_len) for run in chosen]),
        "difficulty": np.array([-float(runs.problems[int(i)].difficulty) for i in order]),
        "sequence_logprob": np.array([float(run.logprobs.sum()) for run in chosen]),
        "mean_logprob": np.array([float(run.logprobs.mean()) for run in chosen]),
        "answer_length": np.array([-float(run.length) for run in chosen]),
    }
    return {
        name: stats.cluster_bootstrap(stats.auroc, [score, reward], group, seed=seed) for name, score in scores.items()
    }
