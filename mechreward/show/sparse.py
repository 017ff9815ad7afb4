"""Pictures of how few neurons are enough: pruning, layers, and what sets share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mechreward.base.errors import one_of, require
from mechreward.models.site import BLOCK_ORDER, Site
from mechreward.show.curve import Curve, Line
from mechreward.show.forest import Estimate, Forest
from mechreward.show.frames import Frame, at_one, check_one, frame_of, some, where
from mechreward.show.heatmap import Matrix
from mechreward.show.picture import Panel, Picture
from mechreward.show.style import NULLS, Reference, order
from mechreward.stats import Interval

LEVEL = 0.05  # of what is ringed
METRICS = ("spearman", "auroc_s0", "auroc_all", "auroc_last")
AXES = {
    "spearman": "Spearman with V-hat",
    "auroc_s0": "AUROC at s_0",
    "auroc_all": "AUROC at every state",
    "auroc_last": "AUROC at the last state",
}


def pruning(
    results: Any,
    metric: str = "spearman",
    *,
    site: str | None = None,
    shape: str = "mlp",
    fit: str = "retrained",
) -> Picture:
    """What a probe reads while neurons are pruned (R2), beside every null and every other ranking.

    Small multiples of three arms each beside the value ranking: the nulls first. Of arms with
    several draws the line is the mean, and every draw a dot.

    Parameters
    ----------
    results : Results, DataFrame or sequence of Row
        Of one model and task.
    metric : str, default "spearman"
        Or auroc_s0, auroc_all, auroc_last.
    site : str or None, default None
        Which, such as "2.resid_post"; None where there is one.
    shape : {"mlp", "linear"}
        Of the probe.
    fit : {"retrained", "masked"}
        Whether a probe is fitted anew to the neurons that are kept.

    Returns
    -------
    Picture

    Raises
    ------
    MechRewardError
        No such rows, or rows of several models, tasks or sites.
    """
    one_of("metric", metric, METRICS)
    frame = some(frame_of(results), "R2", metric)
    frame = frame[frame["detail.ratio"].notna()]
    require(len(frame) > 0, "no row of R2 has a pruning ratio: there is nothing to draw.")
    rows = at_one(frame, site)
    one_of("shape of the probe", shape, list(rows["detail.shape"].dropna().unique()))
    rows = rows[rows["detail.shape"] == shape]
    one_of("fit of the probe", fit, list(rows["detail.fit"].dropna().unique()))
    rows = rows[rows["detail.fit"] == fit]
    arms = sorted(rows["arm"].unique(), key=order)
    require("value" in arms, "no row of R2 is of the value ranking: there is nothing to compare.")
    value = _pruned(rows, "value")
    nulls = [arm for arm in arms if arm in NULLS]
    others = [arm for arm in arms if arm not in NULLS and arm != "value"]
    chance = Reference(0.0 if metric == "spearman" else 0.5, "chance")
    span = _span(rows)
    panels: list[Panel] = []
    for kind, names in (("Beside nulls", nulls), ("Beside other rankings", others)):
        for first in range(0, len(names), 3):
            few = names[first : first + 3]
            part = f" ({first // 3 + 1})" if len(names) > 3 else ""
            lines = [value, *(_pruned(rows, arm) for arm in few)]
            panels.append(_pruning_panel(f"{kind}{part}", lines, rows, metric, chance, span))
    if not panels:
        panels.append(_pruning_panel("Value", [value], rows, metric, chance, span))
    home = f"{where(rows)}, {rows['site'].iloc[0]}"
    caption = (
        f"{AXES[metric]} on held-out problems against the share of neurons kept, {shape} probe "
        f"{fit}, {home}. Bands: 95% intervals, clustered by problem, of arms that are one set. Of "
        "arms that are drawn (random subsets, other bases, shuffled labels) the line is the mean "
        "over draws and every dot one draw. Dashed: chance."
    )
    at = int(np.argmin(value.x))
    alt = (
        f"{AXES[metric]} of the value ranking: {value.y[int(np.argmax(value.x))]:.2f} with all "
        f"neurons, {value.y[at]:.2f} with {100 * value.x[at]:.3g}% of them."
    )
    return Picture(f"Pruning: {home}", panels, caption, alt)


def _pruning_panel(
    title: str,
    lines: list[Line],
    rows: Frame,
    metric: str,
    chance: Reference,
    span: tuple[float, float],
) -> Panel:
    ticks = {}
    for ratio, part in rows.groupby("detail.ratio"):
        share = 1 - float(ratio)
        count = part["detail.neurons"].dropna()
        ticks[share] = f"{100 * share:.3g}%"
        if len(count):
            ticks[share] += f"\n{int(count.iloc[0])}"
    return Curve(
        title,
        lines,
        "share of neurons kept, and their number",
        AXES[metric],
        references=[chance],
        ticks=_apart(ticks),
        logarithmic=True,
        falling=True,
        span=span,
    )


def _apart(ticks: dict[float, str]) -> dict[float, str]:
    """Ticks of a logarithmic axis that have room beside each other."""
    kept: dict[float, str] = {}
    last = np.inf
    for share in sorted(ticks, reverse=True):
        if last / share >= 1.6:
            kept[share] = ticks[share]
            last = share
    return kept


def _pruned(rows: Frame, arm: str) -> Line:
    """One arm: a band where it is one set, dots where it is drawn."""
    mine = rows[rows["arm"] == arm]
    draws = mine["detail.draw"].notna().any()
    x, y, low, high, dots = [], [], [], [], []
    for ratio, part in mine.groupby("detail.ratio"):
        share = 1 - float(ratio)
        x.append(share)
        y.append(float(part["estimate"].mean()))
        if draws:
            low.append(np.nan)
            high.append(np.nan)
            dots += [(share, float(estimate)) for estimate in part["estimate"]]
        else:
            low.append(float(part["low"].iloc[0]))
            high.append(float(part["high"].iloc[0]))
    return Line(arm.replace("_", " "), x, y, low, high, arm, draws=dots)


def _span(rows: Frame) -> tuple[float, float]:
    low = float(np.nanmin(rows[["estimate", "low"]].to_numpy(float)))
    high = float(np.nanmax(rows[["estimate", "high"]].to_numpy(float)))
    return max(low, -0.5) - 0.04, high + 0.04


def layers(results: Any, split: str = "test") -> Picture:
    """What a probe reads at every layer and kind of neuron (R3), all cells, none selected.

    A panel a share of the neurons. Rings: cells that hold after Holm over the whole grid.

    Parameters
    ----------
    results : Results, DataFrame or sequence of Row
        Of one model and task.
    split : {"test", "validation"}
        Whose problems are read.

    Returns
    -------
    Picture

    Raises
    ------
    MechRewardError
        No such rows, rows of several models or tasks, or a split that they lack.
    """
    rows = some(frame_of(results), "R3", "spearman")
    for column in ("model", "task"):
        check_one(rows, column, "select rows of one, as in frame[frame.task == ...]")
    splits = rows["detail.split"].fillna("validation")
    one_of("split", split, list(splits.unique()))
    rows = rows[splits == split]
    sites = {name: Site.parse(name) for name in rows["site"].unique()}
    kinds = sorted({at.kind for at in sites.values()}, key=BLOCK_ORDER.index, reverse=True)
    columns = [str(layer) for layer in sorted({at.layer for at in sites.values()})]
    panels: list[Panel] = []
    held = 0
    shares = sorted(rows["detail.share"].fillna(1.0).unique(), reverse=True)
    for share in shares:
        cells, ring = {}, []
        for line in rows[rows["detail.share"].fillna(1.0) == share].to_dict("records"):
            place = (sites[line["site"]].kind, str(sites[line["site"]].layer))
            cells[place] = float(line["estimate"])
            if line["detail.p_holm"] < LEVEL:
                ring.append(place)
        held += len(ring)
        title = "All neurons" if share == 1 else f"Top {100 * share:.3g}%"
        matrix = Matrix(
            title, cells, kinds, columns, low=-1.0, middle=0.0, ring=ring, xlabel="layer"
        )
        panels.append(matrix)
    count = sum(len(panel.marks()) for panel in panels)
    best = rows.sort_values("estimate").iloc[-1]
    caption = (
        f"Spearman of a probe's read-out with V-hat on {split} problems, for every layer, kind of "
        "neuron and share of the neurons. All cells are shown and none is selected. Ring: holds "
        f"after Holm over the {count} cells (p < {LEVEL}, randomisation, targets moved between "
        "problems). Blue follows V-hat, vermillion runs against it."
    )
    alt = (
        f"Spearman with V-hat in {count} cells; {held} hold after Holm. Highest: "
        f"{best['estimate']:.2f} at {best['site']}."
    )
    return Picture(f"Layers: {where(rows)}", panels, caption, alt, columns=2)


def overlap(results: Any) -> Picture:
    """What sets share: value sets with next-token sets (R6), and sets of several tasks and models
    (R12), each beside chance.

    Parameters
    ----------
    results : Results, DataFrame or sequence of Row
        Of either experiment, or of both.

    Returns
    -------
    Picture

    Raises
    ------
    MechRewardError
        No row of either.
    """
    frame = frame_of(results)
    rows = frame[(frame["metric"] == "iou") & frame["experiment"].isin(["R6", "R12"])]
    require(
        len(rows) > 0,
        "no row of next_token (R6) or transfer (R12) is an IoU: there is nothing to draw.",
    )
    panels: list[Panel] = []
    told = []
    tokens = rows[rows["experiment"] == "R6"]
    if len(tokens):
        groups: dict[str, list[Estimate]] = {}
        for line in tokens.to_dict("records"):
            heading = f"{where(pd.DataFrame([line]))}, {line['site']}"
            score = Interval(float(line["estimate"]), np.nan, np.nan, int(line["n"]))
            estimate = Estimate(
                f"top {100 * line['detail.share']:.3g}%",
                score,
                mark=float(line["detail.expected"]),
                text=f"{score.estimate:.2f}, p {line['detail.p']:.2g}",
            )
            groups.setdefault(heading, []).append(estimate)
        title = "Value set with next-token set"
        panels.append(Forest(title, groups, "IoU", tick="by chance", wide=True))
        told.append(f"{len(tokens)} overlaps with next-token sets, at most "
                    f"{tokens['estimate'].max():.2f}")  # fmt: skip
    moved = rows[(rows["experiment"] == "R12") & (rows["arm"] == "value")]
    for site, part in moved.groupby("site"):
        cells, ring, notes = {}, [], {}
        for line in part.to_dict("records"):
            place = (f"{line['detail.from_model']} {line['detail.from_task']}",
                     f"{line['model']} {line['task']}")  # fmt: skip
            cells[place] = float(line["estimate"])
            if place[0] != place[1] and line["detail.p"] < LEVEL:
                ring.append(place)
            notes[place] = "itself" if place[0] == place[1] else ""
        apart = [number for place, number in cells.items() if place[0] != place[1]]
        chance = float(part["detail.expected"].mean())
        matrix = Matrix(
            f"{site}: IoU of sets, {chance:.2f} by chance",
            cells,
            notes={place: note for place, note in notes.items() if note},
            ring=ring,
            xlabel="set of",
            ylabel="set of",
            wide=len({column for _, column in cells}) > 2,
        )
        panels.append(matrix)
        if apart:
            told.append(f"At {site} the IoU of two settings is at most {max(apart):.2f}")
    caption = (
        "Intersection over union of sets of neurons. Dots: a count, without an interval; upright "
        "tick: what two blind draws of that size share on average; p: hypergeometric. Matrices: "
        f"sets of each setting with those of every other; ring: more than by chance, p < {LEVEL}, "
        "not corrected."
    )
    return Picture("What sets of neurons share", panels, caption, f"{'; '.join(told)}.")


__all__ = ["layers", "overlap", "pruning"]
