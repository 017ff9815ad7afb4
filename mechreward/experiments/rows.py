"""`results.json`, schema 1: a manifest and tidy rows, the same for every experiment."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mechreward.base.errors import MechRewardError, require
from mechreward.base.files import nulled, read_json, write_json
from mechreward.stats import Interval

SCHEMA = 1


@dataclass(frozen=True)
class Row:
    """One number with its interval. `arm` says what was measured (`value`, `matched`, `random`,
    ...), `n` counts independent units (problems, unless `detail` says otherwise). NaN means that
    the number does not exist."""

    experiment: str
    model: str
    task: str
    site: str
    arm: str
    metric: str
    estimate: float
    low: float
    high: float
    n: int
    seed: int
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def interval(self) -> Interval:
        return Interval(self.estimate, self.low, self.high, self.n)


@dataclass(frozen=True)
class Results:
    """What `results.json` holds. `manifest` keeps versions, seeds, model and weight hash, git
    state, timings."""

    manifest: dict[str, Any]
    rows: tuple[Row, ...]

    def where(self, **wanted: object) -> list[Row]:
        """Rows whose fields equal all of `wanted`."""
        return [
            row
            for row in self.rows
            if all(getattr(row, key) == value for key, value in wanted.items())
        ]

    def save(self, path: Path | str) -> Path:
        """Write atomically; NaN becomes null."""
        rows = [nulled(asdict(row)) for row in self.rows]
        return write_json(path, {"schema": SCHEMA, "manifest": self.manifest, "rows": rows})

    @classmethod
    def load(cls, path: Path | str) -> Results:
        """Raises MechRewardError for a missing or damaged file, or another schema."""
        data = read_json(path, "results")
        require(
            data.get("schema") == SCHEMA,
            f"{path} has schema {data.get('schema')}; this version reads {SCHEMA}.",
        )
        try:
            rows: list[dict[str, Any]] = [
                {k: math.nan if v is None else v for k, v in row.items()} for row in data["rows"]
            ]
            return cls(data["manifest"], tuple(Row(**row) for row in rows))
        except (KeyError, TypeError, AttributeError) as error:
            raise MechRewardError(f"{path} is no whole results file: {error}.") from error


def rows_from(
    shared: dict[str, Any], numbers: Iterable[tuple[str, str, Interval, dict[str, Any]]]
) -> list[Row]:
    """Rows that share their experiment, model, task, site and seed: one for each (arm, metric,
    interval, detail)."""
    return [
        Row(**shared, arm=arm, metric=metric, **asdict(i), detail=detail)
        for arm, metric, i, detail in numbers
    ]
