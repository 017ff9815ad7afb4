"""Activation patching between two runs of one model.

What of the clean run, put where, brings its behaviour back?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from mechreward.base.errors import MechRewardError, require
from mechreward.base.files import read_json, write_json
from mechreward.base.plain import visible
from mechreward.base.progress import bar
from mechreward.causal.intervene import patch
from mechreward.causal.reference import absolute
from mechreward.models.ability import evaluation
from mechreward.models.identity import ModelId, model_id
from mechreward.models.load import device_of
from mechreward.models.row_edits import forward_arms
from mechreward.models.site import Site, parse_sites
from mechreward.probing.activations import forward
from mechreward.probing.neurons import NeuronSet

Metric = Callable[[torch.Tensor], float]


@dataclass(frozen=True, eq=False, repr=False)
class PatchingSweep:
    """What a metric is when one site and position is patched.

    Attributes
    ----------
    sites : tuple of Site
        Rows of `metric`.
    positions : tuple of int
        Columns of `metric`: positions of the corrupted run.
    sources : tuple of int
        Positions of the clean run whose activations they got.
    metric : array [site position]
        Of the corrupted run with one patch.
    clean : float
        Metric of the clean run.
    corrupted : float
        Metric of the corrupted run.
    neurons : str
        What was patched at each site, in words.
    model_id : ModelId
        The model.
    effect : array [site position]
        0 is the corrupted run, 1 the clean one; beyond both is possible.
    """

    sites: tuple[Site, ...]
    positions: tuple[int, ...]
    sources: tuple[int, ...]
    metric: Float[np.ndarray, "site position"]
    clean: float
    corrupted: float
    neurons: str
    model_id: ModelId

    def __repr__(self) -> str:
        shape = f"{len(self.sites)} sites x {len(self.positions)} positions"
        ends = f"clean {self.clean:.3g}, corrupted {self.corrupted:.3g}"
        return f"PatchingSweep({shape}, {visible(self.neurons)}, {ends})"

    @property
    def effect(self) -> Float[np.ndarray, "site position"]:
        """(metric - corrupted) / (clean - corrupted).

        0 is the corrupted run, 1 the clean one; beyond both is possible.
        """
        return (self.metric - self.corrupted) / (self.clean - self.corrupted)

    def save(self, path: Path | str) -> Path:
        """JSON, written atomically."""
        table = []
        for row in self.metric.tolist():
            table.append([number if np.isfinite(number) else None for number in row])
        about = {
            "kind": "patching",
            "sites": [str(site) for site in self.sites],
            "metric": table,
            "positions": self.positions,
            "sources": self.sources,
            "clean": self.clean,
            "corrupted": self.corrupted,
            "neurons": self.neurons,
            "model_id": asdict(self.model_id),
        }
        return write_json(path, about)

    @classmethod
    def load(cls, path: Path | str) -> PatchingSweep:
        """Read what `save` wrote.

        Raises
        ------
        MechRewardError
            The file is missing, damaged, or holds something else.
        """
        data = read_json(path, "patching sweep")
        require(
            data.get("kind") == "patching",
            f"{path} holds {data.get('kind')}, not a patching sweep.",
        )
        try:
            sites = tuple(map(Site.parse, data["sites"]))
            table = np.array(data["metric"], dtype=np.float64)
            sweep = cls(
                sites=sites,
                positions=tuple(data["positions"]),
                sources=tuple(data["sources"]),
                metric=table,
                clean=data["clean"],
                corrupted=data["corrupted"],
                neurons=data["neurons"],
                model_id=ModelId(**data["model_id"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MechRewardError(f"{path} is a damaged patching sweep: {error}.") from error
        shape = (len(sites), len(sweep.positions))
        require(
            table.shape == shape,
            f"{path} is a damaged patching sweep: {table.shape} numbers for {shape}.",
        )
        return sweep


def logit_difference(answer: int, other: int, position: int = -1) -> Metric:
    """Metric: logit of token `answer` minus that of token `other`, at one position.

    Parameters
    ----------
    answer : int
        Token id.
    other : int
        Token id.
    position : int, default -1
        Absolute, or from the end if negative.

    Returns
    -------
    function
        Takes `logits [pos vocab]`.
    """

    def metric(logits: torch.Tensor) -> float:
        return float(logits[position, answer] - logits[position, other])

    return metric


@torch.no_grad()
def patching_sweep(
    model: Any,
    clean: Int[torch.Tensor, " pos"],
    corrupted: Int[torch.Tensor, " other"],
    sites: str | Site | Sequence[str] | Sequence[Site],
    metric: Metric,
    *,
    positions: Sequence[int] | Sequence[tuple[int, int]] | None = None,
    neurons: NeuronSet | None = None,
    batch: int = 64,
    progress: bool | str = True,
) -> PatchingSweep:
    """Patch every site and position alone: the clean run's activations there and nowhere else.

    All positions of a site are rows of one pass, which begins at its layer
    (`models.row_edits.forward_arms`): equal to one `run_with_hooks` each. Give the two runs the
    other way round to see what breaks the clean one (arXiv 2309.16042). High- and low-value states
    of one problem are runs like any other.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model.
    clean : tensor [pos]
        Tokens of the run that values are taken from, BOS included.
    corrupted : tensor [other]
        Tokens of the run that they are put into.
    sites : str, Site, or sequence of either
        Layers and kinds. A patch at `resid_mid` reaches only the MLP in a TransformerBridge (see
        `Site`).
    metric : function
        `logits [pos vocab]` (float32) -> a number, such as `logit_difference`.
    positions : sequence of int or of (int, int), or None, default None
        Absolute positions to patch, all by default. A pair (p, q) puts what the clean run has at p
        where the corrupted one has q; runs of different lengths need pairs or positions that both
        have.
    neurons : NeuronSet or None, default None
        Patch its coordinates alone, at every site; those of the residual stream are the same in all
        layers, an MLP set has its own site only. None patches all neurons.
    batch : int, default 64
        Rows run at once.
    progress : bool or str, default True
        Whether a bar is shown, or its title.

    Returns
    -------
    PatchingSweep
        The metric by site and position.

    Raises
    ------
    MechRewardError
        Runs of different lengths without `positions`, a position that a run lacks, a set that does
        not fit a site or the model, a site the model lacks, or a metric that is the same on both
        runs.

    Notes
    -----
    A result is read as (metric - corrupted) / (clean - corrupted), the usual normalisation.
    """
    require(batch >= 1, f"batch counts rows run at once and must be at least 1; {batch} was given.")
    wanted, identity = parse_sites(model, sites), model_id(model)
    pairs = _pairs(len(clean), len(corrupted), positions)
    sets = [_set(model, site, neurons, identity) for site in wanted]
    ends = [float(metric(_logits(model, tokens))) for tokens in (clean, corrupted)]
    require(
        bool(np.isfinite(ends).all()) and abs(ends[0] - ends[1]) > 1e-4 * max(map(abs, ends)),
        f"the metric is {ends[0]:.6g} on the clean run and {ends[1]:.6g} on the corrupted: "
        "nothing can be restored.",
    )
    values = forward(model, [clean], wanted, max(site.layer for site in wanted) + 1)
    table = np.zeros((len(wanted), len(pairs)))
    counter = bar(progress, "patching", "patch", total=table.size)
    with counter:
        for row, (site, chosen) in enumerate(zip(wanted, sets, strict=True)):
            state = values[site][0][:, list(chosen.indices)]
            arms = [(patch(chosen, state[source]).edit([target]),) for source, target in pairs]
            for start in range(0, len(arms), batch):
                part = forward_arms(model, corrupted, arms[start : start + batch]).float()
                table[row, start : start + len(part)] = [float(metric(logits)) for logits in part]
                counter.update(len(part))
    words = f"{len(neurons)} neurons ({neurons.how})" if neurons else "all neurons"
    sources, targets = (tuple(side) for side in zip(*pairs, strict=True))
    return PatchingSweep(tuple(wanted), targets, sources, table, ends[0], ends[1], words, identity)


def _logits(model: Any, tokens: torch.Tensor) -> Float[torch.Tensor, "pos vocab"]:
    with evaluation(model, len(tokens)):
        return model(tokens[None].to(device_of(model)), return_type="logits")[0].float()


def _pairs(
    clean: int, corrupted: int, positions: Sequence[int] | Sequence[tuple[int, int]] | None
) -> list[tuple[int, int]]:
    """(position in the clean run, position in the corrupted run) of every column."""
    if positions is None:
        require(
            clean == corrupted,
            f"the clean run has {clean} tokens and the corrupted one {corrupted}: say with "
            "positions= which state goes where, as pairs (clean, corrupted).",
        )
        positions = range(clean)
    pairs: list[tuple[int, int]] = []
    for place in positions:
        both = tuple(place) if isinstance(place, Sequence) else (place, place)
        require(
            len(both) == 2,
            f"positions are numbers or pairs (clean, corrupted); {place!r} was given.",
        )
        pairs.append((int(both[0]), int(both[1])))
    for name, length, side in (("clean", clean, 0), ("corrupted", corrupted, 1)):
        last = absolute([pair[side] for pair in pairs])[-1]
        require(last < length, f"the {name} run has positions 0 to {length - 1}; {last} was given.")
    return pairs


def _set(model: Any, site: Site, neurons: NeuronSet | None, identity: ModelId) -> NeuronSet:
    """What is patched at a site."""
    width = site.width(model)
    if neurons is None:
        return NeuronSet(site, tuple(range(width)), width, identity, (), "all")
    neurons.model_id.check(identity, "neuron set")
    require(
        site == neurons.site or "mlp" not in (site.kind, neurons.site.kind),
        f"neurons of {neurons.site} are not neurons of {site}: an MLP's units are its own.",
    )
    return NeuronSet(site, neurons.indices, width, identity, (), neurons.how)
