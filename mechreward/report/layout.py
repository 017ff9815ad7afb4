"""What pages are made of, and how they are written: nouns in, text out by the templates.

A template of Markdown escapes what it is given for Markdown, one of HTML for HTML: text from a
model, a folder or a run is shown as it is and never becomes markup.
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
    text = render(template, **nouns)
    # Half a surrogate pair, as a tokenizer may give it, has no UTF-8.
    return write_atomic(path, text.encode("utf-8", "backslashreplace"))


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
        finalize=_as_markdown if name == "markdown" else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": _as_cell, "code": _as_code, "alt": _as_alt}
    return environment


def _as_markdown(value: Any) -> Markup:
    """Text on one line that opens no markup: no tag, entity, link or emphasis.

    Backticks stay, for our own sentences use them; a code span shows no more than its text."""
    if isinstance(value, Markup):
        return value
    text = re.sub(r"\s*[\r\n]\s*", " ", str(value))
    text = re.sub(r"\\(?=[^\w\s])", r"\\\\", text)
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text)
    text = re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", text)
    text = text.replace("*", r"\*").replace("](", r"]\(")
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    return Markup(text)


def _as_cell(value: Any) -> Markup:
    """The same in a table, where a bar would open another cell."""
    return Markup(_as_markdown(value).replace("|", r"\|"))


def _as_alt(value: Any) -> Markup:
    """The same between brackets."""
    return Markup(re.sub(r"([\[\]])", r"\\\1", _as_markdown(value)))


def _as_code(value: Any) -> Markup:
    """A code span, in more backticks than the text has in a row."""
    text = " ".join(str(value).split())
    runs = re.findall(r"`+", text)
    fence = "`" * (1 + max(map(len, runs), default=0))
    space = " " if runs else ""
    return Markup(fence + space + text + space + fence)
