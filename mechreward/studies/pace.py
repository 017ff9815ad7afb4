"""How fast a model answers and is read here: a short trial."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mechreward.base.errors import MechRewardError
from mechreward.base.streams import stream
from mechreward.models.policy import Policy
from mechreward.models.site import Site
from mechreward.probing.activations import record
from mechreward.probing.probe import ValueProbe
from mechreward.probing.targets import Examples
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts
from mechreward.studies import work
from mechreward.tasks import Problem, Task

TRIAL = 8  # problems of the trial (our choice)
SECONDS = 40.0  # that its second part may take, at most
BATCH = 256  # rows decoded at once, as `sample` has it


@dataclass(frozen=True)
class Pace:
    """What a short trial showed of a model on a task.

    Attributes
    ----------
    prompt : int | float
        Tokens of a prompt, the mean.
    length : int | float
        Tokens of an answer.
    states : int | float
        States of an answer that are valued.
    rest : int | float
        Tokens from a state to the end.
    writing : int | float
        Tokens a second, decoded.
    reading : int | float
        Tokens a second, of whole texts.
    fitting : int | float
        Seconds that the paper's probe is fitted in, to the rows of 80 answers.
    accuracy : int | float
        Share of right answers.
    answers : int
        Of the trial.
    """

    prompt: int | float
    length: int | float
    states: int | float
    rest: int | float
    writing: int | float
    reading: int | float
    fitting: int | float
    accuracy: int | float
    answers: int

    def seconds(self, asked: work.Work) -> float:
        """What some work will take."""
        written = asked.answers * self.length + asked.onward * self.rest
        read = asked.prompts * self.prompt + asked.reads * (self.prompt + self.length)
        return written / self.writing + read / self.reading + asked.fits * self.fitting

    def tokens(self, asked: work.Work) -> float:
        """What will be decoded."""
        return float(asked.answers * self.length + asked.onward * self.rest)


def some_problems(task: Task, seed: int) -> list[Problem]:
    """A few validation problems, as far as there are any."""
    for count in range(TRIAL, 0, -1):
        try:
            return task.problems("validation", count, seed)
        except MechRewardError:
            continue
    return task.problems("test", 1, seed)


def trial(model: Any, problems: Sequence[Problem], policy: Policy | None = None) -> Pace:
    """A few answers, timed: first one to each of a few problems, then as many as fit into some
    seconds.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model.
    problems : sequence of Problem
        The first few are answered.
    policy : Policy or None, default None
        How tokens are drawn; the model's own distribution if None.
    """
    few = problems[:TRIAL]
    seed = stream("forecast", 0)

    def answers(k: int) -> tuple[Rollouts, float]:
        began = time.perf_counter()
        runs = sample(model, few, k=k, seed=seed, policy=policy, progress=False)
        return runs, time.perf_counter() - began

    runs, spent = answers(1)
    k = int(min(BATCH // len(few), SECONDS / max(spent, 1e-3)))
    if k > 1:
        runs, spent = answers(k)
    lengths = np.array([run.length for run in runs])
    prompts = np.array([run.prompt_len for run in runs])
    rest = []
    for run in runs:
        for end in run.step_ends[: run.steps]:
            rest.append(len(run.tokens) - 1 - end)
    last = Site(int(model.cfg.n_layers) - 1, "resid_post")
    began = time.perf_counter()
    record(model, runs, last, progress=False)
    read = time.perf_counter() - began
    texts = float(prompts.sum() + lengths.sum())
    # Prompts are read once each, before the answers are written.
    writing = lengths.sum() / max(spent - prompts.mean() * len(few) * read / texts, spent / 2)
    return Pace(
        prompt=float(prompts.mean()),
        length=float(lengths.mean()),
        states=len(rest) / len(runs),
        rest=float(np.mean(rest)),
        writing=float(writing),
        reading=texts / read,
        fitting=_fitting(last.width(model), round(80 * len(rest) / len(runs))),
        accuracy=float(np.mean(runs.rewards)),
        answers=len(runs),
    )


def _fitting(width: int, rows: int) -> float:
    """Seconds of one fit of the paper's probe to noise."""
    rows = max(rows, 40)
    rng = np.random.default_rng(0)
    group = np.arange(rows) // max(1, rows // 40)
    x = torch.from_numpy(rng.normal(size=(rows, width))).float()
    zeros = np.zeros(rows, dtype=np.int64)
    data = Examples(x, rng.random(rows), group % 2, group, group, zeros, zeros == 1)
    began = time.perf_counter()
    ValueProbe("mc", "mlp").fit_examples(data)
    return time.perf_counter() - began
