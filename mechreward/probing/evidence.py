"""Does a set of neurons read V at all, and more sparsely than redundancy and basis explain?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mechreward import stats
from mechreward.base import streams
from mechreward.base.errors import require
from mechreward.probing.neurons import ranking
from mechreward.probing.probe import ValueProbe
from mechreward.probing.pruning import Probe, clone, restrict, rotated, shuffled
from mechreward.probing.rankings import correlation
from mechreward.probing.targets import Examples
from mechreward.stats import Interval

# The least gap, over what all neurons read; set on planted models of other seeds than those that
# calibration uses.
SMALLEST_GAP = 1 / 6
# Where all neurons read less than this Spearman there is nothing to be sparse (our choice).
SMALLEST_SPEARMAN = 0.05


@dataclass(frozen=True)
class Evidence:
    """How well few neurons read the target on held-out problems, beside what nobody chose.

    Attributes
    ----------
    neurons : int
        How many are in the set.
    full : Interval
        Spearman of the read-out of all neurons.
    few : Interval
        Of the set, retrained.
    random : tuple of float
        [draw] of as many random neurons, retrained.
    rotated : tuple of float
        [draw] of the best coordinates of random bases by correlation with the target, retrained.
    shuffled : tuple of float
        [draw] of all neurons fitted to targets of other problems.
    shuffled_few : tuple of float
        [draw] of the whole recipe for few neurons on the same targets.
    sparsity : Interval
        1 sparse (above 1 the few read better than all), 0 no better than any neurons or basis, see
        Notes.
    p : float
        Rank of `full` among the shuffles.
    p_few : float
        Rank of the set among them.
    reading : str
        One word for all of it.

    Notes
    -----
    `sparsity` is our choice. It compares with the better of `random` and `rotated`. Above 0 it is
    the part of the gap from there to `full` that the set closes, a gap being at least
    `SMALLEST_GAP` of `full` (a smooth maximum of the two, of power 4: no bootstrap covers at a
    kink), so that redundancy, which leaves none, stays near 0; below 0 it is what the set misses of
    what any neurons read, over `full`. NaN where `full` is below `SMALLEST_SPEARMAN`.
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
        """What may be said, in one word.

        `nothing` (no better than shuffled targets), `sparse` (the whole interval above .5),
        `redundant` (as many random neurons read half as well as all), `distributed` (the whole
        interval below .5), or `unclear`, which fewer than 19 draws always are: no rank among them
        is small enough to call anything.
        """
        if len(self.shuffled) < 19:
            return "unclear"
        if self.p > 0.05 or self.full.low <= 0:
            return "nothing"
        if np.mean(self.random) > 0.5 * self.full.estimate:
            return "redundant"
        if np.isnan(self.sparsity.low):
            return "unclear"
        if self.sparsity.low > 0.5:
            return "sparse"
        if self.sparsity.high < 0.5:
            return "distributed"
        return "unclear"

    def __str__(self) -> str:
        return (
            f"{self.reading}: all neurons {self.full}, {self.neurons} chosen {self.few}, "
            f"random {np.mean(self.random):.3f}, other bases {np.mean(self.rotated):.3f}, "
            f"shuffled targets {np.mean(self.shuffled):.3f} (p={self.p:.3g}); "
            f"sparsity beyond redundancy {self.sparsity}"
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
    """Hold a set of neurons against every null, on problems it never saw.

    Parameters
    ----------
    train : Examples
        Rows to fit on.
    test : Examples
        Rows of other problems.
    neurons : array [k] or None, default None
        Indices of the set; None takes the `top` by correlation with the target.
    top : int, default 3
        How many, where no set is given.
    probe : ValueProbe, DopamineProbe or None, default None
        Prototype; `ValueProbe("mc", "linear")` if None.
    draws : int, default 19
        Of every null; 19 reach p = .05.
    seed : int, default 0
        Seed of draws and bootstrap.

    Returns
    -------
    Evidence
        Spearman of all of them, and what they come to.

    Raises
    ------
    MechRewardError
        Nothing to learn, no neurons, or fewer than 3 draws.

    Notes
    -----
    All of this is our choice. Correlation is the ranking that the calibration recommends; a
    linear probe's own weights prefer what cancels noise to what carries the target, and where many
    neurons carry it its best few read less than any few. The probe is linear by default: 19 draws
    cost milliseconds each, and what a net of a thousand units finds in one neuron is not what a few
    neurons carry.
    """
    require(draws >= 3, f"nulls need at least 3 draws (19 for p = .05); {draws} were asked for.")
    prototype = probe or ValueProbe("mc", "linear")
    chosen = ranking(correlation(train))[:top] if neurons is None else np.asarray(neurons)
    require(len(chosen) > 0, "there is nothing to hold against the nulls: the set is empty.")
    reads = read_outs(train, test, chosen, prototype, draws, seed)
    shuffles, few_shuffles = [], []
    for draw in range(draws):
        noise = shuffled(train, streams.rng("evidence: shuffled targets", seed, draw))
        null = clone(prototype).fit_examples(noise)
        shuffles.append(null.predict(test.x))
        best = ranking(correlation(noise))[: len(chosen)]
        few_shuffles.append(_read(prototype, noise, test, best))

    def scores(reads: np.ndarray) -> tuple[float, ...]:
        return tuple(np.nan_to_num(stats.spearmans(reads, test.y)).tolist())

    def score(column: int) -> Interval:
        return stats.cluster_bootstrap(
            stats.spearman, [reads[:, column], test.y], test.group, seed=seed
        )

    return Evidence(
        neurons=len(chosen),
        full=score(1),
        few=score(0),
        random=scores(reads[:, 2 : 2 + draws]),
        rotated=scores(reads[:, 2 + draws :]),
        shuffled=scores(np.stack(shuffles, 1)),
        shuffled_few=scores(np.stack(few_shuffles, 1)),
        sparsity=stats.cluster_bootstrap(
            sparsity, [test.y, reads], test.group, draws=200, seed=seed
        ),
    )


def read_outs(
    train: Examples, test: Examples, chosen: np.ndarray, prototype: Probe, draws: int, seed: int = 0
) -> Float[np.ndarray, "row column"]:
    """What is read on `test`, in columns, each refitted to `train`.

    By the set, by all neurons, by `draws` random sets of its size, and by the best coordinates of
    `draws` random bases.
    """
    width, k = train.x.shape[1], len(chosen)
    rng = streams.rng("evidence: random subsets", seed)
    reads = [_read(prototype, train, test, chosen)]
    reads.append(clone(prototype).fit_examples(train).predict(test.x))
    for _ in range(draws):
        subset = rng.choice(width, k, replace=False)
        reads.append(_read(prototype, train, test, subset))
    for draw in range(draws):
        fit, held = rotated(train, test, streams.rng("evidence: rotations", seed, draw))
        reads.append(_read(prototype, fit, held, ranking(correlation(fit))[:k]))
    return np.stack(reads, 1)


def sparsity(y: Float[np.ndarray, " row"], reads: Float[np.ndarray, "row column"]) -> float:
    """Of `read_outs`: how far the set gets from nobody's choice to all neurons (`Evidence`).

    Nobody's choice is the better of random sets and of random bases.
    """
    scores = np.nan_to_num(stats.spearmans(reads, y))
    few, full = scores[0], scores[1]
    random, rotated = np.split(scores[2:], 2)
    best = max(random.mean(), rotated.mean())
    if full < SMALLEST_SPEARMAN:
        return float("nan")
    gap = (max(full - best, 0) ** 4 + (full * SMALLEST_GAP) ** 4) ** (1 / 4)
    return float((few - best) / (gap if few > best else full))


def _read(prototype: Probe, fit: Examples, held: Examples, few: np.ndarray) -> np.ndarray:
    few = np.sort(few)
    return clone(prototype).fit_examples(restrict(fit, few)).predict(held.x[:, few])
