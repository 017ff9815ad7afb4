"""The sweep against `run_with_hooks` one patch at a time; its heatmap; its file."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import rows as made
import tiny
import torch

from mechreward.base.errors import MechRewardError
from mechreward.causal.patching import PatchingSweep, logit_difference, patching_sweep
from mechreward.models.identity import model_id
from mechreward.models.site import Site
from mechreward.probing.neurons import NeuronSet
from mechreward.show.sweeps import patching_heatmap

CLEAN = torch.tensor([1, 5, 40, 8, 60, 61, 4])
OTHER = torch.tensor([1, 5, 33, 8, 60, 70, 4])
SITES = ["0.resid_pre", "0.resid_post", "0.mlp", "1.mlp", "1.resid_post"]
METRIC = logit_difference(7, 90)


def one_by_one(
    model: Any, pairs: list[tuple[int, int]], indices: Any, corrupted: torch.Tensor
) -> np.ndarray:
    """No module of ours but the hook's name: assign, run, read."""
    _, cache = model.run_with_cache(CLEAN[None])
    table = []
    for site in map(Site.parse, SITES):
        row = []
        for source, target in pairs:

            def hook(
                x: torch.Tensor,
                hook: Any,
                site: Site = site,
                source: int = source,
                target: int = target,
            ) -> Any:
                x = x.clone()
                x[:, target, indices] = cache[site.hook][:, source, indices]
                return x

            logits = model.run_with_hooks(corrupted[None], fwd_hooks=[(site.hook, hook)])[0]
            row.append(float(logits[-1, 7] - logits[-1, 90]))
        table.append(row)
    return np.array(table)


@pytest.mark.parametrize("batch", [3, 64])
@torch.no_grad()
def test_every_cell_is_a_run_of_its_own(tiny_model, batch: int):
    sweep = patching_sweep(tiny_model, CLEAN, OTHER, SITES, METRIC, batch=batch, progress=False)
    wanted = one_by_one(tiny_model, [(p, p) for p in range(7)], slice(None), OTHER)
    np.testing.assert_allclose(sweep.metric, wanted, atol=1e-4, rtol=1e-4)
    ends = [
        float(x[0, -1, 7] - x[0, -1, 90])
        for x in (tiny_model(CLEAN[None]), tiny_model(OTHER[None]))
    ]
    np.testing.assert_allclose([sweep.clean, sweep.corrupted], ends, rtol=1e-5)
    np.testing.assert_allclose(sweep.effect, (wanted - ends[1]) / (ends[0] - ends[1]), atol=1e-3)
    assert (sweep.sites, sweep.positions) == (tuple(map(Site.parse, SITES)), tuple(range(7)))
    assert tiny.no_hooks_left(tiny_model)


def test_what_must_be_0_and_what_must_be_1(tiny_model):
    """The embedding of a token that both runs share says nothing new; the last state of the last
    layer is all."""
    sweep = patching_sweep(tiny_model, CLEAN, OTHER, SITES, METRIC, progress=False)
    np.testing.assert_allclose(sweep.effect[0, [0, 1, 3, 4, 6]], 0, atol=1e-4)
    np.testing.assert_allclose(sweep.effect[4], [0, 0, 0, 0, 0, 0, 1], atol=1e-4)
    assert abs(sweep.effect[0, 2]) > 1e-3
    back = patching_sweep(tiny_model, OTHER, CLEAN, SITES, METRIC, progress=False)
    np.testing.assert_allclose([back.clean, back.corrupted], [sweep.corrupted, sweep.clean])


@torch.no_grad()
def test_a_set_of_residual_neurons_at_every_layer_and_pairs_of_positions(tiny_model):
    """States of unequal runs: the clean run's position 6 goes where the corrupted one has 4."""
    short, pairs = OTHER[:5], [(6, 4), (2, 2), (3, 1)]
    neurons = NeuronSet(Site(0, "resid_post"), (3, 9, 20), 32, model_id(tiny_model), (), "by hand")
    residual = [site for site in SITES if "mlp" not in site]
    sweep = patching_sweep(
        tiny_model, CLEAN, short, residual, METRIC, positions=pairs, neurons=neurons, progress=False
    )
    wanted = one_by_one(tiny_model, pairs, [3, 9, 20], short)[[0, 1, 4]]
    np.testing.assert_allclose(sweep.metric, wanted, atol=1e-4, rtol=1e-4)
    assert (sweep.sources, sweep.positions) == ((6, 2, 3), (4, 2, 1))
    assert sweep.neurons == "3 neurons (by hand)"


def test_half_precision(tiny_folder):
    from mechreward.models.load import load

    model = load(tiny_folder, dtype=torch.bfloat16)
    sweep = patching_sweep(model, CLEAN, OTHER, "1.resid_post", METRIC, progress=False)
    np.testing.assert_allclose(sweep.effect[0], [0, 0, 0, 0, 0, 0, 1], atol=1e-6)


def test_what_it_refuses_and_that_nothing_is_left(tiny_model):
    mine = NeuronSet(Site(0, "mlp"), (3,), 48, model_id(tiny_model))
    foreign = made.neurons(3, width=32, site=Site(0, "resid_post"))

    def broken(logits: torch.Tensor) -> float:
        raise RuntimeError("in the metric")

    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        (
            "7 tokens and the corrupted one 5: say with positions=",
            (CLEAN, OTHER[:5], SITES, METRIC),
            {},
        ),
        ("clean run has positions 0 to 6; 7", (CLEAN, OTHER, SITES, METRIC), {"positions": [7]}),
        (
            "corrupted run has positions 0 to 4; 5",
            (CLEAN, OTHER[:5], SITES, METRIC),
            {"positions": [(6, 5)]},
        ),
        ("count from 0; -1", (CLEAN, OTHER, SITES, METRIC), {"positions": [-1]}),
        ("nothing can be restored", (CLEAN, CLEAN, SITES, METRIC), {}),
        (
            r"neurons of 0\.mlp are not neurons of 1\.mlp",
            (CLEAN, OTHER, "1.mlp", METRIC),
            {"neurons": mine},
        ),
        (
            r"neurons of 0\.mlp are not neurons of 0\.resid_post",
            (CLEAN, OTHER, SITES[1], METRIC),
            {"neurons": mine},
        ),
        ("made on made-up", (CLEAN, OTHER, SITES[1], METRIC), {"neurons": foreign}),
        ("at least 1; 0 was given", (CLEAN, OTHER, SITES, METRIC), {"batch": 0}),
        ("layers 0 to 1", (CLEAN, OTHER, "2.mlp", METRIC), {}),
    ]
    for told, arguments, more in calls:
        with pytest.raises(MechRewardError, match=told) as error:
            patching_sweep(tiny_model, *arguments, progress=False, **more)
        assert "\n" not in str(error.value)
    with pytest.raises(RuntimeError, match="in the metric"):
        patching_sweep(tiny_model, CLEAN, OTHER, SITES, broken, progress=False)
    assert tiny.no_hooks_left(tiny_model)


def made_up(columns: int = 3) -> PatchingSweep:
    sites = (Site(0, "mlp"), Site(0, "resid_post"), Site(1, "mlp"))
    table = np.linspace(-2.0, 4.0, 3 * columns).reshape(3, columns)
    places = tuple(range(4, 4 + columns))
    return PatchingSweep(
        sites, places, places, table, 2.0, -1.0, "3 neurons (<by hand>)", made.MODEL
    )


def test_a_sweep_is_saved_and_read_again(tmp_path):
    sweep = made_up()
    again = PatchingSweep.load(sweep.save(tmp_path / "sweep.json"))
    assert np.array_equal(again.metric, sweep.metric) and np.array_equal(again.effect, sweep.effect)
    assert vars(again) | {"metric": 0} == vars(sweep) | {"metric": 0}
    holed = replace(sweep, metric=np.where(sweep.metric > 0, sweep.metric, np.nan))
    again = PatchingSweep.load(holed.save(tmp_path / "holed.json"))
    assert np.array_equal(again.metric, holed.metric, equal_nan=True) and "–" in words(
        patching_heatmap(again)
    )
    (tmp_path / "other.json").write_text('{"kind": "neurons"}')
    with pytest.raises(MechRewardError, match="holds neurons, not a patching sweep"):
        PatchingSweep.load(tmp_path / "other.json")
    (tmp_path / "bad.json").write_text('{"kind": "patching", "sites": ["0.mlp"]}')
    with pytest.raises(MechRewardError, match="damaged patching sweep"):
        PatchingSweep.load(tmp_path / "bad.json")
    cut = replace(sweep, metric=sweep.metric[:2]).save(tmp_path / "cut.json")
    with pytest.raises(MechRewardError, match="damaged patching sweep"):
        PatchingSweep.load(cut)


def words(svg: str) -> list[str]:
    return re.findall(r">([^<>]+)</text>", svg)


def test_the_heatmap_prints_every_cell_with_the_deepest_site_on_top():
    sweep = made_up()
    svg = patching_heatmap(sweep)
    text = words(svg)
    for number in sweep.effect.flatten():
        assert f"{number:.2f}".replace("-", "−") in text
    assert [word for word in text if re.fullmatch(r"\d\.[a-z_]+", word)] == [
        "1.mlp",
        "0.resid_post",
        "0.mlp",
    ]
    assert "3 neurons (&lt;by hand&gt;): 0 = corrupted (-1), 1 = clean (2)" in text
    assert svg == patching_heatmap(sweep), "byte-identical"
    assert svg.startswith("<svg") and {"4", "5", "6"} <= set(text)


def test_the_heatmap_shows_tokens_and_leaves_numbers_out_where_there_is_no_room():
    text = words(patching_heatmap(made_up(), ["a", "b", "c", "d", "<think>", "\n", "\x1b"]))
    assert {"4 &lt;think&gt;", "5 ↵", "6 ⟨U+001B⟩"} <= set(text)
    assert not any(
        re.fullmatch(r"−?\d\.\d\d", word) for word in words(patching_heatmap(made_up(40)))
    )
    with pytest.raises(MechRewardError, match="2 token texts were given; the sweep has position 6"):
        patching_heatmap(made_up(), ["a", "b"])


def test_one_position_with_several_sources_keeps_a_column_for_each():
    """The states of two positions of the clean run, each put into position 9."""
    sweep = replace(made_up(), sources=(12, 11, 4), positions=(9, 9, 4))
    text = words(patching_heatmap(sweep))
    assert {"9←12", "9←11", "4"} <= set(text)
    assert sum(bool(re.fullmatch(r"−?\d\.\d\d", word)) for word in text) == 9
