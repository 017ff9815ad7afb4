"""Does a set of neurons read V at all, and is it sparser than redundancy and the choice of basis explain?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mechreward import stats
from mechreward._check import require
from mechreward.probing.neurons import ranking
from mechreward.probing.probe import ValueProbe
from mechreward.probing.pruning import Probe, clone, restrict, rotated, shuffled
from mechreward.probing.targets import Examples
from mechreward.stats import Interval

GAP = 0.05  # of a Spearman: below that, nothing is left for a few chosen neurons to add (our choice)


@dataclass(frozen=True)
class Evidence:
    """How well few neurons read the target on held-out problems, beside what nobody chose. All Spearman.

    `full`: all neurons. `few`: the set, retrained. `random` and `rotated` [draw]: as many random neurons, and the best
    coordinates of random bases, retrained; `shuffled` [draw]: the whole recipe fitted to targets of other problems.
    `p` is the rank of `full` among the shuffles, `p_few` that of the set. `sparsity` is the part of the gap between
    the better of `random` and `rotated`, and `full`, that the set closes: 1 sparse, 0 no better than any neurons or
    any basis; NaN where there is no gap of `GAP`.
    """

    neurons: int
    full: Interval
    few: Interval
    random: tuple[float, ...]
    rotated: tuple[float, ...]
    shuffled: tuple[float, ...]
    shuffled_few: tuple[float, ...]
    sparsity: Interval

    @property
    def p(self) -> float:
        return stats.rank_among(self.full.estimate, np.array(self.shuffled), tail="high")[1]

    @property
    def p_few(self) -> float:
        return stats.rank_among(self.few.estimate, np.array(self.shuffled_few), tail="high")[1]

    @property
    def reading(self) -> str:
        """`nothing` (no better than shuffled targets), `sparse` (the whole interval above .5), `redundant` (as many
        random neurons read half as well as all), `distributed` (the whole interval below .5), or `unclear`, which fewer
        than 19 draws always are: no rank among them is small enough to call anything."""
        if len(self.shuffled) < 19:
            return "unclear"
        if self.p > 0.05 or self.full.low <= 0:
            return "nothing"
        if np.mean(self.random) > 0.5 * self.full.estimate:
            return "redundant"
        if np.isnan(self.sparsity.low):
            return "unclear"
        return "sparse" if self.sparsity.low > 0.5 else "distributed" if self.sparsity.high < 0.5 else "unclear"

    def __str__(self) -> str:
        return (
            f"{self.reading}: all neurons {self.full}, {self.neurons} chosen {self.few}, random "
            f"{np.mean(self.random):.3f}, other bases {np.mean(self.rotated):.3f}, shuffled targets "
            f"{np.mean(self.shuffled):.3f} (p={self.p:.3g}); sparsity beyond redundancy {self.sparsity}"
        )


def evidence(
    train: Examples,
    test: Examples,
    neurons: np.ndarray | None = None,
    *,
    top: int = 3,
    probe: Probe | None = None,
    draws: int = 19,
    seed: int = 0,
) -> Evidence:
    """Hold a set (`neurons`, or the `top` of the probe's own ranking) against every null, on problems it never saw.

    The probe is linear by default (`ValueProbe("mc", "linear")`): 19 draws cost milliseconds each, and what a
    net of a thousand units finds in one neuron is not what a few neurons carry.

    Raises:
        MechRewardError: nothing to learn, no neurons, or fewer than 3 draws.
    """
    require(draws >= 3, f"nulls need at least 3 draws (19 for p = .05); {draws} were asked for.")
    prototype = probe or ValueProbe("mc", "linear")
    whole = clone(prototype).fit_examples(train)
    chosen = ranking(whole.scores_)[:top] if neurons is None else np.asarray(neurons)
    require(len(chosen) > 0, "there is nothing to hold against the nulls: the set is empty.")
    width, k = train.x.shape[1], len(chosen)
    rng = np.random.default_rng([seed, 6])

    def read(fit: Examples, held: Examples, few: np.ndarray) -> np.ndarray:
        few = np.sort(few)
        return clone(prototype).fit_examples(restrict(fit, few)).predict(held.x[:, few])

    own = read(train, test, chosen)
    everything = whole.predict(test.x)
    others = [read(train, test, rng.choice(width, k, replace=False)) for _ in range(draws)]
    turned, shuffles, few_shuffles = [], [], []
    for draw in range(draws):
        fit, held = rotated(train, test, seed=seed * 1000 + draw)
        turned.append(read(fit, held, ranking(clone(prototype).fit_examples(fit).scores_)[:k]))
        noise = shuffled(train, seed=seed * 1000 + draw)
        null = clone(prototype).fit_examples(noise)
        shuffles.append(null.predict(test.x))
        few_shuffles.append(read(noise, test, ranking(null.scores_)[:k]))

    def closed(y: np.ndarray, reads: np.ndarray) -> float:
        found = np.nan_to_num(stats.spearmans(reads, y))
        few, full, best = found[0], found[1], max(found[2 : 2 + draws].mean(), found[2 + draws :].mean())
        return (few - best) / (full - best) if full - best >= GAP else float("nan")

    def scores(reads: list[np.ndarray]) -> tuple[float, ...]:
        return tuple(np.nan_to_num(stats.spearmans(np.stack(reads, 1), test.y)).tolist())

    columns = [test.y, np.stack([own, everything, *others, *turned], 1)]
    return Evidence(
        k,
        stats.cluster_bootstrap(stats.spearman, [everything, test.y], test.group, seed=seed),
        stats.cluster_bootstrap(stats.spearman, [own, test.y], test.group, seed=seed),
        scores(others),
        scores(turned),
        scores(shuffles),
        scores(few_shuffles),
        stats.cluster_bootstrap(closed, columns, test.group, draws=200, seed=seed),
    )
