"""Which rows: by kind, by curve, by experiment; and how they are laid out for a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mechreward.experiments.rows import Results, Row

LEVEL = 0.05
RANKED = 19  # draws below which the first rank says nothing: its p is above .05

Cells = dict[tuple[str, str], Row]  # the rows of one line of a table, by arm and metric


def pivot(rows: Sequence[Row], *by: str) -> dict[tuple[str, ...], Cells]:
    """Rows laid out as the lines of a table: one line for all rows that agree in `by`.

    Parameters
    ----------
    rows
        Of two rows that differ in nothing that is looked at here the last counts.
    by
        Columns of `Results.frame()`: fields such as `site`, and `detail.KEY`.

    Returns
    -------
    dict
        Lines in the order of their first rows: the values of `by` ("" where a row has none), and
        the rows of that line by arm and metric.
    """
    columns = list(by)
    frame = Results({}, tuple(rows)).frame().reindex(columns=columns)
    frame = frame.astype(object).where(frame.notna(), "")
    lines: dict[tuple[str, ...], Cells] = {}
    for place, group in frame.groupby(columns, sort=False):
        line = lines.setdefault(tuple(place), {})
        for number in group.index:
            row = rows[number]
            line[row.arm, row.metric] = row
    return lines


def having(rows: Iterable[Row], key: str) -> list[Row]:
    """Rows whose detail holds `key`."""
    return [row for row in rows if key in row.detail]


def lacking(rows: Iterable[Row], *keys: str) -> list[Row]:
    """Rows whose detail holds none of `keys`."""
    return [row for row in rows if row.detail.keys().isdisjoint(keys)]


def grid_rows(results: Results, split: str) -> list[Row]:
    """R3's rows of a split; those of older runs, which do not say, are of validation."""
    rows = results.where(experiment="R3")
    return [row for row in rows if row.detail.get("split", "validation") == split]


def curve_rows(rows: Sequence[Row], shape: str, fit: str = "retrained") -> list[Row]:
    """The points of one pruning curve."""
    points = []
    for row in having(rows, "ratio"):
        if row.detail.get("shape") == shape and row.detail.get("fit") == fit:
            points.append(row)
    return points


def held(results: Results, evidence: Row, score: float) -> Row | None:
    """The row of this score of a `sparsity` row, whose detail has no intervals."""
    rows = results.where(
        experiment="R2",
        model=evidence.model,
        task=evidence.task,
        site=evidence.site,
        metric="beyond_known",
    )
    for row in rows:
        if abs(row.estimate - score) < 1e-9:
            return row
    return None


def kind_of(row: Row) -> str:
    """Kind of neuron a row is about."""
    return row.site.partition(".")[2]


def of(rows: Sequence[Row], kind: str) -> list[Row]:
    """Rows about one kind of neuron."""
    return [row for row in rows if kind_of(row) == kind]


def of_matched(results: Results, row: Row, metric: str, key: str) -> Row | None:
    """The matched sets' row at the same place."""
    rows = results.where(experiment=row.experiment, arm="matched", metric=metric, site=row.site)
    for matched in rows:
        if matched.detail[key] == row.detail[key]:
            return matched
    return None


def ranked(row: Row) -> bool:
    """Whether a set is first among all of its matched sets, at .05."""
    return row.detail.get("p_rank", 1.0) <= LEVEL


def apart(a: Row, b: Row) -> int:
    """1 where the interval of `a` lies above that of `b`, -1 where below, 0 where they meet or one
    is missing."""
    if a.low > b.high:
        return 1
    return -1 if a.high < b.low else 0


def sites(rows: Iterable[Row]) -> list[str]:
    """Sites of the rows, each once, in their order."""
    return list(dict.fromkeys(row.site for row in rows))


def settings(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """(model, task) of the rows, each once, in their order."""
    return list(dict.fromkeys((row.model, row.task) for row in rows))


def shared_n(rows: Iterable[Row | None]) -> int:
    """`n` of the first row that exists: what a line of cells says once."""
    for row in rows:
        if row is not None:
            return row.n
    return 0
