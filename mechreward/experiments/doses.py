"""Doses (R14): more and more of a ranking zeroed and steered, and sets and controls steered at one
damage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.causal.effect import CleanText
from mechreward.causal.intervene import zero
from mechreward.causal.steering import Push, by_arm, matched_pushes, own_push
from mechreward.causal.trials import at_kl, kl
from mechreward.experiments.rows import (
    Detail,
    Row,
    Setting,
    at_site,
    damage_rows,
    over_draws,
    row_of,
)
from mechreward.experiments.split import SEEN, Split
from mechreward.experiments.steering_run import BESIDE, CURVE
from mechreward.models.policy import Policy
from mechreward.models.row_edits import Edit
from mechreward.models.site import Site
from mechreward.probing.activations import Activations, record
from mechreward.probing.neurons import select
from mechreward.probing.probe import ValueProbe
from mechreward.rollouts.continuations import Answers, answer_arms
from mechreward.rollouts.trajectory import Rollouts
from mechreward.stats import Interval
from mechreward.tasks import Problem

OPS = ("zero", "down", "up")
TEXTS = 12  # clean answers that the KL of matched damage is taken over
DOSES = (0.001, 0.01, 0.05, 0.2)  # shares of the neurons, for the dose


def share_dose(
    model: Any,
    problems: Sequence[Problem],
    sets: Mapping[float, Sequence[Push]],
    setting: Setting,
    progress: bool | str = False,
    policy: Policy | None = None,
) -> list[Row]:
    """R14, dose over the share of neurons: zeroed, and steered by one unit up and down, on shared
    problems with common random numbers.

    `accuracy_zeroed` and its `change_zeroed` against the model as it is, and `contrast_at_share`,
    accuracy steered up minus down; the damage meter of each (`op` zero, down, up). The matched
    sets' rows are means over the first `CURVE` draws, between the lowest and the highest; where the
    set itself changes accuracy, or has a contrast (McNemar, p <= `SEEN`, not corrected), over all
    draws, with its `p_rank` among them.

    Args:
        sets: share -> the set's push, and then those of its matched sets (`by_share`).
        progress: whether bars are shown, or their title (default False).
        policy: how answers are drawn (default the model's own distribution).
    """
    seed = setting["seed"]
    ids = np.array([problem.id for problem in problems])

    def run(pushes: Sequence[Push]) -> Answers:
        """[push op problem]"""
        edits: list[tuple[Edit, ...]] = []
        for push in pushes:
            edits.append((zero(push.neurons).edit(),))
            edits.append((push.by(-1).edit(),))
            edits.append((push.by(1).edit(),))
        answers = answer_arms(model, problems, edits, seed, policy, progress)
        return answers.shaped(len(pushes), len(OPS), len(problems))

    base = answer_arms(model, problems, [()], seed, policy)[0]
    accuracy = stats.proportion(int(base.reward.sum()), len(problems))
    rows = [row_of(setting, "baseline", "accuracy_zeroed", accuracy, Detail(share=0.0))]
    for share, pushes in sets.items():
        detail = Detail(share=share, neurons=len(pushes[0].neurons))
        answers = run(pushes[: 1 + CURVE])
        effects = _effects(base.reward, answers[0].reward, ids, seed)
        rows += _set_rows(answers[0], base, effects, setting, detail)
        controls = answers[1:].reward
        seen = min(effect.p for effect in effects) <= SEEN and len(pushes) > 1 + CURVE
        if seen:
            controls = np.concatenate([controls, run(pushes[1 + CURVE :]).reward])
        if len(controls):
            errors = [push.error for push in pushes[1:]]
            beside = detail | Detail(sets=len(controls), error=float(np.mean(errors)))
            value = answers[0].reward if seen else None
            rows += _control_rows(controls, value, setting, beside)
    return rows


def same_damage(
    model: Any,
    problems: Sequence[Problem],
    pushes: Sequence[Push],
    setting: Setting,
    *,
    runs: Rollouts,
    tokens: Mapping[str, Activations],
    strength: int | float = 2,
    progress: bool | str = False,
) -> list[Row]:
    """R14 at matched damage: accuracy steered up minus down, on shared problems with common random
    numbers, of each set and of the first `CURVE` draws of each control, made as much stronger as
    gives them the set's KL on `TEXTS` clean answers (`causal.trials.at_kl`); of all matched draws
    where the set has a contrast (McNemar, p <= `SEEN`).

    `contrast_at_kl` with the `kl` in nats per token of the set; a control's row is the mean over
    its draws, between the lowest and the highest, with the mean `factor` on the strength. Draws
    that do not come to that KL are left out, and `never` counts them: no row, if all do.

    Args:
        pushes, runs, tokens: as for `steering`; a set comes before its controls.
        strength: of the set, and of a control that does as much damage as it is (default 2).
        progress: whether bars are shown, or their title (default False).
    """
    text = CleanText(model, runs, TEXTS)
    rows = []
    wanted = 0.0  # KL of the set that controls are held against
    moving = set()  # sets with a contrast
    for arm, draws in by_arm(pushes).items():
        acts = tokens[str(draws[0].neurons.site)]
        tried = draws if BESIDE.get(arm) in moving else draws[:CURVE]
        is_set = arm in BESIDE.values()
        if is_set:
            wanted = kl(text, draws[0], acts, strength)
        able = _at_damage(text, tried, acts, wanted, strength)
        if not able:
            continue
        answers = answer_arms(
            model, problems, _down_and_up(able, strength), setting["seed"], runs.policy, progress
        )
        reward = answers.shaped(len(able), 2, -1).reward
        here = at_site(setting, draws[0].neurons.site)
        detail = Detail(strength=strength, kl=wanted)
        if is_set:
            row = _set_at_kl(here, arm, problems, reward[0], detail)
            if row.detail["p_mcnemar"] <= SEEN:
                moving.add(arm)
        else:
            factors = [factor for _, factor in able]
            never = len(tried) - len(able)
            row = _controls_at_kl(here, arm, reward, factors, never, detail)
        rows.append(row)
    return rows


def by_share(
    model: Any,
    train: Split,
    probe: ValueProbe,
    site: Site,
    shares: Sequence[float] = DOSES,
    draws: int = 19,
    seed: int = 0,
) -> dict[float, list[Push]]:
    """R14's dose by share: for each, the best neurons of a probe's ranking with their way up, then
    `draws` (default 19) sets matched in rms at the displacement of that. Of shares that come to as
    many neurons the first is kept."""
    tokens = record(model, train.runs, site, rows="tokens", progress=False)[str(site)]
    acts = train.at_states[str(site)]
    sets = {}
    sizes = set()
    for share in shares:
        push = own_push(select(probe, share), acts, train.toward)
        if len(push.neurons) not in sizes:
            controls = matched_pushes(push, tokens, acts, train.toward, draws, seed)
            sets[share] = [push, *controls]
            sizes.add(len(push.neurons))
    return sets


@dataclass(frozen=True)
class _Paired:
    """A paired change of accuracy under its metric, with its exact p."""

    metric: str
    change: Interval
    p: float


def _effects(base: np.ndarray, reward: np.ndarray, ids: np.ndarray, seed: int) -> list[_Paired]:
    """What zeroing changes, and what steering up does beyond steering down; `reward` [op
    problem]."""
    zeroed, down, up = reward
    change = stats.paired_difference(zeroed, base, ids, seed=seed)
    contrast = stats.paired_difference(up, down, ids, seed=seed)
    return [
        _Paired("change_zeroed", change, stats.mcnemar(base, zeroed)),
        _Paired("contrast_at_share", contrast, stats.mcnemar(down, up)),
    ]


def _set_rows(
    answers: Answers,
    base: Answers,
    effects: Sequence[_Paired],
    setting: Setting,
    detail: Detail,
) -> list[Row]:
    """The set of one share; `answers` [op problem]."""
    zeroed = answers.reward[0]
    accuracy = stats.proportion(int(zeroed.sum()), len(zeroed))
    rows = [row_of(setting, "value", "accuracy_zeroed", accuracy, detail)]
    for effect in effects:
        tested = detail | Detail(p_mcnemar=effect.p)
        rows.append(row_of(setting, "value", effect.metric, effect.change, tested))
    for number, op in enumerate(OPS):
        damage = answers[number].damage(base)
        rows += damage_rows(setting, "value", damage, len(zeroed), detail | Detail(op=op))
    return rows


def _control_rows(
    controls: np.ndarray,
    value: np.ndarray | None,
    setting: Setting,
    detail: Detail,
) -> list[Row]:
    """The matched sets of one share, `controls` [draw op problem], and the rank of the set among
    them where its rewards are given, `value` [op problem]."""
    zeroed = controls[:, 0].mean(1)
    contrast = (controls[:, 2] - controls[:, 1]).mean(1)
    ranks = [Detail(), Detail()]
    if value is not None:
        low = stats.rank_among(value[0].mean(), zeroed)[1]
        high = stats.rank_among((value[2] - value[1]).mean(), contrast, tail="high")[1]
        ranks = [Detail(p_rank=low), Detail(p_rank=high)]
    rows = []
    for metric, draws, rank in (
        ("accuracy_zeroed", zeroed, ranks[0]),
        ("contrast_at_share", contrast, ranks[1]),
    ):
        interval = over_draws(draws.tolist())
        rows.append(row_of(setting, "matched", metric, interval, detail | rank))
    return rows


def _at_damage(
    text: CleanText,
    pushes: Sequence[Push],
    acts: Activations,
    wanted: float,
    strength: int | float,
) -> list[tuple[Push, float]]:
    """The pushes that some strength gives the KL `wanted`, with the factor on `strength` that
    does."""
    able = []
    for push in pushes:
        has = kl(text, push, acts, strength)
        factor = at_kl(text, push, acts, has, wanted, strength)
        if factor < inf:
            able.append((push, factor))
    return able


def _down_and_up(
    pushes: Sequence[tuple[Push, float]],
    strength: int | float,
) -> list[tuple[Edit, ...]]:
    """Edits of every push, each with its factor on the strength: down, then up."""
    edits: list[tuple[Edit, ...]] = []
    for push, factor in pushes:
        for sign in (-1, 1):
            edits.append((push.by(sign * strength * factor).edit(),))
    return edits


def _set_at_kl(
    setting: Setting,
    arm: str,
    problems: Sequence[Problem],
    reward: np.ndarray,
    detail: Detail,
) -> Row:
    """The contrast of a set; `reward` [sign problem]."""
    down, up = reward
    ids = np.array([problem.id for problem in problems])
    contrast = stats.paired_difference(up, down, ids, seed=setting["seed"])
    tested = detail | Detail(p_mcnemar=stats.mcnemar(down, up))
    return row_of(setting, arm, "contrast_at_kl", contrast, tested)


def _controls_at_kl(
    setting: Setting,
    arm: str,
    reward: np.ndarray,
    factors: Sequence[float],
    never: int,
    detail: Detail,
) -> Row:
    """The contrasts of a control's draws; `reward` [draw sign problem]."""
    contrasts = (reward[:, 1] - reward[:, 0]).mean(1).tolist()
    beside = detail | Detail(factor=float(np.mean(factors)), sets=len(reward), never=never)
    return row_of(setting, arm, "contrast_at_kl", over_draws(contrasts), beside)
