"""What steering by every strength does, both ways, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from mechreward._check import require
from mechreward.results import Row
from mechreward.show.style import BLACK, blank, looks, order, styled, to_svg


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
    look = looks(lines)
    with styled():
        figure, axes = blank(8.4, 3.6)
        axes.grid(axis="y")
        for arm in sorted(lines, key=order, reverse=True):
            points = sorted(lines[arm] + still, key=lambda row: row.detail["strength"])
            strengths = [row.detail["strength"] for row in points]
            colour, dash, marker = look[arm]
            values = [row.estimate for row in points]
            narrow = still if "sets" in lines[arm][0].detail else []
            low, high = (
                [row.estimate if row in narrow else getattr(row, end) for row in points] for end in ("low", "high")
            )
            axes.fill_between(strengths, low, high, color=colour, alpha=0.1, linewidth=0)
            axes.plot(strengths, values, color=colour, linestyle=dash, marker=marker, markersize=4, label=arm)
        axes.axvline(0, color=BLACK, linewidth=0.8)
        axes.set_xticks(sorted({row.detail["strength"] for row in [*chosen, *still]}))
        axes.set_xlabel("strength (standard deviations, toward high V-hat or delta)")
        axes.set_ylabel({"value": "V-hat of the continuation"}.get(metric, metric))
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside right upper", handlelength=3)
        return to_svg(figure)
