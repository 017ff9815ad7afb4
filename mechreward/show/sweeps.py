"""A patching sweep as a heatmap: layer by position, what each patch brings back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mechreward.base.errors import of_kind, require
from mechreward.base.plain import visible
from mechreward.causal.patching import PatchingSweep
from mechreward.models.site import BLOCK_ORDER, Site
from mechreward.show.heatmap import Matrix
from mechreward.show.picture import Picture
from mechreward.show.style import blank, styled, to_svg

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
    panel = _panel(sweep, tokens, ())
    with styled():
        figure, axes = blank(9.5, panel.height(9.5))
        panel.draw(axes, 9.5)
        axes.set_title(panel.title, loc="left", size=9.5, color="#444444")
        return to_svg(figure)


def patching(
    sweep: PatchingSweep,
    tokens: Sequence[str] | None = None,
    controls: Sequence[PatchingSweep] = (),
) -> Picture:
    """What each patch brings back, by layer and position; squares that controls reach too are
    hatched.

    Parameters
    ----------
    sweep : PatchingSweep
        What `causal.patching.patching_sweep` measured.
    tokens : sequence of str or None, default None
        Texts of the corrupted run's tokens, `[pos]` (`models.text.pieces`).
    controls : sequence of PatchingSweep, default none
        The same sweep of matched sets. A square is hatched where the effect lies between the
        lowest and the highest of them and of 0.

    Returns
    -------
    Picture

    Raises
    ------
    MechRewardError
        No sweep, fewer texts than positions, or controls at other sites or positions.
    """
    of_kind("sweep", sweep, PatchingSweep, "what patching_sweep(...) gives")
    for control in controls:
        of_kind("controls", control, PatchingSweep, "sweeps of matched sets")
        require(
            control.sites == sweep.sites and control.positions == sweep.positions,
            "controls: a sweep of other sites or positions cannot be laid over this one.",
        )
    panel = _panel(sweep, tokens, controls)
    row, column = np.unravel_index(int(np.nanargmax(sweep.effect)), sweep.effect.shape)
    beside = "; no controls were given, so that nothing is hatched"
    if controls:
        beside = f"; hatched: {len(controls)} matched sets reach as far"
    caption = (
        f"Normalised effect of every patch ({sweep.neurons}): 0 is the corrupted run, 1 the clean "
        "one, below 0 it moves away. Rows: sites, the deepest on top; columns: positions of the "
        f"corrupted run{beside}."
    )
    alt = (
        f"Patching of {len(sweep.sites)} sites by {len(sweep.positions)} positions. Largest: "
        f"{sweep.effect[row, column]:.2f} at {sweep.sites[row]}, position "
        f"{sweep.positions[column]}. {len(panel.hatched)} squares lie inside the controls."
    )
    return Picture(f"Activation patching: {sweep.model_id.name}", [panel], caption, alt)


def _panel(
    sweep: PatchingSweep, tokens: Sequence[str] | None, controls: Sequence[PatchingSweep]
) -> Matrix:
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
    hatched = []
    if controls:
        others = np.stack([np.zeros(sweep.effect.shape), *(each.effect for each in controls)])
        inside = (sweep.effect >= others.min(0)) & (sweep.effect <= others.max(0))
        for row, column in np.argwhere(inside):
            hatched.append((str(sweep.sites[row]), columns[column]))
    return Matrix(
        f"{sweep.neurons}: 0 = corrupted ({sweep.corrupted:.3g}), 1 = clean ({sweep.clean:.3g})",
        cells,
        rows=[str(site) for site in sorted(sweep.sites, key=_depth, reverse=True)],
        columns=columns,
        low=-1.0,
        middle=0.0,
        xlabel="position patched in the corrupted run",
        numbered=len(columns) <= NUMBERED,
        turned=tokens is not None,
        hatched=hatched,
        wide=True,
    )


def _depth(site: Site) -> tuple[int, int]:
    """How far along the forward pass a site is: its layer, then its kind."""
    return site.layer, BLOCK_ORDER.index(site.kind)


__all__ = ["patching", "patching_heatmap"]
