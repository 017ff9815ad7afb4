"""What is known of an answer without the model's activations: a column a baseline, by stage.

Every column is the plain quantity; which way it goes is learnt on the rows that are fitted
(`reader`), so that no baseline loses by a sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import entropy

from mechreward.models.text import decode
from mechreward.probing.measures import Measures
from mechreward.rollouts.trajectory import Rollouts, Trajectory
from mechreward.tasks.judge import answers_of

Column = Float[np.ndarray, " row"]
Columns = Mapping[str, Column]

# What should go with right answers: it decides only where nothing teaches it (`reader`).
SURER = ("mean_logprob", "sequence_logprob", "self_certainty", "p_true", "agreement")
NO_DIFFICULTY = "not every problem has a number as info['difficulty']"
NO_PERPLEXITY = "a prompt of one token has no perplexity"
NO_ANSWERS = "the task extracts no answer that could be compared: see Task.answer"


def of_prompts(runs: Rollouts, measured: Sequence[Measures]) -> tuple[Columns, dict[str, str]]:
    """What is known before the first token, a row a trajectory.

    `problem_length` (tokens), `log_perplexity` (minus the mean log-probability of the prompt's
    tokens), `next_token_entropy` (of the first token), and the task's own `difficulty`.

    Returns
    -------
    columns
        By name.
    missing
        Why a column is not there, by name.
    """
    lengths, perplexities, entropies = [], [], []
    for run, seen in zip(runs, measured, strict=True):
        prompt = seen.logprob[1 : run.prompt_len]
        lengths.append(run.prompt_len)
        perplexities.append(-prompt.mean() if len(prompt) else np.nan)
        entropies.append(seen.entropy[run.prompt_len - 1])
    columns = {
        "problem_length": np.array(lengths, float),
        "log_perplexity": np.array(perplexities, float),
        "next_token_entropy": np.array(entropies, float),
        "difficulty": np.array([_difficulty(problem.info) for problem in runs.problems]),
    }
    reasons = {"log_perplexity": NO_PERPLEXITY, "difficulty": NO_DIFFICULTY}
    return _defined(columns, reasons)


def of_parts(runs: Rollouts, measured: Sequence[Measures]) -> Columns:
    """What is known in the middle of an answer: a row a state between prompt and end.

    `tokens_so_far`, `steps`, and the means so far of the log-probability of the tokens, of the
    entropy of the distributions they were drawn from, and of their self-certainty.
    """
    rows = []
    for run, seen in zip(runs, measured, strict=True):
        for step in range(1, run.steps):
            end = run.step_ends[step] + 1
            rows.append((end - run.prompt_len, step, *_means(run, seen, end)))
    names = ("tokens_so_far", "steps", "mean_logprob", "mean_entropy", "self_certainty")
    return _by_name(names, rows)


def of_ends(runs: Rollouts, measured: Sequence[Measures]) -> Columns:
    """What is known of a finished answer, a row a trajectory.

    `answer_length`, `sequence_logprob` (sum), `mean_logprob`, `mean_entropy` and `self_certainty`,
    as for `of_parts`.
    """
    rows = []
    for run, seen in zip(runs, measured, strict=True):
        end = len(run.tokens)
        logprob, spread, certainty = _means(run, seen, end)
        rows.append((run.length, logprob * run.length, logprob, spread, certainty))
    names = (
        "answer_length",
        "sequence_logprob",
        "mean_logprob",
        "mean_entropy",
        "self_certainty",
    )
    return _by_name(names, rows)


def of_several(model: Any, runs: Rollouts, rows: np.ndarray) -> tuple[Columns, dict[str, str]]:
    """What is known of several answers to one problem: a row an answer among `rows`.

    `agreement` is the share of the other answers that say the same, `answer_entropy` that of all
    answers, in nats. An answer from which nothing is extracted agrees with no other.

    Parameters
    ----------
    model
        Decodes the answers.
    runs : Rollouts
        The answers.
    rows : array [row]
        Numbers of the trajectories whose problem has two answers or more.

    Returns
    -------
    columns, missing
        As `of_prompts`.
    """
    numbers = rows.tolist()
    texts = [decode(model, runs[i].tokens[runs[i].prompt_len :]) for i in numbers]
    said = answers_of([runs.problems[i] for i in numbers], texts)
    if not any(said):
        return {}, dict.fromkeys(("agreement", "answer_entropy"), NO_ANSWERS)
    groups = np.array(runs.groups)[rows]
    names = np.array([answer or f"nothing, {row}" for row, answer in enumerate(said)])
    agreement, spread = np.empty(len(rows)), np.empty(len(rows))
    for group in np.unique(groups):
        here = groups == group
        _, which, counts = np.unique(names[here], return_inverse=True, return_counts=True)
        agreement[here] = (counts[which] - 1) / (here.sum() - 1)
        spread[here] = entropy(counts)
    return {"agreement": agreement, "answer_entropy": spread}, {}


def prompt_texts(model: Any, runs: Rollouts) -> tuple[str, ...]:
    """The words of every trajectory's prompt: of chat messages their contents, of token ids what
    they decode to."""
    texts = []
    for run, problem in zip(runs, runs.problems, strict=True):
        prompt: Any = problem.prompt
        if isinstance(prompt, str):
            texts.append(prompt)
        elif prompt and isinstance(prompt[0], Mapping):
            texts.append("\n".join(str(message["content"]) for message in prompt))
        else:
            texts.append(decode(model, torch.as_tensor(run.tokens[: run.prompt_len])))
    return tuple(texts)


def _means(run: Trajectory, seen: Measures, end: int) -> tuple[float, float, float]:
    """Mean log-probability of the answer's tokens before `end`; mean entropy and self-certainty of
    the distributions that they were drawn from, each one position earlier."""
    begin = run.prompt_len
    drawn = slice(begin - 1, end - 1)
    return (
        float(seen.logprob[begin:end].mean()),
        float(seen.entropy[drawn].mean()),
        float(seen.certainty[drawn].mean()),
    )


def _difficulty(info: Mapping[str, Any]) -> float:
    given = info.get("difficulty")
    if isinstance(given, bool) or not isinstance(given, int | float | np.number):
        return np.nan
    return float(given)


def _by_name(names: Sequence[str], rows: Sequence[tuple[int | float, ...]]) -> Columns:
    table = np.array(rows, float).reshape(len(rows), len(names))
    return dict(zip(names, table.T, strict=True))


def _defined(columns: Columns, reasons: Mapping[str, str]) -> tuple[Columns, dict[str, str]]:
    """Columns without a hole, and why the others are not there."""
    there, missing = {}, {}
    for name, column in columns.items():
        if np.isfinite(column).all():
            there[name] = column
        else:
            missing[name] = reasons.get(name, "it is not finite everywhere")
    return there, missing
