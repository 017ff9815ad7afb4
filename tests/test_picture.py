"""`Picture` itself: bytes, words, data, grounds, sizes of letters, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from mechreward.base.errors import MechRewardError
from mechreward.show import Picture
from mechreward.show.curve import Curve, Line
from mechreward.show.forest import Estimate, Forest
from mechreward.show.picture import COLUMNS, NARROW
from mechreward.show.style import Reference
from mechreward.stats import Interval

HOSTILE = '</title><script>alert(1)</script> & "x" \u202e\x1b $a$'


def lines(count: int) -> list[Line]:
    x = [1.0, 2.0, 3.0]
    made = []
    for number in range(count):
        y = [0.1 * number + 0.1 * place for place in x]
        low, high = [height - 0.05 for height in y], [height + 0.05 for height in y]
        made.append(Line(f"line {number}", x, y, low, high, f"arm {number}"))
    return made


def picture(name: str = "one", **options) -> Picture:
    chance = Reference(0.5, "chance")
    dots = [Estimate(name, Interval(0.6, 0.5, 0.7, 9), draws=(0.1, 0.2), mark=0.3)]
    panels = [
        Curve(f"Curve {name}", lines(2), f"x {name}", "y", references=[chance]),
        Forest(f"Forest {name}", {"": dots}, "rate", chance),
        Forest("Wide", {name: dots}, "rate", wide=True),
    ]
    return Picture(f"Title {name}", panels, f"Caption {name}", f"Alt {name}", **options)


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]


def test_the_same_picture_is_the_same_bytes(tmp_path: Path):
    made = picture()
    first = made.save(tmp_path / "a.svg").read_bytes()
    made.save(tmp_path / "a.png")
    assert made.save(tmp_path / "b.svg").read_bytes() == first
    assert picture().save(tmp_path / "c.svg").read_bytes() == first
    assert picture("two").save(tmp_path / "d.svg").read_bytes() != first


def test_settings_of_the_user_neither_show_nor_change(tmp_path: Path):
    plain = picture().save(tmp_path / "a.svg").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": "x"}):
        before = dict(matplotlib.rcParams)
        assert picture().save(tmp_path / "b.svg").read_bytes() == plain
        picture()._repr_html_()
        picture().dark().save(tmp_path / "b.png")
        assert dict(matplotlib.rcParams) == before


def test_every_mark_is_in_the_data():
    data = picture().data
    assert tuple(data.columns) == COLUMNS
    points = data[data["mark"] == "point"]
    assert points["x"].tolist() == [1.0, 2.0, 3.0] * 2
    assert points["low"].tolist() == pytest.approx((points["y"] - 0.05).tolist())
    dot = data[(data["mark"] == "dot") & (data["panel"] == "Forest one")].iloc[0]
    assert (dot["x"], dot["low"], dot["high"]) == (0.6, 0.5, 0.7)
    assert data[(data["mark"] == "draw") & (data["panel"] == "Wide")]["x"].tolist() == [0.1, 0.2]
    assert data[data["mark"] == "chance"]["x"].tolist() == [0.3, 0.3]
    assert data[data["mark"] == "level line"]["y"].tolist() == [0.5]
    assert data[data["mark"] == "upright line"]["x"].tolist() == [0.5]


@pytest.mark.parametrize("ending", ["svg", "png", "pdf", "html", "csv"])
def test_each_file_is_what_it_says(tmp_path: Path, ending: str):
    path = picture().save(tmp_path / "deep" / f"a.{ending}")
    data = path.read_bytes()
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<svg", "html": b"<!DOCTYPE html>"}
    assert data.startswith(starts.get(ending, b"panel,mark,label,x,y,low,high,text"))
    if ending in ("svg", "html"):
        assert b"http://www.w3.org" in data and b"src=" not in data and b"url(http" not in data


def test_hostile_text_is_text_everywhere(tmp_path: Path):
    made = picture(HOSTILE)
    svg = made.save(tmp_path / "a.svg").read_text()
    for page in (svg, made._repr_html_(), made.save(tmp_path / "a.html").read_text()):
        assert "<script" not in page and "\u202e" not in page and "\x1b" not in page
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    shown = HOSTILE.replace("\u202e", "⟨U+202E⟩").replace("\x1b", "⟨U+001B⟩")
    assert root.attrib["role"] == "img" and root.attrib["aria-label"] == f"Alt {shown}"
    assert root.find(f"{space}title").text == f"Alt {shown}"
    assert root.find(f"{space}desc").text == f"Caption {shown}"
    assert f"x {shown}" in ["".join(text.itertext()) for text in root.iter(f"{space}text")]


def test_letters_are_nine_points_on_a_telephone():
    figure = picture()._drawn(NARROW)
    assert figure.get_size_inches()[0] == pytest.approx(420 / 96)
    assert min(text.get_fontsize() for text in texts(figure)) >= 9


def test_a_narrow_page_has_one_panel_a_row_and_a_wide_one_more():
    made = picture()
    tops = {}
    for name, figure in (("narrow", made._drawn(NARROW)), ("wide", made.figure)):
        boxes = [axes.get_window_extent() for axes in figure.axes]
        tops[name] = [box.y0 for box in boxes]
    assert len(set(np.round(tops["narrow"]))) == 3
    assert tops["wide"][0] == pytest.approx(tops["wide"][1])
    page = made._repr_html_()
    assert page.count("<svg") == 2 and "@container" in page


def test_a_dark_picture_has_the_same_data_and_light_letters():
    made = picture()
    dark = made.dark()
    assert dark.data.equals(made.data) and dark.caption == made.caption
    assert to_hex(made.figure.get_facecolor()) == "#ffffff"
    assert to_hex(dark.figure.get_facecolor()) == "#171717"
    for text in texts(dark.figure):
        assert np.mean(matplotlib.colors.to_rgb(text.get_color())) > 0.6
    assert not any(
        np.mean(matplotlib.colors.to_rgb(t.get_color())) > 0.6 for t in texts(made.figure)
    )


def test_it_is_drawn_into_axes_of_the_user():
    figure = Figure()
    axes = figure.subplots(1, 3)
    made = picture()
    assert made.plot(ax=axes) is figure
    assert [each.get_title("left") for each in axes] == ["Curve one", "Forest one", "Wide"]
    assert len(axes[0].lines) == 3
    with pytest.raises(MechRewardError, match="3 pairs of matplotlib axes"):
        made.plot(ax=axes[0])
    alone = Picture("t", made.panels[:1], "c", "a")
    assert alone.plot(ax=figure.add_subplot()) is figure
    assert isinstance(alone.plot(), Figure)


def test_a_restyled_figure_is_what_is_saved(tmp_path: Path):
    made = picture()
    made.figure.axes[0].set_xlabel("another name")
    assert "another name" in made.save(tmp_path / "a.svg").read_text()
    assert made.figure is made.figure


def test_mistakes_are_one_line(tmp_path: Path):
    with pytest.raises(MechRewardError, match=r"there is nothing to draw"):
        Picture("t", [], "c", "a")
    with pytest.raises(MechRewardError, match=r"ending of a picture.*svg"):
        picture().save(tmp_path / "a.svgg")
    with pytest.raises(MechRewardError, match=r"width"):
        picture().save(tmp_path / "a.svg", width=100)
    with pytest.raises(MechRewardError, match=r"5 lines cannot be told apart"):
        Curve("many", lines(5), "x", "y")


def test_repr_is_one_line_without_hidden_characters():
    assert re.fullmatch(r"Picture\(Title .*\)", repr(picture("\x1b[2J")))
