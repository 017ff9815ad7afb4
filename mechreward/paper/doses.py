"""Doses (R14): more and more of a ranking zeroed and steered, and states patched into each other, up and down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import inf
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.causal.answers import Answers
from mechreward.causal.effect import CleanText
from mechreward.causal.intervene import zero
from mechreward.causal.push import Push, by_arm
from mechreward.causal.trials import at_kl, both_ways, kl, patched
from mechreward.paper.directions import BESIDE, CURVE
from mechreward.paper.split import SEEN, Split, bare, over_draws
from mechreward.probing.activations import Activations
from mechreward.probing.neurons import NeuronSet
from mechreward.results import Row, rows_from
from mechreward.rollouts.trajectory import Rollouts
from mechreward.stats import Interval
from mechreward.tasks import Problem

OPS = ("zero", "down", "up")
TEXTS = 12  # clean answers that the KL of matched damage is taken over
PATCHED = 3  # matched sets that are patched first, to see whether more are needed


def share_dose(
    model: Any,
    problems: Sequence[Problem],
    sets: Mapping[float, Sequence[Push]],
    about: dict[str, Any],
    what: str | None = None,
) -> list[Row]:
    """R14, dose over the share of neurons: zeroed, and steered by one unit up and down, on shared problems with common
    random numbers.

    `accuracy_zeroed` and its `change_zeroed` against the model as it is, and `contrast_at_share`, accuracy steered up
    minus down; the damage meter of each (`op` zero, down, up). The matched sets' rows are means over the first `CURVE`
    draws, between the lowest and the highest; where the set itself changes accuracy, or has a contrast (McNemar,
    p <= `SEEN`, not corrected), over all draws, with its `p_rank` among them.

    Args:
        sets: share -> the set's push, and then those of its matched sets (`paper.by_share`).
    """
    ids, n, seed = np.array([problem.id for problem in problems]), len(problems), about["seed"]

    def run(pushes: Sequence[Push]) -> Answers:
        """[push op problem]: zeroed, steered down, steered up."""
        edits = [(edit,) for one in pushes for edit in (zero(one.neurons).edit(), one.by(-1).edit(), one.by(1).edit())]
        return both_ways(model, problems, edits, seed, what=what).shaped(len(pushes), len(OPS), n)

    base = both_ways(model, problems, [()], seed)[0].reward
    rows = rows_from(about, [("baseline", "accuracy_zeroed", stats.proportion(int(base.sum()), n), {"share": 0.0})])
    for share, pushes in sets.items():
        found = run(pushes[: 1 + CURVE])
        gone, down, up = (found[0, op].reward for op in range(len(OPS)))
        detail: dict[str, Any] = {"share": share, "neurons": len(pushes[0].neurons)}
        p = {"change_zeroed": stats.mcnemar(base, gone), "contrast_at_share": stats.mcnemar(down, up)}
        change = stats.paired_difference(gone, base, ids, seed=seed)
        gap = stats.paired_difference(up, down, ids, seed=seed)
        meters = [(key, bare(v, n), op) for i, op in enumerate(OPS) for key, v in found[0, i].damage().items()]
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
            zeroed, gaps = others[:, 0].mean(1).tolist(), (others[:, 2] - others[:, 1]).mean(1).tolist()
            more = detail | {"sets": len(others), "error": float(np.mean([one.error for one in pushes[1:]]))}
            ranks = [{}, {}]
            if sure:
                low = stats.rank_among(gone.mean(), np.array(zeroed))[1]
                ranks = [{"p_rank": low}, {"p_rank": stats.rank_among(gap.estimate, np.array(gaps), tail="high")[1]}]
            beside = [("accuracy_zeroed", zeroed, ranks[0]), ("contrast_at_share", gaps, ranks[1])]
            rows += rows_from(about, [("matched", name, over_draws(v), more | rank) for name, v, rank in beside])
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
    """R14 at matched damage: accuracy steered up minus down, on shared problems with common random numbers, of each set
    and of the first `CURVE` draws of each control, made as much stronger as gives them the set's KL on `TEXTS`
    clean answers (`causal.trials.at_kl`); of all matched draws where the set has a contrast (McNemar, p <= `SEEN`).

    `contrast_at_kl` with the `kl` in nats per token of the set; a control's row is the mean over its draws, between the
    lowest and the highest, with the mean `factor` on the strength. Draws that do not come to that KL are left out, and
    `never` counts them: no row, if all do.

    Args:
        pushes, runs, tokens: as for `R14`; a set comes before its controls.
        strength: of the set, and of a control that does as much damage as it is.
    """
    ids, seed, text = np.array([problem.id for problem in problems]), about["seed"], CleanText(model, runs, TEXTS)
    rows, wanted, seen = [], 0.0, set()
    for arm, draws in by_arm(pushes).items():
        acts, own = tokens[str(draws[0].neurons.site)], arm in BESIDE.values()
        few = draws if BESIDE.get(arm) in seen else draws[:CURVE]
        damage = [kl(text, one, acts, strength) for one in few]
        if own:
            wanted = damage[0]
        factors = [at_kl(text, one, acts, has, wanted, strength) for one, has in zip(few, damage, strict=True)]
        able = [(one, factor) for one, factor in zip(few, factors, strict=True) if factor < inf]
        if not able:
            continue
        edits = [(one.by(sign * strength * factor).edit(),) for one, factor in able for sign in (-1, 1)]
        found = both_ways(model, problems, edits, seed, runs.policy, what).shaped(len(able), 2, -1).reward
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


def both_patched(
    model: Any,
    test: Split,
    sets: Mapping[str, tuple[NeuronSet, Sequence[NeuronSet]]],
    about: dict[str, Any],
    *,
    pairs: int = 30,
    k: int = 4,
    what: str | None = None,
) -> list[Row]:
    """R14, patching: a set's activations of a high-V state into a low-V one of the same problem and back, and between
    states of equal V, of one problem where there are two (`causal.trials.patched`).

    `patched` is what V-hat of the continuation, which is its accuracy, changes by; `patched_back` and `patched_ended`
    what the shares that turn back, and that end by themselves, change by; `from` and `into` in `detail`; bootstrap by
    problem. The arm `all neurons` is the whole site, `matched` the mean of the matched sets between the lowest and the
    highest: the first `PATCHED`, and all of them where the set's own change of V-hat has its interval beyond 0. No rows
    where there are not two pairs.

    Args:
        sets: arm -> the set and its matched sets.
    """
    rows, seed = [], about["seed"]
    for arm, (neurons, controls) in sets.items():
        acts = test.at_states[str(neurons.site)]
        for back, (source, goal) in ((False, ("high", "low")), (True, ("low", "high"))):
            title = what and f"{what}: {arm}, {source} into {goal}"
            put = partial(
                patched, model, test.runs, test.values, acts, neurons,
                pairs=pairs, k=k, seed=seed, back=back, what=title,
            )  # fmt: skip
            found = put(controls=controls[:PATCHED])
            if found is None or found.same < 2:
                continue
            pairs_in = slice(found.same)  # others are of two problems, and bring what is the problem's
            here, group = about | {"site": str(neurons.site)}, found.group[pairs_in]
            v = np.stack([found.low, found.few, found.whole, *found.matched])
            tables = {"patched": v, "patched_back": found.back, "patched_ended": found.ended}
            moved = _over((v[1] - v[0])[pairs_in], group, seed)
            if not moved.low <= 0 <= moved.high and (more := put(controls=controls[PATCHED:])):
                added = {"patched": more.matched, "patched_back": more.back[3:], "patched_ended": more.ended[3:]}
                tables = {name: np.concatenate([table, added[name]]) for name, table in tables.items()}
            detail: dict[str, Any] = {"from": source, "into": goal, "at": str(neurons.site), "k": k}
            detail |= {"pairs": found.same}
            for metric, seen in tables.items():
                own, whole, *others = (seen[1:, pairs_in] - seen[0, pairs_in]).astype(float)
                changes = [(arm, own)] + ([("all neurons", whole)] if arm == "value" else [])
                rows += rows_from(here, [(name, metric, _over(one, group, seed), detail) for name, one in changes])
                if others:
                    spread = over_draws([float(one.mean()) for one in others])
                    name = "matched" if arm == "value" else f"matched_{arm}"
                    rows += rows_from(here, [(name, metric, spread, detail | {"sets": len(others)})])
            if not back:
                equal = _over(found.after - found.before, found.like_group, seed)
                like = detail | {"from": "equal", "into": "equal", "pairs": len(found.before)}
                rows += rows_from(here, [(arm, "patched", equal, like)])
    return rows


def _over(changes: np.ndarray, group: np.ndarray, seed: int) -> Interval:
    return stats.cluster_bootstrap(np.mean, changes, group, seed=seed)
