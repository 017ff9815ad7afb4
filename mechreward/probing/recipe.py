"""How a set of neurons was found: enough to look for it again on other rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mechreward.base.errors import finite, one_of, require
from mechreward.base.files import digest
from mechreward.models.capture import ROWS
from mechreward.models.policy import Policy
from mechreward.models.site import Site
from mechreward.probing.probe import DopamineProbe, ValueProbe

BY = ("L1", "correlation")  # what `select` may rank by
PROBES = {"value": ValueProbe, "dopamine": DopamineProbe}


@dataclass(frozen=True)
class Recipe:
    """What `select` did.

    Attributes
    ----------
    probe : {"value", "dopamine"}
        Which probe was fitted.
    params : dict
        Its parameters (`get_params`).
    rows : str
        Rows of the activations it was fitted to.
    top : float
        Share of the neurons that was taken.
    by : {"L1", "correlation"}
        What they were ranked by.
    chose : str
        `choice` of what it chose: neurons that were changed since are no longer its own.
    policy : dict, default that of `Policy()`
        How the answers were drawn that it was fitted to. Files of versions that did not keep it
        have the default.

    Raises
    ------
    MechRewardError
        Another probe, parameters that no fit has, another share, or another ranking.
    """

    probe: str
    params: dict[str, Any]
    rows: str
    top: float
    by: str
    chose: str
    policy: dict[str, Any] = field(default_factory=lambda: Policy().to_json())

    def __post_init__(self) -> None:
        one_of("probe of a recipe", self.probe, PROBES)
        one_of("ranking", self.by, BY)
        one_of("kind of row", self.rows, ROWS)
        require(0 < finite("top", self.top) <= 1, f"top is a share in (0, 1]; got {self.top}.")
        strange = set(self.params) - set(PROBES[self.probe]().get_params())
        require(not strange, f"a {self.probe} probe has no parameter {', '.join(sorted(strange))}.")
        self.unfitted(0).check()

    @classmethod
    def of(
        cls, probe: ValueProbe | DopamineProbe, top: float, by: str, chosen: Sequence[int]
    ) -> Recipe:
        """That of a fitted probe, by which these neurons were chosen."""
        params = {}
        for name, value in probe.get_params().items():
            params[name] = value.item() if isinstance(value, np.generic) else value
        kind = "value" if isinstance(probe, ValueProbe) else "dopamine"
        chose = choice(probe.site_, chosen)
        policy = probe.policy_.to_json()
        return cls(kind, params, probe.rows_, float(top), by, chose, policy)

    def unfitted(self, seed: int) -> ValueProbe | DopamineProbe:
        """The probe before its fit, with another seed."""
        return PROBES[self.probe](**{**self.params, "seed": seed})


def choice(site: Site, neurons: Sequence[int]) -> str:
    """A short name of neurons of a site."""
    return digest(str(site), *(str(int(neuron)) for neuron in neurons))
