"""Control sets on planted activations whose magnitudes are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rows as made
import torch

from mechreward._check import MechRewardError
from mechreward.causal.controls import matched, random, sinks
from mechreward.models.site import Site

LENGTH = 5
COUNT = 40 * LENGTH


def with_rms(rms, sink: tuple[int, ...] = (), site: Site = made.SITE):
    """Activations +-rms at every position; a `sink` neuron is 1,000 times that at position 0."""
    rms = torch.as_tensor(rms, dtype=torch.float32)
    sign = torch.randint(0, 2, (COUNT, len(rms)), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    x = sign * rms
    x[::LENGTH, list(sink)] *= 1000
    return made.tokens(x, LENGTH, site)


def of(*indices: int, width: int):
    return made.neurons(*indices, width=width)


def test_a_neuron_that_is_huge_at_position_0_is_a_sink():
    rms = np.ones(32)
    rms[3] = 1e-3  # a thousandth elsewhere: at position 0 it is as ordinary as the rest, and still a sink
    assert sinks(with_rms(rms, sink=(3, 20))) == (3, 20)
    assert sinks(with_rms(np.ones(32))) == ()


def test_massive_neurons_count_in_the_residual_stream_only():
    rms = np.full(32, 2.0)
    rms[7], rms[8] = 21.0, 19.0
    assert sinks(with_rms(rms)) == (7,)
    assert sinks(with_rms(rms, site=Site(3, "mlp"))) == ()
    assert sinks(with_rms(rms), ratio=9.0) == (7, 8)
    sparse = with_rms(rms, sink=(5,), site=Site(3, "mlp"))
    assert sinks(sparse) == (5,), "the rule of position 0 holds for MLP units too"


def test_silent_neurons_are_no_sinks():
    rms = np.ones(32)
    rms[4] = 0
    assert sinks(with_rms(rms)) == ()


@pytest.mark.parametrize("rows", ["states", "steps"])
def test_sinks_need_every_position(rows):
    with pytest.raises(MechRewardError, match=f"record with rows='tokens', not '{rows}'"):
        sinks(made.activations(np.ones((4, 8)), rows))


def families(copies: int, sizes) -> np.ndarray:
    """`copies` neurons of each magnitude, interleaved."""
    return np.tile(sizes, copies)


def test_matched_sets_are_exact_where_exact_matches_exist():
    sizes = np.array([0.3, 0.5, 1.0, 2.0])
    acts, chosen = with_rms(families(50, sizes)), of(0, 1, 2, 3, width=200)
    found = matched(chosen, acts, draws=19)
    assert len({control.neurons.indices for control in found}) == 19
    assert [control.draw for control in found] == list(range(19))
    for control in found:
        assert control.arm == "matched"
        assert control.error == pytest.approx(0, abs=1e-6)
        assert sorted(i % 4 for i in control.neurons.indices) == [0, 1, 2, 3], "one of every magnitude"
        assert not set(control.neurons.indices) & {0, 1, 2, 3}
        assert (control.neurons.site, control.neurons.width, len(control.neurons)) == (made.SITE, 200, 4)
        assert control.neurons.model_id == chosen.model_id


def test_the_error_by_hand():
    rms = np.full(100, 2.0)
    rms[10], rms[11] = 2.0 * np.exp(0.3), 2.0 * np.exp(-0.5)
    for control in matched(of(10, 11, width=100), with_rms(rms), draws=19):
        assert control.error == pytest.approx((0.3 + 0.5) / 2, abs=1e-4)
    (one,) = matched(of(11, width=100), with_rms(rms), draws=1)
    assert one.error == pytest.approx(0.5 if one.neurons.indices != (10,) else 0.8, abs=1e-4)


def test_only_the_nearest_stand_in():
    """A ladder of magnitudes: with 1 neuron and 3 draws the 8 nearest free rungs may stand in, and no other."""
    ladder = np.exp(0.01 * np.arange(60))
    seen = set()
    for seed in range(40):
        for control in matched(of(30, width=60), with_rms(ladder), draws=3, seed=seed):
            (stand_in,) = control.neurons.indices
            assert control.error == pytest.approx(abs(stand_in - 30) * 0.01, abs=1e-4)
            seen.add(stand_in)
    assert seen == {26, 27, 28, 29, 31, 32, 33, 34}


def test_the_error_grows_when_the_set_is_the_largest_neurons():
    ladder = np.exp(0.05 * np.arange(60) / 2)  # up to 4.4 times the smallest: no neuron is massive
    acts = with_rms(ladder)
    middle = matched(of(28, 29, 30, 31, width=60), acts)
    top = matched(of(56, 57, 58, 59, width=60), acts)
    assert np.mean([c.error for c in top]) > 1.4 * np.mean([c.error for c in middle])
    for control in top:
        assert max(control.neurons.indices) < 56
        pairs = np.log(ladder[56:60]).sum() - np.log(ladder[list(control.neurons.indices)]).sum()
        assert control.error == pytest.approx(pairs / 4, abs=1e-4), "all stand-ins are smaller: any pairing sums alike"


def test_sinks_never_stand_in():
    acts = with_rms(np.ones(30), sink=tuple(range(10, 20)))
    for control in matched(of(0, 1, width=30), acts, draws=10):
        assert not set(control.neurons.indices) & set(range(10, 20))
        assert len(control.neurons) == 2
    for control in random(of(0, 1, width=30), acts, draws=50, sink_free=True):
        assert not set(control.neurons.indices) & {0, 1, *range(10, 20)}
        assert control.arm == "sink_free_random"


def test_random_sets_are_uniform_over_all_other_neurons():
    acts = with_rms(np.ones(12), sink=(11,))
    found = random(of(2, 5, 7, width=12), acts, draws=400)
    counts = np.zeros(12)
    for control in found:
        assert len(control.neurons) == 3
        assert control.arm == "random"
        assert np.isnan(control.error)
        counts[list(control.neurons.indices)] += 1
    assert (counts[[2, 5, 7]] == 0).all()
    others = np.delete(counts, [2, 5, 7])
    assert others.sum() == 1200
    # 400 draws of 3 of 9: mean 133, sd 9.4 each; five of them, over nine neurons, err 5 times in a million.
    assert (abs(others - 400 / 3) < 5 * 9.43).all()


def test_draws_are_decided_by_the_seed():
    acts, chosen = with_rms(families(30, [0.5, 1.0])), of(0, 1, width=60)

    def sets(make, seed, **more):
        return [c.neurons.indices for c in make(chosen, acts, draws=6, seed=seed, **more)]

    for make in (matched, random):
        assert sets(make, 1) == sets(make, 1)
        assert sets(make, 1) != sets(make, 2)
    assert sets(random, 1, sink_free=True) != sets(random, 1)


def test_more_sets_than_exist_are_refused_in_one_line():
    acts = with_rms(np.ones(20))
    calls = [
        (lambda: matched(of(0, width=20), acts, draws=19), "19 neurons are left to match 1; 41 are needed"),
        (lambda: matched(of(*range(18), width=20), acts, draws=1), "2 neurons are left to match 18"),
        (lambda: random(of(*range(11), width=20), acts), "9 other neurons are left; a control needs 11"),
        (lambda: matched(of(0, width=20), acts, draws=0), "at least one matched draw is needed"),
        (lambda: matched(made.neurons(width=20), acts), "the set is empty"),
    ]
    for call, told in calls:
        with pytest.raises(MechRewardError, match=told) as error:
            call()
        assert "\n" not in str(error.value)


def test_activations_of_another_site_or_model_are_refused():
    acts = with_rms(np.ones(60))
    elsewhere = made.neurons(1, 2, width=60, site=Site(2, "resid_post"))
    for make in (matched, random):
        with pytest.raises(MechRewardError, match=r"activations are of 3\.resid_post; the set is of 2\.resid_post"):
            make(elsewhere, acts)
        with pytest.raises(MechRewardError, match="is another"):
            make(of(1, 2, width=60), replace(acts, model_id=made.OTHER))
