"""What pages are made of, and how they are written: nouns in, text out by the templates.

A template of Markdown escapes what it is given for Markdown, one of HTML for HTML: text from a
model, a folder or a run is shown as it is, hidden characters by their number (`base.plain`), and
never becomes markup.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mechreward.base.errors import require
from mechreward.base.files import write_atomic
from mechreward.base.plain import in_cell, in_markdown, visible


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes
    ----------
    title
        What stands above it; "" for nothing.
    columns, lines
        Heads, and cells as text [line column].
    numeric
        Columns that HTML sets to the right.
    folded
        Whether HTML folds it under its title.
    """

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]
    numeric: Collection[str] = ()
    folded: bool = False

    def __post_init__(self) -> None:
        for line in self.lines:
            require(
                len(line) == len(self.columns),
                f"a line of {self.title!r} has {len(line)} cells, not {len(self.columns)}.",
            )


@dataclass(frozen=True)
class Figure:
    """A picture of a page: its caption, its file, and the drawing (`<svg>` text)."""

    caption: str
    file: str
    drawing: str


def file_name(text: str) -> str:
    """Text as the name of a file: what might be a folder or markup becomes a hyphen."""
    return re.sub(r"[^\w.-]", "-", text)


def render(template: str, **nouns: Any) -> str:
    """The text of a page: a template of the folder `templates`, filled."""
    markdown = template.endswith(".md.j2")
    text = _environment("markdown" if markdown else "html").get_template(template).render(nouns)
    # In Markdown one empty line parts two blocks, however many a template's conditions leave.
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n" if markdown else text


def write(path: Path | str, template: str, **nouns: Any) -> Path:
    """Render a page to a file, whole or not at all."""
    return write_atomic(path, render(template, **nouns))


def save_figures(figures: Sequence[Figure], folder: Path) -> None:
    """Write the drawings to their files in a folder, on white: a page may be dark."""
    for figure in figures:
        drawing = figure.drawing.replace("<svg ", '<svg style="background: white" ', 1)
        write_atomic(folder / figure.file, drawing)


@cache
def _environment(name: str) -> Environment:
    environment = Environment(
        loader=PackageLoader("mechreward.report", "templates"),
        autoescape=True,
        finalize=_as_markdown if name == "markdown" else _as_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "cell": _as_cell,
        "code": _as_code,
        "alt": _as_alt,
        "with_code": _with_code,
    }
    return environment


def _as_html(value: Any) -> Any:
    """Text whose hidden characters are seen; the template escapes it behind this."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value, keep="\n\t")
    return value


def _as_markdown(value: Any) -> Markup:
    """Text on one line that opens no markup."""
    return value if isinstance(value, Markup) else Markup(in_markdown(str(value)))


def _as_cell(value: Any) -> Markup:
    """The same in a table."""
    return Markup(in_cell(str(value)))


def _as_alt(value: Any) -> Markup:
    """The same between brackets."""
    return Markup(re.sub(r"[\[\]]", r"\\\g<0>", in_markdown(str(value))))


def _with_code(value: Any) -> Markup:
    """A sentence of our own: a word between backticks is a code span."""
    return Markup(re.sub(r"\\`([\w.-]+)\\`", r"`\1`", in_markdown(str(value))))


def _as_code(value: Any) -> Markup:
    """A code span, in more backticks than the text has in a row."""
    text = visible(" ".join(str(value).split()))
    runs = re.findall(r"`+", text)
    fence = "`" * (1 + max(map(len, runs), default=0))
    space = " " if runs else ""
    return Markup(fence + space + text + space + fence)
