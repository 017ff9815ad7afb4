"""Value neurons feed dopamine neurons: R10."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.base.errors import require
from mechreward.causal.controls import matched
from mechreward.causal.intervene import zero
from mechreward.experiments.rows import Detail, Row, Setting, row_of
from mechreward.experiments.split import Split
from mechreward.models.site import Site
from mechreward.probing.activations import Recording, record
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
    """R10's arms: the value neurons of every earlier layer of the dopamine neurons' kind, zeroed
    together; `matched`, as many neurons of equal rms in each of those layers; and `value_apart`, in
    the residual stream, the value neurons without the coordinates that are dopamine neurons.

    Args:
        sites: where value neurons may be; only those of an earlier layer are used.
        draws: of the matched sets (default 19).
        top: share of each layer's neurons (default .2, the paper's).

    Returns:
        By arm, draws of it, each the sets that are zeroed together.

    Raises:
        MechRewardError: no earlier layer, or too few other neurons.
    """
    later = dopamine.site
    below = []
    for site in sites:
        if site.kind == later.kind and site.layer < later.layer:
            below.append(site)
    require(len(below) > 0, f"no layer lies below the dopamine neurons of {later}.")
    tokens = record(model, train.runs, below, rows="tokens", progress=False)
    value = []
    controls = []
    for site in below:
        probe = ValueProbe("mc", "mlp").fit(train.at_states[str(site)], train.values)
        neurons = select(probe, top)
        value.append(neurons)
        controls.append(matched(neurons, tokens[str(site)], draws, seed))
    arms = {"value": [value], "matched": []}
    for draw in range(draws):
        arms["matched"].append([drawn[draw].neurons for drawn in controls])
    if later.kind != "mlp":
        arms["value_apart"] = [_apart(value, dopamine, tokens)]
    return arms


def dependence(
    model: Any,
    runs: Rollouts,
    values: Values,
    fit: Examples,
    dopamine: NeuronSet,
    zeroed: Mapping[str, Sequence[Sequence[NeuronSet]]],
    setting: Setting,
) -> list[Row]:
    """R10: zero value neurons of earlier layers while rollouts are read again, and read delta off
    the later dopamine neurons (paper, Appendix H).

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
    _check(zeroed, dopamine)
    index = np.array(dopamine.indices)
    probe = DopamineProbe(shape="linear").fit_examples(restrict(fit, index))

    def read(sets: Sequence[NeuronSet]) -> tuple[np.ndarray, Examples]:
        """The read-out [step] while these sets are zeroed, and the steps."""
        hooks = []
        for neurons in sets:
            hooks += zero(neurons).check(model).fwd_hooks()
        acts = record(model, runs, dopamine.site, rows="steps", hooks=hooks, progress=False)
        data = steps(acts[dopamine.site], values)
        return probe.predict(data.x[:, index]), data

    clean, held = read(())
    score = stats.cluster_bootstrap(rho, [clean, held.y], held.group, seed=setting["seed"])
    detail = Detail(neurons=len(dopamine), steps=len(held))
    rows = [row_of(setting, "baseline", "spearman", score, detail)]
    test = Reading(clean, held.y, held.group, setting)
    reads: dict[str, list[np.ndarray]] = {}
    for arm, draws in zeroed.items():
        reads[arm] = []
        for draw, sets in enumerate(draws):
            after, _ = read(sets)
            reads[arm].append(after)
            detail = _zeroed(sets, draw, dopamine)
            rows += test.rows(arm, after, detail)
    matched_reads = np.stack(reads["matched"], 1)
    rows.append(test.beyond(reads["value"][0], matched_reads))
    return rows


@dataclass(frozen=True)
class Reading:
    """What is read of the same steps under every arm.

    Attributes:
        clean: `[step]`, the read-out of the model as it is.
        y: `[step]`, delta.
        group: `[step]`, the problem.
    """

    clean: np.ndarray
    y: np.ndarray
    group: np.ndarray
    setting: Setting

    def rows(self, arm: str, after: np.ndarray, detail: Detail) -> list[Row]:
        """Spearman of the read-out under one arm, and what it changes by."""
        score = self._interval(rho, [after, self.y])
        lost = self._interval(rho_change, [after, self.clean, self.y])
        return [
            row_of(self.setting, arm, "spearman", score, detail),
            row_of(self.setting, arm, "change", lost, detail),
        ]

    def beyond(self, value: np.ndarray, others: np.ndarray) -> Row:
        """The value sets against the matched ones, `others` [step draw]."""
        more = self._interval(rho_beyond, [value, others, self.y])
        null = np.array([rho(column, self.y) for column in others.T])
        rank, p = stats.rank_among(rho(value, self.y), null)
        detail = Detail(rank=rank, p_rank=p, draws=others.shape[1])
        return row_of(self.setting, "value", "beyond_matched", more, detail)

    def _interval(self, statistic: Any, columns: list[np.ndarray]) -> stats.Interval:
        seed = self.setting["seed"]
        return stats.cluster_bootstrap(statistic, columns, self.group, draws=300, seed=seed)


def rho(read: np.ndarray, y: np.ndarray) -> float:
    """Spearman, 0 for a constant read-out."""
    return float(np.nan_to_num(stats.spearman(read, y)))


def rho_change(after: np.ndarray, before: np.ndarray, y: np.ndarray) -> float:
    """Spearman with `y` after a change minus that before it."""
    return rho(after, y) - rho(before, y)


def rho_beyond(own: np.ndarray, others: np.ndarray, y: np.ndarray) -> float:
    """Spearman of one read-out [row] minus the mean of that of `others` [row draw]."""
    beside = np.nan_to_num(stats.spearmans(others, y))
    return rho(own, y) - float(beside.mean())


def _check(zeroed: Mapping[str, Sequence[Sequence[NeuronSet]]], dopamine: NeuronSet) -> None:
    """Raise MechRewardError for arms that R10 cannot be read from."""
    require(
        {"value", "matched"} <= set(zeroed),
        f"R10 needs the arms value and matched; given: {', '.join(zeroed)}.",
    )
    later = dopamine.site
    for draws in zeroed.values():
        for sets in draws:
            for neurons in sets:
                require(
                    neurons.site.layer < later.layer,
                    f"{neurons.site} is no earlier layer than the dopamine neurons' {later}.",
                )


def _apart(value: Sequence[NeuronSet], dopamine: NeuronSet, tokens: Recording) -> list[NeuronSet]:
    """The value sets without coordinates that are dopamine neurons; none where nothing is left."""
    sets = []
    for neurons in value:
        indices = set(neurons.indices) - set(dopamine.indices)
        if indices:
            acts = tokens[str(neurons.site)]
            sets.append(NeuronSet.of(acts, indices, f"{neurons.how}, not dopamine"))
    return sets


def _zeroed(sets: Sequence[NeuronSet], draw: int, dopamine: NeuronSet) -> Detail:
    """How much one draw zeroes, and how many coordinates of the residual stream it shares with the
    dopamine set."""
    same = 0
    for neurons in sets:
        if neurons.site.kind != "mlp":
            same += len(set(neurons.indices) & set(dopamine.indices))
    return Detail(op="zero", draw=draw, zeroed=sum(map(len, sets)), layers=len(sets), shared=same)
