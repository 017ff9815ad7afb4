"""A patching sweep as a heatmap: layer by position, what each patch brings back."""

from __future__ import annotations

from collections.abc import Sequence

from mechreward.base.errors import require
from mechreward.base.plain import visible
from mechreward.causal.patching import PatchingSweep
from mechreward.models.site import BLOCK_ORDER, Site
from mechreward.show.heatmap import matrix

NUMBERED = 24  # more columns than this leave no room for numbers in the cells


def patching_heatmap(sweep: PatchingSweep, tokens: Sequence[str] | None = None) -> str:
    """Normalised effect of every patch: a row for each site, the deepest on top, a column a
    position.

    White is the corrupted run (0), full blue the clean one (1), vermillion moves the other way;
    colours stop at -1 and 1, the printed numbers (up to 24 columns) do not. A column is named after
    its position; "9←12" is position 9 that got the state of position 12.

    Parameters
    ----------
    sweep
        What `causal.patching.patching_sweep` measured.
    tokens
        Texts of the corrupted run's tokens, `[pos]` (`models.text.pieces`), put below the
        positions; None (the default) for positions alone.

    Returns
    -------
    str
        One `<svg>` element.

    Raises
    ------
    MechRewardError
        Fewer texts than the run has positions.
    """
    last = max(sweep.positions)
    require(
        tokens is None or len(tokens) > last,
        f"{len(tokens or ())} token texts were given; the sweep has position {last}: "
        "give those of the whole run.",
    )
    columns = []
    for source, position in zip(sweep.sources, sweep.positions, strict=True):
        name = str(position) if source == position else f"{position}←{source}"
        if tokens is not None:
            name += " " + visible(tokens[position].replace("\n", "↵"))
        columns.append(name)
    cells = {}
    for site, effects in zip(sweep.sites, sweep.effect, strict=True):
        for column, effect in zip(columns, effects, strict=True):
            cells[str(site), column] = float(effect)
    return matrix(
        cells,
        rows=[str(site) for site in sorted(sweep.sites, key=_depth, reverse=True)],
        columns=columns,
        low=-1.0,
        middle=0.0,
        xlabel="position patched in the corrupted run",
        title=f"{sweep.neurons}: 0 = corrupted ({sweep.corrupted:.3g}), "
        f"1 = clean ({sweep.clean:.3g})",
        numbered=len(columns) <= NUMBERED,
        turned=tokens is not None,
    )


def _depth(site: Site) -> tuple[int, int]:
    """How far along the forward pass a site is: its layer, then its kind."""
    return site.layer, BLOCK_ORDER.index(site.kind)
