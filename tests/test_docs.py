"""The code of the README and the pages, and the notebooks, run as they stand; numbers in prose are
those of the rows; the archive of rows and the pages made of it."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from math import isnan, nan
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient
from typer.testing import CliRunner

from mechreward.base.errors import MechRewardError
from mechreward.cli import app
from mechreward.experiments.rows import Results, Row
from mechreward.report.archive import Archive, measurements
from mechreward.report.pages import fill_file, write_pages
from mechreward.report.prose import check_prose, fill_prose

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


@pytest.mark.parametrize(
    "page",
    ["README.md", "docs/experiments.md", "docs/hooks.md", "docs/pictures.md", "docs/uses.md"],
)
def test_the_code_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = blocks(page)
    assert code, f"{page} shows no code"
    names: dict[str, object] = {}
    for block in code:
        exec(compile(block, page, "exec"), names)


def test_the_page_of_a_real_model_runs(
    real_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python and commands, block by block, as somebody types them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    page = "docs/your-model.md"
    text = (ROOT / page).read_text()
    names: dict[str, object] = {}
    kinds = set()
    for kind, block in re.findall(r"```(python|bash)\n(.*?)```", text, re.DOTALL):
        kinds.add(kind)
        if kind == "python":
            exec(compile(block, page, "exec"), names)
            continue
        for line in block.splitlines():
            command, *words = shlex.split(line)
            assert command == "mechreward"
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, done.output
    assert kinds == {"python", "bash"}


def test_ten_lines_are_no_more() -> None:
    (first,) = [
        block for block in blocks("docs/hooks.md") if "attached:" in block and "steered" in block
    ]
    assert len([line for line in first.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "words-base" in path.read_text():
        request.getfixturevalue("real_model")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_paired_and_clean(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.source]
    script = [cell for cell in jupytext.read(path.with_suffix(".py")).cells if cell.source]
    assert [(c.cell_type, c.source) for c in cells] == [(c.cell_type, c.source) for c in script]
    assert not any(cell.get("outputs") for cell in cells)


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


DATA = ROOT / "docs/data/results.json.gz"
PROSE = sorted(path.name for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def prose(name: str) -> str:
    folder = ROOT if name == "README.md" else ROOT / "docs"
    return (folder / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def archive() -> Archive:
    return Archive.load(DATA)


@pytest.mark.parametrize("name", PROSE)
def test_numbers_in_prose_are_those_of_the_rows(name: str, archive: Archive) -> None:
    assert check_prose(prose(name), [*archive.rows, *measurements()]) == []


@pytest.mark.parametrize("name", PROSE)
def test_every_marked_number_has_an_entry_and_every_entry_a_number(name: str) -> None:
    """Without rows too: what is wrong can only be that no row is named."""
    problems = check_prose(prose(name), [])
    assert [line for line in problems if "0 rows" not in line and " is 0." not in line] == []


def test_numbers_of_the_models_are_those_beside_their_weights() -> None:
    problems = check_prose(prose("README.md"), measurements())
    assert not [line for line in problems if "card" in line]


def test_the_rows_of_the_pages_are_small() -> None:
    assert DATA.stat().st_size < 1.5e6


def test_no_generated_page_is_in_the_docs() -> None:
    assert sorted(path.name for path in (ROOT / "docs").glob("*.svg")) == ["pruning.svg"]
    assert PROSE == [
        "README.md",
        "experiments.md",
        "hooks.md",
        "models.md",
        "pictures.md",
        "uses.md",
        "your-model.md",
    ]


ROWS = [
    Row("R2", "m", "t", "3.mlp", "value", "spearman", 0.584, 0.431, 0.7, 50, 0, {"ratio": 0.9}),
    Row("R2", "m", "t", "3.mlp", "random", "spearman", -0.004, nan, nan, 50, 0, {"draw": 0}),
    Row("R2", "m", "t", "3.mlp", "random", "spearman", 0.126, nan, nan, 50, 0, {"draw": 1}),
    Row("R4", "m", "t", "", "value", "change", 0.5, 0.4, 1.25, 9, 0, {"of": "a b", "neurons": 13}),
]
ENTRIES = """
<!-- rows
one: pruning m t mlp value spearman ratio=.9
draws: R2 m t 3.mlp random spearman
size: ablation m t - value change of=a_b detail.neurons
problems: ablation - - - - change n
change: ablation - - - - change
-->
"""


def test_a_marked_number_is_filled_in_its_own_form() -> None:
    text = (
        "It is .1 [-.2,\n.3]<!--one-->, or 1%<!--one-->, from 1 to 2%<!--draws-->, "
        "+.1<!--change--> "
        "and 3.0 [1, .1]<!--change--> with 7<!--size--> of 3<!--problems-->; 42 is its own."
    )
    filled = (
        "It is .6 [.4,\n.7]<!--one-->, or 58%<!--one-->, from 0 to 13%<!--draws-->, "
        "+.5<!--change--> "
        "and .5 [0, 1.2]<!--change--> with 13<!--size--> of 9<!--problems-->; 42 is its own."
    )
    assert fill_prose(text + ENTRIES, ROWS) == filled + ENTRIES
    assert check_prose(filled + ENTRIES, ROWS) == []
    problems = check_prose(text + ENTRIES, ROWS)
    assert len(problems) == 7 and "1% is 58% by its row, one." in problems


@pytest.mark.parametrize(
    ("text", "entry", "told"),
    [
        ("1<!--x-->", "y: pruning m t mlp value spearman", "no entry is called 'x'"),
        ("1<!--x-->", "x: pruning m t mlp random spearman", "names 2 rows, not one"),
        ("1<!--x-->", "x: pruning m t mlp value auroc", "names 0 rows, not one"),
        ("1 to 2<!--x-->", "x: pruning m t mlp value spearman", "a range is of several rows"),
        ("1<!--x-->", "x: ablation m t - value change detail.k", "no 'k' in the detail"),
        ("1", "x: ablation m t - value change", "no number is marked so"),
    ],
)
def test_a_reference_that_names_no_row_is_told(text: str, entry: str, told: str) -> None:
    assert told in " ".join(check_prose(f"{text}\n\n<!-- rows\n{entry}\n-->\n", ROWS))


@pytest.mark.parametrize("entry", ["x: pruning m t mlp value", "x: pruning m t mlp value a b"])
def test_an_entry_has_its_form(entry: str) -> None:
    with pytest.raises(MechRewardError, match=r"an entry names|is not KEY=VALUE"):
        fill_prose(f"1<!--x-->\n\n<!-- rows\n{entry}\n-->\n", ROWS)


def test_an_archive_comes_back_and_is_the_same_bytes(tmp_path: Path) -> None:
    """NaN in an estimate, a bound and a detail is null in the file."""
    rows = (*ROWS, Row("R1", "m", "t", "", "a", "b", nan, nan, nan, 1, 0, {"x": nan, "y": [1]}))
    archive = Archive(Results({"command": "c", "loss": nan}, rows), bench=Results({}, (ROWS[0],)))
    path = archive.pack(tmp_path / "a" / "rows.json.gz")
    back = Archive.load(path)
    assert back.calibration is back.certificates is None
    assert back.bench == archive.bench and back.paper is not None
    assert back.paper.rows[:4] == tuple(ROWS) and isnan(back.paper.rows[4].estimate)
    assert back.paper.rows[4].detail == {"x": None, "y": [1]}
    assert [repr(row) for row in back.rows[:4]] == [repr(row) for row in ROWS]
    assert back.pack(tmp_path / "b.json.gz").read_bytes() == path.read_bytes()


# Without a time in it: tests have to have the same names in every process.
@pytest.mark.parametrize(
    "damage",
    [b"", b"x", gzip.compress(b"{}", mtime=0), gzip.compress(b"[1]", mtime=0)],
    ids=["nothing", "no-gzip", "table", "list"],
)
def test_a_damaged_archive_is_one_clear_line(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "rows.json.gz"
    with pytest.raises(MechRewardError, match="cannot read the archive"):
        Archive.load(path)
    path.write_bytes(damage)
    with pytest.raises(MechRewardError, match=r"rows\.json\.gz") as error:
        Archive.load(path)
    assert "\n" not in str(error.value)


def test_another_schema_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json.gz"
    whole = {"schema": 9, "fields": [], "parts": {}}
    path.write_bytes(gzip.compress(json.dumps(whole).encode()))
    with pytest.raises(MechRewardError, match="has schema 9; this version reads 1"):
        Archive.load(path)


def test_every_part_of_an_archive_has_its_page(tmp_path: Path) -> None:
    manifest = {"command": "mechreward paper R2", "versions": {"mechreward": "0"}}
    done = write_pages(Archive(Results(manifest, tuple(ROWS[1:3]))), tmp_path)
    assert [path.name for path in done] == ["results.md"]
    assert "Written by `mechreward paper R2`" in done[0].read_text(encoding="utf-8")
    rows = Results(manifest, tuple(ROWS[1:3]))
    done = write_pages(Archive(rows, real=rows), tmp_path / "both")
    assert [path.parent.name for path in done] == ["both", "real"]
    with pytest.raises(MechRewardError, match="the archive holds no results"):
        write_pages(Archive(), tmp_path / "none")


def test_a_text_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bytes.md").write_bytes(b"\xff\xfe\xff")
    for path in (tmp_path / "none.md", tmp_path, tmp_path / "bytes.md"):
        with pytest.raises(MechRewardError, match="cannot read the text"):
            fill_file(path, Archive())


def test_fill_writes_the_file_of_a_command(tmp_path: Path) -> None:
    Archive(Results({}, tuple(ROWS))).pack(tmp_path / "rows.json.gz")
    text = tmp_path / "text.md"
    text.write_text("It is .1<!--one-->." + ENTRIES, encoding="utf-8")
    words = ["pages", "--data", str(tmp_path / "rows.json.gz"), "--fill", str(text)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert text.read_text(encoding="utf-8") == "It is .6<!--one-->." + ENTRIES
