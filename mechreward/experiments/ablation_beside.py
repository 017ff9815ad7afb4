"""What stands beside an ablation (R4): other rankings' sets, other tasks' accuracy, and what later
layers undo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.base.errors import require
from mechreward.base.progress import under
from mechreward.base.streams import rng
from mechreward.causal.controls import matched
from mechreward.causal.effect import ABLATIONS, Effect
from mechreward.causal.intervene import mean, zero
from mechreward.causal.repair import restored
from mechreward.experiments.rows import (
    Detail,
    Row,
    Setting,
    at_site,
    damage_rows,
    over_draws,
    row_of,
)
from mechreward.experiments.split import SEEN, Split, check_splits
from mechreward.models.row_edits import Edit
from mechreward.models.site import Site
from mechreward.probing.activations import Activations, record
from mechreward.probing.neurons import NeuronSet, ranking, select
from mechreward.probing.probe import ValueProbe
from mechreward.probing.pruning import shuffled
from mechreward.probing.rankings import (
    correlation,
    magnitude,
    mean_difference,
    next_token,
    wanda,
    weight_magnitude,
)
from mechreward.rollouts.continuations import Answers, answer_arms
from mechreward.stats import Interval
from mechreward.tasks import Problem

LEAST = 0.05  # accuracy below which a task has nothing to lose (our choice)
FEW = 5  # matched sets that come first, to see whether more are needed


def other_rankings(
    model: Any,
    problems: Sequence[Problem],
    effect: Effect,
    sets: Mapping[str, Sequence[NeuronSet]],
    acts: Activations,
    setting: Setting,
    progress: bool | str = False,
    ops: Sequence[str] = ("zero",),
) -> list[Row]:
    """R4, other rankings: the same ablations of sets of other rankings, on the problems of the
    effect.

    `accuracy` of each, and `gap`: accuracy without that set minus accuracy without the value
    neurons, so that above 0 the value neurons matter more; of several draws
    (`matched_displacement`) their mean. The damage meter beside it.

    Args:
        sets: by arm, the draws of it (`rivals`).
        acts: activations at every token, for the ablations.
        ops: of the effect (default zero, the paper's).

    Raises:
        MechRewardError: other problems than the effect's.
    """
    require(
        [problem.id for problem in problems] == list(effect.problems),
        "the effect was measured on other problems than these.",
    )
    edits: list[tuple[Edit, ...]] = [()]
    for op in ops:
        for draws in sets.values():
            edits += _edits(op, draws, acts, setting)
    answers = answer_arms(model, problems, edits, setting["seed"], effect.policy, progress=progress)
    clean = answers[0]
    rows = []
    start = 1
    for op in ops:
        for arm, draws in sets.items():
            part = answers[start : start + len(draws)]
            rows += _ranking_rows(effect, op, arm, draws, part, clean, setting)
            start += len(draws)
    return rows


def elsewhere(
    model: Any,
    others: Mapping[str, Sequence[Problem]],
    effect: Effect,
    acts: Activations,
    setting: Setting,
    progress: bool | str = False,
    ops: Sequence[str] = ("zero",),
) -> list[Row]:
    """R4, side effects: accuracy on other tasks under the same ablations, beside the first `FEW`
    matched sets, with the damage meter; where the set changes accuracy (McNemar, p <= `SEEN`, not
    corrected), beside all of them.

    A task of which the model solves less than `LEAST` has a baseline row alone: it has nothing to
    lose (our choice).

    Args:
        others: problems by task.
        acts: activations at every token, for the ablations.
        ops: of the effect (default zero, the paper's).
    """
    rows = []
    for name, problems in others.items():
        clean = answer_arms(model, problems, [()], setting["seed"], effect.policy)[0]
        base = clean.reward
        accuracy = stats.proportion(int(base.sum()), len(base))
        detail = Detail(on=name)
        rows.append(row_of(setting, "baseline", "accuracy_elsewhere", accuracy, detail))
        if base.mean() < LEAST:
            continue
        for op in ops:
            title = under(progress, name)
            edits = _set_and_controls(effect, op, acts, setting)
            answers = answer_arms(
                model, problems, edits[: 1 + FEW], setting["seed"], effect.policy, title
            )
            reward = answers.reward
            if stats.mcnemar(base, reward[0]) <= SEEN and len(edits) > 1 + FEW:
                more = answer_arms(
                    model, problems, edits[1 + FEW :], setting["seed"], effect.policy, title
                )
                reward = np.concatenate([reward, more.reward])
            on_task = detail | Detail(op=op)
            rows += _elsewhere_rows(problems, base, reward, setting, on_task)
            rows += damage_rows(setting, "value", answers[0].damage(clean), len(problems), on_task)
    return rows


def repair(
    model: Any,
    train: Split,
    test: Split,
    kind: str,
    share: float,
    setting: Setting,
    draws: int = 19,
) -> list[Row]:
    """R4, self-repair: how much of what zeroing takes from the linear read-out of V-hat of each
    later layer is undone by then (`causal.repair`), for the value set of every layer but the last,
    beside sets matched in rms. No layer is picked.

    Where the set stands above 0 and above each of the first `FEW` matched ones at any later layer,
    it is held against all `draws`, and both rows have the `p_rank` of the set among them.

    Args:
        kind: of neuron that is zeroed.
        share: of the neurons of each layer, by the paper's probe.
        draws: matched sets (default 19).
    """
    check_splits(train=train, test=test)
    sites = [Site.parse(name) for name in train.at_states]
    probes = {}
    for site in sites:
        if site.kind == "resid_post":
            acts = train.at_states[str(site)]
            probes[site] = ValueProbe("mc", "linear").fit(acts, train.values)
    rows = []
    for site in sites:
        later = {at: probe for at, probe in probes.items() if at.layer > site.layer}
        if site.kind != kind or not later:
            continue
        probe = ValueProbe("mc", "mlp").fit(train.at_states[str(site)], train.values)
        neurons = select(probe, share)
        tokens = record(model, train.runs, site, rows="tokens", progress=False)[str(site)]
        controls = matched(neurons, tokens, draws, setting["seed"])
        others = [control.neurons for control in controls]
        rows += _repair_rows(model, test, neurons, others, later, at_site(setting, site))
    return rows


def rivals(
    model: Any,
    train: Split,
    own: NeuronSet,
    draws: int = 5,
    seed: int = 0,
) -> tuple[dict[str, list[NeuronSet]], Activations]:
    """R4's other rankings: as many neurons as `own` has, best by each, whatever they share with it.

    `next_token` (probe), `magnitude` (rms activation at states), `weight_magnitude`, `wanda`,
    `mean_difference` and `correlation` (no probe), `shuffled` (the paper's probe fitted to targets
    of other problems); and `draws` (default 5) sets `matched_displacement`, matched one to one on
    what a mean ablation moves. Also the activations at every token.
    """
    site = own.site
    fit = train.states(site)
    tokens = record(model, train.runs, site, rows="tokens", progress=False)[str(site)]
    noise = shuffled(fit, rng("ablation: shuffled targets", seed))
    scores = {
        "next_token": next_token(tokens, train.runs),
        "magnitude": magnitude(fit),
        "weight_magnitude": weight_magnitude(model, site),
        "wanda": wanda(model, tokens),
        "mean_difference": mean_difference(fit),
        "correlation": correlation(fit),
        "shuffled": ValueProbe("mc", "mlp").fit_examples(noise).scores_,
    }
    sets = {}
    for arm, score in scores.items():
        sets[arm] = [NeuronSet.of(tokens, ranking(score)[: len(own)], arm)]
    moved = matched(
        own, tokens, draws, seed, on="displacement", change=lambda neurons: mean(neurons, tokens)
    )
    sets["matched_displacement"] = [control.neurons for control in moved]
    return sets, tokens


def _edits(
    op: str,
    sets: Sequence[NeuronSet],
    acts: Activations,
    setting: Setting,
) -> list[tuple[Edit, ...]]:
    """One arm's edits for each set under an operation."""
    changes = [ABLATIONS[op](neurons, acts, setting["seed"]) for neurons in sets]
    return [(change.edit(),) for change in changes]


def _ranking_rows(
    effect: Effect,
    op: str,
    arm: str,
    draws: Sequence[NeuronSet],
    answers: Answers,
    clean: Answers,
    setting: Setting,
) -> list[Row]:
    """One ranking under one operation; `answers` [draw problem], `clean` [problem]."""
    (value,) = effect.draws("value", op)
    ids = np.array(effect.problems)
    mean_reward = answers.reward.mean(0)
    common = [len(set(neurons.indices) & set(effect.neurons.indices)) for neurons in draws]
    detail = Detail(op=op, neurons=len(draws[0]), shared=float(np.mean(common)))
    gap = stats.paired_difference(mean_reward, value.outcomes, ids, seed=setting["seed"])
    if len(draws) == 1:
        accuracy = stats.proportion(int(answers.reward[0].sum()), len(ids))
        tested = detail | Detail(p=stats.mcnemar(value.outcomes, answers.reward[0]))
    else:
        accuracy = stats.cluster_bootstrap(
            np.mean, mean_reward, ids, seed=setting["seed"], span=(0, 1)
        )
        detail["sets"] = len(draws)
        tested = detail
    return [
        *damage_rows(setting, arm, answers.damage(clean), len(ids), detail),
        row_of(setting, arm, "accuracy", accuracy, detail),
        row_of(setting, arm, "gap", gap, tested),
    ]


def _set_and_controls(
    effect: Effect,
    op: str,
    acts: Activations,
    setting: Setting,
) -> list[tuple[Edit, ...]]:
    """The edits of the effect's set, then of its matched sets."""
    sets = [effect.neurons]
    for arm in effect.draws("matched", op):
        sets.append(replace(effect.neurons, indices=arm.indices, scores=()))
    return _edits(op, sets, acts, setting)


def _elsewhere_rows(
    problems: Sequence[Problem],
    base: np.ndarray,
    reward: np.ndarray,
    setting: Setting,
    detail: Detail,
) -> list[Row]:
    """Accuracy on another task, of the set and its controls, `reward` [set problem]; `base`
    [problem] is that of the model as it is."""
    ids = np.array([problem.id for problem in problems])
    value = reward[0]
    accuracy = stats.proportion(int(value.sum()), len(value))
    change = stats.paired_difference(value, base, ids, seed=setting["seed"])
    tested = detail | Detail(p_mcnemar=stats.mcnemar(base, value))
    controls = [float(control.mean()) for control in reward[1:]]
    beside = detail | Detail(sets=len(controls))
    return [
        row_of(setting, "value", "accuracy_elsewhere", accuracy, detail),
        row_of(setting, "value", "change_elsewhere", change, tested),
        row_of(setting, "matched", "accuracy_elsewhere", over_draws(controls), beside),
    ]


def _repair_rows(
    model: Any,
    test: Split,
    neurons: NeuronSet,
    controls: Sequence[NeuronSet],
    later: Mapping[Site, ValueProbe],
    setting: Setting,
) -> list[Row]:
    """What later layers undo of zeroing one set, beside its controls."""

    def undone(zeroed: NeuronSet) -> dict[Site, Interval]:
        return restored(model, test.runs, zero(zeroed), later, seed=setting["seed"])

    value = undone(neurons)
    beside = [undone(control) for control in controls[:FEW]]
    if _stands_out(value, beside):
        beside += [undone(control) for control in controls[FEW:]]
    rows = []
    for at in later:
        parts = [control[at].estimate for control in beside]
        detail = Detail(op="zero", at=str(at), neurons=len(neurons), sets=len(parts))
        if len(parts) == len(controls) and np.isfinite(parts).all():
            _, p = stats.rank_among(value[at].estimate, np.array(parts), tail="high")
            detail["p_rank"] = p
        rows.append(row_of(setting, "value", "restored", value[at], detail))
        rows.append(row_of(setting, "matched", "restored", over_draws(parts), detail))
    return rows


def _stands_out(value: Mapping[Site, Interval], beside: Sequence[Mapping[Site, Interval]]) -> bool:
    """Whether a set has more undone than nothing, and than each control, at any later layer."""
    for at, part in value.items():
        most = max(control[at].estimate for control in beside)
        if part.low > 0 and part.estimate > most:
            return True
    return False
