"""Two models of one shape: compared where that is asked for, refused where it is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rows as made
import tiny
import torch

from mechreward.base.errors import MechRewardError
from mechreward.models import load as loading
from mechreward.models.identity import WHOLE, model_id
from mechreward.probing.activations import record
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.overlap import overlap
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.rollouts.sample import sample
from mechreward.rollouts.value import estimate
from mechreward.testbed.planted import planted
from mechreward.uses.confidence import confidence

ASKED = r"made on .*; the model is .* Give other_model=True"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Another model with the same shape and tokens."""
    return loading.load(tiny.save(tiny.huggingface(7), tmp_path_factory.mktemp("base") / "base"))


@pytest.fixture(scope="module")
def runs(tiny_model):
    return sample(tiny_model, tiny.Even().problems("test", 12), seed=1, progress=False)


def test_rollouts_are_recorded_on_another_model_that_has_their_tokens(tiny_model, base, runs):
    with pytest.raises(MechRewardError, match=ASKED):
        record(base, runs, "1.mlp", progress=False)
    acts = record(base, runs, "1.mlp", rows="tokens", other_model=True, progress=False)["1.mlp"]
    assert acts.model_id.weights != runs.model_id.weights
    with torch.no_grad():
        _, cache = base.run_with_cache(runs[0].tokens[None])
    here = acts.x[acts.trajectory == 0]
    torch.testing.assert_close(here, cache[acts.site.hook][0], atol=2e-5, rtol=1e-4)
    mine = record(tiny_model, runs, "1.mlp", other_model=True, progress=False)["1.mlp"]
    plain = record(tiny_model, runs, "1.mlp", progress=False)["1.mlp"]
    assert torch.equal(mine.x, plain.x), "the same model may be called another"
    run = runs[0]
    strange = replace(run, tokens=run.tokens.clone().index_fill(0, torch.tensor([2]), 10_000))
    foreign = replace(runs, trajectories=(strange, *runs.trajectories[1:]))
    with pytest.raises(MechRewardError, match="hold token 10000; base has tokens 0 to"):
        record(base, foreign, "1.mlp", other_model=True, progress=False)


def test_a_probe_reads_another_model_where_asked(tiny_model, base, runs):
    values = estimate(tiny_model, runs, k=2, progress=False)
    own = record(tiny_model, runs, "1.mlp", progress=False)["1.mlp"]
    other = record(base, runs, "1.mlp", other_model=True, progress=False)["1.mlp"]
    steps = record(tiny_model, runs, "1.mlp", rows="steps", progress=False)["1.mlp"]
    steps_of_other = record(base, runs, "1.mlp", rows="steps", other_model=True, progress=False)[
        "1.mlp"
    ]
    for probe, mine, theirs in (
        (ValueProbe("mc", "linear").fit(own, values), own, other),
        (DopamineProbe(shape="linear").fit(steps, values), steps, steps_of_other),
    ):
        with pytest.raises(MechRewardError, match=ASKED):
            probe.predict(theirs)
        assert np.array_equal(probe.predict(theirs, other_model=True), probe.predict(theirs.x))
        assert np.array_equal(probe.predict(mine), probe.predict(mine, other_model=True))
    value = ValueProbe("mc", "linear").fit(own, values)
    theirs = sample(base, tiny.Even().problems("test", 24), seed=1, progress=False)
    quick = {"draws": 3, "progress": False}
    with pytest.raises(MechRewardError, match=ASKED):
        confidence(base, theirs, value, **quick)
    conf = confidence(base, theirs, value, other_model=True, **quick)
    assert set(conf.problems) < {run.problem_id for run in theirs}


@pytest.mark.parametrize(
    "compare",
    [
        lambda a, b, **asked: a.iou(b, **asked),
        lambda a, b, **asked: overlap(a, b, **asked).iou,
    ],
)
def test_sets_of_two_models_are_compared_where_asked(compare):
    a, b = made.neurons(1, 2, 3), made.neurons(3, 4, model=made.OTHER)
    with pytest.raises(MechRewardError, match=ASKED):
        compare(a, b)
    assert compare(a, b, other_model=True) == 1 / 4
    assert compare(a, made.neurons(3, 4), other_model=True) == 1 / 4
    cooked = made.neurons(3, 4, model=made.COOKED)
    with pytest.raises(MechRewardError, match=r"\(processing raw\)") as error:
        compare(a, cooked, other_model=True)  # there neuron 3 is another coordinate
    assert "other_model" not in str(error.value)
    with pytest.raises(MechRewardError, match="different widths: 16 and 8"):
        compare(a, made.neurons(3, width=8, model=made.OTHER), other_model=True)


def test_a_set_reads_another_model_where_asked():
    acts = replace(made.activations(np.eye(16)), model_id=made.OTHER)
    mine = made.neurons(1, 2)
    with pytest.raises(MechRewardError, match=ASKED):
        mine.read(acts)
    assert torch.equal(mine.read(acts, other_model=True), acts.x[:, [1, 2]])
    with pytest.raises(MechRewardError, match="of 8 neurons; the set is of 16"):
        mine.read(replace(made.activations(np.eye(8)), model_id=made.OTHER), other_model=True)
    moved = NeuronSet.of(acts, mine.indices, "moved")
    assert torch.equal(moved.read(acts), mine.read(acts, other_model=True))


# Which model it is


@pytest.mark.parametrize("axis", [0, 1])
def test_a_row_or_a_column_that_is_zeroed_is_another_model(axis: int):
    """Every one of the matrices that are larger than what is looked at whole: evenly spaced values
    saw the same few columns of every row."""
    model = loading.load("countdown-base")
    before = model_id(model).weights
    large = [weight for weight in model.parameters() if weight.numel() > WHOLE]
    assert large
    for weight in large:
        for place in (1, 7, weight.shape[axis] - 1):
            with torch.no_grad():
                part = weight.select(axis, place)
                kept = part.clone()
                part.zero_()
                assert model_id(model).weights != before
                part.copy_(kept)
    assert model_id(model).weights == before


def test_planted_models_of_one_seed_are_told_apart():
    """`value` and its null twin differ in some weights of the unembedding."""
    names = ("value", "null", "encoded", "redundant")
    ids = {name: model_id(planted(name, 0).model).weights for name in names}
    assert len(set(ids.values())) == len(names)
