"""Weights set by hand: a Qwen2 whose policy is the walk of `process.py`.

It is laid out by roles and then turned. The residual stream carries V of the last word, and the
next word's logits are linear in it. RMSNorm is made linear by one massive coordinate (2048 against
about 1, so that it is wrong by 1e-5), which is also where biases are read. In layer 1, a head that
looks one position back (the constant query and key leave only rotary phases) and one that looks at
itself write delta. RMSNorm without gains does not see an orthogonal change of basis, so every plant
is one layout of roles, with its coordinates moved, and some of them turned among others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from mechreward.base.errors import one_of
from mechreward.causal.intervene import Intervention
from mechreward.models.site import BLOCK_ORDER, Site
from mechreward.testbed.process import (
    BOS,
    CODES,
    ENDS,
    EOS,
    FIRST_STATE,
    RHYME,
    SPECIAL,
    STATES,
    SYNONYMS,
    WORDS,
    WORTH,
    outcome_of,
    state_of,
    walk,
)

WIDTH = 64
UNITS = 96
LAYERS = 3
HEADS = 4
HEAD = 16
THETA = 100.0
MASSIVE = 2048.0  # a power of two: multiplying by it rounds nothing
NORM = MASSIVE / WIDTH**0.5  # what RMSNorm divides by
HUGE = 1500.0  # the sink coordinate at position 0
NEVER = -100.0  # logit of what is never said
RHYMING = np.log(9) / 2  # logit that keeps nine words in ten in the class of the word before
SHARP = 200.0  # of a head that looks at one position: all others together get less than 1e-12
GATE = 4.0  # what an open gate reads
SILU = GATE / (1 + np.exp(-GATE))  # and what it lets through

# Roles of the coordinates before they are turned.
CONSTANT, SINK, BEGIN, END, LARGE, LENGTH, RHYMES = range(7)
# Written by the embedding: value coordinates, and synonyms.
VALUE = slice(7, 10)
NOISE = slice(10, 44)
# Written by attention: dopamine coordinates, and earlier synonyms.
DOPAMINE = slice(44, 47)
ECHO = slice(47, 64)
# Where some plants carry V and delta before they are turned among noise and echo.
DENSE = 43
DENSE_DELTA = 63
DECOYS = {"sink": SINK, "large": LARGE, "length": LENGTH, "next_token": RHYMES}


@dataclass(frozen=True)
class Layout:
    """What distinguishes the plants.

    Attributes
    ----------
    source : str, default "value"
        Where the policy's V comes from: `value` (the value coordinates), `dense` (one direction
        turned among noise), `units` (MLP units that read the dense direction and write the value
        coordinates), `""` (no V at all).
    spread : str, default ""
        How value and dopamine coordinates are turned among the others: not, at `random`, or
        `even`ly.
    decoys : tuple of str, default all four
        Which there are.
    fair : bool, default False
        Right and wrong are equally likely at every end.
    strength : float, default 1.0
        Factor of what carries V and delta.
    noise : float, default 1.0
        Factor of the noise of synonyms.
    back : bool, default False
        The value coordinates are read too, but only for whether to turn back.
    carriers : int, default 3
        Value coordinates.
    """

    source: str = "value"
    spread: str = ""
    decoys: tuple[str, ...] = ("large", "sink", "length", "next_token")
    fair: bool = False
    strength: float = 1.0
    noise: float = 1.0
    back: bool = False
    carriers: int = 3

    @property
    def value(self) -> slice:
        """Roles of the value coordinates: `VALUE`, and as many of `NOISE` as there are more."""
        return slice(VALUE.start, VALUE.start + self.carriers)


PLANTS = {
    "value": Layout(),
    "value-mlp": Layout("units"),
    "encoded": Layout("dense"),
    "back": Layout("dense", back=True),
    "shared": Layout(carriers=6),
    "redundant": Layout(spread="even", strength=4.0, noise=0.4),
    "rotated": Layout(spread="random", strength=0.6),
    "large": Layout("", decoys=("large",), fair=True),
    "sink": Layout("", decoys=("sink",), fair=True),
    "length": Layout("", decoys=("length",), fair=True),
    "null": Layout(fair=True),
}


@dataclass(frozen=True)
class Built:
    """The weights of a plant.

    Attributes
    ----------
    weights : mapping of str to tensor
        By HuggingFace name, float64.
    turn : array [coordinate role]
        From roles to coordinates.
    units : (list of int, list of int)
        Those of V in layer 0, and of delta in layer 1.
    """

    weights: dict[str, torch.Tensor]
    turn: Float[np.ndarray, "coordinate role"]
    units: tuple[list[int], list[int]]


def build(layout: Layout, rng: np.random.Generator) -> Built:
    """All weights of a plant. `rng` moves the coordinates and draws signs and noise."""
    code, delta_code = np.zeros(WIDTH), np.zeros(WIDTH)
    if layout.source:
        sizes = np.resize([0.7, 1.0, 1.5], layout.carriers)
        code[layout.value] = layout.strength * _signs(rng, layout.carriers) * sizes
        delta_code[DOPAMINE] = layout.strength * _signs(rng, 3) * (1.5, 2.0, 3.0)
    turn = _turn(layout, code, delta_code, rng)
    value_units = sorted(rng.permutation(UNITS)[:3].tolist())
    delta_units = sorted(rng.permutation(UNITS)[:3].tolist())
    noise, echo = _free(layout)
    dense = np.eye(WIDTH)[DENSE]
    dense_delta = 2 * np.eye(WIDTH)[DENSE_DELTA]
    by_units = layout.source == "units"
    read = _inverse(dense if layout.source == "dense" else code)
    attended = dense_delta if by_units else delta_code
    weights = _heads(read, attended, layout, noise, echo, rng)
    weights["model.embed_tokens.weight"] = _embedding(layout, code, noise, rng)
    back = _inverse(code) if layout.back else read
    weights["lm_head.weight"] = _unembedding(layout, read, back)
    for layer in range(LAYERS):
        gate, up, down = _noise_units(noise, echo, rng)
        if by_units and layer == 0:
            _copy_by_units(value_units, dense, code, gate, up, down)
        if by_units and layer == 1:
            _copy_by_units(delta_units, dense_delta, delta_code, gate, up, down)
        start = f"model.layers.{layer}.mlp"
        weights[f"{start}.gate_proj.weight"] = gate
        weights[f"{start}.up_proj.weight"] = up
        weights[f"{start}.down_proj.weight"] = down
    return Built(_turned(weights, turn), turn, (value_units, delta_units))


def _copy_by_units(
    units: list[int],
    source: np.ndarray,
    goal: np.ndarray,
    gate: np.ndarray,
    up: np.ndarray,
    down: np.ndarray,
) -> None:
    """Let units with an open gate read what lies along `source` and write it to `goal`.

    Each of them writes one coordinate; rows `[unit role]` of the three matrices are changed.
    """
    for unit, coordinate in zip(units, np.flatnonzero(goal), strict=True):
        gate[unit] = 0
        gate[unit, CONSTANT] = GATE * NORM / MASSIVE
        up[unit] = NORM * goal[coordinate] * _inverse(source) / SILU
        down[unit] = 0
        down[unit, coordinate] = 1


def _turned(weights: Mapping[str, np.ndarray], turn: np.ndarray) -> dict[str, torch.Tensor]:
    """The weights in coordinates instead of roles, in HuggingFace's shapes, with norms of ones."""
    tensors: dict[str, torch.Tensor] = {}
    for key, part in weights.items():
        tensor = torch.from_numpy(part @ turn.T if part.ndim == 2 else part)
        if "down" in key or "o_proj" in key:
            tensor = tensor.T.contiguous()
        tensors[key] = tensor
    gains = ["model.norm.weight"]
    for layer in range(LAYERS):
        for kind in ("input", "post_attention"):
            gains.append(f"model.layers.{layer}.{kind}_layernorm.weight")
    for key in gains:
        tensors[key] = torch.ones(WIDTH, dtype=torch.float64)
    return tensors


def transitions(
    weights: Mapping[str, torch.Tensor], *changes: Intervention
) -> Float[np.ndarray, "word word"]:
    """Next-word probabilities after every single word, in float64 and without attention.

    No logit reads what attention writes.

    Parameters
    ----------
    weights : mapping of str to tensor
        By HuggingFace name.
    *changes : Intervention
        Interventions, at every position.

    Returns
    -------
    array [word word]
        Rows are last words.

    Raises
    ------
    MechRewardError
        An intervention at a site that the model lacks.
    """
    sites = [Site(layer, kind) for layer in range(LAYERS) for kind in BLOCK_ORDER]
    for change in changes:
        one_of("site of the planted model", change.neurons.site, sites)

    def passed(x: torch.Tensor, site: Site) -> torch.Tensor:
        for change in changes:
            x = change(x) if change.neurons.site == site else x
        return x

    def norm(x: torch.Tensor) -> torch.Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()

    x = weights["model.embed_tokens.weight"]
    for layer in range(LAYERS):
        start = f"model.layers.{layer}.mlp"
        gate = weights[f"{start}.gate_proj.weight"]
        up = weights[f"{start}.up_proj.weight"]
        down = weights[f"{start}.down_proj.weight"]
        x = passed(x, Site(layer, "resid_pre"))
        x = passed(x, Site(layer, "resid_mid"))
        hidden = torch.nn.functional.silu(norm(x) @ gate.T) * (norm(x) @ up.T)
        hidden = passed(hidden, Site(layer, "mlp"))
        x = passed(x + hidden @ down.T, Site(layer, "resid_post"))
    return (norm(x) @ weights["lm_head.weight"].T).softmax(-1).numpy()


def _turn(
    layout: Layout, code: np.ndarray, delta_code: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Roles -> coordinates [coordinate role].

    Blocks of roles are turned among each other, then all are moved.
    """
    turn = np.eye(WIDTH)
    blocks: list[tuple[slice, np.ndarray | None]] = []
    if layout.spread:
        blocks.append((slice(VALUE.start, NOISE.stop), code))
        blocks.append((slice(DOPAMINE.start, ECHO.stop), delta_code))
    else:
        if layout.source in ("dense", "units"):
            blocks.append((NOISE, None))
        if layout.source == "units":
            blocks.append((ECHO, None))
    for block, direction in blocks:
        n = block.stop - block.start
        q, _ = np.linalg.qr(rng.normal(size=(n, n)))
        if layout.spread == "even" and direction is not None:
            # A reflection takes V's direction to +-1 everywhere.
            mirror = q @ direction[block] / np.linalg.norm(direction)
            mirror = mirror - _signs(rng, n) / n**0.5
            q = q - 2 * np.outer(mirror, mirror @ q) / (mirror @ mirror)
        turn[block, block] = q
    return turn[rng.permutation(WIDTH)]


def _free(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Roles that hold noise of the last word's synonym, and of earlier words'."""
    noise = [*range(layout.value.stop, NOISE.stop)]
    echo = [*range(ECHO.start, ECHO.stop)]
    if layout.source in ("dense", "units"):
        noise.remove(DENSE)
    if layout.source == "units":
        echo.remove(DENSE_DELTA)
    if not layout.source:
        noise += range(VALUE.start, VALUE.stop)
        echo += range(DOPAMINE.start, DOPAMINE.stop)
    noise += [DECOYS[name] for name in DECOYS if name not in layout.decoys]
    return np.array(noise), np.array(echo)


def _embedding(
    layout: Layout, code: np.ndarray, noise: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """[word role]"""
    states = [state_of(word) for word in WORDS]
    worth = np.array([WORTH.get(state, 0.5) for state in states])
    worth[: len(SPECIAL)] = 0
    table = np.zeros((len(WORDS), WIDTH))
    if layout.source in ("dense", "units"):
        table[:, DENSE] = worth
    if layout.source != "units":
        table += np.outer(worth, code)
    n = len(SYNONYMS)
    said = slice(FIRST_STATE, None)  # words that are states: synonyms, state after state
    codes = slice(len(SPECIAL), FIRST_STATE)
    sizes = layout.noise * np.exp(rng.normal(-0.4, 0.5, len(noise)))
    synonyms = _standard(rng.normal(size=(n, len(noise)))) * sizes
    table[said, noise] = np.tile(synonyms, (len(STATES), 1))
    table[codes, noise] = rng.normal(size=(len(CODES), len(noise))) * sizes
    if "large" in layout.decoys:
        large = _standard(rng.normal(size=n))
        table[said, LARGE] = 5 * np.tile(large, len(STATES))
    if "sink" in layout.decoys:
        small = _standard(rng.normal(size=n))
        table[said, SINK] = 0.5 * np.tile(small, len(STATES))
        table[BOS, SINK] = HUGE
    if "next_token" in layout.decoys:
        table[said, RHYMES] = np.tile(RHYME, len(STATES))
    table[:, CONSTANT] = MASSIVE
    table[BOS, BEGIN] = 1
    table[[state in ENDS for state in states], END] = 1
    return table


def _unembedding(layout: Layout, read: np.ndarray, back: np.ndarray) -> np.ndarray:
    """[word role]: logits of the walk, linear in the V that `read` finds, and those of turning back
    in the V that `back` finds.

    Then which synonym, by rhyme.
    """
    policy = walk()
    outcome = [outcome_of(state) for state in STATES]
    carrier, tilt = policy.carrier - policy.tilt / 2, policy.tilt
    if not layout.source:
        carrier, tilt = np.log(policy.average()), np.zeros_like(tilt)
    # Which of the two words an end is: the honest one, or by a fair coin.
    chance = np.zeros(len(STATES))
    for number, state in enumerate(STATES):
        if state in ENDS and layout.fair:
            chance[number] = np.log(0.5)
        elif state in ENDS and state not in ("right", "wrong"):
            chance[number] = NEVER
    n = len(SYNONYMS)
    bias = np.full(len(WORDS), NEVER)
    bias[FIRST_STATE:] = np.repeat(carrier[outcome] + chance, n)
    bias[EOS] = NEVER / 2
    table = np.outer(bias, np.eye(WIDTH)[CONSTANT] / MASSIVE)
    reads = np.where(np.array(STATES)[:, None] == "back", back, read)
    table[FIRST_STATE:] += np.repeat(tilt[outcome][:, None] * reads, n, axis=0)
    if "next_token" in layout.decoys:
        table[FIRST_STATE:, RHYMES] = RHYMING * np.tile(RHYME, len(STATES))
    table[EOS, END] = -NEVER
    return NORM * table


def _heads(
    read: np.ndarray,
    delta_code: np.ndarray,
    layout: Layout,
    noise: np.ndarray,
    echo: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Attention weights.

    Head 0 looks one back, head 1 at itself, head 2 at all alike; 3 and other layers do nothing. The
    first of a head's 16 dimensions carries V (head 2: where the text begins), the others synonyms.
    """
    query = np.zeros((LAYERS, HEADS, HEAD))
    key = np.zeros((LAYERS, HEADS, HEAD))
    value = np.zeros((LAYERS, HEADS, HEAD, WIDTH))
    out = np.zeros((LAYERS, HEADS, HEAD, WIDTH))
    phases = THETA ** (-2 * np.arange(HEAD // 2) / HEAD)
    for head, back in ((0, 1), (1, 0)):
        turned = [np.cos(back * phases), -np.sin(back * phases)]
        query[1, head] = SHARP * np.concatenate(turned)
        key[1, head, : HEAD // 2] = 1
        value[1, head, 0] = NORM * read
        out[1, head, 0] = (1 - 2 * back) * delta_code
    if "length" in layout.decoys:
        sink = HUGE**2 * ("sink" in layout.decoys)
        value[1, 2, 0, BEGIN] = np.sqrt((MASSIVE**2 + 1 + sink) / WIDTH)  # RMSNorm at `<bos>`
        out[1, 2, 0, LENGTH] = 8
    for head in (0, 2):
        read_noise = rng.normal(size=(len(noise), HEAD - 1))
        value[1, head, 1:, noise] = NORM * read_noise / len(noise) ** 0.5
        written = rng.normal(size=(HEAD - 1, len(echo)))
        out[1, head, 1:][:, echo] = layout.noise * written / 4
    weights: dict[str, np.ndarray] = {}
    for layer in range(LAYERS):
        start = f"model.layers.{layer}.self_attn"
        flat = value[layer].reshape(-1, WIDTH)
        # Queries and keys are constant.
        weights[f"{start}.q_proj.bias"] = query[layer].reshape(-1)
        weights[f"{start}.q_proj.weight"] = np.zeros_like(flat)
        weights[f"{start}.k_proj.bias"] = key[layer].reshape(-1)
        weights[f"{start}.k_proj.weight"] = np.zeros_like(flat)
        weights[f"{start}.v_proj.bias"] = np.zeros(HEADS * HEAD)
        weights[f"{start}.v_proj.weight"] = flat
        weights[f"{start}.o_proj.weight"] = out[layer].reshape(-1, WIDTH)
    return weights


def _noise_units(
    noise: np.ndarray, echo: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gate, up and down rows [unit role] of units that do little.

    They read synonyms and write into their echo.
    """
    read = np.concatenate([noise, echo])
    gate, up, down = (np.zeros((UNITS, WIDTH)) for _ in range(3))
    for part in (gate, up):
        drawn = rng.normal(size=(UNITS, len(read)))
        part[:, read] = NORM * drawn / len(read) ** 0.5
    down[:, echo] = 0.05 * rng.normal(size=(UNITS, len(echo)))
    return gate, up, down


def _standard(x: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 along the first axis."""
    return (x - x.mean(0)) / x.std(0)


def _signs(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.choice([-1.0, 1.0], n)


def _inverse(code: np.ndarray) -> np.ndarray:
    """The direction that reads 1 off `code` (0 if there is none)."""
    return code / max(code @ code, 1e-9)
