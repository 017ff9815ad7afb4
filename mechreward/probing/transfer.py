"""Do sets found on one task, or in one model, mean anything in another?"""

from __future__ import annotations

from dataclasses import dataclass

from mechreward import stats
from mechreward._check import require
from mechreward.probing.neurons import NeuronSet


@dataclass(frozen=True)
class Overlap:
    """Intersection over union of two sets, what chance gives (`expected`), and P(at least that much by chance).

    `shared` neurons of `a` and `b`, out of `width`; chance is the hypergeometric law (paper section 4, transfer)."""

    shared: int
    a: int
    b: int
    width: int

    @property
    def iou(self) -> float:
        return self.shared / (self.a + self.b - self.shared)

    @property
    def expected(self) -> float:
        return stats.hypergeometric_iou(self.a, self.b, self.width, self.shared)[0]

    @property
    def p(self) -> float:
        return stats.hypergeometric_iou(self.a, self.b, self.width, self.shared)[1]


def overlap(a: NeuronSet, b: NeuronSet) -> Overlap:
    """How far two sets of one site are the same neurons; they may come from different models of one shape.

    Neuron numbers mean the same in two models only where one descends from the other, or both from one base.

    Raises:
        MechRewardError: different sites or widths, or an empty set.
    """
    require(a.site == b.site, f"sets of different sites: {a.site} and {b.site}.")
    require(a.width == b.width, f"sets of different widths: {a.width} and {b.width} neurons at {a.site}.")
    require(len(a) > 0 and len(b) > 0, "an empty set overlaps with nothing.")
    return Overlap(len(set(a.indices) & set(b.indices)), len(a), len(b), a.width)
