"""Early exit: what stopping by each signal saves and loses, and whether promises are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from typing import Any

import numpy as np
from scipy.stats import betabinom

from mechreward.base.progress import under
from mechreward.experiments.rows import Detail, Row, Setting, bare, row_of
from mechreward.models.policy import Policy
from mechreward.stats import Interval
from mechreward.tasks import Problem
from mechreward.uses.early_exit import Exit, early_exit, fit_exit
from mechreward.uses.exit_record import EarlyExit
from mechreward.uses.search.search import Given

ALPHA = 0.1  # the promised rate of lost answers (our choice)
SHARES = (0.1, 0.25, 0.5)  # of the tokens, that every signal saves


def early_exits(
    model: Any,
    validation: Sequence[Problem],
    test: Sequence[Problem],
    readers: Mapping[str, Given],
    setting: Setting,
    *,
    policy: Policy | None = None,
    progress: bool | str = False,
) -> list[Row]:
    """Rollouts stopped where a signal is low: value read-outs beside what anybody can see.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model that answers.
    validation, test : sequence of Problem
        Rules are set on the former, and held to the latter. No read-out was fitted to either.
    readers : mapping of str to NeuronSet, probe or Readout
        Value read-outs by name.
    setting : Setting
        What the rows have in common.
    policy : Policy or None, default None
        How tokens are drawn.
    progress : bool or str, default False
        Whether bars are shown, or their title.

    Returns
    -------
    list of Row
        `accuracy` of every signal where all save the same share of the tokens, and its `gap` to
        stops by chance; of its conformal rule `lost`, the rate of answers lost among those that
        would have ended correct, beside the promised one, with the p-value of a kept promise; and
        `saved`, the share of the tokens.
    """
    runs = []
    for name, problems in (("validation", validation), ("test", test)):
        title = under(progress, name) if progress else False
        made = early_exit(
            model,
            problems,
            value=dict(readers),
            answers=_asks(problems),
            policy=policy,
            progress=title,
        )
        runs.append(made)
    calibration, measured = runs
    count = len(test)
    rows = [_whole(measured, setting)]
    for line in measured.compare(shares=SHARES).to_dict("records"):
        detail = Detail(saved=float(line["saved"]))
        accuracy = Interval(line["accuracy"], line["low"], line["high"], count)
        gap = Interval(line["gap"], line["gap_low"], line["gap_high"], count)
        rows.append(row_of(setting, line["signal"], "accuracy", accuracy, detail))
        rows.append(row_of(setting, line["signal"], "gap", gap, detail))
    for signal in measured.points.signals:
        rule = fit_exit(calibration, signal, alpha=ALPHA)
        stopped = measured.under(rule)
        detail = Detail(promised=ALPHA)
        lost = Detail(promised=ALPHA, p=_luck(rule, stopped))
        rows.append(row_of(setting, signal, "lost", stopped.realised, lost))
        rows.append(row_of(setting, signal, "saved", bare(stopped.saved, count), detail))
    return rows


def _luck(rule: Exit, stopped: EarlyExit) -> float:
    """How likely a kept promise loses as many answers as were lost, or more.

    The promise is one over calibrations: a threshold that few rollouts set may lose more. With the
    r-th smallest of n scores for a threshold, the losses among m further correct rollouts are
    Beta-Binomial(m, r, n + 1 - r); ties make them fewer.
    """
    rank = floor(ALPHA * (rule.n + 1) + 1e-9)
    if rank < 1:
        return 1.0
    correct = int((stopped.full_reward == 1).sum())
    lost = int(stopped.lost.sum())
    return float(betabinom.sf(lost - 1, correct, rank, rule.n + 1 - rank))


def _asks(problems: Sequence[Problem]) -> bool:
    """Whether the task says how an answer begins, so that one can be asked for."""
    task = problems[0].task
    return task is not None and task.answer_prefix is not None


def _whole(measured: EarlyExit, setting: Setting) -> Row:
    """Accuracy of whole rollouts."""
    rewards = measured.full_reward
    share = float(np.mean(rewards))
    return row_of(setting, "baseline", "accuracy", bare(share, len(rewards)), Detail(saved=0.0))
