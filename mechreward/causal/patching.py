"""Activation patching between two runs of one model: what of the clean run, put where, brings its
behaviour back."""

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
from mechreward.base.progress import progress
from mechreward.causal.intervene import patch
from mechreward.causal.reference import absolute
from mechreward.models.identity import ModelId, model_id
from mechreward.models.load import device_of
from mechreward.models.row_edits import forward_arms
from mechreward.models.site import Site, parse_sites
from mechreward.probing.activations import forward
from mechreward.probing.neurons import NeuronSet

Metric = Callable[[torch.Tensor], float]


@dataclass(frozen=True, eq=False, repr=False)
class PatchingSweep:
    """`metric` [site position] of the corrupted run with one patch, and of both runs without any.

    A column stands for position `positions[i]` of the corrupted run, which got what the clean run
    has at `sources[i]`; `neurons` is what was patched at each site, in words.
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
        return f"PatchingSweep({shape}, {self.neurons}, clean {self.clean:.3g}, corrupted {self.corrupted:.3g})"

    @property
    def effect(self) -> Float[np.ndarray, "site position"]:
        """(metric - corrupted) / (clean - corrupted): 0 is the corrupted run, 1 the clean one;
        beyond both is possible."""
        return (self.metric - self.corrupted) / (self.clean - self.corrupted)

    def save(self, path: Path | str) -> Path:
        """JSON, written atomically."""
        table = [
            [number if np.isfinite(number) else None for number in row]
            for row in self.metric.tolist()
        ]
        about = {"kind": "patching", "sites": [str(site) for site in self.sites], "metric": table}
        about |= {
            key: getattr(self, key)
            for key in ("positions", "sources", "clean", "corrupted", "neurons")
        }
        return write_json(path, about | {"model_id": asdict(self.model_id)})

    @classmethod
    def load(cls, path: Path | str) -> PatchingSweep:
        """Raises MechRewardError for a file that is missing, damaged, or holds something else."""
        data = read_json(path, "patching sweep")
        require(
            data.get("kind") == "patching",
            f"{path} holds {data.get('kind')}, not a patching sweep.",
        )
        try:
            sites, table = (
                tuple(map(Site.parse, data["sites"])),
                np.array(data["metric"], dtype=np.float64),
            )
            numbers = data["clean"], data["corrupted"], data["neurons"], ModelId(**data["model_id"])
            found = cls(sites, tuple(data["positions"]), tuple(data["sources"]), table, *numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise MechRewardError(f"{path} is a damaged patching sweep: {error}.") from error
        shape = (len(sites), len(found.positions))
        require(
            table.shape == shape,
            f"{path} is a damaged patching sweep: {table.shape} numbers for {shape}.",
        )
        return found


def logit_difference(answer: int, other: int, position: int = -1) -> Metric:
    """Metric: logit of token `answer` minus that of token `other`, at one position (the last by
    default)."""

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
    what: str | None = "patching",
) -> PatchingSweep:
    """Run `corrupted` once for each site and position, with the clean run's activations there and
    nowhere else.

    All positions of a site are rows of one pass, which begins at its layer
    (`models.edits.forward_arms`): equal to one `run_with_hooks` each. Give the two runs the other
    way round to see what breaks the clean one (2309.16042). High- and low-value states of one
    problem are runs like any other.

    Args:
        clean, corrupted: tokens of the two runs, BOS included.
        sites: layers and kinds. A patch at `resid_mid` reaches only the MLP in a TransformerBridge
        (see `Site`).
        metric: `logits [pos vocab]` (float32) -> a number, such as `logit_difference`.
        positions: absolute positions to patch, all by default. A pair (p, q) puts what the clean
            run has at p where the corrupted one has q; runs of different lengths need pairs or
            positions that both have.
        neurons: patch its coordinates alone, at every site; those of the residual stream are the
            same in all layers, an MLP set has its own site only. None patches all neurons.
        batch: rows run at once.

    Raises:
        MechRewardError: runs of different lengths without `positions`, a position that a run lacks,
            a set that does not fit a site or the model, a site the model lacks, or a metric that is
            the same on both runs.
    """
    require(batch >= 1, f"batch counts rows run at once and must be at least 1; {batch} was given.")
    wanted, identity = parse_sites(model, sites), model_id(model)
    pairs = _pairs(len(clean), len(corrupted), positions)
    sets = [_set(model, site, neurons, identity) for site in wanted]
    ends = [float(metric(_logits(model, tokens))) for tokens in (clean, corrupted)]
    require(
        bool(np.isfinite(ends).all()) and abs(ends[0] - ends[1]) > 1e-4 * max(map(abs, ends)),
        f"the metric is {ends[0]:.6g} on the clean run and {ends[1]:.6g} on the corrupted: nothing can be restored.",
    )
    values = forward(model, [clean], wanted, max(site.layer for site in wanted) + 1)
    table = np.zeros((len(wanted), len(pairs)))
    bar = progress(what, "patch", total=table.size)
    with bar:
        for row, (site, chosen) in enumerate(zip(wanted, sets, strict=True)):
            state = values[site][0][:, list(chosen.indices)]
            arms = [(patch(chosen, state[source]).edit([target]),) for source, target in pairs]
            for start in range(0, len(arms), batch):
                part = forward_arms(model, corrupted, arms[start : start + batch]).float()
                table[row, start : start + len(part)] = [float(metric(logits)) for logits in part]
                bar.update(len(part))
    words = f"{len(neurons)} neurons ({neurons.how})" if neurons else "all neurons"
    sources, targets = (tuple(side) for side in zip(*pairs, strict=True))
    return PatchingSweep(tuple(wanted), targets, sources, table, ends[0], ends[1], words, identity)


def _logits(model: Any, tokens: torch.Tensor) -> Float[torch.Tensor, "pos vocab"]:
    return model(tokens[None].to(device_of(model)), return_type="logits")[0].float()


def _pairs(
    clean: int, corrupted: int, positions: Sequence[int] | Sequence[tuple[int, int]] | None
) -> list[tuple[int, int]]:
    """(position in the clean run, position in the corrupted run) of every column."""
    if positions is None:
        require(
            clean == corrupted,
            f"the clean run has {clean} tokens and the corrupted one {corrupted}: say with positions= which state goes "
            "where, as pairs (clean, corrupted).",
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
