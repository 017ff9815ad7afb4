"""Both directions: states patched into each other (R14)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mechreward import stats
from mechreward.base.progress import under
from mechreward.causal.trials import Patched, patched
from mechreward.experiments.rows import Detail, Row, Setting, at_site, over_draws, row_of
from mechreward.experiments.split import Split
from mechreward.probing.neurons import NeuronSet
from mechreward.stats import Interval

PATCHED = 3  # matched sets that are patched first, to see whether more are needed
MATCHED = 3  # where matched sets begin in a table: behind the state itself, the set, the whole site


def both_patched(
    model: Any,
    test: Split,
    sets: Mapping[str, tuple[NeuronSet, Sequence[NeuronSet]]],
    setting: Setting,
    *,
    pairs: int = 30,
    k: int = 4,
    progress: bool | str = False,
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
        pairs: pairs of states at most (default 30).
        k: continuations of each (default 4).
        progress: whether bars are shown, or their title (default False).
    """
    seed = setting["seed"]

    def put(
        neurons: NeuronSet,
        controls: Sequence[NeuronSet],
        back: bool,
        title: bool | str,
    ) -> Patched | None:
        return patched(
            model, test.runs, test.values, test.at_states[str(neurons.site)], neurons, controls,
            pairs=pairs, k=k, seed=seed, back=back, progress=title,
        )  # fmt: skip

    rows = []
    for arm, (neurons, controls) in sets.items():
        here = at_site(setting, neurons.site)
        for back, source, goal in ((False, "high", "low"), (True, "low", "high")):
            title = under(progress, f"{arm}, {source} into {goal}")
            trial = put(neurons, controls[:PATCHED], back, title)
            if trial is None or trial.same < 2:
                continue
            tables = _tables(trial)
            moved = _over_problems(_changes(tables["patched"], trial)[0], trial, seed)
            if not moved.low <= 0 <= moved.high and len(controls) > PATCHED:
                tables = _joined(tables, put(neurons, controls[PATCHED:], back, title))
            detail = Detail({"from": source, "into": goal, "at": str(neurons.site), "k": k})
            detail["pairs"] = trial.same
            for metric, table in tables.items():
                rows += _rows(here, arm, metric, _changes(table, trial), trial, detail)
            if not back:
                rows.append(_equal_row(here, arm, trial, detail))
    return rows


def _tables(trial: Patched) -> dict[str, Float[np.ndarray, "arm pair"]]:
    """By metric, what continuations come to: of the state itself, with the set, with the whole
    site, and with each matched set."""
    value = np.stack([trial.low, trial.few, trial.whole, *trial.matched])
    return {"patched": value, "patched_back": trial.back, "patched_ended": trial.ended}


def _joined(
    tables: Mapping[str, np.ndarray],
    more: Patched | None,
) -> dict[str, Float[np.ndarray, "arm pair"]]:
    """Tables with the matched sets of a second trial behind those of the first."""
    if more is None:
        return dict(tables)
    joined = {}
    for metric, table in _tables(more).items():
        joined[metric] = np.concatenate([tables[metric], table[MATCHED:]])
    return joined


def _changes(table: np.ndarray, trial: Patched) -> Float[np.ndarray, "set pair"]:
    """What each set changes, over pairs of one problem: others bring what is the problem's."""
    alike = table[:, : trial.same]
    return (alike[1:] - alike[0]).astype(float)


def _rows(
    setting: Setting,
    arm: str,
    metric: str,
    changes: np.ndarray,
    trial: Patched,
    detail: Detail,
) -> list[Row]:
    """One metric in one direction: the set, the whole site once, and the matched sets."""
    seed = setting["seed"]
    value, whole, *controls = changes
    rows = [row_of(setting, arm, metric, _over_problems(value, trial, seed), detail)]
    if arm == "value":
        interval = _over_problems(whole, trial, seed)
        rows.append(row_of(setting, "all neurons", metric, interval, detail))
    if controls:
        name = "matched" if arm == "value" else f"matched_{arm}"
        spread = over_draws([float(control.mean()) for control in controls])
        beside = detail | Detail(sets=len(controls))
        rows.append(row_of(setting, name, metric, spread, beside))
    return rows


def _equal_row(setting: Setting, arm: str, trial: Patched, detail: Detail) -> Row:
    """The set patched between states of equal V."""
    changes = trial.after - trial.before
    interval = stats.cluster_bootstrap(
        np.mean, changes, trial.like_group, seed=setting["seed"], span=(-1, 1)
    )
    equal = detail | Detail({"from": "equal", "into": "equal", "pairs": len(trial.before)})
    return row_of(setting, arm, "patched", interval, equal)


def _over_problems(changes: np.ndarray, trial: Patched, seed: int) -> Interval:
    """Mean over pairs of one problem."""
    group = trial.group[: trial.same]
    return stats.cluster_bootstrap(np.mean, changes, group, seed=seed, span=(-1, 1))
