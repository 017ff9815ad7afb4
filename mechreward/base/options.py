"""Fields of a dataclass that are options of a command: the default and the help stand once."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(default: Any, words: str | None = None) -> Any:
    """A field with its default, and the help that the command line shows for it; a list is one that
    may be given several times."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": words})
    return field(default=default, metadata={"help": words})
