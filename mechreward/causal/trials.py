"""The two experiments of a certificate: steering a set both ways beside its controls, and patching
high V into low."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mechreward import stats
from mechreward.base import streams
from mechreward.base.errors import require
from mechreward.base.progress import under
from mechreward.causal.effect import CleanText
from mechreward.causal.intervene import Intervention, patch
from mechreward.causal.steering import Push
from mechreward.models.engine import Policy
from mechreward.models.row_edits import Edit
from mechreward.probing.activations import Activations
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.continuations import (
    Answers,
    State,
    answer,
    answer_arms,
    rates,
    state_of,
)
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import Values
from mechreward.tasks import Problem

GAP = 0.3  # V-hat of a high and of a low state differ by at least that (our choice)
ALIKE = 0.1  # V-hat of two like states differ by at most that (our choice)
# Strengths between which a control gets the set's own KL.
FACTORS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
# What steering may move: whether the answer is right, and whether it turns back.
MEASURES = ("reward", "back")
STRONGER = 3  # matched sets that are steered a second time, at the KL of the set

Job = tuple[State, tuple[Edit, ...], tuple[int | str, ...]]  # as `rollouts.continuations.answer`'s

# Of clean answers: wrong ones that end before so many have are not sound. Of a quarter, sets that
# carry the planted V would not pass, since the lower it is the sooner all is lost (our choice).
SHORTEST = 0.05


@dataclass(frozen=True)
class Steered:
    """Steering by one unit down and up, on shared problems with common random numbers.

    Attributes:
        problems: their ids.
        base: `[problem]` under strength 0.
        own: `[2 problem]` under strength -1 and +1.
        rivals: the same, by arm; with those that were steered again at the KL of the set, as arms
            `at_kl ...`.
        ablated: `[problem]` without the set, by operation.
        draws: `[measure draw]` contrasts, in the order of `MEASURES`, of the matched sets that were
            run, of `planned` ones; none of them reads V-hat.
        readers: `[measure draw]` the same of other sets that do, run only where the set passes all
            of those.
        damage: the damage meter of the matched sets.
        kl: KL on clean text by arm, the mean of both signs.
        factor: the strength at which a control has the KL of the set, infinite where the largest of
            `FACTORS` does not give it that. Such a control was run at that KL if the strength is
            finite and above 1.
    """

    problems: tuple[str, ...] = field(repr=False)
    base: Answers
    own: Answers
    rivals: dict[str, Answers]
    ablated: dict[str, Answers]
    draws: Float[np.ndarray, "measure draw"]
    readers: Float[np.ndarray, "measure reader"]
    damage: dict[str, float]
    planned: int
    kl: dict[str, float]
    factor: dict[str, float]

    @property
    def sound(self) -> Bool[np.ndarray, " problem"]:
        """Whether both steered answers can be read (silence cannot), end by themselves, and are not
        wrong before a twentieth of the clean ones has ended: the shortest of all is one odd
        answer, and the shorter the more there are."""
        return np.all(self.own.sound & ~self.own.premature(self.base, SHORTEST), axis=0)


def measured(answers: Answers, measure: str) -> Float[np.ndarray, "*row"]:
    """One of `MEASURES` of every answer, 0 or 1."""
    return getattr(answers, measure).astype(float)


def contrast(answers: Answers, measure: str = "reward") -> Float[np.ndarray, " problem"]:
    """A measure under strength +1 minus that under -1, for each problem, of answers [2 problem]."""
    down, up = measured(answers, measure)
    return up - down


def contrasts(answers: Answers) -> Float[np.ndarray, " measure"]:
    """The mean contrast of every measure."""
    return np.array([contrast(answers, measure).mean() for measure in MEASURES])


def kl(text: CleanText, push: Push, tokens: Activations, strength: int | float = 1) -> float:
    """KL on clean text in nats per token, the mean of both signs of a strength (default 1)."""
    both = [text.compare(push.by(sign * strength), tokens)["kl"] for sign in (-1, 1)]
    return float(np.mean(both))


def at_kl(
    text: CleanText,
    push: Push,
    tokens: Activations,
    has: float,
    wanted: float,
    strength: int | float = 1,
) -> float:
    """The factor on `strength`, from 1 on, where the KL is what it `has`, that gives the KL
    `wanted`: doubled until it does, then halved into the last step; infinite if the largest of
    `FACTORS` does not."""

    def enough(factor: float) -> bool:
        return kl(text, push, tokens, factor * strength) >= wanted

    if has >= wanted:
        return 1.0
    high = next((factor for factor in FACTORS[1:] if enough(factor)), inf)
    if high == inf:
        return high
    low = high / 2
    for _ in range(4):  # within 2^(1/16), 4%
        middle = (low * high) ** 0.5
        if enough(middle):
            high = middle
        else:
            low = middle
    return high


def steered(
    model: Any,
    problems: Sequence[Problem],
    push: Push,
    controls: Sequence[Push],
    readers: Sequence[Push],
    rivals: Sequence[Push],
    ablations: Sequence[Intervention],
    clean: Rollouts,
    tokens: Activations,
    *,
    level: float = 0.01,
    seed: int = 0,
    policy: Policy | None = None,
    progress: bool | str = False,
) -> Steered:
    """Steer by one unit both ways, beside matched sets, rivals, ablations, and controls
    strengthened to the same KL.

    `controls`, which do not read V-hat, are ranked until the rank can no longer be `level` in any
    measure, or, where up and down differ in none at `level`, for five of them: a set that moves
    nothing needs no more to be told so. `readers`, which do, are run where the set passes them. The
    first three, and the rivals, are steered a second time at the strength that gives them the KL of
    the set: what damage alone would do.

    Args:
        clean, tokens: rollouts of the model as it is and their activations at every token, for the
            damage meter.
        level: of the rank and of the test (default .01).
        policy: how tokens are drawn and where answers end; None (default) for its defaults.
        progress: whether bars are shown, or their title (default False).
    """

    def run(arms: list[tuple[Edit, ...]], title: str) -> Answers:
        """[arm problem]"""
        return answer_arms(model, problems, arms, seed, policy, under(progress, title))

    text = CleanText(model, clean)
    sizes, factors = _at_the_kl_of(push, [*rivals, *controls[:STRONGER]], text, tokens)
    arms = {rival.arm: _down_and_up(rival) for rival in rivals}
    for control in (*rivals, *controls[:STRONGER]):
        factor = factors[_name(control)]
        if 1 < factor < inf:
            arms[f"at_kl {_name(control)}"] = _down_and_up(control, factor)
    edits: list[tuple[Edit, ...]] = [(), *_down_and_up(push)]
    for pair in arms.values():
        edits += pair
    answers = run(edits, "steering both ways")
    own = answers[1:3]
    others = {}
    for number, name in enumerate(arms):
        others[name] = answers[3 + 2 * number : 5 + 2 * number]
    ablated = {}
    if ablations:
        without = run([(change.edit(),) for change in ablations], "ablations")
        for number, change in enumerate(ablations):
            ablated[change.op] = without[number]
    draws, damage, passes = _ranked(answers[0], own, controls, run, level)
    shared = _contrasts(readers, run, "sets that read V-hat") if passes else []
    return Steered(
        problems=tuple(problem.id for problem in problems),
        base=answers[0],
        own=own,
        rivals=others,
        ablated=ablated,
        draws=_table(draws),
        readers=_table(shared),
        damage=damage,
        planned=len(controls),
        kl=sizes,
        factor=factors,
    )


@dataclass(frozen=True)
class Patched:
    """V-hat from fresh continuations, by pair of states. The first `same` pairs come from one
    problem each.

    Attributes:
        low: `[pair]`, of the low state.
        few: `[pair]`, with the high one's activations at its last position for the set.
        whole: `[pair]`, the same for all neurons of the site.
        matched: `[draw pair]`, the same for matched sets.
        group: `[pair]`, the problem of the state that is changed.
        before: `[like]`, of a state, for the same control between states of equal V.
        after: `[like]`, with the activations of the other state for the set.
        like_group: `[like]`, the problem of the state that is changed.
        back: `[arm pair]`, the share of those continuations that turn back: for the low state, the
            set, the whole site, and the matched sets.
        ended: `[arm pair]`, the same for those that end by themselves.
    """

    low: Float[np.ndarray, " pair"]
    few: Float[np.ndarray, " pair"]
    whole: Float[np.ndarray, " pair"]
    matched: Float[np.ndarray, "draw pair"]
    group: Int[np.ndarray, " pair"]
    before: Float[np.ndarray, " like"]
    after: Float[np.ndarray, " like"]
    like_group: Int[np.ndarray, " like"]
    same: int
    back: Float[np.ndarray, "arm pair"]
    ended: Float[np.ndarray, "arm pair"]


def patched(
    model: Any,
    runs: Rollouts,
    values: Values,
    acts: Activations,
    neurons: NeuronSet,
    controls: Sequence[NeuronSet] = (),
    *,
    pairs: int = 60,
    k: int = 16,
    seed: int = 0,
    back: bool = False,
    progress: bool | str = False,
) -> Patched | None:
    """Put what a high-V state has into a low-V one, at its last position, and let the model go on
    `k` times.

    Pairs are two states of one problem where it has both, else of two problems. They are chosen by
    `values`; V-hat is then estimated anew, with common random numbers in all arms, so that the
    choice cannot flatter the change.

    Args:
        acts: activations of rows="states" of `runs`, in the rows of `values`.
        controls: matched sets (default none).
        pairs: of either kind, at most (default 60).
        k: continuations of each state (default 16).
        back: whether to put what the low one has into the high one instead; `low` of what comes
            back is then V-hat of the high state.
        progress: whether bars are shown, or their title (default False).

    Returns:
        None if there are fewer than two pairs of either kind.
    """
    require(
        len(acts.x) == len(values.step), "activations and values belong to different trajectories."
    )
    far, same = choose_pairs(values, pairs, seed)
    near = choose_like(values, pairs, seed)
    if min(len(far), len(near)) < 2:
        return None
    if back:
        far = [(source, goal) for goal, source in far]
    whole = NeuronSet.of(acts, range(acts.width), "all neurons of the site")
    sets = [None, neurons, whole, *controls]
    source = _States(runs, values, acts, k, seed)
    jobs = source.jobs("high", far, sets) + source.jobs("like", near, [None, neurons])
    answers = answer(model, jobs, policy=runs.policy, progress=progress).shaped(-1, k)
    size = len(sets) * len(far)
    table = rates(answers[:size]).reshape(-1, len(far))
    before, after = rates(answers[size:]).reshape(2, -1)
    return Patched(
        low=table[0],
        few=table[1],
        whole=table[2],
        matched=table[3:],
        group=values.group[[goal for goal, _ in far]],
        before=before,
        after=after,
        like_group=values.group[[goal for goal, _ in near]],
        same=same,
        back=answers.back[:size].mean(-1).reshape(-1, len(far)),
        ended=answers.ended[:size].mean(-1).reshape(-1, len(far)),
    )


def choose_pairs(values: Values, most: int, seed: int = 0) -> tuple[list[tuple[int, int]], int]:
    """(row of a low state, row of a high one), at most one a problem and `most` in all, and how
    many are of one problem. V-hat differs by `GAP`; the widest gap of a problem is taken; others
    are given the highest states left."""
    v = values.mean
    rows = np.flatnonzero(values.live)
    problems = np.unique(values.group[rows])
    order = streams.rng("certificate: pairs of states", seed).permutation(problems)
    pairs = []
    lows = []  # of problems without a gap
    for problem in order:
        states = rows[values.group[rows] == problem]
        low, high = states[np.argmin(v[states])], states[np.argmax(v[states])]
        if v[high] - v[low] >= GAP:
            pairs.append((int(low), int(high)))
        else:
            lows.append(int(low))
    same = len(pairs[:most])
    lows.sort(key=lambda row: v[row])
    highs = rows[np.argsort(-v[rows], kind="stable")].tolist()
    for low, high in zip(lows, highs, strict=False):
        if v[high] - v[low] >= GAP and values.group[high] != values.group[low]:
            pairs.append((low, high))
    return pairs[:most], same


def choose_like(values: Values, most: int, seed: int = 0) -> list[tuple[int, int]]:
    """(row, row) of two states whose V-hat differ by at most `ALIKE` and lie between .1 and .9, at
    most one a problem: of one problem where it has such two, else of two problems."""
    v = values.mean
    rows = np.flatnonzero(values.live)
    rows = rows[(v[rows] >= 0.1) & (v[rows] <= 0.9)]
    rng = streams.rng("certificate: like states", seed)
    pairs = []
    alone = []  # of problems without two like states
    for problem in rng.permutation(np.unique(values.group[rows])):
        states = rng.permutation(rows[values.group[rows] == problem]).tolist()
        pair = _first_like(states, v)
        if pair is not None:
            pairs.append(pair)
        else:
            alone.append(states[0])
    alone.sort(key=lambda row: v[row])
    for first, second in pairwise(alone):
        if abs(v[first] - v[second]) <= ALIKE:
            pairs.append((first, second))
    return pairs[:most]


@dataclass(frozen=True)
class _States:
    """States that are patched into each other, and gone on from `k` times."""

    runs: Rollouts
    values: Values
    acts: Activations
    k: int
    seed: int

    def jobs(
        self,
        kind: str,
        pairs: Sequence[tuple[int, int]],
        sets: Sequence[NeuronSet | None],
    ) -> list[Job]:
        """[set pair k], the goal of each (goal, source) with the source's activations for each set;
        None stands for the goal as it is. Equal pairs draw equal random numbers for all sets."""
        jobs: list[Job] = []
        for neurons in sets:
            for goal, source in pairs:
                trajectory = int(self.values.trajectory[goal])
                step = int(self.values.step[goal])
                state = state_of(self.runs, trajectory, step)
                edits: tuple[Edit, ...] = ()
                if neurons is not None:
                    change = patch(neurons, self.acts.x[source, list(neurons.indices)])
                    edits = (change.edit([len(state.tokens) - 1]),)
                key = (kind, self.seed, state.problem.id, step, trajectory)
                for draw in range(self.k):
                    jobs.append((state, edits, (*key, draw)))
        return jobs


Run = Callable[[list[tuple[Edit, ...]], str], Answers]  # arms and a title to [arm problem]


def _ranked(
    base: Answers, own: Answers, controls: Sequence[Push], run: Run, level: float
) -> tuple[list[np.ndarray], dict[str, float], bool]:
    """Contrasts of matched sets, as many as are needed to tell that the rank of the set cannot be
    `level` in any measure; their damage; and whether it still can."""
    mine = np.abs(contrasts(own))
    moves = np.array([differs(own, measure) <= level for measure in MEASURES])
    draws: list[np.ndarray] = []
    meters, sizes = [], []
    open_ = moves
    for start, stop in _blocks(len(controls)):
        title = f"matched sets {start + 1}-{stop} of {len(controls)}"
        answers = _both_ways(controls[start:stop], run, title)
        draws += [contrasts(answers[number]) for number in range(stop - start)]
        meters.append(answers.damage(base))
        sizes.append(stop - start)
        as_large = (np.abs(draws) >= mine).sum(0)
        open_ = moves & ((1 + as_large) / (1 + len(controls)) <= level)
        if not open_.any():
            break
    damage = {}
    for name in meters[0] if meters else ():
        damage[name] = float(np.average([meter[name] for meter in meters], weights=sizes))
    return draws, damage, bool(open_.any())


def differs(
    answers: Answers, measure: str, among: Bool[np.ndarray, " problem"] | bool = True
) -> float:
    """McNemar's exact p of a measure under strength -1 against +1, of answers [2 problem], of all
    problems or `among` some."""
    down, up = measured(answers, measure).astype(int) * among
    return stats.mcnemar(down, up)


def _contrasts(pushes: Sequence[Push], run: Run, title: str) -> list[np.ndarray]:
    if not pushes:
        return []
    answers = _both_ways(pushes, run, title)
    return [contrasts(answers[number]) for number in range(len(pushes))]


def _both_ways(pushes: Sequence[Push], run: Run, title: str) -> Answers:
    """Answers [push 2 problem]."""
    edits = []
    for push in pushes:
        edits += _down_and_up(push)
    return run(edits, title).shaped(len(pushes), 2, -1)


def _table(draws: Sequence[np.ndarray]) -> Float[np.ndarray, "measure draw"]:
    return np.array(draws, float).reshape(-1, len(MEASURES)).T


def _first_like(states: Sequence[int], v: np.ndarray) -> tuple[int, int] | None:
    """The first two states of like V-hat, in the order given."""
    for first in states:
        for second in states:
            if first != second and abs(v[first] - v[second]) <= ALIKE:
                return first, second
    return None


def _at_the_kl_of(
    push: Push,
    others: Sequence[Push],
    text: CleanText,
    tokens: Activations,
) -> tuple[dict[str, float], dict[str, float]]:
    """KL on clean text of a set and of others by name, and the factors that give the others that of
    the set."""
    sizes = {"value": kl(text, push, tokens)}
    factors = {}
    for control in others:
        name = _name(control)
        sizes[name] = kl(text, control, tokens)
        factors[name] = at_kl(text, control, tokens, sizes[name], sizes["value"])
    return sizes, factors


def _name(push: Push) -> str:
    """Name of a control: matched sets have numbers."""
    return f"matched {push.draw}" if push.arm == "matched" else push.arm


def _down_and_up(push: Push, strength: float = 1.0) -> list[tuple[Edit, ...]]:
    return [(push.by(-strength).edit(),), (push.by(strength).edit(),)]


def _blocks(n: int) -> list[tuple[int, int]]:
    """A few first, then more at a time."""
    edges = [0, *range(5, n, 25), n]
    return [(start, stop) for start, stop in pairwise(edges) if stop > start]
