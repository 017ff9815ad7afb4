"""Control sets: what an ablation of these neurons must be compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mechreward._check import require
from mechreward.probing.activations import Activations
from mechreward.probing.neurons import NeuronSet

MATCHED = 0.25


@dataclass(frozen=True)
class Control:
    """One control set. `error` is the mean over its neurons of |log(rms / rms of the neuron it stands for)|: .1 means
    activation magnitudes within about 10%. NaN for sets that are not matched."""

    arm: str
    draw: int
    neurons: NeuronSet
    error: float


def sinks(acts: Activations, ratio: float = 10.0) -> tuple[int, ...]:
    """Attention-sink and massive coordinates, from activations of rows="tokens".

    A neuron counts if its root mean square at position 0 is `ratio` times that at later positions, or if its root
    mean square over all positions is `ratio` times the median neuron's (our choice of rule; published massive
    activations exceed both by two orders of magnitude). The second rule holds for the residual stream only: MLP
    units are sparse, and a rare large one is no sink.
    """
    require(acts.rows == "tokens", f"sinks show at every position: record with rows='tokens', not {acts.rows!r}.")
    at_start = torch.from_numpy(acts.position == 0)
    first = acts.x[at_start].square().mean(0).sqrt()
    later = acts.x[~at_start].square().mean(0).sqrt()
    found = first > ratio * later.clamp(min=1e-8)
    if acts.site.kind != "mlp":
        found |= acts.rms() > ratio * acts.rms().median()
    return tuple(torch.nonzero(found).flatten().tolist())


def matched(neurons: NeuronSet, acts: Activations, draws: int = 19, seed: int = 0) -> list[Control]:
    """`draws` different sets, matched one to one on activation root mean square, without the set and without sinks.

    Each neuron is replaced by one of the nearest candidates by |log rms ratio|; the neighbourhood is as small as the
    number of draws allows (twice the draws, shared among the neurons). 19 draws let a rank reach p = .05, 99 p = .01.

    Raises:
        MechRewardError: too few other neurons for that many different sets, an empty set, activations of another
            site, or draws < 1.
    """
    require(len(neurons) > 0, "there is nothing to match: the set is empty.")
    require(draws >= 1, f"at least one matched draw is needed (19 for p = .05); {draws} were asked for.")
    _same(neurons, acts)
    rms = acts.rms().clamp(min=1e-8).log().numpy()
    free = np.setdiff1d(np.arange(acts.width), [*neurons.indices, *sinks(acts)])
    reach = max(4, 2 * draws // len(neurons) + 2)
    need = len(neurons) + reach
    require(len(free) >= need, f"{len(free)} neurons are left to match {len(neurons)}; {need} are needed.")
    rng = np.random.default_rng([seed, 3])
    found: dict[tuple[int, ...], float] = {}
    for _ in range(100 * draws):
        used: set[int] = set()
        distances = []
        for target in rng.permutation(neurons.indices):
            near = [int(i) for i in free[np.argsort(np.abs(rms[free] - rms[target]))] if int(i) not in used][:reach]
            pick = int(rng.choice(near))
            used.add(pick)
            distances.append(abs(rms[pick] - rms[target]))
        found.setdefault(tuple(sorted(used)), float(np.mean(distances)))
        if len(found) == draws:
            break
    require(len(found) == draws, f"only {len(found)} different matched sets exist; {draws} were asked for.")
    how = f"activation-magnitude match of ({neurons.how})"
    return [
        Control("matched", draw, NeuronSet.of(acts, indices, how), error)
        for draw, (indices, error) in enumerate(found.items())
    ]


def random(
    neurons: NeuronSet, acts: Activations, draws: int = 5, seed: int = 0, sink_free: bool = False
) -> list[Control]:
    """`draws` sets of the same size, uniform over all other neurons; `sink_free` leaves sinks out."""
    _same(neurons, acts)
    free = np.setdiff1d(np.arange(acts.width), [*neurons.indices, *(sinks(acts) if sink_free else ())])
    require(len(free) >= len(neurons), f"{len(free)} other neurons are left; a control needs {len(neurons)}.")
    rng = np.random.default_rng([seed, 4, sink_free])
    arm = "sink_free_random" if sink_free else "random"
    return [
        Control(arm, draw, NeuronSet.of(acts, rng.choice(free, len(neurons), replace=False), arm), float("nan"))
        for draw in range(draws)
    ]


def _same(neurons: NeuronSet, acts: Activations) -> None:
    require(acts.site == neurons.site, f"the activations are of {acts.site}; the set is of {neurons.site}.")
    neurons.model_id.check(acts.model_id, "neuron set")
