"""The five answers by hand: every verdict from rows that are written down."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechreward.experiments.rows import Results, Row
from mechreward.report.archive import Archive
from mechreward.report.findings.rules import findings
from mechreward.report.five import QUESTIONS, five, table
from mechreward.report.html import report

ROOT = Path(__file__).parent.parent
KINDS = ("resid_post", "mlp")


def row(experiment, arm, metric, bounds, site="1.mlp", n=50, **detail) -> Row:
    """Of the home `m` on `t`."""
    return Row(experiment, "m", "t", site, arm, metric, *bounds, n, 0, detail)


def verdict(question: str, *rows: Row) -> str:
    return five(Results({}, rows), "mlp")[question].verdict


def read(*bounds) -> Row:
    return row("R1", "value", "spearman", bounds, target="mc", shape="mlp")


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0.3, 0.1, 0.5), "yes"),
        ((0.1, -0.1, 0.3), "cannot tell"),
        ((0.0, -0.05, 0.09), "no"),
        ((0.2, 0.0, 0.4), "cannot tell"),
        ((float("nan"),) * 3, "cannot tell"),
    ],
)
def test_value_is_read_where_the_interval_is_above_0(bounds, expected):
    assert verdict("read", read(*bounds)) == expected


def test_what_random_weights_show_as_well_is_not_read():
    untrained = row("R1", "random_weights", "spearman", (0.3, 0.2, 0.45), shape="mlp")
    assert verdict("read", read(0.6, 0.5, 0.7), untrained) == "yes"
    assert verdict("read", read(0.6, 0.4, 0.7), untrained) == "cannot tell"
    answer = five(Results({}, (read(0.6, 0.5, 0.7), untrained)), "mlp")["read"]
    assert answer.null == (0.0, 0.45) and answer.site == "1.mlp"


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        ("sparse", "yes"),
        ("redundant", "no"),
        ("distributed", "no"),
        ("unclear", "cannot tell"),
        ("nothing", "cannot tell"),
    ],
)
def test_sparsity_is_what_the_evidence_reads(reading, expected):
    sparsity = row("R2", "value", "sparsity", (0.2, 0.0, 0.4), reading=reading)
    assert verdict("sparse", sparsity) == expected
    if expected == "no":
        wide = row("R2", "value", "sparsity", (0.5, 0.2, 0.8), reading=reading)
        assert verdict("sparse", wide) == "cannot tell"


def ablation(p: float, rank: int, low: float, matched: bool = True) -> list[Row]:
    """Zeroed, with the p-value and the rank of its loss, and two matched draws."""
    about = {"op": "zero", "p_mcnemar": p, "rank": rank, "draws": 19, "matched": matched}
    return [
        row("R4", "baseline", "accuracy", (0.6, 0.5, 0.7)),
        row("R4", "value", "accuracy", (0.3, 0.2, 0.4), **about),
        row("R4", "value", "change", (low + 0.02, low, low + 0.04), op="zero"),
        row("R4", "matched", "accuracy", (0.5, 0.4, 0.6), op="zero", draw=0),
        row("R4", "matched", "accuracy", (0.55, 0.4, 0.6), op="zero", draw=1),
    ]


def test_it_causes_below_all_matched_draws_alone():
    assert verdict("cause", *ablation(0.001, 1, -0.3)) == "yes"
    assert verdict("cause", *ablation(0.001, 2, -0.3)) == "cannot tell"
    assert verdict("cause", *ablation(0.2, 1, -0.3)) == "cannot tell"
    assert verdict("cause", *ablation(0.001, 1, -0.3, matched=False)) == "cannot tell"
    assert verdict("cause", *ablation(0.9, 9, -0.04)) == "no", "a loss of 5 points is shut out"
    answer = five(Results({}, tuple(ablation(0.9, 9, -0.04))), "mlp")["cause"]
    assert answer.null == pytest.approx((-0.1, -0.05))


def test_td_error_and_surface():
    uncut = {"fitted": "all steps", "tested": "all steps"}
    assert verdict("td", row("R8", "dopamine", "spearman", (0.2, 0.1, 0.3), **uncut)) == "yes"
    cut = row("R8", "dopamine", "spearman", (0.2, 0.1, 0.3), fitted="|delta| > .3", tested="all")
    assert verdict("td", cut) == "cannot tell", "with the paper's cut it is another question"
    assert verdict("surface", row("R1", "value", "increment", (0.05, 0.01, 0.09))) == "yes"
    assert verdict("surface", row("R1", "value", "increment", (0.0, -0.01, 0.01))) == "no"
    assert verdict("surface", row("R1", "value", "increment", (0.0, -0.1, 0.1))) == "cannot tell"


def test_nothing_measured_is_no_table():
    assert table(Results({}, ())) == []
    assert {answer.verdict for answer in five(Results({}, ()), "mlp").values()} == {"cannot tell"}
    lines = table(Results({}, (read(0.3, 0.1, 0.5),)))
    assert len(lines) == 2 and "yes" in lines[1] and "0.30 [0.10, 0.50]" in lines[1]


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_table_fits_80_letters(middle, below, above):
    """The widest numbers that a Spearman, a change or an AUROC can be."""
    bounds = middle, max(-1.0, middle - below), min(1.0, middle + above)
    rows = []
    for kind in KINDS:
        site = f"17.{kind}"
        rows.append(row("R1", "value", "spearman", bounds, site, target="mc", shape="mlp"))
        rows.append(row("R1", "random_weights", "spearman", bounds, site, shape="mlp"))
        rows.append(row("R1", "value", "increment", bounds, site))
    assert max(map(len, table(Results({}, tuple(rows))))) <= 80


@pytest.mark.parametrize("kind", KINDS)
def test_answers_agree_with_the_sentences(kind):
    """On the rows that are kept with the documentation: a yes is never among what was not found."""
    archive = Archive.load(ROOT / "docs/data/results.json.gz")
    homes = dict.fromkeys((one.model, one.task) for one in archive.rows if one.experiment == "R8")
    for model, task in homes:
        kept = [one for one in archive.rows if (one.model, one.task) == (model, task)]
        results = Results({}, tuple(kept))
        answers = five(results, kind)
        assert list(answers) == list(QUESTIONS)
        found, not_found = findings(results)
        name = "MLP units" if kind == "mlp" else "residual-stream coordinates"
        for key, begins in (("td", "The TD error is"), ("read", "V-hat is")):
            told = [text for text in found + not_found if text.startswith(begins) and name in text]
            assert len(told) == 1
            if answers[key].verdict == "yes":
                assert told[0] in found


def test_the_top_of_the_report(tmp_path):
    """Verdict, number and null of every kind of neuron; the stroke is labelled."""
    rows = (read(0.3, 0.1, 0.5), *ablation(0.9, 9, -0.04))
    page = report(Results({"title": "<script>"}, rows), [], tmp_path / "report.html").read_text()
    assert page.count('<svg class="stroke"') == 2
    assert 'aria-label="0.30, null 0.00 to 0.00"' in page
    assert "0.30 [0.10, 0.50]; null 0.00" in page and "null -0.10 to -0.05" in page
    assert "Is it sparse?" not in page and "<script>" not in page
    parsed = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    line = next(part for part in parsed if part.get("class") == "bounds")
    dot = next(part for part in parsed if part.get("class") == "dot")
    left, right, middle = (float(line.get("x1")), float(line.get("x2")), float(dot.get("cx")))
    assert middle == pytest.approx((left + right) / 2, abs=0.1), "0.3 is half way from 0.1 to 0.5"
