"""What may stand inside a page: drawings and token strips in which nothing runs and nothing
loads."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

from mechreward.base.errors import MechRewardError, require
from mechreward.base.plain import visible

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
ACTIVE = (
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
)
# Elements of an SVG that run, load, or speak for the whole page.
REMOVED = {*ACTIVE, "foreignObject", "animate", "set", "image", "a"} - {"svg"}
LAYOUT = "\n\t"


def inlined(svg: str, prefix: str, caption: str) -> str:
    """An SVG fit to stand beside others: its ids made its own by `prefix`, named for screen
    readers, nothing active left in it, hidden characters shown.

    Raises:
        MechRewardError: no XML, or no SVG.
    """
    try:
        root = ElementTree.fromstring(visible(svg, LAYOUT))
    except ElementTree.ParseError as error:
        raise MechRewardError(f"the figure {caption!r} is no SVG: {error}") from error
    require(
        root.tag == f"{{{SVG}}}svg",
        f"the figure {caption!r} begins with {root.tag}, not with an svg element",
    )
    for parent in list(root.iter()):
        # A character written as its number is only seen now.
        parent.text, parent.tail = _seen(parent.text), _seen(parent.tail)
        for child in list(parent):
            if _local(child.tag) in REMOVED:
                parent.remove(child)
        for name, value in list(parent.attrib.items()):
            if _is_active(_local(name), value):
                del parent.attrib[name]
            else:
                parent.set(name, visible(_prefixed(_local(name), value, prefix), LAYOUT))
    root.set("role", "img")
    root.set("aria-label", visible(caption, LAYOUT))
    # Matplotlib says this in a <style> for "*", which inside a page would speak for every figure.
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def require_inert(html: str) -> None:
    """Raises MechRewardError at anything that runs, loads or hides: only text that is seen, marks
    and inline looks may stand in `Section.html`."""
    reader = _Inert()
    reader.feed(html)
    reader.close()


def _seen(text: str | None) -> str | None:
    return text and visible(text, LAYOUT)


def _local(name: str) -> str:
    """A name without its namespace."""
    return name.rpartition("}")[2]


def _is_active(name: str, value: str) -> bool:
    """Whether an attribute runs, or points out of the drawing."""
    outside = re.search(r"url\(\s*['\"]?(?!#)", value, re.IGNORECASE)
    points_away = name == "href" and not value.startswith("#")
    return name.startswith("on") or outside is not None or points_away


def _prefixed(name: str, value: str, prefix: str) -> str:
    """An attribute whose ids are the drawing's own."""
    if name == "id":
        return prefix + value
    if name == "href":
        return f"#{prefix}{value[1:]}"
    return re.sub(r"url\((['\"]?)#", rf"url(\1#{prefix}", value)


class _Inert(HTMLParser):
    """Raises at an active element or attribute, and at a hidden character."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        active = []
        for name, value in attrs:
            loads = name in ("src", "href", "srcdoc", "data")
            if name == "style" and "url(" in (value or "").lower():
                loads = True
            if loads or name.startswith("on"):
                active.append(name)
        require(
            tag not in ACTIVE and not active,
            f"Section.html takes token strips only; got <{tag} {' '.join(active)}>",
        )
        for _, value in attrs:
            self.handle_data(value or "")

    def handle_data(self, data: str) -> None:
        shown = visible(data, LAYOUT)
        require(shown == data, f"Section.html takes text that is seen; got {shown[:80]!r}")
