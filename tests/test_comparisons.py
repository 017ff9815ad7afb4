"""The page's grids, base against descendants, and transfer, on planted rows: what must hold and
what must not."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import norm

from mechreward import experiments as paper
from mechreward.experiments.rows import Results, Row, rows_from
from mechreward.report.figures import grids
from mechreward.report.glance import descendants
from mechreward.report.layout import render, save_figures
from mechreward.report.transfer import transfer
from mechreward.stats import Interval
from mechreward.stats.intervals import difference

HOMES = (("countdown-base", "countdown"), ("countdown-rl", "countdown"), ("mixed-rl", "chain"))


def cell(
    model: str, site: str, score: float, share: float = 1.0, reach: float = 0.1, **detail: object
) -> Row:
    about = paper.shared("R3", model, "countdown", site, 0)
    interval = Interval(score, score - reach, score + reach, 50)
    return rows_from(
        about, [("value", "spearman", interval, {"share": share, "split": "test"} | detail)]
    )[0]


def against_base(results: Results, homes: tuple[tuple[str, str], ...]) -> str:
    return render("descendants.md.j2", descendants=descendants(results, homes))


def across(results: Results, folder: Path) -> str:
    """R12 as the page has it, its pictures in `folder`."""
    part = transfer(results)
    for site in part.sites:
        save_figures(site.figures, folder / "pictures")
    return render("transfer.md.j2", transfer=part)


def test_a_grid_marks_the_cells_that_hold_and_counts_them():
    rows = [
        cell("m", f"{n}.{kind}", 0.5, p=0.01, p_holm=0.01)
        for n in (0, 1)
        for kind in ("mlp", "resid_post")
    ]
    rows[3] = cell("m", "1.resid_post", 0.31, p=0.01, p_holm=0.051)
    rows += [cell("m", "0.mlp", 0.21, 0.01, p=0.5, p_holm=0.6)]
    seen = [cell("m", "0.mlp", 0.44, share, split="validation") for share in (1.0, 0.01)]
    drawn = {name: (title, svg) for title, name, svg in grids(Results({}, (*rows, *seen)))}
    assert list(drawn) == ["R3-test-1", "R3-test-100", "R3-validation"]
    title, svg = drawn["R3-test-100"]
    assert "3 of 4 cells hold, of the whole grid 3 of 5" in title and "R3, test" in title
    text = " ".join(ElementTree.fromstring(svg).itertext())
    assert "ring: holds after Holm" in text and "0.31" in text and "chosen" not in text
    assert svg.lower().count("#d55e00") == 3, "one ring a cell that holds"
    title, svg = drawn["R3-test-1"]
    assert "0 of 1 cells hold" in title and "#d55e00" not in svg.lower()
    assert "served to choose" in drawn["R3-validation"][0] and "0.44" in drawn["R3-validation"][1]
    assert [name for _, name, _ in grids(Results({}, tuple(seen)))] == ["R3-validation"], (
        "rows of an older run"
    )
    assert grids(Results({}, ())) == []


def test_the_difference_of_two_intervals_by_hand():
    gap, p = difference(Interval(0.7, 0.6, 0.75, 50), Interval(0.4, 0.3, 0.52, 40))
    assert (gap.estimate, gap.n) == (pytest.approx(0.3), 40)
    assert gap.low == pytest.approx(0.3 - np.sqrt(0.1**2 + 0.12**2))
    assert gap.high == pytest.approx(0.3 + np.sqrt(0.05**2 + 0.1**2))
    assert p == pytest.approx(2 * norm.cdf(-0.3 / (np.sqrt(0.1**2 + 0.12**2) / 1.959964)), rel=1e-5)
    edge, p = difference(Interval(0.5, 0.2, 0.8, 9), Interval(0.0, -0.4, 0.4, 9))
    assert edge.low == pytest.approx(0) and p == pytest.approx(0.05), "the interval and p agree"
    for other in (Interval(0.4, np.nan, np.nan, 9), Interval(np.nan, np.nan, np.nan, 9)):
        assert np.isnan(difference(Interval(0.5, 0.4, 0.6, 9), other)[1])


def test_independent_intervals_cover_the_true_difference():
    """400 differences of two normal means: 95% intervals cover 93% or more, and p is below .05 in
    7% or less."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 0.1, 400), rng.normal(0.3, 0.05, 400)
    found = [
        difference(Interval(x, x - 0.196, x + 0.196, 9), Interval(y, y - 0.098, y + 0.098, 9))
        for x, y in zip(a, b, strict=True)
    ]
    assert np.mean([gap.low <= 0 <= gap.high for gap, _ in found]) > 0.93
    assert np.mean([p < 0.05 for _, p in found]) < 0.07


def test_base_and_descendant_are_compared_in_every_cell_and_none_is_picked():
    sites = [f"{n}.{kind}" for n in range(4) for kind in ("mlp", "resid_post")]
    base = [cell("countdown-base", site, 0.3) for site in sites]
    own = [
        cell("countdown-rl", site, 0.9 if site == "2.mlp" else 0.48 if site == "1.mlp" else 0.31)
        for site in sites
    ]
    few = [cell("countdown-rl", "0.mlp", 0.99, 0.01)]
    text = against_base(Results({}, (*base, *own, *few)), HOMES)
    assert text.count("| countdown-rl on countdown |") == 8 and "0.99" not in text
    assert "differs from the base at 2.mlp (+0.60), of 8 cells" in text
    line = next(line for line in text.splitlines() if "1.mlp" in line and line.startswith("|"))
    raw = 2 * norm.sf(0.18 * 1.959964 / np.hypot(0.1, 0.1))
    assert raw < 0.05 / 2 and line.endswith(f"| {7 * raw:.2g} |"), (
        "Holm: the second smallest of 8, times 7"
    )
    assert "chain" not in text
    same = against_base(Results({}, (*base, *[r for r in own if r.site != "2.mlp"])), HOMES)
    assert "no difference from the base is shown, of 7 cells" in same


def test_without_a_test_grid_nothing_is_compared():
    old = [
        cell(model, "0.mlp", 0.3, split="validation")
        for model in ("countdown-base", "countdown-rl")
    ]
    text = against_base(Results({}, tuple(old)), HOMES)
    assert "for want of R3 rows" in text and "countdown-rl on countdown" in text and "|" not in text
    assert against_base(Results({}, tuple(old)), HOMES[1:]).strip() == ""


def transfers(matched: bool = True) -> list[Row]:
    """Homes a, b, c of task t: a and b share far more than matched sets, c shares nothing; b's
    neurons read in a."""
    rows = []
    for source in "abc":
        for goal in "abc":
            about = paper.shared("R12", goal, "t", "3.mlp", 0)
            detail = {"from_model": source, "from_task": "t", "neurons": 5}
            twin = source == goal or {source, goal} == {"a", "b"}
            chance = detail | {"expected": 0.07, "p": 1e-6 if twin else 0.9}
            beside = detail | {"error": 0.1 if matched else 0.4, "is_matched": matched}
            rows += rows_from(
                about,
                [
                    ("value", "iou", Interval(0.6 if twin else 0.0, np.nan, np.nan, 100), chance),
                    (
                        "matched",
                        "iou",
                        Interval(0.21, 0.1, 0.3, 100),
                        detail | {"p": 0.005 if twin else 1.0},
                    ),
                    (
                        "value",
                        "spearman",
                        Interval(0.7 if (source, goal) == ("b", "a") else 0.2, 0.1, 0.9, 50),
                        detail,
                    ),
                    ("matched", "spearman", Interval(0.3, 0.2, 0.4, 19), beside),
                    (
                        "value",
                        "auroc_all",
                        Interval(0.9 if goal == "c" else 0.5, 0.4, 1.0, 50),
                        detail,
                    ),
                    ("matched", "auroc_all", Interval(0.55, 0.5, 0.6, 19), beside),
                ],
            )
    return rows


def test_transfer_counts_what_exceeds_matched_sets(tmp_path: Path):
    text = across(Results({}, tuple(transfers())), tmp_path)
    assert (
        "Of 3 pairs of homes, 1 share more neurons than chance (hypergeometric, Holm at "
        "0.05); 1 more than" in text
    )
    assert (
        "Of 6 transfers, 1 read V-hat better" in text and "2 read the final verdict better" in text
    )
    assert "not matched" not in text and text.count("not corrected") == 4
    pictures = re.findall(r"\((pictures/[^)]+)\)", text)
    assert pictures == [f"pictures/R12-mlp-{name}.svg" for name in ("overlap", "read", "auroc")]
    overlap, read, auroc = ((tmp_path / picture).read_text() for picture in pictures)
    assert [svg.lower().count("#d55e00") for svg in (overlap, read, auroc)] == [2, 1, 3]
    said = " ".join(ElementTree.fromstring(overlap).itertext())
    assert "0.07, as large 0.21" in " ".join(said.split())


def test_every_transfer_is_folded_below_with_its_intervals(tmp_path: Path):
    text = across(Results({}, tuple(transfers())), tmp_path)
    own = (
        "0.600 | 0.070 | 1e-06 | 0.210 [0.100, 0.300] | 0.005 | 0.700 [0.100, 0.900] | 0.300 "
        "[0.200, 0.400]"
    )
    assert (
        f"| b t in a t | {own} | 0.500 [0.400, 1.000] | 0.550 [0.500, 0.600] | 50 |" in text
        and text.count(" t in ") == 9
    )
    assert text.index("<details>") < text.index("b t in a t") < text.index("</details>")
    off = across(Results({}, tuple(transfers(matched=False))), tmp_path)
    assert "0.550 [0.500, 0.600] unmatched | 50 |" in off and "unmatched | 50" not in text


def test_controls_that_are_not_matched_carry_no_claim(tmp_path: Path):
    text = across(Results({}, tuple(transfers(matched=False))), tmp_path)
    assert (
        "In 18 of 18 comparisons the control sets are not matched (mean log error up to 0.40)"
        in text
    )
    assert "1 more than chance among neurons as large" in text and "0 read V-hat better" in text
    assert "unmatched 0.30" in (tmp_path / "pictures/R12-mlp-read.svg").read_text()
    assert "#d55e00" not in (tmp_path / "pictures/R12-mlp-read.svg").read_text().lower()


def test_transfer_rows_of_an_older_run_still_make_a_page(tmp_path: Path):
    old = [row for row in transfers() if (row.arm, row.metric) != ("matched", "iou")]
    for row in old:
        row.detail.pop("is_matched", None)
    text = across(Results({}, tuple(old)), tmp_path)
    assert "more than chance among neurons as large" not in text and "1 read V-hat better" in text
    assert across(Results({}, ()), tmp_path).strip() == ""
