"""Both directions: value neurons zeroed under dopamine neurons (R10), and both steered up and down (R14)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mechreward import stats
from mechreward._check import require
from mechreward._progress import tell
from mechreward.causal.answers import Answers, answer, rates, state_of
from mechreward.causal.effect import CleanText
from mechreward.causal.intervene import Intervention, zero
from mechreward.causal.push import Push, by_arm
from mechreward.causal.trials import both_ways
from mechreward.models.edits import Edit
from mechreward.paper.split import SEEN, bare, over_draws
from mechreward.probing.activations import Activations, record
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.probe import DopamineProbe
from mechreward.probing.pruning import restrict
from mechreward.probing.targets import Examples, steps
from mechreward.results import Row, rows_from
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import Values
from mechreward.stats import Interval
from mechreward.tasks import Problem

STRENGTHS = (-3, -2, -1, 1, 2, 3)
PLACES = ("all", "early", "late")
BESIDE = {"matched": "value", "matched_dopamine": "dopamine"}  # whose rank is among which sets
CURVE = 2  # matched sets that every strength is tried on


def R10(
    model: Any,
    runs: Rollouts,
    values: Values,
    fit: Examples,
    dopamine: NeuronSet,
    zeroed: Mapping[str, Sequence[Sequence[NeuronSet]]],
    about: dict[str, Any],
) -> list[Row]:
    """Value -> dopamine: zero value neurons of earlier layers while rollouts are read again, and read delta off the
    later dopamine neurons (paper, Appendix H).

    The read-out is a linear probe on the dopamine set, fitted to clean steps (`fit`) and never again: what it loses is
    what zeroing took from those neurons. `change` is its Spearman with delta under zeroing minus that without, over
    the same steps, bootstrapped by problem; where zeroing leaves the read-out constant, its Spearman counts as 0.
    `beyond_matched` is that of the value sets minus the mean of the matched ones.

    Args:
        runs, values: of the test split, replayed under every arm.
        dopamine: the set that is read, at a later site.
        zeroed: arm -> draws, each the sets that are zeroed together, one an earlier site; an arm `value` and an arm
            `matched` are needed.

    Raises:
        MechRewardError: no `value` or no `matched` arm, or a zeroed set that is not in an earlier layer.
    """
    require({"value", "matched"} <= set(zeroed), f"R10 needs the arms value and matched; given: {', '.join(zeroed)}.")
    for draws in zeroed.values():
        for one in (one for sets in draws for one in sets):
            early = one.site.layer < dopamine.site.layer
            require(early, f"{one.site} is no earlier layer than the dopamine neurons' {dopamine.site}.")
    index = np.array(dopamine.indices)
    probe = DopamineProbe(shape="linear").fit_examples(restrict(fit, index))

    def read(sets: Sequence[NeuronSet]) -> tuple[np.ndarray, Examples]:
        hooks = [pair for one in sets for pair in zero(one).check(model).fwd_hooks()]
        data = steps(record(model, runs, dopamine.site, rows="steps", hooks=hooks, what=None)[dopamine.site], values)
        return probe.predict(data.x[:, index]), data

    clean, held = read(())
    score = stats.cluster_bootstrap(_rho, [clean, held.y], held.group, seed=about["seed"])
    rows = rows_from(about, [("baseline", "spearman", score, {"neurons": len(dopamine), "steps": len(held)})])
    reads = {arm: [read(sets)[0] for sets in draws] for arm, draws in zeroed.items()}

    def change(a: np.ndarray, b: np.ndarray, y: np.ndarray) -> float:
        return _rho(a, y) - _rho(b, y)

    for arm, found in reads.items():
        for draw, after in enumerate(found):
            sets = zeroed[arm][draw]
            same = sum(len(set(one.indices) & set(dopamine.indices)) for one in sets if one.site.kind != "mlp")
            detail = {"op": "zero", "draw": draw, "zeroed": sum(map(len, sets)), "layers": len(sets), "shared": same}
            rho = stats.cluster_bootstrap(_rho, [after, held.y], held.group, draws=300, seed=about["seed"])
            lost = stats.cluster_bootstrap(change, [after, clean, held.y], held.group, draws=300, seed=about["seed"])
            rows += rows_from(about, [(arm, "spearman", rho, detail), (arm, "change", lost, detail)])
    own, others = reads["value"][0], np.stack(reads["matched"], 1)

    def beyond(mine: np.ndarray, theirs: np.ndarray, y: np.ndarray) -> float:
        return _rho(mine, y) - float(np.mean([_rho(column, y) for column in theirs.T]))

    more = stats.cluster_bootstrap(beyond, [own, others, held.y], held.group, draws=300, seed=about["seed"])
    rank, p = stats.rank_among(_rho(own, held.y), np.array([_rho(column, held.y) for column in others.T]))
    detail = {"rank": rank, "p_rank": p, "draws": others.shape[1]}
    return rows + rows_from(about, [("value", "beyond_matched", more, detail)])


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

    Read-outs, for each arm, strength and place, on shared problems with common random numbers: `accuracy`, and its
    `change` against strength 0 (paired); `back`, the share of answers that turn back; the damage meter (parse, end and
    truncation rate, length; at all positions KL on clean text and the norm of the change as well); and `value`, V-hat
    of the continuation from states in the middle of clean answers, steered from their last token on. `early` and
    `late` are the positions before and behind the middle of a clean answer (median). `contrast` is accuracy under each
    strength minus that under its opposite. The baseline's `detectable_drop` is what so many problems can show
    (`stats.detectable_effect`).

    The rows of arms of several draws, which have one displacement with the set they stand for, are means over them,
    between the lowest and the highest: matched sets over the first `CURVE`; random ones, and V-hat, KL and the norm of
    the change of both, at the middle strength alone.
    Where the contrast of the set itself is told from 0 (McNemar, p <= `SEEN`, not corrected), at any strength and
    place, all draws are run there and the contrast of the matched sets holds its `p_rank`: a set that moves nothing
    needs no more controls to be told so (our choice).

    Args:
        pushes: the directions (`causal.push`); pushes of one arm are draws of it, a set before its draws.
        runs: clean rollouts, for states and for the damage meter.
        tokens: their activations at every token, by site, for the norm of the change.
    """
    seed = about["seed"]
    middle = int(np.median([(run.prompt_len + len(run.tokens)) / 2 for run in runs]))
    longest = max(len(run.tokens) for run in runs) + problems[0].task.max_tokens if problems[0].task else 512
    where = {"all": None, "early": range(middle), "late": range(middle, longest)}
    text = CleanText(model, runs)
    half = [state_of(runs, i, max(1, run.steps // 2)) for i, run in enumerate(runs) if run.steps > 1][:states]
    ids = np.array([problem.id for problem in problems])

    def onward(changes: Sequence[Intervention | None]) -> np.ndarray:
        """V-hat [change state] from the middle of clean answers."""
        jobs = []
        for change in changes:
            for number, state in enumerate(half):
                here = () if change is None else (change.edit(range(len(state.tokens) - 1, longest)),)
                jobs += [(state, here, (seed, "onward", number, j)) for j in range(k)]
        return rates(answer(model, jobs, policy=runs.policy, what=what).shaped(len(changes), -1, k))

    def full(edits: Sequence[tuple[Edit, ...]]) -> Answers:
        return both_ways(model, problems, edits, seed, runs.policy, what)

    base, still = full([()])[0], onward([None])[0]
    see = stats.detectable_effect(len(ids), float(base.reward.mean()))
    tell(what, f"accuracy {base.reward.mean():.2f}; with n={len(ids)} problems a change of {see:.2f} can be seen")
    rows = rows_from(about, _numbers("baseline", base, base, ids, {"strength": 0, "detectable_drop": see}, seed))
    owners = np.array([state.problem.id for state in half])
    rows += rows_from(about, [("baseline", "value", _mean(still, owners, seed), {"strength": 0, "k": k})])
    up = [s for s in strengths if s > 0 and -s in strengths]
    told: dict[tuple[str, str, int | float], tuple[float, float]] = {}  # contrast and its p, of single sets

    def steer(draws: Sequence[Push], by: Sequence[int | float], place: str) -> dict[int | float, list[Answers]]:
        """Strength -> [draw] answers [problem]."""
        edits = [(push.by(strength).edit(where[place]),) for strength in by for push in draws]
        found = full(edits).shaped(len(by), len(draws), -1)
        return {strength: [found[i, d] for d in range(len(draws))] for i, strength in enumerate(by)}

    for arm, draws in by_arm(pushes).items():
        single, curve = len(draws) == 1, draws[:CURVE] if arm in BESIDE else draws
        here, acts = about | {"site": str(draws[0].neurons.site)}, tokens[str(draws[0].neurons.site)]
        by = strengths if single or not up else [s for s in strengths if abs(s) == up[len(up) // 2]]
        later = dict(
            zip(by, onward([p.by(s) for s in by for p in curve]).reshape(len(by), len(curve), -1), strict=True)
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
                    rows += rows_from(here, [(arm, key, bare(v, 0), detail) for m in meters for key, v in m.items()])
                    means = [(arm, "value", _mean(v, owners, seed), detail | {"k": k}) for v in values]
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
                rows += rows_from(here, [(arm, "contrast", each[0], detail | {"p_mcnemar": told[arm, place, s][1]})])
                continue
            values = [gap.estimate for gap in each]
            if (BESIDE.get(arm), place, s) in sure:
                detail["p_rank"] = stats.rank_among(told[BESIDE[arm], place, s][0], np.array(values), tail="high")[1]
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


def _rho(read: np.ndarray, y: np.ndarray) -> float:
    """Spearman, 0 for a constant read-out."""
    return float(np.nan_to_num(stats.spearman(read, y)))


def _mean(values: np.ndarray, owners: np.ndarray, seed: int) -> Interval:
    return stats.cluster_bootstrap(np.mean, values, owners, seed=seed)
