"""Randomness has names: a stream of random numbers is known by what it is for and by its seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# What each purpose drew from before it had a name. The numbers stay until all purposes are named.
BEFORE: dict[str, Callable[..., list[int]]] = {
    "bootstrap": lambda seed: [seed],
    "certificate: like states": lambda seed: [seed, 22],
    "certificate: pairs of states": lambda seed: [seed, 21],
    "certificate: shuffled targets": lambda seed, draw: [seed * 1000 + draw, 2],
    "coverage: answers": lambda seed, run, n: [seed, run, n],
    "coverage: drawn problems": lambda seed, run, n: [seed, run, n, 4],
    "coverage: truth": lambda: [1],
    "curve: random subsets": lambda seed: [seed, 1],
    "curve: rotations": lambda seed, draw: [seed * 1000 + draw, 5],
    "curve: shuffled targets": lambda seed, draw: [seed * 1000 + draw, 2],
    "detection: V-hat": lambda seed: [seed, 20],
    "detection: other answers": lambda seed: [seed, 19],
    "detection: repeat": lambda seed, repeat, problems, per: [seed, repeat, problems, per],
    "evidence: random subsets": lambda seed: [seed, 6],
    "evidence: rotations": lambda seed, draw: [seed * 1000 + draw, 5],
    "evidence: shuffled targets": lambda seed, draw: [seed * 1000 + draw, 2],
    "exact law of V-hat": lambda seed: [seed, 17],
    "levels: data": lambda seed: [seed, 13],
    "levels: experiments": lambda seed, run: [seed, run, 15],
    "levels: moved targets": lambda run, draw: [run * 1000 + draw, 2],
    "levels: overlap": lambda seed, run: [seed, run, 14],
    "levels: randomised p": lambda seed: [seed, 23],
    "matched sets": lambda seed: [seed, 3],
    "moved targets": lambda seed, draws, draw: [seed * draws + draw, 2],
    "perfect ECE": lambda seed: [seed],
    "planted decoys": lambda seed: [seed, 7],
    "planted sign": lambda seed: [seed, 11],
    "random sets": lambda seed, sink_free: [seed, 4, sink_free],
    "resample": lambda seed: [seed, 5],
    "shuffled targets": lambda seed: [seed, 2],
    "single neuron: moved targets": lambda seed, draw: [seed * 1000 + draw, 2],
    "targets of the same length": lambda seed: [seed, 2],
}


def rng(purpose: str, *key: int) -> np.random.Generator:
    """The generator of a purpose and its key (a seed first), the same on every machine."""
    return np.random.default_rng(BEFORE[purpose](*key))
