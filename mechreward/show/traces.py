"""What one neuron does over the steps of a few answers, beside the TD error of each step, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from mechreward._check import require
from mechreward.results import Row
from mechreward.show.style import BLACK, BLUE, VERMILLION, styled, to_svg


def traces(rows: Sequence[Row]) -> str:
    """One panel for each answer: bars are delta of its steps, the line is the neuron (in its standard deviations).

    Uses the rows of metric `trace`: `estimate` is the activation, `detail` holds `item`, `step`, `delta`. Answers are
    shown in the order of their items; nothing is chosen here.

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
            own = sorted((row for row in chosen if row.detail["item"] == item), key=lambda row: row.detail["step"])
            steps = [row.detail["step"] for row in own]
            delta = [row.detail["delta"] for row in own]
            axes.bar(steps, delta, 0.6, color=[VERMILLION if d < 0 else BLUE for d in delta], alpha=0.35)
            axes.axhline(0, color="#999999", linewidth=0.8)
            axes.set_ylim(-1.05, 1.05)
            axes.set_xticks(steps)
            twin = axes.twinx()
            twin.plot(steps, [row.estimate for row in own], color=BLACK, marker="o", markersize=4, linewidth=1.3)
            twin.set_ylim(-1.05 * most, 1.05 * most)
            twin.spines["right"].set_visible(True)
            axes.set_title(str(own[0].detail.get("title", f"answer {item}")), size=9.5)
            axes.set_xlabel("step")
            axes.set_ylabel("delta (bars)")
            twin.set_ylabel("neuron (line, sd)")
        for axes in grid[len(items) :]:
            axes.set_visible(False)
        return to_svg(figure)
