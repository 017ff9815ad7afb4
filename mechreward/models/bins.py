"""Texts of like length together, so that one long text does not pad all others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TOKENS = 8192  # of a pass, padding included, but for a longer text alone (our choice)
PASS = 256  # tokens that cost as much as beginning another pass (our choice)


def length_bins(lengths: Sequence[int], most: int, tokens: int = TOKENS) -> list[list[int]]:
    """Numbers of texts, pass by pass, short ones first.

    Of all ways to cut the texts, sorted by length, into passes, this costs least: every pass counts
    its tokens, padding included, and `PASS` more.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of every text.
    most : int
        Texts in a pass.
    tokens : int, default TOKENS
        Tokens in a pass, padding included; a longer text is run alone.

    Returns
    -------
    list of list of int
        Every text once.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    cost = np.zeros(len(order) + 1)  # of the passes up to a text,
    begins = [0] * len(cost)  # and where the last of them begins
    for end in range(1, len(cost)):
        longest = lengths[order[end - 1]]
        rows = max(1, min(most, tokens // max(1, longest), end))
        sizes = np.arange(rows, 0, -1)
        costs = cost[end - rows : end] + PASS + sizes * longest
        best = int(costs.argmin())
        cost[end], begins[end] = costs[best], end - rows + best
    bins = []
    end = len(order)
    while end:
        bins.append(order[begins[end] : end])
        end = begins[end]
    return bins[::-1]
