"""How a set of neurons was found: enough to look for it again on other rollouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mechreward.base.errors import finite, one_of, require
from mechreward.models.capture import ROWS
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

    Raises
    ------
    MechRewardError
        Another probe, parameters it does not have, or another ranking.
    """

    probe: str
    params: dict[str, Any]
    rows: str
    top: float
    by: str

    def __post_init__(self) -> None:
        one_of("probe of a recipe", self.probe, PROBES)
        one_of("ranking", self.by, BY)
        one_of("kind of row", self.rows, ROWS)
        finite("top", self.top)
        strange = set(self.params) - set(PROBES[self.probe]().get_params())
        require(not strange, f"a {self.probe} probe has no parameter {', '.join(sorted(strange))}.")

    @classmethod
    def of(cls, probe: ValueProbe | DopamineProbe, top: float, by: str) -> Recipe:
        """That of a fitted probe."""
        params = {}
        for name, value in probe.get_params().items():
            params[name] = value.item() if isinstance(value, np.generic) else value
        kind = "value" if isinstance(probe, ValueProbe) else "dopamine"
        return cls(kind, params, probe.rows_, float(top), by)

    def unfitted(self, seed: int) -> ValueProbe | DopamineProbe:
        """The probe before its fit, with another seed."""
        return PROBES[self.probe](**{**self.params, "seed": seed})
