"""A task from the rows of a table: any questions whose answers can be verified."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from mechreward.base.errors import MechRewardError, finite, of_kind, one_of, require, shown, whole
from mechreward.base.files import digest
from mechreward.tasks.answers import Check, reader, verifier
from mechreward.tasks.base import (
    SILENT,
    SPLITS,
    Problem,
    Prompt,
    Task,
    Verdict,
    split_of,
)
from mechreward.tasks.cuts import cut_of
from mechreward.tasks.table import SPLIT_NAMES, Row, entry, rows_of

Column = str | Callable[[Row], Any]
HELD_OUT = 0.1  # share of the training rows that are validation where the data has none


class TextTask(Task):
    """Questions and gold answers of a table.

    Parameters
    ----------
    rows : list of dict, datasets.Dataset, datasets.DatasetDict, str or Path
        The table; a file ends in .jsonl, .json, .csv or .parquet.
    prompt : str or callable, default "question"
        A column, a text with columns in braces ("Q: {question}\\nA:"), or a function of a row. An
        entry is a text, chat messages or token ids.
    answer : str or callable, default "answer"
        The gold answer, likewise.
    verify : str or callable, default "number"
        "number" (the last number of the answer), "exact" (its last line), "choice" (its last
        label), "math" (math-verify, in a process of its own), or a function of problem and text
        that returns True or False, a reward, or a Verdict. None: answers cannot be verified, and no
        gold ones are read; such a task is only good for search.
    steps : str, default "lines"
        "lines", "paragraphs" (as in the paper), "sentences", or "blocks:64" (tokens).
    system : str or None, default None
        A system message; prompts that are texts then become chat messages.
    shots : sequence of (str, str), default ()
        Examples before every question, as turns of the chat, or as texts where there is none.
    chat : bool or None, default None
        Whether texts become the user's message in the model's chat template. None: where there is a
        system message.
    name : str or None, default None
        How it is called in results; None: the file's name, or "text".
    max_tokens : int, default 512
        Limit of an answer.
    split : str or None, default None
        A column with train, validation or test. None: the data's own splits, or by the prompt's
        hash (70%, 10%, 20%). Where the data has training rows but none for validation, a tenth of
        the former is held out for it.
    difficulty : str or None, default None
        A column with a number, as in "Level 5" too: a surface baseline for confidence.
    id : str or None, default None
        A column with names of the problems, for rollouts from elsewhere that go by them. None: a
        digest of the prompt.
    seconds : float, default 10.0
        Limit of one verification.
    answer_prefix : str or None, default None
        What asks the model for its answer where a rollout is stopped early, as in "Answer:".

    Raises
    ------
    MechRewardError
        A table that cannot be read, a column that is not there, an entry that is empty, an answer
        that cannot be verified, one prompt with two answers, or one id with two prompts.
    """

    def __init__(
        self,
        rows: Any,
        prompt: Column = "question",
        answer: Column = "answer",
        verify: str | Check | None = "number",
        steps: str = "lines",
        *,
        system: str | None = None,
        shots: Sequence[tuple[str, str]] = (),
        chat: bool | None = None,
        name: str | None = None,
        max_tokens: int = 512,
        split: str | None = None,
        difficulty: str | None = None,
        id: str | None = None,
        seconds: float = 10.0,
        answer_prefix: str | None = None,
    ) -> None:
        stem = Path(rows).stem if isinstance(rows, str | Path) else "text"
        self.name = name or stem
        self.max_tokens = whole("max_tokens", max_tokens, 1)
        self.seconds = seconds
        of_kind("answer_prefix", answer_prefix, (str, type(None)), "a text, as in 'Answer:'")
        require(answer_prefix is None or answer_prefix.strip() != "", "answer_prefix is empty.")
        self.answer_prefix = answer_prefix
        of_kind("system", system, (str, type(None)), "a text, or None for no message")
        of_kind("chat", chat, (bool, type(None)))
        require(
            chat is not False or system is None, "a system message goes with chat, not chat=False."
        )
        self.system = system
        self.shots = _pairs(shots)
        self.chat = system is not None if chat is None else chat
        self.cut = cut_of(steps)
        self.known: dict[str, list[Problem]] = {part: [] for part in SPLITS}
        self.copies = 0  # rows that were there before, prompt and answer
        self.columns: dict[str, Row] = {}  # by problem id: what reward functions ask for
        columns = {"split": split, "difficulty": difficulty, "id": id}
        self.verifies = verify is not None
        answers = self._read(rows_of(rows), prompt, answer if self.verifies else None, columns)
        self.verdict_of = verifier(verify, answers, seconds) if verify is not None else None
        self.answer_of = reader(verify, answers, seconds)
        self.gold = "\\boxed{{{}}}" if verify == "math" else "{}"  # how an answer is written
        self.check()

    def _read(
        self,
        rows: Sequence[tuple[str | None, Row]],
        prompt: Column,
        answer: Column | None,
        columns: Mapping[str, str | None],
    ) -> dict[str, str]:
        """Sort the rows into splits; returns the answer of every row by the row's name."""
        answers = {}
        seen: dict[str, Problem] = {}
        for number, (part, row) in enumerate(rows):
            gold = ""
            if answer is not None:
                given = _filled(answer, row, number)
                kinds = (str, int, float)
                of_kind(f"the answer of row {number}", given, kinds, "a text or a number")
                gold = str(given).strip()
                require(gold != "", f"row {number}: its answer is empty.")
            asked = _asked(_filled(prompt, row, number), number)
            text = self._prompt(asked)
            info: dict[str, Any] = {"row": number}
            if columns["difficulty"] is not None:
                info["difficulty"] = _level(entry(row, columns["difficulty"], number), number)
            problem = Problem("", text, gold, info)
            name = f"{self.name} {digest(problem.question)}"
            if columns["id"] is not None:
                name = str(entry(row, columns["id"], number)).strip()
                require(name not in ("", "None"), f"row {number}: its id is empty.")
            problem = Problem(name, text, gold, info)
            if name in seen:
                require(
                    seen[name].question == problem.question,
                    f"row {number} has the id of row {seen[name].info['row']} and another prompt.",
                )
            before = seen.setdefault(problem.id, problem)
            if before is not problem:
                require(
                    before.answer == gold,
                    f"row {number} has the prompt of row {before.info['row']} and another answer.",
                )
                self.copies += 1
                continue  # a copy would count as independent
            if columns["split"] is not None:
                part = str(entry(row, columns["split"], number))
                part = SPLIT_NAMES.get(part, part)
                one_of(f"split of row {number}", part, SPLITS)
            # By what is asked alone: whatever else changes, no problem changes its split.
            asked_alone = Problem("", asked, gold).question
            self.known[part or split_of(asked_alone)].append(problem)
            self.columns[problem.id] = row
            answers[f"row {number}"] = gold
        if self.known["train"] and not self.known["validation"]:
            self._hold_out()
        return answers

    def _hold_out(self) -> None:
        """A tenth of the training rows is validation."""
        train = sorted(self.known["train"], key=lambda problem: digest("held out", problem.id))
        count = max(1, round(HELD_OUT * len(train)))
        held = {problem.id for problem in train[:count]}
        for problem in self.known.pop("train"):
            part = "validation" if problem.id in held else "train"
            self.known.setdefault(part, []).append(problem)

    def _prompt(self, given: Any) -> Prompt:
        """A prompt with what goes before it."""
        if not isinstance(given, str):
            messages = isinstance(given, Sequence) and bool(given) and isinstance(given[0], dict)
            require(
                messages or not (self.system or self.shots or self.chat),
                "token ids are a whole prompt: system, shots and chat are for texts and messages.",
            )
            if not messages:
                return given
            turns = list(given)
        elif not self.chat:
            before = "".join(f"{question}{reply}\n\n" for question, reply in self.shots)
            return before + given
        else:
            turns = [{"role": "user", "content": given}]
        before_turns = [{"role": "system", "content": self.system}] if self.system else []
        for question, reply in self.shots:
            before_turns.append({"role": "user", "content": question})
            before_turns.append({"role": "assistant", "content": reply})
        return (*before_turns, *turns)

    @property
    def rows(self) -> list[Problem]:
        """All problems, split by split."""
        every = []
        for part in SPLITS:
            every += [self._of_mine(problem) for problem in self.known.get(part, ())]
        return every

    def draw(self, rng: random.Random) -> Problem | None:
        """A random row of any split."""
        return rng.choice(self.rows)

    def problems(self, split: str, n: int, seed: int = 0) -> list[Problem]:
        """The first `n` of a split's rows, in the order that the seed shuffles them to."""
        one_of("split", split, SPLITS)
        n, seed = whole("n", n, 1, "problems"), whole("seed", seed)
        rows = list(self.known.get(split, ()))
        require(
            n <= len(rows),
            f"{self.name} has only {len(rows)} {split} problems; {n} were asked for.",
        )
        random.Random(f"{self.name}/{split}/{seed}").shuffle(rows)
        return [self._of_mine(problem) for problem in rows[:n]]

    def _of_mine(self, problem: Problem) -> Problem:
        return Problem(problem.id, problem.prompt, problem.answer, problem.info, self)

    def verify(self, problem: Problem, text: str) -> Verdict:
        if self.verdict_of is None:
            raise MechRewardError(
                f"the task {self.name} has no verifier (verify=None), so nothing is right or wrong."
            )
        if not text.strip():
            return SILENT
        return self.verdict_of(problem, text)

    def answer(self, text: str) -> str | None:
        """By the rule of `verify`; None for a function of your own, which may take any valid
        answer: write `answer` into a subclass where there is one right answer."""
        return self.answer_of(text)

    def solve(self, problem: Problem) -> str:
        return f"Answer: {self.gold.format(problem.answer)}"

    def step_ends(self, pieces: Sequence[str], prompt_len: int) -> list[int]:
        return self.cut(pieces, prompt_len)


def _pairs(shots: Any) -> tuple[tuple[str, str], ...]:
    """Examples as they were given, if they are pairs of texts."""
    pairs = []
    of_kind("shots", shots, (list, tuple), "pairs of question and reply")
    for pair in shots:
        good = isinstance(pair, list | tuple) and len(pair) == 2
        good = good and all(isinstance(text, str) for text in pair)
        require(good, f"shots are pairs of question and reply, two texts; {shown(pair)} is none.")
        pairs.append((pair[0], pair[1]))
    return tuple(pairs)


def _asked(given: Any, number: int) -> Any:
    """A prompt, if it is one."""
    if isinstance(given, str):
        require(bool(given.strip()), f"row {number}: its prompt is empty.")
        return given
    items = given.tolist() if hasattr(given, "tolist") else given
    kind = dict if isinstance(items, list | tuple) and items and isinstance(items[0], dict) else int
    good = isinstance(items, list | tuple) and bool(items)
    good = good and all(isinstance(item, kind) and not isinstance(item, bool) for item in items)
    require(
        good,
        f"row {number}: a prompt is a text, chat messages or token ids; {shown(given)} was given.",
    )
    return items


def _level(given: Any, number: int) -> float:
    """A difficulty: a number, or the only one in a text, as in "Level 5"."""
    name = f"difficulty of row {number}"
    if isinstance(given, str):
        numbers = re.findall(r"\d+(?:\.\d+)?", given)
        require(len(numbers) == 1, f"{name} must be a number; {shown(given)} was given.")
        return float(numbers[0])
    return finite(name, given)


def _filled(column: Column, row: Row, number: int) -> Any:
    """What a column, a text with columns in braces, or a function makes of a row."""
    if callable(column):
        try:
            return _there(column(row), f"row {number}: the function's result")
        except MechRewardError:
            raise
        # A user's code, which may do anything; its row is told.
        except Exception as error:
            raise MechRewardError(f"row {number}: {type(error).__name__}: {error}") from error
    of_kind("a column", column, str)
    if column in row:
        return _there(row[column], f"row {number}: {column!r}")
    try:
        parts = list(string.Formatter().parse(column))
    except ValueError:  # a brace that is not closed: no text with columns
        parts = []
    if not any(field is not None for _, field, _, _ in parts):
        return entry(row, column, number)
    filled = ""
    for text, field, _, _ in parts:
        filled += text
        if field is not None:
            filled += str(_there(entry(row, field, number), f"row {number}: {field!r}"))
    return filled


def _there(given: Any, what: str) -> Any:
    """An entry, if there is one."""
    missing = given is None or (isinstance(given, float) and isnan(given))
    require(not missing, f"{what} is empty.")
    return given
