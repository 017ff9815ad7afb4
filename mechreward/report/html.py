"""One self-contained `report.html`: what was found and what was not, every number, and how to get
them again.

The page has no JavaScript and loads nothing, and a content security policy in its head holds a
browser to that. It is the same bytes for the same input.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mechreward.base.errors import MechRewardError, require
from mechreward.base.files import write_atomic
from mechreward.experiments.rows import Results, Row
from mechreward.show.style import order

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
SETTINGS = ("experiment", "model", "task", "site", "seed")
LONG = 30  # longer tables are folded: their figure speaks first
ACTIVE = {
    "script",
    "iframe",
    "object",
    "embed",
    "link",
    "meta",
    "base",
    "form",
    "img",
    "video",
    "audio",
    "svg",
    "style",
}
CSS = """
body { max-width: 900px; margin: 2.5rem auto; padding: 0 1.2rem; background: #fff; color: #1c1c1c;
  font: 16px/1.55 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .5rem; padding-top: .9rem; border-top: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 1.3rem 0 .4rem; }
.box h3 { margin-top: .2rem; }
a { color: #005a8e; }
nav { margin: 1.2rem 0; font-size: .93rem; }
nav ol, .box ul { margin: .2rem 0; padding-left: 1.4rem; }
.box { display: grid; grid-template-columns: 1fr 1fr; gap: 0 2rem; margin: 1.2rem 0; padding: .9rem 1.2rem;
  border: 1px solid #cfcfcf; border-radius: 6px; background: #fafafa; }
.box .yes { border-top: 4px solid #0072b2; padding-top: .5rem; }
.box .no { border-top: 4px solid #767676; padding-top: .5rem; }
figure { margin: 1.2rem 0; }
figure svg { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { margin-top: .4rem; color: #444; font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .8rem 0; font-size: .86rem; line-height: 1.4; }
.note { margin: 1rem 0 .3rem; color: #444; font-size: .88rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #e6e6e6; }
tr > :last-child { padding-right: 0; }
thead th { border-bottom: 2px solid #bbb; }
tbody th { font-weight: 600; }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.rows th, .rows td { white-space: nowrap; }
.rows td:last-child { white-space: normal; min-width: 12rem; width: 45%; }
.about td { overflow-wrap: anywhere; }
.about tbody th { white-space: nowrap; width: 30%; }
details { margin: .4rem 0; font-size: .9rem; }
summary { cursor: pointer; color: #333; }
code { font: .86rem/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
pre { background: #f4f4f4; border: 1px solid #e2e2e2; border-radius: 4px; padding: .5rem .8rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
@media (max-width: 640px) { .box { grid-template-columns: 1fr; } }
@media print { body { margin: 0; max-width: none; font-size: 11pt; } nav { display: none; }
  figure, tr, .box { break-inside: avoid; } h2, h3 { break-after: avoid; } .wide { overflow: visible; }
  details:not([open])::details-content { content-visibility: visible; block-size: auto; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


@dataclass(frozen=True)
class Section:
    """One experiment on the page. `reading` is plain text, its paragraphs apart by blank lines;
    `svg` holds pairs of caption and `<svg>` text; `html` holds token strips; `command` repeats the
    experiment."""

    title: str
    reading: str
    rows: Sequence[Row] = ()
    svg: Sequence[tuple[str, str]] = ()
    html: Sequence[str] = ()
    command: str = ""


def report(results: Results, sections: Sequence[Section], path: Path | str) -> Path:
    """Write the page to `path`, whole or not at all, and return it.

    `results.manifest` may hold `title`, and `found` and `not_found`, lists of sentences for the box
    at the top: a null result stands there as a null result. The rest of the manifest becomes the
    table at the end. Every text is escaped. Rows with `detail["draw"]` are folded below their
    table. NaN prints as "–".

    Raises:
        MechRewardError: an SVG that is no XML, or HTML that holds a script, a style sheet or
        anything that loads.
    """
    title = str(results.manifest.get("title", "mechreward report"))
    parts = [f"<h1>{escape(title)}</h1>", _summary(results.manifest)]
    if len(sections) > 2:
        links = "".join(
            f'<li><a href="#s{i}">{escape(s.title)}</a></li>' for i, s in enumerate(sections)
        )
        parts.append(f'<nav aria-label="Contents"><ol>{links}</ol></nav>')
    parts += [_section(section, i) for i, section in enumerate(sections)]
    parts.append(
        '<section id="how"><h2>How it was made</h2>' + _manifest(results.manifest) + "</section>"
    )
    body = "\n".join(parts)
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n"
        "</html>\n"
    )
    return write_atomic(
        path, page.encode("utf-8", "backslashreplace")
    )  # half a surrogate pair has no UTF-8


def _summary(manifest: dict[str, Any]) -> str:
    found = _sentences(manifest.get("found")) or ["No claim met its test."]
    missed = _sentences(manifest.get("not_found")) or ["No null result was recorded."]
    return (
        '<section class="box" aria-label="Summary">'
        f'<div class="yes"><h3>What was found</h3>{_list(found)}</div>'
        f'<div class="no"><h3>What was not found</h3>{_list(missed)}</div></section>'
    )


def _section(section: Section, index: int) -> str:
    paragraphs = [text.strip() for text in re.split(r"\n\s*\n", section.reading) if text.strip()]
    parts = [f'<section id="s{index}"><h2>{escape(section.title)}</h2>']
    parts += [f"<p>{escape(text)}</p>" for text in paragraphs]
    for number, (caption, svg) in enumerate(section.svg):
        drawing = _inlined(svg, f"s{index}f{number}-", caption)
        parts.append(f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>")
    for strip in section.html:
        _Inert().feed(strip)
        parts.append(strip)
    if section.rows or not (section.svg or section.html):
        parts.append(_rows(section.rows))
    if section.command:
        parts.append(f"<h3>Repeat it</h3><pre><code>{escape(section.command)}</code></pre>")
    return "\n".join([*filter(None, parts), "</section>"])


def _rows(rows: Sequence[Row]) -> str:
    """The table of a section's rows, what they share in its caption, and the draws of each control
    folded below."""
    if not rows:
        return "<p>No rows were recorded for this section.</p>"
    # A baseline has no site: an empty field is not another setting.
    values = {name: {getattr(row, name) for row in rows} - {""} for name in SETTINGS}
    differ = [name for name in SETTINGS if len(values[name]) > 1]
    same = ", ".join(
        f"{name} {next(iter(values[name]))}" for name in SETTINGS if len(values[name]) == 1
    )
    shown = [row for row in rows if row.detail.get("draw") is None]
    parts = [f'<p class="note">In every row: {escape(same)}.</p>'] if same else []
    if len(shown) > LONG:
        parts.append(_folded(f"All {len(shown)} rows", shown, differ))
    elif shown:
        parts.append(_table(shown, differ))
    draws: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.detail.get("draw") is not None:
            share = f"{1 - row.detail['ratio']:.0%} kept" if "ratio" in row.detail else ""
            place = (
                str(row.detail.get("op", "")),
                share,
                *(str(getattr(row, name)) for name in differ),
            )
            key = row.arm, row.metric, *place
            draws.setdefault(key, []).append(row)
    for (arm, metric, *place), group in sorted(draws.items(), key=lambda pair: order(pair[0][0])):
        numbers = [row.estimate for row in group if math.isfinite(row.estimate)]
        where = ", ".join(filter(None, [metric, *place]))
        spread = f"{number(min(numbers))} to {number(max(numbers))}" if numbers else "–"
        mean = number(sum(numbers) / len(numbers) if numbers else math.nan)
        head = f"{len(group)} draws of {arm} ({where}): mean {mean}, from {spread}"
        parts.append(_folded(head, group, differ))
    return "\n".join(parts)


def _folded(head: str, rows: Sequence[Row], differ: Sequence[str]) -> str:
    return f"<details><summary>{escape(head)}</summary>{_table(rows, differ)}</details>"


def _table(rows: Sequence[Row], differ: Sequence[str]) -> str:
    heads = ["arm", *differ, "metric", "estimate [low, high]", "n", "detail"]
    kinds = [' class="number"' if head in ("n", "estimate [low, high]") else "" for head in heads]
    top = "".join(
        f'<th scope="col"{kind}>{escape(head)}</th>'
        for head, kind in zip(heads, kinds, strict=True)
    )
    lines = []
    for row in rows:
        interval = f"{number(row.estimate)} [{number(row.low)}, {number(row.high)}]"
        cells = [
            *(getattr(row, name) for name in differ),
            row.metric,
            interval,
            f"{row.n:,}",
            readable(row.detail),
        ]
        tail = "".join(
            f"<td{kind}>{escape(str(cell))}</td>"
            for cell, kind in zip(cells, kinds[1:], strict=True)
        )
        lines.append(f'<tr><th scope="row">{escape(row.arm)}</th>{tail}</tr>')
    body = f"<thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="wide"><table class="rows">{body}</table></div>'


def _manifest(manifest: dict[str, Any]) -> str:
    rest = {
        key: value for key, value in manifest.items() if key not in ("title", "found", "not_found")
    }
    pairs = list(_flat(rest))
    if not pairs:
        return "<p>The manifest is empty: nothing is known about how this was made.</p>"
    lines = "".join(
        f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in pairs
    )
    head = '<thead><tr><th scope="col">what</th><th scope="col">value</th></tr></thead>'
    return f'<table class="about">{head}<tbody>{lines}</tbody></table>'


def _flat(value: dict[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _flat(inner, f"{before}{key}.")
        else:
            yield f"{before}{key}", readable(inner)


def number(x: float | int | None) -> str:
    """A number as the page prints it: three decimals, powers where those would read 0, "–" for what
    does not exist."""
    if x is None or not math.isfinite(x):
        return "–"
    text = f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.1e}" if 0 < abs(x) < 0.001 else f"{x:.3f}"
    return text.replace("-", "−", 1) if x < 0 else text


def readable(value: Any) -> str:
    """A detail as a person reads it: `ratio 0.9, neurons 51`; long lists are cut and say so."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {readable(inner)}" for key, inner in value.items()) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) or value is None:
        return (
            f"{value:.4g}".replace("-", "−", 1)
            if value is not None and math.isfinite(value)
            else "–"
        )
    if isinstance(value, (list, tuple)):
        tail = f", ... ({len(value)} in all)" if len(value) > 12 else ""
        return "[" + ", ".join(readable(inner) for inner in value[:12]) + tail + "]"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _inlined(svg: str, prefix: str, caption: str) -> str:
    """An SVG fit to stand beside others: its ids made its own, named for screen readers, nothing
    active left in it."""
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise MechRewardError(f"the figure {caption!r} is no SVG: {error}") from error
    require(
        root.tag == f"{{{SVG}}}svg",
        f"the figure {caption!r} begins with {root.tag}, not with an svg element",
    )
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in (
                "script",
                "foreignObject",
                "style",
                "animate",
                "set",
                "image",
                "a",
            ):
                parent.remove(child)
        for name, value in list(parent.attrib.items()):
            local, outside = name.rpartition("}")[2], re.search(r"url\(\s*['\"]?(?!#)", value)
            if local.startswith("on") or outside or (local == "href" and not value.startswith("#")):
                del parent.attrib[name]
            elif local == "id":
                parent.set(name, prefix + value)
            elif local == "href":
                parent.set(name, "#" + prefix + value[1:])
            else:
                parent.set(name, re.sub(r"url\((['\"]?)#", rf"url(\1#{prefix}", value))
    root.set("role", "img")
    root.set("aria-label", caption)
    # Matplotlib says this in a <style> for "*", which inside a page would speak for every figure.
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(root, encoding="unicode")


class _Inert(HTMLParser):
    """Raises at anything that runs or loads: only text, marks and inline looks may stand in
    `Section.html`."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        active = [
            name
            for name, value in attrs
            if name.startswith("on")
            or name in ("src", "href", "srcdoc", "data")
            or (name == "style" and "url(" in (value or "").lower())
        ]
        require(
            tag not in ACTIVE and not active,
            f"Section.html takes token strips only; got <{tag} {' '.join(active)}>",
        )


def _sentences(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(sentence) for sentence in value or ()]


def _list(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"
