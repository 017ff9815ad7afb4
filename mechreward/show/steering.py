"""What steering by every strength does, both ways, and what more and more neurons do, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechreward._check import require
from mechreward.results import Row
from mechreward.show.style import BLACK, blank, looks, order, styled, to_svg

LABELS = {"accuracy_zeroed": "accuracy", "contrast_at_share": "accuracy, up minus down"}


def steering_curve(rows: Sequence[Row], metric: str, place: str = "all") -> str:
    """`metric` against the strength, one line an arm (R14), bands from the rows' `low` to their `high`.

    Uses the rows of `metric` that hold `detail["strength"]` at `detail["place"]`; the arm `baseline` is strength 0 of
    every line. For arms of several draws (`detail["sets"]`) the band runs from the lowest draw to the highest, which
    are one at strength 0.

    Raises:
        MechRewardError: no such rows.
    """
    here = [row for row in rows if row.metric == metric and "strength" in row.detail]
    chosen = [row for row in here if row.detail.get("place") == place]
    require(bool(chosen), f"no row has metric {metric!r} with a strength at place {place!r}: there is nothing to draw.")
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
    """`metric` against the share of neurons that is changed, on a logarithmic axis (R14), one line an arm.

    The arm `baseline`, if there is one, is a line across with its interval. Bands as in `steering_curve`.

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


def _draw(figure: Figure, axes: Axes, lines: Mapping[str, list[Row]], still: list[Row], key: str) -> None:
    """Lines over `detail[key]`, and their legend; `still` are points of every line, which draws share."""
    look = looks(lines)
    axes.grid(axis="y")
    for arm in sorted(lines, key=order, reverse=True):
        points = sorted(lines[arm] + still, key=lambda row: row.detail[key])
        places, values = [row.detail[key] for row in points], [row.estimate for row in points]
        colour, dash, marker = look[arm]
        narrow = still if "sets" in lines[arm][0].detail else []
        low, high = (
            [row.estimate if row in narrow else getattr(row, end) for row in points] for end in ("low", "high")
        )
        axes.fill_between(places, low, high, color=colour, alpha=0.1, linewidth=0)
        axes.plot(places, values, color=colour, linestyle=dash, marker=marker, markersize=4, label=arm)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right upper", handlelength=3)
