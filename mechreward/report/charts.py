"""Rows in, SVG strings out: which rows become the lines, dots and squares of a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mechreward.base.errors import require
from mechreward.experiments.rows import Row
from mechreward.models.site import KINDS, Site
from mechreward.show.curve import Line, Trace, curve, step_traces
from mechreward.show.forest import Estimate, forest
from mechreward.show.heatmap import matrix
from mechreward.show.style import Reference, order, percent
from mechreward.stats import Interval

LABELS = {
    "accuracy_zeroed": "accuracy",
    "contrast_at_share": "accuracy, up minus down",
    "value": "V-hat of the continuation",
}


def pruning_curve(rows: Sequence[Row], metric: str, *, by: str | None = None) -> str:
    """A metric against the share of neurons kept, one line an arm.

    The axis is logarithmic and runs from all neurons down to few. Rows of one arm and ratio that
    differ in seed or `detail["draw"]` become one point, their mean, with a band from their lowest
    `low` to their highest `high` (our choice: it never looks narrower than one of them). A thin
    line marks chance: .5 for an AUROC, 0 for a correlation.

    Parameters
    ----------
    rows
        Those of `metric` that hold `detail["ratio"]` are drawn, the pruning ratio in [0, 1): the
        share kept is 1 - ratio. `detail["neurons"]`, if there, gives the count below each share.
    metric
        What is drawn.
    by
        A key of `detail` that splits an arm into several lines, such as retrained and masked; None
        (the default) for one line an arm.

    Returns
    -------
    str
        One `<svg>` element.

    Raises
    ------
    MechRewardError
        No such rows, a ratio outside [0, 1), rows of several models, tasks or sites, or rows that
        cannot be told apart.
    """
    chosen = [row for row in rows if row.metric == metric and "ratio" in row.detail]
    _require_some(chosen, rows, f'metric {metric!r} with detail["ratio"]')
    _require_one(chosen, "model", "task", "site")
    points: dict[tuple[str, str], dict[float, list[Row]]] = {}
    counts = {}
    for row in chosen:
        ratio = float(row.detail["ratio"])
        require(0 <= ratio < 1, f"a pruning ratio lies in [0, 1); got {ratio} for arm {row.arm!r}")
        share = round(1 - ratio, 9)
        counts[share] = row.detail.get("neurons")
        variant = str(row.detail.get(by, "")) if by else ""
        points.setdefault((row.arm, variant), {}).setdefault(share, []).append(row)
    first_variant = min(variant for _, variant in points)
    lines = []
    for arm, variant in sorted(points):
        label = f"{arm} ({variant})" if variant else arm
        lines.append(_pooled_line(label, arm, points[arm, variant], variant != first_variant))
    numbered = any(count is not None for count in counts.values())
    chance = 0.5 if metric.startswith("auroc") else 0.0
    return curve(
        lines,
        "share of neurons kept" + (" (and their number)" if numbered else ""),
        _label(metric),
        ticks={share: _share_tick(share, counts[share]) for share in sorted(counts)},
        reference=Reference(chance, f"chance ({chance:g})"),
        logarithmic=True,
        falling=True,
    )


def ablation_bars(rows: Sequence[Row], metric: str = "accuracy") -> str:
    """A metric of each ablated set with its interval, beside every draw of every control.

    One line of the picture for each arm, grouped by `detail["op"]` (zero, mean, ...) and by site
    where there are several. A row with `detail["draw"]` is one draw of a control and becomes a
    small dot; the arm's row without it is the summary (without one, the draws' mean, and no
    interval). `baseline` is a vertical line with a band. Where a summary's detail holds `rank`,
    `draws` and `p_rank`, the text at the right says "rank r of N, p = ...": N counts the set itself
    and its draws.

    Parameters
    ----------
    rows
        Those of `metric` are drawn.
    metric
        What is drawn, a share in [0, 1]; "accuracy" by default.

    Returns
    -------
    str
        One `<svg>` element.

    Raises
    ------
    MechRewardError
        No such rows, a number outside [0, 1], several models or tasks, or two summaries of one arm.
    """
    chosen = [row for row in rows if row.metric == metric]
    _require_some(chosen, rows, f"metric {metric!r}")
    _require_one(chosen, "model", "task")
    odd = [row.estimate for row in chosen if row.estimate < 0 or row.estimate > 1]
    require(not odd, f"{metric!r} must be a share in [0, 1]; got {odd[:3]}")
    baselines = [row for row in chosen if row.arm == "baseline"]
    require(
        len(baselines) <= 1,
        f"need one baseline row; got {len(baselines)}: give the rows of one seed",
    )
    ablated = [row for row in chosen if row.arm != "baseline"]
    several_sites = len({row.site for row in ablated}) > 1
    by_arm: dict[str, dict[str, list[Row]]] = {}
    for row in ablated:
        names = [str(row.detail.get("op", "")), row.site if several_sites else ""]
        heading = " · ".join(name for name in names if name)
        by_arm.setdefault(heading, {}).setdefault(row.arm, []).append(row)
    groups = {}
    for heading, arms in by_arm.items():
        groups[heading] = [_ablated(arm, arms[arm]) for arm in sorted(arms, key=order)]
    reference = None
    for row in baselines:
        label = f"baseline {percent(row.estimate)}"
        reference = Reference(row.estimate, label, row.low, row.high, dashed=False)
    return forest(groups, _label(metric), reference=reference, shares=True)


def layers_heatmap(rows: Sequence[Row], metric: str) -> str:
    """A metric at every site: a row for each kind, a column for each layer, every number printed.

    Rows of one site that differ only in seed become one cell, their mean. An empty cell is hatched;
    a cell whose number does not exist shows "–". AUROC is coloured from .5 to 1, correlations from
    0 to 1, all else from the smallest number to the largest; the numbers are never clipped.

    Parameters
    ----------
    rows
        Those of `metric` are drawn. A ring marks sites whose `detail["chosen"]` is true.
    metric
        What is drawn.

    Returns
    -------
    str
        One `<svg>` element.

    Raises
    ------
    MechRewardError
        No such rows, a site that is no site, several models, tasks or arms, or two rows of one site
        and seed.
    """
    chosen = [row for row in rows if row.metric == metric]
    _require_some(chosen, rows, f"metric {metric!r}")
    _require_one(chosen, "model", "task", "arm")
    by_site: dict[Site, list[Row]] = {}
    for row in chosen:
        by_site.setdefault(Site.parse(row.site), []).append(row)
    cells = {}
    ring = []
    for site, site_rows in by_site.items():
        _require_distinct(site_rows, f"site {site}", "give the rows of one measurement")
        place = (site.kind, str(site.layer))
        cells[place] = float(np.mean([row.estimate for row in site_rows]))
        if any(row.detail.get("chosen") is True for row in site_rows):
            ring.append(place)
    kinds = {site.kind for site in by_site}
    layers = {site.layer for site in by_site}
    low, high = _limits(metric, list(cells.values()))
    return matrix(
        cells,
        rows=[kind for kind in KINDS if kind in kinds],
        columns=[str(layer) for layer in sorted(layers)],
        low=low,
        high=high,
        ring=ring,
        xlabel="layer" + (" (ring: the chosen site)" if ring else ""),
    )


def steering_curve(rows: Sequence[Row], metric: str, place: str = "all") -> str:
    """A metric against the strength of steering (R14), one line an arm.

    Bands run from the rows' `low` to their `high`. The arm `baseline` is strength 0 of every line.
    For arms of several draws (`detail["sets"]`) the band runs from the lowest draw to the highest,
    which are one at strength 0.

    Parameters
    ----------
    rows
        Those of `metric` that hold `detail["strength"]` at `detail["place"]` are drawn.
    metric
        What is drawn.
    place
        Which tokens are steered; "all" by default.

    Returns
    -------
    str
        One `<svg>` element.

    Raises
    ------
    MechRewardError
        No such rows.
    """
    steered = [row for row in rows if row.metric == metric and "strength" in row.detail]
    chosen = [row for row in steered if row.detail.get("place") == place]
    require(
        bool(chosen),
        f"no row has metric {metric!r} with a strength at place {place!r}: "
        "there is nothing to draw.",
    )
    still = [row for row in steered if row.arm == "baseline"]
    lines = []
    for arm, arm_rows in _by_arm(chosen).items():
        drawn = "sets" in arm_rows[0].detail
        points = [_without_bounds(row) for row in still] if drawn else still
        lines.append(_line(arm, arm_rows + points, "strength"))
    strengths = {row.detail["strength"] for row in [*chosen, *still]}
    return curve(
        lines,
        "strength (standard deviations, toward high V-hat or delta)",
        _label(metric),
        ticks={strength: f"{strength:g}".replace("-", "−") for strength in sorted(strengths)},
        upright=0.0,
    )


def share_curve(rows: Sequence[Row], metric: str) -> str:
    """A metric against the share of neurons that is changed, on a logarithmic axis (R14), one line
    an arm.

    The arm `baseline`, if there is one, is a line across with its interval; else the line is at 0.
    Bands run from the rows' `low` to their `high`.

    Parameters
    ----------
    rows
        Those of `metric` that hold `detail["share"]` are drawn.
    metric
        What is drawn.

    Returns
    -------
    str
        One `<svg>` element.

    Raises
    ------
    MechRewardError
        No such rows.
    """
    chosen = [row for row in rows if row.metric == metric and "share" in row.detail]
    require(bool(chosen), f"no row has metric {metric!r} with a share: there is nothing to draw.")
    by_arm = _by_arm(chosen)
    baseline = by_arm.pop("baseline", [])
    if baseline:
        row = baseline[0]
        reference = Reference(row.estimate, "baseline", row.low, row.high, dashed=False)
    else:
        reference = Reference(0.0, dashed=False)
    lines = [_line(arm, arm_rows, "share") for arm, arm_rows in by_arm.items()]
    shares = {row.detail["share"] for row in chosen if row.arm != "baseline"}
    return curve(
        lines,
        "share of the site's neurons, best first",
        _label(metric),
        ticks={share: f"{100 * share:g}%" for share in sorted(shares)},
        reference=reference,
        logarithmic=True,
    )


def traces(rows: Sequence[Row]) -> str:
    """One panel for each answer: bars are delta of its steps, the line is the neuron (in its
    standard deviations).

    Parameters
    ----------
    rows
        Those of metric `trace` are drawn: `estimate` is the activation, `detail` holds `item`,
        `step`, `delta`. Answers are shown in the order of their items; nothing is chosen here.

    Returns
    -------
    str
        One `<svg>` element.

    Raises
    ------
    MechRewardError
        No such rows.
    """
    chosen = [row for row in rows if row.metric == "trace"]
    require(bool(chosen), "no row has metric 'trace': there is nothing to draw.")
    by_item: dict[int, list[Row]] = {}
    for row in sorted(chosen, key=lambda row: row.detail["step"]):
        by_item.setdefault(int(row.detail["item"]), []).append(row)
    panels = []
    for item in sorted(by_item):
        steps = by_item[item]
        panels.append(
            Trace(
                title=str(steps[0].detail.get("title", f"answer {item}")),
                steps=[row.detail["step"] for row in steps],
                delta=[row.detail["delta"] for row in steps],
                activation=[row.estimate for row in steps],
            )
        )
    return step_traces(panels)


def _ablated(arm: str, rows: Sequence[Row]) -> Estimate:
    """One line of `ablation_bars`: an arm's summary, its draws, and what stands at the right."""
    draws = [row.estimate for row in rows if row.detail.get("draw") is not None]
    summaries = [row for row in rows if row.detail.get("draw") is None]
    require(
        len(summaries) <= 1,
        f"arm {arm!r} has {len(summaries)} summaries; give the rows of one seed and measurement",
    )
    if summaries:
        score = summaries[0].interval
        detail = summaries[0].detail
    else:
        finite = [draw for draw in draws if math.isfinite(draw)]
        mean = float(np.mean(finite)) if finite else math.nan
        score = Interval(mean, math.nan, math.nan, len(finite))
        detail = {}
    text = f"{percent(score.estimate)} [{percent(score.low)}, {percent(score.high)}]"
    if all(detail.get(key) is not None for key in ("rank", "draws", "p_rank")):
        sets = int(detail["draws"]) + 1
        text += f"\nrank {detail['rank']} of {sets}, p = {detail['p_rank']:.3g}"
    return Estimate(arm, score, arm, tuple(draws), text=text)


def _pooled_line(label: str, arm: str, points: dict[float, list[Row]], hollow: bool) -> Line:
    """Mean estimate, lowest low and highest high of each point's rows; nan where an estimate is
    missing."""
    shares = sorted(points, reverse=True)
    mean, low, high = [], [], []
    for share in shares:
        rows = points[share]
        place = f"arm {arm!r}, {share:.3g} kept"
        _require_distinct(rows, place, "give `by` the detail key that differs")
        mean.append(np.mean([row.estimate for row in rows]))
        low.append(np.min([_bound(row, row.low) for row in rows]))
        high.append(np.max([_bound(row, row.high) for row in rows]))
    return Line(label, shares, mean, low, high, arm, hollow)


def _bound(row: Row, bound: float) -> float:
    """A row's bound; its estimate where that is missing."""
    return row.estimate if math.isnan(bound) else bound


def _line(arm: str, rows: Sequence[Row], key: str) -> Line:
    """A line through the rows of one arm over `detail[key]`."""
    points = sorted(rows, key=lambda row: row.detail[key])
    return Line(
        arm,
        x=[row.detail[key] for row in points],
        y=[row.estimate for row in points],
        low=[row.low for row in points],
        high=[row.high for row in points],
        arm=arm,
    )


def _without_bounds(row: Row) -> Row:
    """A row whose interval is its estimate alone."""
    return replace(row, low=row.estimate, high=row.estimate)


def _by_arm(rows: Sequence[Row]) -> dict[str, list[Row]]:
    arms: dict[str, list[Row]] = {}
    for row in rows:
        arms.setdefault(row.arm, []).append(row)
    return arms


def _limits(metric: str, numbers: Sequence[float]) -> tuple[float, float]:
    """Numbers of the palest and the deepest colour."""
    if metric.startswith("auroc"):
        return 0.5, 1.0
    if metric.startswith("spearman"):
        return 0.0, 1.0
    finite = [number for number in numbers if math.isfinite(number)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    return low, high if high > low else low + 1


def _label(metric: str) -> str:
    """A metric as words, for an axis."""
    return LABELS.get(metric, metric.replace("_", " ").replace("auroc", "AUROC"))


def _share_tick(share: float, count: int | None) -> str:
    """A share as a percentage, and below it the number of neurons if it is known."""
    text = f"{100 * share:.3g}%"
    return text if count is None else f"{text}\n{count}"


def _require_some(chosen: Sequence[Row], rows: Sequence[Row], what: str) -> None:
    metrics = sorted({row.metric for row in rows})
    given = ", ".join(metrics) or "none, for there are no rows"
    require(len(chosen) > 0, f"no row has {what}; the metrics given: {given}")


def _require_one(rows: Sequence[Row], *fields: str) -> None:
    """Rows of several settings must not be averaged unseen."""
    for field in fields:
        values = sorted({str(getattr(row, field)) for row in rows})
        require(
            len(values) <= 1,
            f"one picture shows one {field}; got {', '.join(values)}: select with Results.where",
        )


def _require_distinct(rows: Sequence[Row], what: str, fix: str) -> None:
    keys = {(row.seed, str(row.detail.get("draw"))) for row in rows}
    require(len(keys) == len(rows), f"{what}: {len(rows)} rows share a seed and draw; {fix}")
