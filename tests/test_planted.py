"""Planted models: what is written about them is held against the HuggingFace forward pass and
against simulation."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import mechreward as mr
from mechreward.calibration.certificates import suspects
from mechreward.causal.intervene import steer
from mechreward.models.identity import model_id
from mechreward.models.text import encode, pieces
from mechreward.testbed import process
from mechreward.testbed.layout import DECOYS, LAYERS, PLANTS
from mechreward.testbed.process import FIRST_STATE, STATES, SYNONYMS, WORDS, WORTH

CARRIED = ["value", "value-mlp", "encoded", "redundant", "rotated"]
CONSTANT = ["large", "sink", "length", "null"]
RESID = [
    f"{layer}.{kind}"
    for layer in range(LAYERS)
    for kind in ("resid_pre", "resid_mid", "resid_post")
]
worth = np.array([WORTH.get(word.split(".")[0], 0.0) for word in WORDS])


@cache
def plant(name):
    return mr.testbed.planted(name)


@cache
def runs_of(name, n=150):
    here = plant(name)
    return mr.sample(here.model, here.task.problems("test", n), progress=False)


@cache
def next_words(name):
    """[state word, word] by the HuggingFace model, every word behind the same history."""
    here = plant(name)
    rows = torch.stack(
        [encode(here.model, f"q1 q7 q2 4.c 8.k {word}") for word in WORDS[FIRST_STATE:]]
    )
    with torch.no_grad():
        return here.model(rows, return_type="logits")[:, -1].double().softmax(-1).numpy()


def live(runs):
    return np.concatenate([[*[True] * run.steps, False] for run in runs])


def coded(x, y):
    """Largest error of columns `x` [row k] as multiples of `y` [row], in the units of y."""
    return float((x / (y @ x / (y @ y)) - y[:, None]).__abs__().max())


def columns(neurons, acts):
    return neurons.read(acts).double().numpy()


# The process


def test_every_level_is_worth_the_mean_of_what_follows():
    rows = process.walk().rows(process.LEVELS)
    np.testing.assert_allclose(rows @ process.OUTCOMES, process.LEVELS, atol=1e-12)
    rare = np.abs(process.OUTCOMES - process.LEVELS[:, None])
    assert np.abs(rare - 0.3).min() > 0.015  # nothing sits on the cut


@pytest.mark.parametrize("name", PLANTS)
def test_the_model_says_what_the_transition_matrix_says(name):
    np.testing.assert_allclose(
        next_words(name), plant(name).truth.transitions()[FIRST_STATE:], atol=2e-6
    )


@pytest.mark.parametrize("name", ["value", "redundant"])
def test_values_are_those_of_simulated_answers(name):
    probs = next_words(name)
    rng = np.random.default_rng(0)
    starts = [WORDS.index(f"{state}.e") for state in ("1", "2", "5", "7", "back", "slip", "9")]
    n, cdf = 4000, probs.cumsum(-1)
    at, won, over = np.repeat(starts, n), np.zeros(len(starts) * n), np.zeros(len(starts) * n, bool)
    for _ in range(plant(name).task.max_tokens):
        drawn = (rng.random(len(at))[:, None] > cdf[at - FIRST_STATE]).sum(1)
        at = np.where(over, at, drawn)
        states = np.array([word.split(".")[0] for word in WORDS])[at]
        won = np.where(over, won, states == "right")
        over |= np.isin(states, ["right", "wrong"])
        if over.all():
            break
    found = won.reshape(-1, n).mean(1)
    exact = [plant(name).truth.value(torch.tensor([1, 5, start])) for start in starts]
    np.testing.assert_allclose(exact, worth[starts], atol=5e-4)
    np.testing.assert_allclose(found, exact, atol=4 * 0.5 / n**0.5)


@pytest.mark.parametrize(
    ("name", "least", "most"), [("back", (0.6, 0.8), (0.4, 0.55)), ("shared", (0, 0.05), (0.95, 1))]
)
def test_half_of_the_carriers_and_those_of_turning_back_change_accuracy_exactly(
    name: str, least: tuple[float, float], most: tuple[float, float]
):
    """Accuracy steered down and up, by dynamic programming: in `back` it goes down with V read
    higher, for turning back is worth it."""
    here = plant(name)
    neurons = suspects(here)
    assert len(neurons) == 3 and here.truth.used
    runs = mr.sample(here.model, here.task.problems("train", 20), progress=False)
    acts = mr.record(here.model, runs, neurons.site, progress=False)[neurons.site]
    push = steer(neurons, acts, toward=here.truth.values(runs)[0])
    problems = here.task.problems("test", 100)
    for strength, (low, high) in ((-1, least), (1, most)):
        change = steer(neurons, push.reference, strength)
        assert low <= here.truth.accuracy(problems, change) <= high


def test_the_process_is_rich_enough():
    runs, truth = runs_of("value", 400), plant("value").truth
    v, delta = truth.values(runs)
    delta = delta[np.isfinite(delta)]
    assert 0.4 < np.mean(runs.rewards) < 0.6 and v[live(runs)].std() > 0.24
    assert (delta > 0.3).mean() > 0.05 and (delta < -0.3).mean() > 0.05
    assert all(int(run.tokens[-1]) == process.EOS for run in runs)
    assert 6 < np.mean([run.steps for run in runs]) < 9


@pytest.mark.parametrize("name", ["value", "null"])
def test_estimates_agree_with_the_truth_within_their_binomial_error(name):
    runs = runs_of(name, 60).subset(range(6))
    values = mr.estimate(plant(name).model, runs, k=64, seed=3, progress=False)
    v, delta = plant(name).truth.values(runs)
    assert np.array_equal(v[~values.live], values.reward[~values.live])
    z = ((values.mean - v) / np.sqrt(np.maximum(v * (1 - v), 1e-9) / 64))[values.live]
    assert len(z) > 30 and 0.6 < np.mean(z**2) < 1.5 and np.abs(z).max() < 4.5
    # The two states of a delta have continuations of their own.
    deviation = np.hypot(values.error[1:], values.error[:-1])[values.is_step[1:]]
    error = (values.delta - delta)[values.is_step] / deviation
    assert 0.5 < np.mean(error**2) < 1.6


# What is carried where


@pytest.mark.parametrize("name", ["value", "value-mlp", "encoded"])
def test_planted_neurons_carry_v_and_delta(name):
    runs, truth = runs_of(name, 60), plant(name).truth
    v, delta = truth.values(runs)
    sites = [*RESID, "0.mlp", "1.mlp", "2.mlp"]
    states = mr.record(plant(name).model, runs, sites, rows="states", progress=False)
    steps = mr.record(plant(name).model, runs, sites, rows="steps", progress=False)
    seen = {"V": 0, "delta": 0}
    for site in sites:
        for what, neurons, acts, y in (
            ("V", truth.value_neurons[site], states[site], v),
            ("delta", truth.dopamine_neurons[site], steps[site], delta[np.isfinite(delta)]),
        ):
            if len(neurons):
                seen[what] += 1
                assert len(neurons) == 3 and coded(columns(neurons, acts), y) < 1e-3, (site, what)
    assert seen["V"] == {"value": 9, "value-mlp": 8, "encoded": 9}[name] and seen["delta"] >= 5


@pytest.mark.parametrize("name", ["value", "null"])
def test_nothing_else_knows_the_state(name):
    here = plant(name)
    table = (
        next(here.model.parameters()).detach()[FIRST_STATE:].view(len(STATES), len(SYNONYMS), -1)
    )
    going = table[[state not in process.ENDS for state in STATES]]
    differ = (going != going[:1]).any(0).any(0).nonzero().flatten().tolist()
    known = here.truth.value_neurons["0.resid_pre"].indices or here.truth.decoys["level"]
    assert differ == list(known)


def test_value_can_be_read_but_from_no_coordinate():
    runs, truth = runs_of("rotated", 150), plant("rotated").truth
    v, _ = truth.values(runs)
    acts = mr.record(plant("rotated").model, runs, "0.resid_post", progress=False)["0.resid_post"]
    x, y = acts.x.double().numpy()[live(runs)], v[live(runs)]
    x = x[:, x.std(0) > 1e-6]
    r = np.corrcoef(np.column_stack([x, y]), rowvar=False)[-1, :-1]
    assert np.abs(r).max() < 0.25 and not any(map(len, truth.value_neurons.values()))
    design = np.column_stack([np.ones(len(y)), x])
    assert np.abs(design @ np.linalg.lstsq(design, y, rcond=None)[0] - y).max() < 1e-3


def test_redundant_value_is_in_more_than_half_of_the_coordinates():
    runs, truth = runs_of("redundant", 150), plant("redundant").truth
    v, _ = truth.values(runs)
    acts = mr.record(plant("redundant").model, runs, "2.resid_post", progress=False)["2.resid_post"]
    x = columns(truth.value_neurons["2.resid_post"], acts)[live(runs)]
    r = [abs(np.corrcoef(column, v[live(runs)])[0, 1]) for column in x.T]
    assert len(r) == 37 and min(r) > 0.3 and max(r) < 0.95


def test_decoys_are_what_they_are_called():
    here, runs = plant("value"), runs_of("value", 60)
    acts = mr.record(here.model, runs, "2.resid_post", rows="tokens", progress=False)[
        "2.resid_post"
    ]
    at = {name: acts.x[:, where[0]].double().numpy() for name, where in here.truth.decoys.items()}
    median = acts.rms().median().item()
    np.testing.assert_allclose(at["length"], 8 / (acts.position + 1), rtol=1e-4)
    assert (
        np.abs(at["sink"][acts.position == 0]).min() > 1000
        and np.abs(at["sink"][acts.position > 0]).max() < 5
    )
    assert 4 < np.sqrt(np.mean(at["large"] ** 2)) / median < 10
    said = np.concatenate([run.tokens.numpy() for run in runs]) >= FIRST_STATE
    now, following = at["next_token"][:-1], at["next_token"][1:]
    both = said[:-1] & said[1:]
    assert (
        set(at["next_token"][said]) == {-1.0, 1.0} and 0.85 < (now == following)[both].mean() < 0.95
    )


@pytest.mark.parametrize("name", ["large", "sink", "length"])
def test_there_is_one_decoy_only(name):
    decoys = set(plant(name).truth.decoys)
    assert decoys & set(DECOYS) == {name}


# What happens when it is taken away


@pytest.mark.parametrize(
    ("name", "site", "k"),
    [
        ("value", "0.resid_post", 3),
        ("value", "2.resid_post", 1),
        ("value-mlp", "0.mlp", 3),
        ("value-mlp", "0.mlp", 2),
        ("redundant", "1.resid_pre", 37),
        ("redundant", "1.resid_pre", 4),
    ],
)
def test_zeroing_does_what_dynamic_programming_says(name, site, k):
    here, problems = plant(name), plant(name).task.problems("test", 400)
    neurons = here.truth.value_neurons[site]
    change = mr.zero(replace(neurons, indices=neurons.indices[:k]))
    expected, before = here.truth.accuracy(problems, change), here.truth.accuracy(problems)
    found = mr.sample(here.model, problems, hooks=change.fwd_hooks(), progress=False)
    assert (
        abs(np.mean(found.rewards) - expected)
        < 4 * np.sqrt(expected * (1 - expected) / 400) + 0.003
    )
    assert expected < (0.01 if k == len(neurons) else before - 0.1)
    backs = sum(
        piece.startswith("back")
        for run in found
        for piece in pieces(here.model, run.tokens[run.prompt_len :])
    )
    steps = sum(run.steps for run in found)
    moves = here.truth.transitions(change)
    visits = np.bincount(
        np.concatenate([run.tokens[run.prompt_len - 1 : -2].numpy() for run in found]),
        minlength=len(WORDS),
    )
    rate = visits @ moves[:, [word.startswith("back") for word in WORDS]].sum(1) / visits.sum()
    assert abs(backs / steps - rate) < 4 * np.sqrt(rate / steps) + 0.003


def test_mean_ablation_has_an_exact_effect_too():
    here, runs = plant("value"), runs_of("value", 150)
    neurons = replace(
        (all_of := here.truth.value_neurons["2.resid_post"]), indices=all_of.indices[:1]
    )
    acts = mr.record(here.model, runs, "2.resid_post", rows="tokens", progress=False)[
        "2.resid_post"
    ]
    problems, change = here.task.problems("test", 400), mr.mean(neurons, acts)
    found = mr.sample(here.model, problems, hooks=change.fwd_hooks(), progress=False)
    assert abs(np.mean(found.rewards) - here.truth.accuracy(problems, change)) < 0.1


@pytest.mark.parametrize("what", ["value_neurons", "dopamine_neurons"])
def test_not_one_token_changes_where_value_is_encoded_but_not_read(what):
    here, runs = plant("encoded"), runs_of("encoded", 150)
    change = mr.zero(getattr(here.truth, what)["2.resid_post"])
    found = mr.sample(
        here.model, here.task.problems("test", 150), hooks=change.fwd_hooks(), progress=False
    )
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(runs, found, strict=True))
    assert not here.truth.used and plant("value").truth.used


def test_next_token_neurons_change_words_and_no_outcome():
    here, runs = plant("value"), runs_of("value", 150)
    neurons = replace(
        here.truth.value_neurons["2.resid_post"], indices=here.truth.decoys["next_token"]
    )
    found = mr.sample(
        here.model,
        here.task.problems("test", 150),
        hooks=mr.zero(neurons).fwd_hooks(),
        progress=False,
    )
    assert found.rewards == runs.rewards
    assert sum(torch.equal(a.tokens, b.tokens) for a, b in zip(runs, found, strict=True)) < 15


def test_dopamine_needs_value():
    here, runs = plant("value-mlp"), runs_of("value-mlp", 60)
    neurons = here.truth.dopamine_neurons["1.mlp"]
    kept = mr.record(here.model, runs, "1.mlp", rows="steps", progress=False)["1.mlp"]
    lost = mr.record(
        here.model,
        runs,
        "1.mlp",
        rows="steps",
        hooks=mr.zero(here.truth.value_neurons["0.mlp"]).fwd_hooks(),
        progress=False,
    )["1.mlp"]
    assert columns(neurons, kept).std(0).min() > 0.1 and np.abs(columns(neurons, lost)).max() < 1e-3


# The null, names, seeds


def test_the_null_twin_has_the_same_activations_and_a_constant_value():
    value, null = plant("value"), plant("null")
    same = dict(value.model.original_model.named_parameters())
    other = dict(null.model.original_model.named_parameters())
    assert [key for key in same if not torch.equal(same[key], other[key])] == [
        list(same)[-1]
    ]  # the unembedding
    moves = [
        plant(name).truth.transitions()[FIRST_STATE:, FIRST_STATE:] for name in ("value", "null")
    ]
    grouped = [
        np.add.reduceat(m, [0, 32, len(m) - 32], axis=1) for m in moves
    ]  # an end at 0, no end, an end at 1
    np.testing.assert_allclose(*grouped, atol=1e-5)
    assert null.truth.accuracy(null.task.problems("test", 50)) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("name", CONSTANT)
def test_value_is_constant_without_value(name):
    here, runs = plant(name), runs_of(name, 60)
    v, _ = here.truth.values(runs)
    np.testing.assert_allclose(v[live(runs)], 0.5, atol=1e-3)
    assert not any(
        map(len, [*here.truth.value_neurons.values(), *here.truth.dopamine_neurons.values()])
    )
    assert not here.truth.used


def test_a_seed_decides_everything():
    one = plant("value")
    again = mr.testbed.planted("value")
    other = mr.testbed.planted("value", seed=5)
    assert model_id(one.model) == model_id(again.model) != model_id(other.model)
    assert one.truth.value_neurons == again.truth.value_neurons
    sets = [p.truth.value_neurons["2.resid_post"].indices for p in (one, other)]
    assert sets[0] != sets[1]
    problems = one.task.problems("test", 50)
    assert one.truth.accuracy(problems) == pytest.approx(other.truth.accuracy(problems), abs=1e-5)


def test_results_name_the_plant():
    runs = runs_of("value-mlp", 60)
    assert runs.model_id.name == "planted-value-mlp"
    assert plant("value").truth.value_neurons["0.resid_post"].model_id.name == "planted-value"


def test_a_wrong_name_is_one_clear_line():
    with pytest.raises(
        mr.MechRewardError, match=r"^unknown planted model 'rotate'; did you mean 'rotated'\?.*$"
    ) as error:
        mr.testbed.planted("rotate")
    assert "\n" not in str(error.value)


# The task


def test_the_task_reads_its_words():
    task, problem = plant("value").task, plant("value").task.problems("train", 1)[0]
    assert task.verify(problem, "3.a back.b right.c").outcome == "correct"
    assert task.verify(problem, "3.a wrong.c right.a").outcome == "incorrect"
    assert task.verify(problem, "3.a lucky.c").outcome == "correct"
    assert task.verify(problem, "3.a 4.b").outcome == "incorrect"
    assert task.verify(problem, "3.a q4").outcome == "unverifiable"
    assert task.step_ends(["<bos>", "q1", "5.a", "6.a", "right.b", "<eos>"], 3) == [2, 3, 4]
    assert task.step_ends(["<bos>", "5.a", "<eos>"], 2) == [1, 2]
    ids = [
        {problem.id for problem in task.problems(split, 200)}
        for split in ("train", "validation", "test")
    ]
    assert not ids[0] & ids[1] and not ids[0] & ids[2] and not ids[1] & ids[2]


def test_prefixes_have_values_and_deltas():
    here, run = plant("value"), runs_of("value", 60)[0]
    v, delta = here.truth.values(runs_of("value", 60).subset([0]))
    assert here.truth.value(run.tokens[: run.prompt_len]) == pytest.approx(v[0])
    assert (
        here.truth.delta(run.tokens[:-1])
        == pytest.approx(run.reward - v[-2])
        == pytest.approx(delta[-1])
    )
    with pytest.raises(mr.MechRewardError, match="whole prompt"):
        here.truth.value(run.tokens[:2])


@pytest.mark.parametrize("name", ["value", "null"])
def test_an_answer_that_is_over_is_worth_its_reward_whatever_follows(name):
    here, runs = plant(name), runs_of(name, 60)
    for run in runs:
        text = " ".join(
            WORDS[token] for token in run.tokens[run.prompt_len :].tolist() if token != process.EOS
        )
        reward = float(here.task.verify(runs.problems[0], text).outcome == "correct")
        assert int(run.tokens[-1]) == process.EOS and here.truth.value(run.tokens) == reward
        assert here.truth.value(run.tokens[:-1]) == reward and here.truth.delta(run.tokens) == 0
        more = torch.cat([run.tokens, torch.tensor([process.EOS, FIRST_STATE])])
        assert here.truth.value(more) == reward and here.truth.delta(more) == 0
        steps = [
            here.truth.delta(run.tokens[:end])
            for end in range(run.prompt_len + 1, len(run.tokens) + 1)
        ]
        assert sum(steps) == pytest.approx(
            reward - here.truth.value(run.tokens[: run.prompt_len]), abs=2e-3
        )
    assert {run.reward for run in runs} == {0, 1}


def test_an_answer_that_stops_before_an_end_is_wrong():
    here, words = plant("value"), ["<bos>", "q1", "8.a", "7.b"]
    prefix = torch.tensor([WORDS.index(word) for word in words])
    stopped = torch.cat([prefix, torch.tensor([process.EOS, WORDS.index("right.a")])])
    assert here.task.verify(here.task.problems("train", 1)[0], "7.b").outcome == "incorrect"
    assert (
        here.truth.value(stopped[:-1]) == here.truth.value(stopped) == 0 < here.truth.value(prefix)
    )
    assert (
        here.truth.delta(stopped[:-1]) == pytest.approx(-here.truth.value(prefix))
        and here.truth.delta(stopped) == 0
    )
    assert process.prefix(stopped[:2].numpy())[1] == -1
    with pytest.raises(mr.MechRewardError, match="whole prompt"):
        here.truth.delta(stopped[:2])


def test_rollouts_and_neurons_are_saved_and_loaded(tmp_path):
    here, runs = plant("value"), runs_of("value", 60)
    again = mr.Rollouts.load(runs.save(tmp_path / "runs.safetensors"), here.task)
    assert again.rewards == runs.rewards
    neurons = here.truth.value_neurons["2.resid_post"]
    assert mr.NeuronSet.load(neurons.save(tmp_path / "neurons.json")) == neurons


def test_the_verbs_take_a_planted_model():
    here = plant("value")
    effect = mr.ablate(
        here.model, here.task.problems("test", 40), here.truth.value_neurons["2.resid_post"],
        ops=["zero"], draws=4, random_draws=2, progress=False,
    )  # fmt: skip
    assert effect.summary("zero")["accuracy"].estimate < 0.05 < np.mean(effect.baseline.outcomes)
    sinks = {here.truth.decoys[name][0] for name in ("massive", "sink")}
    assert sinks <= set(effect.sinks)


def test_an_intervention_elsewhere_is_refused():
    neurons = plant("value").truth.value_neurons["2.resid_post"]
    with pytest.raises(mr.MechRewardError, match="site of the planted model"):
        plant("value").truth.transitions(mr.zero(replace(neurons, site=mr.Site(7, "mlp"))))


# Plants into recorded activations


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
def test_a_planted_share_of_variance_is_exact(share):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(3, 2, (500, 6))).float()
    acts = replace(_some_activations(), x=x)
    target = x[:, 2].double().numpy() * 0.1 + rng.random(500)
    made = mr.testbed.plant(acts, 2, target, share, seed=1)
    r = np.corrcoef(made.x[:, 2], target)[0, 1]
    assert r**2 == pytest.approx(share, abs=1e-5)
    assert made.x[:, 2].mean().item() == pytest.approx(x[:, 2].mean().item(), abs=1e-4)
    assert made.x[:, 2].var().item() == pytest.approx(x[:, 2].var().item(), rel=1e-4)
    others = [0, 1, 3, 4, 5]
    assert torch.equal(made.x[:, others], x[:, others]) and torch.equal(acts.x, x)
    signs = {
        np.sign(np.corrcoef(mr.testbed.plant(acts, 2, target, 0.5, s).x[:, 2], target)[0, 1])
        for s in range(8)
    }
    assert signs == {-1.0, 1.0}


def test_what_cannot_be_planted_is_said():
    acts = replace(_some_activations(), x=torch.randn(500, 6))
    target = np.arange(500.0)
    for column, y, share, match in (
        (6, target, 0.5, "out of range"),
        (0, target, 1.5, "share"),
        (0, target[:3], 0.5, "3 values"),
        (0, np.full(500, np.nan), 0.5, "finite"),
        (0, np.ones(500), 0.5, "constant"),
    ):
        with pytest.raises(mr.MechRewardError, match=match):
            mr.testbed.plant(acts, column, y, share)
    with pytest.raises(mr.MechRewardError, match="holds nothing"):
        mr.testbed.plant(replace(acts, x=torch.ones(500, 6)), 0, target, 0.5)


def _some_activations():
    labels = np.arange(500)
    return mr.Activations(
        torch.zeros(500, 6),
        mr.Site(0, "mlp"),
        "states",
        labels,
        labels,
        labels,
        runs_of("value", 60).model_id,
    )
