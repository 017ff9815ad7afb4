"""Fields of a dataclass that are options of a command: the default and the help stand once."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(default: Any, words: str | None = None) -> Any:
    """A field with its default, and the help that the command line shows for it."""
    return field(default=default, metadata={"help": words})
