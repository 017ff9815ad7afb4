"""Transfer over settings (R12): every pair of settings, in matrices and in a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mechreward import stats
from mechreward.experiments.plan import again
from mechreward.experiments.rows import Results, Row
from mechreward.report.formats import NONE, cell, number, p_of, small, two
from mechreward.report.layout import Figure, Table
from mechreward.report.select import LEVEL, having, kind_of, pivot, shared_n, sites
from mechreward.report.words import NAMES
from mechreward.show.heatmap import matrix

Pair = tuple[str, str]  # the setting a set was chosen in, the setting it is used in
Scores = dict[Pair, Row]
USED = ("used in", "chosen in")
# Name of the picture, metric, lowest colour, labels of columns and rows, caption.
MATRICES = (
    (
        "overlap",
        "iou",
        0.0,
        ("set of", "set of"),
        "IoU of the sets; below it chance from any neurons (hypergeometric) and from neurons as "
        "large at the column's",
    ),
    (
        "read",
        "spearman",
        0.0,
        USED,
        "Spearman with V-hat of what the row's neurons read in the column's home",
    ),
    (
        "auroc",
        "auroc_all",
        0.5,
        USED,
        "AUROC of the final verdict, from what the row's neurons read in the column's home",
    ),
)


@dataclass(frozen=True)
class SiteTransfer:
    """What the page says of the value sets of one site.

    Attributes
    ----------
    neurons
        Which neurons.
    draws, p, level
        Number of matched sets, the p-value of the first rank among them, and the level.
    unmatched
        A sentence where controls missed their match, or "".
    figures, counts, table
        Matrices, what they come to in a sentence, every number.
    """

    neurons: str
    draws: int
    p: str
    level: float
    unmatched: str
    figures: Sequence[Figure]
    counts: str
    table: Table


@dataclass(frozen=True)
class Transfer:
    """R12 on the page: the command that repeats it, and its sites (none without rows)."""

    command: str
    sites: Sequence[SiteTransfer]


def transfer(results: Results) -> Transfer:
    """R12 of every site that has rows."""
    parts = []
    for site in sites(results.where(experiment="R12")):
        parts.append(_site(results.where(experiment="R12", site=site)))
    return Transfer(again(results, "R12") if parts else "", parts)


def _site(rows: Sequence[Row]) -> SiteTransfer:
    scores: dict[tuple[str, str], Scores] = {}
    draws = 0
    for row in rows:
        pair = f"{row.detail['from_model']} {row.detail['from_task']}", f"{row.model} {row.task}"
        scores.setdefault((row.arm, row.metric), {})[pair] = row
        if row.arm == "matched" and row.metric != "iou":
            draws = max(draws, row.n)
    kind = kind_of(rows[0])
    figures = []
    for name, metric, low, labels, caption in MATRICES:
        own, matched = scores.get(("value", metric), {}), scores.get(("matched", metric), {})
        if own:
            drawing = _matrix(own, matched, low, labels)
            figures.append(Figure(f"R12: {caption}", f"R12-{kind}-{name}.svg", drawing))
    return SiteTransfer(
        neurons=f"{rows[0].detail['neurons']} {NAMES[kind]} at {rows[0].site}",
        draws=draws,
        p=small(1 / (1 + draws)),
        level=LEVEL,
        unmatched=_unmatched(rows),
        figures=figures,
        counts=_counts(scores),
        table=_table(rows),
    )


def _matrix(own: Scores, matched: Scores, low: float, labels: Pair) -> str:
    """A square for each pair of settings; ringed where the set exceeds its controls, but for the
    overlap of a set with itself."""
    ring = []
    for pair, row in own.items():
        itself = row.metric == "iou" and pair[0] == pair[1]
        if not itself and _exceeds(row, matched.get(pair)):
            ring.append(pair)
    return matrix(
        {pair: row.estimate for pair, row in own.items()},
        low=low,
        notes={pair: _note(row, matched.get(pair)) for pair, row in own.items()},
        ring=ring,
        xlabel=labels[0],
        ylabel=labels[1],
    )


def _exceeds(own: Row, matched: Row | None) -> bool:
    """Above every matched set, and these are matched (rows of older runs do not say: taken as
    such); an overlap, by its exact law."""
    if matched is None:
        return False
    if own.metric == "iou":
        return matched.detail["p"] <= LEVEL
    return matched.detail.get("is_matched", True) and own.estimate > matched.high


def _note(own: Row, matched: Row | None) -> str:
    """The small second line of a square: what chance gives there."""
    overlap = own.metric == "iou"
    parts = [two(own.detail["expected"])] if overlap else []
    if matched is not None:
        word = "matched" if matched.detail.get("is_matched", True) else "unmatched"
        parts.append(f"{'as large' if overlap else word} {two(matched.estimate)}")
    return ", ".join(parts)


def _unmatched(rows: Sequence[Row]) -> str:
    """A sentence where controls missed their match."""
    told = having(rows, "is_matched")
    missed = [row for row in told if not row.detail["is_matched"]]
    if not missed:
        return ""
    worst = max(row.detail["error"] for row in missed)
    return (
        f"In {len(missed)} of {len(told)} comparisons the control sets are not matched (mean log "
        f"error up to {two(worst)}): they are called unmatched, and such cells are neither ringed "
        "nor counted."
    )


def _counts(scores: dict[tuple[str, str], Scores]) -> str:
    """How many pairs of settings share more than chance, and how many transfers read more than
    matched sets."""
    overlap, as_large = scores["value", "iou"], scores.get(("matched", "iou"), {})
    away = [pair for pair in overlap if pair[0] != pair[1]]
    pairs = [pair for pair in away if pair[0] < pair[1]]
    shared = _holding([overlap[pair].detail["p"] for pair in pairs])
    text = (
        f"Of {len(pairs)} pairs of homes, {shared} share more neurons than chance "
        f"(hypergeometric, Holm at {LEVEL})"
    )
    if as_large:
        larger = []
        for a, b in pairs:
            if (a, b) in as_large and (b, a) in as_large:
                larger.append(max(as_large[a, b].detail["p"], as_large[b, a].detail["p"]))
        text += (
            f"; {_holding(larger)} more than chance among neurons as large, by the larger p of the "
            "two homes (Holm too)"
        )
    parts = []
    for metric, what in (("spearman", "V-hat"), ("auroc_all", "the final verdict")):
        own, matched = scores.get(("value", metric), {}), scores.get(("matched", metric), {})
        if own:
            better = [pair for pair in away if pair in own]
            better = [pair for pair in better if _exceeds(own[pair], matched.get(pair))]
            parts.append(f"{len(better)} read {what} better than every magnitude-matched set")
    return f"{text}. Of {len(away)} transfers, {' and '.join(parts)} (not corrected)."


def _holding(p: Sequence[float]) -> int:
    """How many of a family hold after Holm."""
    return int((stats.holm(p) <= LEVEL).sum()) if len(p) else 0


def _table(rows: Sequence[Row]) -> Table:
    """Every transfer with its intervals, as the matrices have no room for them."""
    lines = []
    columns = ("detail.from_model", "detail.from_task", "model", "task")
    for place, cells in pivot(rows, *columns).items():
        from_model, from_task, model, task = place
        overlap, as_large = cells.get(("value", "iou")), cells.get(("matched", "iou"))
        line = [f"{from_model} {from_task} in {model} {task}", _alone(overlap)]
        line.append(NONE if overlap is None else number(overlap.detail["expected"]))
        line += [p_of(overlap, "p"), _alone(as_large), p_of(as_large, "p")]
        for metric in ("spearman", "auroc_all"):
            matched = cells.get(("matched", metric))
            off = matched is not None and matched.detail.get("is_matched") is False
            line.append(_alone(cells.get(("value", metric))))
            line.append(_alone(matched) + (" unmatched" if off else ""))
        n = shared_n([cells.get(("value", "spearman"))])
        lines.append([*line, str(n)])
    return Table(
        "R12, every transfer. Matched: mean over sets, between the lowest and the highest. An IoU "
        "has no sampling interval. Chance of any neurons is hypergeometric; chance of neurons as "
        "large is that of the home where the set is used, its mean with 2.5% to 97.5% of its "
        "law; p "
        "of an overlap so large or larger, not corrected.",
        (
            "set of, used in",
            "IoU",
            "chance, any neurons",
            "p",
            "chance, as large",
            "p",
            "Spearman with V-hat",
            "matched",
            "AUROC of the verdict",
            "matched",
            "n",
        ),
        lines,
    )


def _alone(row: Row | None) -> str:
    """A cell that does not say its n."""
    return cell(row, shared_n([row]))
