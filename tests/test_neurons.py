"""Sets of neurons against Python's sets."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import rows as made
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mechreward.base.errors import MechRewardError
from mechreward.models.site import Site
from mechreward.probing.neurons import NeuronSet, count, ranking, select
from mechreward.probing.probe import ValueProbe

WIDTH = 12
some = st.sets(st.integers(0, WIDTH - 1))


def of(indices: set[int]) -> NeuronSet:
    return made.neurons(*sorted(indices), width=WIDTH)


@settings(max_examples=50)
@given(some, some, some)
def test_algebra_is_that_of_sets(a: set[int], b: set[int], c: set[int]):
    assert set((of(a) | of(b)).indices) == a | b
    assert set((of(a) & of(b)).indices) == a & b
    assert set((of(a) - of(b)).indices) == a - b
    assert len(of(a) | of(b)) == len(a | b)
    assert of(a) | of(b) == of(b) | of(a)
    assert of(a) - (of(b) | of(c)) == (of(a) - of(b)) & (of(a) - of(c))
    assert (of(a) == of(b)) == (a == b)
    for result in (of(a) | of(b), of(a) & of(b), of(a) - of(b)):
        assert list(result.indices) == sorted(result.indices)
        assert (result.site, result.width, result.model_id) == (made.SITE, WIDTH, made.MODEL)
    if a | b:
        assert of(a).iou(of(b)) == len(a & b) / len(a | b)
    else:
        with pytest.raises(MechRewardError, match="undefined"):
            of(a).iou(of(b))


def test_where_a_combined_set_comes_from_is_kept():
    one, two = made.neurons(1, how="first"), made.neurons(2, how="second")
    assert [(one | two).how, (one & two).how, (one - two).how] == [
        f"(first) {sign} (second)" for sign in "|&-"
    ]


@pytest.mark.parametrize("sign", ["__or__", "__and__", "__sub__", "iou"])
@pytest.mark.parametrize(
    ("other", "told"),
    [
        (
            made.neurons(1, site=Site(4, "resid_post")),
            "different sites: 3.resid_post and 4.resid_post",
        ),
        (made.neurons(1, site=Site(3, "mlp")), "different sites"),
        (made.neurons(1, model=made.OTHER), "is another"),
        (made.neurons(1, model=made.COOKED), "processing compatibility mode"),
    ],
)
def test_sets_of_another_site_or_model_do_not_combine(sign, other, told):
    with pytest.raises(MechRewardError, match=told):
        getattr(made.neurons(1, 2), sign)(other)


@pytest.mark.parametrize(
    ("indices", "told"),
    [
        ((16,), r"neuron \[16\] is out of range: 3\.resid_post has neurons 0 to 15"),
        ((0, -1), r"neuron \[-1\] is out of range"),
        ((2, 1), "sorted and without repeats"),
        ((1, 1), "sorted and without repeats"),
    ],
)
def test_wrong_indices_are_refused(indices, told):
    with pytest.raises(MechRewardError, match=told):
        made.neurons(*indices)


def test_of_sorts_and_keeps_each_neurons_own_score():
    acts = made.activations(np.zeros((2, 5)))
    picked = NeuronSet.of(
        acts, np.array([4, 1, 4]), "by hand", np.array([0.0, 10.0, 20.0, 30.0, 40.0])
    )
    assert (picked.indices, picked.scores, picked.width) == ((1, 4), (10.0, 40.0), 5)
    assert (picked.site, picked.model_id, picked.how) == (acts.site, acts.model_id, "by hand")
    with pytest.raises(MechRewardError, match="out of range"):
        NeuronSet.of(acts, [5], "by hand")


def test_read_from_activations_from_a_mapping_and_from_a_cache(tiny_model):
    from mechreward.models.identity import model_id

    x = torch.arange(32.0).reshape(2, 16)
    two = made.neurons(3, 9)
    assert two.read(made.activations(x)).tolist() == [[3, 9], [19, 25]]
    assert two.read({made.SITE.hook: x[None]}).tolist() == [[[3, 9], [19, 25]]]
    with pytest.raises(
        MechRewardError, match=r"activations are of 3\.mlp; the set is of 3\.resid_post"
    ):
        two.read(made.activations(x, site=Site(3, "mlp")))
    site = Site(1, "mlp")
    _, cache = tiny_model.run_with_cache(torch.tensor([[1, 5, 6, 7]]))
    real = NeuronSet(site, (0, 47), 48, model_id(tiny_model))
    assert torch.equal(
        real.read(cache), torch.stack([cache[site.hook][..., 0], cache[site.hook][..., 47]], -1)
    )


def test_file_round_trip(tmp_path):
    full = NeuronSet(Site(2, "mlp"), (1, 5), 8, made.MODEL, (0.125, 3.5), "top 1%", (1.5, -0.25))
    back = NeuronSet.load(full.save(tmp_path / "deep" / "set.json"))
    assert back == full
    assert (back.scores, back.how, back.direction) == (full.scores, full.how, full.direction)
    assert isinstance(back.indices, tuple)
    empty = made.neurons()
    assert NeuronSet.load(empty.save(tmp_path / "empty.json")) == empty


@pytest.mark.unchecked
def test_damaged_files_are_refused(tmp_path):
    good = json.loads(made.neurons(1, 2).save(tmp_path / "good.json").read_text())
    del good["seal"]  # else it would be refused for that alone
    broken = {
        "cut": (tmp_path / "good.json").read_text()[:-9],
        "list": "[]",
        "kind": json.dumps(good | {"kind": "effect"}),
        "no-site": json.dumps({key: value for key, value in good.items() if key != "site"}),
        "number-site": json.dumps(good | {"site": 3}),
        "wrong-site": json.dumps(good | {"site": "3.residual"}),
        "range": json.dumps(good | {"indices": [1, 99]}),
        "order": json.dumps(good | {"indices": [2, 1]}),
        "words": json.dumps(good | {"indices": ["a"]}),
        "fractions": json.dumps(good | {"indices": [1.5]}),
        "number": json.dumps(good | {"indices": 7}),
        "model": json.dumps(good | {"model_id": {"name": "x"}}),
    }
    for name, text in broken.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pickled").write_bytes(pickle.dumps([1]))
    for name in [*broken, "pickled", "absent"]:
        with pytest.raises(MechRewardError) as error:
            NeuronSet.load(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("width", "top", "expected"),
    [
        (896, 0.01, 9),
        (3584, 0.01, 36),
        (32, 0.01, 1),
        (100, 1.0, 100),
        (100, 0.001, 1),
        (64, 0.2, 13),
    ],
)
def test_how_many_neurons_a_share_is(width, top, expected):
    assert count(width, top) == expected


@pytest.mark.parametrize("top", [0.0, -0.1, 1.01, 9.0])
def test_a_share_outside_0_to_1_is_refused(top):
    with pytest.raises(MechRewardError, match=f"{top} was given"):
        count(100, top)


def test_ranking_is_stable():
    assert ranking(np.array([1.0, 3.0, 1.0, 3.0, 0.0])).tolist() == [1, 3, 0, 2, 4]


def test_select_takes_the_best_scored_and_says_so():
    x = torch.randn(5, 300, generator=torch.Generator().manual_seed(0))
    acts = made.activations(x, trajectory=[0, 0, 0, 1, 1], step=[0, 1, 2, 0, 1])
    probe = ValueProbe("terminal", "linear").fit(acts, made.two())
    chosen = select(probe)
    assert len(chosen) == 3
    assert set(chosen.indices) == set(np.argsort(probe.scores_)[-3:].tolist())
    assert chosen.scores == pytest.approx([probe.scores_[i] for i in chosen.indices])
    assert (chosen.site, chosen.width, chosen.model_id) == (acts.site, 300, acts.model_id)
    assert "linear ValueProbe on terminal" in chosen.how
    values = made.two()  # the direction is that of V-hat, whatever the probe was fitted to
    spread = x[values.live] - x[values.live].mean(0)
    way = np.sign(spread.numpy().T @ (values.mean[values.live] - values.mean[values.live].mean()))
    wanted = way * x[values.live].std(0, correction=0).numpy()
    assert chosen.direction == pytest.approx([wanted[i] for i in chosen.indices])
    assert (chosen & chosen).direction == ()
    assert select(probe, 1.0).indices == tuple(range(300))
    assert set(chosen.indices) < set(select(probe, 0.02).indices)


def test_select_by_correlation_asks_each_neuron_alone():
    """Against SciPy, neuron by neuron; a constant one comes last."""
    x = torch.randn(5, 300, generator=torch.Generator().manual_seed(0))
    x[:, 7] = 1.0
    values = made.two()
    acts = made.activations(x, trajectory=[0, 0, 0, 1, 1], step=[0, 1, 2, 0, 1])
    probe = ValueProbe("mc", "linear").fit(acts, values)
    chosen = select(probe, 0.01, by="correlation")
    alone = [
        0 if i == 7 else abs(spearmanr(x[values.live][:, i], values.mean[values.live])[0])
        for i in range(300)
    ]
    assert chosen.indices == tuple(
        sorted(np.argsort(-np.array(alone).round(9), kind="stable")[:3].tolist())
    )
    assert chosen.scores == pytest.approx([alone[i] for i in chosen.indices])
    assert "by correlation with V-hat" in chosen.how and len(chosen.direction) == 3
    with pytest.raises(MechRewardError, match="correlation"):
        select(probe, by="corelation")


def test_select_needs_a_probe_fitted_to_activations():
    for probe in (ValueProbe(), ValueProbe(shape="linear").fit_examples(made.planted(30))):
        with pytest.raises(MechRewardError, match="fitted with fit"):
            select(probe)
    probe = ValueProbe()
    acts = made.activations(torch.randn(5, 3), trajectory=[0, 0, 0, 1, 1], step=[0, 1, 2, 0, 1])
    bad = made.two()
    bad.reward[:] = 1
    with pytest.raises(MechRewardError, match="right answers"):
        probe.fit(acts, bad)
    with pytest.raises(MechRewardError, match="fitted with fit"):
        select(probe)
