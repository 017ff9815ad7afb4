"""Rows in, SVG strings out: which rows become the lines, dots and squares of a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from mechreward.base.errors import require
from mechreward.experiments.rows import Row
from mechreward.models.site import BLOCK_ORDER, Site
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
    chosen = _with_detail(rows, metric, "ratio")
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
        hollow = variant != first_variant
        lines.append(_pooled_line(label, arm, points[arm, variant], hollow))
    ticks = {}
    xlabel = "share of neurons kept"
    for share in sorted(counts):
        ticks[share] = f"{100 * share:.3g}%"
        if counts[share] is not None:
            ticks[share] += f"\n{counts[share]}"
            xlabel = "share of neurons kept (and their number)"
    chance = 0.5 if metric.startswith("auroc") else 0.0
    return curve(
        lines,
        xlabel,
        _label(metric),
        ticks=ticks,
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
    chosen = _with_detail(rows, metric)
    _require_some(chosen, rows, f"metric {metric!r}")
    _require_one(chosen, "model", "task")
    odd = []
    for estimate in _estimates(chosen):
        if estimate < 0 or estimate > 1:
            odd.append(estimate)
    require(not odd, f"{metric!r} must be a share in [0, 1]; got {odd[:3]}")
    baselines = _by_arm(chosen).get("baseline", [])
    require(
        len(baselines) <= 1,
        f"need one baseline row; got {len(baselines)}: give the rows of one seed",
    )
    ablated = [row for row in chosen if row.arm != "baseline"]
    several_sites = len({row.site for row in ablated}) > 1
    by_heading: dict[str, list[Row]] = {}
    for row in ablated:
        names = [str(row.detail.get("op", "")), row.site if several_sites else ""]
        heading = " · ".join(filter(None, names))
        by_heading.setdefault(heading, []).append(row)
    groups: dict[str, list[Estimate]] = {}
    for heading, group in by_heading.items():
        arms = _by_arm(group)
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
    chosen = _with_detail(rows, metric)
    _require_some(chosen, rows, f"metric {metric!r}")
    _require_one(chosen, "model", "task", "arm")
    by_site: dict[Site, list[Row]] = {}
    for row in chosen:
        site = Site.parse(row.site)
        by_site.setdefault(site, []).append(row)
    cells = {}
    ring = []
    kinds = set()
    layers = set()
    for site, site_rows in by_site.items():
        _require_distinct(site_rows, f"site {site}", "give the rows of one measurement")
        place = (site.kind, str(site.layer))
        cells[place] = float(np.mean(_estimates(site_rows)))
        if any(row.detail.get("chosen") is True for row in site_rows):
            ring.append(place)
        kinds.add(site.kind)
        layers.add(site.layer)
    low, high = _limits(metric, list(cells.values()))
    return matrix(
        cells,
        rows=sorted(kinds, key=BLOCK_ORDER.index),
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
    steered = _with_detail(rows, metric, "strength")
    chosen = [row for row in steered if row.detail.get("place") == place]
    require(
        bool(chosen),
        f"no row has metric {metric!r} with a strength at place {place!r}: "
        "there is nothing to draw.",
    )
    still = _by_arm(steered).get("baseline", [])
    # A row whose interval is its estimate alone: nothing was drawn at strength 0.
    undrawn = [replace(row, low=row.estimate, high=row.estimate) for row in still]
    lines = []
    for arm, arm_rows in _by_arm(chosen).items():
        start = undrawn if "sets" in arm_rows[0].detail else still
        lines.append(_line(arm, arm_rows + start, "strength"))
    ticks = {}
    for row in [*chosen, *still]:
        strength = row.detail["strength"]
        ticks[strength] = f"{strength:g}".replace("-", "−")
    return curve(
        lines,
        "strength (standard deviations, toward high V-hat or delta)",
        _label(metric),
        ticks=ticks,
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
    chosen = _with_detail(rows, metric, "share")
    require(bool(chosen), f"no row has metric {metric!r} with a share: there is nothing to draw.")
    by_arm = _by_arm(chosen)
    baseline = by_arm.pop("baseline", [])
    if baseline:
        row = baseline[0]
        reference = Reference(row.estimate, "baseline", row.low, row.high, dashed=False)
    else:
        reference = Reference(0.0, dashed=False)
    lines = []
    ticks = {}
    for arm, arm_rows in by_arm.items():
        lines.append(_line(arm, arm_rows, "share"))
        for row in arm_rows:
            share = row.detail["share"]
            ticks[share] = f"{100 * share:g}%"
    return curve(
        lines,
        "share of the site's neurons, best first",
        _label(metric),
        ticks=ticks,
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
    chosen = _with_detail(rows, "trace")
    require(bool(chosen), "no row has metric 'trace': there is nothing to draw.")
    by_item: dict[int, list[Row]] = {}
    for row in chosen:
        item = int(row.detail["item"])
        by_item.setdefault(item, []).append(row)
    panels = []
    for item in sorted(by_item):
        steps = by_item[item]
        numbers = _columns(steps, "step", "delta")
        title = steps[0].detail.get("title", f"answer {item}")
        panels.append(Trace(str(title), numbers[0], numbers[1], numbers[2]))
    return step_traces(panels)


def _ablated(arm: str, rows: Sequence[Row]) -> Estimate:
    """One line of `ablation_bars`: an arm's summary, its draws, and what stands at the right."""
    draws, summaries = [], []
    for row in rows:
        if row.detail.get("draw") is None:
            summaries.append(row)
        else:
            draws.append(row.estimate)
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
    """Mean estimate, lowest low and highest high of each point's rows."""
    shares = sorted(points)
    mean, low, high = [], [], []
    for share in shares:
        rows = points[share]
        place = f"arm {arm!r}, {share:.3g} kept"
        _require_distinct(rows, place, "give `by` the detail key that differs")
        # An estimate stands for a missing bound; nan is where an estimate is missing.
        estimates, lows, highs = np.array([_bounded(row) for row in rows]).T
        mean.append(estimates.mean())
        low.append(lows.min())
        high.append(highs.max())
    return Line(label, shares, mean, low, high, arm, hollow)


def _bounded(row: Row) -> tuple[float, float, float]:
    low = row.estimate if math.isnan(row.low) else row.low
    high = row.estimate if math.isnan(row.high) else row.high
    return row.estimate, low, high


def _line(arm: str, rows: Sequence[Row], key: str) -> Line:
    """A line through the rows of one arm over `detail[key]`."""
    x, y, low, high = _columns(rows, key)
    return Line(arm, x, y, low, high, arm)


def _columns(rows: Sequence[Row], *keys: str) -> Float[np.ndarray, "column row"]:
    """Rows in order of the first of these keys of `detail`: the keys, estimate, low and high."""
    numbers = []
    for row in sorted(rows, key=lambda row: row.detail[keys[0]]):
        details = [row.detail[key] for key in keys]
        numbers.append([*details, row.estimate, row.low, row.high])
    return np.array(numbers, dtype=float).T


def _with_detail(rows: Sequence[Row], metric: str, *keys: str) -> list[Row]:
    """Rows of a metric whose detail has all of the keys."""
    return [row for row in rows if row.metric == metric and row.detail.keys() >= set(keys)]


def _estimates(rows: Sequence[Row]) -> list[float]:
    return [row.estimate for row in rows]


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
    low = min(finite, default=0.0)
    high = max(finite, default=1.0)
    return low, high if high > low else low + 1


def _label(metric: str) -> str:
    """A metric as words, for an axis."""
    words = metric.replace("_", " ").replace("auroc", "AUROC")
    return LABELS.get(metric, words)


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
