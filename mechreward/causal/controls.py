"""Control sets: what an ablation of these neurons must be compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from mechreward.base import streams
from mechreward.base.errors import MechRewardError, one_of, require
from mechreward.causal.intervene import Intervention
from mechreward.probing.activations import Activations
from mechreward.probing.neurons import NeuronSet

MATCHED = 0.25
ON = ("rms", "displacement", "variance", "first")


@dataclass(frozen=True)
class Control:
    """One control set.

    Attributes
    ----------
    arm : str
        Kind of control.
    draw : int
        Number of the draw.
    neurons : NeuronSet
        The set.
    error : float
        Mean over its neurons of |log(size / size of the neuron it stands for)|: .1 means within
        about 10%. NaN for sets drawn without a match.
    on : str, default ""
        The size it is matched on; empty for sets drawn without a match.
    is_matched : bool
        Whether the error is small enough (`MATCHED`) to call the set matched.
    """

    arm: str
    draw: int
    neurons: NeuronSet
    error: float
    on: str = ""

    @property
    def is_matched(self) -> bool:
        """Whether the error is small enough (`MATCHED`) to call the set matched."""
        return self.error <= MATCHED

    def __str__(self) -> str:
        if not self.on:
            return f"{self.arm} {self.draw}: {self.neurons}"
        close = "matched" if self.is_matched else f"NOT matched (over {MATCHED})"
        return (
            f"{self.arm} {self.draw}: {close} on {self.on}, error {self.error:.3f}; {self.neurons}"
        )


def sinks(acts: Activations, ratio: float = 10.0) -> tuple[int, ...]:
    """Attention-sink and massive coordinates.

    Parameters
    ----------
    acts : Activations
        Activations of rows="tokens".
    ratio : float, default 10.0
        What counts as massive.

    Returns
    -------
    tuple of int
        Numbers of the neurons.

    Raises
    ------
    MechRewardError
        Activations without every token.

    Notes
    -----
    Our choice of rule: a neuron counts if its root mean square at position 0 is `ratio` times that
    at later positions, or if its root mean square over all positions is `ratio` times the median
    neuron's (published massive activations exceed both by two orders of magnitude). The second rule
    holds for the residual stream only: MLP units are sparse, and a rare large one is no sink.
    """
    require(
        acts.rows == "tokens",
        f"sinks show at every position: record with rows='tokens', not {acts.rows!r}.",
    )
    at_start = torch.from_numpy(acts.position == 0)
    first = acts.x[at_start].square().mean(0).sqrt()
    later = acts.x[~at_start].square().mean(0).sqrt()
    found = first > ratio * later.clamp(min=1e-8)
    if acts.site.kind != "mlp":
        found |= acts.rms() > ratio * acts.rms().median()
    return tuple(torch.nonzero(found).flatten().tolist())


def matched(
    neurons: NeuronSet,
    acts: Activations,
    draws: int = 19,
    seed: int = 0,
    *,
    on: str = "rms",
    change: Callable[[NeuronSet], Intervention] | None = None,
    reach: int | None = None,
) -> list[Control]:
    """Different sets, matched one to one on a size of each neuron of a set.

    They come from neurons outside the set that are no sinks. Each neuron is replaced by one of the
    nearest candidates by |log size ratio|; the neighbourhood is as small as the number of draws
    allows (twice the draws, shared among the neurons). What comes nearest need not be near:
    `Control.is_matched` and `match_report` say so, and nothing over `MATCHED` is called matched.

    Parameters
    ----------
    neurons : NeuronSet
        The set to match.
    acts : Activations
        Activations of rows="tokens" at the set's site.
    draws : int, default 19
        How many sets; 19 let a rank reach p = .05, 99 p = .01.
    seed : int, default 0
        Seed of the draws.
    on : str, default "rms"
        "rms", root mean square over all tokens; "displacement", root mean square of what an
        intervention moves the neuron by; "variance", through the standard deviation; "first", root
        mean square at position 0.
    change : function or None, default None
        For on="displacement", the intervention as a function of the set, such as `zero`, or `lambda
        neurons: mean(neurons, acts)`. Zeroing displaces by the rms, a mean ablation by the
        deviation.
    reach : int or None, default None
        Size of the neighbourhood, where the default is too wide for a narrow site.

    Returns
    -------
    list of Control
        One for each draw.

    Raises
    ------
    MechRewardError
        Too few other neurons for that many different sets, an empty set, activations of another
        site or without every token, draws < 1, an unknown `on`, or a displacement without `change`.

    Notes
    -----
    Our choice of control: large neurons do damage for being large.
    """
    require(len(neurons) > 0, "there is nothing to match: the set is empty.")
    require(
        draws >= 1, f"at least one matched draw is needed (19 for p = .05); {draws} were asked for."
    )
    _same(neurons, acts)
    size = sizes(acts, on, change).clamp(min=1e-8).log().numpy()
    free = np.setdiff1d(np.arange(acts.width), [*neurons.indices, *sinks(acts)])
    reach = reach or max(4, 2 * draws // len(neurons) + 2)
    need = len(neurons) + reach
    require(
        len(free) >= need,
        f"{len(free)} neurons are left to match {len(neurons)}; {need} are needed.",
    )
    rng = streams.rng("matched sets", seed)
    found: dict[tuple[int, ...], float] = {}
    for _ in range(100 * draws):
        used: set[int] = set()
        distances = []
        for target in rng.permutation(neurons.indices):
            near = [
                int(i)
                for i in free[np.argsort(np.abs(size[free] - size[target]))]
                if int(i) not in used
            ][:reach]
            pick = int(rng.choice(near))
            used.add(pick)
            distances.append(abs(size[pick] - size[target]))
        found.setdefault(tuple(sorted(used)), float(np.mean(distances)))
        if len(found) == draws:
            break
    require(
        len(found) == draws,
        f"only {len(found)} different matched sets exist; {draws} were asked for.",
    )
    arm = "matched" if on == "rms" else f"matched_{on}"
    controls = []
    for draw, (indices, error) in enumerate(found.items()):
        close = "match" if error <= MATCHED else f"no match, the nearest (error {error:.2f}),"
        how = f"{close} on {on} of ({neurons.how})"
        controls.append(Control(arm, draw, NeuronSet.of(acts, indices, how), error, on))
    return controls


def match_report(controls: Sequence[Control]) -> str:
    """One line: what was matched, how closely, and whether that may be called matched.

    Raises
    ------
    MechRewardError
        No controls, or controls that were not matched on one and the same size.
    """
    kinds = sorted({control.on for control in controls})
    require(
        len(kinds) == 1 and kinds[0] != "",
        f"a report is of sets matched on one size; these: {kinds or 'none'}.",
    )
    errors = np.array([control.error for control in controls])
    good = int((errors <= MATCHED).sum())
    verdict = (
        "matched"
        if good == len(errors)
        else f"NOT matched: {len(errors) - good} are over {MATCHED}"
    )
    error = f"error {errors.mean():.3f}, worst {errors.max():.3f}"
    return f"{len(errors)} sets on {kinds[0]}: {error}; {verdict}"


def sizes(
    acts: Activations, on: str, change: Callable[[NeuronSet], Intervention] | None = None
) -> Float[torch.Tensor, " width"]:
    """What neurons are matched on, for every neuron of the site (see `matched`)."""
    one_of("size to match on", on, ON)
    if on == "rms":
        return acts.rms()
    if on == "variance":
        return acts.x.std(0, correction=0)
    if on == "first":
        start = torch.from_numpy(acts.position == 0)
        require(
            bool(start.any()),
            "these activations have no row of position 0: record with rows='tokens'.",
        )
        return acts.x[start].square().mean(0).sqrt()
    if change is None:
        raise MechRewardError(
            "a displacement is that of an intervention: give change=, such as zero."
        )
    moved = change(NeuronSet.of(acts, range(acts.width), "all"))(
        acts.x, torch.from_numpy(acts.position)
    )
    return (moved - acts.x).square().mean(0).sqrt()


def random(
    neurons: NeuronSet, acts: Activations, draws: int = 5, seed: int = 0, sink_free: bool = False
) -> list[Control]:
    """Sets of the same size, uniform over all other neurons.

    Parameters
    ----------
    neurons : NeuronSet
        The set.
    acts : Activations
        Activations of rows="tokens" at the set's site.
    draws : int, default 5
        How many.
    seed : int, default 0
        Seed of the draws.
    sink_free : bool, default False
        Leave sinks out.

    Returns
    -------
    list of Control
        One for each draw, without a match.

    Raises
    ------
    MechRewardError
        Too few other neurons, or activations of another site.

    Notes
    -----
    Our choice of control: what any neurons do.
    """
    _same(neurons, acts)
    free = np.setdiff1d(
        np.arange(acts.width), [*neurons.indices, *(sinks(acts) if sink_free else ())]
    )
    require(
        len(free) >= len(neurons),
        f"{len(free)} other neurons are left; a control needs {len(neurons)}.",
    )
    rng = streams.rng("random sets", seed, sink_free)
    arm = "sink_free_random" if sink_free else "random"
    return [
        Control(
            arm,
            draw,
            NeuronSet.of(acts, rng.choice(free, len(neurons), replace=False), arm),
            float("nan"),
        )
        for draw in range(draws)
    ]


def _same(neurons: NeuronSet, acts: Activations) -> None:
    require(
        acts.site == neurons.site,
        f"the activations are of {acts.site}; the set is of {neurons.site}.",
    )
    neurons.model_id.check(acts.model_id, "neuron set")
