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

# What is known without the model's activations: before the first token, and after the answer.
SURFACE = (
    "problem_length",
    "difficulty",
    "sequence_logprob",
    "mean_logprob",
    "answer_length",
)


def confidence(
    probe: ValueProbe, acts: Activations, runs: Rollouts, *, other_model: bool = False
) -> dict[str, Interval]:
    """AUROC of the terminal reward for what may be known, grouped by when it is known.

    Before the first token: `value` (the probe at s_0), `problem_length` (prompt tokens, longer =
    less sure), `difficulty` (operations needed; known to the task, not to the model; left out where
    a problem's `info` does not hold it). After the
    answer: `sequence_logprob` (sum), `mean_logprob`, `answer_length`.

    Parameters
    ----------
    probe : ValueProbe
        Fitted to states of other rollouts.
    acts : Activations
        Recorded from `runs` at the probe's site with rows="states".
    runs : Rollouts
        The rollouts.
    other_model : bool, default False
        Whether the activations may be of another model than those the probe was fitted to.

    Returns
    -------
    mapping of str to Interval
        By name, clustered by problem.

    Raises
    ------
    MechRewardError
        Activations of another kind of row, of other rollouts, or of a model that was not asked for.
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
    read = probe.predict(acts, other_model=other_model)
    scores: dict[str, np.ndarray] = {"value": read[at_start]}
    rated = all("difficulty" in problem.info for problem in runs.problems)
    rows = []
    for run, problem in zip(runs, runs.problems, strict=True):
        difficulty = float(problem.difficulty) if rated else 0.0
        before = -float(run.prompt_len), -difficulty
        behind = float(run.logprobs.sum()), float(run.logprobs.mean()), -float(run.length)
        rows.append((*before, *behind))
    for name, column in zip(SURFACE, np.array(rows).T, strict=True):
        if rated or name != "difficulty":
            scores[name] = column
    reward, group = np.array(runs.rewards), np.array(runs.groups)
    return {name: stats.auroc_interval(score, reward, group) for name, score in scores.items()}
