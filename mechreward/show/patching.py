"""A patching sweep as SVG: layer by position, what each patch brings back."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from mechreward.base.errors import require
from mechreward.causal.patching import PatchingSweep
from mechreward.models.site import BLOCK_ORDER
from mechreward.show.style import BLUE, VERMILLION, blank, styled, to_svg
from mechreward.show.tokens import visible

TINT = LinearSegmentedColormap.from_list("patching", [VERMILLION, "white", BLUE])
NUMBERED = 24  # more columns than this leave no room for numbers in the cells


def patching_heatmap(sweep: PatchingSweep, tokens: Sequence[str] | None = None) -> str:
    """Normalised effect of every patch as one `<svg>`: a row for each site, the deepest on top, a
    column a position.

    White is the corrupted run (0), full blue the clean one (1), vermillion moves the other way;
    colours stop at -1 and 1, the printed numbers (up to 24 columns) do not. `tokens` are the texts
    of the corrupted run's tokens [pos] (`models.adapter.pieces`), put below the positions.

    Raises:
        MechRewardError: fewer texts than the run has positions.
    """
    last = max(sweep.positions)
    require(
        tokens is None or len(tokens) > last,
        f"{len(tokens or ())} token texts were given; the sweep has position {last}: give those of the whole run.",
    )
    rows, columns = len(sweep.sites), len(sweep.positions)
    depths = [(site.layer, BLOCK_ORDER.index(site.kind)) for site in sweep.sites]
    order = sorted(range(rows), key=depths.__getitem__, reverse=True)
    with styled():
        figure, axes = blank(min(11.0, 2.4 + 0.42 * max(columns, 6)), 1.1 + 0.34 * rows)
        for y, row in enumerate(order):
            for x, number in enumerate(sweep.effect[row]):
                depth = min(max(float(number), -1), 1) if math.isfinite(number) else 0.0
                face = TINT(0.5 + 0.43 * depth)
                axes.add_patch(
                    Rectangle(
                        (x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor="#eeeeee", linewidth=0.8
                    )
                )
                if columns <= NUMBERED:
                    text = (
                        f"{round(number, 2) + 0.0:.2f}".replace("-", "−")
                        if math.isfinite(number)
                        else "–"
                    )
                    colour = "white" if abs(depth) > 0.75 else "#1a1a1a"
                    axes.text(x, y, text, ha="center", va="center", color=colour, size=7.5)
        labels = [str(position) for position in sweep.positions]
        if tokens is not None:
            labels = [
                f"{label} {visible(tokens[p]).replace(chr(10), '↵')}"
                for label, p in zip(labels, sweep.positions, strict=True)
            ]
        axes.set_xticks(
            range(columns),
            labels,
            rotation=0 if tokens is None else 90,
            size=min(9.5, 300 / columns),
        )
        axes.set_yticks(range(rows), [str(sweep.sites[row]) for row in order])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_ylim(rows - 0.5, -0.5)
        axes.set_xlabel("position patched in the corrupted run")
        note = (
            f"{sweep.neurons}: 0 = corrupted ({sweep.corrupted:.3g}), 1 = clean ({sweep.clean:.3g})"
        )
        axes.set_title(note, loc="left", size=9.5, color="#444444")
        return to_svg(figure)
