"""Which rows: by kind, by curve, by experiment."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

from mechreward.experiments.rows import Results, Row

LEVEL = 0.05


def _grid(results: Results, split: str) -> list[Row]:
    return [
        row
        for row in results.where(experiment="R3")
        if row.detail.get("split", "validation") == split
    ]


def held(results: Results, evidence: Row, score: float) -> Row | None:
    """The point of the linear curve that is this score of a `sparsity` row, whose detail has no
    intervals."""
    here = {
        "experiment": "R2",
        "model": evidence.model,
        "task": evidence.task,
        "site": evidence.site,
    }
    points = curve_rows(results.where(**here, metric="spearman"), "linear")
    ours = (
        row
        for row in points
        if row.arm in ("value", "correlation") and abs(row.estimate - score) < 1e-9
    )
    return next(ours, None)


def curve_rows(rows: Sequence[Row], shape: str, fit: str = "retrained") -> list[Row]:
    """The points of one pruning curve."""
    wanted = {"shape": shape, "fit": fit}
    return [row for row in rows if "ratio" in row.detail and wanted.items() <= row.detail.items()]


RANKED = 19  # draws below which the first rank says nothing: its p is above .05


def kind_of(row: Row) -> str:
    """Kind of neuron a row is about."""
    return row.site.partition(".")[2]


def ranked(other: Row) -> bool:
    """Whether a set is first among all of its matched sets, at .05."""
    return other.detail.get("p_rank", 1.0) <= 0.05


def of(rows: Sequence[Row], kind: str) -> list[Row]:
    """Rows about one kind of neuron."""
    return [row for row in rows if kind_of(row) == kind]


def of_matched(results: Results, row: Row, metric: str, key: str) -> Row | None:
    """The matched sets' row at the same place."""
    found = results.where(experiment=row.experiment, arm="matched", metric=metric, site=row.site)
    return next((one for one in found if one.detail[key] == row.detail[key]), None)


def apart(a: Row, b: Row) -> int:
    """1 where the interval of `a` lies above that of `b`, -1 where below, 0 where they meet or one
    is missing."""
    return 1 if a.low > b.high else -1 if a.high < b.low else 0


def index(rows: Iterable[Row], key: Callable[[Row], Hashable]) -> dict[Hashable, Row]:
    """Rows by `key`; of equal ones the last."""
    return {key(row): row for row in rows}


def sites(rows: Iterable[Row]) -> list[str]:
    """Sites of the rows, each once, in their order."""
    return list(dict.fromkeys(row.site for row in rows))


def shared_n(rows: Iterable[Row | None]) -> int:
    """`n` of the first row that exists: what a line of cells says once."""
    return next((row.n for row in rows if row is not None), 0)
