"""Over layers: R3, and the choice of layer and share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from mechreward import stats
from mechreward.base.streams import rng
from mechreward.experiments.rows import Row, rows_from
from mechreward.experiments.split import SHARES, Split
from mechreward.models.site import Site
from mechreward.probing.neurons import count, ranking
from mechreward.probing.probe import ValueProbe
from mechreward.probing.pruning import restrict, shuffled
from mechreward.probing.targets import Examples
from mechreward.stats import Interval


def R3(
    train: Split,
    held: Split,
    sites: Sequence[Site],
    about: dict[str, Any],
    split: str = "validation",
    draws: int | None = None,
) -> list[Row]:
    """Over layers: Spearman with V-hat on `held` at every site, for all neurons (share 1) and each
    share of the top.

    On "validation" the rows serve to choose. On "test" no cell is picked, and `detail` holds what
    each is worth: `p`, one-sided, of the cell's Spearman among those with targets moved between
    answers (`pruning.shuffled` of the held rows; nothing is refitted), and `p_holm`, Holm over all
    cells of these sites. The null moves whole trajectories among those of equal length: it keeps
    the shape of V-hat in time and what the length tells, so a read-out that only follows the step
    number, or the length, does not hold. Unreadable cells (a constant read-out) have p 1. The test
    is our own choice.

    Args:
        split: the name of `held`, in `detail`.
        draws: shuffles; by default 1999, or 40 a cell if that is more, so that Holm over the grid
        can reach .025.
    """
    found: list[tuple[Site, Interval, dict[str, Any]]] = []
    read = []
    for site in sites:
        fit, data = train.states(site), held.states(site)
        full = ValueProbe("mc", "mlp").fit_examples(fit)
        reads = {1.0: full.predict(data.x)}
        for share in SHARES:
            top = ranking(full.scores_)[: count(fit.x.shape[1], share)]
            few = ValueProbe("mc", "mlp").fit_examples(restrict(fit, top))
            reads[share] = few.predict(restrict(data, top).x)
        for share, said in reads.items():
            score = stats.cluster_bootstrap(stats.spearman, [said, data.y], data.group, draws=200)
            found.append((site, score, {"share": share, "split": split}))
            read.append(said)
    if split == "test" and found:
        p = p_moved(
            np.stack(read),
            held.states(sites[0]),
            draws or max(1999, 40 * len(found) - 1),
            about["seed"],
        )
        for (_, _, detail), one, holm in zip(found, p, stats.holm(p), strict=True):
            detail |= {"p": float(one), "p_holm": float(holm)}
    return [
        row
        for site, score, detail in found
        for row in rows_from(about | {"site": str(site)}, [("value", "spearman", score, detail)])
    ]


def choose(rows: Sequence[Row], kind: str) -> tuple[Site, float]:
    """Layer and share for one kind of neuron, from R3's validation rows (those of another split are
    not looked at): the layer with the best mean Spearman over all its shares (one share of few
    problems is too noisy to choose by), then the smallest share that keeps 90% of that layer's best
    (the largest share, if none does)."""
    seen = [row for row in rows if row.detail.get("split", "validation") == "validation"]
    own = [row for row in seen if Site.parse(row.site).kind == kind]
    scores: dict[str, list[float]] = {}
    for row in own:
        scores.setdefault(row.site, []).append(float(np.nan_to_num(row.estimate)))
    site = max(scores, key=lambda site: float(np.mean(scores[site])))
    here = {row.detail["share"]: row.estimate for row in own if row.site == site}
    enough = [share for share in SHARES if here[share] >= 0.9 * max(here.values())]
    return Site.parse(site), min(enough, default=SHARES[-1])


def p_moved(read: np.ndarray, held: Examples, draws: int, seed: int) -> np.ndarray:
    """Randomisation p [cell], one-sided, of the Spearman of every read-out [cell row] with the
    targets of `held`, among `draws` with targets moved between trajectories; the same moves for all
    cells, ranked once."""
    moved = [
        shuffled(held, rng("layers: moved targets", seed, draw), by_length=True).y
        for draw in range(draws)
    ]
    own, null = _ranked(read), _ranked(np.stack([held.y, *moved]))
    rho = own @ null.T
    reached = ~(rho[:, 1:] < rho[:, :1] - 1e-12)  # NaN counts against the cell
    return (1 + reached.sum(1)) / (1 + draws)


def _ranked(columns: np.ndarray) -> np.ndarray:
    """Ranks within every row of [column n], of mean 0 and length 1: products are Spearman's; NaN
    for a constant."""
    ranks = rankdata(columns, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    return ranks / np.where(length > 0, length, np.nan)
