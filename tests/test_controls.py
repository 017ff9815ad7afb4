"""Control sets on planted activations whose magnitudes are known."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import rows as made
import torch

from mechreward.base.errors import MechRewardError
from mechreward.causal.controls import MATCHED, match_report, matched, random, sinks, sizes
from mechreward.causal.intervene import mean, scale, steer, zero
from mechreward.models.site import Site

LENGTH = 5
COUNT = 40 * LENGTH


def with_rms(rms, sink: tuple[int, ...] = (), site: Site = made.SITE):
    """Activations +-rms at every position; a `sink` neuron is 1,000 times that at position 0."""
    rms = torch.as_tensor(rms, dtype=torch.float32)
    sign = (
        torch.randint(0, 2, (COUNT, len(rms)), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    )
    x = sign * rms
    x[::LENGTH, list(sink)] *= 1000
    return made.tokens(x, LENGTH, site)


def of(*indices: int, width: int):
    return made.neurons(*indices, width=width)


def test_a_neuron_that_is_huge_at_position_0_is_a_sink():
    rms = np.ones(32)
    # A thousandth elsewhere: at position 0 it is as ordinary as the rest, and still a sink.
    rms[3] = 1e-3
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
        assert sorted(i % 4 for i in control.neurons.indices) == [0, 1, 2, 3], (
            "one of every magnitude"
        )
        assert not set(control.neurons.indices) & {0, 1, 2, 3}
        assert (control.neurons.site, control.neurons.width, len(control.neurons)) == (
            made.SITE,
            200,
            4,
        )
        assert control.neurons.model_id == chosen.model_id


def test_the_error_by_hand():
    rms = np.full(100, 2.0)
    rms[10], rms[11] = 2.0 * np.exp(0.3), 2.0 * np.exp(-0.5)
    for control in matched(of(10, 11, width=100), with_rms(rms), draws=19):
        assert control.error == pytest.approx((0.3 + 0.5) / 2, abs=1e-4)
    (one,) = matched(of(11, width=100), with_rms(rms), draws=1)
    assert one.error == pytest.approx(0.5 if one.neurons.indices != (10,) else 0.8, abs=1e-4)


def test_only_the_nearest_stand_in():
    """A ladder of magnitudes: with 1 neuron and 3 draws the 8 nearest free rungs may stand in, and
    no other."""
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
        assert control.error == pytest.approx(pairs / 4, abs=1e-4), (
            "all stand-ins are smaller: any pairing sums alike"
        )


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
    # 400 draws of 3 of 9: mean 133, sd 9.4 each; five of them, over nine neurons, err 5 times in a
    # million.
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
        (
            lambda: matched(of(0, width=20), acts, draws=19),
            "19 neurons are left to match 1; 41 are needed",
        ),
        (
            lambda: matched(of(*range(18), width=20), acts, draws=1),
            "2 neurons are left to match 18",
        ),
        (
            lambda: random(of(*range(11), width=20), acts),
            "9 other neurons are left; a control needs 11",
        ),
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
        with pytest.raises(
            MechRewardError, match=r"activations are of 3\.resid_post; the set is of 2\.resid_post"
        ):
            make(elsewhere, acts)
        with pytest.raises(MechRewardError, match="is another"):
            make(of(1, 2, width=60), replace(acts, model_id=made.OTHER))


def spread_out(seed: int = 0, width: int = 60):
    """Neurons whose mean, deviation and value at position 0 are independent of each other."""
    rng = np.random.default_rng(seed)
    centre, deviation, first = (np.exp(rng.normal(size=width)) for _ in range(3))
    x = centre + deviation * np.resize([1.0, -1.0], COUNT)[:, None]
    x[::LENGTH] = first
    return made.tokens(x, LENGTH)


def by_hand(acts, on: str) -> np.ndarray:
    x = acts.x.double().numpy()
    if on == "rms":
        return np.sqrt((x**2).mean(0))
    return x.std(0) if on == "variance" else np.sqrt((x[acts.position == 0] ** 2).mean(0))


@pytest.mark.parametrize("on", ["rms", "variance", "first"])
def test_a_match_is_on_what_was_asked_for(on):
    acts, chosen = spread_out(), of(3, 17, 30, width=60)
    size, tight, loose = np.log(by_hand(acts, on)), [], []
    np.testing.assert_allclose(sizes(acts, on).log().numpy(), size, atol=1e-4)
    for control in matched(chosen, acts, draws=5, on=on):
        pairs = itertools.permutations(control.neurons.indices)
        errors = [np.abs(size[list(pair)] - size[[3, 17, 30]]).mean() for pair in pairs]
        assert min(abs(control.error - error) for error in errors) < 1e-4, (
            "the error of one of the pairings"
        )
        others = [
            np.log(by_hand(acts, other)) for other in ("rms", "variance", "first") if other != on
        ]
        loose += [
            np.sort(o[list(control.neurons.indices)]) - np.sort(o[[3, 17, 30]]) for o in others
        ]
        tight.append(control.error)
        assert control.on == on and control.arm == ("matched" if on == "rms" else f"matched_{on}")
    assert np.mean(tight) < 0.5 * np.abs(loose).mean(), (
        "matched on one size is not matched on the others"
    )


def test_the_displacement_is_what_the_intervention_moves():
    acts = spread_out()
    np.testing.assert_allclose(sizes(acts, "displacement", zero), acts.rms(), rtol=1e-5)
    deviation = sizes(acts, "displacement", lambda neurons: mean(neurons, acts))
    np.testing.assert_allclose(deviation, acts.x.std(0, correction=0), rtol=1e-4)
    doubled = sizes(acts, "displacement", lambda neurons: scale(neurons, 3))
    np.testing.assert_allclose(doubled, 2 * acts.rms(), rtol=1e-5)
    toward = np.random.default_rng(0).normal(size=COUNT)
    pushed = sizes(acts, "displacement", lambda neurons: steer(neurons, acts, 1.5, toward=toward))
    np.testing.assert_allclose(pushed, 1.5 * acts.x.std(0, correction=0), rtol=1e-4)
    placed = sizes(acts, "displacement", lambda neurons: mean(neurons, acts, by="position"))
    assert (placed < deviation + 1e-6).all() and (placed < 0.99 * deviation).any(), (
        "positions of the rows are used"
    )
    same = [c.neurons.indices for c in matched(of(3, 17, width=60), acts, on="rms")]
    assert [
        c.neurons.indices
        for c in matched(of(3, 17, width=60), acts, on="displacement", change=zero)
    ] == same


@pytest.mark.parametrize("on", ["rms", "displacement", "variance", "first"])
def test_sinks_never_stand_in_whatever_is_matched(on):
    acts = with_rms(np.ones(30), sink=tuple(range(10, 20)))
    for control in matched(of(0, 1, width=30), acts, draws=10, on=on, change=zero):
        assert not set(control.neurons.indices) & {0, 1, *range(10, 20)}


def test_what_is_not_matched_is_not_called_so():
    rms = np.ones(60)
    rms[5] = 4.0
    found = matched(of(5, width=60), with_rms(rms), draws=3)
    for control in found:
        assert not control.is_matched and control.error == pytest.approx(np.log(4), abs=1e-4)
        assert f"NOT matched (over {MATCHED}) on rms, error 1.386" in str(control)
        assert control.neurons.how.startswith("no match, the nearest (error 1.39), on rms of")
    assert (
        match_report(found)
        == "3 sets on rms: error 1.386, worst 1.386; NOT matched: 3 are over 0.25"
    )
    good = matched(of(6, width=60), with_rms(rms), draws=3)
    assert all(control.is_matched for control in good)
    assert "matched 0: matched on rms, error 0.000" in str(good[0])
    assert match_report(good) == "3 sets on rms: error 0.000, worst 0.000; matched"
    (drawn,) = random(of(6, width=60), with_rms(rms), draws=1)
    assert not drawn.is_matched and str(drawn).startswith("random 0: NeuronSet(1 of 60")
    with pytest.raises(MechRewardError, match="a report is of sets matched on one size"):
        match_report([drawn, *good])


def test_sizes_that_cannot_be():
    acts, chosen = with_rms(np.ones(60)), of(1, 2, width=60)
    with pytest.raises(
        MechRewardError, match="unknown size to match on 'norm'; did you mean 'rms'"
    ):
        matched(chosen, acts, on="norm")
    with pytest.raises(MechRewardError, match="give change=, such as zero"):
        matched(chosen, acts, on="displacement")
    with pytest.raises(MechRewardError, match="no row of position 0"):
        sizes(replace(acts, position=acts.position + 1), "first")
