"""Numbers in hand-written text, each with the row it comes from.

A number is followed by a comment that names its row, which a reader of the page does not see:

    .58 [.43, .70]<!-- pruning mixed-rl countdown resid_post value spearman ratio=.9 fit=retrained -->

The comment holds experiment (its name or id), model, task, site (or kind of neuron), arm and
metric, a hyphen for whatever holds, then fields of the detail as KEY=VALUE; `detail.KEY` at its end
takes that field of the detail instead of the estimate. The number is written as

- an estimate, or an estimate [low, high]: of exactly one row;
- `lowest to highest`: of the estimates of several rows.

How it is written (decimals, a plus, a percentage) is read off the text, so that filling in new
numbers keeps its form.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mechreward.base.errors import MechRewardError, require
from mechreward.experiments.rows import Row
from mechreward.report.words import EXPERIMENTS

NUMBER = r"[+-]?(?:\d*\.\d+|\d+)"
SPACE = r"\s+"
REFERENCE = re.compile(
    rf"(?P<text>{NUMBER}(?:{SPACE}\[{NUMBER},{SPACE}{NUMBER}\]|{SPACE}to{SPACE}{NUMBER})?)"
    r"(?P<percent>%?)<!--(?P<names>.*?)-->",
    re.DOTALL,
)
COLUMNS = ("experiment", "model", "task", "site", "arm", "metric")
ANY = "-"


@dataclass(frozen=True)
class Reference:
    """Which rows a number comes from.

    Attributes
    ----------
    fields
        Wanted values of `COLUMNS`; those that do not matter are left out.
    detail
        Wanted values in the detail of a row.
    key
        The field of the detail that is the number; "" for the estimate.
    """

    fields: dict[str, str]
    detail: dict[str, str] = field(default_factory=dict)
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Raises MechRewardError where the six columns are not all there."""
        words = text.split()
        require(
            len(words) >= len(COLUMNS),
            f"a reference names {', '.join(COLUMNS)}; got {' '.join(words)!r}.",
        )
        wanted = dict(zip(COLUMNS, words, strict=False))
        wanted["experiment"] = EXPERIMENTS.get(words[0], words[0])
        detail, key = {}, ""
        for word in words[len(COLUMNS) :]:
            name, equals, value = word.partition("=")
            if equals:
                detail[name] = value
            else:
                require(name.startswith("detail."), f"{name!r} is neither KEY=VALUE nor detail.KEY")
                key = name.removeprefix("detail.")
        fields = {column: value for column, value in wanted.items() if value != ANY}
        return cls(fields, detail, key)

    def rows(self, rows: Sequence[Row]) -> list[Row]:
        """Those of `rows` that are meant."""
        return [row for row in rows if self._means(row)]

    def _means(self, row: Row) -> bool:
        for name, value in self.fields.items():
            given = getattr(row, name)
            if value != given and not (name == "site" and given.endswith(f".{value}")):
                return False
        return all(_same(row.detail.get(key), value) for key, value in self.detail.items())


def _same(given: object, value: str) -> bool:
    """Whether a field of a detail is what the text says; blanks in it are written as _."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        return re.fullmatch(NUMBER, value) is not None and abs(given - float(value)) < 1e-9
    return str(given).replace(" ", "_") == value


def fill_prose(text: str, rows: Sequence[Row]) -> str:
    """The text with every number that names a row written anew from it.

    Raises:
        MechRewardError: a reference that names no row, or several where one is meant.
    """
    return REFERENCE.sub(lambda match: _filled(match, rows), text)


def check_prose(text: str, rows: Sequence[Row]) -> list[str]:
    """What is wrong with the numbers of a text, a line each: a reference that names no row, or
    several, and a number that its row does not give."""
    problems = []
    for match in REFERENCE.finditer(text):
        line = 1 + text.count("\n", 0, match.start())
        try:
            filled = _filled(match, rows)
        except MechRewardError as error:
            problems.append(f"line {line}: {error}")
            continue
        if filled != match[0]:
            right = filled.partition("<!--")[0]
            shown = match["text"] + match["percent"]
            problems.append(
                f"line {line}: {shown} is {right} by {' '.join(match['names'].split())}"
            )
    return problems


def _filled(match: re.Match[str], rows: Sequence[Row]) -> str:
    """One number and its comment, the number written from its rows."""
    names = " ".join(match["names"].split())
    reference = Reference.parse(names)
    meant = reference.rows(rows)
    if re.search(r"\bto\b", match["text"]):
        require(len(meant) > 1, f"a range is of several rows; {names!r} names {len(meant)}.")
        values = [_value(row, reference.key) for row in meant]
        numbers = [min(values), max(values)]
    else:
        require(len(meant) == 1, f"{names!r} names {len(meant)} rows, not one.")
        (row,) = meant
        numbers = [_value(row, reference.key), row.low, row.high]
    scale = 100 if match["percent"] else 1
    left = iter(numbers)
    text = re.sub(NUMBER, lambda shown: _like(shown[0], scale * next(left)), match["text"])
    return f"{text}{match['percent']}<!--{match['names']}-->"


def _value(row: Row, key: str) -> float:
    """The number that is meant."""
    if not key:
        return row.estimate
    require(key in row.detail, f"no {key!r} in the detail of {row.experiment}, {row.metric}.")
    return float(row.detail[key])


def _like(shown: str, value: float) -> str:
    """A value in the form of the number that stands there; no zero before the point."""
    digits = len(shown.partition(".")[2])
    plus = "+" if shown.startswith("+") else ""
    text = f"{round(value, digits) + 0.0:{plus}.{digits}f}"
    return re.sub(r"^([+-]?)0\.", r"\1.", text)
