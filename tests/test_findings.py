"""Sentences from made-up rows whose verdict is known."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from mechreward import MechRewardError, paper
from mechreward.account import write_page
from mechreward.findings import findings
from mechreward.results import Results, Row, rows_from
from mechreward.show.steering import steering_curve
from mechreward.stats import Interval

R10 = paper.shared("R10", "made-up", "rows", "3.mlp", 0)
R14 = paper.shared("R14", "made-up", "rows", "3.mlp", 0)


def depends(high: float, rank: int) -> list[Row]:
    detail = {"zeroed": 300, "layers": 2}
    return rows_from(
        R10,
        [
            ("baseline", "spearman", Interval(0.5, 0.4, 0.6, 40), {"neurons": 38, "steps": 90}),
            ("value", "change", Interval(-0.3, -0.4, -0.2, 40), detail),
            ("matched", "change", Interval(-0.1, -0.2, 0.0, 40), detail),
            ("value", "beyond_matched", Interval(-0.2, -0.3, high, 40), {"rank": rank, "p_rank": 0.05, "draws": 19}),
        ],
    )


def steers(p: float, matched: float) -> list[Row]:
    """Accuracy .5, and .5 + strength / 10 under steering; the contrast is twice that."""
    rows = rows_from(R14, [("baseline", "accuracy", Interval(0.5, 0.4, 0.6, 40), {"strength": 0})])
    for strength in (-2, -1, 1, 2):
        up = 0.5 + strength / 10
        detail = {"strength": strength, "place": "all"}
        rows += rows_from(R14, [("value", "accuracy", Interval(up, up - 0.1, up + 0.1, 40), detail)])
        rows += rows_from(R14, [("matched", "accuracy", Interval(0.5, 0.45, 0.55, 40), detail | {"sets": 3})])
    for strength in (1, 2):
        detail, gap = {"strength": strength, "place": "all", "sets": 1}, strength / 5
        gaps = [("value", "contrast", Interval(gap, gap - 0.1, gap + 0.1, 40), detail | {"p_mcnemar": p})]
        gaps += [("matched", "contrast", Interval(0.0, -matched, matched, 3), detail | {"sets": 3})]
        rows += rows_from(R14, gaps)
        early = detail | {"place": "early", "p_mcnemar": 1.0}
        rows += rows_from(R14, [("value", "contrast", Interval(9.0, 8.0, 10.0, 40), early)])
    return rows


@pytest.mark.parametrize(("high", "rank", "holds"), [(-0.1, 1, True), (0.01, 1, False), (-0.1, 2, False)])
def test_R10_needs_the_interval_and_the_rank(high: float, rank: int, holds: bool):
    found, missed = findings(Results({}, tuple(depends(high, rank))))
    assert (len(found), len(missed)) == ((1, 0) if holds else (0, 1))
    assert "Zeroing the 300 value neurons of 2 earlier layers" in (found + missed)[0]


@pytest.mark.parametrize(("p", "matched", "holds"), [(0.02, 0.1, True), (0.03, 0.1, False), (0.02, 0.45, False)])
def test_R14_needs_the_test_after_Holm_and_every_matched_set(p: float, matched: float, holds: bool):
    """Two strengths: p = .03 is .06 after Holm. The strength shown is the one with the largest contrast, .4 at 2."""
    found, missed = findings(Results({}, tuple(steers(p, matched))))
    assert (len(found), len(missed)) == ((1, 0) if holds else (0, 1))
    assert "at strength 2 (standard deviations), changes accuracy by 0.400" in (found + missed)[0]


def test_steering_is_drawn_through_the_baseline():
    drawn = steering_curve(steers(0.02, 0.1), "accuracy")
    ElementTree.fromstring(drawn)
    assert drawn == steering_curve(steers(0.02, 0.1), "accuracy") and "value" in drawn and "matched" in drawn
    with pytest.raises(MechRewardError, match="no row has metric 'speed'"):
        steering_curve(steers(0.02, 0.1), "speed")


def test_the_draws_of_a_control_are_one_at_strength_0():
    """The band of a set holds the baseline's interval; that of its draws does not: nothing was drawn there."""

    def wide(low: float, arm: str) -> str:
        rows = [row for row in steers(0.02, 0.1) if row.arm in (arm, "baseline")]
        still = Interval(0.5, low, 0.6, 40)
        rest = [row for row in rows if row.arm != "baseline"]
        return steering_curve(rows_from(R14, [("baseline", "accuracy", still, {"strength": 0})]) + rest, "accuracy")

    assert wide(0.4, "matched") == wide(0.2, "matched")
    assert wide(0.4, "value") != wide(0.2, "value")


def test_the_page_reads_a_certificate(tmp_path):
    about = paper.shared("certificate", "made-up", "rows", "3.mlp", 0)
    told = [("decodable", "pass"), ("sparse", "fail"), ("causal", "inconclusive")]
    rows = rows_from(
        about,
        [
            ("value", claim, Interval(0.1, 0.0, 0.2, 80), {"verdict": v, "reason": f"{claim} so.", "neurons": 7})
            for claim, v in told
        ],
    )
    manifest = {"versions": {"mechreward": "0"}}
    text = write_page(Results(manifest, tuple(rows)), tmp_path / "p.md", "mechreward paper certificate").read_text()
    assert "Certificate of 7 MLP units at 3.mlp. These neurons are not certified: a claim is refuted" in text
    assert "(pass: decodable; fail: sparse; inconclusive: causal)" in text and "| sparse | fail | sparse so. |" in text
    assert "`mechreward paper certificate --model made-up --task rows`" in text
