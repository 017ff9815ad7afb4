"""Sites: written forms, hook names, and what a wrong one is told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechreward.base.errors import MechRewardError
from mechreward.models.site import HOOKS, Site, all_sites, parse_sites

FAKE = SimpleNamespace(
    cfg=SimpleNamespace(n_layers=2, d_model=8, d_mlp=32),
    hook_dict={pattern.format(layer): None for layer in range(2) for pattern in HOOKS.values()},
)


@given(st.integers(0, 9999), st.sampled_from(sorted(HOOKS)))
def test_both_written_forms_come_back(layer: int, kind: str):
    site = Site(layer, kind)
    assert Site.parse(str(site)) == Site.parse(site.hook) == Site.parse(site) == site


@pytest.mark.parametrize(
    ("site", "hook"),
    [
        ("3.resid_pre", "blocks.3.hook_resid_pre"),
        ("0.resid_mid", "blocks.0.hook_resid_mid"),
        ("12.resid_post", "blocks.12.hook_resid_post"),
        ("5.mlp", "blocks.5.mlp.hook_post"),
    ],
)
def test_hook_names_are_transformer_lens_names(site: str, hook: str):
    assert Site.parse(site).hook == hook
    assert str(Site.parse(hook)) == site


def test_hook_names_exist_on_a_real_model(tiny_model):
    for site in all_sites(tiny_model, tuple(HOOKS)):
        assert site.check(tiny_model) is site
    assert (Site(1, "mlp").width(tiny_model), Site(1, "resid_post").width(tiny_model)) == (48, 32)


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ("3.resid_pots", "did you mean 'resid_post'"),
        ("3.residpost", "did you mean 'resid_post'"),
        ("3.MLP", "unknown site kind 'MLP'"),
        ("blocks.3.hook_resid_pst", "did you mean 'blocks.3.hook_resid_p"),
        ("blocks.3.mlp.hook_pots", "did you mean 'blocks.3.mlp.hook_post'"),
        ("blocks.3.attn.hook_z", "unknown hook name"),
        ("resid_post", "LAYER.KIND"),
        ("-1.resid_post", "LAYER.KIND"),
        ("", "LAYER.KIND"),
        ("3", "unknown site kind ''"),
        ("3.", "unknown site kind ''"),
        ("².mlp", "LAYER.KIND"),
        ("٣.mlp", "LAYER.KIND"),
        ("blocks.².mlp.hook_post", "LAYER.KIND"),
        ("9" * 5000 + ".mlp", "LAYER.KIND"),
    ],
)
def test_what_is_no_site_is_told_what_is(given_: str, told: str):
    with pytest.raises(MechRewardError, match=told.replace("'", ".")) as caught:
        Site.parse(given_)
    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_text_is_a_site_or_a_mistake(text: str):
    try:
        site = Site.parse(text)
    except MechRewardError:
        return
    assert Site.parse(str(site)) == site


def test_negative_layer():
    with pytest.raises(MechRewardError, match="counts from 0"):
        Site(-1, "mlp")


def test_layer_out_of_range_names_the_range():
    assert Site(1, "mlp").check(FAKE) == Site(1, "mlp")
    with pytest.raises(MechRewardError, match=r"site 2\.mlp: the model has layers 0 to 1"):
        Site(2, "mlp").check(FAKE)


def test_missing_hook_point_names_the_nearest():
    lacking = SimpleNamespace(cfg=FAKE.cfg, hook_dict={"blocks.0.hook_resid_post": None})
    with pytest.raises(MechRewardError, match=r"did you mean 'blocks\.0\.hook_resid_post'"):
        Site(0, "resid_pre").check(lacking)


def test_sites_sort_by_layer_then_kind():
    mixed = [Site(1, "mlp"), Site(0, "resid_post"), Site(0, "mlp")]
    assert sorted(mixed) == [Site(0, "mlp"), Site(0, "resid_post"), Site(1, "mlp")]


def test_all_sites_layer_by_layer():
    assert [str(site) for site in all_sites(FAKE)] == [
        "0.resid_post",
        "0.mlp",
        "1.resid_post",
        "1.mlp",
    ]


def test_parse_sites_takes_any_form_and_drops_repeats():
    mixed = ["1.mlp", "blocks.1.mlp.hook_post", Site(0, "resid_pre"), "1.mlp"]
    assert parse_sites(FAKE, mixed) == [Site(1, "mlp"), Site(0, "resid_pre")]
    assert parse_sites(FAKE, "0.mlp") == parse_sites(FAKE, Site(0, "mlp")) == [Site(0, "mlp")]
    with pytest.raises(MechRewardError, match="no site was given"):
        parse_sites(FAKE, [])
    with pytest.raises(MechRewardError, match="layers 0 to 1"):
        parse_sites(FAKE, ["0.mlp", "7.mlp"])
