"""The package's one exception, and checks whose message says what was given, what is possible and
the fix."""

from __future__ import annotations

import math
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real

from mechreward.base.plain import visible

SHOWN = 12  # names that a message lists before it only counts them
NOTHING_LOST = "Nothing that was finished is lost."


class MechRewardError(ValueError):
    """A user's mistake or an impossible request. The CLI prints the message as one line and exits
    with 2. Names in it come from files and users: hidden characters are shown (`base.plain`)."""

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(" ".join(message.splitlines())))


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


def whole(name: str, given: object, least: int | None = None, counts: str = "") -> int:
    """Check a size or a seed.

    Parameters
    ----------
    name
        The option, as the caller writes it.
    given
        Python's or numpy's whole numbers are possible; booleans and fractions are not, whole ones
        included.
    least
        The smallest possible number; None for any.
    counts
        What the option counts, for the message.

    Returns
    -------
    int
        `given` as Python's own, which JSON can hold.

    Raises
    ------
    MechRewardError
        Another kind of thing, or a number below `least`.
    """
    subject = f"{name} counts {counts} and" if counts else name
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise MechRewardError(f"{subject} must be a whole number; {shown(given)} was given.")
    if least is not None and given < least:
        raise MechRewardError(f"{subject} must be at least {least}; {given} was given.")
    return int(given)


def finite(name: str, given: object) -> float:
    """Check a number that may be a fraction, such as a strength.

    Raises
    ------
    MechRewardError
        No number, a boolean, or one that is not finite.
    """
    if isinstance(given, bool) or not isinstance(given, Real) or not math.isfinite(given):
        raise MechRewardError(f"{name} must be a finite number; {shown(given)} was given.")
    return float(given)


def of_kind(name: str, given: object, kind: type | tuple[type, ...], hint: str = "") -> None:
    """Check that an argument is an object of a class.

    Parameters
    ----------
    name
        The argument, as the caller writes it.
    given
        What was given.
    kind
        A class, or several.
    hint
        The fix, as the end of the sentence.

    Raises
    ------
    MechRewardError
        An object of another class.
    """
    if isinstance(given, kind):
        return
    kinds = kind if isinstance(kind, tuple) else (kind,)
    wanted = " or ".join(each.__name__ for each in kinds)
    fix = f"; {hint}" if hint else ""
    raise MechRewardError(f"{name} must be {wanted}; {shown(given)} was given{fix}.")


def shown(given: object) -> str:
    """What was given, in a message: plain values as they are, other things by their class."""
    if given is None or isinstance(given, str | int | float):
        text = repr(given)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return f"an object of class {type(given).__name__}"
