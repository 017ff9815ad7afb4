"""What the page says over layers and across homes: every cell of R3, none picked; base and
descendants; transfer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mechreward import stats
from mechreward.base.files import write_atomic
from mechreward.experiments.plan import again
from mechreward.experiments.rows import Results, Row
from mechreward.report.select import LEVEL, _grid, kind_of
from mechreward.report.tables import transfers
from mechreward.report.words import NAMES, short
from mechreward.show.heatmap import matrix
from mechreward.stats.intervals import difference

BASE = "countdown-base"
USED = ("chosen in", "used in")


def against_base(results: Results, homes: Sequence[tuple[str, str]]) -> list[str]:
    """Whether the RL descendants (every other model on a task of the base) read otherwise than the
    base: all neurons of every layer and kind on the test grid, so that no choice of a layer
    matters, Holm over all cells of the table.

    Markdown lines; none where the base is not among `homes`. Rule: our own choice.
    """
    lines, cells, skipped = [], [], []
    for model, task in homes:
        if model == BASE or (BASE, task) not in homes:
            continue
        own, base = (_whole(results, name, task) for name in (model, BASE))
        both = [site for site in own if site in base]
        cells += [(model, task, own[site], base[site]) for site in both]
        skipped += [] if both else [f"{model} on {task}"]
    if skipped:
        lines += [
            f"Not compared with the base, for want of R3 rows of the test split: {', '.join(skipped)}.",
            "",
        ]
    if not cells:
        return lines
    apart = [difference(own.interval, base.interval) for _, _, own, base in cells]
    p = np.full(len(cells), np.nan)
    known = np.array([not np.isnan(value) for _, value in apart])
    if known.any():
        p[known] = stats.holm(np.array([value for _, value in apart])[known])
    lines += [
        "Descendants and base, on test: Spearman with V-hat of all neurons at every layer of both kinds, none picked. "
        "The interval of the difference is that of two independent ones (distances from estimate to bound added in "
        "quadrature), which ignores that both models answer the same problems; p by the normal approximation, Holm "
        f"over all {int(known.sum())} cells. Repeated by {again(results, 'R3')}.",
        "",
        "| | neurons | Spearman | base | difference | p, Holm |",
        "|" + " --- |" * 6,
    ]
    for (model, task, own, base), (gap, _), value in zip(cells, apart, p, strict=True):
        lines.append(
            f"| {model} on {task} | {NAMES[kind_of(own)]}, {own.site} | {short(own.interval)} | "
            f"{short(base.interval)} | {short(gap)} | {'none' if np.isnan(value) else f'{value:.2g}'} |"
        )
    lines.append("")
    for home in dict.fromkeys((model, task) for model, task, _, _ in cells):
        mine = [i for i, (model, task, _, _) in enumerate(cells) if (model, task) == home]
        found = [i for i in mine if p[i] < LEVEL]
        said = ", ".join(f"{cells[i][2].site} ({apart[i][0].estimate:+.2f})" for i in found)
        verdict = (
            f"differs from the base at {said}" if found else "no difference from the base is shown"
        )
        lines.append(f"- {home[0]} on {home[1]}: {verdict}, of {len(mine)} cells.")
    return [*lines, ""]


def across(results: Results, path: Path) -> list[str]:
    """R12 as Markdown lines, with its matrices as SVG files in the folder `pictures` beside `path`;
    none without it."""
    sites = dict.fromkeys(row.site for row in results.where(experiment="R12"))
    if not sites:
        return []
    lines = ["## R12. Transfer over tasks and models", "", again(results, "R12"), ""]
    for site in sites:
        lines += _transfer(results.where(experiment="R12", site=site), path)
    return lines


def _transfer(rows: Sequence[Row], path: Path) -> list[str]:
    """One site's part of R12."""
    kind = kind_of(rows[0])
    cells: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
    for row in rows:
        place = f"{row.detail['from_model']} {row.detail['from_task']}", f"{row.model} {row.task}"
        cells.setdefault((row.arm, row.metric), {})[place] = row
    draws = max((row.n for row in rows if row.arm == "matched" and row.metric != "iou"), default=0)
    lines = [
        f"Value sets of {rows[0].detail['neurons']} {NAMES[kind]} at {rows[0].site}, chosen in the row's home, used in "
        "the column's: there a linear probe is refitted to these neurons. Ringed: above every one of the sets of "
        f"equal activation magnitude ({draws} draws: p = {1 / (1 + draws):.2g}, not corrected for the number of "
        f"cells); an overlap, p at most {LEVEL} by the exact law of neurons as large at the column's, not corrected "
        "either.",
        *_unmatched(rows),
        "",
    ]
    same = "IoU of the sets; below it chance from any neurons (hypergeometric) and from neurons as large at the column's"
    for name, metric, title, labels in (
        ("overlap", "iou", same, ("set of", "set of")),
        (
            "read",
            "spearman",
            "Spearman with V-hat of what the row's neurons read in the column's home",
            USED,
        ),
        (
            "auroc",
            "auroc_all",
            "AUROC of the final verdict, from what the row's neurons read in the column's home",
            USED,
        ),
    ):
        own, other = (cells.get((arm, metric), {}) for arm in ("value", "matched"))
        if not own:
            continue
        drawing = matrix(
            {place: row.estimate for place, row in own.items()},
            low=0.5 if metric == "auroc_all" else 0.0,
            notes={place: _note(row, other.get(place)) for place, row in own.items()},
            ring=[
                p
                for p in own
                if _beyond(own[p], other.get(p)) and not (metric == "iou" and p[0] == p[1])
            ],
            xlabel=labels[1],
            ylabel=labels[0],
        )
        write_atomic(path.parent / "pictures" / f"R12-{kind}-{name}.svg", drawing)
        lines += [f"![R12: {title}](pictures/R12-{kind}-{name}.svg)", f"*{title}*", ""]
    return [*lines, _transferred(cells), "", *transfers(rows)]


def _transferred(cells: dict[tuple[str, str], dict[tuple[str, str], Row]]) -> str:
    """How many pairs of homes share more than chance, and how many transfers read more than matched
    sets."""
    iou, like = cells["value", "iou"], cells.get(("matched", "iou"), {})
    away = [place for place in iou if place[0] != place[1]]
    pairs = [place for place in away if place[0] < place[1]]
    said = (
        f"Of {len(pairs)} pairs of homes, {_hold([iou[place].detail['p'] for place in pairs])} share more neurons than "
        f"chance (hypergeometric, Holm at {LEVEL})"
    )
    if like:
        worse = [
            max(like[a, b].detail["p"], like[b, a].detail["p"])
            for a, b in pairs
            if {(a, b), (b, a)} <= set(like)
        ]
        said += f"; {_hold(worse)} more than chance among neurons as large, by the larger p of the two homes (Holm too)"
    said += f". Of {len(away)} transfers, "
    parts = []
    for metric, what in (("spearman", "V-hat"), ("auroc_all", "the final verdict")):
        own, other = cells.get(("value", metric), {}), cells.get(("matched", metric), {})
        good = sum(_beyond(own[place], other.get(place)) for place in away if place in own)
        parts += [f"{good} read {what} better than every magnitude-matched set"] if own else []
    return said + " and ".join(parts) + " (not corrected)."


def _hold(p: Sequence[float]) -> int:
    """How many of a family hold after Holm."""
    return int((stats.holm(p) <= LEVEL).sum()) if len(p) else 0


def _unmatched(rows: Sequence[Row]) -> list[str]:
    """A sentence where controls missed their match."""
    off = [row for row in rows if row.detail.get("is_matched") is False]
    if not off:
        return []
    worst = max(row.detail["error"] for row in off)
    total = sum("is_matched" in row.detail for row in rows)
    return [
        f"In {len(off)} of {total} comparisons the control sets are not matched (mean log error up to {worst:.2f}): "
        "they are called unmatched, and such cells are neither ringed nor counted."
    ]


def _beyond(own: Row, other: Row | None) -> bool:
    """Above every matched set, and these are matched (rows of older runs do not say: taken as
    such); an overlap, by its exact law."""
    if own.metric == "iou":
        return other is not None and other.detail["p"] <= LEVEL
    return other is not None and other.detail.get("is_matched", True) and own.estimate > other.high


def _note(own: Row, other: Row | None) -> str:
    """The small second line of a square: what chance gives there."""
    said = [f"{own.detail['expected']:.2f}"] if own.metric == "iou" else []
    if other is not None:
        word = (
            "as large"
            if own.metric == "iou"
            else "matched"
            if other.detail.get("is_matched", True)
            else "unmatched"
        )
        said.append(f"{word} {other.estimate:.2f}")
    return ", ".join(said)


def _whole(results: Results, model: str, task: str) -> dict[str, Row]:
    rows = [row for row in _grid(results, "test") if (row.model, row.task) == (model, task)]
    return {row.site: row for row in rows if row.detail["share"] == 1}
