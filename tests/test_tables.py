"""Tables from made-up rows: every cell is known."""

from __future__ import annotations

import re
from math import nan
from typing import Any

import pytest
from markdown_it import MarkdownIt

from mechreward import experiments as paper
from mechreward.base.errors import MechRewardError
from mechreward.experiments.rows import Results, Row, rows_from
from mechreward.report.layout import Table, render
from mechreward.report.tables import TABLES, numbers
from mechreward.stats import Interval


def about(experiment: str) -> dict[str, Any]:
    return paper.shared(experiment, "made-up", "rows", "3.mlp", 0)


def markdown(*rows: Row) -> list[str]:
    """The lines of every table as the page has them."""
    tables = [render("table.md.j2", table=table) for table in numbers(Results({}, rows))]
    return "\n".join(tables).splitlines()


def lines(*rows: Row) -> list[str]:
    """The lines of every table that begin with the site or the value read-out."""
    return [line for line in markdown(*rows) if line.startswith(("| 3.mlp", "| value"))]


def around(estimate: float, n: int = 50) -> Interval:
    return Interval(estimate, estimate - 0.1, estimate + 0.1, n)


def test_nothing_is_folded_away_where_there_is_nothing():
    assert numbers(Results({}, ())) == []


@pytest.mark.parametrize(("spread", "cell"), [(0.099, "0.099, near constant"), (0.1, "0.100")])
def test_R1_names_a_probe_that_is_near_constant(spread: float, cell: str):
    probe = {"target": "td", "shape": "linear"}
    scores = [("spearman", around(0.3)), ("auroc_s0", around(0.5)), ("auroc_all", around(0.6))]
    scores += [
        ("auroc_last", Interval(0.9, nan, nan, 50)),
        ("spread", Interval(spread, nan, nan, 50)),
    ]
    rows = rows_from(about("R1"), [("value", metric, score, probe) for metric, score in scores])
    rows += rows_from(about("R1"), [("shuffled", "spearman", around(-0.0001), probe)])
    rows += rows_from(
        about("R1"), [("baseline", "accuracy", around(0.77), {"split": "test", "k": 32})]
    )
    assert lines(*rows) == [
        "| 3.mlp | td | linear | 0.300 [0.200, 0.400] | 0.500 [0.400, 0.600] | 0.600 [0.500, "
        "0.700] | 0.900 | – | "
        f"{cell} | 50 |",
        "| 3.mlp | td, shuffled | linear | 0.000 [-0.100, 0.100] | – | – | – | – | – | 50 |",
    ]


def test_R1_surface_stands_beside_what_the_read_out_adds():
    rows = rows_from(
        about("R1"),
        [
            ("surface", "auroc_all", around(0.7), {"fitted": "validation"}),
            ("surface_and_value", "auroc_all", around(0.8), {"fitted": "validation"}),
            ("value", "increment", around(0.1, 49), {"beyond": "surface"}),
        ],
    )
    said = "0.700 [0.600, 0.800] | 0.800 [0.700, 0.900] | 0.100 [0.000, 0.200] n=49"
    assert lines(*rows) == [f"| 3.mlp | {said} | 50 |"]


def test_R4_controls_other_rankings_and_other_tasks():
    op = {"op": "zero"}
    shared = op | {"neurons": 38, "shared": 2.0}
    rows = rows_from(
        about("R4"),
        [
            ("baseline", "accuracy", around(0.5), {}),
            ("value", "accuracy", around(0.4), op | {"neurons": 38}),
            ("value", "change", around(-0.1), op),
            ("value", "change_beyond_matched", around(-0.05), op),
            ("matched", "accuracy", around(0.45), op | {"sets": 19}),
            ("matched", "accuracy", around(0.99), op | {"draw": 0}),
            ("wanda", "accuracy", around(0.6), shared),
            ("wanda", "gap", around(0.2), shared | {"p": 0.0123}),
            ("matched_displacement", "gap", around(0.1), shared | {"shared": 0.2, "sets": 5}),
            ("baseline", "accuracy_elsewhere", around(0.5), {"on": "chain"}),
            ("value", "accuracy_elsewhere", around(0.4), op | {"on": "chain"}),
            ("value", "change_elsewhere", around(-0.1), op | {"on": "chain", "p_mcnemar": 0.25}),
            (
                "matched",
                "accuracy_elsewhere",
                Interval(0.5, 0.3, 0.6, 5),
                op | {"on": "chain", "sets": 5},
            ),
            ("baseline", "accuracy_elsewhere", around(0.0), {"on": "paths"}),
        ],
    )
    half, less, gone = "0.500 [0.400, 0.600]", "0.400 [0.300, 0.500]", "-0.100 [-0.200, 0.000]"
    assert lines(*rows) == [
        f"| 3.mlp | zero | {half} | {less} | {gone} | -0.050 [-0.150, 0.050] | 0.450 [0.350, "
        "0.550] | – | – | 50 |",
        "| 3.mlp | zero | wanda | 2 of 38 | 0.600 [0.500, 0.700] | 0.200 [0.100, 0.300] | "
        "0.012 | 50 |",
        "| 3.mlp | zero | matched displacement (5 sets) | 0.2 of 38 | – | 0.100 [0.000, "
        "0.200] | – | 50 |",
        f"| 3.mlp | chain | zero | {half} | {less} | {gone} | 0.25 | 0.500 [0.300, 0.600] (5 "
        "sets) | 50 |",
        "| 3.mlp | paths | not ablated: too little to lose | 0.000 [-0.100, 0.100] | – | – | "
        "– | – | 50 |",
    ]


def test_R4_the_damage_meter_of_every_ablation():
    """A meter of one set has no interval; of several the row says lowest and highest. Other metrics
    have no line."""
    bare, op = Interval(0.5, nan, nan, 150), {"op": "zero"}
    rows = rows_from(
        about("R4"),
        [
            ("baseline", "accuracy", around(0.5, 150), {}),
            ("baseline", "parse_rate", bare, {}),
            ("value", "kl", Interval(0.000123, nan, nan, 150), op),
            ("value", "change_norm", Interval(1.5, nan, nan, 150), op),
            ("value", "truncation_rate", Interval(0.0, nan, nan, 150), op),
            ("value", "length", Interval(31.25, nan, nan, 150), op),
            ("value", "premature_rate", Interval(0.25, nan, nan, 150), op),
            ("value", "eos_rate", bare, op | {"on": "chain"}),
            ("matched", "kl", Interval(0.02, 0.01, 0.03, 150), op | {"sets": 19}),
            ("matched", "accuracy", around(0.4, 150), op | {"sets": 19}),
            ("wanda", "parse_rate", bare, op | {"neurons": 8, "shared": 1}),
        ],
    )
    assert [
        line for line in lines(*rows) if "wanda | 1 of" not in line and "| chain |" not in line
    ] == [
        "| 3.mlp | – | nothing | – | – | 0.500 | – | – | – | – | 150 |",
        "| 3.mlp | zero | value | 0.00012 | 1.500 | – | – | 0.000 | 0.250 | 31.250 | 150 |",
        "| 3.mlp | zero | value, on chain | – | – | – | 0.500 | – | – | – | 150 |",
        "| 3.mlp | zero | matched (19 sets) | 0.02 [0.01, 0.03] | – | – | – | – | – | – | 150 |",
        "| 3.mlp | zero | wanda | – | – | 0.500 | – | – | – | – | 150 |",
    ]


def test_R3_every_cell_has_its_interval_and_its_p():
    rows = []
    for split, share, score in (("validation", 1.0, 0.4), ("test", 1.0, 0.5), ("test", 0.01, 0.2)):
        tested = {"p": 0.001, "p_holm": 0.0123} if split == "test" else {}
        detail = {"split": split, "share": share} | tested
        rows += rows_from(about("R3"), [("value", "spearman", around(score), detail)])
    assert lines(*rows) == [
        "| 3.mlp | validation | 0.400 [0.300, 0.500] | – | 50 |",
        "| 3.mlp | test | 0.500 [0.400, 0.600] p=0.012 | 0.200 [0.100, 0.300] p=0.012 | 50 |",
    ]
    assert "| at | split | all | top 1% | n |" in markdown(*rows)


def test_R5_the_gap_the_test_and_the_overlap_stand_in_one_line():
    overlap = {"with": "terminal", "shared": 6, "expected": 0.027, "p": 6.7e-06}
    rows = rows_from(
        about("R5"),
        [
            ("baseline", "accuracy", around(0.5, 150), {}),
            ("td", "accuracy", around(0.4, 150), {"op": "zero", "neurons": 13}),
            ("td", "gap", around(0.05, 150), {"beyond": "terminal", "p_mcnemar": 0.34375}),
            ("td", "iou", Interval(0.3, nan, nan, 768), overlap),
        ],
    )
    assert lines(*rows) == [
        "| 3.mlp | nothing | 0.500 [0.400, 0.600] | – | – | – | – | – | 150 |",
        "| 3.mlp | td | 0.400 [0.300, 0.500] | 0.050 [-0.050, 0.150] | 0.34 | 0.300 | 0.027 | "
        "6.7e-06 | 150 |",
    ]


def test_R6_and_R7_all_rows():
    detail = {"share": 0.05, "neurons": 38, "shared": 3, "expected": 0.0257, "p": 0.29}
    rows = rows_from(about("R6"), [("next_token", "iou", Interval(0.0411, nan, nan, 768), detail)])
    rows += rows_from(about("R7"), [("value", "auroc_s0", around(0.6, 300), {"known": "before"})])
    rows += rows_from(
        about("R7"), [("mean_logprob", "auroc_s0", around(0.8, 300), {"known": "after"})]
    )
    assert lines(*rows) == [
        "| 3.mlp | 5% | 38 | 3 | 0.041 | 0.026 | 0.29 | 768 |",
        "| value read-out at 3.mlp, s_0 | before | 0.600 [0.500, 0.700] | 300 |",
    ]
    assert "| mean logprob | after | 0.800 [0.700, 0.900] | 300 |" in markdown(*rows)


def test_R8_escapes_the_bars_of_the_cut_and_keeps_the_curve_out():
    every, cut = (
        {"fitted": "all steps", "tested": "all steps"},
        {"fitted": "all steps", "tested": "|delta| > 0.3"},
    )
    rows = rows_from(
        about("R8"),
        [
            ("dopamine", "spearman", around(0.2), every),
            ("dopamine", "spearman", around(0.4, 26), cut),
            ("dopamine", "spearman_disattenuated", around(0.25), every | {"reliability": 0.9375}),
            ("dopamine", "spearman_z", around(0.5), every | {"z": "response"}),
            (
                "dopamine",
                "spearman",
                around(0.9),
                {"ratio": 0.0, "neurons": 768, "shape": "mlp", "fit": "retrained"},
            ),
        ],
    )
    training, end = "the training split", "| – | – |"
    plain = "0.200 [0.100, 0.300] | 0.250 [0.150, 0.350] | 0.938 | 50 |"
    assert lines(*rows) == [
        f"| 3.mlp | all steps | all steps | {training} | {plain}",
        rf"| 3.mlp | all steps | \|delta\| > 0.3 | {training} | 0.400 [0.300, 0.500] {end} 26 |",
        f"| 3.mlp | all steps | all steps | response | 0.500 [0.400, 0.600] {end} 50 |",
    ]


def test_R9_keeps_the_named_neuron_and_the_largest_apart():
    rows = rows_from(
        about("R9"),
        [
            ("dopamine", "trace", Interval(0.4, nan, nan, 1), {"item": 0, "step": 1, "delta": 0.1}),
            ("dopamine", "spearman", around(0.15), {"neuron": 252, "sign": 1.0, "train": 0.25}),
            ("dopamine", "max_spearman", Interval(0.225, nan, nan, 768), {"p": 0.13, "draws": 99}),
            ("shuffled", "max_spearman", Interval(0.19, 0.14, 0.24, 99), {}),
        ],
    )
    told = "252 | 0.250 | 0.150 [0.050, 0.250] | 0.225 of 768 | 0.190 [0.140, 0.240] | 0.13"
    assert lines(*rows) == [f"| 3.mlp | {told} | 50 |"]


def test_R14_patches_and_what_one_damage_does():
    pair = {"from": "high", "into": "low", "pairs": 30}
    rows = rows_from(
        about("R14"),
        [
            (
                "value",
                "contrast_at_kl",
                around(0.3, 100),
                {"strength": 2, "kl": 0.41, "p_mcnemar": 0.012},
            ),
            (
                "random",
                "contrast_at_kl",
                around(0.1, 1),
                {"strength": 2, "kl": 0.41, "factor": 2.5, "sets": 1, "never": 1},
            ),
            ("all neurons", "patched", around(-0.2, 30), pair),
            ("all neurons", "patched_back", around(0.05, 30), pair),
        ],
    )
    assert lines(*rows) == [
        "| 3.mlp | value | 0.41 | 1.0 | 0.300 [0.200, 0.400] | 0.012 |",
        "| 3.mlp | random (1 of 2 sets) | 0.41 | 2.5 | 0.100 [0.000, 0.200] | – |",
        "| 3.mlp | all neurons | high into low | -0.200 [-0.300, -0.100] | 0.050 [-0.050, "
        "0.150] | – | 30 |",
    ]


def test_R10_draws_become_a_mean_between_the_lowest_and_the_highest():
    rows = rows_from(
        about("R10"), [("baseline", "spearman", around(0.5), {"neurons": 38, "steps": 90})]
    )
    for arm, values, zeroed in (
        ("value", [0.1], 51),
        ("matched", [0.4, 0.3, 0.5], 51),
        ("value_apart", [0.2], 49),
    ):
        for draw, value in enumerate(values):
            detail = {"op": "zero", "draw": draw, "zeroed": zeroed, "layers": 1}
            rows += rows_from(about("R10"), [(arm, "spearman", around(value), detail)])
            rows += rows_from(about("R10"), [(arm, "change", around(value - 0.5), detail)])
    rank = {"rank": 1, "p_rank": 0.25, "draws": 3}
    rows += rows_from(about("R10"), [("value", "beyond_matched", around(-0.3), rank)])
    own = (
        "0.100 [0.000, 0.200] | -0.400 [-0.500, -0.300] | -0.300 [-0.400, -0.200] | 1 of 4 (p=0.25)"
    )
    apart = "0.200 [0.100, 0.300] | -0.300 [-0.400, -0.200] | – | – | 50 |"
    assert lines(*rows) == [
        "| 3.mlp | nothing | – | 0.500 [0.400, 0.600] | – | – | – | 50 |",
        f"| 3.mlp | value | 51 | {own} | 50 |",
        "| 3.mlp | matched, 3 draws | 51 | 0.400 [0.300, 0.500] | -0.100 [-0.200, 0.000] | – "
        "| – | 50 |",
        f"| 3.mlp | value without dopamine coordinates | 49 | {apart}",
    ]


HOSTILE = (
    "<script>alert(1)</script>",
    "a | b",
    r"a \| b \\",
    "{{ 7*7 }} and *x* and _y_",
    'say "x"',
    "line\n| break",
    "[a](http://x)",
    "&lt;b&gt;",
    "<!-- x",
    "l1_penalised_x",
)


def read(text: str) -> list[list[str]]:
    """The cells of the tables of a page, as a reader of Markdown sees them."""
    cells: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "tr_open":
            cells.append([])
        if token.type == "inline" and token.level > 3:
            children = token.children or []
            assert {child.type for child in children} <= {"text", "text_special"}, token.content
            cells[-1].append("".join(child.content for child in children))
    return cells


def test_a_cell_is_text_whatever_it_holds():
    """An independent reader of Markdown gets every cell back: no tag, no other cell, no
    emphasis."""
    columns = [f"column {column}" for column in range(len(HOSTILE))]
    text = render("table.md.j2", table=Table("", columns, [HOSTILE, HOSTILE[::-1]]))
    wanted = [cell.replace("\n", " ") for cell in HOSTILE]
    assert read(text) == [columns, wanted, wanted[::-1]]
    tags = set(re.findall(r"<(\w+)", MarkdownIt("commonmark").enable("table").render(text)))
    assert tags == {"table", "thead", "tbody", "tr", "th", "td"}


def test_a_line_has_a_cell_for_every_column():
    with pytest.raises(MechRewardError, match="has 1 cells, not 2"):
        Table("x", ("a", "b"), [["1"]])


def test_a_table_stands_between_blank_lines_with_as_many_cells_as_heads():
    """Inside <details> a table needs a blank line before and behind; a bare bar would open another
    cell."""
    every = {"fitted": "all steps", "tested": "|delta| > 0.3"}
    rows = rows_from(about("R8"), [("dopamine", "spearman", around(0.2), every)])
    zeroed = {"zeroed": 51, "layers": 1}
    rows += rows_from(about("R10"), [("value", "spearman", around(0.1), zeroed)])
    tables = numbers(Results({}, tuple(rows)))
    text = render("folded.md.j2", tables=tables).splitlines()
    assert text[:2] == ["<details><summary>Numbers</summary>", ""]
    assert text[-2:] == ["", "</details>"]
    heads = [at for at, line in enumerate(text) if line.startswith("| --- |")]
    assert len(heads) == 2 < len(TABLES)
    for at in heads:
        assert text[at - 2] == "" == text[at + 2] and text[at - 3].startswith("**R")
    assert [len(line) for line in read("\n".join(text))] == [8, 8, 8, 8]
