"""A key-value cache whose rows leave and enter in place.

It stands behind the interface that HuggingFace models expect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from transformers.cache_utils import DynamicCache, DynamicLayer

Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass
class _Window:
    """What the model sees.

    An object of its own: layers that knew their cache would keep all its memory alive until the
    garbage collector comes round.
    """

    rows: int
    first: int
    end: int


class RowCache(DynamicCache):
    """Keys and values of the rows being decoded, `[row heads column head_dim]`, left-padded.

    All rows end at column `end`, row r begins at `start[r]`, and the model sees columns `first` to
    `end` of the first `rows` rows. Nothing is copied for a new token or for a row that leaves. When
    `end` reaches the buffer's edge, the visible columns move back to its beginning.

    Parameters
    ----------
    capacity : int
        Rows there can be at once.
    widest : int
        The longest prefix that will ever enter.
    layers : list of (keys, values)
        Any prefill of the model, for the shapes.
    """

    ROOM = 64

    def __init__(self, capacity: int, widest: int, layers: list[Pair]) -> None:
        super().__init__()
        self.widest = widest
        self.window = _Window(rows=0, first=widest, end=widest)
        self.start = torch.full((capacity,), widest, device=layers[0][0].device)
        columns = widest + self.ROOM
        self.layers[:] = [_Layer(self.window, capacity, columns, pair) for pair in layers]

    def enter(
        self, rows: list[int], layers: list[Pair], sources: list[int], lengths: list[int]
    ) -> None:
        """Give each of `rows` the first `lengths` columns of row `sources` of a prefill."""
        device = self.start.device
        to = torch.tensor(rows, device=device)
        source = torch.tensor(sources, device=device)
        length = torch.tensor(lengths, device=device)
        longest = max(lengths)
        end = self.window.end
        self.start[to] = end - length
        # What a shorter row has in front of its first column is of no matter, as long as it is a
        # number.
        columns = torch.arange(longest, device=device) - (longest - length)[:, None]
        columns = columns.clamp(min=0)
        for layer, pair in zip(self._own, layers, strict=True):
            for buffer, part in zip(layer.buffers, pair, strict=True):
                picked = part[source[:, None], :, columns]
                buffer[to, :, end - longest : end] = picked.transpose(1, 2)

    def move(self, source: list[int], to: list[int], rows: int) -> None:
        """Copy rows `source` onto rows `to`, which have left, and show `rows` rows from now on."""
        if source:
            self.start[to] = self.start[source]
            seen = slice(self.window.first, self.window.end)
            for layer in self._own:
                for buffer in layer.buffers:
                    buffer[to, :, seen] = buffer[source, :, seen]
        self.window.rows = rows

    def open(self, live: Bool[torch.Tensor, " row"]) -> Int[torch.Tensor, "row visible"]:
        """Make room for one column; returns what each row may see, the new column included.

        A row that is not live loses a column for it, or it would outgrow the model's context.
        """
        window = self.window
        self.start[: window.rows] += ~live
        window.first = int(self.start[: window.rows].min())
        if window.end == self._own[0].buffers[0].shape[2]:
            self._rewind()
        columns = torch.arange(window.first, window.end + 1, device=self.start.device)
        return (columns >= self.start[: window.rows, None]).long()

    def close(self) -> None:
        """The new column is written in every layer."""
        self.window.end += 1

    def _rewind(self) -> None:
        window = self.window
        visible = window.end - window.first
        end = max(self.widest, visible)
        for layer in self._own:
            layer.rewind(window.first, window.end, end, end + self.ROOM)
        self.start -= window.end - end
        window.first = end - visible
        window.end = end

    @property
    def _own(self) -> list[_Layer]:
        return self.layers  # pyright: ignore[reportReturnType]


class _Layer(DynamicLayer):
    """One layer's buffers, grown only when a row outgrows them."""

    def __init__(self, window: _Window, capacity: int, columns: int, like: Pair) -> None:
        super().__init__()
        self.lazy_initialization(*like)
        self.window = window
        # Zeros, not empty memory: padding is masked, but a NaN would pass through a mask.
        self.buffers = [
            part.new_zeros(capacity, part.shape[1], columns, part.shape[3]) for part in like
        ]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> Pair:
        rows, first, end = self.window.rows, self.window.first, self.window.end
        keys, values = self.buffers
        keys[:rows, :, end : end + 1] = key_states
        values[:rows, :, end : end + 1] = value_states
        return keys[:rows, :, first : end + 1], values[:rows, :, first : end + 1]

    def get_seq_length(self, *_: Any) -> int:
        return self.window.end - self.window.first

    def rewind(self, first: int, last: int, end: int, columns: int) -> None:
        for i, buffer in enumerate(self.buffers):
            visible = buffer[:, :, first:last].clone()
            capacity, heads, room, head = buffer.shape
            if columns > room:
                buffer = buffer.new_zeros(capacity, heads, columns, head)
                self.buffers[i] = buffer
            buffer[:, :, end - (last - first) : end] = visible
