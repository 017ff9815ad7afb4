"""One state's circuit as a file that viewers of attribution graphs read.

Fields and their names are those of Neuronpedia's graph schema, of which a node's kind and its label
are free.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mechreward.base.errors import of_kind, require, whole
from mechreward.base.files import safe_name, write_atomic
from mechreward.causal.edges_noun import Edge, Edges
from mechreward.causal.edges_read import path_patched
from mechreward.causal.edges_units import unit_parts
from mechreward.causal.edges_written import Component, written
from mechreward.models.identity import model_id
from mechreward.models.text import pieces
from mechreward.rollouts.trajectory import Rollouts

SET = Component("neuron set")


def circuit_graph(
    model: Any, edges: Edges, runs: Rollouts, trajectory: int, step: int
) -> dict[str, Any]:
    """Who writes and who reads a set at one state.

    A link from a writer to the set weighs what it adds to the read-out there: they add up to the
    read-out. One from the set to a reader weighs the change of the next token in nats when it alone
    has the set at its mean; one from a reader to the token that came next weighs what it loses of
    its log-probability then.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The map's.
    edges : Edges
        The map, made without an intervention.
    runs : Rollouts
        Of the model.
    trajectory : int
        Number of one of them.
    step : int
        Of its states, 0 for the end of the prompt; something follows it.

    Returns
    -------
    dict
        `metadata`, `qParams`, `nodes` and `links`.

    Raises
    ------
    MechRewardError
        Another model, a state that is not there or that ends the answer, or a map that was made
        under an intervention.
    """
    of_kind("edges", edges, Edges, "mechreward.edges measures them")
    of_kind("runs", runs, Rollouts, "sample makes them of problems")
    edges.neurons.model_id.check(model_id(model), "circuit map")
    require(not edges.under, "a state's circuit is that of the model as it is: map it so.")
    trajectory, step = whole("trajectory", trajectory, 0), whole("step", step, 0)
    require(trajectory < len(runs), f"there are trajectories 0 to {len(runs) - 1}.")
    run = runs[trajectory]
    require(
        step < len(run.step_ends) - 1,
        f"trajectory {trajectory} goes on from states 0 to {len(run.step_ends) - 2}; "
        f"{step} was given.",
    )
    end = run.step_ends[step]
    graph = _Graph(edges, end)
    parts = _parts_at(model, edges, runs.subset([trajectory]), step)
    for edge in edges.of("writer"):
        graph.add(edge, parts[edge.part][edge.component], "")
    following = int(run.tokens[end + 1])
    (text,) = pieces(model, [following])
    token = graph.node(Component("logit"), following, f"next token {text!r}", "logit")
    units = list(edges.others.values())
    who = [edge.component for edge in edges.of("reader")]
    ((clean, patched),) = path_patched(
        model, run.tokens, [edges.neurons], [torch.tensor(edges.means)], who, [end], units
    )
    changes = (clean.exp() * (clean - patched[0])).sum(-1)[:, 0].clamp(min=0)
    lost = (clean[0] - patched[0, :, 0])[:, following]
    for edge, change, loss in zip(edges.of("reader"), changes.tolist(), lost.tolist(), strict=True):
        graph.link(graph.add(edge, change, "reader"), token, loss)
    texts = pieces(model, run.tokens[: end + 1])
    name = safe_name(f"{edges.name} {run.problem_id} {trajectory} {step}")
    return {
        "metadata": {
            "slug": name.lower(),
            "scan": edges.neurons.model_id.name,
            "prompt_tokens": texts,
            "prompt": "".join(texts),
        },
        "qParams": {
            "pinnedIds": [graph.center],
            "supernodes": [],
            "linkType": "both",
            "clickedId": graph.center,
            "sg_pos": "",
        },
        "nodes": graph.nodes,
        "links": graph.links,
    }


def save_graph(
    path: Path | str, model: Any, edges: Edges, runs: Rollouts, trajectory: int, step: int
) -> Path:
    """`circuit_graph` as a JSON file, such as `circuit.json`, written atomically."""
    graph = circuit_graph(model, edges, runs, trajectory, step)
    return write_atomic(path, json.dumps(graph, indent=1, allow_nan=False) + "\n")


class _Graph:
    """Nodes and links of one state, around the set."""

    def __init__(self, edges: Edges, end: int) -> None:
        self.edges, self.end = edges, end
        self.nodes: list[dict[str, Any]] = []
        self.links: list[dict[str, Any]] = []
        words = f"{edges.name}: {len(edges.neurons)} of {edges.neurons.site}"
        layer = str(edges.neurons.site.layer)
        self.center = self.node(SET, 0, words, "neuron set", layer)

    def add(self, edge: Edge, weight: float, side: str) -> str:
        """A node of a component, and its link with the set."""
        kind = edge.component.kind
        number = len(self.nodes)
        label = self.edges.label(edge)
        layer = ""
        if kind in ("unembedding", "all readers"):
            layer = str(self.edges.shape[0])
        name = self.node(edge.component, number, label, kind, layer)
        if side == "reader":
            self.link(self.center, name, weight)
        else:
            self.link(name, self.center, weight)
        return name

    def node(self, who: Component, number: int, label: str, kind: str, layer: str = "") -> str:
        """The id of a new node. Numbers tell nodes of one layer apart."""
        if not layer:
            layer = str(who.layer) if who.layer >= 0 else "E"
        if kind == "logit":
            layer = str(self.edges.shape[0] + 1)
        name = f"{layer}_{number}_{self.end}"
        node = {
            "node_id": name,
            "feature": number,
            "layer": layer,
            "ctx_idx": self.end,
            "feature_type": kind,
            "jsNodeId": f"{layer}_{number}-{self.end}",
            "clerp": label,
        }
        self.nodes.append(node)
        return name

    def link(self, source: str, target: str, weight: float) -> None:
        """From one node to another."""
        self.links.append({"source": source, "target": target, "weight": float(weight)})


def _parts_at(
    model: Any, edges: Edges, run: Rollouts, step: int
) -> dict[str, dict[Component, float]]:
    """What each component adds to each read-out at one state."""
    neurons = edges.neurons
    units = list(edges.others.values())
    found = {}
    for part, reading in edges.readings.items():
        weights = np.zeros((neurons.width, 1))
        weights[list(neurons.indices), 0] = reading.weights
        if part:
            split = unit_parts(model, run, neurons.site.layer, part, weights, units)
        else:
            split = written(model, run, neurons.site, weights, units=units)
        column = split.parts[:, step, 0].tolist()
        found[part] = dict(zip(split.components, column, strict=True))
    return found
