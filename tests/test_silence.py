"""An answer that says nothing, or ends before any answer does, is damage: never a sound answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny

import mechreward as mr
from mechreward import tasks
from mechreward.causal import claims
from mechreward.causal.trials import Steered
from mechreward.causal.verdict import Claim
from mechreward.rollouts.continuations import Answers, outcomes
from mechreward.tasks import Problem
from mechreward.tasks.base import UNFINISHED
from mechreward.tasks.judge import as_said
from mechreward.testbed.process import Planted

PASSED = Claim("causal", "pass", "")


def answers(
    reward: list[int], length: list[int], parsed: bool = True, ended: bool = True
) -> Answers:
    n = len(reward)
    yes = np.ones(n, bool)
    return Answers(np.array(reward), yes & parsed, yes & ended, np.array(length), ~yes)


def both(down: Answers, up: Answers) -> Answers:
    pairs = zip(vars(down).values(), vars(up).values(), strict=True)
    return Answers(*(np.stack(pair) for pair in pairs))


def steered(down: Answers, up: Answers) -> Steered:
    """Beside a clean model that is right on every second problem, in 9 to 12 tokens."""
    n = len(up.reward)
    base = answers([0, 1] * (n // 2), [9, 12] * (n // 2))
    rivals = dict.fromkeys(("next_token", "magnitude"), both(base, base))
    ids = tuple(map(str, range(n)))
    draws, readers = np.zeros((2, 99)), np.zeros((2, 0))
    return Steered(ids, base, both(down, up), rivals, {}, draws, readers, {}, 99, {}, {})


# Verdicts


@pytest.mark.parametrize("name", sorted(tasks.TASKS))
@pytest.mark.parametrize("text", ["", " ", "\n\n"])
def test_silence_is_unverifiable_to_every_task(name: str, text: str):
    task = tasks.get(name)
    (problem,) = task.problems("test", 1)
    for ended in (True, False):
        verdict = as_said(task.verify(problem, text), text, ended)
        assert (verdict.outcome, verdict.reason) == ("unverifiable", "nothing was said")
    assert task.verify(problem, text).outcome == "unverifiable"


def test_silence_is_unverifiable_whatever_a_task_says_of_it():
    task = tiny.Even()
    (problem,) = task.problems("test", 1)
    assert task.verify(problem, "").reward == 1, "no word is an even number of words"
    verdict = as_said(task.verify(problem, " "), " ", ended=True)
    assert (verdict.outcome, verdict.reward) == ("unverifiable", 0)
    right = task.verify(problem, "a b")
    assert as_said(right, "a b", ended=True) == right


@pytest.mark.parametrize(
    ("task", "text"), [(tasks.get("countdown"), "4 * 2 = 8 : 3 8"), (Planted(), "5.a 6.b")]
)
def test_an_end_without_an_answer_is_unverifiable_and_a_cut_is_wrong(task, text: str):
    info = {"numbers": [2, 4, 3], "target": 24, "difficulty": 2}
    problem = Problem("p", "countdown 24 from 2 4 3\n", "24", info, task)
    verdict = task.verify(problem, text)
    assert as_said(verdict, text, ended=True).outcome == "unverifiable"
    assert as_said(verdict, text, ended=False) == verdict == UNFINISHED


def test_giving_up_is_an_answer():
    task = tasks.get("countdown")
    (problem,) = task.problems("test", 1)
    assert as_said(task.verify(problem, "fail"), "fail", ended=True).outcome == "incorrect"


# The meter


def test_an_immediate_end_of_sequence_cannot_be_read(tiny_model):
    """The model can say nothing but the end: its bias is all that counts."""
    problems = tiny.Even().problems("test", 8)
    end = tiny_model.tokenizer.eos_token_id

    def end_at_once(logits, hook):
        logits[..., end] += 1e4
        return logits

    (name,) = [name for name in tiny_model.hook_dict if name == "unembed.hook_out"]
    runs = mr.sample(tiny_model, problems, hooks=[(name, end_at_once)], progress=False)
    assert {run.length for run in runs} == {1}
    clean = outcomes(tiny_model, mr.sample(tiny_model, problems, progress=False))
    meter = outcomes(tiny_model, runs).damage(clean)
    assert meter["parse_rate"] == 0 and meter["premature_rate"] == 1 and meter["length"] == 1
    assert not outcomes(tiny_model, runs).sound.any()


def test_wrong_endings_before_any_clean_one_are_premature():
    clean = answers([1, 0, 1], [9, 12, 30])
    assert answers([0, 0, 1, 0], [8, 9, 2, 60]).premature(clean).tolist() == [True, *[False] * 3]
    assert not answers([0], [8], ended=False).premature(clean).any(), "cut off, not ended"
    silent = answers([0], [1], parsed=False)
    assert silent.premature(clean).all()
    worse = replace(clean, length=np.array([9, 1, 30]), parsed=np.array([True, False, True]))
    assert answers([0], [8]).premature(worse).all(), "an unreadable clean answer is no measure"
    assert not answers([0], [1]).premature(silent).any(), "nothing to compare with"
    assert answers([0, 1], [3, 4]).damage(clean)["premature_rate"] == 0.5
    assert "premature_rate" not in clean.damage() and clean.damage(clean)["premature_rate"] == 0


# The claim


def test_silence_under_steering_is_damage():
    up = answers([1] * 20, [10] * 20)
    whole = answers([0] * 20, [10] * 20)
    assert claims.specific(steered(whole, up), PASSED, {}).verdict == "pass"
    for broken in (
        answers([0] * 20, [1] * 20, parsed=False),  # silent
        answers([0] * 20, [4] * 20),  # ends early, in words that a task cannot tell from an answer
        answers([0] * 20, [96] * 20, ended=False),
    ):
        found = claims.specific(steered(broken, up), PASSED, {})
        assert found.verdict == "fail" and "damage" in found.reason
        assert found.numbers["net"] == 0 and found.numbers["damage_base"]["premature_rate"] == 0
    assert found.numbers["damage_up"]["premature_rate"] == 0


def test_silence_under_one_steering_alone_is_no_cause():
    """Up changes nothing, so that the two steerings do not agree: what is left among sound answers
    tells."""
    up = answers([0, 1] * 20, [9, 12] * 20)
    sound = answers([0] * 40, [10] * 40)
    assert claims.causal(steered(sound, up)).verdict == "pass"
    for broken in (
        answers([0] * 40, [1] * 40, parsed=False),
        answers([0] * 40, [4] * 40),
        answers([0] * 40, [96] * 40, ended=False),
    ):
        found = claims.causal(steered(broken, up))
        assert found.verdict == "fail" and "damage is the larger part" in found.reason
        assert found.numbers["contrast"] == 0.5 and found.numbers["net"] == 0
        assert found.numbers["p_holm_sound"] == {"reward": 1}
    # Eight right answers become wrong, five of them silent: three alone cannot be told from chance,
    # and half of the change is not excluded.
    some = answers([0] * 16 + [0, 1] * 12, [10] * 40)
    some = replace(some, parsed=np.arange(40) >= 10)
    found = claims.causal(steered(some, up))
    assert found.verdict == "inconclusive" and "which is not settled: run n=160" in found.reason
    assert found.numbers["net"] == pytest.approx(3 / 40)


def changed(lost: int, silent: int, n: int = 200, draws: float = 0.0) -> Steered:
    """Half of the answers are right as they are; down loses so many of these, of which some are
    silent."""
    up = answers([0, 1] * (n // 2), [9, 12] * (n // 2))
    right = np.flatnonzero(up.reward)[:lost]
    reward = up.reward.copy()
    reward[right] = 0
    parsed = np.ones(n, bool)
    parsed[right[:silent]] = False
    trial = steered(replace(up, reward=reward, parsed=parsed, length=np.full(n, 10)), up)
    return replace(trial, draws=np.full((2, 99), draws))


@pytest.mark.parametrize(("lost", "silent"), [(40, 28), (30, 22), (20, 12)])
def test_a_difference_that_is_mostly_damage_is_no_pass(lost: int, silent: int):
    found = claims.causal(changed(lost, silent))
    assert found.verdict == "inconclusive" and "which is not settled" in found.reason
    assert claims.causal(changed(lost, lost // 4)).verdict == "pass"


def test_damage_does_not_lift_a_set_over_its_controls():
    """.30 in all, .15 of it sound; controls move .25."""
    found = claims.causal(changed(60, 30, draws=0.25))
    assert found.verdict == "fail" and "matched sets" in found.reason
    passed = claims.causal(changed(60, 20, draws=0.15))
    assert passed.verdict == "pass" and "0.20 [" in passed.reason and "can be read" in passed.reason


def mended(fixed: int, silenced: int) -> Steered:
    """Of 200 answers, half of them right, up makes so many wrong ones right, and silences so many
    right ones."""
    down = answers([0, 1] * 100, [9, 12] * 100)
    reward, parsed = down.reward.copy(), np.ones(200, bool)
    reward[np.flatnonzero(down.reward == 0)[:fixed]] = 1
    lost = np.flatnonzero(down.reward)[:silenced]
    reward[lost], parsed[lost] = 0, False
    return steered(down, replace(down, reward=reward, parsed=parsed))


def test_damage_does_not_hide_an_effect():
    """Nor is it hidden what keeps a difference from being excluded."""
    found = claims.causal(mended(20, 20))
    assert found.verdict == "inconclusive" and found.numbers["net"] == pytest.approx(0.1)
    assert "among answers that can be read and end in their time it differs by 0.10" in found.reason


def test_what_is_damage_is_said_where_another_measure_is_open():
    up, down = answers([1] * 40, [10] * 40), answers([0] * 40, [1] * 40, parsed=False)
    turned = np.arange(40) < 3
    trial = steered(replace(down, back=turned), up)
    found = claims.causal(trial)
    assert found.verdict == "inconclusive"
    assert "what it does to accuracy is damage" in found.reason


def test_damage_by_both_steerings_is_said_whatever_decides():
    silent = answers([0] * 200, [1] * 200, parsed=False)
    found = claims.causal(steered(silent, silent))
    assert found.verdict == "fail" and "excluded either way" in found.reason
    assert "what it does to accuracy is damage" in found.reason


def test_a_sure_effect_of_the_other_sign_is_no_damage():
    found = claims.causal(mended(40, 80))
    assert found.numbers["contrast"] == pytest.approx(-0.2)
    assert found.numbers["net"] == pytest.approx(0.2)
    assert found.verdict == "inconclusive"
    assert "More problems do not settle that" in found.reason and "run n=" not in found.reason


@pytest.mark.parametrize("silenced", [40, 44])
def test_an_effect_that_damage_cancels_is_not_settled_by_more_problems(silenced: int):
    found = claims.causal(mended(40, silenced))
    assert found.numbers["net"] == pytest.approx(0.2)
    assert found.verdict == "inconclusive"
    assert "More problems do not settle that" in found.reason and "run n=" not in found.reason


def test_one_odd_clean_answer_hides_no_damage():
    """It is shorter than any, and wrong."""
    trial = changed(60, 0)
    base = replace(trial.base, length=trial.base.length.copy())
    base.length[0] = 2
    early = replace(trial.own, length=np.where(trial.own.reward == trial.base.reward, 12, 3))
    found = claims.causal(replace(trial, base=base, own=early))
    assert found.verdict == "fail" and "damage is the larger part" in found.reason


def test_readers_are_held_against_what_is_sound():
    """.30 in all, .16 of it sound; other readers move .22."""
    trial = replace(changed(60, 28), readers=np.full((2, 19), 0.22))
    found = claims.causal(trial)
    assert found.verdict == "pass" and found.reason.startswith("causal, shared: 19 of 19")


def test_sets_that_move_more_are_counted():
    draws = np.zeros((2, 199))
    draws[:, 0] = 0.5
    trial = replace(changed(60, 10), draws=draws, planned=199)
    found = claims.causal(trial)
    assert found.verdict == "pass" and "beyond all but 1 of 199 sets" in found.reason


def test_no_difference_above_1_is_asked_for():
    up, down = answers([0, 1], [9, 12]), answers([0, 0], [9, 12])
    assert (
        "n=2 is too few to see a difference of any size" in claims.causal(steered(down, up)).reason
    )


def test_a_short_right_answer_is_no_damage():
    down, up = answers([0] * 20, [10] * 20), answers([1] * 20, [3] * 20)
    assert claims.specific(steered(down, up), PASSED, {}).verdict == "pass"
