"""Tasks: the same problems everywhere, disjoint splits, and verifiers against brute force that
shares no code."""

from __future__ import annotations

import hashlib
import random
import re
from functools import cache
from itertools import pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechreward import tasks
from mechreward.base.errors import MechRewardError
from mechreward.bundled.traces import Habits, trace
from mechreward.tasks import Chain, Countdown, LineTask, Paths, Problem, Task
from mechreward.tasks.base import SPLITS, split_of
from mechreward.tasks.countdown import _finals
from mechreward.tasks.lines import integers, operation

each_task = pytest.mark.parametrize(
    "task", [Countdown(), Chain(), Paths()], ids=lambda task: task.name
)

# SHA-256 of the first 40 prompts and answers of every split. Whoever changes them changes every
# published number.
FROZEN = {
    ("countdown", "train"): "7279b546c4aa67f1",
    ("countdown", "validation"): "2494d9018a547414",
    ("countdown", "test"): "c0aad9c825419ed8",
    ("chain", "train"): "2d1974703687c934",
    ("chain", "validation"): "ebfe97388fa2b72f",
    ("chain", "test"): "419a89821b749edf",
    ("paths", "train"): "8a6f13460d7bd502",
    ("paths", "validation"): "6ca3da2b1c49b2fd",
    ("paths", "test"): "8c9f2cc1c211accb",
}


# Problems and splits


@pytest.mark.parametrize(("name", "split"), FROZEN)
def test_problems_are_the_same_in_every_process(name: str, split: str):
    problems = tasks.get(name).problems(split, 40)
    text = "\n".join(problem.question + problem.answer for problem in problems)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == FROZEN[name, split]


@each_task
def test_splits_are_disjoint_and_shared_by_all_seeds(task: LineTask):
    ids = {
        (s, seed): {p.id for p in task.problems(s, 25, seed=seed)}
        for s in SPLITS
        for seed in (0, 1)
    }
    for (split, seed), found in ids.items():
        assert len(found) == 25
        for other in SPLITS:
            assert other == split or not found & ids[other, 1 - seed]
    assert ids["test", 0] != ids["test", 1]


@each_task
def test_fewer_problems_are_the_first_of_more(task: LineTask):
    assert task.problems("test", 30)[:7] == task.problems("test", 7)
    assert all(problem.task is task for problem in task.problems("test", 3))


def test_split_shares():
    shares = [split_of(f"problem {i}") for i in range(5000)]
    assert (
        abs(shares.count("test") / 5000 - 0.2) < 0.02
        and abs(shares.count("validation") / 5000 - 0.1) < 0.02
    )


def test_what_cannot_be_had_is_refused():
    with pytest.raises(MechRewardError, match="unknown split 'tset'; did you mean 'test'"):
        Chain().problems("tset", 1)
    with pytest.raises(MechRewardError, match="n=0"):
        Chain().problems("test", 0)
    with pytest.raises(MechRewardError, match="unknown task 'countdwn'; did you mean 'countdown'"):
        tasks.get("countdwn")

    class Two(Chain):
        def draw(self, rng: random.Random) -> Problem | None:
            return Problem(str(rng.randint(0, 1)), "", "")

    with pytest.raises(
        MechRewardError, match=r"chain has only [012] train problems within reach; 3 were asked for"
    ):
        Two().problems("train", 3)


@each_task
def test_the_vocabulary_says_every_problem_and_trace(task: LineTask):
    from mechreward.bundled.vocabulary import WORDS, tokenizer

    words = tokenizer()
    for problem in task.problems("train", 40):
        text = problem.prompt + trace(
            task, problem, random.Random(problem.id), Habits(0.3, 0.3, 0.5, 1)
        )
        ids = words(text).input_ids
        assert ids[0] == WORDS.index("<bos>") and WORDS.index("<unk>") not in ids
        assert words.decode(ids, skip_special_tokens=True) == text


# Truth by brute force


def compute(op: str, a: int, b: int) -> int | None:
    """One step of the game, spelled out."""
    if op == "/":
        results = [c for c in range(1, 100) if c * b == a]
        return results[0] if results else None
    c = {"+": a + b, "-": a - b, "*": a * b}[op]
    return c if 1 <= c <= 99 else None


def finals(pool: tuple[int, ...]) -> set[int]:
    """Every value of every binary tree over every order of the pool: expression trees, not
    pools."""

    @cache
    def trees(sequence: tuple[int, ...]) -> frozenset[int]:
        if len(sequence) == 1:
            return frozenset(sequence)
        values = {
            compute(op, a, b)
            for cut in range(1, len(sequence))
            for a in trees(sequence[:cut])
            for b in trees(sequence[cut:])
            for op in "+-*/"
        }
        return frozenset(values - {None})

    return set().union(*(trees(order) for order in permutations(pool)))


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 99), min_size=1, max_size=3)
    | st.lists(st.integers(1, 13), min_size=4, max_size=4)
)
def test_countdown_reaches_what_expression_trees_reach(pool: list[int]):
    assert set(_finals(tuple(sorted(pool)))) == finals(tuple(pool))


def test_countdown_reachable_and_problems_are_solvable():
    task = Countdown()
    for problem in task.problems("test", 25):
        pool, target = task.start(problem), int(problem.answer)
        assert task.reachable(problem, pool) and target in finals(pool)
        for line, after in task.moves(problem, pool):
            assert task.advance(problem, pool, line) == after
            assert task.reachable(problem, after) == (target in finals(after))


def test_countdown_sizes():
    assert {len(p.info["numbers"]) for p in Countdown((4,)).problems("test", 20)} == {4}
    assert {p.difficulty for p in Countdown().problems("test", 40)} == {2, 3}


def routes(
    edges: dict[str, list[str]], here: str, goal: str, closed: tuple[str, ...]
) -> list[tuple[str, ...]]:
    """Every simple route, by depth-first search."""
    if here == goal:
        return [(here,)]
    return [
        (here, *rest)
        for node in edges.get(here, [])
        if node not in closed and node != here
        for rest in routes(edges, node, goal, (*closed, here))
    ]


def test_paths_reachable_and_difficulty_by_depth_first_search():
    task = Paths()
    for problem in task.problems("test", 40):
        info = problem.info
        found = routes(info["edges"], info["from"], info["to"], ())
        assert problem.difficulty == min(map(len, found)) - 1
        stack = [task.start(problem)]
        while stack:
            state = stack.pop()
            assert task.reachable(problem, state) == bool(
                routes(info["edges"], state[-1], info["to"], state[:-1])
                if info["to"] not in state[:-1]
                else []
            )
            if len(state) < 4:
                stack += [move.state for move in task.moves(problem, state)]


def test_paths_degrees_are_those_asked_for():
    for degrees in ((0, 2, 2), (0, 1, 3)):
        ways = {
            len(out)
            for p in Paths(degrees).problems("test", 40)
            for out in p.info["edges"].values()
        }
        assert ways == set(degrees)
    with pytest.raises(MechRewardError, match="ways on from a node, 0 to 7 each"):
        Paths((0, 9))
    with pytest.raises(MechRewardError, match="ways on"):
        Paths(())


def test_paths_every_route_is_right_and_the_prompt_tells_the_graph():
    task = Paths()
    for problem in task.problems("test", 20):
        head, _, graph = problem.prompt.strip().partition(" : ")
        edges: dict[str, list[str]] = {}
        for edge in graph.split():
            edges.setdefault(edge[0], []).append(edge[2:])
        assert head == f"paths {problem.info['from']} to {problem.info['to']}"
        for route in routes(edges, problem.info["from"], problem.info["to"], ()):
            steps = [f"{a}>{b}" for a, b in pairwise(route)]
            assert (
                task.verify(problem, "\n".join([*steps, f"answer {route[-1]}"])).outcome
                == "correct"
            )


def test_chain_answers_are_what_python_says():
    for problem in Chain().problems("train", 200):
        assert str(eval(problem.prompt.removeprefix("chain "))) == problem.answer
        assert problem.difficulty == sum(problem.prompt.count(op) for op in "+-*")


@pytest.mark.parametrize("n", [7, 700])
def test_countdown_has_the_same_mixture_of_sizes_for_any_n(n: int):
    found = Countdown().problems("test", n)
    assert [len(problem.info["numbers"]) for problem in found] == [
        (3, 3, 3, 3, 4)[i % 5] for i in range(n)
    ]
    assert len({problem.id for problem in found}) == n and all(
        split_of(problem.id) == "test" for problem in found
    )


# Verdicts


def patient(game: type[LineTask], undos: int) -> LineTask:
    """The same game with another limit."""
    return type(game.__name__, (game,), {"max_backs": undos})()


COUNTDOWN = Problem(
    "c",
    "countdown 24 from 2 4 3\n",
    "24",
    {"numbers": [2, 4, 3], "target": 24},
    patient(Countdown, 3),
)
CHAIN_STEPS = [("+", 4, False), ("*", 7, True), ("-", 5, False)]
CHAIN = Problem(
    "x",
    "chain ( 7 * ( 3 + 4 ) ) - 5\n",
    "44",
    {"first": 3, "steps": CHAIN_STEPS},
    patient(Chain, 3),
)
EDGES = {"a": ["b", "c"], "b": ["d", "a"], "c": ["e"], "d": [], "e": ["f"], "f": ["a"]}
PATHS = Problem(
    "p", "paths a to e : ...\n", "e", {"edges": EDGES, "from": "a", "to": "e"}, patient(Paths, 2)
)
RIGHT = {
    COUNTDOWN: "4 * 2 = 8 : 3 8\n8 * 3 = 24 : 24\nanswer 24",
    CHAIN: "3 + 4 = 7\n7 * 7 = 49\n49 - 5 = 44\nanswer 44",
    PATHS: "a>c\nc>e\nanswer e",
}
NO_LIMIT = "no answer within the limit"
LEFT = "a wrong line was left standing"
EARLY = "answered where the goal is not reached"

CASES = [
    # Countdown: other spellings of right
    (COUNTDOWN, "2 * 4 = 8 : 8 3\n3 * 8 = 24 : 24\nanswer 24", "correct", ""),
    (COUNTDOWN, "\n 4 * 2 = 8 : 3 8 \n\n8 * 3 = 24 : 24\nanswer 24\n\n", "correct", ""),
    (COUNTDOWN, "4 + 2 = 6 : 3 6\nback : 2 4 3\n" + RIGHT[COUNTDOWN], "correct", ""),
    (COUNTDOWN, "4 * 2 = 9 : 3 9\nback : 2 4 3\n" + RIGHT[COUNTDOWN], "correct", ""),
    (COUNTDOWN, "4 + 2 = 6 : 3 6\nback : 2 4 3\n" * 3 + RIGHT[COUNTDOWN], "correct", ""),
    # Countdown: one corruption
    (COUNTDOWN, "4 * 2 = 9 : 3 9\n9 * 3 = 27 : 27\nanswer 27", "incorrect", LEFT),
    (COUNTDOWN, "4 * 2 = 9 : 3 8\n8 * 3 = 24 : 24\nanswer 24", "incorrect", LEFT),
    (COUNTDOWN, "5 * 2 = 10 : 3 10\n8 * 3 = 24 : 24\nanswer 24", "incorrect", LEFT),
    (COUNTDOWN, "4 * 4 = 16 : 3 16\n8 * 3 = 24 : 24\nanswer 24", "incorrect", LEFT),
    (COUNTDOWN, "4 * 2 = 8 : 3 8 2\n8 * 3 = 24 : 24\nanswer 24", "incorrect", LEFT),
    (COUNTDOWN, "4 * 2 = 8 : 8\n8 * 3 = 24 : 24\nanswer 24", "incorrect", LEFT),
    (COUNTDOWN, "4 * 2 = 8 :\n8 * 3 = 24 : 24\nanswer 24", "incorrect", LEFT),
    (COUNTDOWN, "2 / 4 = 0 : 3 0\n8 * 3 = 24 : 24\nanswer 24", "incorrect", LEFT),
    (COUNTDOWN, "4 * 2 = 8 : 3 8\n8 * 3 = 24 : 24\nanswer 25", "incorrect", "answered '25'"),
    (COUNTDOWN, "4 * 2 = 8 : 3 8\n8 * 3 = 24 : 24\nanswer", "incorrect", "answered ''"),
    (COUNTDOWN, "4 * 2 = 8 : 3 8\n8 * 3 = 24 : 24\nanswer 24 24", "incorrect", "answered '24 24'"),
    (COUNTDOWN, "4 * 2 = 8 : 3 8\n8 * 3 = 24 : 24", "incorrect", NO_LIMIT),
    (COUNTDOWN, "4 * 2 = 8 : 3 8\nanswer 24", "incorrect", EARLY),
    (COUNTDOWN, "answer 24", "incorrect", EARLY),
    (COUNTDOWN, "4 + 2 = 6 : 3 6\n6 * 3 = 18 : 18\nanswer 18", "incorrect", EARLY),
    (COUNTDOWN, "4 + 2 = 6 : 3 6\nback : 2 4 4\n" + RIGHT[COUNTDOWN], "incorrect", LEFT),
    (COUNTDOWN, "4 + 2 = 6 : 3 6\nback :\n" + RIGHT[COUNTDOWN], "incorrect", LEFT),
    (COUNTDOWN, "4 + 2 = 6 : 3 6\nback : 4 2 3\n" + RIGHT[COUNTDOWN], "incorrect", LEFT),
    (COUNTDOWN, "back : 2 4 3\n" + RIGHT[COUNTDOWN], "incorrect", "line 1: nothing to undo"),
    (
        COUNTDOWN,
        "4 + 2 = 6 : 3 6\nback : 2 4 3\nback : 2 4 3",
        "incorrect",
        "line 3: nothing to undo",
    ),
    (
        COUNTDOWN,
        "4 + 2 = 6 : 3 6\nback : 2 4 3\n" * 4,
        "incorrect",
        "line 8: undos are limited to 3",
    ),
    (COUNTDOWN, "fail", "incorrect", "gave up"),
    (COUNTDOWN, "4 * 2 = 8 : 3 8", "incorrect", NO_LIMIT),
    (COUNTDOWN, "", "unverifiable", "nothing was said"),
    (CHAIN, " \n\n", "unverifiable", "nothing was said"),
    # Countdown: what cannot be read
    (COUNTDOWN, RIGHT[COUNTDOWN] + "\n8", "unverifiable", "line 4 comes after the end: '8'"),
    (COUNTDOWN, RIGHT[COUNTDOWN] + "\nanswer 24", "unverifiable", "line 4 comes after the end"),
    (COUNTDOWN, "fail\n" + RIGHT[COUNTDOWN], "unverifiable", "line 2 comes after the end"),
    (COUNTDOWN, "4 * 2 = 8\n8 * 3 = 24 : 24\nanswer 24", "unverifiable", "line 1 does not parse"),
    (
        COUNTDOWN,
        "4 * 2 = 8 : 3 b\n8 * 3 = 24 : 24\nanswer 24",
        "unverifiable",
        "'b' is not a number",
    ),
    (
        COUNTDOWN,
        "5 * 2 = 8 : 3 b\n8 * 3 = 24 : 24\nanswer 24",
        "unverifiable",
        "'b' is not a number",
    ),
    (
        COUNTDOWN,
        "4 * ² = 8 : 3 8\n8 * 3 = 24 : 24\nanswer 24",
        "unverifiable",
        "'²' is not a number",
    ),
    (COUNTDOWN, "4 - 2 = -2 : 3 2", "unverifiable", "'-2' is not a number"),
    (COUNTDOWN, "4 * 2 = 88888 : 3 8", "unverifiable", "'88888' is not a number"),
    (COUNTDOWN, "4 ^ 2 = 16 : 3 16", "unverifiable", "line 1 does not parse"),
    (COUNTDOWN, "I think so", "unverifiable", "line 1 does not parse"),
    (COUNTDOWN, "answers 24", "unverifiable", "line 1 does not parse"),
    (COUNTDOWN, "fail now", "unverifiable", "line 1 does not parse"),
    # Chain
    (CHAIN, "3 + 4 = 8\nback : 3\n" + RIGHT[CHAIN], "correct", ""),
    (CHAIN, "3 + 4 = 8\n7 * 8 = 56\nback : 8\nback : 3\n" + RIGHT[CHAIN], "correct", ""),
    (CHAIN, "3 + 4 = 8\n7 * 8 = 56\n56 - 5 = 51\nanswer 51", "incorrect", EARLY),
    (CHAIN, "3 + 4 = 8\n7 * 7 = 49\n49 - 5 = 44\nanswer 44", "incorrect", LEFT),
    (CHAIN, "3 + 4 = 7\n7 * 7 = 50\n50 - 6 = 44\nanswer 44", "incorrect", LEFT),
    (CHAIN, "4 + 3 = 7\n7 * 7 = 49\n49 - 5 = 44\nanswer 44", "incorrect", LEFT),
    (CHAIN, "3 * 4 = 12\n7 * 12 = 84\nanswer 84", "incorrect", LEFT),
    (CHAIN, "3 + 4 = 7\n7 * 7 = 49\nanswer 49", "incorrect", EARLY),
    (CHAIN, "3 + 4 = 7\n7 * 7 = 49\n49 - 5 = 44\n44 - 0 = 44\nanswer 44", "incorrect", LEFT),
    (CHAIN, "3 + 4 = 7\n7 * 7 = 49\n49 - 5 = 44\nanswer 45", "incorrect", "answered '45'"),
    (CHAIN, "3 + 4 = 8\nback : 4\n" + RIGHT[CHAIN], "incorrect", LEFT),
    (CHAIN, "3 + 4 = 7 : 7\nanswer 44", "unverifiable", "line 1 does not parse"),
    (CHAIN, "3 + 4 7\nanswer 44", "unverifiable", "line 1 does not parse"),
    (CHAIN, RIGHT[CHAIN] + "\nfail", "unverifiable", "line 5 comes after the end"),
    # Paths
    (PATHS, "a>b\nb>d\nback : b\nback : a\na>c\nc>e\nanswer e", "correct", ""),
    (PATHS, "a>c\nc>e\ne>f\nback : e\nanswer e", "correct", ""),
    (PATHS, "a>b\nb>a\na>c\nc>e\nanswer e", "incorrect", LEFT),
    (PATHS, "a>d\nanswer e", "incorrect", LEFT),
    (PATHS, "c>e\nanswer e", "incorrect", LEFT),
    (PATHS, "a>c\nanswer e", "incorrect", EARLY),
    (PATHS, "a>c\nc>e\ne>f\nanswer e", "incorrect", EARLY),
    (PATHS, "a>c\nc>e\nanswer f", "incorrect", "answered 'f'"),
    (PATHS, "a>b\nback : a\n" * 3, "incorrect", "line 6: undos are limited to 2"),
    (PATHS, "a>ab\nanswer e", "unverifiable", "'a>ab' is not 'a>b'"),
    (PATHS, "a>z\nanswer e", "unverifiable", "is not 'a>b'"),
    (PATHS, "a - c\nanswer e", "unverifiable", "is not 'a>b'"),
    (PATHS, "a > c\nanswer e", "unverifiable", "is not 'a>b'"),
    (PATHS, "a>c>e\nanswer e", "unverifiable", "is not 'a>b'"),
]


@pytest.mark.parametrize(("problem", "text", "outcome", "reason"), CASES)
def test_verdicts(problem: Problem, text: str, outcome: str, reason: str):
    verdict = problem.task.verify(problem, text)
    assert (verdict.outcome, verdict.reward) == (outcome, int(outcome == "correct"))
    assert reason in verdict.reason and bool(reason) == bool(verdict.reason)


@pytest.mark.parametrize("problem", RIGHT, ids=lambda problem: problem.task.name)
def test_every_lost_or_doubled_line_of_a_right_answer_is_noticed(problem: Problem):
    task, lines = problem.task, RIGHT[problem].split("\n")
    assert task.verify(problem, "\n".join(lines)).outcome == "correct"
    for i in range(len(lines)):
        assert task.verify(problem, "\n".join(lines[:i] + lines[i + 1 :])).outcome == "incorrect"
        assert task.verify(problem, "\n".join(lines[: i + 1] + lines[i:])).outcome != "correct"


WORDS = [
    "answer",
    "back",
    "fail",
    ":",
    "=",
    "+",
    "-",
    "*",
    "/",
    ">",
    "²",
    "٣",
    "9" * 5000,
    "-1",
    "a>c",
    "c>e",
    "e",
]
words = st.sampled_from([*WORDS, *map(str, range(50))])
line_like = st.lists(st.lists(words, max_size=8).map(" ".join), max_size=8).map("\n".join)
spliced = st.tuples(
    st.sampled_from([*RIGHT.values()]), st.text(max_size=4), st.integers(0, 40)
).map(lambda cut: cut[0][: cut[2]] + cut[1] + cut[0][cut[2] :])


@settings(max_examples=300)
@given(st.text() | line_like | spliced, st.sampled_from([*RIGHT]))
def test_no_text_breaks_a_verifier(text: str, problem: Problem):
    verdict = problem.task.verify(problem, text)
    assert verdict.outcome in ("correct", "incorrect", "unverifiable")
    assert (verdict.outcome == "correct") == (verdict.reason == "")
    assert (
        verdict.outcome != "unverifiable"
        or "does not parse" in verdict.reason
        or "after the end" in verdict.reason
        or (verdict.reason == "nothing was said" and not text.strip())
    )
    assert solvable(problem.task, problem, text) in (True, False)


@given(st.text())
def test_integers_are_short_ascii_numbers(text: str):
    try:
        numbers = integers(text)
    except ValueError:
        assert any(set(word) - set("0123456789") or len(word) > 4 for word in text.split())
    else:
        assert [f"{n}" for n in numbers] == [word.lstrip("0") or "0" for word in text.split()]


def test_operation_parses_nothing_else():
    assert operation("12 - 5 = 7") == (12, "-", 5, 7)
    for text in (
        "",
        "1 + 2",
        "1 + 2 =",
        "1 + 2 = 3 4",
        "1 = 2 + 3",
        "1+2=3",
        "a + b = c",
        "1 + 2 == 3",
    ):
        with pytest.raises(ValueError, match="is not"):
            operation(text)


# Solvable: what a task says of its states, against search


def solvable(task: LineTask, problem: Problem, text: str) -> bool:
    """Can a partial `text` (whole lines) still end right, by what the task says of its states?
    Undoing counts while undos are left."""
    stack, backs, verdict = task.play(problem, text)
    if verdict is not None:
        return verdict.outcome == "correct"
    alive = [state is not None and task.reachable(problem, state) for state in stack]
    undos = next((i for i, ok in enumerate(reversed(alive)) if ok), len(alive))
    return undos < len(alive) and backs + undos <= task.max_backs


def completions(task: LineTask, problem: Problem, text: str) -> bool:
    """Can any continuation of moves and correct undos end right? By trying all of them, judged by
    `verify` alone."""
    if task.verify(problem, f"{text}\nanswer {problem.answer}".strip()).outcome == "correct":
        return True
    stack, _, verdict = task.play(problem, text)
    if verdict is not None:
        return False
    lines = [move.line for move in task.moves(problem, stack[-1])] if stack[-1] is not None else []
    if len(stack) > 1:
        lines.append(f"back : {task.restate(stack[-2])}" if stack[-2] is not None else "back :")
    return any(completions(task, problem, f"{text}\n{line}".strip()) for line in lines)


@pytest.mark.parametrize(
    ("problem", "text", "wanted"),
    [
        (COUNTDOWN, "", True),
        (COUNTDOWN, "4 + 2 = 6 : 3 6", True),
        (COUNTDOWN, "4 + 2 = 6 : 3 6\nback : 2 4 3\n" * 3, True),
        (COUNTDOWN, "4 + 2 = 6 : 3 6\nback : 2 4 3\n" * 3 + "4 + 2 = 6 : 3 6", False),
        (COUNTDOWN, "4 + 2 = 6 : 3 6\nback : 3 4 2", False),
        (COUNTDOWN, "gibberish", False),
        (CHAIN, "3 + 4 = 7\n7 * 7 = 49\n49 - 5 = 44", True),
        (CHAIN, "3 + 4 = 8\nback : 3\n3 + 4 = 8\n7 * 8 = 56\n56 - 5 = 51", False),
        (PATHS, "a>b\nb>d", True),
        (PATHS, "a>b\nback : a\na>b\nb>d", False),
    ],
)
def test_solvable_counts_the_undos_left(problem: Problem, text: str, wanted: bool):
    truth = solvable(problem.task, problem, text)
    assert truth == wanted == completions(problem.task, problem, text)


def test_solvable_equals_exhaustive_search_on_small_graphs():
    task, rng, seen = Paths(), random.Random(0), set()
    for problem in task.problems("test", 12):
        for _ in range(2):
            lines = trace(task, problem, rng, Habits(0.0, 0.0, 0.3, 1)).split("\n")
            for cut in range(len(lines)):
                text = "\n".join(lines[:cut])
                truth = solvable(task, problem, text)
                seen.add(truth)
                assert truth == completions(task, problem, text), (problem, text)
    assert seen == {True, False}


@each_task
def test_solvable_holds_along_every_right_trace_and_never_comes_back(task: LineTask):
    rng, right = random.Random(1), 0
    for problem in task.problems("train", 60):
        lines = trace(task, problem, rng, Habits(0.7, 0.7, 0.5, 1)).split("\n")
        truth = [solvable(task, problem, "\n".join(lines[:cut])) for cut in range(len(lines) + 1)]
        assert truth == sorted(truth, reverse=True)
        assert truth[0] and truth[-1] == (
            task.verify(problem, "\n".join(lines)).outcome == "correct"
        )
        right += truth[-1]
    assert 5 < right < 60


# Steps


@pytest.mark.parametrize(
    ("pieces", "prompt_len", "ends"),
    [
        (["<bos>", "q", "\n", "1", "\n", "2", "3", "\n", "answer", "4", "<eos>"], 3, [2, 4, 7, 10]),
        (["q", "\n", "1", "\n"], 2, [1, 3]),
        (["q", "\n", "1", "\n", "<eos>"], 2, [1, 3, 4]),
        (["q", "\n", "\n", "\n", "a"], 2, [1, 4]),
        (["q", "1", "\n", "\n", " ", "\n", "2", "\n", "\n"], 1, [0, 5, 8]),
        (["q", "1", "\n", " "], 1, [0, 3]),
        (["q", "\n", "\n"], 1, [0, 2]),
        (["q", "\n"], 1, [0, 1]),
        (["q", "a.\n\n", "b"], 1, [0, 1, 2]),
        (["q", "a", "b"], 1, [0, 2]),
        (["\n", "q"], 2, [1]),
    ],
)
def test_step_ends_by_hand(pieces: list[str], prompt_len: int, ends: list[int]):
    assert Chain().step_ends(pieces, prompt_len) == ends


@given(st.lists(st.sampled_from(["1", "\n", "a\n", "b"]), min_size=1), st.data())
def test_step_ends_cut_the_answer_into_lines(pieces: list[str], data: st.DataObject):
    prompt_len = data.draw(st.integers(1, len(pieces)))
    ends = Task.step_ends(Chain(), pieces, prompt_len)
    steps = ["".join(pieces[a + 1 : b + 1]) for a, b in pairwise(ends)]
    # Lines with the empty ones behind them; those at the beginning go with the first.
    assert steps == re.findall(r"(?:\A\n*)?[^\n]+\n*|\A\n+\Z", "".join(pieces[prompt_len:]))
