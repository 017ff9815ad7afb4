"""Confidence on the tiny model: every baseline by a plain loop, the splits, what is chosen where,
files, transfer, and mistakes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rows as made
import tiny
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import mechreward as mr
from mechreward import Confidence, MechRewardError, confidence
from mechreward.bundled.vocabulary import WORDS
from mechreward.models.load import load
from mechreward.models.text import decode
from mechreward.tasks import Problem, Verdict
from mechreward.uses.confidence.calibrators import MANY, calibrator, chosen
from mechreward.uses.confidence.deal import deal
from mechreward.uses.confidence.logit import Logit
from mechreward.uses.confidence.p_true import BEHIND, QUESTION, p_true
from mechreward.uses.confidence.text import HOW, Text

SITE = "1.resid_post"
QUICK = {"shape": "linear", "draws": 3, "progress": False}


class First(tiny.Even):
    """An answer is its first word."""

    name = "first"

    def answer(self, text: str) -> str | None:
        words = text.split()
        return words[0] if words else None


TASK = First()


def sampled(model, split: str, n: int, k: int = 1, seed: int = 0) -> mr.Rollouts:
    return mr.sample(model, TASK.problems(split, n), k=k, seed=seed, progress=False)


@pytest.fixture(scope="module")
def fit(tiny_model):
    return sampled(tiny_model, "train", 30, k=2)


@pytest.fixture(scope="module")
def calibration(tiny_model):
    return sampled(tiny_model, "validation", 16, k=2, seed=1)


@pytest.fixture(scope="module")
def runs(tiny_model):
    return sampled(tiny_model, "test", 20, k=3, seed=2)


@pytest.fixture(scope="module")
def neurons(tiny_model, fit):
    acts = mr.record(tiny_model, fit, SITE, progress=False)[SITE]
    return mr.NeuronSet.of(acts, [3, 8, 21], "by hand")


@pytest.fixture(scope="module")
def conf(tiny_model, runs, neurons, fit, calibration):
    return confidence(tiny_model, runs, neurons, fit=fit, calibration=calibration, **QUICK)


def raw(conf: Confidence, stage: str, arm: str) -> np.ndarray:
    return conf.group(stage).arm(arm).raw


# What every baseline is


def test_every_answer_and_state_has_a_row(conf, runs):
    frame = conf.frame()
    assert len(frame) == sum(run.steps + 1 for run in runs) + len(runs)
    row = 0
    for stage, first, last in (("prompt", 0, 0), ("partial", 1, -1), ("answer", None, None)):
        part = frame[frame.stage == stage].reset_index()
        row = 0
        for number, run in enumerate(runs):
            states = range(first, first + 1) if first == 0 else range(1, run.steps)
            if last is None:
                states = [run.steps]
            for step in states:
                line = part.loc[row]
                assert (line.trajectory, line.step) == (number, step)
                assert line.problem == run.problem_id and line.reward == run.reward
                row += 1
        assert row == len(part)
    several = frame[frame.stage == "k answers"]
    assert several.trajectory.tolist() == list(range(len(runs)))


def test_surface_baselines_by_a_plain_loop(conf, tiny_plain, runs):
    found: dict[tuple[str, str], list[float]] = {}

    def note(stage: str, name: str, value: float) -> None:
        found.setdefault((stage, name), []).append(value)

    for run in runs:
        with torch.no_grad():
            logs = tiny_plain(run.tokens[None]).logits[0].double().log_softmax(-1)
        told = [float(logs[t - 1, run.tokens[t]]) for t in range(1, len(run.tokens))]
        entropy = [float(-(row.exp() * row).sum()) for row in logs]
        certainty = [float(-row.mean() - np.log(logs.shape[1])) for row in logs]
        first = run.prompt_len
        note("prompt", "problem_length", first)
        note("prompt", "log_perplexity", -np.mean(told[: first - 1]))
        note("prompt", "next_token_entropy", entropy[first - 1])
        for step in range(1, run.steps + 1):
            end = run.step_ends[step] + 1 if step < run.steps else len(run.tokens)
            stage = "partial" if step < run.steps else "answer"
            length = "tokens_so_far" if step < run.steps else "answer_length"
            note(stage, length, end - first)
            note(stage, "mean_logprob", np.mean(told[first - 1 : end - 1]))
            note(stage, "mean_entropy", np.mean(entropy[first - 1 : end - 1]))
            note(stage, "self_certainty", np.mean(certainty[first - 1 : end - 1]))
            if step < run.steps:
                note(stage, "steps", step)
            else:
                note(stage, "sequence_logprob", sum(told[first - 1 : end - 1]))
    for (stage, name), values in found.items():
        signed = raw(conf, stage, name)
        sign = np.sign(signed[0] / values[0])
        np.testing.assert_allclose(signed, sign * np.array(values), atol=2e-4, err_msg=name)


def test_agreement_and_entropy_by_a_plain_loop(conf, tiny_model, runs):
    said: dict[str, list[str]] = {}
    for number, run in enumerate(runs):
        text = decode(tiny_model, run.tokens[run.prompt_len :])
        said.setdefault(run.problem_id, []).append(TASK.answer(text) or f"nothing {number}")
    agreement, entropy, counted = [], [], dict.fromkeys(said, 0)
    for run in runs:
        answers = said[run.problem_id]
        mine = answers[counted[run.problem_id]]
        counted[run.problem_id] += 1
        agreement.append((answers.count(mine) - 1) / (len(answers) - 1))
        shares = [answers.count(answer) / len(answers) for answer in set(answers)]
        entropy.append(-sum(share * np.log(share) for share in shares))
    assert len(set(agreement)) > 1 and len(set(entropy)) > 1
    for name, values in (("agreement", agreement), ("answer_entropy", entropy)):
        signed = raw(conf, "k answers", name)
        assert np.allclose(np.abs(signed), values)
    # Of several answers a read-out is its mean over them, at the end.
    ends = raw(conf, "answer", "value").reshape(-1, 3).mean(1)
    assert np.allclose(raw(conf, "k answers", "value"), np.repeat(ends, 3))


def test_the_value_arm_is_the_small_probe_at_its_states(conf, tiny_model, fit, runs, neurons):
    acts = mr.record(tiny_model, fit, SITE, progress=False)[SITE]
    test = mr.record(tiny_model, runs, SITE, progress=False)[SITE]
    last = np.array([run.steps for run in fit])[acts.trajectory]
    reward = np.array(fit.rewards)[acts.trajectory].astype(float)
    group = np.array(fit.groups)[acts.trajectory]
    columns = list(neurons.indices)
    for live, stage in ((True, "prompt"), (False, "answer")):
        keep = (acts.step < last) == live
        x = acts.x[torch.from_numpy(keep)][:, columns]
        probe = mr.ValueProbe("mc", "linear").fit(x.numpy(), reward[keep], group[keep])
        steps = np.array([run.steps for run in runs])[test.trajectory]
        here = (test.step == 0) if live else (test.step == steps)
        read = probe.predict(test.x[torch.from_numpy(here)][:, columns].numpy())
        np.testing.assert_allclose(raw(conf, stage, "value"), read, atol=1e-6)


def test_words_are_scikit_learns_pipeline(fit, runs):
    prompts = [problem.prompt for problem in fit.problems]
    y = np.array(fit.rewards, float)
    text = Text.of(prompts, y, np.array(fit.groups))
    vectorizer = TfidfVectorizer(**HOW)
    x = vectorizer.fit_transform(prompts)
    model = LogisticRegression(C=text.strength, max_iter=2000).fit(x, fit.rewards)
    new = [problem.prompt for problem in runs.problems]
    expected = model.decision_function(vectorizer.transform(new))
    np.testing.assert_allclose(text.score(new), expected, atol=2e-3)


def test_a_soft_label_is_so_many_answers():
    """V-hat of 3 in 4 teaches what three right answers and a wrong one teach."""
    random = np.random.default_rng(0)
    x, right = random.normal(size=(30, 2)), random.integers(0, 5, 30)
    soft = Logit.of(x, right / 4, 1.0)
    many = np.repeat(x, 4, axis=0)
    label = (np.tile(np.arange(4), 30) < np.repeat(right, 4)).astype(int)
    scaled = (many - x.mean(0)) / x.std(0)
    hard = LogisticRegression(C=1 / 4, max_iter=2000).fit(scaled, label)  # four times the rows
    np.testing.assert_allclose(soft.weight, hard.coef_[0], atol=1e-3)


def test_calibrators_are_scikit_learns():
    random = np.random.default_rng(1)
    score = np.round(random.normal(size=300), 1)
    reward = (random.random(300) < 1 / (1 + np.exp(-2 * score))).astype(int)
    new = np.linspace(-4, 4, 50)
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score, reward)
    isotonic = calibrator(score, reward, "isotonic")
    np.testing.assert_allclose(isotonic.prob(new), fitted.predict(new), atol=1e-12)

    # scikit-learn's Platt scaling takes an estimator: one whose decision is the score itself.
    plain = LogisticRegression().fit(score[:, None], reward)
    plain.coef_, plain.intercept_ = np.array([[1.0]]), np.array([0.0])
    sigmoid = CalibratedClassifierCV(FrozenEstimator(plain), method="sigmoid")
    sigmoid.fit(score[:, None], reward)
    platt = calibrator(score, reward, "platt")
    np.testing.assert_allclose(
        platt.prob(new), sigmoid.predict_proba(new[:, None])[:, 1], atol=1e-3
    )


def test_few_problems_are_calibrated_by_platt(conf):
    assert (chosen(None, MANY - 1), chosen(None, MANY)) == ("platt", "isotonic")
    assert chosen("isotonic", 3) == "isotonic"
    assert conf.fitted.calibrator == "platt"


# What is measured


def test_metrics_are_those_of_the_frame(conf):
    metrics = conf.metrics(draws=0).set_index(["stage", "arm"])
    frame = conf.frame()
    for stage, group in conf.groups.items():
        part = frame[frame.stage == stage]
        best = metrics.loc[stage].query("best").index.tolist()
        assert best == [group.best] and metrics.loc[(stage, group.best), "role"] == "surface"
        for arm in ("value", "full_linear", group.best):
            line = metrics.loc[(stage, arm)]
            assert line.auroc == pytest.approx(roc_auc_score(part.reward, part[arm]))
            prob = part[f"{arm}_calibrated"]
            assert line.brier == pytest.approx(np.mean((prob - part.reward) ** 2))
            assert ((prob >= 0) & (prob <= 1)).all()
            assert line.problems == part.problem.nunique() and line.rows == len(part)
            base = max(roc_auc_score(part.reward, part[group.best]), 0.5)
            if arm != group.best:
                assert line.increment == pytest.approx(line.auroc - base)
        assert np.isnan(metrics.loc[(stage, group.best), "increment"])
        sets = [roc_auc_score(group.reward, arm.raw) for arm in group.draws("matched")]
        matched = metrics.loc[(stage, "matched")]
        assert len(sets) == 3 and matched.auroc == pytest.approx(np.mean(sets))
        assert (matched.auroc_low, matched.auroc_high) == pytest.approx((min(sets), max(sets)))
        rank = 1 + sum(each >= metrics.loc[(stage, "value"), "auroc"] for each in sets)
        assert metrics.loc[(stage, "value"), "rank"] == rank
        assert metrics.loc[(stage, "value"), "p_rank"] == pytest.approx(rank / 4)
        assert metrics.loc[(stage, "value"), "neurons"] == 3


def test_bounds_hold_the_estimates_and_come_again(conf):
    first, second = (conf.measured("answer", draws=40)["value"] for _ in range(2))
    assert repr(first) == repr(second)
    for name in ("auroc", "increment", "added", "brier", "aurc"):
        score = first[name]
        assert score.low <= score.estimate <= score.high, name
        assert score.n == 20, "problems, not answers"


def test_the_best_baseline_is_chosen_on_the_calibration_split(
    tiny_model, conf, runs, neurons, fit, calibration
):
    """With test and calibration in each other's place, the scores on what was calibration tell
    which baseline is best there."""
    turned = confidence(tiny_model, calibration, neurons, fit=fit, calibration=runs, **QUICK)
    for stage, group in turned.groups.items():
        areas = {}
        for arm in group.arms:
            if arm.role == "surface":
                areas[arm.name] = roc_auc_score(group.reward, arm.raw)
        best = conf.group(stage).best
        assert areas[best] == pytest.approx(max(areas.values())), stage


def test_signs_are_learnt_where_the_fit_is(conf, tiny_model, fit):
    """The longer prompts are right on `fit` or they are not: no other split has a say."""
    area = roc_auc_score(fit.rewards, [run.prompt_len for run in fit])
    assert (raw(conf, "prompt", "problem_length")[0] > 0) == (area >= 1 / 2)
    lengths = [run.length for run in fit]
    longer = roc_auc_score(fit.rewards, lengths) >= 1 / 2
    assert (raw(conf, "answer", "answer_length")[0] > 0) == longer


def test_pictures_data(conf):
    table = conf.reliability("value", "answer", bins=5)
    group = conf.group("answer")
    prob = group.arm("value").calibrated
    assert table.rows.sum() == len(prob)
    assert (table.confidence * table.rows).sum() / len(prob) == pytest.approx(prob.mean())
    assert (table.right * table.rows).sum() == pytest.approx(group.reward.sum())
    assert ((table.low <= table.right) & (table.right <= table.high)).all()
    curve = conf.risk_coverage("value", "answer")
    assert curve.coverage.iloc[-1] == 1
    assert curve.risk.iloc[-1] == curve.oracle.iloc[-1] == pytest.approx(curve.random.iloc[-1])
    assert (curve.oracle <= curve.risk + 1e-12).all()
    score = conf.measured("answer", 0)["value"]["aurc"]
    assert curve.risk.mean() == pytest.approx(score.estimate)


def test_what_is_not_defined_is_told(conf, tiny_model, runs, neurons, fit, calibration):
    assert "not defined here: p_true at answer (the tokenizer has no tokens" in str(conf)
    with pytest.raises(MechRewardError, match="p_true is not defined here: the tokenizer has no"):
        conf.risk_coverage("p_true", "answer")
    few = [i for i, run in enumerate(runs) if run.sample == 0]
    single = confidence(
        tiny_model, runs.subset(few), neurons, fit=fit, calibration=calibration, **QUICK
    )
    assert "k answers" not in single.groups and "one answer to each" in single.missing["k answers"]
    with pytest.raises(MechRewardError, match="'k answers' is not defined here: there is one"):
        single.group("k answers")
    # Signs of what several answers say are then as one expects, for nothing teaches them.
    first = [i for i, run in enumerate(fit) if run.sample == 0]
    lone = confidence(
        tiny_model, runs, neurons, fit=fit.subset(first), calibration=calibration, **QUICK
    )
    assert (raw(lone, "k answers", "agreement") >= 0).all()
    assert (raw(lone, "k answers", "answer_entropy") <= 0).all()
    alone = raw(lone, "answer", "all_surface")  # every problem has several: the same rows
    assert np.array_equal(raw(lone, "k answers", "all_surface"), alone)


def test_difficulty_is_left_out_where_a_problem_has_none(tiny_model, runs, neurons, fit):
    bare = [replace(runs.problems[0], info={}), *runs.problems[3:]]
    problems = (*[bare[0]] * 3, *bare[1:])
    found = confidence(
        tiny_model, replace(runs, problems=problems), neurons, fit=fit, share=0.4, **QUICK
    )
    group = found.group("prompt")
    assert "difficulty" not in {arm.name for arm in group.arms}


def test_values_teach_what_rewards_teach_with_noise(tiny_model, runs, neurons, fit, calibration):
    fit = fit.subset(range(0, 60, 3))
    values = mr.estimate(tiny_model, fit, k=4, progress=False)
    taught = confidence(
        tiny_model, runs, neurons, fit=fit, values=values, calibration=calibration, **QUICK
    )
    acts = mr.record(tiny_model, fit, SITE, progress=False)[SITE]
    probe = mr.ValueProbe("mc", "linear").fit(acts, values)
    test = mr.record(tiny_model, runs, SITE, progress=False)[SITE]
    read = probe.predict(test)[test.step == 0]
    np.testing.assert_allclose(raw(taught, "prompt", "full_linear"), read, atol=1e-6)
    given = confidence(tiny_model, runs, probe, fit=fit, calibration=calibration, **QUICK)
    np.testing.assert_allclose(raw(given, "prompt", "value"), read, atol=1e-6)
    assert "the probe reads the whole site" in given.group("prompt").missing["matched"]
    with pytest.raises(MechRewardError, match="belong to different trajectories"):
        confidence(
            tiny_model, runs, neurons, fit=calibration, values=values, calibration=fit, **QUICK
        )


# The three splits


def test_one_set_of_rollouts_is_dealt_by_problem(fit, runs):
    for given, sizes in (((None, None), (10, 3, 7)), ((fit, None), (30, 7, 13))):
        dealt = deal(runs, *given, share=1 / 3, seed=0)
        parts = [dealt.fit, dealt.calibration, dealt.test]
        prompts = [{problem.question for problem in part.problems} for part in parts]
        assert [len(part) for part in prompts] == list(sizes)
        assert not prompts[0] & prompts[1] and not prompts[1] & prompts[2]
        assert not prompts[0] & prompts[2]
        for part in parts:
            assert len(set(part.rewards)) == 2
        again = deal(runs, *given, share=1 / 3, seed=0)
        assert again.test.groups == dealt.test.groups
        other = deal(runs, *given, share=1 / 3, seed=1)
        assert {p.id for p in other.test.problems} != {p.id for p in dealt.test.problems}


def test_a_single_set_is_enough(tiny_model, neurons):
    runs = sampled(tiny_model, "test", 40, k=2, seed=5)
    found = confidence(tiny_model, runs, neurons, **QUICK)
    assert found.fitted.problems == (20, 7)
    assert len(found.problems) == 13


# P(True)


CHAT = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def talkers(tmp_path_factory):
    """The tiny model with words for yes and no, and the same as a plain HuggingFace model."""
    words = [*WORDS, "Yes", "No", "yes"]
    plain = tiny.huggingface(3, words)
    model = load(tiny.save(plain, tmp_path_factory.mktemp("talker") / "talker", words))
    model.tokenizer.chat_template = CHAT
    return model, plain, words


def asked_of(plain, words: list[str], tokens: torch.Tensor) -> float:
    with torch.no_grad():
        p = plain(tokens[None]).logits[0, -1].double().softmax(-1)
    yes = float(p[words.index("Yes")] + p[words.index("yes")])
    no = float(p[words.index("No")])
    return yes / (yes + no)


@pytest.mark.parametrize("chat", [False, True])
def test_p_true_asks_in_the_form_of_the_prompt(talkers, chat: bool):
    model, plain, words = talkers
    problems = []
    for problem in TASK.problems("test", 4):
        prompt = [{"role": "user", "content": problem.prompt.strip()}] if chat else problem.prompt
        problems.append(Problem(problem.id, prompt, "", problem.info, TASK))
    runs = mr.sample(model, problems, k=2, progress=False)
    found, why = p_true(model, runs, batch=3)
    assert why == "" and found is not None
    tokenizer = model.tokenizer
    for run, problem, p in zip(runs, runs.problems, found, strict=True):
        answer = run.tokens[run.prompt_len :]
        if chat:
            said = tokenizer.decode(answer[answer != 2])
            text = f"{problem.prompt[0]['content']}\n{said}\n{QUESTION}\n"
            ids = tokenizer(text, add_special_tokens=False).input_ids
            expected = torch.tensor(ids)
        else:
            ended = answer[:-1] if int(answer[-1]) == 2 else answer
            behind = tokenizer(BEHIND, add_special_tokens=False).input_ids
            prompt = run.tokens[: run.prompt_len]
            expected = torch.cat([prompt, ended, torch.tensor(behind)])
        assert p == pytest.approx(asked_of(plain, words, expected), abs=1e-4)
    assert len({round(float(p), 6) for p in found}) > 1


def test_p_true_is_a_baseline_of_the_answer(talkers):
    model, _, _ = talkers
    runs = sampled(model, "test", 36, k=1, seed=4)
    acts = mr.record(model, runs, SITE, progress=False)[SITE]
    found = confidence(model, runs, mr.NeuronSet.of(acts, [1, 2], "by hand"), **QUICK)
    prob = found.group("answer").arm("p_true")
    assert prob.role == "surface" and (np.abs(prob.raw) <= 1).all()
    assert "p_true" not in found.group("answer").missing


# Files


def test_a_file_holds_all_that_was_learnt(conf, tiny_model, tmp_path: Path):
    again = Confidence.load(conf.save(tmp_path / "conf.safetensors"))
    pd.testing.assert_frame_equal(again.frame(), conf.frame())
    pd.testing.assert_frame_equal(again.metrics(0), conf.metrics(0))
    assert repr(again) == repr(conf) and str(again) == str(conf)
    assert again.group("answer").best == conf.group("answer").best
    new = sampled(tiny_model, "test", 12, k=2, seed=9)
    here, there = (confidence(tiny_model, new, each, progress=False) for each in (conf, again))
    pd.testing.assert_frame_equal(here.frame(), there.frame())
    table = tmp_path / "conf.csv"
    conf.to_csv(table)
    assert len(pd.read_csv(table)) == len(conf.frame())


def test_a_damaged_file_is_refused(conf, tmp_path: Path, runs):
    path = conf.save(tmp_path / "conf.safetensors")
    raw_bytes = bytearray(path.read_bytes())
    raw_bytes[-100] ^= 1
    path.write_bytes(raw_bytes)
    with pytest.raises(MechRewardError, match="not a confidence file as it was written"):
        Confidence.load(path)
    with pytest.raises(MechRewardError, match="holds rollouts, not a confidence"):
        Confidence.load(runs.save(tmp_path / "runs.safetensors"))


# Transfer


@pytest.fixture(scope="module")
def sibling(tmp_path_factory):
    """Another model with the same shape and tokens."""
    return load(tiny.save(tiny.huggingface(7), tmp_path_factory.mktemp("base") / "base"))


def test_all_that_was_learnt_goes_to_a_sibling(conf, sibling):
    runs = sampled(sibling, "test", 12, k=2, seed=3)
    with pytest.raises(MechRewardError, match="Give other_model=True"):
        confidence(sibling, runs, conf, progress=False)
    moved = confidence(sibling, runs, conf, other_model=True, progress=False)
    assert moved.model_id.name == "base" and moved.fitted is conf.fitted
    acts = mr.record(sibling, runs, SITE, progress=False)[SITE]
    value = conf.fitted.reader.scorers[0]
    x = acts.x[torch.from_numpy(acts.step == 0)][:, [3, 8, 21]]
    np.testing.assert_allclose(raw(moved, "prompt", "value"), value.live.predict(x), atol=1e-6)
    scale = conf.fitted.scales["prompt"].calibrators["value", 0]
    arm = moved.group("prompt").arm("value")
    np.testing.assert_allclose(arm.calibrated, scale.prob(arm.raw))


def test_value_neurons_of_a_sibling_are_refitted_where_asked(sibling, neurons):
    runs = sampled(sibling, "test", 40, k=1, seed=3)
    with pytest.raises(MechRewardError, match=r"this neuron set was made on .* other_model=True"):
        confidence(sibling, runs, neurons, **QUICK)
    found = confidence(sibling, runs, neurons, other_model=True, **QUICK)
    assert found.group("prompt").draws("matched")[0].neurons == 3


def test_another_task_may_lack_a_baseline(conf, tiny_model):
    """Without a difficulty what needs one is left out, and the next best baseline stands in."""

    class Other(First):
        name = "other"

        def draw(self, rng):
            problem = super().draw(rng)
            text = problem.prompt.replace("countdown", "chain")
            return Problem(text, text, "even", {})

    runs = mr.sample(tiny_model, Other().problems("test", 12), k=2, progress=False)
    moved = confidence(tiny_model, runs, conf, progress=False)
    group = moved.group("prompt")
    assert "difficulty" in group.missing and group.missing["all_surface"] == "it needs difficulty"
    assert group.best in {arm.name for arm in group.arms} and moved.task == "other"
    assert set(moved.groups) == set(conf.groups)


# Mistakes


def with_outcomes(runs: mr.Rollouts, outcome: str) -> mr.Rollouts:
    given = tuple(replace(run, verdict=Verdict(outcome)) for run in runs)
    return replace(runs, trajectories=given)


def test_without_a_verifier_there_is_confidence_and_nothing_measured(
    tiny_model, runs, neurons, fit, calibration, conf
):
    blind = with_outcomes(runs, "unverifiable")
    found = confidence(tiny_model, blind, neurons, fit=fit, calibration=calibration, **QUICK)
    frame = found.frame()
    assert frame.reward.isna().all()
    pd.testing.assert_series_equal(frame.value_calibrated, conf.frame().value_calibrated)
    for measure in (found.metrics, found.reliability, found.risk_coverage):
        with pytest.raises(MechRewardError, match="no answer was verified"):
            measure()
    with pytest.raises(MechRewardError, match="no answer of the calibration split was verified"):
        confidence(tiny_model, runs, neurons, fit=fit, calibration=with_outcomes(calibration, "unverifiable"), **QUICK)  # noqa: E501  # fmt: skip


@pytest.mark.unchecked
def test_mistakes_take_one_line(tiny_model, runs, neurons, fit, calibration, conf, sibling):
    def refused(match: str, *args, **options) -> None:
        given = {"fit": fit, "calibration": calibration, **QUICK, **options}
        with pytest.raises(MechRewardError, match=match) as error:
            confidence(*(args or (tiny_model, runs, neurons)), **given)
        assert "\n" not in str(error.value)

    right, wrong = with_outcomes(calibration, "correct"), with_outcomes(fit, "incorrect")
    refused("all 32 answers of the calibration split are right", calibration=right)
    refused("all 60 answers of the fit split are wrong", fit=wrong)
    refused("prompts stand in fit too", calibration=fit)
    refused("runs prompts stand in calibration too", tiny_model, calibration, neurons)
    refused("draws counts control sets of each kind and must be at least 1; 0", draws=0)
    refused("seed must be a whole number", seed=0.5)
    refused("unknown calibrator 'plat'; did you mean 'platt'", calibrator="plat")
    refused("unknown probe shape 'mpl'; did you mean 'mlp'", shape="mpl")
    refused(r"share is that of the problems to calibrate on, in \(0, 1\); 1.0", share=1.0)
    refused("runs must be Rollouts", tiny_model, [1], neurons)
    refused("fit must be Rollouts", fit="train")
    refused("runs holds no trajectories", tiny_model, runs.subset([]), neurons)
    refused("value must be NeuronSet or ValueProbe or Confidence", tiny_model, runs, [1, 2])
    refused("value must be", tiny_model, runs, mr.DopamineProbe())
    refused("the value set is empty", tiny_model, runs, neurons - neurons)
    refused("fitted to activations at states", tiny_model, runs, mr.ValueProbe())
    bare = mr.ValueProbe("mc", "linear").fit_examples(made.planted(30))
    refused("fitted to activations at states", tiny_model, runs, bare)
    refused("was made on", sibling, runs, neurons)
    refused("a confidence keeps all it was fitted to; leave out fit and calibration",
            tiny_model, runs, conf)  # fmt: skip
    refused("values are those of the rollouts to fit on",
            fit=None, values=made.two())  # fmt: skip
    refused("prompts of these rollouts were fitted to or calibrated on",
            tiny_model, calibration, conf, fit=None, calibration=None)  # fmt: skip
    one = runs.subset([0, 1, 2])
    refused("these rollouts are of one problem", tiny_model, one, neurons, calibration=None)


def test_names_of_arms_and_stages(conf):
    with pytest.raises(MechRewardError, match="unknown stage 'promt'; did you mean 'prompt'"):
        conf.group("promt")
    with pytest.raises(MechRewardError, match="did you mean 'mean_logprob'"):
        conf.risk_coverage("mean_logprobs", "answer")
    with pytest.raises(MechRewardError, match="unknown arm at stage 'prompt' 'answer_length'"):
        conf.reliability("answer_length", "prompt")
    with pytest.raises(MechRewardError, match="bins must be at least 1"):
        conf.reliability("value", "prompt", bins=0)
    with pytest.raises(MechRewardError, match="draws must be at least 0"):
        conf.metrics(draws=-1)
