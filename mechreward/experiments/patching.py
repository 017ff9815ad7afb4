"""Both directions: states patched into each other (R14)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.causal.trials import patched
from mechreward.experiments.rows import Row, rows_from
from mechreward.experiments.split import Split, over_draws
from mechreward.probing.neurons import NeuronSet
from mechreward.stats import Interval

PATCHED = 3  # matched sets that are patched first, to see whether more are needed


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
    """R14, patching: a set's activations of a high-V state into a low-V one of the same problem and
    back, and between states of equal V, of one problem where there are two
    (`causal.trials.patched`).

    `patched` is what V-hat of the continuation, which is its accuracy, changes by; `patched_back`
    and `patched_ended` what the shares that turn back, and that end by themselves, change by;
    `from` and `into` in `detail`; bootstrap by problem. The arm `all neurons` is the whole site,
    `matched` the mean of the matched sets between the lowest and the highest: the first `PATCHED`,
    and all of them where the set's own change of V-hat has its interval beyond 0. No rows where
    there are not two pairs.

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
            pairs_in = slice(
                found.same
            )  # others are of two problems, and bring what is the problem's
            here, group = about | {"site": str(neurons.site)}, found.group[pairs_in]
            v = np.stack([found.low, found.few, found.whole, *found.matched])
            tables = {"patched": v, "patched_back": found.back, "patched_ended": found.ended}
            moved = _over((v[1] - v[0])[pairs_in], group, seed)
            if not moved.low <= 0 <= moved.high and (more := put(controls=controls[PATCHED:])):
                added = {
                    "patched": more.matched,
                    "patched_back": more.back[3:],
                    "patched_ended": more.ended[3:],
                }
                tables = {
                    name: np.concatenate([table, added[name]]) for name, table in tables.items()
                }
            detail: dict[str, Any] = {"from": source, "into": goal, "at": str(neurons.site), "k": k}
            detail |= {"pairs": found.same}
            for metric, seen in tables.items():
                own, whole, *others = (seen[1:, pairs_in] - seen[0, pairs_in]).astype(float)
                changes = [(arm, own)] + ([("all neurons", whole)] if arm == "value" else [])
                rows += rows_from(
                    here, [(name, metric, _over(one, group, seed), detail) for name, one in changes]
                )
                if others:
                    spread = over_draws([float(one.mean()) for one in others])
                    name = "matched" if arm == "value" else f"matched_{arm}"
                    rows += rows_from(
                        here, [(name, metric, spread, detail | {"sets": len(others)})]
                    )
            if not back:
                equal = _over(found.after - found.before, found.like_group, seed)
                like = detail | {"from": "equal", "into": "equal", "pairs": len(found.before)}
                rows += rows_from(here, [(arm, "patched", equal, like)])
    return rows


def _over(changes: np.ndarray, group: np.ndarray, seed: int) -> Interval:
    return stats.cluster_bootstrap(np.mean, changes, group, seed=seed)
