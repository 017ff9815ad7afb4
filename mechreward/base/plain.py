"""Text that models, files and users wrote, as it may be shown: every character seen, no markup.

A page, a picture or a terminal obeys some characters instead of showing them: an escape sequence
clears the screen, a mark of direction turns the rest of the line round, half of a surrogate pair
stops a file from being written. They are shown by their number everywhere alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Whatever Unicode's version is in the Python that runs, so that pages are the same bytes.
HIDDEN = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # controls, escape among them
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"  # halves of surrogate pairs, and no characters
    "\u2028\u2029\ufff0-\ufffb"  # separators and annotations
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks of direction
    "\u00ad\u200b-\u200d\u2060-\u2065\u206a-\u206f\ufeff"  # of no width
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0"  # fillers
    "\ufe00-\ufe0f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # selectors and shapes
    "\U000e0000-\U000e0fff"  # tags
    "]"
)
# What opens markup in CommonMark, and in what GitHub, MyST and Jekyll add to it, in this order.
INLINE = (
    (re.compile(r"[ \t\r\n]+"), " "),
    (re.compile(r"\\(?=[!-/:-@\[-`{-~]|$)"), r"\\\\"),
    (re.compile(r"&(?=#?\w+;)"), "&amp;"),
    (re.compile(r"<(?=[a-zA-Z/!?])"), "&lt;"),
    (re.compile(r"[`*~$#]|\^(?=\[)|\{(?=[{%])"), r"\\\g<0>"),
    # Between letters an underscore is one.
    (re.compile(r"(?<![^\W_])_|_(?![^\W_])"), r"\\_"),
    (re.compile(r"\]\("), "]&#40;"),
    (re.compile(r"\]\["), "]&#91;"),
    (re.compile(r"\[\^"), "[&#94;"),
    # Addresses become links by themselves.
    (re.compile(r"(?<=\w):(?=//)"), "&#58;"),
    (re.compile(r"\b(www)\.", re.IGNORECASE), r"\1&#46;"),
    (re.compile(r"(?<=[\w.+-])@(?=\w)"), "&#64;"),
)
# What begins a block: quotation, rule, table, comment, list, fence, target, address, box to tick,
# number.
BLOCK = (
    (re.compile(r"^( ?)([>=|%]|[+-](?=[ +-]|$)|:(?=::))"), r"\1\\\2"),
    (re.compile(r"^( ?)(\((?=.*\)=)|\[(?=[ xX]\]|[^\]]*\]:))"), r"\1\\\2"),
    (re.compile(r"^( ?\d{1,9})([.)])(?= |$)"), r"\1\\\2"),
)


def visible(text: str, keep: str = "") -> str:
    """Text whose hidden characters are shown as ⟨U+001B⟩.

    Parameters
    ----------
    text
        Any text, half a surrogate pair too.
    keep
        Hidden characters that stay, such as line breaks; none by default.

    Returns
    -------
    str
        Text that UTF-8, XML and a terminal can hold.
    """

    def shown(match: re.Match[str]) -> str:
        return match[0] if match[0] in keep else f"⟨U+{ord(match[0]):04X}⟩"

    return HIDDEN.sub(shown, text)


def in_markdown(text: str) -> str:
    """Text on one line, escaped so that a reader of Markdown shows it as it is."""
    return _escaped(_escaped(text, INLINE), BLOCK)


def in_cell(text: str) -> str:
    """The same in a table, where nothing begins a block, and a bar would open another cell."""
    return _escaped(text, INLINE).replace("|", r"\|")


def _escaped(text: str, openings: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for opening, escaped in openings:
        text = opening.sub(escaped, text)
    return visible(text)
