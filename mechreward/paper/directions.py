"""Both directions: value neurons zeroed under dopamine neurons (R10), and both steered up and down (R14)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mechreward import stats
from mechreward._check import require
from mechreward.causal.answers import Answers, answer, rates, state_of
from mechreward.causal.effect import CleanText
from mechreward.causal.intervene import Intervention, zero
from mechreward.causal.push import Push
from mechreward.causal.trials import both_ways
from mechreward.models.edits import Edit
from mechreward.paper.split import bare, over_draws
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
    `late` are the positions before and behind the middle of a clean answer (median). The rows of the arms called
    `matched` or `random`, whose draws have one displacement with the set they stand for, are means over draws, between
    the lowest and the highest. `contrast` is accuracy under each strength minus that under its opposite. The baseline's
    `detectable_drop` is what so many problems can show (`stats.detectable_effect`).

    Args:
        pushes: the directions (`causal.push`); pushes of one arm are draws of it.
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
    see = stats.detectable_effect(len(ids), min(max(float(base.reward.mean()), 0.01), 0.99))
    rows = rows_from(about, _numbers("baseline", base, base, ids, {"strength": 0, "detectable_drop": see}, seed))
    owners = np.array([state.problem.id for state in half])
    rows += rows_from(about, [("baseline", "value", _mean(still, owners, seed), {"strength": 0, "k": k})])
    by_arm: dict[str, list[Push]] = {}
    for push in pushes:
        by_arm.setdefault(push.arm, []).append(push)
    for arm, draws in by_arm.items():
        single = len(draws) == 1
        changes = [push.by(strength) for strength in strengths for push in draws]
        later = onward(changes).reshape(len(strengths), len(draws), -1)
        sites = [tokens[str(push.neurons.site)] for push in draws]
        for place in places if single else ("all",):
            there = full([(change.edit(where[place]),) for change in changes]).shaped(len(strengths), len(draws), -1)
            found = {strength: [there[i, d] for d in range(len(draws))] for i, strength in enumerate(strengths)}
            for i, strength in enumerate(strengths):
                detail = {"strength": strength, "place": place, "neurons": len(draws[0].neurons)}
                detail |= {"displacement": draws[0].norm * abs(strength)}
                meters, values = [], later[i] if place == "all" else []
                if place == "all":
                    these = changes[i * len(draws) : (i + 1) * len(draws)]
                    meters = [text.compare(change, acts) for change, acts in zip(these, sites, strict=True)]
                if single:
                    rows += rows_from(about, _numbers(arm, found[strength][0], base, ids, detail, seed))
                    rows += rows_from(about, [(arm, key, bare(v, 0), detail) for m in meters for key, v in m.items()])
                    means = [(arm, "value", _mean(v, owners, seed), detail | {"k": k}) for v in values]
                    rows += rows_from(about, means)
                else:
                    rows += rows_from(about, _spread(arm, found[strength], base, meters, values, detail))
            for strength in (s for s in strengths if s > 0 and -s in found):
                pairs = list(zip(found[strength], found[-strength], strict=True))
                gaps = [stats.paired_difference(a.reward, b.reward, ids, seed=seed) for a, b in pairs]
                whole = gaps[0] if single else over_draws([gap.estimate for gap in gaps])
                detail = {"strength": strength, "place": place, "sets": len(draws)}
                if single:
                    detail["p_mcnemar"] = stats.mcnemar(pairs[0][1].reward, pairs[0][0].reward)
                rows += rows_from(about, [(arm, "contrast", whole, detail)])
    return rows


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
