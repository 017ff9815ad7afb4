"""Randomness has names: a stream of random numbers is known by what it is for, and by its key.

A stream is a hash of its name, so that no two purposes share one, whatever their seeds (our
choice).
"""

from __future__ import annotations

import hashlib
from operator import index

import numpy as np

from mechreward.base.errors import MechRewardError, shown


def rng(*name: int | np.integer | str) -> np.random.Generator:
    """The generator of a name, the same on every machine; other names have independent ones.

    Parameters
    ----------
    *name
        What the numbers are for, then what tells its streams apart: a seed, a draw, a problem's id.

    Raises
    ------
    MechRewardError
        A part that is neither: seed 0.5 is no other stream than seed 0.
    """
    return np.random.Generator(np.random.Philox(key=_number(name, 16)))


def stream(*name: int | np.integer | str) -> int:
    """The seed of a name, for what takes a whole number instead of a generator: at most 63 bits."""
    return _number(name, 8) >> 1


def _number(name: tuple[int | np.integer | str, ...], size: int) -> int:
    """A whole number of `size` bytes from the hash of a name."""
    parts = []
    for part in name:
        try:
            parts.append(part if isinstance(part, str) else index(part))
        except TypeError as error:
            raise MechRewardError(
                f"a seed must be a whole number; {shown(part)} was given."
            ) from error
    return int.from_bytes(hashlib.sha256(repr(tuple(parts)).encode()).digest()[:size], "big")
