"""Randomness has names: a stream of random numbers is known by what it is for, and by its key.

A stream is a hash of its name, so that no two purposes share one, whatever their seeds (our
choice).
"""

from __future__ import annotations

import hashlib

import numpy as np


def rng(*name: int | np.integer | str) -> np.random.Generator:
    """The generator of a name, the same on every machine; other names have independent ones.

    Parameters
    ----------
    *name
        What the numbers are for, then what tells its streams apart: a seed, a draw, a problem's id.
    """
    return np.random.Generator(np.random.Philox(key=_number(name, 16)))


def stream(*name: int | np.integer | str) -> int:
    """The seed of a name, for what takes a whole number instead of a generator: at most 63 bits."""
    return _number(name, 8) >> 1


def _number(name: tuple[int | np.integer | str, ...], size: int) -> int:
    """A whole number of `size` bytes from the hash of a name."""
    parts = tuple(part if isinstance(part, str) else int(part) for part in name)
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:size], "big")
