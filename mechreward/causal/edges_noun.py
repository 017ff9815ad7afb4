"""`Edges`: who writes a neuron set and who reads it, each beside sets that nobody chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from mechreward.base.errors import MechRewardError, require
from mechreward.base.files import nulled, read_json, write_json
from mechreward.base.frames import Framed
from mechreward.base.plain import visible
from mechreward.causal.edges_written import Component
from mechreward.probing.neurons import NeuronSet
from mechreward.stats import Interval

LEVEL = 0.05  # of the corrected p from which an edge is beyond the controls
SIDES = ("writer", "reader")
# Fields that a file holds as they are.
PLAIN = ("states", "problems", "means", "match_error", "task", "shape", "screened", "under")
NOTHING = Interval(nan, nan, nan, 0)


@dataclass(frozen=True)
class Edge:
    """One component and a neuron set.

    Attributes
    ----------
    side : str
        "writer" or "reader".
    component : Component
        Who.
    score : Interval
        Of a writer, its part of Pearson's r between the set's read-out and V-hat: the parts add up
        to r. Of a reader, the change of the next token in nats (KL divergence) when it alone has
        the set at its mean. Interval clustered by problem.
    draws : tuple of float
        [draw] the same of each matched set.
    p_alone : float
        Two-sided rank among the draws.
    p : float
        The same, corrected over all cells of its side (`stats.corrected.max_statistic`).
    beyond : Interval
        Of a writer, its part of r beyond what step and length tell.
    back : Interval
        Of a reader, the change of the probability of turning back, where answers do.
    back_draws : tuple of float
        [draw] the same of each matched set.
    part : str
        For a set of MLP units what of them is written, "gate", "up" or "pre"; else empty.
    within : bool
        Whether it is a part of another cell, as a set of MLP units is of its MLP: it then counts in
        no sum.
    is_beyond : bool
        Whether the corrected p is at most `LEVEL`.
    """

    side: str
    component: Component
    score: Interval
    draws: tuple[float, ...] = field(repr=False)
    p_alone: float
    p: float
    beyond: Interval = NOTHING
    back: Interval = NOTHING
    back_draws: tuple[float, ...] = field(default=(), repr=False)
    part: str = ""
    within: bool = False

    @property
    def is_beyond(self) -> bool:
        """Whether the corrected p is at most `LEVEL`."""
        return self.p <= LEVEL


@dataclass(frozen=True)
class Reading:
    """How a set's read-out follows V-hat.

    Attributes
    ----------
    r : Interval
        Pearson's, on problems whose states the weights were not fitted to.
    draws : tuple of float
        [draw] the same of each matched set, refitted.
    beyond : float
        Of both without what step and length tell.
    weights : tuple of float
        [k] of the set's neurons, as they were fitted.
    """

    r: Interval
    draws: tuple[float, ...] = field(repr=False)
    beyond: float
    weights: tuple[float, ...] = field(repr=False)

    @property
    def shown(self) -> bool:
        """Whether r's interval excludes 0."""
        return self.r.low > 0 or self.r.high < 0


@dataclass(frozen=True, repr=False)
class Edges(Framed):
    """The circuit map of a neuron set.

    Attributes
    ----------
    neurons : NeuronSet
        The set.
    name : str
        What it is called.
    edges : tuple of Edge
        Writers in the order of the layers, then readers.
    readings : mapping of str to Reading
        By `Edge.part`: how each read-out follows V-hat; "" for a set of the residual stream.
    others : mapping of str to NeuronSet
        Further sets that are cells, by name; their number is that of their component.
    states : int
        States that were looked at.
    problems : int
        Of so many problems.
    means : tuple of float
        [k] of the set's neurons, which readers see instead.
    match_error : float
        Mean error of the match of the draws (`causal.controls.Control`).
    task : str
        Its name.
    shape : tuple of int
        Layers, heads and MLP units of the model.
    screened : int
        Readers that a gradient on other problems left out; 0 where all were computed.
    under : str
        Interventions that were on meanwhile, in words; empty for none.
    draws : int
        How many matched sets there are.
    verdict : str
        `circuit` (writers and readers beyond matched sets), `written`, `read`, `silent` (no
        read-out follows V-hat), or `none`.
    """

    neurons: NeuronSet
    name: str
    edges: tuple[Edge, ...]
    readings: Mapping[str, Reading]
    others: Mapping[str, NeuronSet]
    states: int
    problems: int
    means: tuple[float, ...]
    match_error: float
    task: str
    shape: tuple[int, int, int]
    screened: int = 0
    under: str = ""

    def __repr__(self) -> str:
        writers, readers = self.of("writer"), self.of("reader")
        return (
            f"Edges({visible(self.name)}, {len(self.neurons)} neurons of {self.neurons.site}, "
            f"{len(writers)} writers, {len(readers)} readers; {self.verdict})"
        )

    def __str__(self) -> str:
        lines = [self.sentence, self.counts]
        for edge in self.edges:
            if edge.is_beyond:
                label = self.label(edge)
                lines.append(f"  {edge.side} {label}: {edge.score}, p={edge.p:.2g} corrected")
        return "\n".join(lines)

    def of(self, side: str) -> tuple[Edge, ...]:
        """Edges of one side."""
        return tuple(edge for edge in self.edges if edge.side == side)

    def beyond(self, side: str) -> tuple[Edge, ...]:
        """Edges of one side that are beyond the matched sets, parts of others left out."""
        return tuple(edge for edge in self.of(side) if edge.is_beyond and not edge.within)

    def label(self, edge: Edge) -> str:
        """A component as people call it: "head 1.2", "MLP 0", a set's name."""
        who = edge.component
        names = list(self.others)
        words = {
            "head": f"head {who.layer}.{who.index}",
            "attention": f"attention {who.layer}",
            "mlp": f"MLP {who.layer}",
            "query": f"query {who.layer}.{who.index}",
            "key-value": f"key-value {who.layer}.{who.index}",
        }
        inner = who.kind in ("units", "set")
        text = names[who.index] if inner else words.get(who.kind, who.kind)
        return f"{text} ({edge.part})" if edge.part else text

    @property
    def draws(self) -> int:
        """How many matched sets there are."""
        return len(self.edges[0].draws)

    @property
    def reads_value(self) -> bool:
        """Whether a read-out of the set follows V-hat: its interval excludes 0."""
        return any(reading.shown for reading in self.readings.values())

    @property
    def verdict(self) -> str:
        """`circuit` (writers and readers beyond matched sets), `written`, `read`, `silent` (no
        read-out follows V-hat), or `none`."""
        written, read = bool(self.beyond("writer")), bool(self.beyond("reader"))
        if not self.reads_value:
            return "silent"
        if written and read:
            return "circuit"
        if written:
            return "written"
        return "read" if read else "none"

    @property
    def sentence(self) -> str:
        """The verdict as a title."""
        count = len(self.neurons)
        noun = "units" if self.neurons.site.kind == "mlp" else "coordinates"
        those = f"these {count} {noun}"
        titles = {
            "circuit": f"A circuit of its own: {those} are written by {self._names('writer')} and "
            f"read by {self._names('reader')}",
            "written": f"No circuit of its own: {those} are written by {self._names('writer')}, "
            f"but read as any {count} like them are",
            "read": f"No circuit of its own: {those} are read by {self._names('reader')}, but "
            f"written as any {count} like them are",
            "silent": f"No circuit of its own: {those} do not follow V-hat",
            "none": f"No circuit of its own: what writes and reads {those} is what writes and "
            f"reads any {count} like them",
        }
        return titles[self.verdict]

    @property
    def counts(self) -> str:
        """How many edges are beyond, of how many, on what."""
        phrases = []
        for side in SIDES:
            cells = [edge for edge in self.of(side) if not edge.within]
            phrases.append(f"{len(self.beyond(side))} of {len(cells)} {side}s")
        return (
            f"{' and '.join(phrases)} lie beyond {self.draws} matched sets (two-sided, corrected "
            f"over cells, p at most {LEVEL:g}). {visible(self.neurons.model_id.name)} on "
            f"{visible(self.task)}, {self.states} states of {self.problems} test problems."
            + (f" A gradient left out {self.screened} readers." if self.screened else "")
            + (f" Under {visible(self.under)}." if self.under else "")
        )

    def _names(self, side: str) -> str:
        """The strongest edges beyond, by name; the sum of all readers is none."""
        edges = [edge for edge in self.beyond(side) if edge.component.kind != "all readers"]
        edges.sort(key=lambda edge: -abs(edge.score.estimate))
        names = [_with_article(self.label(edge)) for edge in edges] or ["all readers together"]
        if len(names) > 2:
            return f"{names[0]} and {len(names) - 1} others"
        return " and ".join(names)

    def frame(self) -> pd.DataFrame:
        """A line an edge, with the range of its matched sets."""
        lines = []
        for edge in self.edges:
            line = {
                "side": edge.side,
                "component": str(edge.component),
                "label": self.label(edge),
                "layer": edge.component.layer,
                "part": edge.part,
                "score": edge.score.estimate,
                "low": edge.score.low,
                "high": edge.score.high,
                "matched_low": min(edge.draws),
                "matched_high": max(edge.draws),
                "p_alone": edge.p_alone,
                "p": edge.p,
                "is_beyond": edge.is_beyond,
                "within": edge.within,
            }
            for name in ("beyond", "back"):
                interval = getattr(edge, name)
                line[name] = interval.estimate
                line[f"{name}_low"] = interval.low
                line[f"{name}_high"] = interval.high
            lines.append(line)
        return pd.DataFrame(lines)

    def save(self, path: Path | str) -> Path:
        """JSON, written atomically; all draws are kept."""
        about: dict[str, Any] = {"kind": "edges", "name": self.name}
        about["neurons"] = self.neurons.to_json()
        about["others"] = {name: neurons.to_json() for name, neurons in self.others.items()}
        about["readings"] = {part: asdict(reading) for part, reading in self.readings.items()}
        about["edges"] = [asdict(edge) for edge in self.edges]
        for name in PLAIN:
            about[name] = getattr(self, name)
        return write_json(path, nulled(about))

    @classmethod
    def load(cls, path: Path | str) -> Edges:
        """Read what `save` wrote.

        Raises
        ------
        MechRewardError
            The file is missing, damaged, or holds something else.
        """
        data = read_json(path, "circuit map")
        require(data.get("kind") == "edges", f"{path} holds {data.get('kind')}, not a circuit map.")
        damaged = f"{path} is a damaged circuit map"
        try:
            others = {}
            for name, given in data["others"].items():
                others[name] = NeuronSet.from_json(given, damaged)
            readings = {}
            for part, given in data["readings"].items():
                draws = tuple(map(_number, given["draws"]))
                r = _interval(given["r"])
                weights = tuple(map(_number, given["weights"]))
                readings[part] = Reading(r, draws, _number(given["beyond"]), weights)
            return cls(
                neurons=NeuronSet.from_json(data["neurons"], damaged),
                name=data["name"],
                edges=tuple(map(_edge, data["edges"])),
                readings=readings,
                others=others,
                states=data["states"],
                problems=data["problems"],
                means=tuple(data["means"]),
                match_error=_number(data["match_error"]),
                task=data["task"],
                shape=tuple(data["shape"]),
                screened=data["screened"],
                under=data["under"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MechRewardError(f"{damaged}: {error!r}.") from error


def _with_article(label: str) -> str:
    """Names of which a model has one."""
    return f"the {label}" if label.split()[0] in ("embedding", "unembedding", "biases") else label


def _number(given: float | None) -> float:
    return nan if given is None else float(given)


def _interval(given: Mapping[str, Any]) -> Interval:
    estimate, low, high = (_number(given[name]) for name in ("estimate", "low", "high"))
    return Interval(estimate, low, high, given["n"])


def _edge(given: Mapping[str, Any]) -> Edge:
    fields = dict(given)
    fields["component"] = Component(*given["component"])
    fields["draws"] = tuple(map(_number, given["draws"]))
    fields["back_draws"] = tuple(map(_number, given["back_draws"]))
    for name in ("score", "beyond", "back"):
        fields[name] = _interval(given[name])
    return Edge(**fields)
