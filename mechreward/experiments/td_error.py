"""Dopamine neurons: R8, and the site they are sought at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from mechreward import stats
from mechreward.base.errors import one_of, require
from mechreward.experiments.rows import Detail, Row, Setting, row_of
from mechreward.experiments.split import CUT, Split, check_splits, curve
from mechreward.models.site import Site
from mechreward.probing.activations import Activations
from mechreward.probing.probe import DopamineProbe
from mechreward.probing.pruning import measures, noiseless_spearman
from mechreward.probing.targets import Examples

SCALES = ("response", "running")
ALL = "all steps"
LARGE = f"|delta| > {CUT}"


def td_error(
    train: Split,
    test: Split,
    site: Site,
    setting: Setting,
    draws: int = 3,
    every: tuple[Activations, Activations] | None = None,
) -> list[Row]:
    """R8: Spearman of the read-out with delta, with and without the paper's cut, and against
    pruning.

    The paper's z-score of each neuron over its whole response (Appendix F) sees the future;
    `response` repeats it, with the paper's cut (its whole protocol) and without, `running` uses
    only the tokens so far, and all else here standardises on the training split.

    Args:
        draws: random subsets, bases and shuffles at each ratio of the pruning curve (default 3).
        every: activations at every token of the training and of the test rollouts; without them
            (None, default) the three z-scored rows are left out.
    """
    check_splits(train=train, test=test)
    fit, held = train.steps(site), test.steps(site)
    first, second = test.values.delta_halves()
    is_step = test.values.is_step
    rows = _on_the_training_scale(fit, held, (first[is_step], second[is_step]), setting)
    if every is not None:
        rows += _on_the_answers_scale(fit, held, every, setting)
    return rows + curve(DopamineProbe(), fit, held, setting, draws)


def scaled(data: Examples, every: Activations, how: str) -> Examples:
    """Means over a step's tokens, with every neuron standardised over the tokens of its own answer
    first.

    Args:
        data: steps, in the order of their trajectories.
        every: activations at every token of the same rollouts.
        how: "response", by mean and deviation over all tokens of the answer's steps, those to come
            included (paper, Appendix F); or "running", over the tokens up to the step's end, which
            an online reader has.

    Raises:
        MechRewardError: another way, activations of other rows, or of other rollouts.
    """
    one_of("way to standardise", how, SCALES)
    require(
        every.rows == "tokens",
        f"activations with rows='tokens' are needed; these have {every.rows!r}.",
    )
    x = torch.empty_like(data.x)
    for answer in np.unique(data.trajectory):
        rows = data.trajectory == answer
        mean, deviation = _scale(every, int(answer), data.step[rows], how)
        at = torch.from_numpy(rows)
        x[at] = ((data.x[at].double() - mean) / deviation).float()
    return replace(data, x=x)


def best_dopamine(train: Split, validation: Split, sites: Sequence[Site], kind: str) -> Site:
    """The site of one kind whose dopamine probe has the best validation Spearman with delta."""
    check_splits(train=train, validation=validation)

    def score(site: Site) -> float:
        probe = DopamineProbe().fit_examples(train.steps(site))
        held = validation.steps(site)
        return stats.spearman(probe.predict(held.x), held.y)

    return max((site for site in sites if site.kind == kind), key=score)


def _on_the_training_scale(
    fit: Examples,
    held: Examples,
    halves: tuple[np.ndarray, np.ndarray],
    setting: Setting,
) -> list[Row]:
    """The probe with and without the cut, tested on all and on large steps, and disattenuated by
    the reliability of delta."""
    reliability = round(stats.split_half_reliability(*halves), 4)
    rows = []
    for cut in (0.0, CUT):
        fitted = LARGE if cut else ALL
        probe = DopamineProbe(cut=cut).fit_examples(fit)
        for tested in (ALL, LARGE):
            data = _large(held) if tested == LARGE else held
            score = measures(probe, data)["spearman"]
            detail = Detail(fitted=fitted, tested=tested)
            rows.append(row_of(setting, "dopamine", "spearman", score, detail))
        columns = [probe.predict(held.x), held.y, *halves]
        score = stats.cluster_bootstrap(noiseless_spearman, columns, held.group, draws=300)
        detail = Detail(fitted=fitted, tested=ALL, reliability=reliability)
        rows.append(row_of(setting, "dopamine", "spearman_disattenuated", score, detail))
    return rows


def _on_the_answers_scale(
    fit: Examples,
    held: Examples,
    every: tuple[Activations, Activations],
    setting: Setting,
) -> list[Row]:
    """The probe on neurons that are standardised over their own answer, in its three ways."""
    rows = []
    for how, cut in (("response", CUT), ("response", 0.0), ("running", 0.0)):
        seen = scaled(fit, every[0], how)
        data = scaled(held, every[1], how)
        probe = DopamineProbe(cut=cut).fit_examples(seen)
        score = measures(probe, _large(data) if cut else data)["spearman"]
        steps = LARGE if cut else ALL
        detail = Detail(fitted=steps, tested=steps, z=how)
        rows.append(row_of(setting, "dopamine", "spearman_z", score, detail))
    return rows


def _large(data: Examples) -> Examples:
    """Steps with a TD error above the cut."""
    return data.only(np.abs(data.y) > CUT)


def _scale(
    every: Activations,
    answer: int,
    steps: np.ndarray,
    how: str,
) -> tuple[Float[torch.Tensor, "step width"], Float[torch.Tensor, "step width"]]:
    """Mean and deviation of every neuron over the tokens that are known at the end of each step of
    one answer."""
    inside = (every.trajectory == answer) & (every.step >= 1) & (every.step <= steps.max())
    tokens = every.x[torch.from_numpy(inside)].double()
    ends = np.searchsorted(every.step[inside], steps, "right")
    require(
        bool((np.diff(ends, prepend=0) > 0).all()),
        "steps and tokens belong to different rollouts.",
    )
    known = np.full(len(ends), len(tokens)) if how == "response" else ends
    count = torch.from_numpy(known)[:, None]
    mean = tokens.cumsum(0)[known - 1] / count
    square = (tokens**2).cumsum(0)[known - 1] / count
    deviation = (square - mean.square()).clamp(min=1e-8).sqrt()
    return mean, deviation
