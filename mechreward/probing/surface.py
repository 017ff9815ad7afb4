"""What the surface of an answer says about its outcome: baselines for a value read-out."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mechreward import stats
from mechreward.base.errors import require
from mechreward.probing.measures import measures
from mechreward.rollouts.trajectory import Rollouts
from mechreward.stats import Interval

FEATURES = ("prompt_length", "difficulty", "position", "step", "entropy", "mean_logprob")


def surface(model: Any, runs: Rollouts, batch: int = 64) -> Float[np.ndarray, "row feature"]:
    """`FEATURES` of every state, in the rows of `estimate` and of `record(..., rows="states")`.

    Prompt tokens; the task's own difficulty (0 where it has none); generated tokens and steps so
    far; entropy (nats) of the next token; mean log-probability of the tokens so far (0 at s_0).
    Nothing looks ahead.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one that made the runs.
    runs : Rollouts
        The rollouts.
    batch : int, default 64
        Trajectories run at once; fewer where they are long.

    Returns
    -------
    array [row feature]
        In the order of `FEATURES`.

    Raises
    ------
    MechRewardError
        No runs, or runs of another model.
    """
    entropies = [each.entropy for each in measures(model, runs, batch=batch)]
    rows = []
    for i, run in enumerate(runs):
        difficulty = float(runs.problems[i].info.get("difficulty", 0))
        for step, end in enumerate(run.step_ends):
            length = end + 1 - run.prompt_len
            mean = float(run.logprobs[:length].mean()) if length else 0.0
            entropy = float(entropies[i][end])
            rows.append((run.prompt_len, difficulty, length, step, entropy, mean))
    return np.array(rows)


def further(runs: Rollouts) -> dict[str, Float[np.ndarray, " row"]]:
    """Facts of every state that goes on, in the rows of `states`, that lie in the future or may be
    the value itself.

    `difficulty`, as the task has it, if it gives every problem a number; `log-probability`, the
    mean of the answer's tokens so far (0 at s_0); `length to come`, the tokens that this answer
    still has. Those that are the same everywhere are left out.

    Parameters
    ----------
    runs : Rollouts

    Returns
    -------
    dict of str to array [row]
    """
    rows = []
    for problem, run in zip(runs.problems, runs, strict=True):
        difficulty = problem.info.get("difficulty")
        if not isinstance(difficulty, int | float):
            difficulty = np.nan
        said = len(run.tokens) - run.prompt_len
        for end in run.step_ends[:-1]:
            length = end + 1 - run.prompt_len
            mean = float(run.logprobs[:length].mean()) if length else 0.0
            rows.append((difficulty, mean, said - length))
    names = ("difficulty", "log-probability", "length to come")
    facts = {}
    for name, column in zip(names, np.array(rows, float).T, strict=True):
        if np.isfinite(column).all() and np.ptp(column) > 0:
            facts[name] = column
    return facts


def increment(
    fit: tuple[np.ndarray, np.ndarray, np.ndarray],
    held: tuple[np.ndarray, np.ndarray, np.ndarray],
    group: np.ndarray,
    seed: int = 0,
) -> dict[str, Interval]:
    """AUROC of the reward from the surface alone, with the value read-out, and the difference.

    A logistic regression is fitted to rows that the probe was not fitted to (its read-out is too
    good there), and measured on other rows; intervals are clustered by problem. The difference is
    paired.

    Parameters
    ----------
    fit : tuple of array
        (surface [row feature], read-out [row], reward [row]) to fit on.
    held : tuple of array
        The same of other rows.
    group : array [row]
        [row] problem of each of `held`'s rows.
    seed : int, default 0
        Seed of the bootstrap of the difference.

    Returns
    -------
    mapping of str to Interval
        `surface`, `surface_and_value`, `increment`.

    Raises
    ------
    MechRewardError
        All rewards of `fit` are equal.
    """
    x, read, reward = fit
    require(
        len(np.unique(reward)) == 2,
        "nothing can be fitted: all answers are right, or all are wrong.",
    )

    new_x, new_read, label = held

    def fitted(given: np.ndarray, new: np.ndarray) -> np.ndarray:
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(given, reward)
        return model.decision_function(new)

    alone = fitted(x, new_x)
    both = fitted(np.column_stack([x, read]), np.column_stack([new_x, new_read]))
    return {
        "surface": stats.auroc_interval(alone, label, group),
        "surface_and_value": stats.auroc_interval(both, label, group),
        "increment": stats.cluster_bootstrap(
            gain, [both, alone, label], group, draws=300, seed=seed
        ),
    }


def gain(more: np.ndarray, less: np.ndarray, label: np.ndarray) -> float:
    """AUROC of one score minus that of another, of the same rows."""
    return stats.auroc(more, label) - stats.auroc(less, label)
