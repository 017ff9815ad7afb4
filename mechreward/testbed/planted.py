"""Models whose value and dopamine neurons are known, and plants into recorded activations.

`process.py` holds the process and its values, `layout.py` the weights. What is exact here and what
is measured with the package's verbs share nothing but those weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from mechreward.base.errors import one_of, require
from mechreward.base.streams import rng
from mechreward.causal.intervene import Intervention
from mechreward.models.identity import ModelId, model_id
from mechreward.models.site import BLOCK_ORDER, HOOKS, Site
from mechreward.probing.activations import Activations
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import GAMMA
from mechreward.tasks import Problem
from mechreward.testbed import layout, process
from mechreward.testbed.layout import PLANTS, Built, Layout, build
from mechreward.testbed.process import BOS, EOS, WORDS, Planted


@dataclass(frozen=True)
class Truth:
    """What is known about a planted model.

    Attributes
    ----------
    value_neurons : mapping of str to NeuronSet
        The planted set of every site (`"0.resid_post"`, `"1.mlp"`, ...), empty where no coordinate
        carries V.
    dopamine_neurons : mapping of str to NeuronSet
        The same for delta.
    decoys : mapping of str to tuple of int
        Residual coordinates that carry something else, by name.
    used : bool
        Whether the policy reads the value neurons.
    weights : mapping of str to tensor
        By HuggingFace name, float64.
    clean : array [left word]
        V of every last word with 0 to `max_tokens` tokens left.
    """

    value_neurons: Mapping[str, NeuronSet]
    dopamine_neurons: Mapping[str, NeuronSet]
    decoys: Mapping[str, tuple[int, ...]]
    used: bool
    weights: Mapping[str, torch.Tensor] = field(repr=False)
    clean: Float[np.ndarray, "left word"] = field(repr=False)

    def transitions(self, *changes: Intervention) -> Float[np.ndarray, "word word"]:
        """Exact probability of the next word after every last word.

        The model is run in float64 on single words without attention, whose output the policy never
        reads. Where the massive coordinate itself is changed, this no longer holds.

        Parameters
        ----------
        *changes : Intervention
            Interventions, at every position.

        Returns
        -------
        array [word word]
            Rows are last words.
        """
        return layout.transitions(self.weights, *changes)

    def value(self, tokens: Int[torch.Tensor, " pos"]) -> float:
        """V of a prefix.

        The token limit counts (`process.values`). Once the answer is over it is the reward,
        whatever follows.

        Parameters
        ----------
        tokens : tensor [pos]
            A prompt and any part of an answer.

        Returns
        -------
        float
            Exact.

        Raises
        ------
        MechRewardError
            A prefix that does not hold the whole prompt.
        """
        word, said = process.prefix(tokens.numpy())
        require(
            said >= 0,
            "a prefix holds the whole prompt: its last word, a state, has V; code words have none.",
        )
        return float(self.clean[max(0, Planted.max_tokens - said), word])

    def delta(self, tokens: Int[torch.Tensor, " pos"]) -> float:
        """TD error of a prefix's last token.

        gamma V_t - V_(t-1), and r - V_(t-1) at the end of the answer. What follows the end
        (`<eos>`) belongs to no step and has 0.
        """
        word, words = process.prefix(tokens.numpy())
        _, words_before = process.prefix(tokens[:-1].numpy())
        if words == words_before >= 0:
            return 0.0
        discount = GAMMA if process.goes_on()[word] else 1.0
        return discount * self.value(tokens) - self.value(tokens[:-1])

    def values(self, runs: Rollouts) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]]:
        """V and delta of every state of `runs`, in the rows of `estimate`: delta is NaN at s_0."""
        v, delta = [], []
        for run in runs:
            for step, end in enumerate(run.step_ends):
                v.append(self.value(run.tokens[: end + 1]))
                delta.append(self.delta(run.tokens[: end + 1]) if step else float("nan"))
        return np.array(v), np.array(delta)

    def accuracy(self, problems: list[Problem], *changes: Intervention) -> float:
        """Expected accuracy under interventions, by dynamic programming.

        It is what an ablation must find.

        Parameters
        ----------
        problems : list of Problem
            Of the planted task.
        *changes : Intervention
            Interventions, at every position.

        Returns
        -------
        float
            Mean over the problems.
        """
        values = self.clean
        if changes:
            values = process.values(self.transitions(*changes), Planted.max_tokens)
        starts = [WORDS.index(str(problem.prompt).split()[-1]) for problem in problems]
        return float(np.mean(values[-1, starts]))


@dataclass(frozen=True)
class PlantedModel:
    """A planted model with its answer sheet.

    Attributes
    ----------
    model : TransformerBridge
        Goes into every verb of the package like any other.
    task : Planted
        And so does its task.
    truth : Truth
        The answer sheet.
    name : str
        Of the plant.
    seed : int
        Seed of coordinates, signs and noise.
    """

    model: Any = field(repr=False)
    task: Planted = field(repr=False)
    truth: Truth = field(repr=False)
    name: str
    seed: int


def planted(name: str, seed: int = 0) -> PlantedModel:
    """A model made by construction, called `planted-NAME` in results.

    - `value`: three residual coordinates carry V and are read; three carry delta of the last step.
    - `value-mlp`: three MLP units of layer 0 compute V from a dense direction, and three of layer 1
      delta.
    - `encoded`: three coordinates carry V, but the policy reads it elsewhere, along a dense
      direction.
    - `redundant`: 37 of 64 coordinates carry V, each with noise.
    - `rotated`: V lies along a random direction.
    - `null`: the twin of `value` in every activation, but a fair coin decides every outcome, so V
      is .5 throughout.
    - `large`, `sink`, `length`: V is .5 throughout, nothing knows the state, and there is this one
      decoy: a coordinate of large token noise, one that is huge at position 0, one that falls with
      position.

    The others have these three decoys and `next_token`, which says how the next word ends and is
    read.

    Parameters
    ----------
    name : str
        Of the plant.
    seed : int, default 0
        Moves the coordinates and draws signs and noise; the process stays the same.

    Returns
    -------
    PlantedModel
        Model, task and truth.

    Raises
    ------
    MechRewardError
        No plant has this name.
    """
    one_of("planted model", name, PLANTS)
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from mechreward.bundled.vocabulary import tokenizer

    plan = PLANTS[name]
    built = build(plan, rng("planted decoys", seed))
    config = Qwen2Config(
        vocab_size=len(WORDS),
        hidden_size=layout.WIDTH,
        intermediate_size=layout.UNITS,
        num_hidden_layers=layout.LAYERS,
        num_attention_heads=layout.HEADS,
        num_key_value_heads=layout.HEADS,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": layout.THETA},
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=0,
        architectures=["Qwen2ForCausalLM"],
    )
    inner = Qwen2ForCausalLM(config)
    inner.load_state_dict({key: tensor.float() for key, tensor in built.weights.items()})
    words = tokenizer(WORDS)
    # Or TransformerLens reloads it, see `models.load`.
    words.init_kwargs |= {"add_bos_token": True, "name_or_path": name}
    model = TransformerBridge.boot_transformers(
        f"planted-{name}", hf_model=inner, tokenizer=words
    ).eval()
    identity = model_id(model)
    truth = Truth(
        value_neurons=_neurons(plan, built, identity, "V"),
        dopamine_neurons=_neurons(plan, built, identity, "delta"),
        decoys=_decoys(plan, built),
        used=plan.source in ("value", "units") and not plan.fair,
        weights=built.weights,
        clean=process.values(layout.transitions(built.weights), Planted.max_tokens),
    )
    return PlantedModel(model, Planted(), truth, name, seed)


def plant(
    acts: Activations, column: int, target: Float[np.ndarray, " row"], share: float, seed: int = 0
) -> Activations:
    """Recorded activations with a share of one coordinate's variance replaced by a target.

    What the coordinate held keeps the rest of the variance, without the part that already went with
    the target: the squared correlation is `share` exactly, mean and variance stay.

    Parameters
    ----------
    acts : Activations
        What was recorded.
    column : int
        The coordinate.
    target : array [row]
        V or delta of every row.
    share : float
        Of the variance, in [0, 1].
    seed : int, default 0
        Draws the sign.

    Returns
    -------
    Activations
        A changed copy.

    Raises
    ------
    MechRewardError
        A column out of range, a share outside [0, 1], a target that does not match the rows, is not
        finite or constant, or a coordinate that is.
    """
    require(
        0 <= column < acts.width,
        f"column {column} is out of range: {acts.site} has 0 to {acts.width - 1}.",
    )
    require(0 <= share <= 1, f"a share of the variance lies in [0, 1]; {share} was given.")
    rows = acts.x.shape[0]
    require(len(target) == rows, f"the target has {len(target)} values; there are {rows} rows.")
    require(
        bool(np.isfinite(target).all()),
        "the target holds values that are not finite (delta has none at s_0).",
    )
    old = acts.x[:, column].double().numpy()
    t = target - target.mean()
    rest = old - old.mean()
    require(bool(t.std() > 1e-9), "the target is constant: nothing can be planted.")
    rest = rest - t * (rest @ t) / (t @ t)
    require(
        bool(rest.std() > 1e-9 * (1 + abs(old.mean()))),
        f"neuron {column} holds nothing that the target does not hold.",
    )
    sign = rng("planted sign", seed).choice([-1.0, 1.0])
    mix = sign * np.sqrt(share) * t / t.std() + np.sqrt(1 - share) * rest / rest.std()
    x = acts.x.clone()
    x[:, column] = torch.from_numpy(old.mean() + old.std() * mix).to(x)
    return replace(acts, x=x)


def _neurons(plan: Layout, built: Built, identity: ModelId, what: str) -> dict[str, NeuronSet]:
    """The planted set of every site.

    V is there from the start or, by units, from layer 0 on; delta from layer 1 on.
    """
    if what == "V":
        layer, begin, roles, others = 0, "resid_pre", layout.VALUE, layout.NOISE
    else:
        layer, begin, roles, others = 1, "resid_mid", layout.DOPAMINE, layout.ECHO
    by_units = plan.source == "units"
    if by_units:
        begin = "resid_post"
    if plan.spread == "even":
        roles = slice(roles.start, others.stop)
    hidden = not plan.source or plan.fair or plan.spread == "random"
    coordinates = () if hidden else _places(built, roles)
    first = layer, BLOCK_ORDER.index(begin)
    sets = {}
    for number in range(layout.LAYERS):
        for kind in HOOKS:
            indices: tuple[int, ...] = ()
            if kind == "mlp":
                if by_units and number == layer:
                    indices = tuple(built.units[layer])
            elif (number, BLOCK_ORDER.index(kind)) >= first:
                indices = coordinates
            site = Site(number, kind)
            width = layout.UNITS if kind == "mlp" else layout.WIDTH
            how = f"planted: carry {what}"
            sets[str(site)] = NeuronSet(site, indices, width, identity, (), how)
    return sets


def _decoys(plan: Layout, built: Built) -> dict[str, tuple[int, ...]]:
    """Residual coordinates that carry no value.

    The decoys, the massive one, and in the null twin those of `value`.
    """
    roles = {name: layout.DECOYS[name] for name in plan.decoys}
    roles |= {"massive": layout.CONSTANT, "begin": layout.BEGIN, "end": layout.END}
    places = {name: _places(built, slice(role, role + 1)) for name, role in roles.items()}
    if plan.fair and plan.source:
        places["level"] = _places(built, layout.VALUE)
        places["change"] = _places(built, layout.DOPAMINE)
    return places


def _places(built: Built, roles: slice) -> tuple[int, ...]:
    """Coordinates that a block of roles went to."""
    largest = np.abs(built.turn[:, roles]).max(1)
    return tuple(np.flatnonzero(largest > 1e-9).tolist())
