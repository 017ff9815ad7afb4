"""A value set chosen as the experiments choose it, without a run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mechreward.base.errors import of_kind, one_of, whole
from mechreward.base.progress import under
from mechreward.experiments.layers import choose
from mechreward.experiments.layers import layers as by_layer
from mechreward.experiments.split import Split, observe, shared
from mechreward.experiments.td_error import best_dopamine
from mechreward.models.policy import Policy
from mechreward.models.site import all_sites
from mechreward.probing.neurons import NeuronSet, select
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.probing.recipe import PROBES
from mechreward.rollouts.sample import sample
from mechreward.rollouts.value import estimate
from mechreward.tasks import Task

KINDS = ("resid_post", "mlp")


def find(
    model: Any,
    task: Task,
    kind: str = "resid_post",
    *,
    of: str = "value",
    seed: int = 0,
    train: int = 80,
    validation: int = 30,
    k: int = 16,
    layers: Sequence[int] | None = None,
    policy: Policy | None = None,
    progress: bool | str = True,
) -> NeuronSet:
    """Value or dopamine neurons of one kind: the validation split chooses the layer (and R3 the
    share of value neurons), the paper's probe on the training split chooses the neurons. Test
    problems are never seen.

    Args:
        kind: "resid_post" (default) or "mlp".
        of: what they carry, "value" (default) or "dopamine".
        train, validation: problems of each split (default 80 and 30).
        k: continuations of each state (default 16).
        layers: those to choose from (default all).
        policy: how answers are drawn (default the model's own distribution).
        progress: whether bars are shown, or their title (default True).

    Raises:
        MechRewardError: an unknown kind or `of`, a size that is no whole number from 1 on, or
            nothing to learn (all answers right, or all wrong).
    """
    of_kind("task", task, Task, "tasks.get makes one of a name")
    one_of("kind of neuron", kind, KINDS)
    one_of("what neurons carry", of, PROBES)
    seed = whole("seed", seed)
    for name, size in {"train": train, "validation": validation, "k": k}.items():
        whole(name, size, 1)
    sites = all_sites(model, (kind,), layers)

    def split(name: str, number: int) -> Split:
        problems = task.problems(name, number, seed)
        title = under(progress, name)
        runs = sample(model, problems, seed=seed, policy=policy, progress=title)
        values = estimate(model, runs, k=k, seed=seed, progress=under(title, "values"))
        return observe(model, runs, values, sites)

    fit = split("train", train)
    if of == "dopamine":
        site = best_dopamine(fit, split("validation", validation), sites, kind)
        return select(DopamineProbe().fit(fit.over_steps[str(site)], fit.values))
    setting = shared("R3", str(model.cfg.model_name), task.name, "", seed)
    rows = by_layer(fit, split("validation", validation), sites, setting)
    site, share = choose(rows, kind)
    probe = ValueProbe("mc", "mlp").fit(fit.at_states[str(site)], fit.values)
    return select(probe, share)
