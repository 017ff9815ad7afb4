"""The code of the README and the pages, and the notebooks, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/hooks.md"])
def test_the_code_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = blocks(page)
    assert code, f"{page} shows no code"
    names: dict[str, object] = {}
    for block in code:
        exec(compile(block, page, "exec"), names)


def test_ten_lines_are_no_more() -> None:
    (first,) = [
        block for block in blocks("docs/hooks.md") if "attached:" in block and "steered" in block
    ]
    assert len([line for line in first.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
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
