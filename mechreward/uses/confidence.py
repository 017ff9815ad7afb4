"""Confidence before the answer.

Does the value read-out at s_0 know more than the surface of the problem?
"""

from __future__ import annotations

import numpy as np

from mechreward import stats
from mechreward.base.errors import require
from mechreward.probing.activations import Activations
from mechreward.probing.probe import ValueProbe
from mechreward.rollouts.trajectory import Rollouts
from mechreward.stats import Interval


def confidence(probe: ValueProbe, acts: Activations, runs: Rollouts) -> dict[str, Interval]:
    """AUROC of the terminal reward for what may be known, grouped by when it is known.

    Before the first token: `value` (the probe at s_0), `problem_length` (prompt tokens, longer =
    less sure), `difficulty` (operations needed; known to the task, not to the model). After the
    answer: `sequence_logprob` (sum), `mean_logprob`, `answer_length`.

    Parameters
    ----------
    probe : ValueProbe
        Fitted to states of other rollouts.
    acts : Activations
        Recorded from `runs` at the probe's site with rows="states".
    runs : Rollouts
        The rollouts.

    Returns
    -------
    mapping of str to Interval
        By name, clustered by problem.

    Raises
    ------
    MechRewardError
        Activations of another kind of row, or of other rollouts.
    """
    require(
        acts.rows == "states",
        f"activations with rows='states' are needed; these have {acts.rows!r}.",
    )
    at_start = acts.step == 0
    require(
        int(at_start.sum()) == len(runs),
        f"{at_start.sum()} answers were recorded of {len(runs)} rollouts.",
    )
    prompts = [run.prompt_len - 1 for run in runs]
    require(
        acts.position[at_start].tolist() == prompts,
        "activations and rollouts differ: record from these rollouts.",
    )
    reward, group = np.array(runs.rewards), np.array(runs.groups)
    scores = {
        "value": probe.predict(acts)[at_start],
        "problem_length": np.array([-float(run.prompt_len) for run in runs]),
        "difficulty": np.array([-float(problem.difficulty) for problem in runs.problems]),
        "sequence_logprob": np.array([float(run.logprobs.sum()) for run in runs]),
        "mean_logprob": np.array([float(run.logprobs.mean()) for run in runs]),
        "answer_length": np.array([-float(run.length) for run in runs]),
    }
    return {name: stats.auroc_interval(score, reward, group) for name, score in scores.items()}
