"""Pictures and the page: the same bytes twice, every arm named, and no text that gets out of its
place."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import product
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from mechreward.base.errors import MechRewardError
from mechreward.experiments.rows import Results, Row
from mechreward.report.findings.value import RANKINGS
from mechreward.report.formats import readable, scaled
from mechreward.report.html import Section, report
from mechreward.show import tokens
from mechreward.show.charts import ablation_bars, layers_heatmap, pruning_curve
from mechreward.show.histogram import histogram
from mechreward.show.style import looks
from mechreward.show.tokens import ColoredTokens, colored_tokens, token_strip

HOSTILE = [
    "<think>",
    "</script><script>alert(1)</script>",
    '"',
    "' onload='x",
    "a\nb",
    "\n",
    "🎯",
    "\x00\u202e",
]
HOSTILE += [
    "&lt;",
    "\ud800",
    "<!--",
    "-->",
    "]]>",
    '<img src="https://evil.test/x" onerror=alert(1)>',
]


def row(
    arm: str,
    metric: str = "accuracy",
    estimate: float = 0.5,
    *,
    site: str = "3.resid_post",
    seed=0,
    **detail,
) -> Row:
    low, high = estimate - 0.05, estimate + 0.05
    return Row("R4", "tiny", "countdown", site, arm, metric, estimate, low, high, 300, seed, detail)


@pytest.fixture
def curve() -> list[Row]:
    heights = {"value": 0.78, "random": 0.7, "shuffled": 0.5, "<wanda & co>": 0.6}
    ratios = (0, 0.5, 0.9, 0.99)
    return [
        row(
            arm,
            "auroc_s0",
            height - 0.1 * ratio,
            seed=seed,
            ratio=ratio,
            neurons=round(512 * (1 - ratio)),
        )
        for arm, height in heights.items()
        for ratio in ratios
        for seed in (0, 1)
    ]


@pytest.fixture
def bars() -> list[Row]:
    rows = [row("baseline", estimate=0.75, site="")]
    for op in ("zero", "mean"):
        rows.append(row("value", estimate=0.3, op=op, rank=1, draws=19, p_rank=0.05))
        for arm in ("matched", "random", "sink_free_random"):
            rows += [row(arm, estimate=0.6 + 0.01 * i, op=op, draw=i) for i in range(19)]
            rows.append(row(arm, estimate=0.69, op=op, match_error=math.nan))
    return rows


@pytest.fixture
def grid() -> list[Row]:
    rows = [
        row("value", "auroc_s0", 0.5 + 0.08 * i, site=f"{i}.{kind}")
        for i in range(4)
        for kind in ("resid_post", "mlp")
    ]
    return [*rows[:-1], row("value", "auroc_s0", math.nan, site="3.mlp", chosen=True)]


def words(svg: str) -> str:
    """The text of an SVG as a reader sees it; raises if it is no XML."""
    return "\n".join(
        "".join(element.itertext())
        for element in ElementTree.fromstring(svg).iter()
        if element.tag.endswith("}text")
    )


class Page(HTMLParser):
    """What a browser would make of a page: its tags, its attributes, its text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text += data

    def is_inert(self) -> bool:
        loads = [
            a
            for a in self.attributes
            if a[1] in ("src", "href", "xlink:href", "data") and not a[2].startswith("#")
        ]
        far = [
            a
            for a in self.attributes
            if "://" in a[2] and not a[1].startswith("xmlns") and a[1] != "title"
        ]
        handlers = [a for a in self.attributes if a[1].startswith("on")]
        return not (
            {"script", "iframe", "img", "link"} & set(self.tags) or loads or far or handlers
        )


def test_figures_are_the_same_bytes_whatever_the_user_has_set(curve, bars, grid):
    def draw():
        return [
            pruning_curve(curve, "auroc_s0"),
            ablation_bars(bars),
            layers_heatmap(grid, "auroc_s0"),
            histogram([0.1, 0.7], "V"),
        ]

    first, size = draw(), matplotlib.rcParams["font.size"]
    with matplotlib.rc_context(
        {"font.size": 30, "svg.hashsalt": "other", "axes.facecolor": "red", "svg.fonttype": "path"}
    ):
        assert draw() == first
        assert matplotlib.rcParams["font.size"] == 30, "the user's settings must come back"
    assert matplotlib.rcParams["font.size"] == size
    for svg in first:
        assert svg.startswith("<svg")
        ground = ElementTree.fromstring(svg).find(".//{*}g[@id='patch_1']/{*}path")
        assert ground is not None and ground.get("style") == "fill: #ffffff", "white on any page"
        assert not re.search(r"https?://(?!www\.w3\.org/(2000/svg|1999/xlink))", svg)


def test_pruning_curve_names_every_arm_and_every_count(curve):
    text = words(pruning_curve(curve, "auroc_s0"))
    for label in (
        "value",
        "random",
        "shuffled",
        "<wanda & co>",
        "chance (0.5)",
        "512",
        "1%",
        "AUROC s0",
    ):
        assert label in text
    correlation = [row("value", "spearman", 0.4, ratio=r) for r in (0, 0.9)]
    assert "chance (0)" in words(pruning_curve(correlation, "spearman"))
    gap = [*correlation, row("random", "spearman", math.nan, ratio=0.9)]
    assert "random" in words(pruning_curve(gap, "spearman"))


def test_pruning_curve_tells_variants_apart_or_refuses(curve):
    twice = [row("value", "auroc", 0.7, ratio=0.5, fit=fit) for fit in ("retrained", "masked")]
    with pytest.raises(MechRewardError, match="give `by`"):
        pruning_curve(twice, "auroc")
    assert "value (masked)" in words(pruning_curve(twice, "auroc", by="fit"))
    with pytest.raises(MechRewardError, match="one picture shows one site"):
        pruning_curve([*curve, row("value", "auroc_s0", ratio=0.5, site="1.mlp")], "auroc_s0")
    with pytest.raises(MechRewardError, match="metrics given: auroc_s0"):
        pruning_curve(curve, "auroc_last")
    with pytest.raises(MechRewardError, match=r"got 1\.0"):
        pruning_curve([row("value", "auroc", ratio=1.0)], "auroc")


def test_bars_name_every_arm_and_count_the_rank_among_set_and_draws(bars):
    svg = ablation_bars(bars)
    text = words(svg).splitlines()
    for label in ("value", "matched", "random", "sink_free_random"):
        assert text.count(label) == 2, "once for each operation"
    assert {
        "zero",
        "mean",
        "baseline 75.0%",
        "rank 1 of 20, p = 0.05",
        "30.0% [25.0%, 35.0%]",
    } <= set(text)
    fewer = [r for r in bars if r.detail.get("draw") != 7]
    assert svg.count("<use") - ablation_bars(fewer).count("<use") == 6, (
        "every draw of 3 controls x 2 operations is a dot"
    )


def test_bars_without_a_summary_show_the_mean_of_the_draws_and_no_interval():
    text = words(
        ablation_bars([row("random", estimate=e, draw=i) for i, e in enumerate((0.2, 0.4))])
    )
    assert "30.0% [–, –]" in text
    with pytest.raises(MechRewardError, match="2 summaries"):
        ablation_bars([row("value"), row("value", seed=1)])
    with pytest.raises(MechRewardError, match="share"):
        ablation_bars([row("value", estimate=1.7)])
    sites = words(ablation_bars([row("value", op="zero"), row("value", op="zero", site="4.mlp")]))
    assert "zero · 3.resid_post" in sites
    assert "zero · 4.mlp" in sites


def test_heatmap_prints_every_cell_and_rings_the_chosen_one(grid):
    text = words(layers_heatmap(grid, "auroc_s0")).splitlines()
    assert sum(bool(re.fullmatch(r"0\.\d\d", cell)) for cell in text) == len(grid) - 1
    assert "–" in text
    assert "layer (ring: the chosen site)" in text
    assert "layer" in words(layers_heatmap(grid[:-1], "auroc_s0")).splitlines()
    with pytest.raises(MechRewardError, match="is no site"):
        layers_heatmap([row("value", "auroc_s0", site="everywhere")], "auroc_s0")


def test_a_baseline_alone_is_a_picture_and_chance_is_no_share():
    text = words(ablation_bars([row("baseline", estimate=0.75, site="")]))
    assert "baseline 75.0%" in text
    assert "chance" not in text


def test_lines_are_named_in_order_of_what_is_tested_whatever_order_they_come_in(curve):
    text = words(pruning_curve(curve[::-1], "auroc_s0")).splitlines()
    assert [word for word in text if word in ("value", "<wanda & co>", "random", "shuffled")] == [
        "value",
        "<wanda & co>",
        "random",
        "shuffled",
    ]
    assert pruning_curve(curve[::-1], "auroc_s0") == pruning_curve(curve, "auroc_s0")


def test_histogram_bins_follow_the_lattice_of_k_rollouts():
    text = words(histogram([*np.arange(33) / 32, math.nan], "V"))
    assert "n = 33 (1 without a value)" in text
    svg = histogram(np.arange(33) / 32, "V")
    assert svg.count("fill: #0072b2") == 33, "one bar for each multiple of 1/32, so no comb"
    assert "fill: #d55e00" in histogram([-0.3123, 0.123, 0.77], "delta")
    with pytest.raises(MechRewardError, match="nothing to draw"):
        histogram([math.nan], "V")


def test_token_strip_shows_hostile_text_and_lets_none_of_it_out():
    html = token_strip(
        HOSTILE,
        [0.5] * len(HOSTILE),
        {0: "-0.42", 5: "<b>+1</b>"},
        title="<script>alert(1)</script>",
    )
    page = Page(html)
    assert page.is_inert()
    assert set(page.tags) == {"div", "span"}
    for text in (
        "<think>",
        "</script><script>alert(1)</script>",
        "🎯",
        "&lt;",
        "⟨U+0000⟩⟨U+202E⟩",
        "−0.42",
        "<b>+1</b>",
        "<!--",
    ):
        assert text in page.text
    assert page.text.count("↵") == 2
    html.encode()


def test_token_strip_colours_by_value_and_not_where_there_is_none():
    html = token_strip(["a", "b", "c", "d"], [0, 0.5, 1, math.nan], {}, title="")
    spans = re.findall(r'<span( style="background:(#\w+)")? title="([^"]*)">(\w)</span>', html)
    assert [(colour, text) for _, colour, _, text in spans] == [
        ("#f4a582", "a"),
        ("#ffffff", "b"),
        ("#82bbe0", "c"),
        ("", "d"),
    ]
    assert spans[2][2].endswith("V\u0302 = 1")
    for pieces, colour, marks in (
        (["a"], [], {}),
        (["a"], [1.2], {}),
        (["a"], [0.1], {1: "+"}),
        (["a"], [0.1], {-1: "+"}),
    ):
        with pytest.raises(MechRewardError):
            token_strip(pieces, colour, marks, title="")


def test_colored_tokens_load_nothing_and_carry_one_bundle_a_page(monkeypatch):
    monkeypatch.setattr(ColoredTokens, "_page_has_bundle", False)
    monkeypatch.setattr(tokens, "_bundle", lambda: "BUNDLE;")
    first, second = colored_tokens(HOSTILE, [0.1] * len(HOSTILE)), colored_tokens(["a"], [math.nan])
    assert "BUNDLE" in first._repr_html_()
    assert "BUNDLE" not in second._repr_html_()
    assert "BUNDLE" in first._repr_html_(), "displayed again, it still carries it"
    assert "BUNDLE" in str(second), "text stands alone"
    page = Page(first._repr_html_())
    assert page.tags.count("script") == 1, "no token opens or ends a script"
    assert not [a for a in page.attributes if a[1] in ("src", "href") or a[1].startswith("on")]
    script = first._repr_html_().rpartition("<script>")[2]
    data = json.loads(script[script.index('{"tokens"') : script.rindex("})(50)")].rstrip(");"))
    assert data["tokens"][0] == "<\u2060think>", "after a word joiner no tag begins"
    with pytest.raises(MechRewardError):
        colored_tokens(["a"], [math.inf])


def test_circuitsvis_bundle_is_local_and_cannot_end_its_script():
    pytest.importorskip("circuitsvis")
    code = tokens._bundle()
    assert len(code) > 100_000, "the wheel's own bundle"
    for text in ("</script", "<!--", "sourceMappingURL", "unpkg.com"):
        assert text not in code


def fake_report(path, curve, bars):
    manifest = {
        "title": "Tiny <b>report</b>",
        "found": ["A probe predicts V."],
        "not_found": ["Dopamine-guided search does not beat value-guided search (p = 0.61)."],
        "versions": {"torch": "2.9", "url": "https://evil.test/<script>"},
        "seeds": [0, 1],
        "loss": math.nan,
    }
    strip = token_strip(HOSTILE, [math.nan] * len(HOSTILE), {}, title="x")
    figures = [
        ('Curve "1" <i>', pruning_curve(curve, "auroc_s0")),
        ("Again", pruning_curve(curve, "auroc_s0")),
    ]
    bad = row(
        "</td><script>x</script>",
        estimate=math.nan,
        note='<img onerror="x">',
        inner={"a": [1, 2.5, None]},
    )
    sections = [
        Section(
            "R2",
            "One.\n\n<script>two</script>",
            curve,
            figures,
            (),
            "mechreward run R2 && echo '<x>'",
        ),
        Section("R4", "", [*bars, bad], (("Bars", ablation_bars(bars)),), (strip,)),
        Section("Empty", "Nothing ran."),
    ]
    return report(Results(manifest, tuple(curve)), sections, path)


def test_folded_draws_hold_one_measurement_each(tmp_path):
    """Two draws of net and linear probe, retrained and masked, at two ratios: eight summaries of
    two draws, none of which averages what differs in more than its draw."""
    rows = []
    for size, (shape, fit) in enumerate(product(("mlp", "linear"), ("retrained", "masked"))):
        for ratio in (0.985, 0.98):
            for draw in (0, 1):
                about = {"shape": shape, "fit": fit, "ratio": ratio, "draw": draw, "shared": draw}
                rows.append(row("random", metric="spearman", estimate=size + draw / 10, **about))
    path = report(Results({}, ()), [Section("R2", "", rows)], tmp_path / "report.html")
    text = re.sub(r"\s+", " ", Page(path.read_text(encoding="utf-8")).text)
    told = re.findall(r"(\d+) draws of random \(([^)]*)\): mean ([\d.]+)", text)
    assert len(told) == 8 and {number for number, _, _ in told} == {"2"}
    means = {places: float(mean) for _, places, mean in told}
    assert means["spearman, mlp, retrained, 1.5% kept"] == 0.05
    assert means["spearman, linear, masked, 2% kept"] == 3.05
    assert sorted(means.values()) == [0.05, 0.05, 1.05, 1.05, 2.05, 2.05, 3.05, 3.05]


def test_report_is_one_inert_page_that_says_what_was_not_found(tmp_path, curve, bars):
    path = fake_report(tmp_path / "a" / "report.html", curve, bars)
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert page.is_inert()
    assert "<script" not in html
    text = re.sub(r"\s+", " ", page.text)
    assert (
        text.index("What was not found")
        < text.index("Dopamine-guided search does not beat")
        < text.index("R2")
    )
    for sentence in (
        "A probe predicts V.",
        "Tiny <b>report</b>",
        "– [–, –]",
        'note <img onerror="x">, inner a [1, 2.5, –]',
        "19 draws of matched (accuracy, zero): mean 0.690, from 0.600 to 0.780",
        "mechreward run R2 && echo '<x>'",
        "versions.torch",
        "No rows were recorded",
    ):
        assert sentence in text, sentence
    assert "nan" not in text.lower()
    assert fake_report(tmp_path / "again.html", curve, bars).read_bytes() == path.read_bytes()


def test_report_gives_every_figure_its_own_ids_and_a_name(tmp_path, curve, bars):
    page = Page(fake_report(tmp_path / "report.html", curve, bars).read_text(encoding="utf-8"))
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = [v for _, _, value in page.attributes for v in re.findall(r"url\(#([^)]+)\)", value)]
    used += [value[1:] for _, name, value in page.attributes if name in ("href", "xlink:href")]
    assert used
    assert set(used) <= set(ids)
    assert [
        value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")
    ] == [
        'Curve "1" <i>',
        "Again",
        "Bars",
    ]
    heads = page.tags.count("th")
    assert heads == sum(tag == "th" and name == "scope" for tag, name, _ in page.attributes)


def test_report_without_anything_says_so(tmp_path):
    text = Page(report(Results({}, ()), [], tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "No claim met its test." in text
    assert "No null result was recorded." in text
    assert "manifest is empty" in text


def test_report_takes_the_poison_out_of_an_svg_and_refuses_active_html(tmp_path):
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" onload="x"><script>alert(1)</script>'
        '<style>@import "x"</style>'
        '<rect id="a" fill="url(http://evil.test/#a)" stroke="url(#a)"/>'
        '<use href="https://evil.test/x"/></svg>'
    )
    path = report(Results({}, ()), [Section("x", "", (), [("c", svg)])], tmp_path / "r.html")
    assert Page(path.read_text()).is_inert()
    assert "evil" not in path.read_text()
    assert 'stroke="url(#s0f0-a)"' in path.read_text()
    for html in (
        "<script>x</script>",
        '<b onclick="x">',
        '<img src="x">',
        '<i style="background:url(x)">',
        '<a href="x">',
    ):
        with pytest.raises(MechRewardError, match="token strips only"):
            report(Results({}, ()), [Section("x", "", html=[html])], tmp_path / "no.html")
    with pytest.raises(MechRewardError, match="no SVG"):
        report(Results({}, ()), [Section("x", "", svg=[("c", "<svg")])], tmp_path / "no.html")
    assert not (tmp_path / "no.html").exists()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "–"),
        (math.inf, "–"),
        (None, "–"),
        (0, "0.000"),
        (-0.25, "−0.250"),
        (12345.6, "12,346"),
        (1e-7, "1.0e-07"),
    ],
)
def test_numbers_read_well(value, text):
    assert scaled(value) == text


def test_details_read_well():
    assert (
        readable({"ratio": 0.9, "ok": True, "p": math.nan, "set": {}})
        == "ratio 0.9, ok yes, p –, set –"
    )
    assert readable(list(range(30))).endswith("11, ... (30 in all)]")


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs a browser")
def test_circuitsvis_draws_offline_in_a_browser(tmp_path):
    pytest.importorskip("circuitsvis")
    page = tmp_path / "page.html"
    page.write_text(
        "<!DOCTYPE html><meta charset=utf-8>"
        + str(colored_tokens(HOSTILE, np.linspace(-1, 1, len(HOSTILE))))
    )
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    command += [
        f"--user-data-dir={tmp_path / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--dump-dom",
        page.as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    drawn = Page(dom.split("<script", maxsplit=1)[0])
    assert 'class="colored-tokens"' in dom, "CircuitsVis has replaced the plain strip"
    assert "<\u2060think>" in drawn.text
    assert not {"img", "think"} & set(drawn.tags)


def test_a_badge_has_the_colour_of_its_sign_and_zero_has_none():
    page = token_strip(
        ["a\n", "b\n", "c\n"], [0.5, 0.5, 0.5], {0: "+0.00", 1: "+0.42", 2: "-0.42"}, title=""
    )
    assert [page.count(colour) for colour in ("#555555", "#005A8E", "#A34700")] == [1, 1, 1]


def test_every_ranking_has_a_colour_of_its_own() -> None:
    look = looks(["value", "rotated", "random", "shuffled", *RANKINGS])
    assert len({colour for colour, _, _ in look.values()}) == len(look) == 4 + len(RANKINGS)
