"""What stands beside an ablation (R4): other rankings' sets, other tasks' accuracy, and what later
layers undo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.base.errors import require
from mechreward.base.streams import rng
from mechreward.causal.controls import matched
from mechreward.causal.effect import ABLATIONS, Effect
from mechreward.causal.intervene import mean, zero
from mechreward.causal.repair import restored
from mechreward.experiments.rows import Row, rows_from
from mechreward.experiments.split import SEEN, Split, bare, over_draws
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
from mechreward.rollouts.continuations import both_ways
from mechreward.stats import Interval
from mechreward.tasks import Problem

LEAST = 0.05
FEW = 5  # matched sets that come first, to see whether more are needed


def other_rankings(
    model: Any,
    problems: Sequence[Problem],
    effect: Effect,
    sets: Mapping[str, Sequence[NeuronSet]],
    acts: Activations,
    about: dict[str, Any],
    what: str | None = None,
    ops: Sequence[str] = ("zero",),
) -> list[Row]:
    """R4, other rankings: the same ablations (`ops`: zero, the paper's) of sets of other rankings,
    on the problems of the effect.

    `accuracy` of each, and `gap`: accuracy without that set minus accuracy without the value
    neurons, so that above 0 the value neurons matter more; of several draws
    (`matched_displacement`) their mean. The damage meter beside it.

    Raises:
        MechRewardError: other problems than the effect's.
    """
    ids, n = np.array(effect.problems), len(effect.problems)
    require(
        [one.id for one in problems] == ids.tolist(),
        "the effect was measured on other problems than these.",
    )
    jobs = [(op, arm, one) for op in ops for arm, each in sets.items() for one in each]
    edits = [(ABLATIONS[op](one, acts, about["seed"]).edit(),) for op, _, one in jobs]
    runs = both_ways(model, problems, edits, about["seed"], what=what)
    rows = []
    for op in ops:
        (own,) = effect.draws("value", op)
        for arm, each in sets.items():
            here = runs[[i for i, (o, a, _) in enumerate(jobs) if (o, a) == (op, arm)]]
            found = here.reward
            shared = float(
                np.mean([len(set(one.indices) & set(effect.neurons.indices)) for one in each])
            )
            detail: dict[str, Any] = {"op": op, "neurons": len(each[0]), "shared": shared}
            gap = stats.paired_difference(
                np.mean(found, axis=0), own.outcomes, ids, seed=about["seed"]
            )
            several = {"sets": len(each)} if len(each) > 1 else {}
            damage = here.damage().items()
            rows += rows_from(
                about, [(arm, key, bare(value, n), detail | several) for key, value in damage]
            )
            if len(each) == 1:
                accuracy = stats.proportion(int(found[0].sum()), n)
                rows += rows_from(about, [(arm, "accuracy", accuracy, detail)])
                rows += rows_from(
                    about,
                    [(arm, "gap", gap, detail | {"p": stats.mcnemar(own.outcomes, found[0])})],
                )
                continue
            accuracy = stats.cluster_bootstrap(
                np.mean, np.mean(found, axis=0), ids, seed=about["seed"]
            )
            rows += rows_from(about, [(arm, "accuracy", accuracy, detail | {"sets": len(each)})])
            rows += rows_from(about, [(arm, "gap", gap, detail | {"sets": len(each)})])
    return rows


def elsewhere(
    model: Any,
    others: Mapping[str, Sequence[Problem]],
    effect: Effect,
    acts: Activations,
    about: dict[str, Any],
    what: str | None = None,
    ops: Sequence[str] = ("zero",),
) -> list[Row]:
    """R4, side effects: accuracy on other tasks under the same ablations (`ops`), beside the first
    `FEW` matched sets, with the damage meter; where the set changes accuracy (McNemar, p <= `SEEN`,
    not corrected), beside all of them.

    `others` by task. A task of which the model solves less than `LEAST` has a baseline row alone:
    it has nothing to lose (our choice).
    """
    rows = []
    for name, problems in others.items():
        n, ids = len(problems), np.array([problem.id for problem in problems])
        base = both_ways(model, problems, [()], about["seed"])[0].reward
        detail: dict[str, Any] = {"on": name}
        rows += rows_from(
            about,
            [("baseline", "accuracy_elsewhere", stats.proportion(int(base.sum()), n), detail)],
        )
        for op in ops if base.mean() >= LEAST else ():
            drawn = [
                replace(effect.neurons, indices=arm.indices, scores=())
                for arm in effect.draws("matched", op)
            ]
            edits = [
                (ABLATIONS[op](one, acts, about["seed"]).edit(),)
                for one in (effect.neurons, *drawn)
            ]
            run = partial(
                both_ways, model, problems, seed=about["seed"], what=what and f"{what}: {name}"
            )
            answers = run(edits[: 1 + FEW])
            found = answers.reward
            if stats.mcnemar(base, found[0]) <= SEEN and len(drawn) > FEW:
                found = np.concatenate([found, run(edits[1 + FEW :]).reward])
            own, more = found[0], detail | {"op": op}
            change = stats.paired_difference(own, base, ids, seed=about["seed"])
            tested = more | {"p_mcnemar": stats.mcnemar(base, own)}
            others_right = over_draws([float(one.mean()) for one in found[1:]])
            rows += rows_from(
                about,
                [
                    ("value", "accuracy_elsewhere", stats.proportion(int(own.sum()), n), more),
                    ("value", "change_elsewhere", change, tested),
                    (
                        "matched",
                        "accuracy_elsewhere",
                        others_right,
                        more | {"sets": len(found) - 1},
                    ),
                    *(
                        ("value", key, bare(value, n), more)
                        for key, value in answers[0].damage().items()
                    ),
                ],
            )
    return rows


def repair(
    model: Any,
    train: Split,
    test: Split,
    kind: str,
    share: float,
    about: dict[str, Any],
    draws: int = 19,
) -> list[Row]:
    """R4, self-repair: how much of what zeroing takes from the linear read-out of V-hat of each
    later layer is undone by then (`causal.repair`), for the value set of every layer but the last,
    beside sets matched in rms. No layer is picked.

    Where the set stands above 0 and above each of the first `FEW` matched ones at any later layer,
    it is held against all `draws`, and the matched row has the `p_rank` of the set among them.

    `share` of the neurons of each layer, by the paper's probe.
    """
    everywhere = [Site.parse(name) for name in train.at_states]
    stream = [site for site in everywhere if site.kind == "resid_post"]
    probes = {
        site: ValueProbe("mc", "linear").fit(train.at_states[str(site)], train.values)
        for site in stream
    }
    rows = []

    def undone(one: NeuronSet, later: Mapping[Site, ValueProbe]) -> dict[Site, Interval]:
        return restored(model, test.runs, zero(one), later, seed=about["seed"])

    for site in (site for site in everywhere if site.kind == kind):
        later = {one: probe for one, probe in probes.items() if one.layer > site.layer}
        if not later:
            continue
        own = select(ValueProbe("mc", "mlp").fit(train.at_states[str(site)], train.values), share)
        tokens = record(model, train.runs, site, rows="tokens", what=None)[str(site)]
        others = [one.neurons for one in matched(own, tokens, draws, about["seed"])]

        mine, beside = undone(own, later), [undone(one, later) for one in others[:FEW]]
        if any(
            mine[at].low > 0 and mine[at].estimate > max(one[at].estimate for one in beside)
            for at in later
        ):
            beside += [undone(one, later) for one in others[FEW:]]
        here = about | {"site": str(site)}
        for at in later:
            each = [one[at].estimate for one in beside]
            detail: dict[str, Any] = {"op": "zero", "at": str(at), "neurons": len(own)}
            rows += rows_from(here, [("value", "restored", mine[at], detail)])
            detail |= {"sets": len(each)}
            if len(each) == len(others) and np.isfinite(each).all():
                detail |= {
                    "p_rank": stats.rank_among(mine[at].estimate, np.array(each), tail="high")[1]
                }
            rows += rows_from(here, [("matched", "restored", over_draws(each), detail)])
    return rows


def rivals(
    model: Any, train: Split, own: NeuronSet, draws: int = 5, seed: int = 0
) -> tuple[dict[str, list[NeuronSet]], Activations]:
    """R4's other rankings: as many neurons as `own` has, best by each, whatever they share with it.

    `next_token` (probe), `magnitude` (rms activation at states), `weight_magnitude`, `wanda`,
    `mean_difference` and `correlation` (no probe), `shuffled` (the paper's probe fitted to targets
    of other problems); and `draws` sets `matched_displacement`, matched one to one on what a mean
    ablation moves. Also the activations at every token.
    """
    site, fit = own.site, train.states(own.site)
    tokens = record(model, train.runs, site, rows="tokens", what=None)[str(site)]
    scores = {
        "next_token": next_token(tokens, train.runs),
        "magnitude": magnitude(fit),
        "weight_magnitude": weight_magnitude(model, site),
        "wanda": wanda(model, tokens),
        "mean_difference": mean_difference(fit),
        "correlation": correlation(fit),
        "shuffled": ValueProbe("mc", "mlp")
        .fit_examples(shuffled(fit, rng("shuffled targets", seed)))
        .scores_,
    }
    found = {
        arm: [NeuronSet.of(tokens, ranking(score)[: len(own)], arm)]
        for arm, score in scores.items()
    }
    moved = matched(
        own, tokens, draws, seed, on="displacement", change=lambda neurons: mean(neurons, tokens)
    )
    return found | {"matched_displacement": [one.neurons for one in moved]}, tokens
