"""Rules on made-up rows: which list a sentence lands in, and the numbers in it."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from xml.etree import ElementTree

import pytest

from mechreward import MechRewardError
from mechreward import experiments as paper
from mechreward.experiments.rows import Results, Row, rows_from
from mechreward.report.findings import rules
from mechreward.report.findings.finding import with_detail, with_holm
from mechreward.report.findings.rules import findings
from mechreward.report.results_page import write_page
from mechreward.show.charts import share_curve, steering_curve
from mechreward.stats import Interval

R10 = paper.shared("R10", "made-up", "rows", "3.mlp", 0)
R14 = paper.shared("R14", "made-up", "rows", "3.mlp", 0)


def one_finding(rows: list[Row]) -> tuple[bool, str]:
    """The only sentence about the rows, and whether it is among what was found."""
    found, missed = findings(Results({}, tuple(rows)))
    (sentence,) = found + missed
    return sentence in found, sentence


def test_every_rule_is_stated_where_findings_are_made():
    names = [rule.__name__ for rule in (*rules.OF_VALUE, *rules.OF_ALL_KINDS, *rules.OF_THE_REST)]
    stated = (findings.__doc__ or "").split()
    assert len(set(names)) == len(names) == 28
    assert [name for name in names if f"`{name}`," not in stated] == []


def test_rows_are_picked_by_detail_and_corrected_together():
    details = [{"op": "zero", "p": 0.02}, {"op": "mean", "p": 0.01}, {"p": 0.5}]
    rows = []
    for detail in details:
        rows += rows_from(R14, [("value", "change", Interval(0.0, -0.1, 0.1, 9), detail)])
    assert with_detail(rows, op="zero") == rows[:1] and with_detail(rows, op="zero", p=1.0) == []
    corrected = with_holm(rows, "p")  # by hand: 2 x .02, 3 x .01, .5
    assert [row for row, _ in corrected] == rows
    assert [p for _, p in corrected] == pytest.approx([0.04, 0.03, 0.5])
    assert with_holm([]) == []


def depends(high: float, rank: int, clean: float = 0.4, draws: int = 19) -> list[Row]:
    """`clean`: the lower bound of the read-out with nothing zeroed."""
    detail = {"zeroed": 300, "layers": 2}
    return rows_from(
        R10,
        [
            ("baseline", "spearman", Interval(0.5, clean, 0.6, 40), {"neurons": 38, "steps": 90}),
            ("value", "change", Interval(-0.3, -0.4, -0.2, 40), detail),
            ("matched", "change", Interval(-0.1, -0.2, 0.0, 40), detail),
            (
                "value",
                "beyond_matched",
                Interval(-0.2, -0.3, high, 40),
                {"rank": rank, "p_rank": 0.05, "draws": draws},
            ),
        ],
    )


@pytest.mark.parametrize("clean", [0.0, -0.1])
def test_R10_cannot_tell_where_there_is_nothing_to_lose(clean: float):
    """Rows that would be a finding, but for a clean read-out whose interval reaches 0."""
    holds, sentence = one_finding(depends(-0.1, 1, clean))
    assert not holds
    assert "cannot tell" in sentence and "nothing to lose" in sentence
    assert f"0.500 [{clean:.3f}, 0.600]" in sentence and "beyond as many matched" not in sentence


def test_R10_speaks_of_one_layer_in_the_singular():
    rows = [replace(row, detail=row.detail | {"layers": 1}) for row in depends(-0.1, 1)]
    holds, sentence = one_finding(rows)
    assert holds and "300 value neurons of 1 earlier layer changes" in sentence


def test_R10_needs_draws_enough_for_a_rank():
    holds, sentence = one_finding(depends(-0.1, 1, draws=18))
    assert not holds and "18 matched sets cannot rank it (19 are needed)" in sentence


def steers(p: float, matched: float) -> list[Row]:
    """Accuracy .5, and .5 + strength / 10 under steering; the contrast is twice that."""
    rows = rows_from(R14, [("baseline", "accuracy", Interval(0.5, 0.4, 0.6, 40), {"strength": 0})])
    for strength in (-2, -1, 1, 2):
        up = 0.5 + strength / 10
        detail = {"strength": strength, "place": "all"}
        rows += rows_from(
            R14, [("value", "accuracy", Interval(up, up - 0.1, up + 0.1, 40), detail)]
        )
        rows += rows_from(
            R14, [("matched", "accuracy", Interval(0.5, 0.45, 0.55, 40), detail | {"sets": 3})]
        )
    for strength in (1, 2):
        detail, gap = {"strength": strength, "place": "all", "sets": 1}, strength / 5
        gaps = [
            (
                "value",
                "contrast",
                Interval(gap, gap - 0.1, gap + 0.1, 40),
                detail | {"p_mcnemar": p},
            )
        ]
        rank = {"sets": 19, "p_rank": 0.05 if gap > matched else 0.1}
        gaps += [("matched", "contrast", Interval(0.0, -matched, matched, 19), detail | rank)]
        rows += rows_from(R14, gaps)
    early = {"strength": 1, "place": "early", "p_mcnemar": 1.0}
    return rows + rows_from(R14, [("value", "contrast", Interval(0.05, -0.1, 0.2, 40), early)])


@pytest.mark.parametrize(
    ("high", "rank", "holds"), [(-0.1, 1, True), (0.01, 1, False), (-0.1, 2, False)]
)
def test_R10_needs_the_interval_and_the_rank(high: float, rank: int, holds: bool):
    found, sentence = one_finding(depends(high, rank))
    assert found == holds
    assert "Zeroing the 300 value neurons of 2 earlier layers" in sentence


@pytest.mark.parametrize(
    ("p", "matched", "holds"), [(0.01, 0.1, True), (0.02, 0.1, False), (0.01, 0.45, False)]
)
def test_R14_needs_the_test_after_Holm_and_the_rank(p: float, matched: float, holds: bool):
    """Three contrasts: p = .02 is .06 after Holm. The strength shown is the one with the largest
    contrast, .4 at 2."""
    found, sentence = one_finding(steers(p, matched))
    assert found == holds
    assert (
        "at strength 2 (standard deviations) and all positions, changes accuracy by 0.400"
        in sentence
    )
    assert "Holm over 3 strengths and places; 19 matched sets" in sentence
    assert (
        "largest at each place: all +0.40 [+0.30, +0.50], early +0.05 [-0.10, +0.20] (R14)"
        in sentence
    )


def test_R14_without_all_matched_sets_is_not_found():
    few = [
        row if row.arm != "matched" else replace(row, detail=row.detail | {"p_rank": 1.0})
        for row in steers(0.01, 0.1)
    ]
    assert not findings(Results({}, tuple(few)))[0]
    assert not findings(
        Results({}, tuple(row for row in few if row.metric != "contrast" or row.arm == "value"))
    )[0]


@pytest.mark.parametrize(("high", "holds"), [(0.35, True), (0.45, False)])
def test_what_is_learnt_lies_above_all_of_random_weights(high: float, holds: bool):
    about, detail = R14 | {"experiment": "R1"}, {"target": "mc", "shape": "mlp"}
    rows = rows_from(about, [("value", "spearman", Interval(0.5, 0.4, 0.6, 40), detail)])
    for shape in ("mlp", "linear"):
        other = Interval(0.3, 0.2, high if shape == "mlp" else 0.9, 40)
        rows += rows_from(about, [("random_weights", "spearman", other, detail | {"shape": shape})])
    found, missed = findings(Results({}, tuple(rows)))
    (sentence,) = [text for text in found + missed if "random weights" in text]
    assert (sentence in found) == holds and "0.300 [0.200" in sentence


def test_steering_is_drawn_through_the_baseline():
    drawn = steering_curve(steers(0.02, 0.1), "accuracy")
    ElementTree.fromstring(drawn)
    assert (
        drawn == steering_curve(steers(0.02, 0.1), "accuracy")
        and "value" in drawn
        and "matched" in drawn
    )
    with pytest.raises(MechRewardError, match="no row has metric 'speed'"):
        steering_curve(steers(0.02, 0.1), "speed")


def test_the_draws_of_a_control_are_one_at_strength_0():
    """The band of a set holds the baseline's interval; that of its draws does not: nothing was
    drawn there."""

    def wide(low: float, arm: str) -> str:
        rows = [row for row in steers(0.02, 0.1) if row.arm in (arm, "baseline")]
        still = Interval(0.5, low, 0.6, 40)
        rest = [row for row in rows if row.arm != "baseline"]
        return steering_curve(
            rows_from(R14, [("baseline", "accuracy", still, {"strength": 0})]) + rest, "accuracy"
        )

    assert wide(0.4, "matched") == wide(0.2, "matched")
    assert wide(0.4, "value") != wide(0.2, "value")


def test_the_page_reads_a_certificate(tmp_path):
    about = paper.shared("certificate", "made-up", "rows", "3.mlp", 0)
    told = [("decodable", "pass"), ("sparse", "fail"), ("causal", "inconclusive")]
    rows = rows_from(
        about,
        [
            (
                "value",
                claim,
                Interval(0.1, 0.0, 0.2, 80),
                {"verdict": v, "reason": f"{claim} so.", "neurons": 7},
            )
            for claim, v in told
        ],
    )
    manifest = {"versions": {"mechreward": "0"}}
    text = write_page(
        Results(manifest, tuple(rows)), tmp_path / "p.md", "mechreward paper certificate"
    ).read_text()
    assert (
        "Certificate of 7 MLP units at 3.mlp. These neurons are not certified: a claim is refuted"
        in text
    )
    assert (
        "(pass: decodable; fail: sparse; inconclusive: causal)" in text
        and "| sparse | fail | sparse so. |" in text
    )
    assert "`mechreward paper certificate --model made-up --task rows`" in text


def doses(gap: float, p: float, matched: float) -> list[Row]:
    rows = []
    for share, found in ((0.01, 0.0), (0.1, gap)):
        detail = {"share": share, "neurons": int(1000 * share)}
        rows += rows_from(
            R14,
            [
                (
                    "value",
                    "contrast_at_share",
                    Interval(found, found - 0.1, found + 0.1, 40),
                    detail | {"p_mcnemar": p},
                ),
                (
                    "matched",
                    "contrast_at_share",
                    Interval(0.0, -matched, matched, 19),
                    detail | {"sets": 19, "p_rank": 0.05 if found > matched else 0.1},
                ),
            ],
        )
    return rows


@pytest.mark.parametrize(
    ("gap", "p", "matched", "holds"),
    [
        (0.3, 0.02, 0.1, True),
        (0.3, 0.03, 0.1, False),
        (0.3, 0.02, 0.3, False),
        (-0.3, 0.02, 0.1, False),
    ],
)
def test_a_dose_by_share_needs_the_test_after_Holm_the_sense_and_every_matched_set(
    gap, p, matched, holds
):
    found, _ = one_finding(doses(gap, p, matched))
    assert found == holds


@pytest.mark.parametrize(
    ("up", "down", "sets", "holds"),
    [(0.2, -0.2, 19, True), (0.2, 0.0, 19, False), (0.04, -0.2, 19, False), (0.2, -0.2, 3, False)],
)
def test_patching_must_move_both_ways_beyond_matched_sets(
    up: float, down: float, sets: int, holds: bool
):
    rows = []
    for into, change in (("low", up), ("high", down)):
        detail = {"from": "x", "into": into, "at": "3.mlp"}
        rows += rows_from(
            R14, [("value", "patched", Interval(change, change - 0.03, change + 0.03, 30), detail)]
        )
        rows += rows_from(R14, [("matched", "patched", Interval(0.0, -0.05, 0.05, sets), detail)])
        rows += rows_from(
            R14, [("all neurons", "patched", Interval(2 * change, -1.0, 1.0, 30), detail)]
        )
    found, sentence = one_finding(rows)
    assert found == holds
    whole = f"{2 * up:+.2f} [-1.00, +1.00] and {2 * down:+.2f} [-1.00, +1.00]"
    assert f"all neurons of the site by {whole}" in sentence
    assert "matched sets by -0.05 to 0.05 and -0.05 to 0.05" in sentence
    assert ("3 matched sets cannot rank it" in sentence) == (sets == 3)


@pytest.mark.parametrize(
    ("p", "random", "sets", "holds"),
    [
        (0.02, 0.1, 19, True),
        (0.03, 0.1, 19, False),
        (0.02, 0.35, 19, False),
        (0.02, 0.1, 2, False),
        (0.03, 0.1, 2, False),
    ],
)
def test_at_one_damage_a_set_must_beat_every_control_after_Holm(
    p: float, random: float, sets: int, holds: bool
):
    own, other = ({"strength": 2, "kl": 0.4, "p_mcnemar": each} for each in (p, 0.9))
    beside = {"strength": 2, "kl": 0.4, "factor": 3.0, "sets": 2, "never": 0}
    rows = rows_from(R14, [("value", "contrast_at_kl", Interval(0.3, 0.2, 0.4, 100), own)])
    rows += rows_from(
        R14,
        [("matched", "contrast_at_kl", Interval(0.0, -0.1, 0.1, sets), beside | {"sets": sets})],
    )
    rows += rows_from(R14, [("random", "contrast_at_kl", Interval(0.0, -0.1, random, 2), beside)])
    rows += rows_from(R14, [("dopamine", "contrast_at_kl", Interval(0.0, -0.1, 0.1, 100), other)])
    found, sentence = one_finding(rows)  # dopamine has no control here: nothing is said
    assert found == holds
    assert (
        f"p={2 * p:.2g} after Holm over 2 sets; {sets} matched sets, 3.0 times as strong"
        in sentence
    )
    assert ("2 matched sets cannot rank it" in sentence) == (sets == 2 and p == 0.02)


@pytest.mark.parametrize(
    ("low", "p", "layers", "holds"),
    [(0.1, 0.05, 1, True), (-0.1, 0.05, 1, False), (0.1, 0.1, 1, False), (0.1, 0.05, 2, False)],
)
def test_self_repair_must_be_above_0_and_above_matched_sets(
    low: float, p: float, layers: int, holds: bool
):
    about = R14 | {"experiment": "R4", "site": "1.mlp"}
    rows = [
        *rows_from(
            about, [("value", "restored", Interval(-0.5, -0.6, -0.4, 30), {"at": "2.resid_post"})]
        ),
        *rows_from(
            about, [("value", "restored", Interval(0.3, low, 0.5, 30), {"at": "3.resid_post"})]
        ),
        *rows_from(
            about,
            [
                (
                    "matched",
                    "restored",
                    Interval(0.0, -0.1, 0.2, 19),
                    {"at": "3.resid_post", "sets": 19, "p_rank": p},
                )
            ],
        ),
    ]
    if layers == 2:
        other = about | {"site": "0.mlp"}
        rows += rows_from(
            other, [("value", "restored", Interval(0.1, -0.1, 0.3, 30), {"at": "3.resid_post"})]
        )
    found, sentence = one_finding(rows)
    assert found == holds
    assert "1.mlp 0.30" in sentence and "-0.50" not in sentence


@pytest.mark.parametrize(
    ("p", "low", "sets", "holds"),
    [(0.02, 0.6, 19, True), (0.03, 0.6, 19, False), (0.02, 0.45, 19, False), (0.02, 0.6, 5, False)],
)
def test_other_tasks_are_felt_after_Holm_and_beyond_matched_sets(
    p: float, low: float, sets: int, holds: bool
):
    about = R14 | {"experiment": "R4"}
    each = [
        (op, {"on": "chain", "op": op, "p_mcnemar": value})
        for op, value in (("zero", p), ("mean", 1.0))
    ]
    rows = [
        rows_from(about, [("value", "change_elsewhere", Interval(-0.1, -0.2, 0.0, 40), d)])[0]
        for _, d in each
    ]
    for op in ("zero", "mean"):
        beside = [("value", 0.5, 0.4, {"op": op}), ("matched", 0.65, low, {"op": op, "sets": sets})]
        beside += [("baseline", 0.7, 0.6, {})]
        for arm, right, least, detail in beside:
            right = Interval(right, least, 0.7, 40)
            rows += rows_from(about, [(arm, "accuracy_elsewhere", right, detail | {"on": "chain"})])
    found, sentence = one_finding(rows)
    assert found == holds
    assert "chain, zero -0.10 [-0.20, +0.00]" in sentence
    assert f"to 0.50 [0.40, 0.70], {sets} matched sets to {low:.2f} to 0.70" in sentence
    assert ("lower, and below each matched set, on chain" in sentence) == (sets == 5)
    assert ("5 matched sets cannot rank it (19 are needed)" in sentence) == (sets == 5)


def ablation(
    p: float = 0.001, rank: int = 1, draws: int = 19, clean: float | None = 0.1
) -> list[Row]:
    """Two ablations, the first of which decides; `clean`: the lower bound of Spearman with V-hat at
    the site."""
    about, rows = R14 | {"experiment": "R4"}, []
    for op, value in (("zero", p), ("mean", 1.0)):
        tests = {
            "rank": rank,
            "draws": draws,
            "p_rank": rank / (1 + draws),
            "match_error": 0.1,
            "matched": True,
        }
        detail = {"op": op, "neurons": 8, "p_mcnemar": value} | tests
        rows += rows_from(about, [("value", "accuracy", Interval(0.4, 0.3, 0.5, 40), detail)])
        rows += rows_from(about, [("value", "change", Interval(-0.1, -0.2, 0.0, 40), {"op": op})])
    read = {"target": "mc", "shape": "mlp"}
    if clean is not None:
        about = about | {"experiment": "R1"}
        rows += rows_from(about, [("value", "spearman", Interval(0.2, clean, 0.3, 40), read)])
    return rows


@pytest.mark.parametrize(
    ("p", "rank", "draws", "holds"),
    [(0.02, 1, 19, True), (0.03, 1, 19, False), (0.02, 2, 19, False), (0.02, 1, 5, False)],
)
def test_an_ablation_says_what_its_rank_is_worth(p: float, rank: int, draws: int, holds: bool):
    found, missed = findings(Results({}, tuple(ablation(p, rank, draws, None))))
    (sentence,) = [text for text in found + missed if text.startswith("Zero ablation")]
    assert (sentence in found) == holds and "not corrected for 2 ablations)" in sentence
    assert ("5 matched sets cannot rank it" in sentence) == (draws == 5)
    assert "not about value" not in sentence


@pytest.mark.parametrize(("clean", "warns"), [(0.1, False), (0.0, True), (-0.1, True)])
def test_an_ablation_where_V_hat_is_not_readable_is_not_about_value(clean: float, warns: bool):
    found, _ = findings(Results({}, tuple(ablation(clean=clean))))
    (sentence,) = [text for text in found if text.startswith("Zero ablation")]
    assert ("not about value" in sentence) == warns


def test_R13_is_named_where_its_rows_are():
    rows = ablation(clean=None)
    again = [replace(row, experiment="R13", detail=row.detail | {"as": "R4"}) for row in rows]
    stream = [replace(row, site="3.resid_post") for row in rows]

    def cited(*rows: Row) -> list[str]:
        """The experiments at the end of every sentence."""
        found, missed = findings(Results({}, rows))
        return [sentence.rpartition("(")[2] for sentence in found + missed]

    assert cited(*rows, *again) == ["R4, R13)."] * 2
    assert cited(*rows) == ["R4)."] * 2
    assert sorted(cited(*rows, *stream, *again)) == ["R4)."] * 2 + ["R4, R13)."] * 2


def test_the_curve_by_share_has_a_line_for_every_arm():
    text = share_curve(doses(0.3, 0.02, 0.1), "contrast_at_share")
    ElementTree.fromstring(text)
    for word in ("value", "matched", "1%", "10%", "up minus down"):
        assert word in text
    with pytest.raises(MechRewardError, match="nothing to draw"):
        share_curve(doses(0.3, 0.02, 0.1), "accuracy_zeroed")


@pytest.mark.parametrize(
    ("gap", "p", "holds"), [(0.2, 0.01, True), (0.2, 0.03, False), (-0.2, 0.01, False)]
)
def test_value_neurons_must_beat_every_other_ranking_after_Holm(gap: float, p: float, holds: bool):
    about, rows = R14 | {"experiment": "R4"}, []
    for arm, size, value in (("wanda", 0.3, 0.001), ("next_token", gap, p)):
        detail = {"op": "zero", "p": value}
        rows += rows_from(about, [(arm, "gap", Interval(size, size - 0.1, size + 0.1, 40), detail)])
    rows += rows_from(
        about, [("wanda", "gap", Interval(0.0, -0.1, 0.1, 40), {"op": "mean", "p": 1.0})]
    )
    rows += rows_from(
        about,
        [("matched_displacement", "gap", Interval(0.0, -0.1, 0.1, 40), {"op": "zero", "sets": 5})],
    )
    found, sentence = one_finding(rows)
    assert found == holds
    assert (
        f"next token {gap:+.2f} [{gap - 0.1:+.2f}, {gap + 0.1:+.2f}]" in sentence
        and "Holm over 3" in sentence
    )


@pytest.mark.parametrize(
    ("p", "holds"), [((0.016, 1.0, 1.0), True), ((0.02, 1.0, 1.0), False), ((1.0,) * 3, False)]
)
def test_next_token_sets_overlap_is_found_only_when_it_is_shown(p: tuple[float, ...], holds: bool):
    """Three shares: .016 is .048 after Holm, .02 is .06. A test that shows nothing is no
    finding."""
    about, rows = R14 | {"experiment": "R6"}, []
    for share, value in zip((0.01, 0.05, 0.2), p, strict=True):
        detail = {"share": share, "neurons": 8, "shared": 1, "expected": 0.01, "p": value}
        rows += rows_from(about, [("next_token", "iou", Interval(0.07, nan, nan, 768), detail)])
    found, sentence = one_finding(rows)
    assert found == holds and ("not shown" in sentence) == (not holds)
    corrected = min(3 * p[0], 1)
    assert (
        "MLP units" in sentence and f"top 1%: IoU 0.07, chance 0.01, p={corrected:.2g}" in sentence
    )


@pytest.mark.parametrize(
    ("own", "low", "largest", "holds"),
    [
        (0.3, 0.1, 1.0, True),
        (0.24, 0.1, 0.01, False),
        (0.3, -0.1, 0.01, False),
        (-0.3, -0.4, 0.01, False),
    ],
)
def test_a_single_neuron_is_held_against_the_largest_under_shuffles(
    own: float, low: float, largest: float, holds: bool
):
    """What counts is the neuron chosen on train; the p of the largest on test, another neuron,
    decides nothing."""
    rows = rows_from(
        R14 | {"experiment": "R9"},
        [
            (
                "dopamine",
                "spearman",
                Interval(own, low, 0.5, 50),
                {"neuron": 7, "sign": -1.0, "train": 0.3},
            ),
            ("dopamine", "max_spearman", Interval(0.4, nan, nan, 768), {"p": largest, "draws": 99}),
            ("shuffled", "max_spearman", Interval(0.2, 0.15, 0.25, 99), {}),
        ],
    )
    found, sentence = one_finding(rows)
    assert found == holds
    assert ("not shown" in sentence) == (not holds)
    assert "Neuron 7 of the MLP units at 3.mlp" in sentence
    assert f"Spearman {own:.3f} [{low:.3f}, 0.500] n=50" in sentence
    side = "above" if own > 0.25 else "not above"
    assert f", {side} 0.250, the 97.5% quantile of the largest of all 768 neurons" in sentence
    assert f"0.400 (p={largest:.2g} against the same shuffles; R9)" in sentence


@pytest.mark.parametrize("reading", ["sparse", "distributed"])
def test_the_evidence_says_what_the_random_bases_number_is(reading: str):
    beyond = Interval(0.8, 0.6, 1.0, 50) if reading == "sparse" else Interval(nan, nan, nan, 50)
    detail = {
        "neurons": 8,
        "reading": reading,
        "p": 0.05,
        "random": 0.1,
        "rotated": 0.2,
        "few": 0.3,
        "full": 0.4,
        "told": 0.35,
    }
    rows = rows_from(R14 | {"experiment": "R2"}, [("value", "sparsity", beyond, detail)])
    rows += rows_from(R14 | {"experiment": "R2"}, curve())
    found, missed = findings(Results({}, tuple(rows)))
    (sentence,) = [text for text in found + missed if "linear probe" in text]
    assert (sentence in found) == (reading == "sparse")
    assert f"V-hat in MLP units at 3.mlp {reading}" in sentence
    assert "prompt length alone read it with Spearman 0.350; beyond them" in sentence
    assert "all neurons 0.400 (p=0.05)" in sentence
    assert "the 8 chosen alone with 0.300" in sentence
    assert "as many random ones on average 0.100" in sentence
    assert "the best 8 coordinates of random bases on average 0.200" in sentence
    sparsity = "0.800 [0.600, 1.000] n=50" if reading == "sparse" else "is not defined"
    assert f"sparsity beyond redundancy {sparsity} (R2)" in sentence


def test_the_evidence_has_the_intervals_of_its_scores():
    detail = {
        "neurons": 8,
        "reading": "sparse",
        "p": 0.05,
        "random": 0.1,
        "rotated": 0.2,
        "few": 0.3,
        "full": 0.5,
        "told": 0.35,
    }
    numbers = [("value", "sparsity", Interval(0.8, 0.6, 1.0, 50), detail)]
    for neurons, score in ((768, 0.5), (8, 0.3)):
        interval = Interval(score, score - 0.1, score + 0.1, 50)
        more = {"neurons": neurons, "shape": "linear"}
        numbers.append(("value", "beyond_known", interval, more))
    rows = rows_from(R14 | {"experiment": "R2"}, numbers)
    sentence = findings(Results({}, tuple(rows)))[0][-1]
    assert "all neurons +0.50 [+0.40, +0.60] (p=0.05" in sentence
    assert "alone with +0.30 [+0.20, +0.40], as" in sentence


def curve() -> list[tuple[str, str, Interval, dict[str, object]]]:
    """Ends of a pruning curve of the paper's net: all 768 neurons, and 8."""
    few = {"ratio": 0.99, "neurons": 8, "shape": "mlp", "fit": "retrained"}
    return [
        ("value", "spearman", Interval(0.5, 0.4, 0.6, 50), few | {"ratio": 0.0, "neurons": 768}),
        ("value", "spearman", Interval(0.3, 0.2, 0.4, 50), few),
        ("random", "spearman", Interval(0.1, nan, nan, 50), few | {"draw": 0}),
    ]


@pytest.mark.parametrize(
    ("low", "random", "draws", "holds"),
    [(0.2, 0.1, 19, True), (0.2, 0.2, 19, False), (0.2, 0.1, 18, False)],
)
def test_sparser_than_chance_needs_draws_enough(low: float, random: float, draws: int, holds: bool):
    few = {"ratio": 0.99, "neurons": 8, "shape": "mlp", "fit": "retrained"}
    numbers = [
        ("value", "spearman", Interval(0.5, 0.4, 0.6, 50), few | {"ratio": 0.0, "neurons": 768})
    ]
    numbers += [("value", "spearman", Interval(0.3, low, 0.4, 50), few)]
    numbers += [("td_over_tokens", "spearman", Interval(0.2, 0.1, 0.3, 50), few)]
    for arm, count in (("random", draws), ("rotated", 20)):
        one = Interval(random, random - 0.1, random + 0.1, 50)
        numbers += [(arm, "spearman", one, few | {"draw": draw}) for draw in range(count)]
    found, sentence = one_finding(rows_from(R14 | {"experiment": "R2"}, numbers))
    assert found == holds
    assert ("18 draws of every null" in sentence and "19 are needed" in sentence) == (draws == 18)
    assert "8 of the MLP units at 3.mlp read V-hat with Spearman 0.300 [0.200" in sentence
    assert "all together +0.50 [+0.40, +0.60]" in sentence
    null = f"{random:+.2f} [{random - 0.1:+.2f}, {random + 0.1:+.2f}]"
    assert f"the best random subset or basis of that size {null}" in sentence
    assert "td over tokens +0.20 [+0.10, +0.30]" in sentence


def test_the_page_claims_no_rule_fixed_in_advance(tmp_path):
    manifest = {"versions": {"mechreward": "0"}}
    text = write_page(
        Results(manifest, tuple(depends(-0.1, 1))), tmp_path / "p.md", "mechreward paper R10"
    ).read_text()
    head = " ".join(text.partition("## ")[0].split())
    for words in (
        "exploratory beyond its corrected p-values",
        "not all fixed in advance",
        "seen on validation",
    ):
        assert words in head
    assert "measured once" not in head and "fixed before" not in head
    told, folded = (
        text.index("Zeroing the 300 value neurons"),
        text.index("<details><summary>Numbers</summary>\n\n"),
    )
    assert told < folded < text.index("| 3.mlp | value | 300 | ") < text.index("\n\n</details>")
