"""Who writes what is read off the residual stream: the exact part of every component.

The stream is a sum: what the embedding put there, and what each head and each MLP added. So is
whatever is linear in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from mechreward.base.errors import MechRewardError, require
from mechreward.base.progress import bar
from mechreward.models.bins import length_bins
from mechreward.models.engine import Hooks
from mechreward.models.site import Site, point
from mechreward.probing.activations import forward
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.trajectory import Rollouts

ROUNDING = 300  # of the dtype's own: how far parts may miss the whole


class Component(NamedTuple):
    """A part of a model that writes or reads: what it is, its layer, its number there.

    Layer and number are -1 where there is none.
    """

    kind: str
    layer: int = -1
    index: int = -1

    def __str__(self) -> str:
        if self.layer < 0:
            return self.kind
        if self.index < 0:
            return f"{self.layer}.{self.kind}"
        return f"{self.layer}.{self.kind}.{self.index}"


@dataclass(frozen=True)
class Parts:
    """Read-outs of the stream at states, and what each component adds to them.

    Attributes
    ----------
    components : tuple of Component
        The embedding, heads and MLPs in the order of the layers, all biases; then given sets of
        units, which are parts of MLPs.
    parts : array [component state column]
        What each adds to each read-out.
    whole : array [state column]
        The read-outs themselves.
    """

    components: tuple[Component, ...]
    parts: Float[np.ndarray, "component state column"]
    whole: Float[np.ndarray, "state column"]


@torch.no_grad()
def written(
    model: Any,
    runs: Rollouts,
    site: Site,
    weights: Float[np.ndarray, "width column"],
    *,
    units: Sequence[NeuronSet] = (),
    scaled: bool = False,
    hooks: Hooks = (),
    batch: int = 64,
    progress: bool | str = False,
) -> Parts:
    """Split read-outs of the residual stream, at every state that goes on, among who wrote them.

    A head's part is its mixture of values times its own piece of the map out; a post-norm's scale
    is the one observed. What attention adds beside its heads is its bias.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one that made the runs.
    runs : Rollouts
        Whose states are read.
    site : Site
        Of the residual stream.
    weights : array [width column]
        A column for each read-out.
    units : sequence of NeuronSet, default ()
        Sets of MLP units whose parts come too, behind all others: they are parts of their MLP's and
        count in no sum. Those of MLPs behind the site are left out.
    scaled : bool, default False
        Whether read-outs are divided by what the MLP's norm behind the site divides by: that scale
        is then held as it was.
    hooks : sequence of (str, function), default ()
        TransformerLens pairs that stay on meanwhile, such as an intervention's.
    batch : int, default 64
        Trajectories run at once.
    progress : bool or str, default False
        Whether a bar is shown, or its title.

    Returns
    -------
    Parts

    Raises
    ------
    MechRewardError
        A block adds something to the stream that its hook points do not show.

    Notes
    -----
    Exact by linearity (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits").
    """
    columns = torch.from_numpy(weights).double()
    layers = _Layers(model, site, columns, units, hooks)
    sums: list[list[np.ndarray]] = [[] for _ in runs]
    wholes: list[np.ndarray] = [np.zeros(0)] * len(runs)
    counter = bar(progress, "writers", "trajectory", total=len(runs))
    with counter:
        for numbers in length_bins([len(run.tokens) for run in runs], batch):
            texts = [runs[number].tokens for number in numbers]
            caught = layers.catch(texts, scaled)
            places = []
            for row, number in enumerate(numbers):
                for end in runs[number].step_ends[:-1]:
                    places.append((row, end))
            parts, whole = layers.split(caught, torch.tensor(places), scaled)
            counts = [len(runs[number].step_ends) - 1 for number in numbers]
            ends = np.cumsum(counts)[:-1]
            for number, part, total in zip(
                numbers, np.split(parts, ends, axis=1), np.split(whole, ends), strict=True
            ):
                sums[number], wholes[number] = [part], total
            counter.update(len(numbers))
    return Parts(
        components=layers.components,
        parts=np.concatenate([part for row in sums for part in row], axis=1),
        whole=np.concatenate(wholes),
    )


def writers(model: Any, site: Site, units: Sequence[NeuronSet] = ()) -> tuple[Component, ...]:
    """Everything that writes to the stream before a site of it; then sets of MLP units."""
    listed = [Component("embedding")]
    for layer in range(model.cfg.n_layers):
        attends, thinks = _before(site, layer)
        if attends:
            if point("head", layer) in model.hook_dict:
                heads = range(model.cfg.n_heads)
                listed += [Component("head", layer, head) for head in heads]
            else:
                listed.append(Component("attention", layer))
        if thinks:
            listed.append(Component("mlp", layer))
    listed.append(Component("biases"))
    for number, neurons in enumerate(units):
        layer = neurons.site.layer
        if _before(site, layer)[1]:
            listed.append(Component("set", layer, number))
    return tuple(listed)


def _before(site: Site, layer: int) -> tuple[bool, bool]:
    """Whether attention and MLP of a layer write before a site."""
    if layer != site.layer:
        return layer < site.layer, layer < site.layer
    return site.kind != "resid_pre", site.kind == "resid_post"


class _Layers:
    """The layers up to a site, and what their hook points show of a batch."""

    def __init__(
        self,
        model: Any,
        site: Site,
        columns: torch.Tensor,
        units: Sequence[NeuronSet],
        hooks: Hooks,
    ) -> None:
        self.model, self.site, self.columns = model, site, columns
        self.units, self.acting = units, hooks
        self.components = writers(model, site, units)
        self.start = Site(0, "resid_pre")
        self.names: list[str] = []
        for layer in range(site.layer + 1):
            attends, thinks = _before(site, layer)
            wanted = ["head", "attn_out", "attn_norm"] if attends else []
            wanted += ["mlp_out"] if thinks else []
            names = [point(kind, layer) for kind in wanted]
            self.names += [name for name in names if name in model.hook_dict]
        for component in self.components:
            if component.kind == "set":
                names = [point("mlp", component.layer), point("mlp_post_norm", component.layer)]
                self.names += [name for name in names if name in model.hook_dict]

    def catch(self, texts: Sequence[torch.Tensor], scaled: bool) -> dict[str, torch.Tensor]:
        """By hook point, `[batch pos ...]` in float64."""
        caught: dict[str, torch.Tensor] = {}

        def keep(tensor: torch.Tensor, hook: Any, name: str) -> None:
            caught[name] = tensor.detach().to("cpu", torch.float64)

        names = [*self.names]
        if scaled:
            names.append(point("mlp_norm", self.site.layer))
        hooks = [*self.acting, *((name, partial(keep, name=name)) for name in names)]
        sites = list(dict.fromkeys([self.start, self.site]))
        shown = forward(self.model, list(texts), sites, self.site.layer + 1, hooks)
        for site in sites:
            caught[site.hook] = shown[site].double()
        missing = [name for name in names if name not in caught]
        require(not missing, f"nothing passed through {', '.join(missing[:3])}.")
        return caught

    def split(
        self, caught: dict[str, torch.Tensor], places: torch.Tensor, scaled: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Parts [component state column] and wholes [state column] at (row, position) places."""
        row, pos = places.T

        def at(name: str) -> torch.Tensor:
            return caught[name][row, pos]

        parts = [at(self.start.hook) @ self.columns]
        bias = torch.zeros_like(parts[0])
        for layer in range(self.site.layer + 1):
            attends, thinks = _before(self.site, layer)
            if attends and point("head", layer) in caught:
                heads, rest = self._heads(layer, at)
                parts += heads
                bias = bias + rest
            elif attends:
                parts.append(at(point("attn_out", layer)) @ self.columns)
            if thinks:
                parts.append(at(point("mlp_out", layer)) @ self.columns)
        together = torch.stack([*parts, bias])
        whole = at(self.site.hook) @ self.columns
        self._check(together, whole)
        inner = [self._units(who, at) for who in self.components if who.kind == "set"]
        if inner:
            together = torch.cat([together, torch.stack(inner)])
        if scaled:
            scale = at(point("mlp_norm", self.site.layer))
            together, whole = together / scale, whole / scale
        return together.numpy(), whole.numpy()

    def _heads(self, layer: int, at: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
        """What each head adds to the read-outs, and what attention adds beside its heads."""
        out = self.model.blocks[layer].attn.W_O.detach().to("cpu", torch.float64)
        mixed = at(point("head", layer)).reshape(-1, *out.shape[:2])
        added = at(point("attn_out", layer))
        raw = torch.einsum("rhd,hdm->rm", mixed, out)
        columns, scale = self._behind(raw, added, point("attn_norm", layer), at, "heads")
        pieces = torch.einsum("rhd,hdm,mc->hrc", mixed, out, columns) / scale
        return list(pieces), added @ self.columns - pieces.sum(0)

    def _units(self, who: Component, at: Any) -> torch.Tensor:
        """What a set of MLP units adds to the read-outs."""
        out = self.model.blocks[who.layer].mlp.W_out.detach().to("cpu", torch.float64)
        hidden = at(point("mlp", who.layer))
        added = at(point("mlp_out", who.layer))
        norm = point("mlp_post_norm", who.layer)
        columns, scale = self._behind(hidden @ out, added, norm, at, "units")
        chosen = list(self.units[who.index].indices)
        return hidden[:, chosen] @ out[chosen] @ columns / scale

    def _behind(
        self, raw: torch.Tensor, added: torch.Tensor, norm: str, at: Any, what: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The read-outs' weights on a raw sum, and what it is divided by.

        A post-norm divides by the observed scale and multiplies by its gains, which are the same at
        every position: they are read off `raw` and what is `added` to the stream.
        """
        rest = added - raw
        wide = ROUNDING * self._eps() * float(added.abs().max())
        one = torch.ones(1, 1, dtype=torch.float64)
        if float((rest - rest.mean(0)).abs().max()) <= wide:
            return self.columns, one
        fits = norm in self.names
        scale, gains = one, one[0]
        if fits:
            scale = at(norm)
            unit = raw / scale
            gains = (added * unit).sum(0) / unit.square().sum(0).clamp(min=1e-30)
            fits = float((unit * gains - added).abs().max()) <= wide
        if not fits:
            raise MechRewardError(
                f"what a block adds to the stream is no sum of its {what}: the writers of this "
                "architecture cannot be told apart."
            )
        return gains[:, None] * self.columns, scale

    def _check(self, together: torch.Tensor, whole: torch.Tensor) -> None:
        """Raise MechRewardError unless the parts add up to what is there."""
        missed = float((together.sum(0) - whole).abs().max())
        most = float(together.abs().max()) * ROUNDING * self._eps()
        require(
            missed <= most + 1e-12,
            f"heads and MLPs do not add up to the residual stream at {self.site} (off by "
            f"{missed:.2g}): the blocks of this architecture add something else, or scale it.",
        )

    def _eps(self) -> float:
        return torch.finfo(next(self.model.parameters()).dtype).eps
