"""The read-out of a set: weights that are fitted once, on other problems than they are read on."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

from mechreward.probing.ridge import Spectrum, choose


def fitted_weights(
    x: Float[np.ndarray, "state neuron"],
    y: Float[np.ndarray, " state"],
    group: Shaped[np.ndarray, " state"],
) -> Float[np.ndarray, " neuron"]:
    """Weights of a ridge regression of `y` on neurons, in their own units; its penalty is chosen by
    leaving out problems."""
    scale = x.std(0)
    scale[scale == 0] = 1
    spectrum = Spectrum(x / scale)
    target = y[:, None]
    weights, _ = spectrum.fit(target, choose(spectrum, target, group) * len(y))
    return weights[:, 0] / scale
