"""The page's table at a glance and its commands, from made-up rows."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from math import nan
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from mechreward import experiments as paper
from mechreward.experiments.plan import PAPER
from mechreward.experiments.rows import Results, Row, rows_from
from mechreward.report.layout import render
from mechreward.report.results_page import write_page
from mechreward.report.tables import numbers
from mechreward.stats import Interval


def page(rows: list[Row], folder: Path, **manifest: Any) -> str:
    results = Results({"versions": {"mechreward": "0"}} | manifest, tuple(rows))
    return write_page(results, folder / "page.md", "mechreward paper ...").read_text()


def evidence(reading: str = "sparse", few: float = 0.3) -> list[Row]:
    """A `sparsity` row, the rows of its scores with their intervals, and a linear curve that says
    something else."""
    detail = {
        "neurons": 8,
        "reading": reading,
        "p": 0.05,
        "random": 0.11,
        "rotated": 0.22,
        "few": few,
        "full": 0.4,
        "told": 0.35,
    }
    ends = {"shape": "linear", "fit": "retrained"}
    return rows_from(
        paper.shared("R2", "made-up", "rows", "3.mlp", 0),
        [
            ("value", "sparsity", Interval(0.8, 0.6, 1.0, 50), detail),
            (
                "value",
                "beyond_known",
                Interval(0.4, 0.35, 0.45, 50),
                {"shape": "linear", "neurons": 768},
            ),
            (
                "value",
                "beyond_known",
                Interval(0.3, 0.25, 0.36, 50),
                {"shape": "linear", "neurons": 8},
            ),
            (
                "value",
                "spearman",
                Interval(0.3, 0.01, 0.98, 50),
                ends | {"ratio": 0.99, "neurons": 8},
            ),
            (
                "random",
                "spearman",
                Interval(0.99, nan, nan, 50),
                ends | {"ratio": 0.99, "neurons": 8, "draw": 0},
            ),
        ],
    )


def test_at_a_glance_holds_what_sparsity_is_made_of(tmp_path: Path):
    text = page(evidence(), tmp_path)
    numbers = "0.40 [0.35, 0.45] | 0.30 [0.25, 0.36] | 0.11 | 0.22 | 0.80 [0.60, 1.00] | sparse |"
    assert f"| made-up on rows | MLP units, 3.mlp | {numbers}" in text and "0.99 |" not in text
    assert "| 0.40 [0.35, 0.45] | 0.31 | 0.11 |" in page(evidence(few=0.31), tmp_path), (
        "another read-out: no interval"
    )


def test_sparsity_of_what_reads_nothing_is_a_dash(tmp_path: Path):
    assert "| 0.11 | 0.22 | – | nothing |" in page(evidence("nothing"), tmp_path)


@pytest.mark.parametrize(("k", "words"), [(32, ""), (16, " --k 16")])
def test_commands_carry_the_sizes_of_the_run(tmp_path: Path, k: int, words: str):
    plan = asdict(replace(PAPER, model="made-up", task="rows", k=k))
    text = page(evidence(), tmp_path, runs={"made-up.rows": {"plan": plan}})
    assert text.count(f"`mechreward paper R2 --model made-up --task rows{words}`") == 2, (
        "at a glance, and the home"
    )
    assert (
        "Repeated by `mechreward paper R2"
        in text.partition("## At a glance")[2].partition("## made-up")[0]
    )


def test_captions_name_R13_where_it_is_the_same_rows(tmp_path: Path):
    rows = evidence()
    again = [replace(row, experiment="R13", detail=row.detail | {"as": "R2"}) for row in rows]
    assert "R2, R13, MLP units: Spearman with V-hat, linear" in page([*rows, *again], tmp_path)
    assert "R13, MLP units" not in page(rows, tmp_path)


HOSTILE = '<script>alert(1)</script> | {{ 7*7 }} "x" [a](b)'


def test_hostile_names_are_text_on_the_page(tmp_path: Path):
    """In the name of a model, a target, an arm and a detail: no tag but the page's own."""
    about = paper.shared("R1", HOSTILE, "rows", "3.mlp", 0)
    score = Interval(0.3, 0.2, 0.4, 50)
    probe = {"target": HOSTILE, "shape": "linear"}
    known = rows_from(
        about | {"experiment": "R7"}, [(HOSTILE, "auroc_s0", score, {"known": HOSTILE})]
    )
    rows = [replace(row, model=HOSTILE) for row in evidence()]
    rows += rows_from(about, [(HOSTILE, "spearman", score, probe)])
    (table,) = numbers(Results({}, tuple(known)))
    for text in (page(rows, tmp_path), render("table.md.j2", table=table)):
        html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
        assert not {"script", "a"} & set(re.findall(r"<(\w+)", html))
        shown = html.replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">")
        assert HOSTILE in shown
        for line in re.findall(r"<tr>.*?</tr>", html, re.DOTALL):
            assert line.count("<t") - 1 in (4, 8, 10), "as many cells as heads"
    assert not [path for path in tmp_path.rglob("*") if "<" in path.name or "|" in path.name]
