"""Token strips: what a model wrote, each token coloured by a number, each step marked with its TD
error.

Text is shown as it was written, whatever it holds: markup is escaped, so `<think>` reads `<think>`;
hidden characters (`base.plain`) appear as their code points. Nothing here loads anything
from a network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np

from mechreward.base.errors import require
from mechreward.base.files import digest
from mechreward.base.plain import visible
from mechreward.show.style import BLUE, DEEP_BLUE, DEEP_VERMILLION, VERMILLION

# Red, green, blue; pale enough for dark text: contrast > 8.
LOW = (244, 165, 130)
MIDDLE = (255, 255, 255)
HIGH = (130, 187, 224)
Numbers = Sequence[float | int] | np.ndarray

SANS = "system-ui,'DejaVu Sans',sans-serif"
FRAME = (
    "margin:12px 0;overflow-wrap:anywhere;color:#1a1a1a;background:#fff;"
    "font:14px/1.75 ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace"
)
CAPTION = (
    f"font:bold 13px/1.5 {SANS};color:#444;border-bottom:1px solid #ddd;"
    "margin-bottom:6px;padding-bottom:3px"
)
BADGE = f"font:bold 11px/1 {SANS};color:#fff;border-radius:8px;padding:2px 7px;margin:0 4px 0 6px"
BADGE_COLOURS = {"+": DEEP_BLUE, "-": DEEP_VERMILLION, "−": DEEP_VERMILLION}
BAR = (
    "display:inline-block;width:90px;height:9px;border:1px solid #ccc;"
    "background:linear-gradient(90deg,"
)
RETURN = '<span style="color:#757575" aria-hidden="true">↵</span>'
JOINER = "\u2060"  # word joiner: invisible


def token_strip(
    pieces: Sequence[str], colour: Numbers, marks: Mapping[int, str], *, title: str
) -> str:
    """A text whose tokens are coloured by V-hat: no JavaScript, nothing loaded, safe inside any
    page.

    A token that holds a line break shows a faint ↵ and breaks there; resting on a token shows its
    numbers.

    Parameters
    ----------
    pieces
        Texts of the tokens, `[n]`.
    colour
        V-hat of the tokens, `[n]`, in [0, 1]: vermillion at 0, white at .5, blue at 1; nan for no
        colour.
    marks
        Index of a step's last token -> its badge, such as `"+0.42"`, coloured by its sign, grey for
        zero.
    title
        What is written above; "" for nothing.

    Returns
    -------
    str
        One `<div>` of HTML.

    Raises
    ------
    MechRewardError
        Lengths differ, a number outside [0, 1], or a mark at no token.
    """
    require(
        len(pieces) == len(colour),
        f"need one number for each token; got {len(pieces)} and {len(colour)}",
    )
    numbers = [float(number) for number in colour]
    outside = [number for number in numbers if number < 0 or number > 1]
    require(not outside, f"V-hat lies in [0, 1], nan for none; got {outside[:3]}")
    lost = [index for index in marks if not 0 <= index < len(pieces)]
    require(not lost, f"marks at {lost[:5]} name no token; there are {len(pieces)}, counted from 0")
    scale = (
        '<span style="float:right;font-weight:normal">V&#770; 0 '
        f'<span style="{BAR}{tint(-1.0)},{tint(0.0)},{tint(1.0)})"></span> 1</span>'
    )
    shades = [2 * number - 1 for number in numbers]
    spans = _spans(pieces, shades, numbers, "V\u0302", marks)
    return _framed(spans, title, scale)


def colored_tokens(tokens: Sequence[str], values: Numbers) -> ColoredTokens:
    """Tokens coloured by any numbers with CircuitsVis, for notebooks: vermillion below 0.

    CircuitsVis as it comes asks a public site whether there is a network, loads its script from a
    CDN, and puts token text into the page as markup. Here its bundle is read from the installed
    wheel and put into the page itself, once: the first object displayed by this Python process
    carries it (1.3 MB), later ones use that copy. Every output also holds a plain strip of its own,
    which CircuitsVis replaces when it can. So where the bundle is missing (the first cell was
    cleared and the page reloaded, scripts are not trusted, CircuitsVis is not installed) the tokens
    are still coloured, only without pop-ups. `str()` of the object always carries the bundle and
    stands alone.

    Parameters
    ----------
    tokens
        Texts of the tokens, `[n]`.
    values
        Number of each token, `[n]`; nan for none.

    Returns
    -------
    ColoredTokens
        A picture that Jupyter displays.

    Raises
    ------
    MechRewardError
        Lengths differ, or an infinite value.
    """
    require(
        len(tokens) == len(values),
        f"need one value for each token; got {len(tokens)} and {len(values)}",
    )
    numbers = tuple(float(value) for value in values)
    infinite = [number for number in numbers if math.isinf(number)]
    require(not infinite, f"values must be finite, or nan for none; got {infinite[:3]}")
    return ColoredTokens(tuple(tokens), numbers)


@dataclass
class ColoredTokens:
    """A picture that Jupyter displays; made by `colored_tokens`.

    Parameters
    ----------
    tokens
        Texts of the tokens, `[n]`.
    values
        Number of each token, `[n]`; nan for none.
    """

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    _carries: bool = field(default=False, repr=False)
    _page_has_bundle: ClassVar[bool] = False

    def _repr_html_(self) -> str:
        if not ColoredTokens._page_has_bundle:
            ColoredTokens._page_has_bundle = True
            self._carries = True
        return self._html(with_bundle=self._carries)

    def __str__(self) -> str:
        return self._html(with_bundle=True)

    def _html(self, *, with_bundle: bool) -> str:
        sizes = [abs(value) for value in self.values if not math.isnan(value)]
        most = max(sizes, default=0.0) or 1.0
        shades = [value / most for value in self.values]
        plain = _framed(_spans(self.tokens, shades, self.values, "value", {}), "", "")
        data = self._data(most)
        # Equal pictures may share a name: each script takes the first one not drawn.
        name = f"mechreward-{digest(data)}"
        code = _bundle() if with_bundle else ""
        script = _drawing_script(name, data)
        return f'<div class="{name}">{plain}</div>\n<script>{code}{script}</script>'

    def _data(self, most: float) -> str:
        """What CircuitsVis draws, as JSON that may stand in a script."""
        props = {
            "tokens": [_inert(token) for token in self.tokens],
            # CircuitsVis draws null white.
            "values": [None if math.isnan(value) else value for value in self.values],
            "minValue": -most,
            "maxValue": most,
            "negativeColor": VERMILLION,
            "positiveColor": BLUE,
        }
        return _script_safe(json.dumps(props, allow_nan=False))


def _drawing_script(name: str, data: str) -> str:
    """JavaScript that replaces the plain strip of class `name`.

    The output may be put into the page only after its script has run, so the script looks for it
    for a while.
    """
    return (
        f'(function draw(tries){{var place=document.querySelector(".{name}:not([data-drawn])");'
        "if(!window.CircuitsVis)return;"
        "if(!place){if(tries)setTimeout(function(){draw(tries-1)},100);return}"
        "window.mechrewardDrawn=(window.mechrewardDrawn||0)+1;"
        f'place.id="{name}-"+window.mechrewardDrawn;'
        'place.setAttribute("data-drawn","");place.textContent="";'
        "window.CircuitsVis.render(place.id,window.CircuitsVis.ColoredTokens,"
        f"{data})}})(50);"
    )


def _spans(
    pieces: Sequence[str],
    shades: Sequence[float],
    numbers: Sequence[float],
    unit: str,
    marks: Mapping[int, str],
) -> str:
    """The tokens as HTML. `shades` [n] in [-1, 1], nan for none; `numbers` [n] are what the
    tooltips show."""
    spans = []
    for index, (piece, shade, number) in enumerate(zip(pieces, shades, numbers, strict=True)):
        tip = f"token {index}: {_shown(piece)!r}"
        if not math.isnan(number):
            tip += f", {unit} = {number:.3g}"
        look = "" if math.isnan(shade) else f' style="background:{tint(shade)}"'
        opening = f'<span{look} title="{escape(tip)}">'
        *broken, last = _shown(piece).split("\n")
        lines = [f"{opening}{escape(line)}{RETURN}</span>" for line in broken]
        lines.append(f"{opening}{escape(last)}</span>")
        if index in marks:
            lines[0] += _badge(marks[index])  # before the line's end, beside the step it judges
        spans.append("\n".join(lines))
    return "".join(spans)


def _framed(spans: str, title: str, scale: str) -> str:
    """The strip itself: a caption, if there is anything to say, and the tokens."""
    text = escape(_shown(title))
    caption = f'<div style="{CAPTION}">{scale}{text}</div>' if title or scale else ""
    return (
        f'<div role="group" aria-label="{text or "tokens"}" style="{FRAME}">{caption}'
        f'<div style="white-space:pre-wrap">{spans}</div></div>'
    )


def _badge(mark: str) -> str:
    text = _shown(mark).strip()
    has_sign = bool(text.strip("+-−0."))  # zero has none
    colour = BADGE_COLOURS.get(text[:1], "#555555") if has_sign else "#555555"
    return f'<span style="{BADGE};background:{colour}">{escape(text.replace("-", "−", 1))}</span>'


def tint(shade: float) -> str:
    """Pale vermillion at -1, white at 0, pale blue at 1; beyond them the ends."""
    depth = min(abs(shade), 1.0)
    end = HIGH if shade > 0 else LOW
    colour = "#"
    for white, deepest in zip(MIDDLE, end, strict=True):
        colour += f"{round(white + depth * (deepest - white)):02x}"
    return colour


def _shown(text: str) -> str:
    """Text whose hidden characters are seen; its line breaks and tabs stay."""
    return visible(text, keep="\n\t")


def _inert(token: str) -> str:
    """A token that CircuitsVis may put into the page as markup: "<" and "&" begin nothing before a
    word joiner."""
    text = _shown(token).replace("<", "<" + JOINER)
    return text.replace("&", "&" + JOINER).replace("\n", "↵\n")


def _script_safe(data: str) -> str:
    """JSON that cannot end, or open, the script it stands in; its meaning is unchanged."""
    return data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _bundle() -> str:
    """CircuitsVis' own script, from the installed wheel and without importing it; empty where it is
    not there."""
    spec = find_spec("circuitsvis")
    if spec is None or spec.origin is None:
        return ""
    source = Path(spec.origin).parent / "dist" / "cdn" / "iife.js"
    if not source.is_file():
        return ""
    code = source.read_text(encoding="utf-8").split("//# sourceMappingURL=")[0]
    # The same strings to JavaScript, and no end of the script to HTML.
    code = code.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return f"window.CircuitsVis=window.CircuitsVis||(function(){{{code}\nreturn CircuitsVis}})();\n"
