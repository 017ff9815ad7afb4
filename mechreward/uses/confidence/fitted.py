"""All that was learnt, apart from the rollouts it was learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mechreward.base.files import digest
from mechreward.models.site import Site
from mechreward.rollouts.trajectory import Rollouts
from mechreward.uses.confidence.groups import Scale
from mechreward.uses.confidence.reader import Reader


@dataclass(frozen=True)
class Fitted:
    """Read-outs, baselines and calibrators.

    Attributes
    ----------
    site : Site
        Where activations are read.
    value : str
        The value arm in words.
    reader : Reader
        All arms.
    scales : mapping of str to Scale
        What the calibration split taught, by stage.
    calibrator : str
        "isotonic" or "platt".
    asked : tuple of str
        `keys` of the prompts that were fitted to and calibrated on.
    problems : tuple of int
        How many these were.
    """

    site: Site
    value: str
    reader: Reader = field(repr=False)
    scales: Mapping[str, Scale] = field(repr=False)
    calibrator: str
    asked: tuple[str, ...] = field(repr=False)
    problems: tuple[int, int]


def keys(runs: Rollouts) -> list[str]:
    """A short name of every prompt, each once."""
    return list(dict.fromkeys(digest(problem.question) for problem in runs.problems))
