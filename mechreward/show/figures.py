"""Rows in, SVG strings out: pruning curves, ablation intervals, the grid of sites, histograms.

Every function returns one `<svg>` element as text, byte-identical for equal input: no date, fixed ids, no pyplot and
none of the user's matplotlib settings. Text stays text (it can be searched, selected and read aloud), laid out with
the DejaVu Sans that comes with matplotlib; where a viewer lacks it, narrower fonts stand in. Numbers that do not exist
(NaN) are left out of lines and printed as "–". The paper draws bare lines; bands, nulls and draws are our own choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from mechreward._check import require
from mechreward.models.site import Site
from mechreward.results import Row
from mechreward.show.matrix import matrix
from mechreward.show.style import BLACK, BLUE, VERMILLION, blank, looks, order, styled, to_svg

KINDS = ("resid_pre", "resid_mid", "mlp", "resid_post")  # the order in which a block computes them
NULLS = ("random", "rotated", "shuffled")


def pruning_curve(rows: Sequence[Row], metric: str, *, by: str | None = None) -> str:
    """`metric` against the share of neurons kept, one line an arm, as SVG.

    Uses the rows of `metric` that hold `detail["ratio"]`, the pruning ratio in [0, 1): the share kept is 1 - ratio, on
    a logarithmic axis that runs from all neurons down to few; `detail["neurons"]`, if there, gives the count below
    each share. Rows of one arm and ratio that differ in seed or `detail["draw"]` become one point, their mean, with
    a band from their lowest `low` to their highest `high` (our choice: it never looks narrower than one of them).
    `by` names a key of `detail` that splits an arm into several lines, such as retrained and masked. A thin line marks
    chance: .5 for an AUROC, 0 for a correlation.

    Raises:
        MechRewardError: no such rows, a ratio outside [0, 1), rows of several models, tasks or sites, or rows that
            cannot be told apart.
    """
    chosen = [row for row in rows if row.metric == metric and "ratio" in row.detail]
    _some(chosen, rows, f'metric {metric!r} with detail["ratio"]')
    _one(chosen, "model", "task", "site")
    lines: dict[tuple[str, str], dict[float, list[Row]]] = {}
    for row in chosen:
        ratio = float(row.detail["ratio"])
        require(0 <= ratio < 1, f"a pruning ratio lies in [0, 1); got {ratio} for arm {row.arm!r}")
        line = lines.setdefault((row.arm, str(row.detail.get(by, "")) if by else ""), {})
        line.setdefault(round(1 - ratio, 9), []).append(row)
    counts = {round(1 - float(row.detail["ratio"]), 9): row.detail.get("neurons") for row in chosen}
    variants = sorted({variant for _, variant in lines})
    look, chance = looks(arm for arm, _ in lines), 0.5 if metric.startswith("auroc") else 0.0
    with styled():
        figure, axes = blank(8.4, 3.9)
        axes.grid(axis="y")
        axes.axhline(chance, color="#999999", linewidth=0.9, linestyle=(0, (4, 3)), label=f"chance ({chance:g})")
        for arm, variant in sorted(lines, key=lambda name: (order(name[0]), name), reverse=True):
            points, (colour, dash, marker) = lines[arm, variant], look[arm]
            shares = np.array(sorted(points, reverse=True))
            for share in shares:
                _distinct(points[share], f"arm {arm!r}, {share:.3g} kept", "give `by` the detail key that differs")
            mean, low, high = _pooled([points[share] for share in shares])
            strong = arm in ("value", "dopamine")
            shade = 0.16 if strong else 0.09 if arm in NULLS else 0.04  # many rankings lie on each other
            axes.fill_between(shares, low, high, color=colour, alpha=shade, linewidth=0)
            axes.plot(
                shares,
                mean,
                color=colour,
                linestyle=dash,
                marker=marker,
                markersize=5 if strong else 4,
                markerfacecolor=colour if variants.index(variant) == 0 else "white",
                linewidth=2.2 if strong else 1.3,
                label=f"{arm} ({variant})" if variant else arm,
            )
        axes.set_xscale("log")
        axes.invert_xaxis()
        shown = sorted(counts, reverse=True)
        numbered = any(count is not None for count in counts.values())
        axes.set_xticks(shown, [f"{100 * s:.3g}%\n{'' if counts[s] is None else counts[s]}" for s in shown])
        axes.minorticks_off()
        axes.set_xlabel("share of neurons kept" + (" (and their number)" if numbered else ""))
        axes.set_ylabel(_words(metric))
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside right upper", handlelength=3)
        return to_svg(figure)


def ablation_bars(rows: Sequence[Row], metric: str = "accuracy") -> str:
    """`metric` of each ablated set with its interval, beside every draw of every control, as SVG.

    One line of the picture for each arm, grouped by `detail["op"]` (zero, mean, ...) and by site where there are
    several. A row with `detail["draw"]` is one draw of a control and becomes a small dot; the arm's row without it is
    the summary (without one, the draws' mean, and no interval). `baseline` is a vertical line with a band. Where a
    summary's detail holds `rank`, `draws` and `p_rank`, the text at the right says "rank r of N, p = ...": N counts
    the set itself and its draws.

    Raises:
        MechRewardError: no such rows, a number outside [0, 1], several models or tasks, or two summaries of one arm.
    """
    chosen = [row for row in rows if row.metric == metric]
    _some(chosen, rows, f"metric {metric!r}")
    _one(chosen, "model", "task")
    odd = [row.estimate for row in chosen if not (math.isnan(row.estimate) or 0 <= row.estimate <= 1)]
    require(not odd, f"{metric!r} must be a share in [0, 1]; got {odd[:3]}")
    base = [row for row in chosen if row.arm == "baseline"]
    require(len(base) <= 1, f"need one baseline row; got {len(base)}: give the rows of one seed")
    sites = {row.site for row in chosen if row.arm != "baseline"}
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in chosen:
        if row.arm != "baseline":
            place = [str(row.detail.get("op", "")), row.site if len(sites) > 1 else ""]
            groups.setdefault(" · ".join(filter(None, place)), {}).setdefault(row.arm, []).append(row)
    look = looks(arm for arms in groups.values() for arm in arms)
    lines = sum(len(arms) + bool(name) for name, arms in groups.items())
    with styled():
        figure, axes = blank(8.4, 1.15 + 0.3 * max(lines, 1))
        axes.grid(axis="x")
        for row in base:
            if math.isfinite(row.low) and math.isfinite(row.high):
                axes.axvspan(row.low, row.high, color=BLACK, alpha=0.07, linewidth=0)
            axes.axvline(row.estimate, color=BLACK, linewidth=1.2)
            label = f"baseline {_share(row.estimate)}"
            axes.text(row.estimate, 1.01, label, transform=axes.get_xaxis_transform(), ha="center", va="bottom")
        y, labels = 0, {}
        for name, arms in groups.items():
            if name:
                axes.text(-0.01, y, name, transform=axes.get_yaxis_transform(), ha="right", va="center", weight="bold")
                y += 1
            for arm in sorted(arms, key=order):
                _line(axes, y, arm, arms[arm], look[arm])
                labels[y], y = arm, y + 1
        axes.set_yticks(list(labels), list(labels.values()))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(max(y, 1) - 0.4, -0.6)
        axes.set_xlim(-0.01, 1.01)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel(_words(metric))
        axes.spines["left"].set_visible(False)
        return to_svg(figure)


def layers_heatmap(rows: Sequence[Row], metric: str) -> str:
    """`metric` at every site as SVG: a row for each kind, a column for each layer, every number printed.

    Rows of one site that differ only in seed become one cell, their mean. An empty cell is hatched; a cell whose number
    does not exist shows "–". A ring marks sites whose `detail["chosen"]` is true. AUROC is coloured from .5 to 1,
    correlations from 0 to 1, all else from the smallest number to the largest; the numbers are never clipped.

    Raises:
        MechRewardError: no such rows, a site that is no site, several models, tasks or arms, or two rows of one site
            and seed.
    """
    chosen = [row for row in rows if row.metric == metric]
    _some(chosen, rows, f"metric {metric!r}")
    _one(chosen, "model", "task", "arm")
    cells: dict[tuple[str, int], list[Row]] = {}
    for row in chosen:
        site = Site.parse(row.site)
        cells.setdefault((site.kind, site.layer), []).append(row)
    for (kind, layer), cell in cells.items():
        _distinct(cell, f"site {layer}.{kind}", "give the rows of one measurement")
    kinds = [kind for kind in KINDS if any(kind == other for other, _ in cells)]
    layers = sorted({layer for _, layer in cells})
    value = {place: float(np.mean([row.estimate for row in cell])) for place, cell in cells.items()}
    ringed = {place for place, cell in cells.items() if any(row.detail.get("chosen") is True for row in cell)}
    low, high = _limits(metric, [v for v in value.values() if math.isfinite(v)])
    return matrix(
        {(kind, str(layer)): number for (kind, layer), number in value.items()},
        rows=kinds,
        columns=[str(layer) for layer in layers],
        low=low,
        high=high,
        ring=[(kind, str(layer)) for kind, layer in ringed],
        xlabel="layer" + (" (ring: the chosen site)" if ringed else ""),
    )


def histogram(values: Sequence[float | int] | np.ndarray, xlabel: str) -> str:
    """How often each value occurs, as SVG; for V-hat or delta, `values` [n] of which NaN are left out and counted.

    Values that are multiples of 1/K (K <= 64 rollouts) get one bar each, because bins across such a lattice show
    combs that are not in the data; other values get 20 bins in [0, 1], or 41 around zero where some are negative.
    Negative bars are vermillion, the others blue.

    Raises:
        MechRewardError: not one column of numbers, or none of them finite.
    """
    column = np.asarray(values, dtype=float)
    require(column.ndim == 1, f"values must be one column; got shape {column.shape}")
    kept = column[np.isfinite(column)]
    require(len(kept) > 0, f"none of the {len(column)} values is a finite number: there is nothing to draw")
    edges = _bins(kept)
    counts, _ = np.histogram(kept, edges)
    centres, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    with styled():
        figure, axes = blank(8.4, 2.6)
        axes.grid(axis="y")
        colours = [VERMILLION if centre < -1e-9 else BLUE for centre in centres]
        axes.bar(centres, counts, 0.88 * width, color=colours)
        missing = len(column) - len(kept)
        note = f"n = {len(kept)}" + (f" ({missing} without a value)" if missing else "")
        axes.text(1, 1.01, note, transform=axes.transAxes, ha="right", va="bottom", color="#444444")
        axes.set_xlabel(xlabel)
        axes.set_ylabel("count")
        return to_svg(figure)


def _line(axes: Axes, y: int, arm: str, rows: Sequence[Row], look: tuple) -> None:
    """One line of `ablation_bars`: the draws as dots, the summary with its interval, the numbers at the right."""
    colour, _, marker = look
    draws = [row.estimate for row in rows if row.detail.get("draw") is not None]
    summary = [row for row in rows if row.detail.get("draw") is None]
    require(len(summary) <= 1, f"arm {arm!r} has {len(summary)} summaries; give the rows of one seed and measurement")
    lift = [0.44 * ((0.618 * i) % 1 - 0.5) for i in range(len(draws))]  # golden ratio: spread, the same every time
    axes.scatter(draws, y + np.array(lift), s=13, color=colour, alpha=0.5, linewidths=0)
    finite = [draw for draw in draws if math.isfinite(draw)]
    mean = float(np.mean(finite)) if finite else math.nan
    estimate, low, high = (
        (summary[0].estimate, summary[0].low, summary[0].high) if summary else (mean, math.nan, math.nan)
    )
    axes.hlines(y, low, high, color=colour, linewidth=2)
    axes.plot(estimate, y, marker=marker, markersize=7, color=colour, markeredgecolor="white", markeredgewidth=0.8)
    text = f"{_share(estimate)} [{_share(low)}, {_share(high)}]"
    detail = summary[0].detail if summary else {}
    if all(detail.get(key) is not None for key in ("rank", "draws", "p_rank")):
        text += f"\nrank {detail['rank']} of {int(detail['draws']) + 1}, p = {detail['p_rank']:.3g}"
    axes.text(1.015, y, text, transform=axes.get_yaxis_transform(), va="center", size=8.5, linespacing=1.25)


def _limits(metric: str, values: Sequence[float]) -> tuple[float, float]:
    if metric.startswith("auroc"):
        return 0.5, 1.0
    if metric.startswith("spearman"):
        return 0.0, 1.0
    low, high = min(values, default=0.0), max(values, default=1.0)
    return low, high if high > low else low + 1


def _bins(kept: np.ndarray) -> np.ndarray:
    """Edges [bins + 1]: one bin for each multiple of 1/K if all values are such, else equal widths."""
    for k in range(1, 65):
        if np.abs(kept * k - np.round(kept * k)).max() < 0.01:
            return (np.arange(round(kept.min() * k), round(kept.max() * k) + 2) - 0.5) / k
    if kept.min() >= 0:
        return np.linspace(0, max(1.0, kept.max()), 21)
    most = np.abs(kept).max()
    return np.linspace(-most, most, 42)


def _pooled(points: Sequence[Sequence[Row]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean estimate, lowest low and highest high [points] of each point's rows; an estimate stands for a missing bound,
    and nan is where an estimate is missing."""
    numbers = [np.array([_bounds(row) for row in rows]) for rows in points]
    parts = [(n[:, 0].mean(), n[:, 1].min(), n[:, 2].max()) for n in numbers]
    mean, low, high = np.array(parts, dtype=float).T
    return mean, low, high


def _bounds(row: Row) -> tuple[float, float, float]:
    low, high = (row.estimate if math.isnan(bound) else bound for bound in (row.low, row.high))
    return row.estimate, low, high


def _some(chosen: Sequence[Row], rows: Sequence[Row], what: str) -> None:
    metrics = ", ".join(sorted({row.metric for row in rows})) or "none, for there are no rows"
    require(len(chosen) > 0, f"no row has {what}; the metrics given: {metrics}")


def _one(rows: Sequence[Row], *fields: str) -> None:
    """Rows of several settings must not be averaged unseen."""
    for field in fields:
        found = sorted({str(getattr(row, field)) for row in rows})
        require(len(found) <= 1, f"one picture shows one {field}; got {', '.join(found)}: select with Results.where")


def _distinct(rows: Sequence[Row], what: str, fix: str) -> None:
    keys = [(row.seed, str(row.detail.get("draw"))) for row in rows]
    require(len(set(keys)) == len(keys), f"{what}: {len(keys)} rows share a seed and draw; {fix}")


def _share(x: float) -> str:
    return f"{x:.1%}" if math.isfinite(x) else "–"


def _words(metric: str) -> str:
    return metric.replace("_", " ").replace("auroc", "AUROC")
