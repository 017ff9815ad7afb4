"""Selective prediction: the errors that are left when only the surest answers are given.

Ties are in random order, and every number is the mean over it: a score that cannot tell two answers
apart gains nothing from the order they happen to stand in (our choice).
"""

from __future__ import annotations

from math import nan

import numpy as np

from mechreward.stats.columns import Column, Rows, binary, columns


def risk_coverage(score: Column, label: Column) -> tuple[Rows, Rows]:
    """Share of wrong answers among the surest, at every coverage (El-Yaniv and Wiener 2010).

    Parameters
    ----------
    score
        Higher for what is surer, `[n]`.
    label
        1 where the answer is right, else 0, `[n]`.

    Returns
    -------
    coverage
        Share of the answers that are given, 1/n to 1, `[n]`.
    risk
        Share of these that are wrong, `[n]`.

    Raises
    ------
    MechRewardError
        Columns that are none, or labels other than 0 and 1.
    """
    score, label = columns(score=score, label=label)
    binary(label=label)
    # Every answer of a block of ties is as likely wrong as any other of it.
    _, block, sizes = np.unique(-score, return_inverse=True, return_counts=True)
    wrong = np.bincount(block, 1 - label) / sizes
    given = np.arange(1, len(score) + 1)
    risk = np.repeat(wrong, sizes).cumsum() / given
    return given / len(score), risk


def aurc(score: Column, label: Column) -> float:
    """Area under the risk-coverage curve: mean risk over all coverages; lower is better.

    Parameters
    ----------
    score
        Higher for what is surer, `[n]`.
    label
        1 where the answer is right, else 0, `[n]`.

    Returns
    -------
    float
        In [0, 1]. A score that says nothing has the share of wrong answers.

    Raises
    ------
    MechRewardError
        As `risk_coverage`.
    """
    _, risk = risk_coverage(score, label)
    return float(risk.mean())


def excess_aurc(score: Column, label: Column) -> float:
    """`aurc` beyond that of an oracle, which gives all right answers first (Geifman et al. 2019).

    Parameters
    ----------
    score
        Higher for what is surer, `[n]`.
    label
        1 where the answer is right, else 0, `[n]`.

    Returns
    -------
    float
        0 for the oracle's order.

    Raises
    ------
    MechRewardError
        As `risk_coverage`.
    """
    return aurc(score, label) - aurc(label, label)


def prediction_rejection_ratio(score: Column, label: Column) -> float:
    """What a score gains over a random order, of what an oracle gains (Malinin and Gales 2021).

    The gain is that of the area under the mean quality of the answers that are kept, here their
    share of right ones: (share wrong - aurc) / (share wrong - aurc of the oracle). Where errors are
    counted over all answers instead, kept or not, the ratio is 2 AUROC - 1 and says nothing new.

    Parameters
    ----------
    score
        Higher for what is surer, `[n]`.
    label
        1 where the answer is right, else 0, `[n]`.

    Returns
    -------
    float
        1 for the oracle's order, 0 for a score that says nothing, negative for a misleading one;
        nan if there is one class.

    Raises
    ------
    MechRewardError
        As `risk_coverage`.
    """
    area = aurc(score, label)
    wrong = 1 - float(np.mean(label))
    most = wrong - aurc(label, label)
    if most <= 0:
        return nan
    return (wrong - area) / most
