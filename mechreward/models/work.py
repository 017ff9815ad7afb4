"""How much work the engine did: what a ledger is held against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Work:
    """Counted by the engine itself, pass by pass.

    Attributes
    ----------
    prefill : int
        Tokens of prefixes that were run, padding not counted.
    decoded : int
        Tokens run one at a time, behind each of which one is drawn, but for the last of an answer
        that something is captured of. Rows that are over and run on unread are not counted.
    passes : int
        Forward passes, of any number of rows.
    """

    prefill: int = 0
    decoded: int = 0
    passes: int = 0


_counted: ContextVar[Work | None] = ContextVar("work that is counted", default=None)


@contextmanager
def counted() -> Iterator[Work]:
    """Count what the engine does meanwhile."""
    work = Work()
    token = _counted.set(work)
    try:
        yield work
    finally:
        _counted.reset(token)


def note(*, prefill: int = 0, decoded: int = 0, passes: int = 0) -> None:
    """The engine has done so much."""
    work = _counted.get()
    if work is not None:
        work.prefill += prefill
        work.decoded += decoded
        work.passes += passes
