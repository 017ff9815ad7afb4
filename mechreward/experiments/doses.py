"""Doses (R14): more and more of a ranking zeroed and steered, and states patched into each other,
up and down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.causal.effect import CleanText
from mechreward.causal.intervene import zero
from mechreward.causal.steering import Push, by_arm, matched_pushes, own_push
from mechreward.causal.trials import at_kl, kl
from mechreward.experiments.rows import Row, rows_from
from mechreward.experiments.split import SEEN, Split, bare, over_draws
from mechreward.experiments.steering import BESIDE, CURVE
from mechreward.models.site import Site
from mechreward.probing.activations import Activations, record
from mechreward.probing.neurons import select
from mechreward.probing.probe import ValueProbe
from mechreward.rollouts.continuations import Answers, both_ways
from mechreward.rollouts.trajectory import Rollouts
from mechreward.tasks import Problem

OPS = ("zero", "down", "up")
TEXTS = 12  # clean answers that the KL of matched damage is taken over


def share_dose(
    model: Any,
    problems: Sequence[Problem],
    sets: Mapping[float, Sequence[Push]],
    about: dict[str, Any],
    what: str | None = None,
) -> list[Row]:
    """R14, dose over the share of neurons: zeroed, and steered by one unit up and down, on shared
    problems with common random numbers.

    `accuracy_zeroed` and its `change_zeroed` against the model as it is, and `contrast_at_share`,
    accuracy steered up minus down; the damage meter of each (`op` zero, down, up). The matched
    sets' rows are means over the first `CURVE` draws, between the lowest and the highest; where the
    set itself changes accuracy, or has a contrast (McNemar, p <= `SEEN`, not corrected), over all
    draws, with its `p_rank` among them.

    Args:
        sets: share -> the set's push, and then those of its matched sets (`paper.by_share`).
    """
    ids, n, seed = np.array([problem.id for problem in problems]), len(problems), about["seed"]

    def run(pushes: Sequence[Push]) -> Answers:
        """[push op problem]: zeroed, steered down, steered up."""
        edits = [
            (edit,)
            for one in pushes
            for edit in (zero(one.neurons).edit(), one.by(-1).edit(), one.by(1).edit())
        ]
        return both_ways(model, problems, edits, seed, what=what).shaped(len(pushes), len(OPS), n)

    base = both_ways(model, problems, [()], seed)[0].reward
    rows = rows_from(
        about,
        [("baseline", "accuracy_zeroed", stats.proportion(int(base.sum()), n), {"share": 0.0})],
    )
    for share, pushes in sets.items():
        found = run(pushes[: 1 + CURVE])
        gone, down, up = (found[0, op].reward for op in range(len(OPS)))
        detail: dict[str, Any] = {"share": share, "neurons": len(pushes[0].neurons)}
        p = {
            "change_zeroed": stats.mcnemar(base, gone),
            "contrast_at_share": stats.mcnemar(down, up),
        }
        change = stats.paired_difference(gone, base, ids, seed=seed)
        gap = stats.paired_difference(up, down, ids, seed=seed)
        meters = [
            (key, bare(v, n), op)
            for i, op in enumerate(OPS)
            for key, v in found[0, i].damage().items()
        ]
        rows += rows_from(
            about,
            [
                ("value", "accuracy_zeroed", stats.proportion(int(gone.sum()), n), detail),
                ("value", "change_zeroed", change, detail | {"p_mcnemar": p["change_zeroed"]}),
                ("value", "contrast_at_share", gap, detail | {"p_mcnemar": p["contrast_at_share"]}),
                *(("value", key, number, detail | {"op": op}) for key, number, op in meters),
            ],
        )
        others = found[1:].reward
        sure = min(p.values()) <= SEEN and len(pushes) > len(found.reward)
        if sure:
            others = np.concatenate([others, run(pushes[1 + CURVE :]).reward])
        if len(others):
            zeroed, gaps = (
                others[:, 0].mean(1).tolist(),
                (others[:, 2] - others[:, 1]).mean(1).tolist(),
            )
            more = detail | {
                "sets": len(others),
                "error": float(np.mean([one.error for one in pushes[1:]])),
            }
            ranks = [{}, {}]
            if sure:
                low = stats.rank_among(gone.mean(), np.array(zeroed))[1]
                ranks = [
                    {"p_rank": low},
                    {"p_rank": stats.rank_among(gap.estimate, np.array(gaps), tail="high")[1]},
                ]
            beside = [("accuracy_zeroed", zeroed, ranks[0]), ("contrast_at_share", gaps, ranks[1])]
            rows += rows_from(
                about, [("matched", name, over_draws(v), more | rank) for name, v, rank in beside]
            )
    return rows


def same_damage(
    model: Any,
    problems: Sequence[Problem],
    pushes: Sequence[Push],
    about: dict[str, Any],
    *,
    runs: Rollouts,
    tokens: Mapping[str, Activations],
    strength: int | float = 2,
    what: str | None = None,
) -> list[Row]:
    """R14 at matched damage: accuracy steered up minus down, on shared problems with common random
    numbers, of each set and of the first `CURVE` draws of each control, made as much stronger as
    gives them the set's KL on `TEXTS` clean answers (`causal.trials.at_kl`); of all matched draws
    where the set has a contrast (McNemar, p <= `SEEN`).

    `contrast_at_kl` with the `kl` in nats per token of the set; a control's row is the mean over
    its draws, between the lowest and the highest, with the mean `factor` on the strength. Draws
    that do not come to that KL are left out, and `never` counts them: no row, if all do.

    Args:
        pushes, runs, tokens: as for `R14`; a set comes before its controls.
        strength: of the set, and of a control that does as much damage as it is.
    """
    ids, seed, text = (
        np.array([problem.id for problem in problems]),
        about["seed"],
        CleanText(model, runs, TEXTS),
    )
    rows, wanted, seen = [], 0.0, set()
    for arm, draws in by_arm(pushes).items():
        acts, own = tokens[str(draws[0].neurons.site)], arm in BESIDE.values()
        few = draws if BESIDE.get(arm) in seen else draws[:CURVE]
        damage = [kl(text, one, acts, strength) for one in few]
        if own:
            wanted = damage[0]
        factors = [
            at_kl(text, one, acts, has, wanted, strength)
            for one, has in zip(few, damage, strict=True)
        ]
        able = [(one, factor) for one, factor in zip(few, factors, strict=True) if factor < inf]
        if not able:
            continue
        edits = [
            (one.by(sign * strength * factor).edit(),) for one, factor in able for sign in (-1, 1)
        ]
        found = (
            both_ways(model, problems, edits, seed, runs.policy, what)
            .shaped(len(able), 2, -1)
            .reward
        )
        detail: dict[str, Any] = {"strength": strength, "kl": wanted}
        if own:
            down, up = found[0]
            score = stats.paired_difference(up, down, ids, seed=seed)
            p = stats.mcnemar(down, up)
            detail |= {"p_mcnemar": p}
            seen |= {arm} if p <= SEEN else set()
        else:
            score = over_draws((found[:, 1] - found[:, 0]).mean(1).tolist())
            detail |= {"factor": float(np.mean([factor for _, factor in able])), "sets": len(able)}
            detail |= {"never": len(factors) - len(able)}
        here = about | {"site": str(draws[0].neurons.site)}
        rows += rows_from(here, [(arm, "contrast_at_kl", score, detail)])
    return rows


DOSES = (0.001, 0.01, 0.05, 0.2)  # shares of the neurons, for the dose


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
    `draws` sets matched in rms at the displacement of that. Of shares that come to as many neurons
    the first is kept."""
    tokens = record(model, train.runs, site, rows="tokens", what=None)[str(site)]
    acts, toward = (
        train.at_states[str(site)],
        np.where(train.values.live, train.values.mean, np.nan),
    )
    found: dict[int, tuple[float, list[Push]]] = {}
    for share in shares:
        own = own_push(select(probe, share), acts, toward)
        if len(own.neurons) not in found:
            others = matched_pushes(own, tokens, acts, toward, draws, seed)
            found[len(own.neurons)] = share, [own, *others]
    return dict(found.values())
