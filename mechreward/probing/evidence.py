"""Does a set of neurons read V beyond what step and length tell, and more sparsely than redundancy
and basis explain?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from jaxtyping import Float

from mechreward import stats
from mechreward.base import streams
from mechreward.base.errors import require
from mechreward.probing.neurons import ranking
from mechreward.probing.probe import ValueProbe
from mechreward.probing.pruning import Probe, clone, restrict, rotated
from mechreward.probing.targets import Examples
from mechreward.stats import Interval
from mechreward.stats.beyond import (
    Known,
    association,
    associations,
    flipped,
    p_among,
    signs,
    told,
)
from mechreward.stats.columns import grouped
from mechreward.stats.left_out import left_out

# The least gap, over what all neurons read; set on planted models of other seeds than those that
# calibration uses.
SMALLEST_GAP = 1 / 6
# Where all neurons read less than this there is nothing to be sparse (our choice).
SMALLEST_SPEARMAN = 0.05
# What p shows that a set is more than a further fact. With .05, 8 of 100 sets that were nothing but
# the difficulty came out as more (our choice; the null of flipped signs is a little too narrow).
SHOWN = 0.01
REFITTED = 399  # targets with flipped signs that sets are fitted to: they reach p = .0025


@dataclass(frozen=True)
class Beyond:
    """What a read-out tells of the target beyond some facts.

    Attributes
    ----------
    score : Interval
        Partial Spearman: correlation of what facts leave of both ranks (`stats.beyond.Known`).
    p : float
        Of its rank among `stats.beyond.flipped`.
    """

    score: Interval
    p: float


@dataclass(frozen=True)
class Evidence:
    """How well few neurons read the target on held-out problems, beside what nobody chose.

    All scores but `plain` and `known` are partial Spearman correlations: beyond what is known at
    the state anyway (`Examples.known`).

    Attributes
    ----------
    neurons : int
        How many are in the set.
    full : Beyond
        The read-out of all neurons.
    few : Beyond
        Of the set, retrained.
    random : tuple of float
        [draw] of as many random neurons, retrained.
    rotated : tuple of float
        [draw] of the best coordinates of random bases, retrained.
    sparsity : Interval
        1 sparse (above 1 the few read better than all), 0 no better than any neurons or basis, see
        Notes.
    plain : Interval
        Spearman of the set's read-out with the target, with all that step and length tell of both.
    known : float
        Spearman with the target of what is known at the state, fitted to the training rows.
    further : dict of str to Beyond
        The set's read-out beyond more facts, one at a time: they lie in the future or may be the
        value itself, so that losing against one says that the two are not told apart, not that
        nothing is read.
    reading : str
        One word for all of it.

    Notes
    -----
    `sparsity` is our choice. It compares with the better of `random` and `rotated`. Above 0 it is
    the part of the gap from there to `full` that the set closes, a gap being at least
    `SMALLEST_GAP` of `full` (a smooth maximum of the two, of power 4: no bootstrap covers at a
    kink), so that redundancy, which leaves none, stays near 0; below 0 it is what the set misses of
    what any neurons read, over `full`. NaN where `full` is below `SMALLEST_SPEARMAN`. Its interval
    holds the fit and what is known fixed.
    """

    neurons: int
    full: Beyond
    few: Beyond
    random: tuple[float, ...]
    rotated: tuple[float, ...]
    sparsity: Interval
    plain: Interval
    known: float
    further: dict[str, Beyond] = field(default_factory=dict)

    @property
    def reading(self) -> str:
        """What may be said, in one word.

        `nothing` (no more than is known at the state), `sparse` (the whole interval above .5),
        `redundant` (as many random neurons read half as well as all), `distributed` (the whole
        interval below .5), or `unclear`, which fewer than 19 draws always are: they are no control.
        """
        if len(self.random) < 19:
            return "unclear"
        if self.full.p > 0.05 or self.full.score.low <= 0:
            return "nothing"
        if np.mean(self.random) > 0.5 * self.full.score.estimate:
            return "redundant"
        if np.isnan(self.sparsity.low):
            return "unclear"
        if self.sparsity.low > 0.5:
            return "sparse"
        if self.sparsity.high < 0.5:
            return "distributed"
        return "unclear"

    @property
    def lost_to(self) -> tuple[str, ...]:
        """Further facts beyond which nothing of the set's reading is shown (p > `SHOWN`)."""
        return tuple(name for name, beyond in self.further.items() if not beyond.p <= SHOWN)

    def __str__(self) -> str:
        return (
            f"{self.reading}: beyond what is known at the state (which reads {self.known:.3f}) all "
            f"neurons {self.full.score} (p={self.full.p:.3g}), {self.neurons} chosen "
            f"{self.few.score} (of {self.plain}), random {np.mean(self.random):.3f}, other bases "
            f"{np.mean(self.rotated):.3f}; sparsity beyond redundancy {self.sparsity}"
        )


def evidence(
    train: Examples,
    test: Examples,
    neurons: np.ndarray | None = None,
    *,
    top: int = 3,
    probe: Probe | None = None,
    draws: int = 19,
    further: Mapping[str, Float[np.ndarray, " row"]] | None = None,
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
        Indices of the set; None takes the `top` by `follows`.
    top : int, default 3
        How many, where no set is given.
    probe : ValueProbe, DopamineProbe or None, default None
        Prototype; `ValueProbe("mc", "linear")` if None.
    draws : int, default 19
        Of random sets and bases.
    further : mapping of str to array [row], or None, default None
        More facts about the rows of `test`, that the set is held against one at a time.
    seed : int, default 0
        Seed of draws and bootstrap.

    Returns
    -------
    Evidence
        All scores, and what they come to.

    Raises
    ------
    MechRewardError
        Nothing to learn, no neurons or what are none, fewer than 3 draws, or facts that do not fit
        the rows.

    Notes
    -----
    All of this is our choice. A neuron that counts steps reads V wherever V goes with the step; so
    V-hat and every read-out are first rid of what step, position and prompt length tell of them,
    and the null flips the sign of a problem's whole contribution. `follows` is the
    correlation that the calibration recommends, beyond those facts; a linear probe's own weights
    prefer what cancels noise to what carries the target, and where many neurons carry it its best
    few read less than any few. The probe is linear by default: 19 draws cost milliseconds each, and
    what a net of a thousand units finds in one neuron is not what a few neurons carry.
    """
    require(draws >= 3, f"nulls need at least 3 draws (19 for a verdict); {draws} were asked for.")
    prototype = probe or ValueProbe("mc", "linear")
    if neurons is None:
        chosen = ranking(follows(train))[:top]
    else:
        chosen = _indices(neurons, train.x.shape[1])
    require(len(chosen) > 0, "there is nothing to hold against the nulls: the set is empty.")
    for name, column in (further or {}).items():
        known = len(column) == len(test) and bool(np.isfinite(column).all())
        require(known, f"the fact {name!r} needs a finite number for each of {len(test)} rows.")
    reads = read_outs(train, test, chosen, prototype, draws, seed)
    rest = Known(test.known, test.group).left_over(np.column_stack([test.y, reads]))
    y, reads_left = rest[:, 0], rest[:, 1:]
    scores = associations(reads_left, y)
    beyond = partial(_beyond, group=test.group, seed=seed)
    facts = {}
    for name, column in (further or {}).items():
        more = np.column_stack([test.known, column])
        both = Known(more, test.group).left_over(np.column_stack([test.y, reads[:, 0]]))
        facts[name] = beyond(both[:, 0], both[:, 1])
    return Evidence(
        neurons=len(chosen),
        full=beyond(reads_left[:, 1], y),
        few=beyond(reads_left[:, 0], y),
        random=tuple(scores[2 : 2 + draws].tolist()),
        rotated=tuple(scores[2 + draws :].tolist()),
        sparsity=stats.cluster_bootstrap(
            sparsity, [y, reads_left], test.group, draws=200, seed=seed
        ),
        plain=stats.cluster_bootstrap(stats.spearman, [reads[:, 0], test.y], test.group, seed=seed),
        known=stats.spearman(told((train.y, train.known), test.known), test.y),
        further=facts,
    )


def held_p(train: Examples, test: Examples, neurons: np.ndarray, seed: int = 0) -> float:
    """`evidence(train, test, neurons, seed=seed).few.p` alone, without all that is held beside."""
    read = _read(ValueProbe("mc", "linear"), train, test, _indices(neurons, train.x.shape[1]))
    rest = Known(test.known, test.group).left_over(np.column_stack([test.y, read]))
    return _p_beyond(rest[:, 1], rest[:, 0], test.group, seed)


def follows(data: Examples, known: Known | None = None) -> Float[np.ndarray, " width"]:
    """|Partial Spearman| of each neuron alone with the target, beyond what is known at the state;
    0 for a constant one. `known` is that of the rows, for who has it already."""
    known = known or Known(data.known, data.group)
    rest = known.left_over(np.column_stack([data.y, data.x.double().numpy()]))
    return np.abs(associations(rest[:, 1:], rest[:, 0]))


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
    known = Known(train.known, train.group)
    for draw in range(draws):
        fit, held = rotated(train, test, streams.rng("evidence: rotations", seed, draw))
        reads.append(_read(prototype, fit, held, ranking(follows(fit, known))[:k]))
    return np.stack(reads, 1)


def sparsity(y: Float[np.ndarray, " row"], reads: Float[np.ndarray, "row column"]) -> float:
    """Of what is left of `read_outs` and of `y`: how far the set gets from nobody's choice to all
    neurons (`Evidence`).

    Nobody's choice is the better of random sets and of random bases.
    """
    scores = associations(reads, y)
    few, full = scores[0], scores[1]
    random, rotated = np.split(scores[2:], 2)
    best = max(random.mean(), rotated.mean())
    if full < SMALLEST_SPEARMAN:
        return float("nan")
    gap = (max(full - best, 0) ** 4 + (full * SMALLEST_GAP) ** 4) ** (1 / 4)
    return float((few - best) / (gap if few > best else full))


def reading_p(
    data: Examples, sets: Sequence[Sequence[int]], seed: int = 0
) -> Float[np.ndarray, " set"]:
    """Whether sets read the target beyond what is known at the state: p of each.

    A set is fitted by least squares to all problems but one and read on that one; the association
    is ranked among those of targets whose sign is flipped in whole problems, fitted anew. Signs of
    what the problems contribute will not do here: every problem helps to read every other, so
    contributions come together, and p <= .01 came in 13% of made nulls and in 23% of null twins
    with noise for V-hat. Sets that were chosen on these rows look better than they are.

    What the facts tell is taken off every target once more after its signs are flipped, and off the
    observed one alike: what is left of a target is bound to the facts, and its problems tell of
    each other by that, which a flip undoes (compare Freedman and Lane 1983 for permutations).
    Noise that stays alike in a problem, with step, position and prompt length as facts, has
    p <= .05 in 4 to 6% and p <= .01 in 0 to 1% of 400 nulls of 40 problems, for sets of 1 to 24
    neurons; without that it had 10 to 28%. Fewer problems, or a few that have most of the states,
    say less: 15 problems have p <= .05 in 8 to 22% for sets of 1 to 24 neurons, 20 in 5 to 16%,
    and 40 of which two have half of the states in 14 to 23%.

    Parameters
    ----------
    data : Examples
        Rows of the training split.
    sets : sequence of sequence of int
        Neurons of each set.
    seed : int, default 0
        Of the flips.

    Returns
    -------
    array [set]
        1 for a set of as many neurons as there are rows outside the largest problem: it reads
        whatever it is fitted to.

    Raises
    ------
    MechRewardError
        Sets that are none, or activations or targets that are NaN or infinite.
    """
    width = data.x.shape[1]
    checked = [_indices(neurons, width) for neurons in sets]
    finite = bool(data.x.isfinite().all()) and bool(np.isfinite(data.y).all())
    require(finite, "activations or targets hold NaN or infinity: leave such rows out.")
    known = Known(data.known, data.group)
    rest = known.left_over(np.column_stack([data.y, data.x.double().numpy()]))
    y, x = rest[:, :1], rest[:, 1:]
    problems = grouped(data.group, len(data.group))
    count = len(problems.sizes)
    # A fit is linear in its target, and a flipped target is the sum of what its problems hold, each
    # with a sign: so what each problem adds to the read-out serves all flips.
    parts = known.taken_off(y * (problems.member[:, None] == np.arange(count)))
    squares = parts.T @ parts
    flips = np.vstack([np.ones(count), signs(count, REFITTED, seed)])
    p_values = []
    for neurons in checked:
        if len(neurons) >= len(y) - problems.sizes.max():
            p_values.append(1.0)
            continue
        few = x[:, neurons]
        left = few @ np.linalg.pinv(few.T @ few)
        read = parts - left_out(parts - left @ (few.T @ parts), left, few, data.group)
        together = (flips @ (parts.T @ read) * flips).sum(1)
        squared = (flips @ (read.T @ read) * flips).sum(1) * (flips @ squares * flips).sum(1)
        scores = together / np.where(squared > 0, np.sqrt(squared.clip(0)), np.inf)
        p_values.append(p_among(scores[0], scores[1:]))
    return np.array(p_values, float)


def _indices(neurons: Sequence[int] | np.ndarray, width: int) -> np.ndarray:
    """A set's indices, checked."""
    try:
        given = np.array(neurons)
    except ValueError:  # rows of different lengths
        given = np.array(neurons, object)
    whole = given.ndim == 1 and (given.dtype.kind in "iu" or given.size == 0)
    require(
        whole,
        f"neurons are indices [k] (of a mask: np.flatnonzero); got {given.dtype} {given.shape}.",
    )
    few = np.unique(given)
    right = len(few) == len(given) and bool((few >= 0).all()) and bool((few < width).all())
    require(right, f"neurons are different numbers from 0 to {width - 1}; got {given.tolist()}.")
    return few.astype(int)


def _read(prototype: Probe, fit: Examples, held: Examples, few: np.ndarray) -> np.ndarray:
    few = np.sort(few)
    return clone(prototype).fit_examples(restrict(fit, few)).predict(held.x[:, few])


def _beyond(a: np.ndarray, b: np.ndarray, group: np.ndarray, seed: int) -> Beyond:
    """The association of two columns that are left, held against flipped signs."""
    score = stats.cluster_bootstrap(association, [a, b], group, seed=seed)
    return Beyond(score, _p_beyond(a, b, group, seed))


def _p_beyond(a: np.ndarray, b: np.ndarray, group: np.ndarray, seed: int) -> float:
    return p_among(association(a, b), flipped(a, b, group, seed=seed))
