"""One self-contained `report.html`: what was found and what was not, every number, and how to get
them again. It is laid out in `templates/report.html.j2`.

The page has no JavaScript and loads nothing, and a content security policy in its head holds a
browser to that. It is the same bytes for the same input.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mechreward.experiments.rows import Results, Row
from mechreward.report import layout
from mechreward.report.bullets import asked
from mechreward.report.formats import NONE, readable, scaled
from mechreward.report.inert import inlined, require_inert
from mechreward.report.layout import Table
from mechreward.show.style import order

SETTINGS = ("experiment", "model", "task", "site", "seed")
LONG = 30  # longer tables are folded: their figure speaks first
NUMERIC = ("estimate [low, high]", "n")
OF_A_DRAW = (
    "draw",
    "shared",
    "match_error",
)  # keys of a detail that are no part of what is measured


@dataclass(frozen=True)
class Section:
    """One experiment on the page.

    Attributes
    ----------
    title
        Its heading.
    reading
        Plain text, its paragraphs apart by blank lines.
    rows
        Its numbers.
    svg
        Pairs of caption and `<svg>` text.
    html
        Token strips.
    command
        What repeats the experiment.
    """

    title: str
    reading: str
    rows: Sequence[Row] = ()
    svg: Sequence[tuple[str, str]] = ()
    html: Sequence[str] = ()
    command: str = ""


@dataclass(frozen=True)
class Drawing:
    """A figure that is safe to stand in the page."""

    caption: str
    svg: Markup


@dataclass(frozen=True)
class Part:
    """A section as it is laid out: `shared` says what all of its rows have in common, and `tables`
    is None where rows were neither recorded nor to be expected."""

    title: str
    paragraphs: Sequence[str]
    drawings: Sequence[Drawing]
    strips: Sequence[Markup]
    shared: str
    tables: Sequence[Table] | None
    command: str


def report(results: Results, sections: Sequence[Section], path: Path | str) -> Path:
    """Write the page to `path`, whole or not at all, and return it.

    At the top stand the five answers, as far as they were measured. `results.manifest` may hold
    `title`, and `found` and `not_found`, lists of sentences below them: a null result stands there
    as a null result. The rest of the manifest becomes the
    table at the end. Every text is escaped. Rows with `detail["draw"]` are folded below their
    table. NaN prints as "–".

    Raises:
        MechRewardError: an SVG that is no XML, or HTML that holds a script, a style sheet or
        anything that loads.
    """
    manifest = results.manifest
    return layout.write(
        path,
        "report.html.j2",
        title=str(manifest.get("title", "mechreward report")),
        questions=asked(results),
        found=_sentences(manifest.get("found")) or ["No claim met its test."],
        not_found=_sentences(manifest.get("not_found")) or ["No null result was recorded."],
        parts=[_part(section, number) for number, section in enumerate(sections)],
        about=_about(manifest),
    )


def _sentences(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(map(str, value or ()))


def _part(section: Section, number: int) -> Part:
    drawings = []
    for figure, (caption, svg) in enumerate(section.svg):
        safe = inlined(svg, f"s{number}f{figure}-", caption)
        drawings.append(Drawing(caption, Markup(safe)))
    for strip in section.html:
        require_inert(strip)
    expected = section.rows or not (section.svg or section.html)
    paragraphs = map(str.strip, re.split(r"\n\s*\n", section.reading))
    differing, shared = _fields(section.rows)
    return Part(
        title=section.title,
        paragraphs=list(filter(None, paragraphs)),
        drawings=drawings,
        strips=list(map(Markup, section.html)),
        shared=shared,
        tables=_tables(section.rows, differing) if expected else None,
        command=section.command,
    )


def _fields(rows: Sequence[Row]) -> tuple[list[str], str]:
    """The fields in which rows differ, and in words what they share."""
    differing, shared = [], []
    for name in SETTINGS:
        # A baseline has no site: an empty field is not another setting.
        values = {getattr(row, name) for row in rows} - {""}
        if len(values) > 1:
            differing.append(name)
        elif values:
            shared.append(f"{name} {values.pop()}")
    return differing, ", ".join(shared)


def _tables(rows: Sequence[Row], differing: Sequence[str]) -> list[Table]:
    """All rows but single draws in one table; below it, folded, the draws of each control."""
    summaries = [row for row in rows if row.detail.get("draw") is None]
    tables = []
    if len(summaries) > LONG:
        tables.append(_table(summaries, differing, f"All {len(summaries)} rows"))
    elif summaries:
        tables.append(_table(summaries, differing))
    for (arm, *places), draws in sorted(_draws(rows, differing).items(), key=_by_arm):
        tables.append(_table(draws, differing, _spread(arm, places, draws)))
    return tables


def _table(rows: Sequence[Row], differing: Sequence[str], fold: str = "") -> Table:
    """Rows as lines; folded under the sentence `fold`, if there is one."""
    lines = []
    for row in rows:
        bounds = f"{scaled(row.estimate)} [{scaled(row.low)}, {scaled(row.high)}]"
        fields = [str(getattr(row, name)) for name in differing]
        line = [row.arm, *fields, row.metric, bounds, f"{row.n:,}", readable(row.detail)]
        lines.append(line)
    columns = ("arm", *differing, "metric", *NUMERIC, "detail")
    return Table(fold, columns, lines, NUMERIC, folded=bool(fold))


def _draws(rows: Sequence[Row], differing: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    """Single draws by arm, metric, and all else that was measured: two draws are summed up
    together only where nothing but their numbers differs."""
    draws: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.detail.get("draw") is not None:
            fields = [str(getattr(row, name)) for name in differing]
            key = row.arm, row.metric, *_measured(row), *fields
            draws.setdefault(key, []).append(row)
    return draws


def _measured(row: Row) -> list[str]:
    """What the detail of a draw says of the measurement: a word as it is, all else by its name."""
    words = []
    for key, value in row.detail.items():
        if key == "ratio":
            words.append(f"{100 * (1 - row.detail['ratio']):.3g}% kept")
        elif key not in OF_A_DRAW:
            words.append(value if isinstance(value, str) else f"{key} {readable(value)}")
    return words


def _by_arm(draws: tuple[tuple[str, ...], list[Row]]) -> tuple:
    return order(draws[0][0])


def _spread(arm: str, places: Sequence[str], draws: Sequence[Row]) -> str:
    """Mean and range of draws, in a sentence."""
    scores = [row.estimate for row in draws if math.isfinite(row.estimate)]
    mean = spread = NONE
    if scores:
        mean = scaled(sum(scores) / len(scores))
        spread = f"{scaled(min(scores))} to {scaled(max(scores))}"
    where = ", ".join(filter(None, places))
    return f"{len(draws)} draws of {arm} ({where}): mean {mean}, from {spread}"


def _about(manifest: dict[str, Any]) -> Table:
    """How it was made: everything in the manifest that stands nowhere else."""
    rest = dict(manifest)
    for key in ("title", "found", "not_found"):
        rest.pop(key, None)
    return Table("", ("what", "value"), list(_flat(rest)))


def _flat(value: dict[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    """Keys of nested dictionaries with dots between, and their values as text."""
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _flat(inner, f"{before}{key}.")
        else:
            yield f"{before}{key}", readable(inner)
