"""`results.json`: what is saved is loaded, and what is damaged is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from mechreward.base.errors import MechRewardError
from mechreward.experiments.rows import Results, Row, rows_from
from mechreward.stats import Interval

SHARED = {"experiment": "R1", "model": "tiny", "task": "chain", "site": "1.mlp", "seed": 3}
WIDE = Interval(0.0, 0.0, 1.0, 2)
ROW = Row(
    "R1",
    "tiny",
    "chain",
    "1.mlp",
    "value",
    "auroc",
    0.7,
    0.6,
    0.8,
    50,
    3,
    {"drop": [1, None], "name": "²"},
)


def test_round_trip(tmp_path: Path):
    results = Results(
        {"versions": {"torch": "x"}, "seconds": 1.5}, (ROW, replace(ROW, arm="random", detail={}))
    )
    assert Results.load(results.save(tmp_path / "deep" / "results.json")) == results


def test_nan_and_infinity_become_null_and_come_back_as_nan(tmp_path: Path):
    path = Results(
        {},
        (
            replace(
                ROW, estimate=math.nan, low=-math.inf, detail={"of": [math.nan, {"x": math.inf}]}
            ),
        ),
    )
    path = path.save(tmp_path / "results.json")
    raw = json.loads(
        path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON")
    )
    assert raw["rows"][0]["estimate"] is None and raw["rows"][0]["detail"] == {
        "of": [None, {"x": None}]
    }
    (row,) = Results.load(path).rows
    assert math.isnan(row.estimate) and math.isnan(row.low) and row.high == 0.8


def test_where_picks_by_every_field():
    rows = tuple(replace(ROW, arm=arm, seed=seed) for arm in ("value", "random") for seed in (0, 1))
    results = Results({}, rows)
    assert results.where(arm="random") == [rows[2], rows[3]]
    assert results.where(arm="random", seed=1) == [rows[3]]
    assert results.where(arm="nothing") == [] and results.where() == list(rows)
    with pytest.raises(AttributeError):
        results.where(colour="red")


def test_rows_from_shares_fields():
    numbers = [
        ("value", "auroc", Interval(0.7, 0.6, 0.8, 50), {"a": 1}),
        ("random", "ece", WIDE, {}),
    ]
    first, second = rows_from(SHARED, numbers)
    assert first == replace(ROW, detail={"a": 1})
    assert first.interval == numbers[0][2]
    assert (second.arm, second.metric, second.n, second.seed, second.site) == (
        "random",
        "ece",
        2,
        3,
        "1.mlp",
    )


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"schema": 2, "manifest": {}, "rows": []}',
        '{"schema": 1}',
        '{"schema": 1, "manifest": {}}',
        '{"schema": 1, "rows": []}',
        '{"schema": 1, "manifest": {}, "rows": [{"arm": "value"}]}',
        '{"schema": 1, "manifest": {}, "rows": [7]}',
        '{"schema": 1, "manifest": {}, "rows": null}',
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, damage: str):
    path = tmp_path / "results.json"
    path.write_text(damage)
    with pytest.raises(MechRewardError) as caught:
        Results.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_another_schema_is_named(tmp_path: Path):
    (tmp_path / "r.json").write_text('{"schema": 9, "manifest": {}, "rows": []}')
    with pytest.raises(MechRewardError, match="has schema 9; this version reads 1"):
        Results.load(tmp_path / "r.json")
