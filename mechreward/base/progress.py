"""Progress bars, silent where nobody asked for one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm

from mechreward.base.plain import visible


def progress(
    what: str | None, unit: str, items: Iterable[Any] | None = None, **options: Any
) -> tqdm:
    """A tqdm bar.

    Parameters
    ----------
    what
        The bar's title. None shows no bar, and neither does TQDM_DISABLE in the environment.
    unit
        What is counted, in the singular.
    items
        What to iterate over; None for a bar that is moved by hand.
    **options
        Passed on to tqdm.
    """
    silent = what is None or bool(os.environ.get("TQDM_DISABLE"))
    title = what and visible(what)
    return tqdm(items, desc=title, unit=unit, disable=silent, mininterval=0.5, **options)


def tell(what: str | None, text: str) -> None:
    """One line above the bars, on standard error; none where `progress` would show no bar for want
    of a title."""
    if what is not None:
        tqdm.write(visible(f"{what}: {text}"), file=sys.stderr)
