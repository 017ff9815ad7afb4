"""Value neurons feed dopamine neurons: R10."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.base.errors import require
from mechreward.causal.controls import matched
from mechreward.causal.intervene import zero
from mechreward.experiments.rows import Row, rows_from
from mechreward.experiments.split import Split
from mechreward.models.site import Site
from mechreward.probing.activations import record
from mechreward.probing.neurons import NeuronSet, select
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.probing.pruning import restrict
from mechreward.probing.targets import Examples, steps
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import Values


def zeroed_below(
    model: Any,
    train: Split,
    dopamine: NeuronSet,
    sites: Sequence[Site],
    draws: int = 19,
    seed: int = 0,
    top: float = 0.2,
) -> dict[str, list[list[NeuronSet]]]:
    """R10's arms: the `top` value neurons of every earlier layer of the dopamine neurons' kind,
    zeroed together (paper: 20%); `matched`, as many neurons of equal rms in each of those layers,
    drawn `draws` times; and `value_apart`, in the residual stream, the value neurons without the
    coordinates that are dopamine neurons.

    Raises:
        MechRewardError: no earlier layer, or too few other neurons.
    """
    below = [
        site
        for site in sites
        if site.kind == dopamine.site.kind and site.layer < dopamine.site.layer
    ]
    require(len(below) > 0, f"no layer lies below the dopamine neurons of {dopamine.site}.")
    tokens = record(model, train.runs, below, rows="tokens", what=None)
    own = [
        select(ValueProbe("mc", "mlp").fit(train.at_states[str(site)], train.values), top)
        for site in below
    ]
    others = [matched(one, tokens[str(one.site)], draws, seed) for one in own]
    arms = {
        "value": [own],
        "matched": [[sets[draw].neurons for sets in others] for draw in range(draws)],
    }
    if dopamine.site.kind != "mlp":
        apart = [
            NeuronSet.of(
                tokens[str(one.site)],
                set(one.indices) - set(dopamine.indices),
                f"{one.how}, not dopamine",
            )
            for one in own
        ]
        arms["value_apart"] = [[one for one in apart if len(one)]]
    return arms


def R10(
    model: Any,
    runs: Rollouts,
    values: Values,
    fit: Examples,
    dopamine: NeuronSet,
    zeroed: Mapping[str, Sequence[Sequence[NeuronSet]]],
    about: dict[str, Any],
) -> list[Row]:
    """Value -> dopamine: zero value neurons of earlier layers while rollouts are read again, and
    read delta off the later dopamine neurons (paper, Appendix H).

    The read-out is a linear probe on the dopamine set, fitted to clean steps (`fit`) and never
    again: what it loses is what zeroing took from those neurons. `change` is its Spearman with
    delta under zeroing minus that without, over the same steps, bootstrapped by problem; where
    zeroing leaves the read-out constant, its Spearman counts as 0. `beyond_matched` is that of the
    value sets minus the mean of the matched ones.

    Args:
        runs, values: of the test split, replayed under every arm.
        dopamine: the set that is read, at a later site.
        zeroed: arm -> draws, each the sets that are zeroed together, one an earlier site; an arm
            `value` and an arm `matched` are needed.

    Raises:
        MechRewardError: no `value` or no `matched` arm, or a zeroed set that is not in an earlier
        layer.
    """
    require(
        {"value", "matched"} <= set(zeroed),
        f"R10 needs the arms value and matched; given: {', '.join(zeroed)}.",
    )
    for draws in zeroed.values():
        for one in (one for sets in draws for one in sets):
            early = one.site.layer < dopamine.site.layer
            require(
                early, f"{one.site} is no earlier layer than the dopamine neurons' {dopamine.site}."
            )
    index = np.array(dopamine.indices)
    probe = DopamineProbe(shape="linear").fit_examples(restrict(fit, index))

    def read(sets: Sequence[NeuronSet]) -> tuple[np.ndarray, Examples]:
        hooks = [pair for one in sets for pair in zero(one).check(model).fwd_hooks()]
        data = steps(
            record(model, runs, dopamine.site, rows="steps", hooks=hooks, what=None)[dopamine.site],
            values,
        )
        return probe.predict(data.x[:, index]), data

    clean, held = read(())
    score = stats.cluster_bootstrap(rho, [clean, held.y], held.group, seed=about["seed"])
    rows = rows_from(
        about, [("baseline", "spearman", score, {"neurons": len(dopamine), "steps": len(held)})]
    )
    reads = {arm: [read(sets)[0] for sets in draws] for arm, draws in zeroed.items()}

    for arm, found in reads.items():
        for draw, after in enumerate(found):
            sets = zeroed[arm][draw]
            same = sum(
                len(set(one.indices) & set(dopamine.indices))
                for one in sets
                if one.site.kind != "mlp"
            )
            detail = {
                "op": "zero",
                "draw": draw,
                "zeroed": sum(map(len, sets)),
                "layers": len(sets),
                "shared": same,
            }
            score = stats.cluster_bootstrap(
                rho, [after, held.y], held.group, draws=300, seed=about["seed"]
            )
            lost = stats.cluster_bootstrap(
                rho_change, [after, clean, held.y], held.group, draws=300, seed=about["seed"]
            )
            rows += rows_from(
                about, [(arm, "spearman", score, detail), (arm, "change", lost, detail)]
            )
    own, others = reads["value"][0], np.stack(reads["matched"], 1)

    more = stats.cluster_bootstrap(
        rho_beyond, [own, others, held.y], held.group, draws=300, seed=about["seed"]
    )
    rank, p = stats.rank_among(
        rho(own, held.y), np.array([rho(column, held.y) for column in others.T])
    )
    detail = {"rank": rank, "p_rank": p, "draws": others.shape[1]}
    return rows + rows_from(about, [("value", "beyond_matched", more, detail)])


def rho(read: np.ndarray, y: np.ndarray) -> float:
    """Spearman, 0 for a constant read-out."""
    return float(np.nan_to_num(stats.spearman(read, y)))


def rho_change(after: np.ndarray, before: np.ndarray, y: np.ndarray) -> float:
    """Spearman with `y` after a change minus that before it."""
    return rho(after, y) - rho(before, y)


def rho_beyond(own: np.ndarray, others: np.ndarray, y: np.ndarray) -> float:
    """Spearman of one read-out [row] minus the mean of that of `others` [row draw]."""
    return rho(own, y) - float(np.mean([rho(column, y) for column in others.T]))
