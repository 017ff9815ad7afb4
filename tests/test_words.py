"""Words: a reader of the English that shares no code with the writer, and answers read by hand."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechreward.base.errors import MechRewardError
from mechreward.tasks import Words, get
from mechreward.tasks.base import UNFINISHED, Problem, split_of
from mechreward.tasks.judge import as_said
from mechreward.tasks.words import LARGEST

PROBLEMS = Words().problems("train", 400)

# What a sentence does to the quantity, as a person reads it; the first that fits counts.
READ = [
    (r"[Hh]alf", "half"),
    (
        r"doubles?\b|as (many|much) (\w+ )?again|as many get on as|as (many|much) \w+ as s?he",
        "double",
    ),
    (r"(\d+) times|For each of", "*"),
    (r"equal|out of every|of the \d+ (people|farmers)|one part of", "/"),
    (r"fewer \w+ than|more \w+ than", "than"),
    (
        r"loses|gives \d+ (?!new)\w+ to|break|trades|sells \d+ of|spends|costs|lends|pays \d+|"
        r"donates \d+ \w+ to|burn|sells \d+ \w+ (before|at a)|buys \d+ of them|eats?\b|throws|"
        r"destroys|digs|survive|cuts|get wet|gives \d+ of|sells \d+|run away|takes \d+|get off|"
        r"harbour \d+|leak|drink|dry up|needs",
        "-",
    ),
    (
        r"finds|gives|buys|gets|discovers|earns|pays back|sends|wins|bakes \d+ more|brings|"
        r"come out|plants \d+ more|adds|come up|moves|orders|donates|leaves|come back|born|"
        r"come home|get on|come aboard|pours|run in",
        "+",
    ),
]


def read(sentence: str) -> str:
    for pattern, meaning in READ:
        if re.search(pattern, sentence):
            return meaning
    raise AssertionError(f"nobody can tell what this does: {sentence}")


def solve(text: str) -> int:
    """The answer, from the words alone."""
    *sentences, question = re.split(r"(?<=[.?]) ", text)
    numbers = [[int(n) for n in re.findall(r"\d+", sentence)] for sentence in sentences]
    product = len(numbers[0]) == 2
    value = numbers[0][0] * numbers[0][1] if product else numbers[0][0]
    hers = None
    for sentence, given_numbers in zip(sentences[1:], numbers[1:], strict=True):
        n = given_numbers[0] if given_numbers else 2
        kind = read(sentence)
        if kind == "than" or re.search(r"times as many \w+ as|For each", sentence):
            hers = value
        if kind == "than":
            whose, more = sentence.split()[0], "more" in sentence
            # "Ann has 3 more than Ben" takes 3 away on the way to Ben's.
            value += n if more != (whose in sentences[0]) else -n
        elif kind in ("*", "double"):
            value *= n
        elif kind in ("/", "half"):
            assert value % n == 0
            value //= n
        else:
            value += n if kind == "+" else -n
    if re.search("together|in all", question):
        assert hers is not None
        return hers + value
    return value


def story(problem: Problem) -> str:
    system, user = problem.prompt
    assert (system["role"], user["role"]) == ("system", "user")
    return user["content"]


def test_a_reader_of_the_english_finds_every_answer():
    for problem in PROBLEMS:
        assert solve(story(problem)) == int(problem.answer), story(problem)


def test_every_line_follows_from_the_text_and_from_lines_before_it():
    for problem in PROBLEMS:
        *lines, last = Words().solve(problem).split("\n")
        known = Counter(int(n) for n in re.findall(r"\d+", story(problem)))
        before = set()
        for line in lines:
            left, right = line.split(" = ")
            assert eval(left) == int(right) and 1 <= int(right) <= LARGEST, line
            a, sign, b = left.split()
            for number in (int(a), int(b)):
                assert number in before or number == 2 or known[number], (line, story(problem))
            assert sign in "+-*/"
            before.add(int(right))
            if not before & {int(a), int(b)}:
                assert line == lines[0], line
        assert last == f"Answer: {lines[-1].split()[-1]}" == f"Answer: {problem.answer}"
        assert len(lines) == problem.difficulty


def test_sizes_signs_and_scenes_vary():
    sizes = Counter(problem.difficulty for problem in PROBLEMS)
    assert set(sizes) == {2, 3, 4, 5} and min(sizes.values()) > 50
    signs = Counter(line[1] for problem in PROBLEMS for line in problem.info["operations"])
    assert set(signs) == set("+-*/") and min(signs.values()) > 100
    first = {" ".join(re.sub(r"\d+", "N", story(problem)).split()[1:6]) for problem in PROBLEMS}
    assert len(first) > 40
    shortest = Words(operations=(1, 1)).problems("test", 20)
    assert {problem.difficulty for problem in shortest} == {1}


def test_sentences_are_whole_and_filled():
    for problem in PROBLEMS:
        text = story(problem)
        assert not set("{}") & set(text) and "  " not in text and text.endswith("?")
        assert all(sentence[0].isupper() or sentence[0].isdigit() for sentence in text.split(". "))
        assert not re.search(r"\b(\w+) \1\b", text), text
        words = set(re.findall("[a-z]+", text.lower()))
        assert not ({"she", "her", "herself"} & words and {"he", "his", "him"} & words), text


def test_prompts_split_by_their_own_words():
    assert {split_of(problem.id) for problem in PROBLEMS} == {"train"}
    assert len({problem.question for problem in PROBLEMS}) == len(PROBLEMS)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("3 + 4 = 7\nAnswer: 7", "correct"),
        ("Answer: 7", "correct"),
        ("3 + 4 = 8\nAnswer: 7", "correct"),  # the final answer alone
        ("3 + 4 = 7\nAnswer: 7 marbles.", "correct"),
        ("answer:  $7.\n", "correct"),
        ("Answer: 9\nAnswer: 7", "correct"),  # the last one
        ("Answer: 007", "correct"),
        ("3 + 4 = 7\nAnswer: 8", "incorrect"),
        ("Answer: -7", "incorrect"),
        ("Answer: 7\nAnswer: 9", "incorrect"),
        ("Answer: 1,007", "incorrect"),
        ("3 + 4 = 7", "incorrect"),  # and unverifiable where it ended so
        ("The answer is 7", "incorrect"),
        ("Answer:", "unverifiable"),
        ("Answer: seven", "unverifiable"),
        ("Answer: 7 or 8", "unverifiable"),
        ("", "unverifiable"),
        (" \n", "unverifiable"),
    ],
)
def test_verdicts(text: str, outcome: str):
    problem = Problem("p", "three and four", "7", task=Words())
    assert Words().verify(problem, text).outcome == outcome


def test_an_answer_that_ends_without_one_is_unverifiable():
    problem = Problem("p", "three and four", "7", task=Words())
    verdict = Words().verify(problem, "3 + 4 = 7")
    assert verdict == UNFINISHED
    assert as_said(verdict, "3 + 4 = 7", ended=True).outcome == "unverifiable"
    assert as_said(verdict, "3 + 4 = 7", ended=False).outcome == "incorrect"


@given(st.text())
def test_any_text_gets_a_verdict(text: str):
    verdict = Words().verify(PROBLEMS[0], text)
    assert verdict.outcome in ("correct", "incorrect", "unverifiable")


def test_every_solution_is_right_and_every_other_number_wrong():
    for problem in PROBLEMS[:60]:
        text = Words().solve(problem)
        assert Words().verify(problem, text).reward == 1
        for number in range(int(problem.answer) - 3, int(problem.answer) + 4):
            spoiled = f"{text.rpartition(' ')[0]} {number}"
            right = number == int(problem.answer)
            assert Words().verify(problem, spoiled).reward == right


@pytest.mark.unchecked
@pytest.mark.parametrize("operations", [(2,), (0, 3), (3, 2), (2, 7), (2.5, 3), 3])
def test_sizes_that_no_story_has(operations: object):
    with pytest.raises(MechRewardError, match="operations"):
        Words(operations)  # pyright: ignore[reportArgumentType]


def test_it_is_known_by_its_name():
    assert isinstance(get("words"), Words)
