"""Verifiers that fail: named with their problem, the other rollouts kept; what they read."""

from __future__ import annotations

import contextlib
import signal
import time
import warnings
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
import tiny
import torch

import mechreward as mr
from mechreward.base.errors import MechRewardError
from mechreward.base.limit import TimeUp, within
from mechreward.bundled.vocabulary import WORDS
from mechreward.models.text import decode
from mechreward.rollouts.continuations import answer, beginnings
from mechreward.rollouts.steps import StepWarning
from mechreward.rollouts.value import estimate
from mechreward.tasks import Problem, Verdict
from mechreward.tasks.judge import FEW, VerifierWarning, judge

SITE = "1.resid_post"
RIGHT = Verdict("correct")


def hang() -> None:
    while True:
        pass


def leave() -> None:
    raise SystemExit("the verifier's own way out")


def outside() -> Verdict:
    return Verdict("maybe")  # pyright: ignore[reportArgumentType]


# What a verifier may do, and what is said of it.
FAILURES: dict[str, tuple[Callable[[], Any], str]] = {
    "outcome": (outside, "unknown outcome 'maybe'. Possible: correct, incorrect, unverifiable"),
    "bool": (lambda: True, "no Verdict but True"),
    "none": (lambda: None, "no Verdict but None"),
    "text": (lambda: "correct", "no Verdict but 'correct'"),
    "exception": (lambda: 1 // 0, "ZeroDivisionError: integer division or modulo by zero"),
    "exit": (leave, "SystemExit: the verifier's own way out"),
    "hang": (hang, "no verdict within 0.2 seconds"),
}


class Fails(tiny.Even):
    """Fails on the answers to some problems."""

    name = "fails"
    seconds = 0.2

    def __init__(self, how: str, bad: tuple[str, ...]) -> None:
        self.how, self.bad = how, bad

    def verify(self, problem: Problem, text: str) -> Verdict:
        if problem.id in self.bad and text:
            return FAILURES[self.how][0]()
        return super().verify(problem, text)


def problems(how: str, n: int = 4, bad: int = 1) -> list[Problem]:
    """Problems on the last `bad` of which the verifier fails."""
    drawn = tiny.Even().problems("test", n)
    task = Fails(how, tuple(problem.id for problem in drawn[n - bad :]))
    return [Problem(each.id, each.prompt, each.answer, {}, task) for each in drawn]


@pytest.mark.unchecked
@pytest.mark.parametrize("how", FAILURES)
def test_a_failure_is_named_with_its_problem_and_the_other_rollouts_are_kept(tiny_model, how: str):
    asked = problems(how)
    whole = [Problem(each.id, each.prompt, each.answer, {}, tiny.Even()) for each in asked]
    wanted = mr.sample(tiny_model, whole, k=2, seed=3, progress=False)
    with pytest.warns(VerifierWarning) as told:
        runs = mr.sample(tiny_model, asked, k=2, seed=3, progress=False)
    assert [run.tokens.tolist() for run in runs] == [run.tokens.tolist() for run in wanted]
    assert [run.verdict for run in runs][:6] == [run.verdict for run in wanted][:6]
    for run in runs.trajectories[6:]:
        assert run.verdict.outcome == "unverifiable" and run.reward == 0
        assert FAILURES[how][1] in run.verdict.reason
    (warning,) = told
    message = str(warning.message)
    assert "failed on 2 of 8 answers" in message and "\n" not in message
    assert f"problem {asked[3].id!r}: {FAILURES[how][1]}" in message


@pytest.mark.unchecked
@pytest.mark.parametrize("how", ["exception", "bool", "outcome"])
def test_values_and_interventions_judge_alike(tiny_model, how: str):
    asked = problems(how)
    with pytest.warns(VerifierWarning):
        runs = mr.sample(tiny_model, asked, progress=False)
    with pytest.warns(VerifierWarning, match="count as unverifiable"):
        values = estimate(tiny_model, runs, k=2, progress=False)
    assert len(values.mean) == sum(run.steps + 1 for run in runs)
    jobs = [(state, (), ("x", n)) for n, state in enumerate(beginnings(tiny_model, asked))]
    with pytest.warns(VerifierWarning):
        answers = answer(tiny_model, jobs)
    assert answers.parsed.tolist() == [True] * 3 + [False]


@pytest.mark.unchecked
@pytest.mark.parametrize("how", FAILURES)
def test_a_verifier_that_fails_throughout_is_given_up(how: str):
    asked = problems(how, 12, 12)
    task = asked[0].task
    assert task is not None
    began = time.monotonic()
    with pytest.raises(MechRewardError, match=f"failed on all of {FEW} answers") as error:
        judge(task, asked, ["some text"] * 12, [True] * 12)
    assert "\n" not in str(error.value) and FAILURES[how][1] in str(error.value)
    assert time.monotonic() - began < 10


def test_many_failed_answers_to_one_problem_are_no_reason_to_give_up():
    asked = problems("exception", 2)
    task = asked[0].task
    assert task is not None
    with pytest.warns(VerifierWarning, match="20 of 21"):
        verdicts = judge(task, [asked[1]] * 20 + [asked[0]], ["a b"] * 21, [True] * 21)
    assert verdicts[20] == Verdict("correct", "2 words")


@pytest.mark.unchecked
def test_a_verifier_is_tried_before_anything_is_sampled(tiny_model, monkeypatch):
    monkeypatch.setattr(
        "mechreward.rollouts.sample.generate", lambda *_, **__: pytest.fail("sampled")
    )

    class Bool(tiny.Even):
        def verify(self, problem: Problem, text: str) -> Any:
            return text == problem.answer

    asked = Bool().problems("test", 2)
    with pytest.raises(MechRewardError, match="no Verdict but False") as error:
        mr.sample(tiny_model, asked, progress=False)
    assert repr(asked[0].id) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.unchecked
def test_a_verdict_is_one_of_three():
    for outcome in ("right", "Correct", True, None, 1, ["correct"]):
        with pytest.raises(MechRewardError, match="Possible: correct, incorrect, unverifiable"):
            Verdict(outcome)  # pyright: ignore[reportArgumentType]
    with pytest.raises(MechRewardError, match="reason of a verdict must be str; 3 was given"):
        Verdict("incorrect", 3)  # pyright: ignore[reportArgumentType]


# The limit


@pytest.fixture
def no_alarm():
    """Whoever was waiting for an alarm still is."""
    before = signal.getsignal(signal.SIGALRM)
    yield
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def stubborn() -> None:
    """Hangs again in its own handler."""
    for _ in range(3):
        with contextlib.suppress(BaseException):
            hang()


def backtracking() -> None:
    """A catastrophic regular expression: one call of C that takes for ever."""
    import re

    re.match(r"(a*)*b", "a" * 64)


@pytest.mark.parametrize("call", [hang, lambda: time.sleep(60), stubborn, backtracking])
def test_what_hangs_is_interrupted(no_alarm, call: Callable[[], None]):
    began = time.monotonic()
    with contextlib.suppress(TimeUp):
        within(0.1, call)
    assert time.monotonic() - began < 5


def test_what_returns_or_raises_in_time_does(no_alarm):
    assert within(5.0, lambda: 7) == 7
    with pytest.raises(TimeoutError, match="its own"):
        within(5.0, lambda: (_ for _ in ()).throw(TimeoutError("its own")))


def test_another_alarm_goes_on():
    rung: list[float] = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(time.monotonic()))
    try:
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.4)
        with pytest.raises(TimeUp):
            within(0.1, hang)
        while not rung and time.monotonic() - began < 5:
            pass
        assert 0.39 < rung[0] - began < 3
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_other_threads_have_a_limit_too():
    told: list[object] = []

    def work() -> None:
        for call in (lambda: 7, lambda: 1 // 0, lambda: time.sleep(3)):
            try:
                told.append(within(0.2, call))
            except (TimeUp, ZeroDivisionError) as error:
                told.append(type(error))

    thread = Thread(target=work)
    thread.start()
    thread.join(10)
    assert told == [7, ZeroDivisionError, TimeUp]


# What a verifier reads


def test_special_tokens_are_shown_to_the_verifier_but_for_the_end(tiny_model):
    seven, bos, unknown, end = (WORDS.index(w) for w in ("7", "<bos>", "<unk>", "<eos>"))
    assert decode(tiny_model, [seven, bos, unknown, seven, end]) == "7 <bos> <unk> 7"
    assert decode(tiny_model, [seven, end, seven]) == "7 <eos> 7"
    assert decode(tiny_model, torch.tensor([end])) == decode(tiny_model, []) == ""


def test_a_model_that_says_special_tokens_is_read_as_it_speaks(tiny_model):
    read: list[str] = []

    class Listens(tiny.Even):
        def verify(self, problem: Problem, text: str) -> Verdict:
            read.append(text)
            return super().verify(problem, text)

    site = mr.Site.parse(SITE)
    bias = torch.zeros(32)
    (problem,) = Listens().problems("test", 1)
    weight = tiny.huggingface().lm_head.weight[WORDS.index("<bos>")].detach()
    bias += 40 * weight / weight.norm()
    hooks = [(site.hook, lambda tensor, hook: tensor + bias)]
    runs = mr.sample(tiny_model, [problem], hooks=hooks, progress=False)
    said = [WORDS[token] for token in runs[0].tokens[runs[0].prompt_len :]]
    assert "<bos>" in said
    assert read[-1].replace("\n", " \n ").split() == [w for w in said if w not in ("<eos>", "\n")]
    assert read[-1].count("<bos>") == said.count("<bos>")


def test_a_sound_verifier_warns_of_nothing(tiny_model):
    with warnings.catch_warnings():
        warnings.simplefilter("error", VerifierWarning)
        mr.sample(tiny_model, tiny.Even().problems("test", 3), progress=False)


class Cuts(tiny.Even):
    """Its step_ends fails on one problem."""

    seconds = 0.2

    def __init__(self, bad: str, give: Any) -> None:
        self.bad, self.give = bad, give

    def step_ends(self, pieces: Any, prompt_len: int) -> Any:
        if "".join("".join(pieces[:prompt_len]).split()).endswith(self.bad):
            return self.give(pieces, prompt_len)
        return super().step_ends(pieces, prompt_len)


def stall(pieces: Any, prompt_len: int) -> Any:
    time.sleep(60)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("give", "why"),
    [
        (lambda pieces, n: 1 / 0, "ZeroDivisionError"),
        (stall, "no steps within 0.2 seconds"),
        (lambda pieces, n: None, "TypeError"),
        (lambda pieces, n: ["a"], "TypeError"),
        (lambda pieces, n: [n - 1, len(pieces)], "no positions that rise"),
        (lambda pieces, n: [n, len(pieces) - 1], "no positions that rise"),
        (lambda pieces, n: [n - 1, n - 1], "no positions that rise"),
        (lambda pieces, n: [n - 1], "no positions that rise"),
    ],
    ids=["raises", "hangs", "none", "text", "beyond", "late", "twice", "no-step"],
)
def test_steps_that_cannot_be_cut_cost_their_answer_alone(tiny_model, give: Any, why: str):
    drawn = tiny.Even().problems("test", 4)
    wanted = mr.sample(tiny_model, drawn, k=2, seed=3, progress=False)
    task = Cuts("".join(str(drawn[3].prompt).split()), give)
    asked = [Problem(each.id, each.prompt, each.answer, {}, task) for each in drawn]
    with pytest.warns(StepWarning) as told:
        runs = mr.sample(tiny_model, asked, k=2, seed=3, progress=False)
    assert [run.tokens.tolist() for run in runs] == [run.tokens.tolist() for run in wanted]
    assert [run.step_ends for run in runs][:6] == [run.step_ends for run in wanted][:6]
    for run in runs.trajectories[6:]:
        assert run.step_ends == (run.prompt_len - 1, len(run.tokens) - 1)
    (warning,) = told
    message = str(warning.message)
    assert "answers to 1 problems, of 8 answers" in message and "\n" not in message
    assert f"problem {drawn[3].id!r}: " in message and why in message
