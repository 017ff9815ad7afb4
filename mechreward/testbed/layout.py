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
from mechreward.models.site import Site
from mechreward.testbed.process import (
    BOS,
    CODES,
    ENDS,
    EOS,
    FIRST,
    RHYME,
    SPECIAL,
    STATES,
    SYNONYMS,
    WORDS,
    WORTH,
    outcome_of,
    walk,
)

WIDTH, UNITS, LAYERS, HEADS, HEAD, THETA = 64, 96, 3, 4, 16, 100.0
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
VALUE, NOISE = slice(7, 10), slice(10, 44)  # written by the embedding: value coordinates, synonyms
DOPAMINE, ECHO = (
    slice(44, 47),
    slice(47, 64),
)  # written by attention: dopamine coordinates, earlier synonyms
DENSE, DENSE_DELTA = (
    43,
    63,
)  # where some plants carry V and delta before they are turned among noise and echo
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
    """

    source: str = "value"
    spread: str = ""
    decoys: tuple[str, ...] = ("large", "sink", "length", "next_token")
    fair: bool = False
    strength: float = 1.0
    noise: float = 1.0


PLANTS = {
    "value": Layout(),
    "value-mlp": Layout("units"),
    "encoded": Layout("dense"),
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
        code[VALUE] = layout.strength * _signs(rng, 3) * (0.7, 1.0, 1.5)
        delta_code[DOPAMINE] = layout.strength * _signs(rng, 3) * (1.5, 2.0, 3.0)
    turn = _turn(layout, code, delta_code, rng)
    units = tuple(sorted(rng.permutation(UNITS)[:3].tolist()) for _ in range(2))
    noise, echo = _free(layout)
    dense, dense_delta = np.eye(WIDTH)[DENSE], 2 * np.eye(WIDTH)[DENSE_DELTA]
    read = _inverse(dense if layout.source == "dense" else code)
    weights = _heads(
        read, dense_delta if layout.source == "units" else delta_code, layout, noise, echo, rng
    )
    embedding = _embedding(layout, code, noise, rng)
    weights["model.embed_tokens.weight"] = embedding
    weights["lm_head.weight"] = _unembedding(layout, read)
    for layer in range(LAYERS):
        mlp = _noise_units(noise, echo, rng)
        if layout.source == "units" and layer < 2:
            source, goal = ((dense, code), (dense_delta, delta_code))[layer]
            for unit, coordinate in zip(units[layer], np.flatnonzero(goal), strict=True):
                gate, up, down = (part[unit] for part in mlp)
                gate[:], up[:], down[:] = 0, NORM * goal[coordinate] * _inverse(source) / SILU, 0
                gate[CONSTANT], down[coordinate] = GATE * NORM / MASSIVE, 1
        for key, part in zip(("gate", "up", "down"), mlp, strict=True):
            weights[f"model.layers.{layer}.mlp.{key}_proj.weight"] = part
    found = {
        key: torch.from_numpy(part @ turn.T if part.ndim == 2 else part)
        for key, part in weights.items()
    }
    for key in found:
        if "down" in key or "o_proj" in key:
            found[key] = found[key].T.contiguous()
    gains = [
        f"model.layers.{i}.{kind}_layernorm.weight"
        for i in range(LAYERS)
        for kind in ("input", "post_attention")
    ]
    found |= {key: torch.ones(WIDTH, dtype=torch.float64) for key in (*gains, "model.norm.weight")}
    return Built(found, turn, (units[0], units[1]))


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
    function
        Rows are last words.

    Raises
    ------
    MechRewardError
        An intervention at a site that the model lacks.
    """
    sites = [
        Site(layer, kind)
        for layer in range(LAYERS)
        for kind in ("resid_pre", "resid_mid", "mlp", "resid_post")
    ]
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
        gate, up, down = (
            weights[f"model.layers.{layer}.mlp.{key}_proj.weight"] for key in ("gate", "up", "down")
        )
        x = passed(passed(x, Site(layer, "resid_pre")), Site(layer, "resid_mid"))
        hidden = torch.nn.functional.silu(norm(x) @ gate.T) * (norm(x) @ up.T)
        x = passed(x + passed(hidden, Site(layer, "mlp")) @ down.T, Site(layer, "resid_post"))
    return (norm(x) @ weights["lm_head.weight"].T).softmax(-1).numpy()


def _turn(
    layout: Layout, code: np.ndarray, delta_code: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Roles -> coordinates [coordinate role].

    Blocks of roles are turned among each other, then all are moved.
    """
    turn = np.eye(WIDTH)
    if layout.spread:
        blocks = [
            (slice(VALUE.start, NOISE.stop), code),
            (slice(DOPAMINE.start, ECHO.stop), delta_code),
        ]
    else:
        blocks = [(NOISE, None)] * (layout.source in ("dense", "units")) + [(ECHO, None)] * (
            layout.source == "units"
        )
    for block, direction in blocks:
        n = block.stop - block.start
        q = np.linalg.qr(rng.normal(size=(n, n)))[0]
        if (
            layout.spread == "even" and direction is not None
        ):  # a reflection takes V's direction to +-1 everywhere
            mirror = q @ direction[block] / np.linalg.norm(direction) - _signs(rng, n) / n**0.5
            q = q - 2 * np.outer(mirror, mirror @ q) / (mirror @ mirror)
        turn[block, block] = q
    return turn[rng.permutation(WIDTH)]


def _free(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Roles that hold noise of the last word's synonym, and of earlier words'."""
    noise, echo = [*range(NOISE.start, NOISE.stop)], [*range(ECHO.start, ECHO.stop)]
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
    worth = np.array([WORTH.get(word.split(".")[0], 0.5) for word in WORDS])
    worth[: len(SPECIAL)] = 0
    table = np.zeros((len(WORDS), WIDTH))
    if layout.source in ("dense", "units"):
        table[:, DENSE] = worth
    if layout.source != "units":
        table += np.outer(worth, code)
    n, codes = len(SYNONYMS), slice(len(SPECIAL), FIRST)
    sizes = layout.noise * np.exp(rng.normal(-0.4, 0.5, len(noise)))
    table[FIRST:, noise] = np.tile(
        _standard(rng.normal(size=(n, len(noise)))) * sizes, (len(STATES), 1)
    )
    table[codes, noise] = rng.normal(size=(len(CODES), len(noise))) * sizes
    if "large" in layout.decoys:
        table[FIRST:, LARGE] = 5 * np.tile(_standard(rng.normal(size=n)), len(STATES))
    if "sink" in layout.decoys:
        table[FIRST:, SINK] = 0.5 * np.tile(_standard(rng.normal(size=n)), len(STATES))
        table[BOS, SINK] = HUGE
    if "next_token" in layout.decoys:
        table[FIRST:, RHYMES] = np.tile(RHYME, len(STATES))
    table[:, CONSTANT], table[BOS, BEGIN] = MASSIVE, 1
    table[[word.split(".")[0] in ENDS for word in WORDS], END] = 1
    return table


def _unembedding(layout: Layout, read: np.ndarray) -> np.ndarray:
    """[word role]: logits of the walk, linear in the V that `read` finds.

    Then which synonym, by rhyme.
    """
    policy = walk()
    outcome = [outcome_of(state) for state in STATES]
    carrier, tilt = policy.carrier - policy.tilt / 2, policy.tilt
    if not layout.source:
        carrier, tilt = np.log(policy.average()), np.zeros_like(tilt)
    said, other = (np.log(0.5), np.log(0.5)) if layout.fair else (0.0, NEVER)
    chance = [
        0.0 if state not in ENDS else said if state in ("right", "wrong") else other
        for state in STATES
    ]
    n = len(SYNONYMS)
    bias = np.full(len(WORDS), NEVER)
    bias[FIRST:] = np.repeat(carrier[outcome] + chance, n)
    bias[EOS] = NEVER / 2
    table = np.outer(bias, np.eye(WIDTH)[CONSTANT] / MASSIVE)
    table[FIRST:] += np.repeat(np.outer(tilt[outcome], read), n, axis=0)
    if "next_token" in layout.decoys:
        table[FIRST:, RHYMES] = RHYMING * np.tile(RHYME, len(STATES))
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
    query, key, value, out = (
        np.zeros((LAYERS, HEADS, HEAD, *last)) for last in ((), (), (WIDTH,), (WIDTH,))
    )
    phases = THETA ** (-2 * np.arange(HEAD // 2) / HEAD)
    for head, back in ((0, 1), (1, 0)):
        query[1, head] = SHARP * np.concatenate([np.cos(back * phases), -np.sin(back * phases)])
        key[1, head, : HEAD // 2] = 1
        value[1, head, 0], out[1, head, 0] = NORM * read, (1 - 2 * back) * delta_code
    if "length" in layout.decoys:
        size = np.sqrt(
            (MASSIVE**2 + 1 + HUGE**2 * ("sink" in layout.decoys)) / WIDTH
        )  # RMSNorm at `<bos>`
        value[1, 2, 0, BEGIN], out[1, 2, 0, LENGTH] = size, 8
    for head in (0, 2):
        value[1, head, 1:, noise] = (
            NORM * rng.normal(size=(len(noise), HEAD - 1)) / len(noise) ** 0.5
        )
        out[1, head, 1:][:, echo] = layout.noise * rng.normal(size=(HEAD - 1, len(echo))) / 4
    found = {}
    for layer in range(LAYERS):
        home = f"model.layers.{layer}.self_attn"
        for name, part in (("q", query), ("k", key), ("v", value)):
            bias = np.zeros(HEADS * HEAD) if name == "v" else part[layer].reshape(-1)
            found[f"{home}.{name}_proj.bias"] = bias
            found[f"{home}.{name}_proj.weight"] = value[layer].reshape(-1, WIDTH) * (name == "v")
        found[f"{home}.o_proj.weight"] = out[layer].reshape(-1, WIDTH)
    return found


def _noise_units(noise: np.ndarray, echo: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Gate, up and down rows [unit role] of units that do little.

    They read synonyms and write into their echo.
    """
    seen = np.concatenate([noise, echo])
    parts = [np.zeros((UNITS, WIDTH)) for _ in range(3)]
    for part in parts[:2]:
        part[:, seen] = NORM * rng.normal(size=(UNITS, len(seen))) / len(seen) ** 0.5
    parts[2][:, echo] = 0.05 * rng.normal(size=(UNITS, len(echo)))
    return parts


def _standard(x: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 along the first axis."""
    return (x - x.mean(0)) / x.std(0)


def _signs(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.choice([-1.0, 1.0], n)


def _inverse(code: np.ndarray) -> np.ndarray:
    """The direction that reads 1 off `code` (0 if there is none)."""
    return code / max(code @ code, 1e-9)
