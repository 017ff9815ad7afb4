"""Interventions at chosen positions of any pass.

Teacher-forced, or while a model generates with a KV cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mechreward.base.errors import MechRewardError, require
from mechreward.causal.intervene import Intervention
from mechreward.causal.reference import absolute, some
from mechreward.models.positions import Clock


class Attached:
    """What `attach` yields: how often each intervention has acted.

    Attributes
    ----------
    interventions : tuple of Intervention
        In the order given.
    at : tuple of int or None
        Absolute positions; None for every one.
    fired : tuple of int
        Tokens that each intervention has changed so far, rows counted one by one.
    """

    def __init__(self, interventions: Sequence[Intervention], at: tuple[int, ...] | None) -> None:
        self.interventions, self.at = tuple(interventions), at
        self._counts: list[torch.Tensor | int] = [0] * len(interventions)

    @property
    def fired(self) -> tuple[int, ...]:
        """Tokens that each intervention has changed so far, rows counted one by one."""
        return tuple(int(count) for count in self._counts)

    def hook(self, number: int, clock: Clock) -> tuple[str, Any]:
        """The TransformerLens `(name, fn)` pair of one intervention."""
        change = self.interventions[number]
        layer = change.neurons.site.layer

        def hook(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
            positions = clock.positions(layer, tensor.shape[0], tensor.shape[1], tensor.device)
            if self.at is not None:
                chosen = torch.isin(positions, torch.tensor(self.at, device=positions.device))
                positions = torch.where(chosen, positions, -1)
            self._counts[number] = self._counts[number] + change.acts_at(positions).sum()
            return change(tensor, positions)

        return change.neurons.site.hook, hook

    def check(self) -> None:
        """Raise MechRewardError if an intervention has never acted."""
        for change, count in zip(self.interventions, self.fired, strict=True):
            where = "" if self.at is None else f" at positions {some(self.at)}"
            require(
                count > 0,
                f"{change.op} of {change.neurons.site} never fired{where}: "
                "no pass held such a token.",
            )


@contextmanager
def attach(
    model: Any, *interventions: Intervention, at: Sequence[int] | None = None
) -> Iterator[Attached]:
    """Interventions stay on inside the `with`.

    Works for teacher-forced passes, for `generate` with and without a KV cache, and for calls with
    a cache of one's own: a token's position is counted through the attention mask or the cache, so
    it is the same in all of them. The verbs of this package (`sample`, `record`) are passes like
    any other, but edits of single rows are faster (`Intervention.edit`).

    Rows that are padded on the left need a 2D attention mask, as the model itself does:
    HookedTransformer makes one, `generate` of a bridge makes one for lists of texts. Without a mask
    padding counts as tokens, here as in the model.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one that the sets belong to.
    *interventions : Intervention
        Act in the order given.
    at : sequence of int or None, default None
        Absolute positions at which all of them act; None for every one. Position 0 is the first
        token of a row (a BOS token counts). For other positions of each, nest two `attach`.

    Yields
    ------
    Attached
        Its `fired` counts the tokens that each intervention has changed (`generate` goes on running
        rows that have ended, and those count).

    Raises
    ------
    MechRewardError
        No intervention, a set of another model, a position below 0, an attention mask that is not
        2D, or, on leaving without an error of its own, an intervention that never fired.
    """
    require(len(interventions) > 0, "nothing to attach: give at least one intervention.")
    for change in interventions:
        if not isinstance(change, Intervention):
            raise MechRewardError(
                f"attach takes interventions such as zero(neurons); {change!r} was given."
            )
        change.check(model)
    attached = Attached(interventions, None if at is None else absolute(at))
    with Clock(model, (change.neurons.site.layer for change in interventions)) as clock:
        hooks = [attached.hook(number, clock) for number in range(len(interventions))]
        with model.hooks(fwd_hooks=hooks):
            yield attached
    attached.check()
