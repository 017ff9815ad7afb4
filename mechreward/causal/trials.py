"""The two experiments of a certificate: steering a set both ways beside its controls, and patching
high V into low."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mechreward import stats
from mechreward.base import streams
from mechreward.base.errors import require
from mechreward.causal.effect import CleanText
from mechreward.causal.intervene import Intervention, patch
from mechreward.causal.steering import Push
from mechreward.models.engine import Policy
from mechreward.models.row_edits import Edit
from mechreward.probing.activations import Activations
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.continuations import Answers, answer, both_ways, rates, state_of
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import Values
from mechreward.tasks import Problem

GAP, ALIKE = (
    0.3,
    0.1,
)  # V-hat of a high and a low state differ by at least, of two like states by at most (our choice)
FACTORS = (
    1.0,
    2.0,
    4.0,
    8.0,
    16.0,
    32.0,
)  # strengths between which a control gets the set's own KL


@dataclass(frozen=True)
class Steered:
    """Steering by one unit down and up, on shared problems with common random numbers.

    `own` [2 problem] and `rivals` (by arm) are answers under strength -1 and +1, `base` [problem]
    and `ablated` (by operation) under strength 0 and without the set. `draws` [draw] are contrasts
    of the matched sets that were run, of `planned` ones. `kl` holds KL on clean text, by arm, the
    mean of both signs; `factor` the strength at which a control has the KL of the set, infinite
    where the largest of `FACTORS` does not give it that: such a control was run as an arm `at_kl
    ...` if that strength is finite and above 1.
    """

    problems: tuple[str, ...] = field(repr=False)
    base: Answers
    own: Answers
    rivals: dict[str, Answers]
    ablated: dict[str, Answers]
    draws: tuple[float, ...]
    damage: dict[str, float]
    planned: int
    kl: dict[str, float]
    factor: dict[str, float]


def contrast(answers: Answers) -> Float[np.ndarray, " problem"]:
    """Reward under strength +1 minus that under -1, for each problem, of answers [2 problem]."""
    return (answers.reward[1] - answers.reward[0]).astype(float)


def kl(text: CleanText, push: Push, tokens: Activations, strength: int | float = 1) -> float:
    """KL on clean text in nats per token, the mean of both signs of a strength."""
    return float(
        np.mean([text.compare(push.by(sign * strength), tokens)["kl"] for sign in (-1, 1)])
    )


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
    if has >= wanted:
        return 1.0
    high = next((f for f in FACTORS[1:] if kl(text, push, tokens, f * strength) >= wanted), inf)
    if high == inf:
        return high
    low = high / 2
    for _ in range(4):  # within 2^(1/16), 4%
        middle = (low * high) ** 0.5
        low, high = (
            (low, middle) if kl(text, push, tokens, middle * strength) >= wanted else (middle, high)
        )
    return high


def steered(
    model: Any,
    problems: Sequence[Problem],
    push: Push,
    controls: Sequence[Push],
    rivals: Sequence[Push],
    ablations: Sequence[Intervention],
    clean: Rollouts,
    tokens: Activations,
    *,
    level: float = 0.01,
    seed: int = 0,
    policy: Policy | None = None,
    what: str | None = None,
) -> Steered:
    """Steer by one unit both ways, beside matched sets, rivals, ablations, and controls
    strengthened to the same KL.

    `controls` are ranked until the rank can no longer be `level`, or, where up is not better than
    down at `level`, for five of them: a set that moves nothing needs no more to be told so. The
    first three, and the rivals, are steered a second time at the strength that gives them the KL of
    the set: what damage alone would do.

    Args:
        clean, tokens: rollouts of the model as it is and their activations at every token, for the
        damage meter.
    """

    def signs(one: Push, strength: float = 1.0) -> list[tuple[Edit, ...]]:
        return [(one.by(-strength).edit(),), (one.by(strength).edit(),)]

    def run(arms: list[tuple[Edit, ...]], title: str) -> Answers:
        return both_ways(model, problems, arms, seed, policy, what and f"{what}: {title}")

    text = CleanText(model, clean)
    size, factor, arms = (
        {"value": kl(text, push, tokens)},
        {},
        {one.arm: signs(one) for one in rivals},
    )
    for one in (*rivals, *controls[:3]):
        name = one.arm if one.arm != "matched" else f"matched {one.draw}"
        size[name] = kl(text, one, tokens)
        factor[name] = at_kl(text, one, tokens, size[name], size["value"])
        if 1 < factor[name] < inf:
            arms[f"at_kl {name}"] = signs(one, factor[name])
    found = run(
        [(), *signs(push), *(one for pair in arms.values() for one in pair)], "steering both ways"
    )
    others = {name: found[3 + 2 * i : 5 + 2 * i] for i, name in enumerate(arms)}
    without = run([(change.edit(),) for change in ablations], "ablations") if ablations else None
    ablated = {change.op: without[i] for i, change in enumerate(ablations)} if without else {}
    own = found[1:3]
    mine, seen, meter = float(contrast(own).mean()), [], []
    moves = mine > 0 and stats.mcnemar(own.reward[0], own.reward[1]) <= level
    for start, stop in _blocks(len(controls)):
        pairs = [edits for one in controls[start:stop] for edits in signs(one)]
        part = run(pairs, f"matched sets {start + 1}-{stop} of {len(controls)}").shaped(
            -1, 2, len(problems)
        )
        seen += [float(contrast(part[i]).mean()) for i in range(stop - start)]
        meter += [part.damage()]
        if (1 + sum(draw >= mine for draw in seen)) / (1 + len(controls)) > level or not moves:
            break
    damage = {key: float(np.mean([one[key] for one in meter])) for key in meter[0]} if meter else {}
    ids = tuple(problem.id for problem in problems)
    return Steered(
        ids, found[0], own, others, ablated, tuple(seen), damage, len(controls), size, factor
    )


@dataclass(frozen=True)
class Patched:
    """V-hat from fresh continuations, by pair of states: of the `low` one, and with the high one's
    activations at its last position for the set, for all neurons of the site (`whole`), for
    `matched` sets [draw pair]; `group` [pair] is the problem of the state that is changed. `before`
    and `after` [like pair]: the same control, between states of equal V. The first `same` pairs
    come from one problem each. `back` and `ended` [arm pair] are the shares of those continuations
    that turn back and that end by themselves, for the low state, the set, the whole site, and the
    matched sets."""

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
    what: str | None = None,
) -> Patched | None:
    """Put what a high-V state has into a low-V one, at its last position, and let the model go on
    `k` times.

    `back` puts what the low one has into the high one: `low` of what comes back is then V-hat of
    the high state.

    Pairs are two states of one problem where it has both, else of two problems. They are chosen by
    `values`; V-hat is then estimated anew, with common random numbers in all arms, so that the
    choice cannot flatter the change. None if there are fewer than two pairs of either kind.

    Args:
        acts: activations of rows="states" of `runs`, in the rows of `values`.
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
    jobs = []
    for kind, rows, sets in (
        ("high", far, (None, neurons, whole, *controls)),
        ("like", near, (None, neurons)),
    ):
        for chosen in sets:
            for goal, source in rows:
                state = state_of(runs, int(values.trajectory[goal]), int(values.step[goal]))
                edits: tuple[Edit, ...] = ()
                if chosen is not None:
                    edits = (
                        patch(chosen, acts.x[source, list(chosen.indices)]).edit(
                            [len(state.tokens) - 1]
                        ),
                    )
                name = (
                    seed,
                    kind,
                    state.problem.id,
                    int(values.step[goal]),
                    int(values.trajectory[goal]),
                )
                jobs += [(state, edits, (*name, j)) for j in range(k)]
    said = answer(model, jobs, policy=runs.policy, what=what).shaped(-1, k)
    size = (3 + len(controls)) * len(far)
    table, turned, ended = (
        one[:size].mean(-1).reshape(-1, len(far)) for one in (said.reward, said.back, said.ended)
    )
    before, after = rates(said[size:]).reshape(2, -1)
    group = [values.group[[goal for goal, _ in rows]] for rows in (far, near)]
    low, few, all_of = table[:3]
    return Patched(
        low, few, all_of, table[3:], group[0], before, after, group[1], same, turned, ended
    )


def choose_pairs(values: Values, most: int, seed: int = 0) -> tuple[list[tuple[int, int]], int]:
    """(row of a low state, row of a high one), at most one a problem and `most` in all, and how
    many are of one problem. V-hat differs by `GAP`; the widest gap of a problem is taken; others
    are given the highest states left."""
    rows, v = np.flatnonzero(values.live), values.mean
    order = streams.rng("certificate: pairs of states", seed).permutation(
        np.unique(values.group[rows])
    )
    within, lows = [], []
    for problem in order:
        own = rows[values.group[rows] == problem]
        low, high = own[np.argmin(v[own])], own[np.argmax(v[own])]
        if v[high] - v[low] >= GAP:
            within.append((int(low), int(high)))
        else:
            lows.append(int(low))
    same = len(within[:most])
    highs = [int(row) for row in rows[np.argsort(-v[rows], kind="stable")]]
    for low, high in zip(sorted(lows, key=lambda row: v[row]), highs, strict=False):
        if v[high] - v[low] >= GAP and values.group[high] != values.group[low]:
            within.append((low, high))
    return within[:most], same


def choose_like(values: Values, most: int, seed: int = 0) -> list[tuple[int, int]]:
    """(row, row) of two states whose V-hat differ by at most `ALIKE` and lie between .1 and .9, at
    most one a problem: of one problem where it has such two, else of two problems."""
    rows, v = np.flatnonzero(values.live), values.mean
    rows = rows[(v[rows] >= 0.1) & (v[rows] <= 0.9)]
    rng = streams.rng("certificate: like states", seed)
    found, alone = [], []
    for problem in rng.permutation(np.unique(values.group[rows])):
        own = rng.permutation(rows[values.group[rows] == problem])
        near = [(int(a), int(b)) for a in own for b in own if a != b and abs(v[a] - v[b]) <= ALIKE]
        found += near[:1]
        alone += [] if near else [int(own[0])]
    alone.sort(key=lambda row: v[row])
    found += [(a, b) for a, b in pairwise(alone) if abs(v[a] - v[b]) <= ALIKE]
    return found[:most]


def _blocks(n: int) -> list[tuple[int, int]]:
    """A few first, then more at a time."""
    edges = [0, *range(5, n, 25), n]
    return [(a, b) for a, b in pairwise(edges) if b > a]
