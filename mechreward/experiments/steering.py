"""Both directions: value neurons zeroed under dopamine neurons (R10), and both steered up and down
(R14)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.base.progress import tell
from mechreward.causal.effect import CleanText
from mechreward.causal.intervene import Intervention
from mechreward.causal.steering import Push, by_arm, matched_pushes, own_push, random_pushes
from mechreward.experiments.rows import Row, rows_from
from mechreward.experiments.split import SEEN, Split, bare, over_draws
from mechreward.models.row_edits import Edit
from mechreward.probing.activations import Activations, Recording, record
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.continuations import Answers, answer, both_ways, rates, state_of
from mechreward.rollouts.trajectory import Rollouts
from mechreward.stats import Interval
from mechreward.tasks import Problem

STRENGTHS = (-3, -2, -1, 1, 2, 3)
PLACES = ("all", "early", "late")
BESIDE = {"matched": "value", "matched_dopamine": "dopamine"}  # whose rank is among which sets
CURVE = 2  # matched sets that every strength is tried on


def R14(
    model: Any,
    problems: Sequence[Problem],
    pushes: Sequence[Push],
    about: dict[str, Any],
    *,
    runs: Rollouts,
    tokens: Mapping[str, Activations],
    strengths: Sequence[int | float] = STRENGTHS,
    places: Sequence[str] = PLACES,
    k: int = 4,
    states: int = 24,
    what: str | None = None,
) -> list[Row]:
    """Both directions: steer each set by every strength, up and down, and see what it should move.

    Read-outs, for each arm, strength and place, on shared problems with common random numbers:
    `accuracy`, and its `change` against strength 0 (paired); `back`, the share of answers that turn
    back; the damage meter (parse, end and truncation rate, length; at all positions KL on clean
    text and the norm of the change as well); and `value`, V-hat of the continuation from states in
    the middle of clean answers, steered from their last token on. `early` and `late` are the
    positions before and behind the middle of a clean answer (median). `contrast` is accuracy under
    each strength minus that under its opposite. The baseline's `detectable_drop` is what so many
    problems can show (`stats.detectable_effect`).

    The rows of arms of several draws, which have one displacement with the set they stand for, are
    means over them, between the lowest and the highest: matched sets over the first `CURVE`; random
    ones, and V-hat, KL and the norm of the change of both, at the middle strength alone. Where the
    contrast of the set itself is told from 0 (McNemar, p <= `SEEN`, not corrected), at any strength
    and place, all draws are run there and the contrast of the matched sets holds its `p_rank`: a
    set that moves nothing needs no more controls to be told so (our choice).

    Args:
        pushes: the directions (`causal.push`); pushes of one arm are draws of it, a set before its
        draws.
        runs: clean rollouts, for states and for the damage meter.
        tokens: their activations at every token, by site, for the norm of the change.
    """
    seed = about["seed"]
    middle = int(np.median([(run.prompt_len + len(run.tokens)) / 2 for run in runs]))
    longest = (
        max(len(run.tokens) for run in runs) + problems[0].task.max_tokens
        if problems[0].task
        else 512
    )
    where = {"all": None, "early": range(middle), "late": range(middle, longest)}
    text = CleanText(model, runs)
    half = [
        state_of(runs, i, max(1, run.steps // 2)) for i, run in enumerate(runs) if run.steps > 1
    ][:states]
    ids = np.array([problem.id for problem in problems])

    def onward(changes: Sequence[Intervention | None]) -> np.ndarray:
        """V-hat [change state] from the middle of clean answers."""
        jobs = []
        for change in changes:
            for number, state in enumerate(half):
                here = (
                    () if change is None else (change.edit(range(len(state.tokens) - 1, longest)),)
                )
                jobs += [(state, here, (seed, "onward", number, j)) for j in range(k)]
        return rates(answer(model, jobs, policy=runs.policy, what=what).shaped(len(changes), -1, k))

    def full(edits: Sequence[tuple[Edit, ...]]) -> Answers:
        return both_ways(model, problems, edits, seed, runs.policy, what)

    base, still = full([()])[0], onward([None])[0]
    see = stats.detectable_effect(len(ids), float(base.reward.mean()))
    tell(
        what,
        f"accuracy {base.reward.mean():.2f}; with n={len(ids)} problems a change of {see:.2f} can be seen",
    )
    rows = rows_from(
        about, _numbers("baseline", base, base, ids, {"strength": 0, "detectable_drop": see}, seed)
    )
    owners = np.array([state.problem.id for state in half])
    rows += rows_from(
        about, [("baseline", "value", _mean(still, owners, seed), {"strength": 0, "k": k})]
    )
    up = [s for s in strengths if s > 0 and -s in strengths]
    told: dict[
        tuple[str, str, int | float], tuple[float, float]
    ] = {}  # contrast and its p, of single sets

    def steer(
        draws: Sequence[Push], by: Sequence[int | float], place: str
    ) -> dict[int | float, list[Answers]]:
        """Strength -> [draw] answers [problem]."""
        edits = [(push.by(strength).edit(where[place]),) for strength in by for push in draws]
        found = full(edits).shaped(len(by), len(draws), -1)
        return {strength: [found[i, d] for d in range(len(draws))] for i, strength in enumerate(by)}

    for arm, draws in by_arm(pushes).items():
        single, curve = len(draws) == 1, draws[:CURVE] if arm in BESIDE else draws
        here, acts = (
            about | {"site": str(draws[0].neurons.site)},
            tokens[str(draws[0].neurons.site)],
        )
        by = strengths if single or not up else [s for s in strengths if abs(s) == up[len(up) // 2]]
        later = dict(
            zip(
                by,
                onward([p.by(s) for s in by for p in curve]).reshape(len(by), len(curve), -1),
                strict=True,
            )
        )
        gaps: dict[tuple[str, int | float], list[Interval]] = {}
        for place in places if single else ("all",):
            found = steer(curve, strengths if single or arm in BESIDE else by, place)
            for strength, answers in found.items():
                detail = {"strength": strength, "place": place, "neurons": len(draws[0].neurons)}
                detail |= {"displacement": draws[0].norm * abs(strength)}
                whole = place == "all" and strength in later
                meters = [text.compare(push.by(strength), acts) for push in curve] if whole else []
                values = later[strength] if whole else []
                if single:
                    rows += rows_from(here, _numbers(arm, answers[0], base, ids, detail, seed))
                    rows += rows_from(
                        here,
                        [(arm, key, bare(v, 0), detail) for m in meters for key, v in m.items()],
                    )
                    means = [
                        (arm, "value", _mean(v, owners, seed), detail | {"k": k}) for v in values
                    ]
                    rows += rows_from(here, means)
                else:
                    rows += rows_from(here, _spread(arm, answers, base, meters, values, detail))
            gaps |= {(place, s): _gaps(found, s, ids, seed) for s in up if s in found}
            if single:
                p = {s: stats.mcnemar(found[-s][0].reward, found[s][0].reward) for s in up}
                told |= {(arm, place, s): (gaps[place, s][0].estimate, p[s]) for s in up}
        sure = [key for key in told if key[0] == BESIDE.get(arm) and told[key][1] <= SEEN]
        for _, place, s in sure if not single else ():
            gaps[place, s] = _gaps(steer(draws, (-s, s), place), s, ids, seed)
        for (place, s), each in gaps.items():
            detail = {"strength": s, "place": place, "sets": len(each)}
            if single:
                rows += rows_from(
                    here,
                    [(arm, "contrast", each[0], detail | {"p_mcnemar": told[arm, place, s][1]})],
                )
                continue
            values = [gap.estimate for gap in each]
            if (BESIDE.get(arm), place, s) in sure:
                detail["p_rank"] = stats.rank_among(
                    told[BESIDE[arm], place, s][0], np.array(values), tail="high"
                )[1]
            detail["rms_match_error"] = float(np.mean([push.error for push in draws]))
            rows += rows_from(here, [(arm, "contrast", over_draws(values), detail)])
    return rows


def _gaps(
    found: Mapping[int | float, Sequence[Answers]], by: int | float, ids: np.ndarray, seed: int
) -> list[Interval]:
    """Accuracy steered up minus down, for each draw."""
    pairs = zip(found[by], found[-by], strict=True)
    return [stats.paired_difference(a.reward, b.reward, ids, seed=seed) for a, b in pairs]


def _numbers(
    arm: str, found: Answers, base: Answers, ids: np.ndarray, detail: dict[str, Any], seed: int
) -> list[tuple[str, str, Interval, dict[str, Any]]]:
    n = len(found.reward)
    numbers = {
        "accuracy": stats.proportion(int(found.reward.sum()), n),
        "change": stats.paired_difference(found.reward, base.reward, ids, seed=seed),
        "back": stats.proportion(int(found.back.sum()), n),
    }
    numbers |= {key: bare(value, n) for key, value in found.damage().items()}
    return [(arm, metric, interval, detail) for metric, interval in numbers.items()]


def _spread(
    arm: str,
    found: Sequence[Answers],
    base: Answers,
    meters: Sequence[dict[str, float]],
    later: Sequence[np.ndarray] | np.ndarray,
    detail: dict[str, Any],
) -> list[tuple[str, str, Interval, dict[str, Any]]]:
    each: dict[str, list[float]] = {
        "accuracy": [float(one.reward.mean()) for one in found],
        "change": [float(one.reward.mean() - base.reward.mean()) for one in found],
        "back": [float(one.back.mean()) for one in found],
        "value": [float(v.mean()) for v in later],
    }
    for table in ([one.damage() for one in found], meters):
        for key in table[0] if table else ():
            each[key] = [one[key] for one in table]
    more = detail | {"sets": len(found), "interval": "lowest and highest draw"}
    return [(arm, metric, over_draws(values), more) for metric, values in each.items() if values]


def _mean(values: np.ndarray, owners: np.ndarray, seed: int) -> Interval:
    return stats.cluster_bootstrap(np.mean, values, owners, seed=seed)


def steering_arms(
    model: Any,
    train: Split,
    value: NeuronSet,
    dopamine: NeuronSet,
    draws: int = 19,
    randoms: int = 3,
    seed: int = 0,
) -> tuple[list[Push], Recording]:
    """R14's arms: `value` toward V-hat and `dopamine` toward delta, by one standard deviation of
    each neuron over the training split's states or steps; beside each, `draws` sets matched in rms
    (`matched`, `matched_dopamine`), and `randoms` beside the value neurons, all at the displacement
    of the set they stand for. Also the activations at every token of the training rollouts, at both
    sites."""
    tokens = record(model, train.runs, list({value.site, dopamine.site}), rows="tokens", what=None)
    toward = np.where(train.values.live, train.values.mean, np.nan)
    acts = train.at_states[str(value.site)]
    up = own_push(value, acts, toward)
    pushes = [up, *matched_pushes(up, tokens[str(value.site)], acts, toward, draws, seed)]
    pushes += random_pushes(up, tokens[str(value.site)], acts, toward, randoms, seed)
    delta, moved = train.values.delta[train.values.is_step], train.over_steps[str(dopamine.site)]
    surprise = own_push(dopamine, moved, delta, "dopamine")
    others = matched_pushes(surprise, tokens[str(dopamine.site)], moved, delta, draws, seed)
    named = [
        Push("matched_dopamine", one.draw, one.neurons, one.direction, one.error) for one in others
    ]
    return [*pushes, surprise, *named], tokens
