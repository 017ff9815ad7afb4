"""The package's one exception, and checks whose message says what was given, what is possible and
the fix."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

SHOWN = 12  # names that a message lists before it only counts them
NOTHING_LOST = "Nothing that was finished is lost."


class MechRewardError(ValueError):
    """A user's mistake or an impossible request. The CLI prints the message as one line and exits
    with 2."""


def one_of(what: str, given: object, possible: Iterable[object]) -> None:
    """Check that `given` is one of `possible`.

    Parameters
    ----------
    what
        The noun that the message uses: `task`, `split`, `kind of neuron`.
    given, possible
        Compared as they are; the message shows them as strings.

    Raises
    ------
    MechRewardError
        `given` is not possible; the message names the nearest one.
    """
    options = list(possible)
    if given in options:
        return
    names = [str(option) for option in options]
    listed = ", ".join(names[:SHOWN]) or "none"
    if len(names) > SHOWN:
        listed += f", ... ({len(names)} in all)"
    raise MechRewardError(unknown_name(what, given, names, listed))


def unknown_name(what: str, given: object, names: Iterable[str], listed: str) -> str:
    """What is said of a name that is not known.

    Parameters
    ----------
    what
        The noun, as for `one_of`.
    given
        The unknown name.
    names
        Names among which the nearest is looked for.
    listed
        The possible names as the message lists them.

    Returns
    -------
    str
        One line with the nearest name, if any is near (our choice: difflib's ratio from 0.3 on).
    """
    near = get_close_matches(str(given), list(names), n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {str(given)!r}{hint} Possible: {listed}."


def require(condition: bool, message: str) -> None:
    """Check a condition that a user can break.

    Raises
    ------
    MechRewardError
        With `message`, unless `condition` holds.
    """
    if not condition:
        raise MechRewardError(message)
