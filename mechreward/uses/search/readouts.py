"""Neurons and probes as scorers: read in the generating pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mechreward.base.errors import MechRewardError, one_of, require
from mechreward.base.files import digest
from mechreward.models.capture import Read
from mechreward.models.identity import ModelId
from mechreward.models.site import Site
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.uses.search.scorers import Draft, Scorer

ROWS = ("states", "steps")


@dataclass(frozen=True, eq=False)
class Readout(Scorer):
    """Some numbers of one site, read while the step is generated.

    Attributes
    ----------
    name : str
        How results call it.
    site : Site
        Where it reads.
    rows : {"states", "steps"}
        The step's last token, or the mean over its tokens.
    read : function
        Score [row] of activations [row k].
    model_id : ModelId
        The model that it was fitted to.
    columns : tuple of int or None, default None
        The neurons that are read; None: all.
    difference : bool, default False
        Whether the score is the change of the read-out since the state before the step: the value
        of a prefix less that of the one before (as IPVRM, arXiv 2604.13197, with our probe).
    bounded : bool, default False
        Whether scores are probabilities.
    trained : int, default 0
        Generated tokens that its making cost.
    mark : str, default ""
        Tells read-outs of one name apart where finished problems are kept.
    """

    name: str
    site: Site
    rows: str
    read: Callable[[Float[torch.Tensor, "row k"]], Float[np.ndarray, " row"]] = field(repr=False)
    model_id: ModelId = field(repr=False)
    columns: tuple[int, ...] | None = field(default=None, repr=False)
    difference: bool = False
    bounded: bool = False
    trained: int = 0
    mark: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        one_of("kind of row a read-out reads", self.rows, ROWS)
        require(
            not self.difference or self.rows == "states",
            "a difference of read-outs is one of states: a mean over a step has none before it.",
        )

    def reads(self) -> Mapping[Site, Read | None]:
        if self.columns is None:
            return {self.site: None}
        columns = torch.tensor(self.columns)
        return {self.site: lambda x: x.index_select(1, columns.to(x.device))}

    def __call__(self, draft: Draft) -> list[float]:
        if draft.caught is None:
            raise RuntimeError("nothing was read")
        x = draft.caught.x[self.site]
        if self.rows == "steps":
            # Row 0 is the last token before this continuation.
            means = [x[span.start + 1 : span.stop + 1].mean(0) for span in draft.spans]
            return _listed(self.read(torch.stack(means)))
        after = self.read(torch.stack([x[span.stop] for span in draft.spans]))
        if not self.difference:
            return _listed(after)
        before = self.read(torch.stack([x[span.start] for span in draft.spans]))
        return _listed(np.asarray(after) - np.asarray(before))


def of_neurons(neurons: NeuronSet, name: str | None = None, rows: str | None = None) -> Readout:
    """The mean of a set's neurons, each over its standard deviation with the sign that goes with a
    higher value (our choice: no fit beyond the set's own).

    Parameters
    ----------
    neurons : NeuronSet
        Of the model that searches, with a direction, as `select` gives it.
    name : str or None, default None
        How results call it; None: "value neurons" or "dopamine neurons", by its recipe.
    rows : {"states", "steps"} or None, default None
        What is read (`Readout`); None: as the recipe has it, and states without one.

    Raises
    ------
    MechRewardError
        A set that is empty, or has no direction.
    """
    require(len(neurons) > 0, "the set of neurons is empty: nothing can be read.")
    direction = torch.tensor(neurons.direction)
    require(
        len(direction) == len(neurons),
        "this set has no direction, so which way is up is not known: it was given by hand. Take "
        "one from select, or a fitted probe.",
    )
    alive = direction != 0
    require(bool(alive.any()), "all neurons of this set are constant: nothing can be read.")
    if rows is None:
        rows = neurons.recipe.rows if neurons.recipe else "states"
        rows = "states" if rows == "tokens" else rows
    kind = "dopamine neurons" if rows == "steps" else "value neurons"

    def read(x: Float[torch.Tensor, "row k"]) -> Float[np.ndarray, " row"]:
        return (x.double()[:, alive] / direction[alive]).mean(1).numpy()

    return Readout(
        name or kind,
        neurons.site,
        rows,
        read,
        neurons.model_id,
        columns=neurons.indices,
        mark=digest(repr(neurons.direction)),
    )


def of_probe(
    probe: ValueProbe | DopamineProbe,
    name: str | None = None,
    neurons: NeuronSet | None = None,
    difference: bool = False,
) -> Readout:
    """A fitted probe's prediction.

    Parameters
    ----------
    probe : ValueProbe or DopamineProbe
        Fitted to `Activations`; or to those of `neurons` alone (arrays [row k]).
    name : str or None, default None
        How results call it; None: "value probe" or "dopamine probe".
    neurons : NeuronSet or None, default None
        The neurons that the probe was fitted to; None: all of its site.
    difference : bool, default False
        Whether the change since the state before is the score (`Readout`).

    Raises
    ------
    MechRewardError
        A probe that is not fitted, or to bare arrays without `neurons`.
    """
    is_value = isinstance(probe, ValueProbe)
    require(hasattr(probe, "net_"), "this probe is not fitted yet: call fit first.")
    rows = "states" if is_value else "steps"
    name = name or ("value probe" if is_value else "dopamine probe")
    if neurons is not None:
        require(
            len(probe.scores_) == len(neurons),
            f"the probe reads {len(probe.scores_)} neurons; the set has {len(neurons)}.",
        )
        place = neurons.site, neurons.model_id, neurons.indices
    else:
        require(
            hasattr(probe, "site_"),
            "the probe was fitted to arrays, so its site is not known: fit it to activations, or "
            "give neurons=.",
        )
        place = probe.site_, probe.model_id_, None
    site, model_id, columns = place
    weights = [probe.mean_, probe.scale_, *probe.net_.parameters()]
    return Readout(
        name,
        site,
        rows,
        probe.predict,
        model_id,
        columns,
        difference,
        bounded=is_value,
        mark=digest(*(tensor.detach().cpu().numpy().tobytes() for tensor in weights)),
    )


def check_place(readout: Readout, identity: ModelId, model: Any) -> None:
    """Raise MechRewardError for a read-out of another model, or of a site that this one lacks."""
    readout.model_id.check(identity, "scorer")
    readout.site.check(model)


def _listed(scores: Any) -> list[float]:
    return [float(score) for score in np.asarray(scores)]


def refuse(scorer: Any) -> MechRewardError:
    """What is said of something that cannot score."""
    return MechRewardError(
        "a scorer is a NeuronSet, a fitted probe, a name or a function of prompt and steps; "
        f"{type(scorer).__name__} was given."
    )
