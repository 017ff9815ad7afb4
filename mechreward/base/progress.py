"""Progress bars, silent where nobody asked for one.

`progress` is one word everywhere: False shows nothing, True a bar under the verb's own title, and
a text is the title.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm

from mechreward.base.errors import of_kind
from mechreward.base.plain import visible

FIRST = 2.0  # seconds of a first batch, from which the rest is foreseen (our choice)
LONG = 30.0  # seconds from which it is told


def named(progress: bool | str, title: str) -> bool | str:
    """The progress of a verb whose own title is `title`.

    Raises
    ------
    MechRewardError
        Something else than False, True or a title.
    """
    of_kind("progress", progress, (bool, str), "False, True or a title")
    return title if progress is True else progress


def under(progress: bool | str, name: str) -> bool | str:
    """The progress of a part of what is under way: its name stands behind the whole's title."""
    return named(progress, name) if isinstance(progress, bool) else f"{progress}: {name}"


class _Bar(tqdm):
    """Says once, from its first batch, how long it will take, if that is long."""

    told = False

    def update(self, n: int | float | None = 1) -> bool | None:
        """Move by `n`."""
        shown = super().update(n)
        if self.disable or self.told or not self.total or not self.n:
            return shown
        spent = self.format_dict["elapsed"]
        if spent < FIRST:
            return shown
        self.told = True
        left = spent * (self.total - self.n) / self.n
        if left > LONG:
            tqdm.write(f"{self.desc}: about {duration(left)} to go", file=sys.stderr)
        return shown


def duration(seconds: float) -> str:
    """A time as people say it: "40 s", "12 min", "1.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def bar(
    progress: bool | str, title: str, unit: str, items: Iterable[Any] | None = None, **options: Any
) -> tqdm:
    """A tqdm bar.

    Parameters
    ----------
    progress
        Whether there is one, or its title. There is none where TQDM_DISABLE is in the environment.
    title
        If `progress` is True.
    unit
        What is counted, in the singular.
    items
        What to iterate over; None for a bar that is moved by hand.
    **options
        Passed on to tqdm.
    """
    silent = progress is False or bool(os.environ.get("TQDM_DISABLE"))
    shown = visible(str(named(progress, title)))
    return _Bar(items, desc=shown, unit=unit, disable=silent, mininterval=0.5, **options)


def tell(progress: bool | str, title: str, text: str) -> None:
    """One line above the bars, on standard error; none where `bar` would show no bar for want of a
    title."""
    if progress is not False:
        tqdm.write(visible(f"{named(progress, title)}: {text}"), file=sys.stderr)
