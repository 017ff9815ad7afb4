"""What models, files and users wrote is shown as it is: on pages, in pictures, on the terminal.

The readers are others' own: markdown-it with the plugins of GitHub and MyST, expat, a browser's
rules for HTML.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.footnote import footnote_plugin
from mdit_py_plugins.myst_blocks import myst_block_plugin
from mdit_py_plugins.substitution import substitution_plugin
from mdit_py_plugins.tasklists import tasklists_plugin
from typer.testing import CliRunner

from mechreward.base import progress
from mechreward.base.errors import MechRewardError, one_of
from mechreward.base.plain import in_cell, in_markdown, visible
from mechreward.causal.certificate import Certificate
from mechreward.causal.verdict import CLAIMS, Claim
from mechreward.cli import app
from mechreward.experiments.rows import Results, Row
from mechreward.models.identity import ModelId
from mechreward.models.site import Site
from mechreward.probing.neurons import NeuronSet
from mechreward.report.html import Section, report
from mechreward.report.layout import Table, render
from mechreward.show.curve import Line, Trace, curve, step_traces
from mechreward.show.forest import Estimate, forest
from mechreward.show.heatmap import matrix
from mechreward.show.histogram import histogram
from mechreward.show.style import Reference
from mechreward.show.tokens import colored_tokens, token_strip
from mechreward.stats import Interval

CLEAR = "\x1b[2J\x1b]0;pwned\x07"
# One of every kind: controls, direction, no width, half a pair, separators, fillers, tags.
HIDDEN = (
    "\x00 \x07 \x1b \x7f \x9b \x85 \u202e \u2066 \u200f \u061c \u200b \u200d \u00ad \u2060 \ufeff "
    "\ud800 \udfff \u2028 \ufffe \u3164 \u115f \u034f \ufe0f \U000e0041 \U000e0101"
).split(" ")
MARKUP = [
    *"`code` `` ```x ~~~ {x}`y` *x* __x__ _x_ ~~x~~ $x$ --- === +++ - # www.x.y me@x.y".split(),
    *"http://x.y/z <http://x.y> [a](http://x) [a][b] ![a](b) [^1] ^[x] (x)= :::{note}".split(),
    *"<b>x</b> &lt; &#60; {{7*7}} {%x%} x_y_z".split(),
    *("a `b", "[a]: http://x", "# x", "- x", "+ x", "1. x", "2) x", "> x", "% x", "[ ] x", "[x] y"),
    *("a | b", r"a \| b", "x\\", r"\_x_", r"\\\*a\*", "    x", "<!-- x"),
    *("a\n# b", "a\r\n\r\n    b", "a\n===", "\tx"),
]


def reader() -> MarkdownIt:
    """Markdown as GitHub and MyST read it."""
    read = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for plugin in (
        dollarmath_plugin,
        footnote_plugin,
        myst_block_plugin,
        colon_fence_plugin,
        substitution_plugin,
        tasklists_plugin,
    ):
        read.use(plugin)
    return read


READER = reader()


def shown(text: str) -> str:
    """The text as a page shows it: hidden characters by number, blanks as one."""
    return visible(re.sub("[ \t\r\n]+", " ", text)).strip(" ")


def read(markdown: str, around: str) -> list[str]:
    """The texts of a page; fails unless it holds the blocks `around` and texts alone."""
    texts = []
    for token in READER.parse(markdown):
        if token.type == "inline":
            children = token.children or []
            assert {child.type for child in children} <= {"text", "text_special"}, token.content
            texts.append("".join(child.content for child in children).strip(" "))
        elif token.nesting == 1:
            assert token.tag in around.split(), markdown
        else:
            assert token.nesting == -1, markdown
    return texts


def holds(text: str) -> None:
    """A text is itself in a paragraph, in an item of a list, and in a cell of a table."""
    wanted = [shown(text)]
    if wanted != [""]:
        assert read(f"{in_markdown(text)}\n", "p") == wanted
        assert read(f"- {in_markdown(text)}\n", "ul li p") == wanted
    table = "table thead tbody tr th td"
    assert read(f"| a |\n| --- |\n| {in_cell(text)} |\n", table) == ["a", *wanted]


@pytest.mark.parametrize("text", [*MARKUP, *HIDDEN, CLEAR])
def test_a_text_is_itself_on_a_page_of_markdown(text: str):
    holds(text)
    holds(f"a {text}")
    holds(f"{text} z")


@settings(max_examples=300)
@given(st.text(st.sampled_from("ab1 .\n\t\\`*_~$#[]()<>!:/@|{}%&;+-=^\"'\x1b\u202e\ud800")))
@example("a`b`` `c``")
@example("\\__a__\\")
def test_no_mixture_of_marks_is_markup(text: str):
    holds(text)


def test_our_own_numbers_stay_legible_in_the_source():
    for text in (
        "-0.100 [-0.200, 0.000] n=49",
        "td_over_tokens (2 sets)",
        "<1e-9",
        ">= 0.95",
        "R1.",
    ):
        assert in_cell(text) == text
        assert in_markdown(f"x {text}: more") == f"x {text}: more"


def test_every_character_that_python_calls_hidden_is_shown():
    """Another list than ours: the categories of `unicodedata`, but for format characters that have
    a shape."""
    shaped = set(range(0x600, 0x606)) | {0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    shaped |= set(range(0x13430, 0x13440))  # joiners of hieroglyphs
    for number in [*range(0x20000), *range(0xE0000, 0xE1000)]:
        character = chr(number)
        if (
            unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
            and number not in shaped
        ):
            assert visible(character) == f"⟨U+{number:04X}⟩"
    for text in ("naïve Ω 日本 हिन्दी 🎯 − – ← V\u0302 x\u00a0y", "plain"):
        assert visible(text) == text
    assert visible("a\n\tb", keep="\n\t") == "a\n\tb" and visible("\n") == "⟨U+000A⟩"


def test_pages_of_markdown_hold_no_hidden_character():
    bad = "".join(HIDDEN)
    table = Table(f"x{bad}", [f"c{bad}"], [[f"v{bad}"]])
    assert_shown(render("table.md.j2", table=table), "\n")


def assert_shown(text: str, keep: str) -> None:
    """Nothing hidden is left, nothing is lost, and UTF-8 holds it."""
    text.encode()
    assert visible(text, keep) == text
    for character in HIDDEN:
        assert f"⟨U+{ord(character):04X}⟩" in text, repr(character)


def pictures(bad: str) -> list[str]:
    score = Interval(0.5, 0.4, 0.6, 9)
    line = Line(f"l{bad}", [0, 1], [0.1, 0.2], [0, 0.1], [0.2, 0.3], arm=f"arm{bad}")
    place, level = (f"r{bad}", f"c{bad}"), Reference(0.0, f"r{bad}")
    return [
        curve([line], f"x{bad}", f"y{bad}", ticks={0.0: f"t{bad}"}, reference=level),
        step_traces([Trace(f"t{bad}", [1, 2], [0.1, -0.1], [0, 1])]),
        forest(
            {f"g{bad}": [Estimate(f"e{bad}", score, text=f"n{bad}")]},
            f"x{bad}",
            reference=Reference(0.5, f"r{bad}"),
        ),
        matrix({place: 0.5}, notes={place: f"n{bad}"}, title=f"t{bad}", xlabel=bad, ylabel=bad),
        matrix({place: 0.5}, turned=True),
        histogram([0.5], f"x{bad}"),
    ]


def test_pictures_hold_no_hidden_character_and_stay_xml():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Glyph")  # none is missing
        warnings.filterwarnings("ignore", "constrained_layout")  # such long names leave no room
        plain, hostile = pictures(""), pictures("".join(HIDDEN))
    for svg in hostile:
        assert_shown(svg, "\n")
        ElementTree.fromstring(svg)
    assert plain == pictures(""), "the same bytes"
    texts = [len(ElementTree.fromstring(svg).findall(".//{*}text")) for svg in plain]
    assert [len(ElementTree.fromstring(svg).findall(".//{*}text")) for svg in hostile] == [
        more + extra for more, extra in zip(texts, (0, 0, 0, 2, 0, 0), strict=True)
    ], "no text is lost; two axes of the matrix have a name now"


class Texts(HTMLParser):
    """All that a browser shows, tips and names included."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen = ""
        self.feed(html)
        self.close()

    def handle_data(self, data: str) -> None:
        self.seen += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen += "".join(value or "" for _, value in attrs)


def test_the_report_holds_no_hidden_character(tmp_path):
    bad = "".join(HIDDEN)
    row = Row(
        "R4", f"m{bad}", "t", "3.mlp", f"a{bad}", "accuracy", 0.5, 0.4, 0.6, 9, 0, {"op": bad}
    )
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" id="{bad}"><text>{bad}&#x202e;</text></svg>'
    strip = token_strip(HIDDEN, [0.5] * len(HIDDEN), {0: f"+{bad}"}, title=bad)
    sections = [Section(bad, f"{bad}\n\n{bad}", [row], [(bad, svg)], [strip], f"run {bad}")]
    manifest: dict[str, Any] = {"title": bad, "found": [bad], "not_found": bad, bad: bad}
    path = report(Results(manifest, (row,)), sections, tmp_path / "report.html")
    html = path.read_text(encoding="utf-8")
    assert_shown(html, "\n")
    assert_shown(Texts(html).seen, "\n")
    for hidden in ("&#8238;", "&#x200B;", "\u202e"):
        with pytest.raises(MechRewardError, match="text that is seen"):
            report(Results({}, ()), [Section("x", "", html=[f"<b>{hidden}</b>"])], tmp_path / "no")
        with pytest.raises(MechRewardError, match="text that is seen"):
            report(
                Results({}, ()), [Section("x", "", html=[f'<b title="{hidden}">'])], tmp_path / "no"
            )


def test_a_drawing_loads_nothing_however_it_is_spelled(tmp_path):
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg"><img src="http://evil.test/"/>'
        '<iframe src="http://evil.test/"/><rect fill="URL(http://evil.test/)"/></svg>'
    )
    path = report(Results({}, ()), [Section("x", "", (), [("c", svg)])], tmp_path / "r.html")
    assert "evil" not in path.read_text()


def test_strips_and_notebooks_show_the_same():
    numbers = [0.5] * len(HIDDEN)
    assert_shown(token_strip(HIDDEN, numbers, {}, title=""), "\n")
    assert_shown(colored_tokens(HIDDEN, numbers)._html(with_bundle=False), "\n")


def neurons(how: str) -> NeuronSet:
    return NeuronSet(Site(0, "mlp"), (1,), 8, ModelId(f"m{CLEAR}", "w", "float32", "raw"), (), how)


def certificate() -> Certificate:
    claims = [Claim(name, "fail", f"| *x* {CLEAR}", {f"a_{CLEAR}": "<b>"}) for name in CLAIMS]
    return Certificate(tuple(claims), neurons(f"by [x](http://y) {CLEAR}"), f"t{CLEAR}", {"k": 1})


def test_the_page_of_a_certificate_is_text():
    page = certificate().page()
    assert visible(page, "\n") == page
    html = READER.render(page)
    tags = set(re.findall(r"<(\w+)", html))
    assert tags <= set("h1 h2 p br table thead tbody tr th td strong ul li code".split())
    assert "by [x](http://y) ⟨U+001B⟩[2J" in html and html.count("<td>") == 3 * len(CLAIMS)


def test_the_terminal_gets_no_escape_sequence(
    tmp_path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    for text in (str(certificate()), repr(certificate().neurons)):
        assert visible(text, "\n") == text
    progress.tell(True, f"a{CLEAR}", f"b{CLEAR}\nc")
    with progress.bar(f"title{CLEAR}", "", "thing", total=1) as counter:
        counter.update(1)
    told = capsys.readouterr().err
    assert "\x1b[2J" not in told and "\x07" not in told
    assert told.count("⟨U+001B⟩[2J") >= 3
    with pytest.raises(MechRewardError) as error:
        one_of("task", f"x{CLEAR}", [f"y{CLEAR}\nz"])
    assert visible(str(error.value)) == str(error.value)

    def race(out: object, *, say: Any, **_: object) -> Results:
        say(f"contest {CLEAR}\u202e\ud800")
        return Results({}, ())

    monkeypatch.setattr("mechreward.studies.bench.bench", race)
    done = CliRunner().invoke(app, ["bench", "--out", f"{tmp_path}/{CLEAR}"], color=True)
    assert done.exit_code == 0, done.output
    assert done.output.count("⟨U+001B⟩[2J") == 2 and visible(done.output, "\n") == done.output
