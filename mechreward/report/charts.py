"""Rows in, SVG strings out: the curves, bars and grids of the pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mechreward.base.errors import require
from mechreward.experiments.rows import Row
from mechreward.models.site import BLOCK_ORDER, Site
from mechreward.show.heatmap import matrix
from mechreward.show.style import BLACK, BLUE, VERMILLION, blank, looks, order, styled, to_svg

NULLS = ("random", "rotated", "shuffled")


def pruning_curve(rows: Sequence[Row], metric: str, *, by: str | None = None) -> str:
    """`metric` against the share of neurons kept, one line an arm, as SVG.

    Uses the rows of `metric` that hold `detail["ratio"]`, the pruning ratio in [0, 1): the share
    kept is 1 - ratio, on a logarithmic axis that runs from all neurons down to few;
    `detail["neurons"]`, if there, gives the count below each share. Rows of one arm and ratio that
    differ in seed or `detail["draw"]` become one point, their mean, with a band from their lowest
    `low` to their highest `high` (our choice: it never looks narrower than one of them). `by` names
    a key of `detail` that splits an arm into several lines, such as retrained and masked. A thin
    line marks chance: .5 for an AUROC, 0 for a correlation.

    Raises:
        MechRewardError: no such rows, a ratio outside [0, 1), rows of several models, tasks or
            sites, or rows that cannot be told apart.
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
        axes.axhline(
            chance,
            color="#999999",
            linewidth=0.9,
            linestyle=(0, (4, 3)),
            label=f"chance ({chance:g})",
        )
        for arm, variant in sorted(lines, key=lambda name: (order(name[0]), name), reverse=True):
            points, (colour, dash, marker) = lines[arm, variant], look[arm]
            shares = np.array(sorted(points, reverse=True))
            for share in shares:
                _distinct(
                    points[share],
                    f"arm {arm!r}, {share:.3g} kept",
                    "give `by` the detail key that differs",
                )
            mean, low, high = _pooled([points[share] for share in shares])
            strong = arm in ("value", "dopamine")
            shade = (
                0.16 if strong else 0.09 if arm in NULLS else 0.04
            )  # many rankings lie on each other
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
        axes.set_xticks(
            shown, [f"{100 * s:.3g}%\n{'' if counts[s] is None else counts[s]}" for s in shown]
        )
        axes.minorticks_off()
        axes.set_xlabel("share of neurons kept" + (" (and their number)" if numbered else ""))
        axes.set_ylabel(_words(metric))
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside right upper", handlelength=3)
        return to_svg(figure)


def ablation_bars(rows: Sequence[Row], metric: str = "accuracy") -> str:
    """`metric` of each ablated set with its interval, beside every draw of every control, as SVG.

    One line of the picture for each arm, grouped by `detail["op"]` (zero, mean, ...) and by site
    where there are several. A row with `detail["draw"]` is one draw of a control and becomes a
    small dot; the arm's row without it is the summary (without one, the draws' mean, and no
    interval). `baseline` is a vertical line with a band. Where a summary's detail holds `rank`,
    `draws` and `p_rank`, the text at the right says "rank r of N, p = ...": N counts the set itself
    and its draws.

    Raises:
        MechRewardError: no such rows, a number outside [0, 1], several models or tasks, or two
        summaries of one arm.
    """
    chosen = [row for row in rows if row.metric == metric]
    _some(chosen, rows, f"metric {metric!r}")
    _one(chosen, "model", "task")
    odd = [
        row.estimate for row in chosen if not (math.isnan(row.estimate) or 0 <= row.estimate <= 1)
    ]
    require(not odd, f"{metric!r} must be a share in [0, 1]; got {odd[:3]}")
    base = [row for row in chosen if row.arm == "baseline"]
    require(len(base) <= 1, f"need one baseline row; got {len(base)}: give the rows of one seed")
    sites = {row.site for row in chosen if row.arm != "baseline"}
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in chosen:
        if row.arm != "baseline":
            place = [str(row.detail.get("op", "")), row.site if len(sites) > 1 else ""]
            groups.setdefault(" · ".join(filter(None, place)), {}).setdefault(row.arm, []).append(
                row
            )
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
            axes.text(
                row.estimate,
                1.01,
                label,
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
            )
        y, labels = 0, {}
        for name, arms in groups.items():
            if name:
                axes.text(
                    -0.01,
                    y,
                    name,
                    transform=axes.get_yaxis_transform(),
                    ha="right",
                    va="center",
                    weight="bold",
                )
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
    """`metric` at every site as SVG: a row for each kind, a column for each layer, every number
    printed.

    Rows of one site that differ only in seed become one cell, their mean. An empty cell is hatched;
    a cell whose number does not exist shows "–". A ring marks sites whose `detail["chosen"]` is
    true. AUROC is coloured from .5 to 1, correlations from 0 to 1, all else from the smallest
    number to the largest; the numbers are never clipped.

    Raises:
        MechRewardError: no such rows, a site that is no site, several models, tasks or arms, or two
            rows of one site and seed.
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
    kinds = [kind for kind in BLOCK_ORDER if any(kind == other for other, _ in cells)]
    layers = sorted({layer for _, layer in cells})
    value = {place: float(np.mean([row.estimate for row in cell])) for place, cell in cells.items()}
    ringed = {
        place
        for place, cell in cells.items()
        if any(row.detail.get("chosen") is True for row in cell)
    }
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


def _line(axes: Axes, y: int, arm: str, rows: Sequence[Row], look: tuple) -> None:
    """One line of `ablation_bars`: the draws as dots, the summary with its interval, the numbers at
    the right."""
    colour, _, marker = look
    draws = [row.estimate for row in rows if row.detail.get("draw") is not None]
    summary = [row for row in rows if row.detail.get("draw") is None]
    require(
        len(summary) <= 1,
        f"arm {arm!r} has {len(summary)} summaries; give the rows of one seed and measurement",
    )
    lift = [
        0.44 * ((0.618 * i) % 1 - 0.5) for i in range(len(draws))
    ]  # golden ratio: spread, the same every time
    axes.scatter(draws, y + np.array(lift), s=13, color=colour, alpha=0.5, linewidths=0)
    finite = [draw for draw in draws if math.isfinite(draw)]
    mean = float(np.mean(finite)) if finite else math.nan
    estimate, low, high = (
        (summary[0].estimate, summary[0].low, summary[0].high)
        if summary
        else (mean, math.nan, math.nan)
    )
    axes.hlines(y, low, high, color=colour, linewidth=2)
    axes.plot(
        estimate,
        y,
        marker=marker,
        markersize=7,
        color=colour,
        markeredgecolor="white",
        markeredgewidth=0.8,
    )
    text = f"{_share(estimate)} [{_share(low)}, {_share(high)}]"
    detail = summary[0].detail if summary else {}
    if all(detail.get(key) is not None for key in ("rank", "draws", "p_rank")):
        text += f"\nrank {detail['rank']} of {int(detail['draws']) + 1}, p = {detail['p_rank']:.3g}"
    axes.text(
        1.015,
        y,
        text,
        transform=axes.get_yaxis_transform(),
        va="center",
        size=8.5,
        linespacing=1.25,
    )


def _limits(metric: str, values: Sequence[float]) -> tuple[float, float]:
    if metric.startswith("auroc"):
        return 0.5, 1.0
    if metric.startswith("spearman"):
        return 0.0, 1.0
    low, high = min(values, default=0.0), max(values, default=1.0)
    return low, high if high > low else low + 1


def _pooled(points: Sequence[Sequence[Row]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean estimate, lowest low and highest high [points] of each point's rows; an estimate stands
    for a missing bound, and nan is where an estimate is missing."""
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
        require(
            len(found) <= 1,
            f"one picture shows one {field}; got {', '.join(found)}: select with Results.where",
        )


def _distinct(rows: Sequence[Row], what: str, fix: str) -> None:
    keys = [(row.seed, str(row.detail.get("draw"))) for row in rows]
    require(len(set(keys)) == len(keys), f"{what}: {len(keys)} rows share a seed and draw; {fix}")


def _share(x: float) -> str:
    return f"{x:.1%}" if math.isfinite(x) else "–"


def _words(metric: str) -> str:
    return metric.replace("_", " ").replace("auroc", "AUROC")


LABELS = {"accuracy_zeroed": "accuracy", "contrast_at_share": "accuracy, up minus down"}


def steering_curve(rows: Sequence[Row], metric: str, place: str = "all") -> str:
    """`metric` against the strength, one line an arm (R14), bands from the rows' `low` to their
    `high`.

    Uses the rows of `metric` that hold `detail["strength"]` at `detail["place"]`; the arm
    `baseline` is strength 0 of every line. For arms of several draws (`detail["sets"]`) the band
    runs from the lowest draw to the highest, which are one at strength 0.

    Raises:
        MechRewardError: no such rows.
    """
    here = [row for row in rows if row.metric == metric and "strength" in row.detail]
    chosen = [row for row in here if row.detail.get("place") == place]
    require(
        bool(chosen),
        f"no row has metric {metric!r} with a strength at place {place!r}: there is nothing to draw.",
    )
    still = [row for row in here if row.arm == "baseline"]
    lines: dict[str, list[Row]] = {}
    for row in chosen:
        lines.setdefault(row.arm, []).append(row)
    with styled():
        figure, axes = blank(8.4, 3.6)
        _draw(figure, axes, lines, still, "strength")
        axes.axvline(0, color=BLACK, linewidth=0.8)
        axes.set_xticks(sorted({row.detail["strength"] for row in [*chosen, *still]}))
        axes.set_xlabel("strength (standard deviations, toward high V-hat or delta)")
        axes.set_ylabel({"value": "V-hat of the continuation"}.get(metric, metric))
        return to_svg(figure)


def share_curve(rows: Sequence[Row], metric: str) -> str:
    """`metric` against the share of neurons that is changed, on a logarithmic axis (R14), one line
    an arm.

    The arm `baseline`, if there is one, is a line across with its interval. Bands as in
    `steering_curve`.

    Raises:
        MechRewardError: no row of `metric` holds `detail["share"]`.
    """
    here = [row for row in rows if row.metric == metric and "share" in row.detail]
    require(bool(here), f"no row has metric {metric!r} with a share: there is nothing to draw.")
    lines: dict[str, list[Row]] = {}
    for row in here:
        lines.setdefault(row.arm, []).append(row)
    still = lines.pop("baseline", [])
    with styled():
        figure, axes = blank(8.4, 3.6)
        for row in still:
            axes.axhspan(row.low, row.high, color=BLACK, alpha=0.06, linewidth=0)
        level = still[0].estimate if still else 0.0
        axes.axhline(level, color=BLACK, linewidth=0.8, label="baseline" if still else None)
        _draw(figure, axes, lines, [], "share")
        axes.set_xscale("log")
        ticks = sorted({row.detail["share"] for rows in lines.values() for row in rows})
        axes.set_xticks(ticks, [f"{100 * share:g}%" for share in ticks])
        axes.minorticks_off()
        axes.set_xlabel("share of the site's neurons, best first")
        axes.set_ylabel(LABELS.get(metric, metric))
        return to_svg(figure)


def _draw(
    figure: Figure, axes: Axes, lines: Mapping[str, list[Row]], still: list[Row], key: str
) -> None:
    """Lines over `detail[key]`, and their legend; `still` are points of every line, which draws
    share."""
    look = looks(lines)
    axes.grid(axis="y")
    for arm in sorted(lines, key=order, reverse=True):
        points = sorted(lines[arm] + still, key=lambda row: row.detail[key])
        places, values = [row.detail[key] for row in points], [row.estimate for row in points]
        colour, dash, marker = look[arm]
        narrow = still if "sets" in lines[arm][0].detail else []
        low, high = (
            [row.estimate if row in narrow else getattr(row, end) for row in points]
            for end in ("low", "high")
        )
        axes.fill_between(places, low, high, color=colour, alpha=0.1, linewidth=0)
        axes.plot(
            places, values, color=colour, linestyle=dash, marker=marker, markersize=4, label=arm
        )
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right upper", handlelength=3)


def traces(rows: Sequence[Row]) -> str:
    """One panel for each answer: bars are delta of its steps, the line is the neuron (in its
    standard deviations).

    Uses the rows of metric `trace`: `estimate` is the activation, `detail` holds `item`, `step`,
    `delta`. Answers are shown in the order of their items; nothing is chosen here.

    Raises:
        MechRewardError: no such rows.
    """
    chosen = [row for row in rows if row.metric == "trace"]
    require(bool(chosen), "no row has metric 'trace': there is nothing to draw.")
    items = sorted({int(row.detail["item"]) for row in chosen})
    most = max(1.0, *(abs(row.estimate) for row in chosen))
    with styled():
        figure = Figure(figsize=(8.4, 0.5 + 2.1 * ((len(items) + 1) // 2)), layout="constrained")
        grid = figure.subplots((len(items) + 1) // 2, 2, squeeze=False).flatten()
        for axes, item in zip(grid, items, strict=False):
            own = sorted(
                (row for row in chosen if row.detail["item"] == item),
                key=lambda row: row.detail["step"],
            )
            steps = [row.detail["step"] for row in own]
            delta = [row.detail["delta"] for row in own]
            axes.bar(
                steps, delta, 0.6, color=[VERMILLION if d < 0 else BLUE for d in delta], alpha=0.35
            )
            axes.axhline(0, color="#999999", linewidth=0.8)
            axes.set_ylim(-1.05, 1.05)
            axes.set_xticks(steps)
            twin = axes.twinx()
            twin.plot(
                steps,
                [row.estimate for row in own],
                color=BLACK,
                marker="o",
                markersize=4,
                linewidth=1.3,
            )
            twin.set_ylim(-1.05 * most, 1.05 * most)
            twin.spines["right"].set_visible(True)
            axes.set_title(str(own[0].detail.get("title", f"answer {item}")), size=9.5)
            axes.set_xlabel("step")
            axes.set_ylabel("delta (bars)")
            twin.set_ylabel("neuron (line, sd)")
        for axes in grid[len(items) :]:
            axes.set_visible(False)
        return to_svg(figure)
