"""A single neuron that follows surprise: R9."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from mechreward import stats
from mechreward.base.streams import rng
from mechreward.experiments.rows import Detail, Row, Setting, bare, row_of
from mechreward.experiments.split import Split, check_splits
from mechreward.models.site import Site
from mechreward.probing.pruning import shuffled
from mechreward.probing.targets import Examples, first_answers
from mechreward.stats import Interval

ITEMS = 4  # test answers whose trace is shown


def single_neuron(
    train: Split,
    test: Split,
    site: Site,
    setting: Setting,
    draws: int = 99,
) -> list[Row]:
    """R9: a neuron chosen on train, reported on test, beside a max-statistic null.

    `spearman` is that of the neuron, with the sign it had on train, with delta on test.
    `max_spearman` is the largest |Spearman| of any neuron on test, and its p the rank among `draws`
    (default 99) shuffles of delta between problems with answers of equal length, each with the
    maximum over all neurons: with d neurons, one of them always looks good. Of several answers to a
    problem the first alone is ranked (`layers.p_moved` says why). `trace` is the neuron over the
    steps of the first `ITEMS` test answers, chosen blind.
    """
    check_splits(train=train, test=test)
    fit = train.steps(site)
    held = test.steps(site)
    on_train = stats.spearmans(fit.x.numpy(), fit.y)
    neuron = int(np.nanargmax(np.abs(on_train)))
    sign = float(np.sign(on_train[neuron]))
    signed = sign * held.x[:, neuron].numpy()
    score = stats.cluster_bootstrap(stats.spearman, [signed, held.y], held.group)
    first = held.only(first_answers(held))
    most = largest(first.x, first.y)
    null = []
    for draw in range(draws):
        moves = rng("single neuron: moved targets", setting["seed"], draw)
        moved = shuffled(first, moves, by_length=True)
        null.append(largest(first.x, moved.y))
    _, p = stats.rank_among(most, np.array(null), tail="high")
    chance = Interval(
        float(np.mean(null)),
        float(np.quantile(null, 0.025)),
        float(np.quantile(null, 0.975)),
        draws,
    )

    chosen = Detail(neuron=neuron, sign=sign, train=float(abs(on_train[neuron])))
    tested = Detail(p=p, draws=draws)
    bounds = Detail(interval="2.5% to 97.5% of draws")
    width = held.x.shape[1]
    return [
        *_trace(fit, held, neuron, setting),
        row_of(setting, "dopamine", "spearman", score, chosen),
        row_of(setting, "dopamine", "max_spearman", bare(most, width), tested),
        row_of(setting, "shuffled", "max_spearman", chance, bounds),
    ]


def largest(x: Float[torch.Tensor, "row width"], y: np.ndarray) -> float:
    """The largest |Spearman| of any neuron with `y`."""
    return float(np.nanmax(np.abs(stats.spearmans(x.numpy(), y))))


def _trace(fit: Examples, held: Examples, neuron: int, setting: Setting) -> list[Row]:
    """The neuron over the steps of the first answers, in standard deviations of the training
    split."""
    on_train = fit.x[:, neuron]
    deviation = on_train.std().clamp(min=1e-8)
    z = (held.x[:, neuron] - on_train.mean()) / deviation
    rows = []
    for item in range(min(ITEMS, held.trajectory.max() + 1)):
        for index in np.flatnonzero(held.trajectory == item):
            detail = Detail(
                item=item,
                step=int(held.step[index]),
                delta=float(held.y[index]),
            )
            activation = bare(float(z[index]), 1)
            rows.append(row_of(setting, "dopamine", "trace", activation, detail))
    return rows
