"""Statistics with intervals that the package prints, each with data it may meet, simulated on the
Markov process.

Every statistic is the one that the experiment itself calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mechreward import stats
from mechreward.base.errors import one_of
from mechreward.causal.claims import patched_share
from mechreward.causal.repair import undone
from mechreward.experiments.dependence import rho_beyond, rho_change
from mechreward.experiments.split import CUT
from mechreward.experiments.value_probe import spread_ratio
from mechreward.probing.pruning import noiseless_spearman
from mechreward.probing.surface import gain
from mechreward.stats.intervals import Span
from mechreward.testbed.walks import K, Walks, walks

STATES = ("every", "first", "last")
Column = Float[np.ndarray, " row"]
Columns = list[np.ndarray]


@dataclass(frozen=True)
class Simulation:
    """Answers of the process, and what a model or a probe might say of their states.

    Attributes
    ----------
    walks : Walks
        The answers, one row a state.
    rng : numpy.random.Generator
        Where continuations and the noise of read-outs come from.
    """

    walks: Walks
    rng: np.random.Generator

    @property
    def first(self) -> np.ndarray:
        """[row] True at s_0."""
        return self.walks.step == 0

    def read(self, y: Column, noise: float) -> Column:
        """What a probe with so much noise reads of `y`."""
        return self.walks.read(y, noise, self.rng)

    def read_v(self, noise: float) -> Column:
        """A read-out of V."""
        return self.read(self.walks.v, noise)

    def read_delta(self) -> Column:
        """A read-out of delta."""
        delta = self.walks.delta(self.walks.v)
        return self.read(delta, 0.2)

    def noise(self, size: float) -> Column:
        """What an ablation adds to a read-out."""
        return self.read(0 * self.walks.v, size)

    def successes(self, k: int, chance: Column) -> Column:
        """The share of `k` answers that are right."""
        return self.rng.binomial(k, chance) / k

    def v_hat(self) -> Column:
        """V-hat of continuations of its own."""
        return self.walks.estimate(self.rng)

    def delta_hat(self) -> Column:
        """Delta of V-hat."""
        return self.walks.delta(self.v_hat())


@dataclass(frozen=True)
class Case:
    """A statistic with one interval that the package prints.

    Attributes
    ----------
    statistic : callable
        Of columns [row], to a number.
    draw : callable
        Of a `Simulation`, to those columns.
    states : {"every", "first", "last"}, default "every"
        Of which states of every answer the columns have rows.
    answers : int, default 1
        Answers to each problem.
    with_cluster : bool, default False
        Whether the statistic takes the problem of every row too, last.
    span : (float, float), optional
        What the statistic may lie between, as the experiment says it.
    """

    statistic: Callable[..., float]
    draw: Callable[[Simulation], Columns]
    states: str = "every"
    answers: int = 1
    with_cluster: bool = False
    span: Span | None = None

    def __post_init__(self) -> None:
        one_of("states", self.states, STATES)

    def sample(self, problems: int, rng: np.random.Generator) -> tuple[Columns, np.ndarray]:
        """Columns [row] of a simulation, and the problem [row] of each row."""
        answers = walks(problems, rng, self.answers)
        simulation = Simulation(answers, rng)
        columns = self.draw(simulation)
        problem = answers.group
        if self.states == "first":
            problem = problem[simulation.first]
        elif self.states == "last":
            problem = problem[answers.last]
        return columns, problem


# Rewards, and read-outs of V beside them


def accuracy(answers: Simulation) -> Columns:
    """The reward of every answer."""
    reward = answers.walks.reward[answers.first]
    return [reward.astype(float)]


def accuracy_near_one(answers: Simulation) -> Columns:
    """Whether every answer is right: always but for one problem in ten, where one answer in five is
    not."""
    problem = answers.walks.group[answers.first]
    is_hard = answers.rng.random(problem.max() + 1) < 0.1
    slips = answers.rng.random(len(problem)) < 0.2
    return [1.0 - (is_hard[problem] & slips)]


def reward_at_first_state(answers: Simulation) -> Columns:
    """A read-out of V at s_0, and the reward."""
    read = answers.read_v(0.1)
    first = answers.first
    return [read[first], answers.walks.reward[first]]


def reward_at_every_state(answers: Simulation) -> Columns:
    """A read-out of V, and the reward."""
    return [answers.read_v(0.1), answers.walks.reward]


def reward_at_last_state(answers: Simulation) -> Columns:
    """A noisier read-out of V before the end, where V is nearly the reward, and the reward."""
    read = answers.read_v(0.5)
    last = answers.walks.last
    return [read[last], answers.walks.reward[last]]


def reward_beside_surface(answers: Simulation) -> Columns:
    """A read-out of V, a surface that knows the problem's first state only, and the reward."""
    v_at_first = answers.walks.v[answers.first]
    read = answers.read_v(0.1)
    surface = answers.read(v_at_first[answers.walks.walk], 0.1)
    return [read, surface, answers.walks.reward]


# V-hat, delta, and their read-outs


def v_hat(answers: Simulation) -> Columns:
    """V-hat of every state."""
    return [answers.v_hat()]


def v_hat_halves(answers: Simulation) -> Columns:
    """V-hat from either half of the continuations."""
    return list(answers.walks.halves(answers.rng))


def v_hat_read(noise: float) -> Callable[[Simulation], Columns]:
    """A read-out of V with so much noise, and V-hat."""

    def draw(answers: Simulation) -> Columns:
        return [answers.read_v(noise), answers.v_hat()]

    return draw


def large_delta(answers: Simulation) -> Columns:
    """Whether a TD error is beyond the paper's cut."""
    large = np.abs(answers.delta_hat()) > CUT
    return [large.astype(float)]


def delta_halves(answers: Simulation) -> Columns:
    """Delta from either half of the continuations."""
    return answers.walks.deltas(answers.rng)


def delta_read(answers: Simulation) -> Columns:
    """A read-out of delta, and delta of V-hat."""
    return [answers.read_delta(), answers.delta_hat()]


def delta_read_with_halves(answers: Simulation) -> Columns:
    """A read-out of delta, delta of V-hat, and the halves that this is the mean of."""
    halves = delta_halves(answers)
    read = answers.read_delta()
    return [read, np.mean(halves, axis=0), *halves]


# Interventions


def delta_read_ablated(answers: Simulation) -> Columns:
    """A read-out of delta after an ablation, the same before it, and delta of V-hat."""
    before = answers.read_delta()
    after = before + answers.noise(0.3)
    return [after, before, answers.delta_hat()]


def delta_read_beside_matched(answers: Simulation) -> Columns:
    """A read-out of delta after an ablation, those [row draw] after the ablations of five matched
    sets, which do less, and delta of V-hat."""
    before = answers.read_delta()
    after = before + answers.noise(0.3)
    matched = []
    for _ in range(5):
        matched.append(before + answers.noise(0.1))
    return [after, np.stack(matched, 1), answers.delta_hat()]


def ablation_undone(answers: Simulation) -> Columns:
    """Zeroing moves a read-out by what it said of V; later layers give three tenths of it back."""
    direct = answers.read(0.5 - answers.walks.v, 0.05)
    total = answers.read(0.7 * direct, 0.1)
    return [total, direct]


def patched_beside_whole(answers: Simulation) -> Columns:
    """V-hat that a patch of few neurons adds in one state a problem, and a patch of all."""
    v = answers.walks.v[answers.first]
    low = answers.successes(K, v - 0.2)
    few = answers.successes(K, v + 0.1)
    whole = answers.successes(K, v + 0.2)
    return [few - low, whole - low]


def ablated_beside_matched(answers: Simulation) -> Columns:
    """What `stats.paired_difference` takes the mean of: outcomes under an ablation that costs .2,
    less the mean of those under 19 matched sets that cost .1."""
    v = answers.walks.v[answers.first]
    own = answers.successes(1, v - 0.2)
    matched = answers.successes(19, v - 0.1)
    return [own - matched]


CASES = {
    "mean: accuracy": Case(np.mean, accuracy, "first", span=(0, 1)),
    "mean: accuracy near 1 (4 answers each)": Case(
        np.mean, accuracy_near_one, "first", answers=4, span=(0, 1)
    ),
    "mean: V-hat": Case(np.mean, v_hat, span=(0, 1)),
    "mean: share of |delta| > .3": Case(np.mean, large_delta, span=(0, 1)),
    "std: V-hat": Case(np.std, v_hat),
    "AUROC at s_0": Case(stats.auroc, reward_at_first_state, "first"),
    "AUROC at every state": Case(stats.auroc, reward_at_every_state),
    "AUROC at the last state": Case(stats.auroc, reward_at_last_state, "last"),
    "AUROC within problems (4 answers each)": Case(
        stats.within_auroc,
        reward_at_every_state,
        answers=4,
        with_cluster=True,
    ),
    "AUROC added to the surface (R1)": Case(gain, reward_beside_surface),
    "Spearman with V-hat, near perfect": Case(stats.spearman, v_hat_read(0.05)),
    "Spearman with V-hat, good": Case(stats.spearman, v_hat_read(0.2)),
    "Spearman with V-hat, weak": Case(stats.spearman, v_hat_read(1.0)),
    "Spearman with delta": Case(stats.spearman, delta_read),
    "Spearman with delta, disattenuated": Case(noiseless_spearman, delta_read_with_halves),
    "change of Spearman with delta (R10)": Case(rho_change, delta_read_ablated),
    "Spearman with delta beyond matched sets (R10)": Case(rho_beyond, delta_read_beside_matched),
    "ratio of standard deviations (R1)": Case(spread_ratio, v_hat_read(0.1)),
    "part restored (R4)": Case(undone, ablation_undone),
    "share of the whole patch (certificate)": Case(
        patched_share, patched_beside_whole, "first", span=(0, 1)
    ),
    "reliability of V-hat": Case(stats.split_half_reliability, v_hat_halves),
    "reliability of delta": Case(stats.split_half_reliability, delta_halves),
    "paired difference to matched sets": Case(
        np.mean, ablated_beside_matched, "first", span=(-1, 1)
    ),
}
