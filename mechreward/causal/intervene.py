"""Interventions on a neuron set: frozen callables, and plain TransformerLens hooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from mechreward.base import streams
from mechreward.base.errors import MechRewardError, finite, of_kind, one_of, require
from mechreward.causal.reference import absolute, by_position, some, table
from mechreward.models.identity import model_id
from mechreward.models.row_edits import Edit
from mechreward.probing.activations import Activations, Recording
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.probe import directions

# What `causal.effect.ablate` runs unless told: they may disagree.
OPS = ("zero", "mean", "resample")
PULL = {"zero": -1.0, "mean": -1.0, "resample": -1.0, "patch": -1.0, "steer": 0.0, "scale": 1.0}
DRAWN = 512  # rows of an unconditional resample, shared out among the positions


@dataclass(frozen=True, eq=False)
class Intervention:
    """x[..., set] <- x[..., set] + strength (reference + pull x[..., set])

    | op | pull | reference |
    | --- | --- | --- |
    | zero | -1 | 0 |
    | mean, resample, patch | -1 | a mean, a row drawn at random, the values of another run |
    | steer | 0 | a direction |
    | scale | 1 | 0 |

    Strength 0 leaves everything as it was, for every operation; strength 1 replaces (pull -1), adds
    the direction, or doubles. The input is never edited in place; arithmetic is in float32 and the
    result has the input's dtype.

    What it does not show: an effect of removing neurons says that something needs them, not what
    they carry; only matched controls make it specific (`causal.effect.ablate`).

    Attributes
    ----------
    neurons : NeuronSet
        What is changed.
    op : str
        One of the table.
    reference : tensor [k] or tensor [pos k]
        With a row for each absolute position where it depends on it; behind its last row it starts
        again with the first.
    strength : float, default 1.0
        How much of the change is made.
    known : tuple of int or None, default None
        Absolute positions that have a reference, None for all: at others the intervention does
        nothing.
    by_position : bool
        Whether what it does depends on the absolute position.

    Raises
    ------
    MechRewardError
        No neuron set, an unknown operation, an empty set, a strength that is no finite number, or a
        reference that does not fit the set or is not finite.
    """

    neurons: NeuronSet
    op: str
    reference: Float[torch.Tensor, " k"] | Float[torch.Tensor, "pos k"] = field(repr=False)
    strength: int | float = 1.0
    known: tuple[int, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        of_kind("neurons", self.neurons, NeuronSet)
        one_of("operation", self.op, PULL)
        finite("strength", self.strength)
        of_kind("the reference", self.reference, torch.Tensor)
        k, values = len(self.neurons), self.reference.shape[-1]
        require(k > 0, "an intervention needs at least one neuron; this set is empty.")
        require(values == k, f"the reference has {values} values for {k} neurons.")
        require(
            self.reference.numel() > 0,
            "the reference has no row: there is nothing to take values from.",
        )
        require(
            bool(self.reference.isfinite().all()), "the reference holds values that are not finite."
        )

    def __call__(
        self,
        x: Float[torch.Tensor, "*batch width"],
        positions: Int[torch.Tensor, "*batch"] | None = None,
    ) -> Float[torch.Tensor, "*batch width"]:
        """The changed copy of activations at the set's site.

        Parameters
        ----------
        x : tensor [*batch width]
            Activations.
        positions : tensor [*batch] or None, default None
            Absolute position of every row of `x`, -1 where nothing is to be done. Without it every
            row is changed; an intervention that depends on the position then takes `x` for a whole
            pass, `[... pos width]` from position 0 on.

        Returns
        -------
        tensor [*batch width]
            Of the dtype of `x`.

        Raises
        ------
        MechRewardError
            `x` of another width, or no `positions` where they are needed and cannot be guessed: a
            single token, as in decoding with a KV cache (use `attach`).
        """
        width = self.neurons.width
        require(
            x.shape[-1] == width,
            f"{self.neurons.site} has {width} neurons; the tensor has {x.shape[-1]}.",
        )
        if positions is None and self.by_position:
            length = x.shape[-2] if x.ndim > 1 else 1
            require(
                length > 1 or self.reference.shape[0] == 1,
                f"this {self.op} depends on the position, and one token does not say where it "
                "stands: use attach(model, intervention), which follows the positions, also with "
                "a KV cache.",
            )
            positions = torch.arange(length, device=x.device).expand(x.shape[:-1])
        index = list(self.neurons.indices)
        old = x[..., index].float()
        reference = self.reference.to(old.device)
        if reference.ndim == 2 and positions is not None:
            reference = reference[positions.clamp(min=0) % len(reference)]
        kept = 1 + self.strength * PULL[self.op]
        new = kept * old + self.strength * reference  # exact at strength 0 and 1
        if positions is not None:
            new = torch.where(self.acts_at(positions)[..., None], new, old)
        out = x.clone()
        out[..., index] = new.to(x.dtype)
        return out

    @property
    def by_position(self) -> bool:
        """Whether what it does depends on the absolute position."""
        return self.reference.ndim == 2 or self.known is not None

    def acts_at(self, positions: Int[torch.Tensor, "*batch"]) -> Bool[torch.Tensor, "*batch"]:
        """At which of these absolute positions it does something."""
        if self.known is None:
            return positions >= 0
        return torch.isin(positions, torch.tensor(self.known, device=positions.device))

    def fwd_hooks(self) -> list[tuple[str, Any]]:
        """Pairs for `run_with_hooks`, `hooks()` and `generate` of any TransformerLens model.

        Plain hooks know no positions: they act on every token they meet. `attach` chooses
        positions, counts, and follows a KV cache, which an intervention that depends on the
        position needs. A resample without `by` draws a row for each position, and any row will do:
        single tokens take the next ones, so that `generate` works.

        Returns
        -------
        list of (str, function)
            Hook point and hook.
        """

        met = 0  # tokens of this pass and of those it goes on from

        def hook(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
            nonlocal met
            if self.op != "resample" or self.known is not None:
                return self(tensor)
            length = tensor.shape[1]
            met = met + 1 if length == 1 else length
            positions = torch.arange(met - length, met, device=tensor.device)
            return self(tensor, positions.expand(tensor.shape[:-1]))

        return [(self.neurons.site.hook, hook)]

    def edit(self, at: Sequence[int] | None = None) -> Edit:
        """The same change for single rows of a batch (`rollouts.sample.sample_arms`).

        Parameters
        ----------
        at : sequence of int or None, default None
            Absolute positions; None for every one.

        Returns
        -------
        Edit
            To be carried by a row.

        Raises
        ------
        MechRewardError
            A position below 0, or none of `at` has a reference.
        """
        index = list(self.neurons.indices)
        keep = torch.ones(self.neurons.width)
        add = torch.zeros(*self.reference.shape[:-1], self.neurons.width)
        keep[index] = 1 + self.strength * PULL[self.op]
        add[..., index] = self.strength * self.reference.cpu().float()
        if at is not None:
            at = absolute(at)
        if self.known is not None:
            at = self.known if at is None else tuple(sorted(set(self.known) & set(at)))
            require(
                len(at) > 0,
                f"none of the positions has a reference; those that have: {some(self.known)}.",
            )
        return Edit(self.neurons.site, keep, add, at)

    def check(self, model: Any) -> Intervention:
        """Itself, if the set belongs to `model`.

        Raises
        ------
        MechRewardError
            Another model or processing state, or a site the model lacks.
        """
        identity = model_id(model)
        self.neurons.site.check(model)
        self.neurons.model_id.check(identity, "neuron set")
        return self


def zero(neurons: NeuronSet, strength: int | float = 1.0) -> Intervention:
    """Zero ablation (paper section 2).

    Parameters
    ----------
    neurons : NeuronSet
        What is changed.
    strength : float, default 1.0
        1 replaces, 0 leaves everything as it was.

    Returns
    -------
    Intervention
        Sets each neuron to 0.
    """
    of_kind("neurons", neurons, NeuronSet)
    return Intervention(neurons, "zero", torch.zeros(len(neurons)), strength)


def scale(neurons: NeuronSet, factor: int | float) -> Intervention:
    """Each neuron times a factor.

    Parameters
    ----------
    neurons : NeuronSet
        What is changed.
    factor : float
        1 is the baseline, 0 zero ablation, -1 turns the sign.

    Returns
    -------
    Intervention
        Its `strength` is `factor` - 1.

    Notes
    -----
    Our choice; zero ablation is the factor 0.
    """
    of_kind("neurons", neurons, NeuronSet)
    return Intervention(neurons, "scale", torch.zeros(len(neurons)), finite("factor", factor) - 1)


def mean(
    neurons: NeuronSet,
    reference: Activations,
    strength: int | float = 1.0,
    *,
    by: str | None = None,
    ends: Sequence[int] | None = None,
) -> Intervention:
    """Mean ablation: each neuron is set to its mean over the rows of a reference.

    Parameters
    ----------
    neurons : NeuronSet
        What is changed.
    reference : Activations
        Recorded at the same site.
    strength : float, default 1.0
        1 replaces, 0 leaves everything as it was.
    by : str or None, default None
        None takes all rows for every position; "position" takes, at each absolute position, the
        rows recorded there; "step" takes the rows of the step a position lies in.
    ends : sequence of int or None, default None
        For by="step", the `step_ends` of the trajectory that is changed: they say which step that
        is.

    Returns
    -------
    Intervention
        Sets each neuron to a mean.

    Raises
    ------
    MechRewardError
        Activations of another site or model, an unknown `by`, or `ends` without by="step".

    Notes
    -----
    Beside zero ablation, because zero may lie far outside what a neuron ever holds (our choice).
    """
    values = _read(neurons, reference).double()
    groups = by_position(reference, by, ends)
    if groups is None:
        return Intervention(neurons, "mean", values.mean(0).float(), strength)
    means = table({position: values[rows].mean(0).float() for position, rows in groups.items()})
    return Intervention(neurons, "mean", means, strength, tuple(groups))


def resample(
    neurons: NeuronSet,
    reference: Activations,
    strength: int | float = 1.0,
    *,
    by: str | None = None,
    ends: Sequence[int] | None = None,
    seed: int = 0,
) -> Intervention:
    """Resample ablation: all neurons are set to their joint values in a row drawn at random.

    Every absolute position has its own draw, decided by `seed` alone: the rows of a batch share it,
    and batching or decoding changes nothing. For independent draws take several seeds (our choice;
    without `by` at most 512 rows are drawn, without replacement, and come round again behind that).

    Parameters
    ----------
    neurons : NeuronSet
        What is changed.
    reference : Activations
        Recorded at the same site.
    strength : float, default 1.0
        1 replaces, 0 leaves everything as it was.
    by : str or None, default None
        None takes all rows for every position; "position" takes, at each absolute position, the
        rows recorded there; "step" takes the rows of the step a position lies in. A position then
        draws among these, and what the trajectory itself put there is one of them if `reference`
        holds it.
    ends : sequence of int or None, default None
        For by="step", the `step_ends` of the trajectory that is changed: they say which step that
        is.
    seed : int, default 0
        Decides the draws.

    Returns
    -------
    Intervention
        Sets all neurons to joint values.

    Raises
    ------
    MechRewardError
        As `mean`.
    """
    values = _read(neurons, reference).float()
    groups = by_position(reference, by, ends)
    rng = streams.rng("resample", seed)
    if groups is None:
        rows = rng.permutation(len(values))[:DRAWN]
        return Intervention(neurons, "resample", values[rows], strength)
    drawn = table({position: values[rng.choice(rows)] for position, rows in groups.items()})
    return Intervention(neurons, "resample", drawn, strength, tuple(groups))


def patch(neurons: NeuronSet, source: Any, strength: int | float = 1.0) -> Intervention:
    """Activation patching: each neuron is set to its value in another run.

    Positions that the source has no row for are left alone.

    Parameters
    ----------
    neurons : NeuronSet
        What is changed.
    source : tensor, Activations or mapping
        The values themselves, `[k]` for one state that is put wherever the intervention acts, or
        `[pos k]` for one row an absolute position; `Activations` of one trajectory, whose rows go
        to their own positions; or the source run's cache by hook name (`run_with_cache`, one row).
    strength : float, default 1.0
        1 replaces, 0 leaves everything as it was.

    Returns
    -------
    Intervention
        Sets each neuron to its value there.

    Raises
    ------
    MechRewardError
        Another number of neurons, several trajectories or rows, or another site or model.
    """
    of_kind("neurons", neurons, NeuronSet)
    if isinstance(source, Activations):
        runs = len(set(source.trajectory.tolist()))
        require(
            runs == 1, f"a patch comes from one run; the activations are of {runs} trajectories."
        )
        values = neurons.read(source).float()
        rows = dict(sorted(zip(source.position.tolist(), values, strict=True)))
        return Intervention(neurons, "patch", table(rows), strength, tuple(rows))
    values = (source if isinstance(source, torch.Tensor) else neurons.read(source)).detach().float()
    if values.ndim == 3:
        require(
            len(values) == 1, f"a patch comes from one run; the source holds {len(values)} rows."
        )
        values = values[0]
    require(
        values.ndim in (1, 2),
        f"a patch is [k] or [pos k]; a tensor of shape {list(values.shape)} was given.",
    )
    known = tuple(range(len(values))) if values.ndim == 2 else None
    return Intervention(neurons, "patch", values, strength, known)


def steer(
    neurons: NeuronSet,
    direction: torch.Tensor | Activations | int | float,
    strength: int | float = 1.0,
    *,
    toward: np.ndarray | None = None,
) -> Intervention:
    """Activation addition: x <- x + strength direction.

    No ablation can do that: it pushes in either sense.

    Parameters
    ----------
    neurons : NeuronSet
        What is changed.
    direction : tensor [k], Activations or float
        [k] in the unit of the activations, so that strength 1 adds exactly it; or reference
        `Activations`, which make the unit one standard deviation of each neuron over their rows. A
        bare number is the strength along the set's own direction, `steer(value, +2.0)`: `select`
        gives one, a standard deviation over the rows its probe was fitted to, toward a higher V-hat
        or delta.
    strength : float, default 1.0
        In units of the direction; 0 leaves everything as it was.
    toward : array [row] or None, default None
        With `Activations`: [row] what a positive strength is to raise, such as `values.mean`
        (V-hat) or `values.delta`; every neuron moves in the sense of its correlation with it. Rows
        that are NaN are left out.

    Returns
    -------
    Intervention
        Adds the direction.

    Raises
    ------
    MechRewardError
        A direction of another length, activations of another site or model or without `toward`,
        `toward` of another length, without variance, or beside a direction that already has signs;
        a number for a set that has no direction.

    Notes
    -----
    Units of standard deviations are our choice: the same strength then means as much at every
    neuron.
    """
    of_kind("neurons", neurons, NeuronSet)
    if isinstance(direction, int | float):
        own = neurons.direction
        require(
            len(own) > 0,
            "the set has no direction of its own (`select` gives one): give [k], or activations.",
        )
        require(
            strength == 1.0 and toward is None,
            "a number steers along the set's own direction and is the strength.",
        )
        return Intervention(neurons, "steer", torch.tensor(own), direction)
    if isinstance(direction, torch.Tensor):
        require(
            toward is None, "a direction given as a tensor has signs already: leave out toward=."
        )
        require(
            direction.ndim == 1,
            f"a direction is [k]; a tensor of shape {list(direction.shape)} was given.",
        )
        return Intervention(neurons, "steer", direction.detach().float(), strength)
    values = _read(neurons, direction)
    if toward is None:
        raise MechRewardError(
            "activations say how far, not which way: give toward=, one number a row (values.mean)."
        )
    return Intervention(neurons, "steer", directions(values, toward), strength)


def _read(neurons: NeuronSet, reference: Activations) -> Float[torch.Tensor, "row k"]:
    """The set's neurons in the rows of a reference at its site."""
    of_kind("neurons", neurons, NeuronSet)
    if isinstance(reference, Recording):
        reference.refuse()
    of_kind("the reference", reference, Activations, "record makes it of rollouts")
    return neurons.read(reference)
