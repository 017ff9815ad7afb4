"""Token strips: what a model wrote, each token coloured by a number, each step marked with its TD
error.

Text is shown as it was written, whatever it holds: markup is escaped, so `<think>` reads `<think>`;
control and direction-changing characters appear as their code points. Nothing here loads anything
from a network.
"""

from __future__ import annotations

import json
import math
import unicodedata
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

LOW, MIDDLE, HIGH = (
    (244, 165, 130),
    (255, 255, 255),
    (130, 187, 224),
)  # pale enough for dark text: contrast > 8
Numbers = Sequence[float | int] | np.ndarray

SANS = "system-ui,'DejaVu Sans',sans-serif"
FRAME = (
    "margin:12px 0;overflow-wrap:anywhere;color:#1a1a1a;background:#fff;"
    "font:14px/1.75 ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace"
)
CAPTION = f"font:bold 13px/1.5 {SANS};color:#444;border-bottom:1px solid #ddd;margin-bottom:6px;padding-bottom:3px"
BADGE = f"font:bold 11px/1 {SANS};color:#fff;border-radius:8px;padding:2px 7px;margin:0 4px 0 6px"
RETURN = '<span style="color:#757575" aria-hidden="true">↵</span>'
JOINER = "\u2060"  # word joiner: invisible


def token_strip(
    pieces: Sequence[str], colour: Numbers, marks: Mapping[int, str], *, title: str
) -> str:
    """HTML of a text whose tokens are coloured by V-hat: no JavaScript, nothing loaded, safe inside
    any page.

    `pieces` [n] are the tokens' texts; `colour` [n] their V-hat in [0, 1], vermillion at 0, white
    at .5, blue at 1, nan for no colour. `marks` maps the index of a step's last token to its badge,
    such as `"+0.42"`, coloured by its sign, grey for zero. A token that holds a line break shows a
    faint ↵ and breaks there; resting on a token shows its numbers.

    Raises:
        MechRewardError: lengths differ, a number outside [0, 1], or a mark at no token.
    """
    require(
        len(pieces) == len(colour),
        f"need one number for each token; got {len(pieces)} and {len(colour)}",
    )
    numbers = [float(number) for number in colour]
    bad = [number for number in numbers if not (math.isnan(number) or 0 <= number <= 1)]
    require(not bad, f"V-hat lies in [0, 1], nan for none; got {bad[:3]}")
    lost = [index for index in marks if not 0 <= index < len(pieces)]
    require(not lost, f"marks at {lost[:5]} name no token; there are {len(pieces)}, counted from 0")
    bar = "display:inline-block;width:90px;height:9px;border:1px solid #ccc;background:linear-gradient(90deg,"
    scale = (
        '<span style="float:right;font-weight:normal">V&#770; 0 '
        f'<span style="{bar}{_rgb(-1.0)},{_rgb(0.0)},{_rgb(1.0)})"></span> 1</span>'
    )
    return _strip(
        pieces, [2 * number - 1 for number in numbers], numbers, "V\u0302", marks, title, scale
    )


def colored_tokens(tokens: Sequence[str], values: Numbers) -> ColoredTokens:
    """Tokens coloured by any `values` [n] (nan for none) with CircuitsVis, for notebooks:
    vermillion below 0.

    CircuitsVis as it comes asks a public site whether there is a network, loads its script from a
    CDN, and puts token text into the page as markup. Here its bundle is read from the installed
    wheel and put into the page itself, once: the first object displayed by this Python process
    carries it (1.3 MB), later ones use that copy. Every output also holds a plain strip of its own,
    which CircuitsVis replaces when it can. So where the bundle is missing (the first cell was
    cleared and the page reloaded, scripts are not trusted, CircuitsVis is not installed) the tokens
    are still coloured, only without pop-ups. `str()` of the object always carries the bundle and
    stands alone.

    Raises:
        MechRewardError: lengths differ, or an infinite value.
    """
    require(
        len(tokens) == len(values),
        f"need one value for each token; got {len(tokens)} and {len(values)}",
    )
    numbers = tuple(float(value) for value in values)
    bad = [number for number in numbers if math.isinf(number)]
    require(not bad, f"values must be finite, or nan for none; got {bad[:3]}")
    return ColoredTokens(tuple(tokens), numbers)


@dataclass
class ColoredTokens:
    """A picture that Jupyter displays; made by `colored_tokens`."""

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    _carries: bool = field(default=False, repr=False)
    _page_has_bundle: ClassVar[bool] = False

    def _repr_html_(self) -> str:
        if not ColoredTokens._page_has_bundle:
            ColoredTokens._page_has_bundle = self._carries = True
        return self._html(with_bundle=self._carries)

    def __str__(self) -> str:
        return self._html(with_bundle=True)

    def _html(self, *, with_bundle: bool) -> str:
        most = (
            max((abs(value) for value in self.values if not math.isnan(value)), default=0.0) or 1.0
        )
        plain = _strip(
            self.tokens, [value / most for value in self.values], self.values, "value", {}, "", ""
        )
        props = {
            "tokens": [_inert(token) for token in self.tokens],
            "values": [
                None if math.isnan(value) else value for value in self.values
            ],  # null is drawn white
            "minValue": -most,
            "maxValue": most,
            "negativeColor": "#D55E00",
            "positiveColor": "#0072B2",
        }
        data = _script_safe(json.dumps(props, allow_nan=False))
        name = f"mechreward-{digest(data)}"  # equal pictures may share a name: each script takes the first one not drawn
        # The output may be put into the page only after its script has run, so the script looks for
        # it for a while.
        script = (
            f'(function draw(tries){{var place=document.querySelector(".{name}:not([data-drawn])");'
            "if(!window.CircuitsVis)return;"
            "if(!place){if(tries)setTimeout(function(){draw(tries-1)},100);return}"
            "window.mechrewardDrawn=(window.mechrewardDrawn||0)+1;"
            f'place.id="{name}-"+window.mechrewardDrawn;place.setAttribute("data-drawn","");place.textContent="";'
            f"window.CircuitsVis.render(place.id,window.CircuitsVis.ColoredTokens,{data})}})(50);"
        )
        code = _bundle() if with_bundle else ""
        return f'<div class="{name}">{plain}</div>\n<script>{code}{script}</script>'


def _strip(
    pieces: Sequence[str],
    shades: Sequence[float],
    numbers: Sequence[float],
    unit: str,
    marks: Mapping[int, str],
    title: str,
    scale: str,
) -> str:
    """The strip itself. `shades` [n] in [-1, 1], nan for none; `numbers` [n] are what the tooltips
    say."""
    spans = []
    for index, (piece, shade, number) in enumerate(zip(pieces, shades, numbers, strict=True)):
        tip = f"token {index}: {visible(piece)!r}" + (
            "" if math.isnan(number) else f", {unit} = {number:.3g}"
        )
        look = "" if math.isnan(shade) else f' style="background:{_rgb(shade)}"'
        badge = _badge(marks[index]) if index in marks else ""
        opening, parts = f'<span{look} title="{escape(tip)}">', visible(piece).split("\n")
        ends = [RETURN] * (len(parts) - 1) + [""]
        lines = [
            f"{opening}{escape(part)}{end}</span>" for part, end in zip(parts, ends, strict=True)
        ]
        lines[0] += badge  # before the line's end, beside the step that it judges
        spans.append("\n".join(lines))
    caption = (
        f'<div style="{CAPTION}">{scale}{escape(visible(title))}</div>' if title or scale else ""
    )
    return (
        f'<div role="group" aria-label="{escape(visible(title) or "tokens")}" style="{FRAME}">{caption}'
        f'<div style="white-space:pre-wrap">{"".join(spans)}</div></div>'
    )


def _badge(mark: str) -> str:
    text = visible(mark).strip()
    sign = text[:1] if text.strip("+-−0.") else ""  # nothing has no sign
    colour = {"+": "#005A8E", "-": "#A34700", "−": "#A34700"}.get(sign, "#555555")
    return f'<span style="{BADGE};background:{colour}">{escape(text.replace("-", "−", 1))}</span>'


def _rgb(shade: float) -> str:
    """Pale vermillion at -1, white at 0, pale blue at 1; beyond them the ends."""
    shade = min(max(shade, -1.0), 1.0)
    end = HIGH if shade > 0 else LOW
    return "#" + "".join(
        f"{round(m + abs(shade) * (e - m)):02x}" for m, e in zip(MIDDLE, end, strict=True)
    )


def visible(text: str) -> str:
    """Characters that a page cannot show, or that would reorder the rest of it, as ⟨U+001B⟩; line
    breaks stay."""
    hidden = {
        "\u2028",
        "\u2029",
        "\ufeff",
        *map(chr, [0x200E, 0x200F, 0x61C]),
        *map(chr, range(0x202A, 0x202F)),
    }
    hidden.update(map(chr, range(0x2066, 0x206A)))
    return "".join(
        f"⟨U+{ord(c):04X}⟩"
        if c in hidden or (unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t")
        else c
        for c in text
    )


def _inert(token: str) -> str:
    """A token that CircuitsVis may put into the page as markup: "<" and "&" begin nothing before a
    word joiner."""
    return visible(token).replace("<", "<" + JOINER).replace("&", "&" + JOINER).replace("\n", "↵\n")


def _script_safe(data: str) -> str:
    """JSON that cannot end, or open, the script it stands in; its meaning is unchanged."""
    return data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _bundle() -> str:
    """CircuitsVis' own script, from the installed wheel and without importing it; empty where it is
    not there."""
    spec = find_spec("circuitsvis")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    source = folder / "dist" / "cdn" / "iife.js" if folder else None
    if source is None or not source.is_file():
        return ""
    code = source.read_text(encoding="utf-8").split("//# sourceMappingURL=")[0]
    code = code.replace("</script", "<\\/script").replace(
        "<!--", "<\\!--"
    )  # the same strings to JavaScript
    return f"window.CircuitsVis=window.CircuitsVis||(function(){{{code}\nreturn CircuitsVis}})();\n"
