"""Traces: the imitated solver says only what it did, notices what it should, and is right when it
sees all."""

from __future__ import annotations

import random

import pytest

from mechreward.bundled.traces import SOLVERS, Habits, trace
from mechreward.bundled.vocabulary import WORDS, tokenizer
from mechreward.tasks import GAMES, Chain, Countdown, LineTask, Paths

each_task = pytest.mark.parametrize(
    "task", [Countdown(), Chain(), Paths()], ids=lambda task: task.name
)


def traces(task: LineTask, habits: Habits, n: int = 60):
    rng = random.Random(7)
    for problem in task.problems("train", n):
        yield problem, trace(task, problem, rng, habits).split("\n")


@each_task
@pytest.mark.parametrize("wild", [False, True])
def test_every_line_is_legal_and_every_state_restated(task: LineTask, wild: bool):
    outcomes, backs = set(), 0
    for problem, lines in traces(
        task, Habits(0.5, 0.5, 0.7, 1) if wild else SOLVERS["hasty"][task.name]
    ):
        for cut in range(len(lines)):
            stack, undone, verdict = task.play(problem, "\n".join(lines[:cut]))
            assert verdict is None and None not in stack and undone <= task.max_backs
        assert lines[-1].split()[0] in ("answer", "fail")
        outcomes.add(task.verify(problem, "\n".join(lines)).outcome)
        backs += sum(line.startswith("back : ") for line in lines)
    assert outcomes == {"correct", "incorrect"} and backs > 3


@each_task
def test_one_who_sees_all_is_always_right_and_never_goes_back(task: LineTask):
    for problem, lines in traces(task, Habits(1.0, 1.0, 1.0, 1)):
        assert task.verify(problem, "\n".join(lines)).outcome == "correct"
        assert not any(line.startswith("back") for line in lines)
        assert task.name == "paths" or len(lines) == problem.difficulty + 1


@each_task
def test_one_who_always_notices_goes_back_at_once_and_only_then(task: LineTask):
    backs = 0
    for problem, lines in traces(task, Habits(0.0, 0.0, 1.0, 1)):
        for cut in range(1, len(lines)):
            stack, undone, _ = task.play(problem, "\n".join(lines[:cut]))
            alive = task.reachable(problem, stack[-1])
            if undone < task.max_backs and len(stack) > 1:
                spent = {move.line for move in task.moves(problem, stack[-1])} <= set(lines[:cut])
                assert lines[cut].startswith("back") == (
                    not alive or (spent and not lines[cut].startswith("answer"))
                )
            backs += lines[cut].startswith("back")
    assert backs > 10


@each_task
def test_one_who_never_notices_goes_back_only_where_no_move_is_left(task: LineTask):
    for problem, lines in traces(task, Habits(0.0, 0.0, 0.0, 1)):
        for cut in range(1, len(lines)):
            if lines[cut].startswith("back"):
                stack, _, _ = task.play(problem, "\n".join(lines[:cut]))
                assert {move.line for move in task.moves(problem, stack[-1])} <= set(lines[:cut])


@each_task
def test_one_who_finishes_never_misses_the_goal_one_move_away(task: LineTask):
    near = 0
    for problem, lines in traces(task, Habits(0.6, 1.0, 0.0, 1)):
        for cut, line in enumerate(lines):
            stack, _, _ = task.play(problem, "\n".join(lines[:cut]))
            after = {move.line: move.state for move in task.moves(problem, stack[-1])}
            right = [m for m, state in after.items() if task.reachable(problem, state)]
            if line in after and any(task.answer_at(problem, after[m]) is not None for m in right):
                assert line in right
                near += 1
    assert near > 5


@each_task
def test_no_mistake_is_made_twice_in_one_place(task: LineTask):
    for problem, lines in traces(task, Habits(0.0, 0.0, 1.0, 1)):
        made = set()
        for cut, line in enumerate(lines):
            if not line.startswith(("back", "answer", "fail")):
                stack, _, _ = task.play(problem, "\n".join(lines[:cut]))
                assert (tuple(map(str, stack)), line) not in made
                made.add((tuple(map(str, stack)), line))


@each_task
def test_same_generator_same_trace(task: LineTask):
    (problem,) = task.problems("train", 1)
    texts = [
        trace(task, problem, random.Random(seed), Habits(0.2, 0.2, 0.3, 1))
        for seed in (0, 0, *range(1, 20))
    ]
    assert texts[0] == texts[1] and len(set(texts)) > 1


@each_task
def test_traces_fit_the_token_limit(task: LineTask):
    words = tokenizer()
    for problem, lines in traces(task, Habits(0.0, 0.0, 0.5, 1)):
        said = words("\n".join(lines), add_special_tokens=False).input_ids
        assert len(said) + 1 <= task.max_tokens, problem
        assert WORDS.index("<unk>") not in said


def test_habits_are_there_for_every_task():
    assert all(habits.keys() == GAMES.keys() for habits in SOLVERS.values())
    allowed = {name: task.max_backs for name, task in GAMES.items()}
    assert all(habits.undos <= allowed[name] for name, habits in SOLVERS["hasty"].items()), (
        "going back loses nothing"
    )
