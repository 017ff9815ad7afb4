"""Rows of a data set: lists, files, and `datasets` objects, each row a dictionary."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mechreward.base.errors import MechRewardError, one_of, require, shown, unknown_name

Row = Mapping[str, Any]
FILES = (".jsonl", ".json", ".csv", ".parquet")
SPLIT_NAMES = {"val": "validation", "valid": "validation", "dev": "validation"}


def rows_of(source: Any) -> list[tuple[str | None, Row]]:
    """Every row with the name of its split; None where the data has no splits of its own.

    Parameters
    ----------
    source : list of dict, datasets.Dataset, datasets.DatasetDict, str or Path
        A file ends in .jsonl, .json (a list of objects), .csv or .parquet.

    Raises
    ------
    MechRewardError
        Something else, a file that cannot be read, or no row.
    """
    if isinstance(source, str | Path):
        rows: list[tuple[str | None, Row]] = [(None, row) for row in _file(Path(source))]
    elif isinstance(source, Mapping):  # datasets.DatasetDict
        rows = []
        for name, part in source.items():
            split = SPLIT_NAMES.get(str(name), str(name))
            one_of("split of the data", split, ("train", "validation", "test"))
            rows += [(split, row) for row in part]
    else:
        if hasattr(source, "to_dict") and hasattr(source, "columns"):  # a DataFrame
            source = source.to_dict("records")
        require(
            isinstance(source, Iterable) and not isinstance(source, bytes),
            f"rows are a list of dictionaries, a Dataset or a file; {shown(source)} was given.",
        )
        rows = []
        given: Any = source
        for row in given:
            rows.append((None, row))
    require(bool(rows), "the data has no rows.")
    for number, (_, row) in enumerate(rows):
        if not isinstance(row, Mapping):
            raise MechRewardError(
                f"a row is a dictionary from column to entry; row {number} is {shown(row)}."
            )
    return rows


def entry(row: Row, column: str, number: int) -> Any:
    """An entry of a row.

    Raises
    ------
    MechRewardError
        The row has no such column; the message names the nearest.
    """
    if column not in row:
        names = [str(name) for name in row]
        raise MechRewardError(
            f"row {number}: {unknown_name('column', column, names, ', '.join(names))}"
        )
    return row[column]


def _file(path: Path) -> list[Row]:
    path = path.expanduser()
    kind = path.suffix.lower()
    if kind not in FILES:
        raise MechRewardError(f"{path} is no table: its name ends in none of {', '.join(FILES)}.")
    try:
        if kind == ".jsonl":
            return _lines(path)
        if kind == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                return list(csv.DictReader(file, strict=True))
        if kind == ".parquet":
            from pyarrow import parquet

            return parquet.read_table(path).to_pylist()
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise MechRewardError(f"cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, csv.Error, RecursionError) as error:  # pyarrow's are ValueErrors
        why = " ".join(str(error).split())
        raise MechRewardError(f"{path} is no readable {kind[1:]}: {why}") from error
    require(isinstance(value, list), f"{path} is no list of objects.")
    return value


def _lines(path: Path) -> list[Row]:
    rows = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise MechRewardError(f"{path}, line {number} is no JSON: {error}") from error
    return rows
