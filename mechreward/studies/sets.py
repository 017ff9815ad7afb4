"""What several experiments of a study share: the choice of layers, the sets, fitted probes."""

from __future__ import annotations

from typing import Any

from mechreward import experiments
from mechreward.experiments.choice import KINDS
from mechreward.experiments.rows import Row, Setting
from mechreward.models.site import Site
from mechreward.probing.activations import Activations, record
from mechreward.probing.neurons import NeuronSet, select
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.studies.study import Study


def grid(study: Study) -> list[Row]:
    """R3 on validation."""

    def make() -> list[Row]:
        train, validation, _ = study.splits.values()
        return experiments.layers(train, validation, study.sites, setting_of(study, "R3", ""))

    return study.rows("R3", make)


def chosen(study: Study) -> dict[str, tuple[Site, float]]:
    """Layer and share of each kind of neuron, from validation."""
    rows = grid(study)
    return {kind: experiments.choose(rows, kind) for kind in KINDS}


def value_set(study: Study, kind: str) -> NeuronSet:
    """The value neurons of one kind, kept."""

    def make() -> NeuronSet:
        site, share = chosen(study)[kind]
        return select(fitted(study, site), share)

    return study.neurons(f"value-{kind}", make)


def dopamine_set(study: Study, kind: str) -> NeuronSet:
    """The dopamine neurons of one kind, kept with the activations they were found in."""

    def make() -> NeuronSet:
        train, validation, _ = study.splits.values()
        site = experiments.best_dopamine(train, validation, study.sites, kind)
        acts = study.kept(
            f"train.{site}.steps.activations.safetensors",
            Activations,
            lambda: study.splits["train"].over_steps[str(site)],
        )
        return select(DopamineProbe().fit(acts, train.values))

    return study.neurons(f"dopamine-{kind}", make)


def fitted(study: Study, site: Site, target: Any = "mc") -> ValueProbe:
    """The paper's probe on the training split; its activations are kept for whoever wants to
    look."""
    acts = study.kept(
        f"train.{site}.activations.safetensors",
        Activations,
        lambda: study.splits["train"].at_states[str(site)],
    )
    return ValueProbe(target, "mlp").fit(acts, study.splits["train"].values)


def setting_of(study: Study, experiment: str, site: Any) -> Setting:
    """What the rows of an experiment on this study have in common."""
    return Setting(**study.about(experiment, site))


def tokens_of(study: Study, name: str, site: Site) -> Activations:
    """Activations at every token of a split's rollouts."""
    return record(study.model, study.splits[name].runs, site, rows="tokens", progress=False)[site]
