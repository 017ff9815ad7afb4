"""The circuit map's numbers: parts against hand arithmetic, readers against plain patches in two
passes, planted models against what was planted."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from test_conformance import ARCHITECTURES

import mechreward as mr
from mechreward.base.errors import MechRewardError
from mechreward.bundled.vocabulary import WORDS, tokenizer
from mechreward.calibration.certificates import suspects
from mechreward.calibration.circuits import circuits
from mechreward.calibration.data import drawn
from mechreward.causal.edges import edges
from mechreward.causal.edges_measure import mean_intervals, share_intervals, shares
from mechreward.causal.edges_noun import Edges
from mechreward.causal.edges_read import ALL, OUT, path_patched, points_of, readers
from mechreward.causal.edges_screen import first_order, screened
from mechreward.causal.edges_units import parts_of, unit_parts
from mechreward.causal.edges_written import Component, written
from mechreward.causal.graph import circuit_graph, save_graph
from mechreward.models.identity import model_id
from mechreward.models.site import Site, point
from mechreward.probing.neurons import NeuronSet
from mechreward.stats import cluster_bootstrap
from mechreward.stats.corrected import max_statistic

TOKENS = torch.tensor([1, 5, 40, 8, 60, 61, 4])


@pytest.fixture(scope="module")
def runs(tiny_model):
    return mr.sample(tiny_model, tiny.Even().problems("test", 5), progress=False)


# Writers


def by_hand(model: Any, run: Any, site: Site, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Heads by a loop over `hook_z` and `W_O`, from a plain cache."""
    with torch.no_grad():
        _, cache = model.run_with_cache(run.tokens[None])
    at = list(run.step_ends[:-1])
    w = torch.from_numpy(weights)
    parts = {"embedding": cache["hook_embed"][0, at].double() @ w}
    for layer in range(site.layer + 1):
        for head in range(model.cfg.n_heads):
            z = cache[f"blocks.{layer}.attn.hook_z"][0, at, head].double()
            out = model.blocks[layer].attn.W_O[head].detach().double()
            parts[f"{layer}.head.{head}"] = z @ out @ w
        if layer < site.layer or site.kind == "resid_post":
            parts[f"{layer}.mlp"] = cache[f"blocks.{layer}.hook_mlp_out"][0, at].double() @ w
    return {name: part.numpy() for name, part in parts.items()}


@pytest.mark.parametrize("kind", ["resid_mid", "resid_post"])
def test_parts_are_those_of_hand_arithmetic_and_add_up(tiny_model, runs, kind: str):
    site = Site(1, kind)
    weights = np.random.default_rng(0).normal(size=(32, 2))
    split = written(tiny_model, runs, site, weights, batch=2)
    hands = [by_hand(tiny_model, run, site, weights) for run in runs]
    for component, part in zip(split.components, split.parts, strict=True):
        if component.kind == "biases":
            np.testing.assert_allclose(part, 0, atol=1e-5)
            continue
        wanted = np.concatenate([hand[str(component)] for hand in hands])
        np.testing.assert_allclose(part, wanted, atol=1e-5)
    np.testing.assert_allclose(split.parts.sum(0), split.whole, atol=1e-5)
    assert tiny.no_hooks_left(tiny_model)


def test_units_are_a_part_of_their_mlp(tiny_model, runs):
    """A set and all others of its MLP write what the MLP writes."""
    weights = np.random.default_rng(1).normal(size=(32, 1))
    few, others = (3, 9, 20), tuple(set(range(48)) - {3, 9, 20})
    sets = []
    for units in (few, others):
        sets.append(NeuronSet(Site(0, "mlp"), tuple(sorted(units)), 48, model_id(tiny_model)))
    split = written(tiny_model, runs, Site(1, "resid_post"), weights, units=sets)
    names = [str(component) for component in split.components]
    assert names[-2:] == ["0.set.0", "0.set.1"]
    whole = split.parts[names.index("0.mlp")]
    np.testing.assert_allclose(split.parts[-2] + split.parts[-1], whole, atol=1e-5)


@pytest.mark.parametrize("name", ["gemma2", "gpt2", "gptneox"])
def test_parts_add_up_behind_post_norms_biases_and_side_by_side(name: str, tmp_path):
    """Gemma 2 has post-norms and gains from 1, GPT-2 biases and a LayerNorm, GPT-NeoX attention
    and MLP side by side."""
    torch.manual_seed(0)
    kind, shape = ARCHITECTURES[name]
    maker = "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
    config = getattr(transformers, f"{kind}Config")(**shape)
    getattr(transformers, maker)(config).save_pretrained(tmp_path)
    tokenizer(WORDS).save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a site that GPT-NeoX lacks
        model = mr.load(tmp_path, check=False)
    runs = mr.sample(model, tiny.Even().problems("test", 3), progress=False)
    rng = np.random.default_rng(0)
    width, identity = Site(0, "mlp").width(model), model_id(model)
    halves = [NeuronSet(Site(0, "mlp"), tuple(range(5)), width, identity)]
    halves.append(NeuronSet(Site(0, "mlp"), tuple(range(5, width)), width, identity))
    weights = rng.normal(size=(32, 2))
    split = written(model, runs, Site(1, "resid_post"), weights, units=halves)
    names = [str(component) for component in split.components]
    np.testing.assert_allclose(split.parts[:-2].sum(0), split.whole, atol=1e-5)
    of_mlp = split.parts[names.index("0.mlp")]
    constant = of_mlp - split.parts[-2] - split.parts[-1]  # its bias
    np.testing.assert_allclose(constant - constant.mean(0), 0, atol=1e-5)
    for part in parts_of(model, 1):
        split = unit_parts(model, runs, 1, part, rng.normal(size=(width, 1)))
        np.testing.assert_allclose(split.parts.sum(0), split.whole, atol=1e-5)


columns = st.integers(0, 10_000).map(np.random.default_rng)


@given(columns)
def test_shares_add_up_to_pearsons_r(rng):
    parts, y = rng.normal(size=(5, 40)), rng.normal(size=40)
    whole = parts.sum(0) + 3
    np.testing.assert_allclose(shares(parts, whole, y).sum(), pearsonr(whole, y)[0], atol=1e-9)


def test_shares_of_a_constant_are_nothing():
    parts = np.ones((2, 9))
    assert shares(parts, parts.sum(0), np.arange(9.0)).tolist() == [0, 0]
    assert shares(np.eye(2, 9), np.eye(2, 9).sum(0), np.ones(9)).tolist() == [0, 0]


def test_intervals_are_those_of_the_bootstrap_of_clusters():
    """Sums by cluster against drawing rows, as `stats.cluster_bootstrap` does: other draws of the
    same law, so that bounds agree to the noise of 1000."""
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(20), 5)
    parts = rng.normal(size=(3, 100)) + rng.normal(size=20)[group]
    y = parts.sum(0) + rng.normal(size=100)
    found = share_intervals(parts, parts.sum(0), y, group)
    for part, interval in zip(parts, found, strict=True):

        def share(one, whole, target):
            return float(shares(one[None], whole, target)[0])

        wanted = cluster_bootstrap(share, [part, parts.sum(0), y], group)
        np.testing.assert_allclose(interval.estimate, wanted.estimate)
        np.testing.assert_allclose(
            [interval.low, interval.high], [wanted.low, wanted.high], atol=0.05
        )
    (mean,) = mean_intervals(parts[:1], group)
    wanted = cluster_bootstrap(np.mean, parts[0], group)
    np.testing.assert_allclose([mean.low, mean.high], [wanted.low, wanted.high], atol=0.1)


def test_one_problem_has_no_interval():
    (interval,) = mean_intervals(np.ones((1, 4)), np.zeros(4))
    assert interval.n == 1 and np.isnan(interval.low)


# Readers


def in_two_passes(model: Any, neurons: NeuronSet, mean: torch.Tensor, who: Component) -> Any:
    """Direct-path patching by plain hooks: first what the reader makes of the changed stream, with
    all before it as it was; then that alone is put in."""
    columns = list(neurons.indices)
    site = neurons.site

    def set_at_mean(x, hook):
        x = x.clone()
        x[..., columns] = mean
        return x

    if who == ALL:
        return model.run_with_hooks(TOKENS[None], fwd_hooks=[(site.hook, set_at_mean)])[0]
    _, cache = model.run_with_cache(TOKENS[None])
    behind = Site(site.layer, "resid_post").hook
    if site.kind == "mlp":
        patched = {}
        keep = (behind, lambda x, hook: patched.update(x=x.clone()))
        model.run_with_hooks(TOKENS[None], fwd_hooks=[(site.hook, set_at_mean), keep])
        change = patched["x"] - cache[behind]
    else:
        change = set_at_mean(cache[site.hook], None) - cache[site.hook]

    def shifted(kind: str, layer: int):
        name = point(kind, layer)
        return name, lambda x, hook: cache[name] + change

    if who == OUT:
        last = model.cfg.n_layers - 1
        return model.run_with_hooks(TOKENS[None], fwd_hooks=[shifted("resid_post", last)])[0]
    kinds = {"query": ["query"], "key-value": ["key", "value"], "mlp": ["mlp_out"]}[who.kind]
    before = "resid_mid" if who.kind == "mlp" else "resid_pre"
    made: dict[str, torch.Tensor] = {}
    hooks = [shifted(before, who.layer)]
    for kind in kinds:
        hooks.append((point(kind, who.layer), lambda x, hook, k=kind: made.update({k: x.clone()})))
    model.run_with_hooks(TOKENS[None], fwd_hooks=hooks)

    def put(kind: str):
        def hook(x, hook):
            x = x.clone()
            if who.kind == "mlp":
                return made[kind]
            x[:, :, who.index] = made[kind][:, :, who.index]
            return x

        return point(kind, who.layer), hook

    return model.run_with_hooks(TOKENS[None], fwd_hooks=[put(kind) for kind in kinds])[0]


@pytest.mark.parametrize("place", ["0.resid_pre", "0.resid_mid", "0.resid_post", "0.mlp"])
@torch.no_grad()
def test_every_reader_is_a_direct_path_patch_of_its_own(tiny_model, place: str):
    site = Site.parse(place)
    width, identity = site.width(tiny_model), model_id(tiny_model)
    sets = [NeuronSet(site, (1, 4, 9), width, identity), NeuronSet(site, (0, 7), width, identity)]
    means = [torch.tensor([0.5, -0.4, 0.3]), torch.tensor([0.5, -0.6])]
    who = readers(tiny_model, site)
    ((clean, patched),) = path_patched(tiny_model, TOKENS, sets, means, who, range(7))
    wanted = tiny_model(TOKENS[None])[0].double().log_softmax(-1)
    torch.testing.assert_close(clean, wanted, atol=1e-4, rtol=1e-4)
    for row, neurons in enumerate(sets):
        for column, reader in enumerate(who):
            if reader == ALL and site.kind == "resid_mid":
                continue  # a bridge's hook there reaches the MLP alone
            logits = in_two_passes(tiny_model, neurons, means[row], reader)
            wanted = logits.double().log_softmax(-1)
            torch.testing.assert_close(patched[row, column], wanted, atol=2e-4, rtol=1e-4)
            assert float((wanted - clean).abs().max()) > 1e-4, reader
    assert tiny.no_hooks_left(tiny_model)


@torch.no_grad()
def test_all_units_of_an_mlp_are_that_mlp(tiny_model):
    site, identity = Site(0, "resid_post"), model_id(tiny_model)
    sets = [NeuronSet(site, (1, 4, 9), 32, identity)]
    every = NeuronSet(Site(1, "mlp"), tuple(range(48)), 48, identity)
    who = [Component("mlp", 1), Component("units", 1, 0)]
    means = [torch.tensor([0.5, -0.4, 0.3])]
    ((_, patched),) = path_patched(tiny_model, TOKENS, sets, means, who, [6], [every])
    torch.testing.assert_close(patched[0, 0], patched[0, 1], atol=1e-5, rtol=1e-5)


def test_readers_of_the_last_stream_are_the_unembedding(tiny_model):
    assert readers(tiny_model, Site(1, "resid_post")) == (OUT, ALL)
    kinds = [reader.kind for reader in readers(tiny_model, Site(1, "resid_pre"))]
    assert kinds == ["query"] * 4 + ["key-value"] * 2 + ["mlp", "unembedding", "all readers"]


def test_the_screen_is_the_slope_of_a_small_patch(tiny_model, runs):
    """Gradient times change, against the difference that a thousandth of the change makes."""
    site, identity, run = Site(0, "resid_post"), model_id(tiny_model), runs[0]
    sets = [NeuronSet(site, (1, 4, 9), 32, identity), NeuronSet(site, (0, 7), 32, identity)]
    means = [torch.tensor([0.5, -0.4, 0.3]), torch.tensor([0.5, -0.6])]
    who = [Component("mlp", 1), Component("query", 1, 2), Component("key-value", 1, 1)]
    found = first_order(tiny_model, run, sets, means, who)
    at = list(run.step_ends[:-1])
    following = run.tokens[[end + 1 for end in at]]

    def said(hooks) -> float:
        with torch.no_grad():
            logits = tiny_model.run_with_hooks(run.tokens[None], fwd_hooks=hooks)[0, at]
        return float(logits.double().log_softmax(-1).gather(1, following[:, None]).sum())

    _, cache = tiny_model.run_with_cache(run.tokens[None])
    names = [name for reader in who for name in points_of(reader)]
    for row, (neurons, mean) in enumerate(zip(sets, means, strict=True)):
        made = given_out(tiny_model, run.tokens, neurons, mean, names)

        def moved(reader: Component, step: float, made: Any = made) -> float:
            hooks = []
            for name in points_of(reader):
                change = step * (made[name] - cache[name])
                if reader.kind != "mlp":
                    other = torch.arange(change.shape[2]) != reader.index
                    change[:, :, other] = 0
                hooks.append((name, lambda x, hook, change=change: x + change))
            return said(hooks)

        for column, reader in enumerate(who):
            slope = (moved(reader, 0.02) - moved(reader, -0.02)) / 0.04
            np.testing.assert_allclose(found[row, column], slope, rtol=0.03, atol=3e-3)


def given_out(model: Any, tokens: Any, neurons: NeuronSet, mean: Any, names: list[str]) -> Any:
    """What hook points of layer 1 show where the stream before it has a set at its mean."""
    _, cache = model.run_with_cache(tokens[None])
    change = torch.zeros_like(cache[neurons.site.hook])
    columns = list(neurons.indices)
    change[..., columns] = mean - cache[neurons.site.hook][..., columns]
    made: dict[str, torch.Tensor] = {}
    hooks = [(name, lambda x, hook, n=name: made.update({n: x.clone()})) for name in names]
    for kind in ("resid_pre", "resid_mid"):
        name = point(kind, 1)
        hooks.append((name, lambda x, hook, n=name: cache[n] + change))
    with torch.no_grad():
        model.run_with_hooks(tokens[None], fwd_hooks=hooks)
    return made


def test_the_screen_keeps_the_unembedding_and_the_strongest(tiny_model, runs):
    site, identity = Site(0, "resid_pre"), model_id(tiny_model)
    sets = [NeuronSet(site, (1, 4, 9), 32, identity)]
    means = [torch.tensor([0.5, -0.4, 0.3])]
    who = readers(tiny_model, site)
    kept = screened(tiny_model, runs, sets, means, who, most=6)
    assert len(kept) == 6 and kept[-2:] == (OUT, ALL)
    assert list(kept) == [reader for reader in who if reader in kept]
    scores = sum(np.abs(first_order(tiny_model, run, sets, means, who[:-2])) for run in runs)
    assert who[int(scores[0].argmax())] in kept
    assert screened(tiny_model, runs, sets, means, who) == who
    assert tiny.no_hooks_left(tiny_model)


# Corrected over cells


def test_the_max_statistic_counts_draws_whose_largest_deviation_is_as_large():
    draws = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]] * 5)[:19]
    alone, corrected = max_statistic(np.array([0.0, 9.0]), draws)
    assert alone[1] == corrected[1] == 1 / 20
    assert alone[0] > 0.4 and corrected[0] == 1.0


def test_the_max_statistic_holds_its_level():
    """19 draws of 12 cells and a subject of the same law: p <= .05 for any cell in 5% of 400 made
    subjects; more than 40 come once in 10,000 test runs."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        table = rng.standard_t(3, size=(20, 12))
        _, corrected = max_statistic(table[0], table[1:])
        hits += bool((corrected <= 0.05).any())
    assert hits <= 40


def test_a_cell_that_nothing_changes_is_never_beyond():
    draws = np.random.default_rng(0).normal(size=(19, 2))
    draws[:, 0] = 0
    alone, corrected = max_statistic(np.array([1e-9, 50.0]), draws)
    assert alone[0] == corrected[0] == 1.0 and corrected[1] == 0.05


# Planted models


@cache
def data_of(name: str) -> Any:
    """A planted model, its runs and their values."""
    here = mr.testbed.planted(name)
    runs = mr.sample(here.model, here.task.problems("test", 24), progress=False)
    return here, runs, drawn(runs, here.truth.values(runs)[0], 16, 0)


@cache
def map_of(name: str) -> Edges:
    here, runs, vals = data_of(name)
    return edges(here.model, {"value": suspects(here)}, runs, vals, 19, progress=False)


def test_the_planted_writer_and_reader_light_up():
    found = map_of("value")
    assert found.verdict == "circuit"
    assert [str(edge.component) for edge in found.beyond("writer")] == ["embedding"]
    kinds = {edge.component.kind for edge in found.beyond("reader")}
    assert kinds == {"unembedding", "all readers"}
    assert found.sentence.startswith("A circuit of its own")
    total = sum(edge.score.estimate for edge in found.of("writer"))
    np.testing.assert_allclose(total, found.readings[""].r.estimate, atol=1e-5)
    assert found.readings[""].r.estimate > 0.8
    (whole,) = [edge for edge in found.of("reader") if edge.component == ALL]
    assert whole.back.low > 0 and len(whole.back_draws) == 19


def test_a_null_twin_does_not():
    found = map_of("null")
    assert found.verdict == "silent" and not found.readings[""].shown
    assert found.sentence.startswith("No circuit of its own")
    total = sum(edge.score.estimate for edge in found.of("writer"))
    np.testing.assert_allclose(total, found.readings[""].r.estimate, atol=1e-5)


def test_maps_are_counted_for_the_calibration():
    (row,) = circuits("value", range(1), draws=19)
    assert row.metric == "own_circuit_rate" and row.interval.n == 1
    assert sum(row.detail["verdicts"].values()) == 1 and row.detail["expected"] == "circuit"


def test_units_are_written_at_their_pre_activation():
    """Three units of layer 0 read V from the embedding: `up` follows it, the open gate is
    constant."""
    here, runs, vals = data_of("value-mlp")
    units = here.truth.value_neurons["0.mlp"]
    found = edges(here.model, units, runs, vals, 19, progress=False)
    assert set(found.readings) == {"gate", "up"}
    assert found.readings["up"].r.estimate > 0.8 and not found.readings["gate"].shown
    for part, reading in found.readings.items():
        total = sum(edge.score.estimate for edge in found.of("writer") if edge.part == part)
        np.testing.assert_allclose(total, reading.r.estimate, atol=1e-5)
    largest = max(found.of("writer"), key=lambda edge: edge.score.estimate)
    assert (str(largest.component), largest.part) == ("embedding", "up")


def test_an_intervention_that_takes_the_signal_away_silences_the_map():
    """What the embedding wrote is zeroed before layer 1; a zeroed decoy changes no writer."""
    here, runs, vals = data_of("value")
    neurons = here.truth.value_neurons["1.resid_post"]
    about = {"progress": False, "draws": 19}
    first = here.truth.value_neurons["0.resid_pre"]
    gone = edges(here.model, neurons, runs, vals, under=[mr.zero(first)], **about)
    assert gone.verdict == "silent" and gone.under.startswith("zero of")
    assert gone.readings[""].r.estimate == 0 and "Under zero of" in gone.counts
    decoy = replace(first, indices=here.truth.decoys["large"])
    still = edges(here.model, neurons, runs, vals, under=[mr.zero(decoy)], **about)
    scores = [edge.score.estimate for edge in map_of("value").of("writer")]
    others = [edge.score.estimate for edge in still.of("writer")]
    np.testing.assert_allclose(scores, others, atol=1e-3)
    assert tiny.no_hooks_left(here.model)


# One state


def test_a_states_graph_has_the_fields_of_the_schema_and_adds_up(tmp_path):
    here, runs, _ = data_of("value")
    found = map_of("value")
    neurons = found.neurons
    path = save_graph(tmp_path / "circuit.json", here.model, found, runs, 2, 1)
    graph = json.loads(path.read_text())
    assert set(graph) == {"metadata", "qParams", "nodes", "links"}
    assert {"slug", "scan", "prompt_tokens", "prompt"} <= set(graph["metadata"])
    end = runs[2].step_ends[1]
    assert len(graph["metadata"]["prompt_tokens"]) == end + 1
    fields = "node_id feature layer ctx_idx feature_type jsNodeId clerp".split()
    for node in graph["nodes"]:
        assert set(node) == set(fields)
        assert isinstance(node["feature"], int) and isinstance(node["layer"], str)
        assert node["ctx_idx"] == end
    ids = [node["node_id"] for node in graph["nodes"]]
    assert len(set(ids)) == len(ids) == 2 + len(found.edges)
    center = graph["qParams"]["clickedId"]
    written_by = 0.0
    for link in graph["links"]:
        assert set(link) == {"source", "target", "weight"}
        assert link["source"] in ids and link["target"] in ids
        written_by += link["weight"] * (link["target"] == center)
    acts = mr.record(here.model, runs, neurons.site, progress=False)[neurons.site]
    row = np.flatnonzero((acts.trajectory == 2) & (acts.step == 1))
    x = neurons.read(acts)[row[0]].double().numpy()
    np.testing.assert_allclose(written_by, x @ np.array(found.readings[""].weights), atol=1e-4)


def test_a_state_that_is_not_there_has_no_graph():
    here, runs, _ = data_of("value")
    found = map_of("value")
    with pytest.raises(MechRewardError, match="trajectories 0 to 23"):
        circuit_graph(here.model, found, runs, 24, 0)
    with pytest.raises(MechRewardError, match="goes on from states"):
        circuit_graph(here.model, found, runs, 0, runs[0].steps)
    with pytest.raises(MechRewardError, match="map it so"):
        circuit_graph(here.model, replace(found, under="zero"), runs, 0, 0)


# The noun


def test_a_map_is_what_was_saved(tmp_path):
    found = map_of("value")
    again = Edges.load(found.save(tmp_path / "edges.json"))
    assert again == found
    assert again.frame().equals(found.frame())
    assert repr(again).count("\n") == 0 and len(str(again).splitlines()) == 2 + 3


def test_its_table_has_a_line_an_edge():
    frame = map_of("value").frame()
    assert len(frame) == len(map_of("value").edges)
    assert frame.loc[frame.is_beyond, "label"].tolist() == [
        "embedding",
        "unembedding",
        "all readers",
    ]
    assert (frame.matched_low <= frame.matched_high).all()


def test_what_is_no_map_is_refused(tmp_path):
    path = map_of("value").save(tmp_path / "edges.json")
    neurons = map_of("value").neurons
    with pytest.raises(MechRewardError, match="holds neurons, not a circuit map"):
        Edges.load(neurons.save(tmp_path / "neurons.json"))
    path.write_text(path.read_text()[:-30])
    with pytest.raises(MechRewardError):
        Edges.load(path)


@pytest.mark.unchecked
def test_what_it_refuses():
    here, runs, vals = data_of("value")
    neurons = suspects(here)
    few = runs.subset(range(4))
    calls = [
        ("no neuron set", ({}, runs, vals), {}),
        ("must be NeuronSet", ([3], runs, vals), {}),
        ("is empty", (replace(neurons, indices=()), runs, vals), {}),
        ("must be MLP units", ({"a": neurons, "b": neurons}, runs, vals), {}),
        ("at least 1", (neurons, runs, vals, 0), {}),
        ("must be Values", (neurons, runs, None), {}),
        ("must be Rollouts", (neurons, None, vals), {}),
        ("8 are needed", (neurons, few, drawn(few, here.truth.values(few)[0], 16, 0)), {}),
        ("different trajectories", (neurons, few, vals), {}),
    ]
    for message, given_, more in calls:
        with pytest.raises(MechRewardError, match=message):
            edges(here.model, *given_, progress=False, **more)
    other = mr.testbed.planted("null")
    with pytest.raises(MechRewardError):
        edges(other.model, neurons, runs, vals, progress=False)
