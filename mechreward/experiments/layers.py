"""Over layers: R3, and the choice of layer and share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from mechreward import stats
from mechreward.base.streams import rng
from mechreward.experiments.rows import Detail, Row, Setting, at_site, row_of
from mechreward.experiments.split import SHARES, Split, check_splits
from mechreward.models.site import Site
from mechreward.probing.neurons import count, ranking
from mechreward.probing.probe import ValueProbe
from mechreward.probing.pruning import restrict, shuffled
from mechreward.probing.targets import Examples, first_answers


def layers(
    train: Split,
    held: Split,
    sites: Sequence[Site],
    setting: Setting,
    split: str = "validation",
    draws: int | None = None,
) -> list[Row]:
    """R3: Spearman with V-hat on `held` at every site, for all neurons (share 1) and each share of
    the top.

    On "validation" the rows serve to choose. On "test" no cell is picked, and `detail` holds what
    each is worth: `p`, one-sided, of the cell's Spearman among those with targets moved between
    problems (`pruning.shuffled` of the held rows; nothing is refitted), and `p_holm`, Holm over all
    cells of these sites. The null moves the whole answer among those of equal length: it keeps the
    shape of V-hat in time and what the length tells, so a read-out that only follows the step
    number, or the length, does not hold. Of several answers to a problem the first alone is tested.
    Unreadable cells (a constant read-out) have p 1. The test
    is our own choice.

    Args:
        split: the name of `held`, in `detail`: "validation" (default) or "test".
        draws: shuffles; by default (None) 1999, or 40 a cell if that is more, so that Holm over the
            grid can reach .025.
    """
    check_splits(train=train, held=held)
    rows = []
    read_outs = []
    for site in sites:
        fit = train.states(site)
        data = held.states(site)
        here = at_site(setting, site)
        for share, read in _read_outs(fit, data).items():
            columns = [read, data.y]
            score = stats.cluster_bootstrap(stats.spearman, columns, data.group, draws=200)
            detail = Detail(share=share, split=split)
            rows.append(row_of(here, "value", "spearman", score, detail))
            read_outs.append(read)
    if split == "test" and rows:
        draws = draws or max(1999, 40 * len(rows) - 1)
        targets = held.states(sites[0])  # the same at every site
        p = p_moved(np.stack(read_outs), targets, draws, setting["seed"])
        for row, uncorrected, corrected in zip(rows, p, stats.holm(p), strict=True):
            row.detail.update(p=float(uncorrected), p_holm=float(corrected))
    return rows


def choose(rows: Sequence[Row], kind: str) -> tuple[Site, float]:
    """Layer and share for one kind of neuron, from R3's validation rows (those of another split are
    not looked at): the layer with the best mean Spearman over all its shares (one share of few
    problems is too noisy to choose by), then the smallest share that keeps 90% of that layer's best
    (the largest share, if none does)."""
    scores: dict[str, dict[float, float]] = {}  # by site and share
    for row in rows:
        split = row.detail.get("split", "validation")
        if split == "validation" and Site.parse(row.site).kind == kind:
            at_shares = scores.setdefault(row.site, {})
            at_shares[row.detail["share"]] = row.estimate

    def mean(site: str) -> float:
        readable = np.nan_to_num(list(scores[site].values()))
        return float(np.mean(readable))

    site = max(scores, key=mean)
    best = max(scores[site].values())
    enough = []
    for share in SHARES:
        if scores[site][share] >= 0.9 * best:
            enough.append(share)
    return Site.parse(site), min(enough, default=SHARES[-1])


def p_moved(read: np.ndarray, held: Examples, draws: int, seed: int) -> np.ndarray:
    """Randomisation p [cell], one-sided, of the Spearman of every read-out [cell row] with the
    targets of `held`, among `draws` with targets moved between problems; the same moves for all
    cells, ranked once. Rows are those of the first answer to each problem: several answers to one
    are no independent evidence, and no other problem has as long ones to move to."""
    first = first_answers(held)
    read, held = read[:, first], held.only(first)
    targets = [held.y]
    for draw in range(draws):
        moves = rng("layers: moved targets", seed, draw)
        targets.append(shuffled(held, moves, by_length=True).y)
    rho = _ranked(read) @ _ranked(np.stack(targets)).T
    real = rho[:, :1]
    moved = rho[:, 1:]
    reached = ~(moved < real - 1e-12)  # NaN counts against the cell
    return (1 + reached.sum(1)) / (1 + draws)


def _read_outs(fit: Examples, held: Examples) -> dict[float, np.ndarray]:
    """What probes fitted to `fit` read on `held`, by share of the neurons they see."""
    full = ValueProbe("mc", "mlp").fit_examples(fit)
    reads = {1.0: full.predict(held.x)}
    for share in SHARES:
        top = ranking(full.scores_)[: count(fit.x.shape[1], share)]
        few = ValueProbe("mc", "mlp").fit_examples(restrict(fit, top))
        reads[share] = few.predict(restrict(held, top).x)
    return reads


def _ranked(columns: np.ndarray) -> np.ndarray:
    """Ranks within every row of [column n], of mean 0 and length 1: products are Spearman's; NaN
    for a constant."""
    ranks = rankdata(columns, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    return ranks / np.where(length > 0, length, np.nan)
