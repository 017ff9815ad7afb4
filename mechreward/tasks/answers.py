"""Verifiers of texts: what a text answers, and whether that is the gold answer."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from mechreward.base.errors import MechRewardError, one_of, require, shown
from mechreward.tasks.base import SILENT, UNFINISHED, Problem, Verdict
from mechreward.tasks.maths import Maths

Check = Callable[[Problem, str], Any]
Reader = Callable[[str], str | None]

# Between the digits of one number: commas, apostrophes, underscores and spaces that do not break.
GROUPS = ",'’_\u00a0\u2009\u202f"
NUMBER = re.compile(
    # A sign that is no minus between two numbers, and no exponent of a unit.
    r"(?<![\w.^])(?P<sign>[-+\u2212]?)(?:\\?[$\u20ac\u00a3\u00a5\u20b9])?"
    r"(?:(?P<whole>\d+) (?=\d+/\d))?"  # of a mixed number
    rf"(?P<number>(?:\d{{1,3}}(?:[{GROUPS}]\d{{3}})+|\d+)?(?:\.\d+)?"
    r"(?<=\d)(?:[eE][-+]?\d+)?)(?:/(?P<below>\d+))?"
)
POWER = re.compile(r"\^\s*\{[^{}]*\}")  # of a unit, in TeX
FRACTION = re.compile(r"(?:(\d)\s*)?\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
LABEL = re.compile(
    r"^\W*(?:the\s+)?(?:final\s+)?answer(?:\s+is\b\s*:?|\s*:|(?=\W*$))[\s*]*", re.IGNORECASE
)


def number_of(text: str) -> Fraction | None:
    """The last number of a text, exactly; None if it has none.

    Separators of thousands, a currency or unit around it (`-$5`, `12 m^2`), a fraction (`3/4`, also
    TeX's), a mixed number (`2 1/2`) and an exponent are understood. A percent sign is a unit: 5%
    is 5.
    """
    plain = POWER.sub("", text.replace("{,}", ","))
    plain = FRACTION.sub(_plain_fraction, plain)
    last = None
    for match in NUMBER.finditer(plain):
        last = match
    if last is None:
        return None
    above, below, whole = last["number"], last["below"] or "1", last["whole"] or "0"
    for separator in GROUPS:
        above = above.replace(separator, "")
    if max(len(above), len(below), len(whole)) > 400:  # an exact fraction would take for ever
        return None
    mantissa, _, exponent = above.lower().partition("e")
    if not int(below) or (exponent and abs(int(exponent)) > 400):
        return None
    size = int(whole) + Fraction(mantissa) * Fraction(10) ** int(exponent or 0) / int(below)
    return -size if last["sign"] in ("-", "\u2212") else size


def _plain_fraction(found: re.Match[str]) -> str:
    """TeX's fraction, behind the digit that stands before it, as people type it."""
    before = f"{found[1]} " if found[1] else ""
    return f"{before}{found[2]}/{found[3]}"


def last_line(text: str) -> str:
    """The last line that says something, without `Answer:` or the like in front."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return LABEL.sub("", lines[-1]).strip("* ") if lines else ""


def choice_of(text: str, labels: tuple[str, ...]) -> str | None:
    """The last of the labels (such as A to D) that stands alone in the last line that has one.

    A label in brackets, alone, or behind "answer", counts before one that stands free: `A` is a
    word too. Where labels are single letters or digits another one of these is a choice as well, if
    it does not stand free: no question need have the last of its options as its gold answer.
    """
    free = "|".join(re.escape(label) for label in labels)
    names = free
    for others in (string.ascii_uppercase, string.ascii_lowercase, string.digits):
        if all(len(label) == 1 and label in others for label in labels):
            names = "|".join(others)
    ways = (
        rf"(?i:answer)(?:\s+is)?\W*\b({names})\b",
        rf"(?i:answer(?:\s+is)?)\W*\b((?i:{free}))\b(?=\W*$)",
        rf"[(\[{{]\s*({names})\s*[)\]}}]",
        rf"^\W*({names})\W*$",
        rf"\b({free})\b",
    )
    for line in reversed(text.splitlines()):
        for way in ways:
            found = re.findall(way, line)
            if found:
                return found[-1].upper() if found[-1].upper() in labels else found[-1]
    return None


def check_number(problem: Problem, text: str) -> Verdict:
    """Right is a text whose last number is the gold answer's last number."""
    wanted, given = number_of(problem.answer), number_of(text)
    if given is None:
        return UNFINISHED
    return _right(
        given == wanted, f"answered {float(given):g}" if abs(given) < 10**300 else "wrong"
    )


def check_exact(problem: Problem, text: str) -> Verdict:
    """Right is a text whose last line is the gold answer, but for spaces."""
    given = _exact(text)
    if given is None:
        return UNFINISHED
    return _right(given == " ".join(problem.answer.split()), f"answered {given[:60]!r}")


def check_choice(labels: tuple[str, ...]) -> Check:
    """Right is a text whose last label is the gold answer."""

    def check(problem: Problem, text: str) -> Verdict:
        given = choice_of(text, labels)
        if given is None:
            return UNFINISHED
        return _right(given == problem.answer, f"chose {given}")

    return check


def check_math(seconds: float) -> Check:
    """Right is what math-verify holds to equal the gold answer; in a process of its own, which ends
    when the time is up."""
    maths = Maths(seconds)

    def check(problem: Problem, text: str) -> Verdict:
        outcome, said = maths.ask(problem.answer, text)
        if outcome == "none":
            return UNFINISHED
        if outcome == "late":
            late = f"no verdict of math-verify within {maths.limit:g} seconds"
            return Verdict("unverifiable", late)
        if outcome == "gold":
            return Verdict("unverifiable", f"math-verify cannot read the gold answer: {said}")
        return _right(outcome == "equal", f"answered {said[:60]!r}")

    return check


def from_callable(function: Check) -> Check:
    """A verdict of what a user's function returns: a Verdict, True or False, or a reward of 0 to 1,
    of which 1 alone is right."""

    def check(problem: Problem, text: str) -> Any:
        returned = function(problem, text)
        if getattr(returned, "shape", None) == ():
            returned = returned.item()  # numpy's, or a tensor
        if isinstance(returned, bool):
            return _right(returned, "verified wrong")
        if isinstance(returned, int | float):
            require(0 <= returned <= 1, f"a reward lies in 0 to 1; {shown(returned)} was returned.")
            return _right(returned == 1, f"reward {returned:g}")
        return returned

    return check


def reader(verify: str | Check | None, answers: dict[str, str], seconds: float) -> Reader:
    """What a text answers, in one spelling, by the rule that verifies it.

    Parameters
    ----------
    verify : str or callable or None
        As for `verifier`. What a user's own function takes for an answer is not known, nor what is
        one where nothing is verified.
    answers : dict
        The gold answer of every problem id.
    seconds : float
        Limit of math-verify.

    Returns
    -------
    callable
        Of a text: the answer, or None.
    """
    if verify is None or callable(verify):
        return lambda text: None
    if verify == "math":
        return Maths(seconds).read
    if verify == "choice":
        labels = tuple(sorted(set(answers.values())))
        return lambda text: choice_of(text, labels)
    return _number if verify == "number" else _exact


def _number(text: str) -> str | None:
    number = number_of(text)
    return None if number is None else str(number)


def _exact(text: str) -> str | None:
    return " ".join(last_line(text).split()) or None


VERIFIERS = ("number", "exact", "choice", "math")


def verifier(verify: str | Check, answers: dict[str, str], seconds: float) -> Check:
    """The check that goes by a name, or a user's own.

    Parameters
    ----------
    verify : str or callable
        One of `VERIFIERS`, or a function of problem and text.
    answers : dict
        The gold answer of every problem id, which are looked at at once.
    seconds : float
        Limit of math-verify.

    Raises
    ------
    MechRewardError
        Another name, or a gold answer that it cannot read.
    """
    if callable(verify):
        return from_callable(verify)
    one_of("verifier", verify, VERIFIERS)
    if verify == "number":
        for name, answer in answers.items():
            if number_of(answer) is None:
                raise MechRewardError(
                    f"{name}: the answer {shown(answer)} has no number; verify it as one of exact, "
                    "choice or math, or by a function."
                )
        return check_number
    if verify == "choice":
        labels = tuple(sorted(set(answers.values())))
        require(
            1 < len(labels) <= 26 and all(len(label) <= 3 for label in labels),
            f"answers of verify='choice' are labels such as A to D; these are {shown(labels)}.",
        )
        return check_choice(labels)
    return check_math(seconds) if verify == "math" else check_exact


def _right(right: bool, reason: str) -> Verdict:
    return Verdict("correct") if right else Verdict("incorrect", reason)


__all__ = [
    "SILENT",
    "VERIFIERS",
    "choice_of",
    "last_line",
    "number_of",
    "reader",
    "verifier",
]
