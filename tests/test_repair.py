"""Self-repair, against plain hooks and arithmetic, and on models where nothing is undone, or all of
it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import mechreward as mr
from mechreward.causal.repair import restored
from mechreward.models.site import Site
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.probe import ProbeWarning

LAST = Site.parse("3.resid_post")


@cache
def seen():
    model = mr.load("countdown-base")
    runs = mr.sample(model, mr.tasks.Countdown().problems("train", 16), progress=False)
    values = mr.estimate(model, runs, k=2, progress=False)
    sites = [f"{layer}.resid_post" for layer in range(4)] + ["1.mlp"]
    return model, runs, values, mr.record(model, runs, sites, progress=False)


@cache
def probe():
    _, _, values, acts = seen()
    return mr.ValueProbe("mc", "linear").fit(acts[str(LAST)], values)


def by_hand(site: str, indices: list[int]) -> float:
    """Trajectory by trajectory with run_with_cache, the probe's own slope taken from its answers to
    unit vectors."""
    model, runs, _, _ = seen()
    width = model.cfg.d_model
    zero = torch.zeros(1, width)
    slope = probe().predict(torch.eye(width)) - probe().predict(zero)
    hook, direct, total = Site.parse(site).hook, [], []

    def cut(tensor, hook):
        tensor = tensor.clone()
        tensor[..., indices] = 0
        return tensor

    layer = Site.parse(site).layer
    names = [f"blocks.{layer}.hook_resid_post", "blocks.3.hook_resid_post"]
    with torch.no_grad():
        for run in runs:
            tokens, ends = run.tokens[None], list(run.step_ends)
            _, clean = model.run_with_cache(tokens, names_filter=names)
            with model.hooks(fwd_hooks=[(hook, cut)]):
                _, after = model.run_with_cache(tokens, names_filter=names)
            near, far = (((after[name] - clean[name])[0, ends]).double().numpy() for name in names)
            direct.append(near @ slope)
            total.append(far @ slope)
    a, b = np.concatenate(total), np.concatenate(direct)
    return 1 - float(a @ b) / float(b @ b)


@pytest.mark.parametrize("site", ["2.resid_post", "1.mlp", "0.resid_post"])
def test_total_against_direct_by_hand(site: str):
    model, runs, _, acts = seen()
    indices = [3, 7, 20]
    mlp = acts["1.mlp"]
    sets = NeuronSet.of(mlp if site == "1.mlp" else acts[site], indices, "some")
    found = restored(model, runs, mr.zero(sets), {LAST: probe()})[LAST]
    assert found.estimate == pytest.approx(by_hand(site, indices), abs=2e-3)
    assert found.low < found.estimate < found.high and found.n == 16


def test_nothing_is_undone_where_later_layers_do_not_look():
    """The planted value coordinate that is only encoded: nothing reads it, so its change is carried
    on as it is."""
    here = mr.testbed.planted("encoded")
    runs = mr.sample(here.model, here.task.problems("train", 20), progress=False)
    values = mr.estimate(here.model, runs, k=4, progress=False)
    last = Site(here.model.cfg.n_layers - 1, "resid_post")
    own = here.truth.value_neurons["1.resid_post"]
    acts = mr.record(here.model, runs, str(last), progress=False)[str(last)]
    few = mr.ValueProbe("mc", "linear").fit(acts, values)
    found = restored(here.model, runs, mr.scale(own, 3.0), {last: few})[last]
    assert found.estimate == pytest.approx(0, abs=1e-3)


def test_what_does_not_change_has_no_part():
    model, runs, _, acts = seen()
    found = restored(
        model, runs, mr.zero(NeuronSet.of(acts["0.resid_post"], [1], "one"), 0.0), {LAST: probe()}
    )[LAST]
    assert np.isnan(found.estimate)


def test_mistakes():
    model, runs, values, acts = seen()
    last = mr.zero(NeuronSet.of(acts[str(LAST)], [1], "one"))
    with pytest.raises(mr.MechRewardError, match=r"is no resid_post site behind 3\.resid_post"):
        restored(model, runs, last, {LAST: probe()})
    with pytest.raises(mr.MechRewardError, match="nothing can be restored"):
        restored(model, runs, last, {})
    with pytest.warns(ProbeWarning):
        net = mr.ValueProbe("mc", "mlp", hidden=4, epochs=1).fit(acts[str(LAST)], values)
    first = mr.zero(NeuronSet.of(acts["0.resid_post"], [1], "one"))
    with pytest.raises(mr.MechRewardError, match="not linear"):
        restored(model, runs, first, {LAST: net})
