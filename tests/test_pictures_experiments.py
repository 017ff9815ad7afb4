"""Pictures of experiments and of the certificate: what is drawn is what the rows hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pictured
import pytest
from matplotlib.text import Text

from mechreward import show
from mechreward.base.errors import MechRewardError
from mechreward.causal.verdict import CLAIMS
from mechreward.experiments.rows import Results
from mechreward.show.picture import NARROW, Picture

MADE: dict[str, Callable[[], Picture]] = {
    "pruning": lambda: show.pruning(pictured.pruning()),
    "layers": lambda: show.layers(pictured.layers()),
    "ablation": lambda: show.ablation(pictured.ablation()),
    "dose": lambda: show.dose(pictured.dose()),
    "overlap": lambda: show.overlap(pictured.overlap()),
    "certificate": lambda: show.certificate(pictured.certificate()),
    "search": lambda: show.search(pictured.search()),
    "siblings": lambda: show.siblings(pictured.siblings(10)),
    "patching": lambda: show.patching(pictured.sweep(), ["a", "<b>", "\n"]),
}


def marks(made: Picture, mark: str, panel: str = "", label: str = "") -> pd.DataFrame:
    data = made.data
    keep = data["mark"] == mark
    if panel:
        keep &= data["panel"].str.startswith(panel)
    if label:
        keep &= data["label"] == label
    return data[keep]


@pytest.mark.parametrize("name", MADE)
def test_every_picture_is_legible_and_the_same_bytes(name: str):
    made, again = MADE[name](), MADE[name]()
    narrow = made._drawn(NARROW)
    assert made.svg(NARROW) == again.svg(NARROW)
    written = [text for text in narrow.findobj(Text) if text.get_text().strip()]
    assert min(text.get_fontsize() for text in written) >= 9
    assert made.caption and made.alt and len(made.data) > 0
    assert "nan" not in made.alt + made.caption + made.title


def test_a_value_ranking_stands_beside_three_arms_at_most():
    results = pictured.pruning()
    made = show.pruning(results)
    for panel in made.panels:
        labels = [line.label for line in panel.lines]
        assert labels[0] == "value" and len(labels) <= 4
    for arm in ("value", "correlation", "random"):
        rows = [row for row in results.rows if row.arm == arm]
        shares = sorted({1 - row.detail["ratio"] for row in rows}, reverse=True)
        points = marks(made, "point", label=arm).drop_duplicates("x")
        assert points["x"].tolist() == pytest.approx(shares)
        for share, y in zip(points["x"], points["y"], strict=True):
            here = [row.estimate for row in rows if np.isclose(1 - row.detail["ratio"], share)]
            assert y == pytest.approx(np.mean(here))
    # A band is a 95% interval; draws are dots.
    assert marks(made, "point", label="random")["low"].isna().all()
    assert len(marks(made, "draw", label="random")) == 12
    value = marks(made, "point", label="value").drop_duplicates("x")
    lows = [row.low for row in results.rows if row.arm == "value"]
    assert value["low"].tolist() == pytest.approx(lows)


def test_all_cells_of_the_grid_are_shown_and_those_that_hold_are_ringed():
    results = pictured.layers()
    made = show.layers(results)
    squares = marks(made, "square")
    assert sorted(squares["x"]) == pytest.approx(sorted(row.estimate for row in results.rows))
    held = sum(row.detail["p_holm"] < 0.05 for row in results.rows)
    assert (squares["text"] == "ring").sum() == held == 4
    with pytest.raises(MechRewardError, match="validation"):
        show.layers(results, "validation")


def test_an_ablation_is_a_paired_change_in_points_beside_every_draw():
    made = show.ablation(pictured.ablation())
    value = marks(made, "dot", "Change of accuracy", "value").iloc[0]
    assert value[["x", "low", "high"]].tolist() == pytest.approx([-20, -30, -10])
    assert "rank 1 of 5" in value["text"]
    draws = marks(made, "draw", "Change of accuracy", "matched")
    assert draws["x"].tolist() == pytest.approx([-5, -2, 0, -3])
    matched = marks(made, "dot", "Change of accuracy", "matched").iloc[0]
    assert matched["x"] == pytest.approx(-2.5) and np.isnan(matched["low"])
    # Damage is of this task alone, with its extreme draws as dots.
    assert marks(made, "dot", "Length", "value")["x"].tolist() == [28.0]
    assert marks(made, "upright line", "Length")["x"].tolist() == [30.0]
    assert marks(made, "draw", "KL", "matched")["x"].tolist() == [0.005, 0.02]
    assert np.isnan(marks(made, "dot", "KL", "matched").iloc[0]["low"])
    with pytest.raises(MechRewardError, match="zero"):
        show.ablation(pictured.ablation(), "mean")


def test_a_dose_has_bands_of_sets_and_dots_of_draws():
    results = pictured.dose()
    made = show.dose(results)
    points = marks(made, "point", "value set: accuracy", "value")
    assert points["x"].tolist() == [-2, -1, 1, 2]
    assert points["y"].tolist() == pytest.approx([-10, -5, 5, 10])
    assert points["low"].tolist() == pytest.approx([-14, -9, 1, 6])
    matched = marks(made, "point", "value set: accuracy", "matched")
    assert matched["low"].isna().all()
    draws = marks(made, "draw", "value set: accuracy", "matched")
    assert len(draws) == 8 and draws["y"].max() == pytest.approx(8)
    assert marks(made, "point", "dopamine set: damage", "dopamine")["y"].max() == 0.02
    share = marks(made, "point", "More and more", "value")
    assert share["y"].tolist() == pytest.approx([0.025, 0.25, 1.25])
    with pytest.raises(MechRewardError, match="all"):
        show.dose(results, place="al")


def test_overlaps_stand_beside_chance():
    made = show.overlap(pictured.overlap())
    assert marks(made, "dot")["x"].tolist() == [0.01, 0.05]
    assert marks(made, "by chance")["x"].tolist() == [0.005, 0.025]
    squares = marks(made, "square").set_index("label")
    assert squares.loc["made-up chain, made-up countdown", "x"] == 0.2
    assert squares.loc["made-up chain, made-up countdown", "text"] == "ring"
    assert squares.loc["made-up countdown, made-up countdown", "text"] == "itself"


def test_a_certificate_has_a_row_a_claim_with_its_verdict_and_bound():
    noun = pictured.certificate()
    made = show.certificate(noun)
    dots = marks(made, "dot").set_index("panel")
    for claim in CLAIMS:
        dot = dots.loc[claim.capitalize()]
        assert dot["text"] == noun[claim].verdict
    assert dots.loc["Sparse", ["x", "low", "high"]].tolist() == [0.44, -0.01, 0.89]
    assert np.isnan(dots.loc["Stable", "x"])
    bounds = marks(made, "bound").set_index("panel")["x"]
    assert bounds["Causal"] == 0.1 and bounds["Sparse"] == bounds["Sufficient"] == 0.5
    controls = marks(made, "control").groupby("panel")["x"].agg(list)
    assert controls["Sufficient"] == pytest.approx([0.05, 0.15, 0.25])
    assert controls["Causal"] == [0.03]
    written = [text.get_text() for text in made._drawn(NARROW).findobj(Text)]
    for sign in ("✓ pass", "✗ fail", "? inconclusive", "– not run"):
        assert sign in written


@pytest.mark.parametrize("name", ["pruning", "layers", "ablation", "dose"])
def test_rows_of_several_settings_are_refused(name: str):
    results = getattr(pictured, name)()
    draw = getattr(show, name)
    twice = [*results.rows, *(replace(row, task="chain") for row in results.rows)]
    with pytest.raises(MechRewardError, match="one task; countdown, chain"):
        draw(twice)
    assert len(draw(results.frame()).data) == len(draw(results).data)
    with pytest.raises(MechRewardError, match="nothing to draw"):
        draw(Results({}, tuple(replace(row, experiment="R99") for row in results.rows)))


@pytest.mark.parametrize("name", ["pruning", "ablation", "dose"])
def test_a_site_is_named_where_there_are_several(name: str):
    results = getattr(pictured, name)()
    draw = getattr(show, name)
    twice = [*results.rows, *(replace(row, site="1.mlp") for row in results.rows)]
    with pytest.raises(MechRewardError, match=r"3\.resid_post, 1\.mlp .*site="):
        draw(twice)
    assert len(draw(twice, site="1.mlp").data) == len(draw(results).data)
    with pytest.raises(MechRewardError, match=r"1\.mlp"):
        draw(twice, site="1.mpl")


def test_patching_hatches_what_controls_reach():
    sweep = pictured.sweep()
    plain = show.patching(sweep)
    assert sorted(marks(plain, "square")["x"]) == pytest.approx(sorted(sweep.effect.ravel()))
    assert not marks(plain, "square")["text"].any()
    # Effects of the controls are .1 and -.3 everywhere: squares between -.3 and .1 are inside.
    controls = []
    for effect in (0.1, -0.3):
        controls.append(replace(sweep, metric=np.full((2, 3), 1.0 + 2.0 * effect)))
    squares = marks(show.patching(sweep, controls=controls), "square")
    inside = squares["text"] == "hatched"
    assert sorted(squares[inside]["x"]) == pytest.approx([-0.2, 0.0, 0.05, 0.1])
    with pytest.raises(MechRewardError, match="other sites"):
        show.patching(sweep, controls=[replace(sweep, positions=(3, 4, 5))])
    with pytest.raises(MechRewardError, match="position 2"):
        show.patching(sweep, ["a"])


@pytest.mark.unchecked
@pytest.mark.parametrize("draw", [show.pruning, show.layers, show.ablation, show.certificate])
def test_other_things_are_refused_in_one_line(draw):
    for given in ("text", None, 3):
        with pytest.raises(MechRewardError) as error:
            draw(given)
        assert "\n" not in str(error.value)
