"""Read-outs of activations: the value arm, probes of the whole site, and sets nobody chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from mechreward.base.errors import MechRewardError
from mechreward.causal.controls import matched, random
from mechreward.probing.activations import record
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.probe import ValueProbe
from mechreward.probing.pruning import restrict
from mechreward.probing.targets import Examples, states
from mechreward.rollouts.value import Values
from mechreward.uses.confidence.seen import ANSWER, PARTIAL, PROMPT, SEVERAL, Seen, mean_within

Shape = Literal["linear", "mlp"]
VALUE, PROBE, SET = "value", "probe", "set"  # roles of arms that read activations
WHOLE = ("full_linear", "full_mlp")
FEW = 64  # trajectories whose tokens say how large a neuron is (our choice: sizes are stable)


@dataclass(frozen=True)
class ReadOut:
    """A probe of some neurons at states that go on, and one at the ends of answers.

    Attributes
    ----------
    name : str
        Of the arm.
    role : str
        "value", "probe" (of the whole site) or "set" (a control).
    draw : int
        Number of the set, 0 where there is one.
    neurons : tuple of int or None
        What is read; None for the whole site.
    live, end : ValueProbe
        Fitted.
    error : float, default nan
        Of the match (`causal.controls.Control`), where the set is matched.
    """

    name: str
    role: str
    draw: int
    neurons: tuple[int, ...] | None = field(repr=False)
    live: ValueProbe = field(repr=False)
    end: ValueProbe = field(repr=False)
    error: float = nan

    def score(self, seen: Seen, stage: str) -> Float[np.ndarray, " row"]:
        """The read-out at every row of a stage; of several answers its mean over them."""
        rows = seen.rows(stage)
        x = _columns(seen.acts.x[torch.from_numpy(rows)], self.neurons)
        probe = self.live if stage in (PROMPT, PARTIAL) else self.end
        read = probe.predict(x).astype(float)
        return mean_within(read, seen.problem(stage)) if stage == SEVERAL else read

    def why_not(self, seen: Seen, stage: str) -> str:
        """Why it is not defined: never."""
        return ""


@dataclass(frozen=True)
class Rows:
    """What read-outs are fitted to: states that go on with V-hat, or the reward where V-hat is not
    known, and ends of answers with the reward."""

    live: Examples
    end: Examples

    @classmethod
    def of(cls, seen: Seen, values: Values | None) -> Rows:
        """Of the rollouts to fit on.

        Raises
        ------
        MechRewardError
            Values of other rollouts.
        """
        ends = np.zeros(len(seen.acts.step), bool)
        ends[seen.rows(ANSWER)] = True
        live = _examples(seen, ~ends) if values is None else states(seen.acts, values)
        return cls(live, _examples(seen, ends))

    def fitted(
        self,
        name: str,
        role: str,
        shape: Shape,
        seed: int,
        neurons: Sequence[int] | None = None,
        draw: int = 0,
        error: float = nan,
    ) -> ReadOut:
        """A probe of these neurons (None: all), fitted to either kind of state."""
        kept = None if neurons is None else tuple(int(neuron) for neuron in neurons)

        def probe(data: Examples) -> ValueProbe:
            few = data if kept is None else restrict(data, np.array(kept))
            return ValueProbe("mc", shape, seed=seed).fit_examples(few)

        return ReadOut(name, role, draw, kept, probe(self.live), probe(self.end), error)


def given(probe: ValueProbe) -> ReadOut:
    """The value arm of a probe that was fitted elsewhere: it reads ends as it reads states."""
    return ReadOut(VALUE, VALUE, 0, None, probe, probe)


def beside(
    model: Any, rows: Rows, seen: Seen, neurons: NeuronSet, shape: Shape, draws: int, seed: int
) -> tuple[list[ReadOut], dict[str, str]]:
    """The same probe on sets nobody chose: matched one to one in magnitude, and random ones.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one that answered.
    rows : Rows
        What the value arm was fitted to.
    seen : Seen
        Its rollouts, of which `FEW` say how large neurons are.
    neurons : NeuronSet
        The value set.
    shape : str
        Of the probe.
    draws : int
        Sets of each kind.
    seed : int
        Of the draws and the probes.

    Returns
    -------
    read_outs
        One a set.
    missing
        Why a kind of set cannot be drawn, by name.
    """
    runs = seen.runs.subset(range(min(FEW, len(seen.runs))))
    name = str(seen.acts.site)
    tokens = record(model, runs, name, rows="tokens", progress=False)[name]
    here = NeuronSet.of(tokens, neurons.indices, neurons.how)
    read_outs, missing = [], {}
    for kind, draw_sets in (("matched", matched), ("random", random)):
        try:
            controls = draw_sets(here, tokens, draws, seed)
        except MechRewardError as error:
            missing[kind] = str(error).rstrip(".")
            continue
        for control in controls:
            indices = control.neurons.indices
            read_outs.append(
                rows.fitted(kind, SET, shape, seed, indices, control.draw, control.error)
            )
    return read_outs, missing


def _examples(seen: Seen, keep: np.ndarray) -> Examples:
    """Rows of some states with the reward."""
    acts, runs = seen.acts, seen.runs
    trajectory = acts.trajectory[keep]
    reward = np.array(runs.rewards)[trajectory]
    step = acts.step[keep]
    steps = np.array([run.steps for run in runs])[trajectory]
    return Examples(
        x=acts.x[torch.from_numpy(keep)],
        y=reward.astype(float),
        reward=reward,
        group=np.array(runs.groups)[trajectory],
        trajectory=trajectory,
        step=step,
        last=step == steps - 1,
    )


def _columns(x: torch.Tensor, neurons: tuple[int, ...] | None) -> torch.Tensor:
    return x if neurons is None else x[:, list(neurons)]
