"""Words: arithmetic word problems in plain English, one operation a line."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mechreward.base.errors import of_kind, require, whole
from mechreward.tasks import stories
from mechreward.tasks.base import SILENT, UNFINISHED, Problem, Task, Verdict

LARGEST = 100
ANSWER = re.compile(r"^\s*answer:[ \t]*(.*?)[ \t]*\.?[ \t]*$", re.IGNORECASE | re.MULTILINE)
NUMBER = re.compile(r"-?\d{1,3}(,\d{3})+|-?\d+")
SYSTEM = "Write one operation on each line, then a last line Answer: N."
# How often what happens is of each kind (our choice: dividing is seldom possible).
KINDS = {"more": 3, "fewer": 3, "times": 1, "shares": 2, "double": 1, "half": 1}
SIGNS = {"more": "+", "fewer": "-", "times": "*", "shares": "/", "double": "*", "half": "/"}
ENDINGS = (0, 0, 0, 1, 2, 2)  # operations that somebody else is compared in


class Operation(NamedTuple):
    """A line of the solution: `a sign b = c`."""

    a: int
    sign: str
    b: int
    c: int

    def __str__(self) -> str:
        return f"{self.a} {self.sign} {self.b} = {self.c}"


class Words(Task):
    """Follow a quantity through a story: a line an operation, last `Answer: N`.

    The final answer alone is verified, as in the paper: a wrong line is not undone, so that the
    value falls there. Prompts are chat messages; the system message says how to answer. All numbers
    are whole, from 1 to 100.

    Parameters
    ----------
    operations : tuple of int, default (2, 5)
        The fewest and the most that a problem needs.

    Raises
    ------
    MechRewardError
        Numbers that are not whole, below 1, above 6, or in the wrong order.
    """

    name = "words"
    max_tokens = 96  # five operations take 70 tokens where every digit is one
    answer_prefix = "Answer:"

    def __init__(self, operations: tuple[int, int] = (2, 5)) -> None:
        of_kind("operations", operations, Sequence)
        require(len(operations) == 2, "operations are two numbers: the fewest and the most.")
        fewest, most = operations
        whole("the fewest operations", fewest, 1)
        whole("the most operations", most, fewest)
        require(most <= 6, f"a story has at most 6 operations; {most} were asked for.")
        self.operations = (fewest, most)

    def draw(self, rng: random.Random) -> Problem | None:
        scene = rng.choice(stories.SCENES)
        count = rng.randint(*self.operations)
        ending = rng.choice(ENDINGS) if scene.compared else 0
        rows = rng.random() < 0.4
        middle = count - ending - rows
        if middle < 0:
            return None
        story = _Story(scene, rng)
        story.begin(rows)
        for _ in range(middle):
            if not story.change():
                return None
        if ending and not story.compare():
            return None
        if ending == 2 and not story.join():
            return None
        if not 1 <= story.value <= LARGEST:
            return None
        text = story.text()
        info = {"operations": [list(line) for line in story.lines], "difficulty": count}
        prompt = ({"role": "system", "content": SYSTEM}, {"role": "user", "content": text})
        return Problem(f"words {text}", prompt, str(story.value), info)

    def verify(self, problem: Problem, text: str) -> Verdict:
        """The last line `Answer: N` decides; a unit around the number is passed over."""
        if not text.strip():
            return SILENT
        line = _last_line(text)
        if line is None:
            return UNFINISHED
        given = self.answer(text)
        if given is None:
            return Verdict("unverifiable", f"the answer {line!r} is no number")
        right = int(given) == int(problem.answer)
        return Verdict("correct") if right else Verdict("incorrect", f"answered {line!r}")

    def answer(self, text: str) -> str | None:
        """The one number of the last line `Answer: N`."""
        numbers = [match.group() for match in NUMBER.finditer(_last_line(text) or "")]
        return str(int(numbers[0].replace(",", ""))) if len(numbers) == 1 else None

    def solve(self, problem: Problem) -> str:
        """A line for each operation, then the answer."""
        lines = [str(Operation(*line)) for line in problem.info["operations"]]
        return "\n".join([*lines, f"Answer: {problem.answer}"])


def _last_line(text: str) -> str | None:
    """What the last line `Answer: ...` says; None where there is none."""
    said = [match.group(1) for match in ANSWER.finditer(text)]
    return said[-1] if said else None


class _Story:
    """A story as it is told: its sentences, the operations so far, and the value they leave."""

    def __init__(self, scene: stories.Scene, rng: random.Random) -> None:
        self.scene = scene
        self.rng = rng
        self.sentences: list[str] = []
        self.used: set[str] = set()
        self.lines: list[Operation] = []
        self.value = 0
        self.question = scene.question
        woman = rng.random() < 0.5
        self.name, self.other, self.rival = rng.sample(stories.SHE if woman else stories.HE, 3)
        pronouns = ("she", "her", "her", "herself") if woman else ("he", "his", "him", "himself")
        subject, whose, whom, self_ = pronouns
        self.words = {
            "name": self.name,
            "other": self.other,
            "things": rng.choice(scene.things),
            "she": subject,
            "She": subject.capitalize(),
            "her": whose,
            "Her": whose.capitalize(),
            "them": whom,
            "self": self_,
        }

    def begin(self, rows: bool) -> None:
        """How much there is; as a product where `rows`."""
        if rows:
            m, n = self.rng.randint(2, 9), self.rng.randint(2, 11)
            self._tell(self.scene.rows, n, m)
            self._apply(m, "*", n)
        else:
            self.value = self.rng.randint(3, 60)
            self._tell(self.scene.start, self.value)

    def change(self) -> bool:
        """Something happens; False where nothing can."""
        kinds = list(KINDS)
        while kinds:
            kind = self.rng.choices(kinds, [KINDS[name] for name in kinds])[0]
            n = self._number(kind)
            if n is not None:
                self._tell(getattr(self.scene, kind), n)
                self._apply(self.value, SIGNS[kind], n)
                return True
            kinds.remove(kind)
        return False

    def compare(self) -> bool:
        """Somebody else has another number, which the question is about."""
        self.words["other"] = self.rival  # not whoever has given or taken something before
        kind = self.rng.choice(("more", "fewer", "times"))
        n = self._number(kind)
        if n is None:
            return False
        sentences = {
            "more": stories.THAN_MORE,
            "fewer": stories.THAN_FEWER,
            "times": stories.THAN_TIMES,
        }
        self._tell(sentences[kind], n)
        self._apply(self.value, SIGNS[kind], n)
        self.question = stories.HIS
        return True

    def join(self) -> bool:
        """The question is about what the two of them have."""
        first = self.lines[-1].a
        self._apply(first, "+", self.value)
        self.question = self.rng.choice(stories.TOGETHER)
        return self.value <= LARGEST

    def text(self) -> str:
        """All sentences and the question."""
        return " ".join([*self.sentences, self.question.format(**self.words)])

    def _number(self, kind: str) -> int | None:
        """A number that keeps the value whole and within bounds; None if there is none."""
        value = self.value
        if kind in ("double", "half"):
            fits: Iterable[int] = (2,)
        elif kind == "more":
            fits = range(2, 61)
        elif kind == "fewer":
            fits = range(2, value)
        else:
            fits = range(2, 10)
        left = [n for n in fits if _within(value, SIGNS[kind], n)]
        return self.rng.choice(left) if left else None

    def _tell(self, sentences: Sequence[str], n: int, m: int | None = None) -> None:
        fresh = [sentence for sentence in sentences if sentence not in self.used]
        sentence = self.rng.choice(fresh or list(sentences))
        self.used.add(sentence)
        self.sentences.append(sentence.format(n=n, m=m, **self.words))

    def _apply(self, a: int, sign: str, b: int) -> None:
        self.value = _result(a, sign, b)
        self.lines.append(Operation(a, sign, b, self.value))


def _result(a: int, sign: str, b: int) -> int:
    if sign == "+":
        return a + b
    if sign == "-":
        return a - b
    return a * b if sign == "*" else a // b


def _within(a: int, sign: str, b: int) -> bool:
    exact = sign != "/" or a % b == 0
    return exact and 1 <= _result(a, sign, b) <= LARGEST
