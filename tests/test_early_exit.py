"""Early exit: against plain loops, `sample`, passes of TransformerLens, exact plants, and hand
arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

import mechreward as mr
from mechreward.base.errors import MechRewardError
from mechreward.models import engine
from mechreward.models.identity import model_id
from mechreward.models.site import Site
from mechreward.models.text import decode, eos_ids
from mechreward.rollouts.sample import answer_key, prompt_of
from mechreward.tasks import TextTask, Verdict
from mechreward.testbed.walks import walks
from mechreward.uses.early_exit import EarlyExit, Exit, ExitWarning, Points, fit_exit
from mechreward.uses.exit_rules import conformal_scores, conformal_threshold, stopped
from mechreward.uses.search.readouts import Readout, of_probe

SITE = Site(1, "resid_post")


class Prefixed(tiny.Even):
    """The same with an answer line."""

    name = "prefixed"
    answer_prefix = "answer"


TASK = Prefixed()
PROBLEMS = TASK.problems("train", 30)


def points_of(rollout, tokens, asked=None, reward=None, **signals) -> Points:
    n = len(rollout)
    return Points(
        np.array(rollout, dtype=int),
        np.array(tokens, dtype=int),
        {name: np.array(column, dtype=float) for name, column in signals.items()},
        ("",) * n,
        np.array(asked if asked is not None else [0] * n, dtype=int),
        np.array(reward if reward is not None else [np.nan] * n, dtype=float),
    )


# Thresholds.


def test_nine_scores_by_hand():
    """alpha (n + 1) = 10 alpha: the first of nine at .1, the third at .3, none below .1."""
    scores = np.array([0.5, 0.9, 0.1, 0.8, 0.3, 0.7, 0.2, 0.6, 0.4])
    assert conformal_threshold(scores, 0.1) == 0.1
    assert conformal_threshold(scores, 0.19) == 0.1
    assert conformal_threshold(scores, 0.3) == 0.3
    assert conformal_threshold(scores, 0.95) == 0.9
    assert conformal_threshold(scores, 0.099) == -math.inf
    # .29 * 100 is 28.999999999999996 in floating point.
    assert conformal_threshold(np.arange(1.0, 100.0), 0.29) == 29.0


def test_the_rate_is_kept_on_exact_walks():
    """400 thresholds from 39 correct answers each, 100 further correct answers under each: with
    continuous scores the expected rate is floor(.1 * 40) / 40 = .1. Its standard error over the
    repeats is about .0025: 4 of them fail once in 16,000 seeds."""
    rng = np.random.default_rng(0)
    made = walks(140_000, rng)
    read = made.read(made.v, 0.1, rng)
    least = np.full(made.walk.max() + 1, np.inf)
    np.minimum.at(least, made.walk, read)
    reward = np.zeros(len(least))
    reward[made.walk] = made.reward
    scores = least[reward == 1][: 400 * 139].reshape(400, 139)
    rates = [(row[39:] < conformal_threshold(row[:39], 0.1)).mean() for row in scores]
    error = np.std(rates) / math.sqrt(len(rates))
    assert abs(np.mean(rates) - 0.1) < 4 * error
    assert error < 0.004


def test_scores_are_extrema_where_an_answer_would_be_lost():
    points = points_of(
        [0, 0, 1, 3], [1, 2, 1, 1], [2, 2, 2, 2], [1, 0, 1, 0], v=[0.2, 0.6, 0.4, 0.9]
    )
    below = conformal_scores(points, "v", "below", 4)
    assert below.tolist() == [0.2, 0.4, math.inf, 0.9]
    above = conformal_scores(points, "v", "above", 4)
    assert above.tolist() == [-0.6, math.inf, math.inf, -0.9]


# What stopping does, against a plain loop.


def by_loop(points: Points, rules, length, reward):
    """A rollout at a time, a point at a time."""
    made = []
    for number in range(len(length)):
        paid, row = 0, None
        for point in np.flatnonzero(points.rollout == number):
            asks = any(rule.signal in ("confidence", "stability") for rule in rules)
            paid += int(points.asked[point]) if asks else 0
            for rule in rules:
                x = points.signals[rule.signal][point]
                if x < rule.threshold if rule.direction == "below" else x > rule.threshold:
                    row = (point, rule.direction == "below", points.tokens[point])
                    break
            if row:
                if not asks and not row[1]:
                    paid = int(points.asked[point])
                break
        if row is None:
            made.append((-1, False, length[number], paid, reward[number]))
        else:
            point, lost, tokens = row
            made.append((point, lost, tokens, paid, 0.0 if lost else points.reward[point]))
    return made


@given(seed=st.integers(0, 10_000), kinds=st.lists(st.sampled_from(range(4)), max_size=3))
def test_stops_are_those_of_a_plain_loop(seed: int, kinds: list[int]):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, 6)
    rollout = np.repeat(np.arange(6), counts)
    tokens = np.concatenate([np.arange(1, count + 1) for count in counts]).astype(int)
    n = len(rollout)
    points = points_of(
        rollout,
        tokens,
        rng.integers(1, 5, n),
        rng.integers(0, 2, n),
        value=rng.integers(0, 5, n),
        confidence=rng.integers(0, 5, n),
    )
    every = [
        Exit("value", 1.5),
        Exit("value", 3.0, "above"),
        Exit("confidence", 2.0, "above"),
        Exit("confidence", 1.0),
    ]
    rules = [every[kind] for kind in kinds]
    length, reward = counts + 2, rng.integers(0, 2, 6).astype(float)
    made = stopped(points, rules, length, reward)
    columns = made.point, made.abandoned, made.generated, made.charged, made.reward
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == by_loop(
        points, rules, length, reward
    )


# A small model.


@pytest.fixture(scope="module")
def probe(tiny_model):
    runs = mr.sample(tiny_model, TASK.problems("validation", 40), progress=False)
    values = mr.estimate(tiny_model, runs, k=4, progress=False)
    states = mr.record(tiny_model, runs, [SITE], progress=False)[str(SITE)]
    return mr.ValueProbe("mc", "linear", ridge=1.0).fit(states, values)


@pytest.fixture(scope="module")
def whole(tiny_model, probe):
    return mr.early_exit(tiny_model, PROBLEMS, value=probe, answers=True, progress=False)


def test_nothing_stops_without_a_rule(tiny_model, whole):
    runs = mr.sample(tiny_model, PROBLEMS, progress=False)
    for run, other in zip(runs, whole.rollouts, strict=True):
        assert torch.equal(run.tokens, other.tokens)
        assert run.step_ends == other.step_ends and run.verdict == other.verdict
    assert whole.saved == 0 and whole.abstained == 0 and not whole.lost.any()
    assert whole.reward.tolist() == runs.rewards
    assert whole.promised is None


def test_signals_are_those_of_a_pass_over_the_text(tiny_model, probe, whole):
    """Recomputed with run_with_cache on every whole rollout."""
    points = whole.points
    assert len(points.tokens) > 20 and points.signals["value"].std() > 0.05
    for number, run in enumerate(whole.rollouts):
        here = np.flatnonzero(points.rollout == number)
        with torch.no_grad():
            logits, cache = tiny_model.run_with_cache(run.tokens[None])
        logprobs = logits[0].double().log_softmax(-1)
        for point in here:
            tokens = int(points.tokens[point])
            end = run.prompt_len + tokens - 1
            value = probe.predict(cache[SITE.hook][0, end][None])[0]
            assert points.signals["value"][point] == pytest.approx(value, abs=2e-3)
            drawn = logprobs[run.prompt_len - 1 : end]
            entropy = -(drawn.exp() * drawn).sum(-1).mean()
            certainty = (-drawn.mean(-1) - math.log(drawn.shape[-1])).mean()
            chosen = drawn.gather(1, run.tokens[run.prompt_len : end + 1, None]).mean()
            expected = {
                "entropy": -entropy,
                "self_certainty": certainty,
                "logprob": chosen,
                "length": -tokens,
            }
            for name, x in expected.items():
                assert points.signals[name][point] == pytest.approx(float(x), abs=2e-3)
    assert ((points.signals["random"] >= 0) & (points.signals["random"] < 1)).all()


def test_points_are_ends_of_steps_that_go_on(tiny_model, whole):
    """A line break behind a line with text, as long as a token follows."""
    for number, run in enumerate(whole.rollouts):
        text, expected = False, []
        answer = run.tokens[run.prompt_len :].tolist()
        for place, token in enumerate(answer[:-1], start=1):
            if token == 4:  # the line break
                if text:
                    expected.append(place)
                text = False
            else:
                text = True
        assert whole.points.tokens[whole.points.rollout == number].tolist() == expected


def test_early_answers_are_greedy_continuations(tiny_model, whole):
    """Prefix, answer and reward recomputed token by token with the plain model."""
    points, eos = whole.points, set(eos_ids(tiny_model))
    prefix = [mr.bundled.vocabulary.WORDS.index("answer")]
    before: dict[int, tuple[str, float]] = {}
    for point in range(len(points.tokens)):
        number = int(points.rollout[point])
        run = whole.rollouts[number]
        begun = run.prompt_len + int(points.tokens[point])
        if point % 4 == 0:
            text = [*run.tokens[:begun].tolist(), *prefix]
            chosen, probabilities = [], []
            while len(chosen) < 32:
                with torch.no_grad():
                    logits = tiny_model(torch.tensor([text + chosen]))[0, -1].double()
                chosen.append(int(logits.argmax()))
                probabilities.append(float(logits.softmax(-1).max()))
                if chosen[-1] in eos or chosen[-1] == 4:
                    break
            kept = chosen[:-1] if chosen[-1] in eos or chosen[-1] == 4 else chosen
            assert points.asked[point] == 1 + len(chosen)
            assert points.answers[point] == decode(tiny_model, torch.tensor(kept).long()).strip()
            confidence = np.mean(probabilities[: len(kept)]) if kept else 0.0
            assert points.signals["confidence"][point] == pytest.approx(confidence, abs=2e-3)
            whole_text = decode(tiny_model, torch.tensor(text[run.prompt_len :] + chosen))
            right = len(whole_text.split()) % 2 == 0
            assert points.reward[point] == float(right)
        answer = points.answers[point]
        last, same = before.get(number, ("", 0.0))
        expected = 0.0 if not answer else same + 1 if answer == last else 1.0
        assert points.signals["stability"][point] == expected
        before[number] = answer, expected


def middle(made, signal: str, share: float) -> float:
    """A threshold between two values that occur, which rounding does not cross."""
    x = np.unique(made.points.signals[signal])
    place = min(int(share * len(x)), len(x) - 2)
    return float(x[place] + x[place + 1]) / 2


RULES = {
    "value": (None, [("value", 0.4, "below")]),
    "entropy": (None, [("entropy", 0.5, "below")]),
    "both": (None, [("value", 0.3, "below"), ("logprob", 0.7, "above")]),
    "confidence": (None, [("confidence", 0.5, "above")]),
    "blocks": (3, [("value", 0.6, "above")]),
    "blocks and stability": (3, [("stability", 0.0, "above")]),
}


@pytest.mark.parametrize("name", RULES)
def test_live_is_what_was_counted_afterwards(tiny_model, probe, whole, name: str):
    """Tokens, decisions, charges and rewards are equal."""
    block, sides = RULES[name]
    rules = []
    for signal, share, direction in sides:
        rules.append(Exit(signal, middle(whole, signal, share), direction))
    options = {"value": probe, "block": block, "progress": False}
    problems = PROBLEMS[:16]
    after = mr.early_exit(tiny_model, problems, rules, **options)
    live = mr.early_exit(tiny_model, problems, rules, live=True, batch=7, **options)
    early = after.stops.point >= 0
    assert 0 < early.sum() < len(problems)
    a, b = after.frame(), live.frame()
    for column in ("stopped", "abandoned", "point", "generated", "charged", "answer", "reward"):
        assert a[column].tolist() == b[column].tolist(), column
    for number, run in enumerate(live.rollouts):
        other = after.rollouts[number]
        assert torch.equal(run.tokens, other.tokens[: len(run.tokens)])
        assert run.length == after.stops.generated[number]
    assert np.isnan(live.full_reward[early]).all()
    assert live.full_reward[~early].tolist() == after.full_reward[~early].tolist()
    assert live.accuracy == after.accuracy
    with pytest.raises(MechRewardError, match="live"):
        live.curve()


def test_an_interrupted_answer_goes_on_as_it_would_have(tiny_model):
    """Random numbers that were drawn before are left out."""
    prompt = prompt_of(tiny_model, PROBLEMS[0])
    key = answer_key(0, PROBLEMS[0])
    (once,) = engine.generate(tiny_model, [engine.Job(prompt, len(prompt), 12, key)], eos=-1)
    text = torch.cat([prompt, once.tokens[:5]])
    rest = engine.Job(text, len(text), 7, key, begun=5, drawn=5)
    (again,) = engine.generate(tiny_model, [rest], eos=-1)
    assert torch.equal(again.tokens, once.tokens[5:])


def test_rows_and_sums_go_together(whole):
    made = whole.under(Exit("value", middle(whole, "value", 0.4)))
    frame = made.frame()
    assert frame["tokens"].sum() == (frame["generated"] + frame["charged"]).sum()
    assert made.saved == pytest.approx(1 - frame["tokens"].sum() / frame["full_tokens"].sum())
    assert made.accuracy == frame["reward"].mean()
    assert (frame["charged"] == 0).all(), "a value costs nothing, and nobody is asked"
    lost = (frame["full_reward"] == 1) & (frame["reward"] == 0)
    assert frame["lost"].tolist() == lost.tolist()
    assert made.realised.estimate == lost.sum() / (frame["full_reward"] == 1).sum()
    asked = whole.under(Exit("confidence", -1.0))
    assert asked.saved == pytest.approx(-whole.points.asked.sum() / frame["full_tokens"].sum())


def test_the_curve_is_what_rules_do(whole):
    for direction in ("below", "above"):
        curve = whole.curve("value", direction)
        assert curve["saved"].iloc[0] == 0
        assert curve["accuracy"].iloc[0] == whole.accuracy
        for line in curve.iloc[:: max(1, len(curve) // 7)].itertuples():
            made = whole.under(Exit("value", line.threshold, direction))
            assert (made.saved, made.accuracy) == (line.saved, line.accuracy)
            assert made.abstained == line.abstained
            assert made.realised.estimate == line.lost
    stops_all = whole.curve("value").iloc[-1]
    have = len(np.unique(whole.points.rollout))
    assert stops_all["abstained"] == have / len(PROBLEMS)


def test_signals_are_compared_at_one_share(whole):
    table = whole.compare(["value", "random", "stability"], shares=[0.2], draws=50)
    table = table.set_index("signal")
    assert table.loc["random", "gap"] == 0
    curve = whole.curve("value")
    expected = np.interp(0.2, curve["saved"], curve["accuracy"])
    assert table.loc["value", "accuracy"] == pytest.approx(expected)
    gap = expected - table.loc["random", "accuracy"]
    assert table.loc["value", "gap"] == pytest.approx(gap)


def test_a_tolerance_saves_what_it_may(whole):
    """Every threshold is tried; the best of those that keep the accuracy is taken."""
    rule = fit_exit(whole, "value", tolerance=0.1)
    made = whole.under(rule)
    assert made.accuracy >= whole.accuracy - 0.1
    values = [*np.unique(whole.points.signals["value"]), math.inf]
    for threshold in values:
        other = whole.under(Exit("value", float(threshold)))
        assert other.saved <= made.saved or other.accuracy < whole.accuracy - 0.1
    assert rule.how == "validation" and rule.n == len(PROBLEMS)
    nothing = fit_exit(whole, "value", tolerance=0.0)
    assert whole.under(nothing).accuracy >= whole.accuracy


@pytest.mark.parametrize("direction", ["below", "above"])
def test_calibration_loses_no_more_than_promised_on_itself(whole, direction: str):
    rule = fit_exit(whole, "value", direction=direction, alpha=0.3)
    made = whole.under(rule)
    right = int(whole.full_reward.sum())
    assert rule.n == right
    assert made.lost.sum() <= math.floor(0.3 * (right + 1)) - 1
    assert made.promised == 0.3


def test_so_few_that_nothing_is_promised(whole):
    with pytest.warns(ExitWarning, match="stops nothing"):
        rule = fit_exit(whole, "value", alpha=0.001)
    assert rule.idle and rule.threshold == -math.inf
    assert whole.under(rule).saved == 0
    assert "stops nothing" in repr(rule)


def test_saved_and_loaded(whole, tmp_path):
    for number, rule in enumerate(
        [
            fit_exit(whole, "value", alpha=0.3),
            fit_exit(whole, "value", direction="above"),
            Exit("value", math.inf),
            Exit("value", -math.inf),
            Exit("value", math.inf, "above"),
            Exit("value", -math.inf, "above"),
        ]
    ):
        assert Exit.load(rule.save(tmp_path / f"{number}.json")) == rule
        made = whole.under(rule)
        again = EarlyExit.load(made.save(tmp_path / f"folder {number}"), TASK)
        assert again.frame().equals(made.frame())
        assert repr(again) == repr(made) and again.rules == made.rules
        assert again.curve("value").equals(made.curve("value"))


def test_several_read_outs_at_one_site(tiny_model, probe):
    neurons = mr.select(probe, top=0.1)
    values = {"probe": probe, "neurons": neurons, "again": probe}
    made = mr.early_exit(tiny_model, PROBLEMS[:6], value=values, progress=False)
    signals = made.points.signals
    assert signals["probe"].tolist() == signals["again"].tolist()
    assert np.std(signals["neurons"] - signals["probe"]) > 0
    alone = mr.early_exit(tiny_model, PROBLEMS[:6], value=neurons, progress=False)
    np.testing.assert_allclose(alone.points.signals["value"], signals["neurons"], atol=1e-5)


def test_no_verifier_is_needed_to_stop(tiny_model):
    rows = [{"question": problem.prompt} for problem in PROBLEMS[:6]]
    task = TextTask(rows, verify=None, max_tokens=16, answer_prefix="answer")
    made = mr.early_exit(
        tiny_model, task.rows, Exit("length", -6.0), block=4, live=True, progress=False
    )
    assert "not judged" in repr(made) and made.frame()["reward"].isna().all()
    assert max(run.length for run in made.rollouts) <= 8
    with pytest.raises(MechRewardError, match="verifier"):
        fit_exit(mr.early_exit(tiny_model, task.rows, progress=False), "entropy")


@pytest.mark.parametrize("name", ["countdown", "chain", "paths", "words"])
def test_the_prefix_is_that_of_right_answers(name: str):
    task = mr.tasks.get(name)
    (problem,) = task.problems("train", 1)
    last = task.solve(problem).splitlines()[-1]
    assert task.answer_prefix and last.startswith(task.answer_prefix)


# Planted models.


def reader(planted, problems):
    """A linear read-out of the planted coordinates, fitted to exact values."""
    name = "value" if planted.name == "value" else "level"
    columns = planted.truth.decoys.get(name)
    if columns is None:
        columns = planted.truth.value_neurons[str(SITE)].indices
    runs = mr.sample(planted.model, problems, progress=False)
    acts = mr.record(planted.model, runs, [SITE], progress=False)[str(SITE)]
    x = acts.x[:, list(columns)].double().numpy()
    twin = mr.testbed.planted("value").truth
    v, _ = twin.values(runs)
    weights, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), v, rcond=None)

    def read(rows: torch.Tensor) -> np.ndarray:
        return rows.double().numpy() @ weights[:-1] + weights[-1]

    return Readout("planted", SITE, "states", read, model_id(planted.model), tuple(columns))


def exits(name: str, alpha: float):
    planted = mr.testbed.planted(name)
    value = reader(planted, planted.task.problems("train", 40))
    validation = mr.early_exit(
        planted.model, planted.task.problems("validation", 200), value=value, progress=False
    )
    rule = fit_exit(validation, "value", alpha=alpha)
    problems = planted.task.problems("test", 300)
    return planted, mr.early_exit(planted.model, problems, rule, value=value, progress=False)


def test_value_neurons_save_tokens_at_the_promised_rate():
    """V is read exactly. The realised rate has an interval of 95%, which the promise must meet, and
    tokens are saved that chance would have paid for with right answers; fixed seeds."""
    planted, made = exits("value", 0.1)
    v = []
    for number, tokens in zip(made.points.rollout, made.points.tokens, strict=True):
        run = made.rollouts[int(number)]
        v.append(planted.truth.value(run.tokens[: run.prompt_len + int(tokens)]))
    assert np.corrcoef(v, made.points.signals["value"])[0, 1] > 0.999
    assert made.promised == 0.1
    assert made.realised.low <= 0.1
    assert made.saved > 0.1
    wrong = made.full_reward == 0
    assert made.stops.abandoned[wrong].mean() > 0.5
    table = made.compare(["value"], shares=[0.25], draws=200)
    assert table["gap_low"].item() > 0


def test_the_null_twin_saves_nothing_beyond_chance():
    """The same activations, and a coin decides. Right and wrong rollouts are abandoned alike, and
    nothing is saved for less than random stops cost: both hold within 3.3 standard errors,
    which one seed in 1,000 is not."""
    _, made = exits("null", 0.1)
    assert made.realised.low <= 0.1
    half = made.under(Exit("value", 0.4))
    right = half.full_reward == 1
    a, b = half.stops.abandoned[right], half.stops.abandoned[~right]
    assert a.any() and b.any() and not a.all()
    error = math.sqrt(a.var() / len(a) + b.var() / len(b))
    assert abs(a.mean() - b.mean()) < 3.3 * error
    (line,) = made.compare(["value"], shares=[0.25], draws=200).itertuples()
    assert line.gap < 3.3 * (line.gap_high - line.gap_low) / 3.92


# Mistakes.

WRONG = {
    "signal": ({"rules": Exit("valu", 0.1)}, "value"),
    "not read": ({"rules": Exit("value", 0.1), "value": None}, "give value="),
    "no rule": ({"rules": [0.3]}, "fit_exit"),
    "block": ({"block": 0}, "at least 1"),
    "tokens": ({"answer_tokens": 0}, "at least 1"),
    "names": ({"value": {"entropy": None}}, "another signal"),
    "reads": ({"value": "logprob"}, "generating pass"),
    "none": ({"problems": []}, "no problems"),
}


@pytest.mark.unchecked
@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests_are_told_before_any_work(tiny_model, probe, monkeypatch, name: str):
    def generate(*args, **options):
        raise AssertionError("nothing may be generated")

    monkeypatch.setattr("mechreward.uses.exit_watch.generate", generate)
    options, wanted = WRONG[name]
    given = {"problems": PROBLEMS, "value": probe, "progress": False, **options}
    problems = given.pop("problems")
    with pytest.raises(MechRewardError, match=wanted) as caught:
        mr.early_exit(tiny_model, problems, **given)
    assert "\n" not in str(caught.value)


def test_rules_of_elsewhere_are_refused(tiny_model, probe, whole):
    rule = fit_exit(whole, "value", alpha=0.3)
    other = replace(rule, model_id=replace(rule.model_id, weights="other"))
    changes = {
        "exit rule": (other, {}),
        "policy": (rule, {"policy": mr.Policy(0.5)}),
        "block": (rule, {"block": 2}),
        "read-out": (rule, {"value": mr.select(probe, top=0.1)}),
    }
    for wanted, (given_rule, options) in changes.items():
        given = {"value": probe, "progress": False, **options}
        with pytest.raises(MechRewardError, match=wanted):
            mr.early_exit(tiny_model, PROBLEMS[:2], given_rule, **given)


@pytest.mark.unchecked
def test_thresholds_that_cannot_be_set(tiny_model, whole):
    for alpha in (0, 1, 1.5, -0.1):
        with pytest.raises(MechRewardError, match="between 0 and 1"):
            fit_exit(whole, "value", alpha=alpha)
    with pytest.raises(MechRewardError, match="tolerance"):
        fit_exit(whole, "value", tolerance=-0.1)
    with pytest.raises(MechRewardError, match="value"):
        fit_exit(whole, "valeu")
    with pytest.raises(MechRewardError, match="below, above"):
        fit_exit(whole, "value", direction="under")
    with pytest.raises(MechRewardError, match="EarlyExit"):
        fit_exit([], "value")
    runs = []
    for run in whole.rollouts:
        runs.append(replace(run, verdict=Verdict("incorrect", "planted")))
    wrong = replace(whole, rollouts=replace(whole.rollouts, trajectories=tuple(runs)))
    for alpha in (None, 0.1):
        with pytest.raises(MechRewardError, match="ended correct"):
            fit_exit(wrong, "value", alpha=alpha)
    with pytest.raises(MechRewardError, match="NaN"):
        Exit("value", math.nan)
    plain = mr.early_exit(tiny_model, PROBLEMS[:4], progress=False)
    with pytest.raises(MechRewardError, match="answers=True"):
        fit_exit(plain, "entropy", direction="above")
    with pytest.raises(MechRewardError, match="answers=True"):
        plain.curve("confidence")


def test_a_task_without_a_prefix_cannot_be_asked(tiny_model):
    problems = tiny.Even().problems("train", 2)
    for options in ({"answers": True}, {"rules": Exit("entropy", 0.0, "above")}):
        with pytest.raises(MechRewardError, match="answer_prefix"):
            mr.early_exit(tiny_model, problems, progress=False, **options)


def test_a_probe_of_steps_reads_no_states(tiny_model, probe):
    for reads in (of_probe(probe, difference=True), replace(of_probe(probe), rows="steps")):
        with pytest.raises(MechRewardError, match="no single states"):
            mr.early_exit(tiny_model, PROBLEMS[:2], value=reads, progress=False)


@pytest.mark.unchecked
def test_the_prefix_of_a_table_is_a_text():
    rows = [{"question": "1 + 1?", "answer": 2}]
    assert TextTask(rows).answer_prefix is None
    assert TextTask(rows, answer_prefix="Answer:").answer_prefix == "Answer:"
    for wrong in (3, " "):
        with pytest.raises(MechRewardError, match="answer_prefix"):
            TextTask(rows, answer_prefix=wrong)
