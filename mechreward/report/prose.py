"""Numbers in hand-written text, each with the row it comes from.

A marker behind a number, which a reader of the page does not see, names an entry of the list that
ends the text:

    Pruned to a tenth it reads V-hat with Spearman .58 [.43, .70]<!--tenth-->.

    <!-- rows
    tenth: pruning mixed-rl countdown resid_post value spearman ratio=.9 shape=mlp fit=retrained
    -->

An entry holds experiment (its name or id), model, task, site (or kind of neuron), arm and metric, a
hyphen for whatever may be there, and then fields of the detail as KEY=VALUE. At its end, `n` or
`detail.KEY` takes that instead of the estimate. The number is written as

- an estimate, or an estimate [low, high]: of exactly one row;
- lowest `to` highest: of the estimates of several rows.

How it is written (decimals, a plus, a percentage) is read off the text, so that filling in new
numbers keeps its form.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mechreward.base.errors import MechRewardError, require
from mechreward.experiments.plan import EXPERIMENT_IDS
from mechreward.experiments.rows import Row

NUMBER = r"[+-]?(?:\d*\.\d+|\d+)"
MARKED = re.compile(
    rf"(?P<text>{NUMBER}(?:\s+\[{NUMBER},\s+{NUMBER}\]|\s+to\s+{NUMBER})?)"
    r"(?P<percent>%?)<!--(?P<name>[\w-]+)-->"
)
ENTRIES = re.compile(r"^<!-- rows\n(.*?)^-->", re.DOTALL | re.MULTILINE)
COLUMNS = ("experiment", "model", "task", "site", "arm", "metric")
ANY = "-"


@dataclass(frozen=True)
class Reference:
    """Which rows a number comes from.

    Attributes
    ----------
    text
        The entry as it stands.
    fields
        Wanted values of `COLUMNS`; those that do not matter are left out.
    detail
        Wanted values in the detail of a row.
    key
        What the number is: "" for the estimate, "n", or "detail.KEY".
    """

    text: str
    fields: dict[str, str]
    detail: dict[str, str] = field(default_factory=dict)
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Raises MechRewardError for text that is no entry."""
        words = text.split()
        require(
            len(words) >= len(COLUMNS),
            f"an entry names {', '.join(COLUMNS)}; this is {text!r}.",
        )
        fields = {}
        for column, word in zip(COLUMNS, words, strict=False):
            if word != ANY:
                fields[column] = EXPERIMENT_IDS.get(word, word) if column == "experiment" else word
        detail, key = {}, ""
        for word in words[len(COLUMNS) :]:
            name, equals, value = word.partition("=")
            if equals:
                detail[name] = value
            else:
                known = word == "n" or word.startswith("detail.")
                require(known, f"{word!r} is not KEY=VALUE, n or detail.KEY in {text!r}.")
                key = word
        return cls(text, fields, detail, key)

    def means(self, row: Row) -> bool:
        """Whether a row is one of those that are meant."""
        for column, wanted in self.fields.items():
            given = getattr(row, column)
            of_kind = column == "site" and given.endswith(f".{wanted}")
            if given != wanted and not of_kind:
                return False
        return all(_same(row.detail.get(key), value) for key, value in self.detail.items())

    def number(self, row: Row) -> float:
        """The number of a row that is meant."""
        if not self.key:
            return row.estimate
        if self.key == "n":
            return float(row.n)
        key = self.key.removeprefix("detail.")
        require(key in row.detail, f"no {key!r} in the detail of {self.text!r}.")
        return float(row.detail[key])


def fill_prose(text: str, rows: Sequence[Row]) -> str:
    """The text with every marked number written anew from its rows.

    Raises:
        MechRewardError: a marker without an entry, or an entry that names no row, or several where
            one is meant.
    """
    references = _references(text)

    def filled(match: re.Match[str]) -> str:
        return f"{_written(match, references, rows)}<!--{match['name']}-->"

    return MARKED.sub(filled, text)


def check_prose(text: str, rows: Sequence[Row]) -> list[str]:
    """What is wrong with the marked numbers of a text, a line each: a marker without an entry, an
    entry without a marker, one that names no row or several, and a number that its rows do not
    give."""
    references = _references(text)
    unused = set(references)
    problems = []
    for match in MARKED.finditer(text):
        unused.discard(match["name"])
        shown = match["text"] + match["percent"]
        try:
            right = _written(match, references, rows)
        except MechRewardError as error:
            problems.append(f"{shown}: {error}")
            continue
        if right != shown:
            problems.append(f"{shown} is {right} by its row, {match['name']}.")
    return problems + [f"{name}: no number is marked so." for name in sorted(unused)]


def _references(text: str) -> dict[str, Reference]:
    """The entries of the list that ends a text, by name."""
    references = {}
    for entries in ENTRIES.findall(text):
        for line in entries.splitlines():
            name, _, entry = line.partition(":")
            references[name.strip()] = Reference.parse(entry.strip())
    return references


def _written(match: re.Match[str], references: dict[str, Reference], rows: Sequence[Row]) -> str:
    """A marked number as its rows have it, in the form of the number that stands there."""
    require(match["name"] in references, f"no entry is called {match['name']!r}.")
    reference = references[match["name"]]
    meant = [row for row in rows if reference.means(row)]
    if re.search(r"\bto\b", match["text"]):
        require(len(meant) > 1, f"a range is of several rows; {reference.text!r} is {len(meant)}.")
        values = [reference.number(row) for row in meant]
        numbers = [min(values), max(values)]
    else:
        require(len(meant) == 1, f"{reference.text!r} names {len(meant)} rows, not one.")
        (row,) = meant
        numbers = [reference.number(row), row.low, row.high]
    scale = 100 if match["percent"] else 1
    left = iter(numbers)
    text = re.sub(NUMBER, lambda shown: _like(shown[0], scale * next(left)), match["text"])
    return text + match["percent"]


def _same(given: object, wanted: str) -> bool:
    """Whether a field of a detail is what an entry says; blanks in it are written as _."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        return re.fullmatch(NUMBER, wanted) is not None and abs(given - float(wanted)) < 1e-9
    return str(given).replace(" ", "_") == wanted


def _like(shown: str, value: float) -> str:
    """A value in the form of the number that stands there; no zero before the point."""
    digits = len(shown.partition(".")[2])
    plus = "+" if shown.startswith("+") else ""
    text = f"{round(value, digits) + 0.0:{plus}.{digits}f}"
    return re.sub(r"^([+-]?)0\.", r"\1.", text)
