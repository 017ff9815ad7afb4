"""Guided search on a small model: against plain sampling, passes of TransformerLens, and hand
arithmetic."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from torch.utils.flop_counter import FlopCounterMode

import mechreward as mr
from mechreward.base.errors import MechRewardError
from mechreward.models import engine
from mechreward.models.site import Site
from mechreward.models.work import counted
from mechreward.rollouts.sample import sample
from mechreward.rollouts.steps import step_ends
from mechreward.tasks import TextTask
from mechreward.uses.search.ledger import Ledger, Price
from mechreward.uses.search.readouts import Readout, of_neurons, of_probe
from mechreward.uses.search.scorers import Outside
from mechreward.uses.search.search import Search, search

TASK = tiny.Even()
PROBLEMS = TASK.problems("train", 10)
SITE = Site(1, "resid_post")


def words(prompt: str, steps: list[str]) -> list[float]:
    """More words are better."""
    total, scores = 0, []
    for step in steps:
        total += len(step.split())
        scores.append(float(total))
    return scores


@pytest.fixture(scope="module")
def probes(tiny_model):
    runs = mr.sample(tiny_model, TASK.problems("validation", 40), progress=False)
    values = mr.estimate(tiny_model, runs, k=4, progress=False)
    states = mr.record(tiny_model, runs, [SITE])[str(SITE)]
    steps = mr.record(tiny_model, runs, [SITE], rows="steps")[str(SITE)]
    value = mr.ValueProbe("mc", "linear").fit(states, values)
    dopamine = mr.DopamineProbe(shape="linear").fit(steps, values)
    return value, dopamine


def test_one_answer_is_that_of_sample(tiny_model):
    runs = sample(tiny_model, PROBLEMS, k=3, seed=5, progress=False)
    one = search(tiny_model, PROBLEMS, "length", algorithm="best_of_n", k=1, seed=5, progress=False)
    assert one.rewards.tolist() == runs.rewards[::3]
    for run, chosen in zip(runs.trajectories[::3], one.rollouts, strict=True):
        assert torch.equal(run.tokens, chosen.tokens)
        assert run.step_ends == chosen.step_ends
        torch.testing.assert_close(run.logprobs, chosen.logprobs)
    many = search(
        tiny_model, PROBLEMS, "oracle", algorithm="best_of_n", k=3, seed=5, progress=False
    )
    reached = np.array(runs.rewards).reshape(-1, 3).max(1)
    assert many.rewards.tolist() == reached.tolist()
    assert many.ledger.generated == sum(run.length for run in runs)


def test_greedy_is_sampling_at_temperature_zero(tiny_model):
    runs = sample(tiny_model, PROBLEMS, policy=mr.Policy(0.0), progress=False)
    greedy = search(tiny_model, PROBLEMS, algorithm="greedy", progress=False)
    for run, chosen in zip(runs, greedy.rollouts, strict=True):
        assert torch.equal(run.tokens, chosen.tokens)


@pytest.mark.parametrize(
    ("algorithm", "width"), [("beam", 1), ("beam", 2), ("diverse", 2), ("particles", 1)]
)
def test_a_callable_sees_the_steps_of_the_task(tiny_model, algorithm: str, width: int):
    """Prompt and steps as text; what is chosen is what it scored."""
    seen: dict[str, list[float]] = {}
    prompts = set()

    def score(prompt: str, steps: list[str]) -> list[float]:
        prompts.add(prompt)
        assert all(step.strip() for step in steps[1:]), "the end of the text is no step"
        seen["".join(steps)] = words(prompt, steps)
        return words(prompt, steps)

    chosen = search(
        tiny_model, PROBLEMS, score, algorithm=algorithm, width=width, k=3, progress=False
    )
    assert prompts == {problem.prompt for problem in PROBLEMS}
    assert chosen.scorer == "score"
    for run, final in zip(chosen.rollouts, chosen.scores, strict=True):
        text = mr.models.text.decode(tiny_model, run.tokens[run.prompt_len :])
        assert seen[text][-1] == final


def test_the_ledger_adds_up_to_what_the_engine_counts(tiny_model, probes):
    value, dopamine = probes
    plans = [
        ("beam", value, 1),
        ("beam", "logprob", 2),
        ("best_of_n", dopamine, 1),
        ("particles", words, 1),
        ("greedy", None, 1),
    ]
    for algorithm, scorer, width in plans:
        with counted() as work:
            made = search(
                tiny_model,
                PROBLEMS,
                scorer,
                algorithm=algorithm,
                k=3,
                width=width,
                batch=40,
                progress=False,
            )
        ledger = made.ledger
        assert ledger.prefill == work.prefill
        read_again = work.decoded - ledger.generated
        assert (read_again > 0) is (scorer in (value, dopamine))
        assert ledger.passes >= work.decoded
        assert ledger.kept == sum(run.length for run in made.rollouts)
        assert (ledger.scored > 0) is (scorer is words)
        assert Ledger.total(made.ledgers) == ledger
        frame = made.frame()
        assert frame["generated"].sum() == ledger.generated
        assert (frame["kept"] <= frame["generated"]).all()


def test_best_of_n_counts_the_shared_prompt_once(tiny_model):
    made = search(tiny_model, PROBLEMS, "random", algorithm="best_of_n", k=4, progress=False)
    runs = sample(tiny_model, PROBLEMS, k=4, progress=False)
    for number, ledger in enumerate(made.ledgers):
        prompt = runs[4 * number].prompt_len
        assert ledger.prefill == prompt - 1
        assert ledger.cached == 3 * (prompt - 1)
        assert ledger.generated == sum(run.length for run in runs.trajectories[4 * number :][:4])


def test_operations_are_those_that_pytorch_counts(tiny_model):
    """All products of matrices in a pass of plain HuggingFace over nine tokens."""
    price = Price.of(tiny_model)
    plain = tiny.huggingface()
    plain.set_attn_implementation("eager")  # whose products are counted
    tokens = torch.tensor([[1, *range(5, 13)]])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        plain(tokens, use_cache=False)
    length = tokens.shape[1]
    pairs = length * length  # the mask is laid over all of them
    expected = length * (price.token + price.unembedding) + pairs * price.pair
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-6)


def test_operations_of_an_answer_by_hand(tiny_model):
    """A prompt of 4 and 3 new tokens: 3 tokens are prefilled, 3 decoded; token p sees p + 1."""
    price = Price.of(tiny_model)
    job = engine.Job(torch.tensor([1, 5, 6, 7]), 4, 3, ("a",))
    row = engine.Continuation(torch.tensor([8, 9, 4]), torch.zeros(3), False, prefill=3, cached=0)
    pairs = 1 + 2 + 3 + 4 + 5 + 6
    expected = 6 * price.token + 3 * price.unembedding + pairs * price.pair
    assert price.flops(job, row) == pytest.approx(expected)
    cached = replace(row, prefill=0, cached=3)
    assert price.flops(job, cached) == pytest.approx(expected - 3 * price.token - 6 * price.pair)


def read_again(model, tokens: torch.Tensor) -> torch.Tensor:
    _, cache = model.run_with_cache(tokens[None])
    return cache[SITE.hook][0]


@pytest.mark.parametrize("algorithm", ["beam", "best_of_n"])
def test_probes_read_in_the_pass_what_a_pass_of_their_own_gives(tiny_model, probes, algorithm: str):
    """The final score, recomputed with run_with_cache on the chosen answers; steps of three
    tokens."""
    value, dopamine = probes
    difference = of_probe(value, difference=True)
    for scorer in (value, dopamine, difference):
        made = search(
            tiny_model, PROBLEMS, scorer, algorithm=algorithm, k=3, block=3, progress=False
        )
        for run, score in zip(made.rollouts, made.scores, strict=True):
            x = read_again(tiny_model, run.tokens)
            starts = list(range(run.prompt_len, len(run.tokens), 3))
            texts = [mr.models.text.decode(tiny_model, run.tokens[a : a + 3]) for a in starts]
            if algorithm == "beam" and len(texts) > 1 and not texts[-1].strip():
                del starts[-1]  # nothing is said in it, so it is not scored
            begin, end = starts[-1], min(starts[-1] + 3, len(run.tokens)) - 1
            if scorer is dopamine:
                expected = dopamine.predict(x[begin : end + 1].mean(0, keepdim=True))[0]
            else:
                expected = value.predict(x[end][None])[0]
                if scorer is difference:
                    expected -= value.predict(x[begin - 1][None])[0]
            assert score == pytest.approx(float(expected), abs=2e-3)


def test_neurons_are_read_in_units_of_their_spread(tiny_model, probes):
    value, _ = probes
    neurons = mr.select(value, top=0.1)
    made = search(tiny_model, PROBLEMS, neurons, algorithm="best_of_n", k=3, progress=False)
    assert made.scorer == "value neurons"
    for run, score in zip(made.rollouts, made.scores, strict=True):
        x = read_again(tiny_model, run.tokens)[run.step_ends[-1], list(neurons.indices)]
        by_hand = np.mean([float(a) / s for a, s in zip(x, neurons.direction, strict=True)])
        assert score == pytest.approx(by_hand, abs=2e-3)


def test_what_is_read_changes_no_token(tiny_model, probes):
    """Random numbers are shared: two scorers meet the same first candidates."""
    value, _ = probes
    plain = search(tiny_model, PROBLEMS, "length", algorithm="best_of_n", k=3, progress=False)
    read = search(tiny_model, PROBLEMS, value, algorithm="best_of_n", k=3, progress=False)
    assert plain.ledger.generated == read.ledger.generated


@pytest.mark.parametrize("algorithm", ["beam", "best_of_n", "diverse", "particles"])
def test_batches_change_nothing(tiny_model, algorithm: str):
    alone = search(
        tiny_model, PROBLEMS, "logprob", algorithm=algorithm, k=3, batch=3, progress=False
    )
    together = search(tiny_model, PROBLEMS, "logprob", algorithm=algorithm, k=3, progress=False)
    for a, b in zip(alone.rollouts, together.rollouts, strict=True):
        assert torch.equal(a.tokens, b.tokens)
    assert alone.ledger.generated == together.ledger.generated


def test_steps_may_be_blocks_of_tokens(tiny_model):
    lengths = set()

    def look(prompt: str, steps: list[str]) -> list[float]:
        lengths.update(len(step.split()) for step in steps[:-1])
        return [0.0] * len(steps)

    for algorithm in ("beam", "best_of_n"):
        made = search(tiny_model, PROBLEMS, look, algorithm=algorithm, k=2, block=4, progress=False)
        assert made.rollouts[0].length <= TASK.max_tokens
    assert max(lengths) <= 4


def test_a_budget_is_kept(tiny_model):
    made = search(tiny_model, PROBLEMS, "logprob", k=4, budget=24, progress=False)
    assert max(ledger.generated for ledger in made.ledgers) <= 24
    assert all(run.ended or run.length == TASK.max_tokens for run in made.rollouts)


def test_no_verifier_is_needed(tiny_model):
    rows = [{"question": problem.prompt} for problem in PROBLEMS]
    task = TextTask(rows, verify=None, max_tokens=16)
    made = search(tiny_model, task.rows, "logprob", k=2, progress=False)
    assert np.isnan(made.rewards).all()
    assert made.frame()["reward"].isna().all()
    assert "not judged" in repr(made)
    judged = search(tiny_model, PROBLEMS, "logprob", k=2, progress=False)
    assert made.ledger.generated > 0 and not np.isnan(judged.rewards).any()


def test_saved_and_loaded(tiny_model, tmp_path):
    made = search(tiny_model, PROBLEMS, "logprob", k=2, progress=False)
    again = Search.load(made.save(tmp_path / "s"), TASK)
    assert again.frame().equals(made.frame())
    assert repr(again) == repr(made)
    greedy = search(tiny_model, PROBLEMS, algorithm="greedy", progress=False)
    loaded = Search.load(greedy.save(tmp_path / "g"), TASK)
    assert np.isnan(loaded.scores).all()


def test_finished_problems_are_kept(tiny_model, tmp_path, monkeypatch):
    calls = []

    def counting(prompt: str, steps: list[str]) -> list[float]:
        calls.append(prompt)
        return words(prompt, steps)

    options = {"k": 2, "batch": 4, "out": tmp_path / "kept", "progress": False}
    first = search(tiny_model, PROBLEMS[:6], counting, **options)
    calls.clear()
    again = search(tiny_model, PROBLEMS, counting, **options)
    assert set(calls) == {problem.prompt for problem in PROBLEMS[6:]}
    assert again.rewards[:6].tolist() == first.rewards.tolist()
    assert again.ledgers[:6] == first.ledgers
    calls.clear()
    search(tiny_model, PROBLEMS, counting, seed=1, **options)
    assert calls, "another seed is another search"


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("bad", "wanted"),
    [
        (lambda prompt, steps: [float("nan")] * len(steps), "nan"),
        (lambda prompt, steps: [0.0, *words(prompt, steps)], "scores for"),
        (lambda prompt, steps: 1 / 0, "ZeroDivisionError"),
        (lambda prompt, steps: time.sleep(30), "within"),
        (lambda prompt, steps: "good", "not a score for each step"),
        (lambda prompt, steps: ["good"] * len(steps), "for a score"),
    ],
)
def test_a_scorer_that_fails_is_named_with_the_problem(tiny_model, tmp_path, bad, wanted: str):
    """And problems that it did not fail on are kept."""
    victim = PROBLEMS[3].prompt

    def scorer(prompt: str, steps: list[str]):
        return bad(prompt, steps) if prompt == victim else words(prompt, steps)

    with pytest.raises(MechRewardError) as caught:
        search(
            tiny_model,
            PROBLEMS,
            scorer,
            k=3,
            batch=6,
            timeout=2.0,
            out=tmp_path,
            progress=False,
        )
    message = str(caught.value)
    assert "'scorer'" in message and repr(PROBLEMS[3].id) in message and wanted in message
    assert "\n" not in message
    assert "3 of 10" in message and len(list(tmp_path.iterdir())) == 3


WRONG = {
    "k": ({"k": 0}, "at least 1"),
    "width": ({"width": 0}, "at least 1"),
    "budget": ({"budget": 3}, "under one answer"),
    "algorithm": ({"algorithm": "beem"}, "beam"),
    "scorer": ({"scorer": "log_prob"}, "logprob"),
    "combine": ({"combine": "average"}, "last"),
    "needs": ({"scorer": None}, "needs a scorer"),
    "looks at none": ({"algorithm": "greedy"}, "looks at no score"),
    "oracle": ({"scorer": "oracle"}, "whole answers"),
    "votes": ({"scorer": None, "algorithm": "majority"}, "cannot be compared"),
    "kind": ({"scorer": 3}, "int"),
    "block": ({"block": 0}, "block"),
}


@pytest.mark.unchecked
@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests_are_told_before_any_work(tiny_model, monkeypatch, name: str):
    def generate(*args, **options):
        raise AssertionError("nothing may be generated")

    monkeypatch.setattr("mechreward.uses.search.sampler.generate", generate)
    options, wanted = WRONG[name]
    given = {"scorer": "logprob", **options}
    with pytest.raises(MechRewardError, match=wanted) as caught:
        search(tiny_model, PROBLEMS, progress=False, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.unchecked
def test_scorers_that_cannot_read_are_refused(tiny_model, probes):
    value, _ = probes
    neurons = mr.select(value, top=0.1)
    with pytest.raises(MechRewardError, match="no direction"):
        search(tiny_model, PROBLEMS, replace(neurons, direction=()), progress=False)
    with pytest.raises(MechRewardError, match="empty"):
        search(tiny_model, PROBLEMS, replace(neurons, indices=(), direction=()), progress=False)
    with pytest.raises(MechRewardError, match="not fitted"):
        search(tiny_model, PROBLEMS, mr.ValueProbe(), progress=False)
    other = replace(neurons.model_id, weights="other")
    with pytest.raises(MechRewardError, match="scorer"):
        search(tiny_model, PROBLEMS, replace(neurons, model_id=other), progress=False)
    with pytest.raises(MechRewardError, match="states, steps"):
        of_neurons(neurons, rows="tokens")
    arrays = mr.ValueProbe("mc", "linear").fit(np.eye(20, 4), np.linspace(0, 1, 20))
    with pytest.raises(MechRewardError, match="site is not known"):
        search(tiny_model, PROBLEMS, arrays, progress=False)
    with pytest.raises(MechRewardError, match="reads 4 neurons"):
        of_probe(arrays, neurons=neurons)


def test_a_probe_of_few_neurons_reads_them_alone(tiny_model, probes):
    value, _ = probes
    neurons = mr.select(value, top=0.1)
    k = len(neurons)
    rng = np.random.default_rng(0)
    few = mr.ValueProbe("mc", "linear").fit(rng.normal(size=(40, k)), rng.random(40))
    readout = of_probe(few, neurons=neurons)
    made = search(tiny_model, PROBLEMS, readout, k=2, progress=False)
    for run, score in zip(made.rollouts, made.scores, strict=True):
        x = read_again(tiny_model, run.tokens)[run.step_ends[-1], list(neurons.indices)]
        assert score == pytest.approx(float(few.predict(x[None])[0]), abs=2e-3)


def test_a_readout_of_ones_own(tiny_model):
    """Any function of a site."""
    first = Readout(
        "first",
        SITE,
        "states",
        lambda x: x[:, 0].numpy(),
        mr.models.identity.model_id(tiny_model),
        columns=(7,),
    )
    made = search(tiny_model, PROBLEMS, first, algorithm="best_of_n", k=2, progress=False)
    run, score = made.rollouts[0], made.scores[0]
    assert score == pytest.approx(float(read_again(tiny_model, run.tokens)[-1, 7]), abs=2e-3)


def test_steps_of_beams_are_those_of_the_whole_answer(tiny_model):
    """What was scored step by step is cut alike afterwards, but for blank lines."""
    counts = {}

    def look(prompt: str, steps: list[str]) -> list[float]:
        counts["".join(steps)] = len([step for step in steps if step.strip()])
        return words(prompt, steps)

    made = search(tiny_model, PROBLEMS, look, k=3, progress=False)
    for run in made.rollouts:
        text = mr.models.text.decode(tiny_model, run.tokens[run.prompt_len :])
        ends, _ = step_ends(tiny_model, TASK, run.tokens, run.prompt_len)
        assert abs(counts[text] - (len(ends) - 1)) <= 1


def test_outside_scorers_can_be_given_a_name(tiny_model):
    made = search(tiny_model, PROBLEMS[:2], Outside("counted", words), k=2, progress=False)
    assert made.scorer == "counted"
    assert "counted" in repr(made)
