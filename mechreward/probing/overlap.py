"""Do sets found on one task, or in one model, mean anything in another?"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.stats import hypergeom

from mechreward.base.errors import require
from mechreward.probing.neurons import NeuronSet
from mechreward.stats import Interval

# Neurons of neighbouring size that may stand for each other; in larger groups size tells them
# apart.
GROUP = 4


@dataclass(frozen=True)
class Overlap:
    """Intersection over union of two sets, beside chance.

    Attributes
    ----------
    shared : int
        Neurons in both.
    a : int
        Neurons in the first.
    b : int
        In the second.
    width : int
        Neurons of the site.
    law : tuple of float
        [shared] how likely chance shares none, one, ...
    iou : float
        Intersection over union.
    expected : float
        Its mean by chance.
    chance : Interval
        Its mean by chance, with the 2.5% and 97.5% quantiles of its exact law.
    p : float
        P(at least as many shared by chance).
    """

    shared: int
    a: int
    b: int
    width: int
    law: tuple[float, ...] = field(repr=False)

    @property
    def iou(self) -> float:
        return self.shared / (self.a + self.b - self.shared)

    @property
    def expected(self) -> float:
        return self.chance.estimate

    @property
    def chance(self) -> Interval:
        """The IoU by chance: its mean, and the 2.5% and 97.5% quantiles of its exact law."""
        counts = np.arange(len(self.law))
        iou = counts / (self.a + self.b - counts)
        below = np.cumsum(self.law)

        def quantile(share: float) -> float:
            return float(iou[int(np.searchsorted(below, share - 1e-9))])

        mean = float(iou @ np.array(self.law))
        return Interval(mean, quantile(0.025), quantile(0.975), self.width)

    @property
    def p(self) -> float:
        """P(at least as many shared by chance)."""
        return min(1.0, float(sum(self.law[self.shared :])))


def overlap(
    a: NeuronSet,
    b: NeuronSet,
    size: Float[np.ndarray, " width"] | None = None,
    *,
    other_model: bool = False,
) -> Overlap:
    """How far two sets of one site are the same neurons.

    Parameters
    ----------
    a : NeuronSet
        A set.
    b : NeuronSet
        Another.
    size : array [width] or None, default None
        Of every neuron, such as the rms: chance then takes neurons as large.
    other_model : bool, default False
        Whether they may come from two models of one shape. Neuron numbers mean the same in two
        models only where one descends from the other, or both from one base.

    Returns
    -------
    Overlap
        What is shared, and the law of chance.

    Raises
    ------
    MechRewardError
        Different sites or widths, two models that were not asked for, an empty set, or sizes of
        another number of neurons.

    Notes
    -----
    Chance is the hypergeometric law (paper section 4, transfer): any neurons. With `size` it is
    neurons as large (our choice: large neurons get into sets for being large): in order of size,
    every `GROUP` may stand for each other, and the count shared is a sum of hypergeometric counts,
    exactly.
    """
    a.comparable(b, other_model=other_model)
    require(len(a) > 0 and len(b) > 0, "an empty set overlaps with nothing.")
    groups = [np.arange(a.width)]
    if size is not None:
        require(len(size) == a.width, f"{len(size)} sizes were given for {a.width} neurons.")
        groups = np.array_split(np.argsort(size, kind="stable"), max(1, a.width // GROUP))
    law = np.ones(1)
    for group in groups:
        of_a = int(np.isin(group, a.indices).sum())
        of_b = int(np.isin(group, b.indices).sum())
        counts = np.arange(min(of_a, of_b) + 1)
        law = np.convolve(law, hypergeom.pmf(counts, len(group), of_a, of_b))
    shared = len(set(a.indices) & set(b.indices))
    return Overlap(shared, len(a), len(b), a.width, tuple(law.tolist()))
