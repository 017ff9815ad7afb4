"""The package's one exception, and checks whose message says what was given, what is possible and
the fix."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MechRewardError(ValueError):
    """A user's mistake or an impossible request. The CLI prints the message as one line and exits
    with 2."""


def one_of(what: str, given: object, possible: Iterable[object]) -> None:
    """Raise `MechRewardError` unless `given` is one of `possible`; the message names the nearest
    one."""
    options = list(possible)
    if given in options:
        return
    names = [str(option) for option in options]
    near = get_close_matches(str(given), names, n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    shown = ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
    raise MechRewardError(f"unknown {what} {str(given)!r}{hint} Possible: {shown or 'none'}.")


def require(condition: bool, message: str) -> None:
    """Raise `MechRewardError(message)` unless `condition` holds."""
    if not condition:
        raise MechRewardError(message)
