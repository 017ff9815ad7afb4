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

from mechreward.base.plain import visible


def named(progress: bool | str, title: str) -> bool | str:
    """The progress of a verb whose own title is `title`."""
    return title if progress is True else progress


def under(progress: bool | str, name: str) -> bool | str:
    """The progress of a part of what is under way: its name stands behind the whole's title."""
    return named(progress, name) if isinstance(progress, bool) else f"{progress}: {name}"


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
    return tqdm(items, desc=shown, unit=unit, disable=silent, mininterval=0.5, **options)


def tell(progress: bool | str, title: str, text: str) -> None:
    """One line above the bars, on standard error; none where `bar` would show no bar for want of a
    title."""
    if progress is not False:
        tqdm.write(visible(f"{named(progress, title)}: {text}"), file=sys.stderr)
