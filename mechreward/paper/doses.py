"""Doses (R14): more and more of a ranking zeroed and steered, and states patched into each other, up and down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.causal.answers import Answers
from mechreward.causal.intervene import zero
from mechreward.causal.push import Push
from mechreward.causal.trials import both_ways, patched
from mechreward.paper.directions import CURVE, RANKED
from mechreward.paper.split import Split, bare, over_draws
from mechreward.probing.neurons import NeuronSet
from mechreward.results import Row, rows_from
from mechreward.tasks import Problem

OPS = ("zero", "down", "up")


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
    p <= `RANKED`, not corrected), over all draws, with its `p_rank` among them.

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
        sure = min(p.values()) <= RANKED and len(pushes) > len(found.reward)
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
    states of equal V (`causal.trials.patched`).

    `patched` is what V-hat changes by, with `from` and `into` in `detail`; bootstrap by problem. The arm
    `all neurons` is the whole site, `matched` the mean of the matched sets between the lowest and the highest. No rows
    where there are not two pairs.

    Args:
        sets: arm -> the set and its matched sets.
    """
    rows, seed = [], about["seed"]
    for arm, (neurons, controls) in sets.items():
        acts = test.at_states[str(neurons.site)]
        for back, (source, goal) in ((False, ("high", "low")), (True, ("low", "high"))):
            found = patched(
                model, test.runs, test.values, acts, neurons, controls,
                pairs=pairs, k=k, seed=seed, back=back, what=what and f"{what}: {arm}, {source} into {goal}",
            )  # fmt: skip
            if found is None:
                continue
            detail: dict[str, Any] = {"from": source, "into": goal, "at": str(neurons.site), "k": k}
            detail |= {"pairs": len(found.low), "same_problem": found.same}
            own, whole = (
                stats.cluster_bootstrap(np.mean, one - found.low, found.group, seed=seed)
                for one in (found.few, found.whole)
            )
            here = about | {"site": str(neurons.site)}
            rows += rows_from(here, [(arm, "patched", own, detail)])
            if arm == "value":
                rows += rows_from(here, [("all neurons", "patched", whole, detail)])
            if len(controls):
                spread = over_draws((found.matched - found.low).mean(1).tolist())
                name = "matched" if arm == "value" else f"matched_{arm}"
                rows += rows_from(here, [(name, "patched", spread, detail | {"sets": len(controls)})])
            if not back:
                equal = stats.cluster_bootstrap(np.mean, found.after - found.before, found.like_group, seed=seed)
                like = detail | {"from": "equal", "into": "equal", "pairs": len(found.before)}
                rows += rows_from(here, [(arm, "patched", equal, like)])
    return rows
