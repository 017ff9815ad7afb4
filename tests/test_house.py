"""What no linter knows of the house: its sizes, its rooms, and who spells hook names.

The order of imports is a contract of import-linter, unsafe calls are rules of ruff
(`pyproject.toml`); `make lint` runs both.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mechreward"
MODULES = sorted(PACKAGE.rglob("*.py"))
HOOK_NAME = re.compile(r"hook_resid|hook_post|blocks\.")
SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
PLAIN = ("base", "bench", "calibration", "experiments", "report", "show", "stats", "studies")
LOOPS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


each_module = pytest.mark.parametrize("path", MODULES, ids=name_of)


def docstrings(tree: ast.AST) -> set[tuple[int, int]]:
    """Where docstrings begin: (line, column)."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if ast.get_docstring(node, clean=False) is not None and first is not None:
                found.add((first.lineno, first.col_offset))
    return found


def size(source: str) -> tuple[int, int, int]:
    """Tokens of code, lines that hold one, and comprehensions."""
    tree = ast.parse(source)
    told = docstrings(tree)
    tokens, lines = 0, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT and token.start not in told:
            tokens += 1
            lines.add(token.start[0])
    return tokens, len(lines), sum(isinstance(node, LOOPS) for node in ast.walk(tree))


def whole(paths: list[Path]) -> tuple[float, float]:
    """Tokens a line, and comprehensions a hundred lines."""
    tokens = lines = loops = 0
    for path in paths:
        more_tokens, more_lines, more_loops = size(path.read_text())
        tokens, lines, loops = tokens + more_tokens, lines + more_lines, loops + more_loops
    return tokens / lines, 100 * loops / lines


@each_module
def test_no_module_is_too_large(path: Path):
    assert size(path.read_text())[0] <= 3300


def test_the_package_is_plain_text():
    assert whole(MODULES)[0] <= 10.5


@pytest.mark.parametrize("room", PLAIN)
def test_upper_rooms_are_plain_text(room: str):
    tokens_a_line, loops = whole(sorted((PACKAGE / room).rglob("*.py")))
    assert tokens_a_line <= 9.5
    assert loops <= 5


def test_the_root_holds_the_package_and_its_commands_alone():
    assert sorted(path.name for path in PACKAGE.glob("*.py")) == ["__init__.py", "cli.py"]


def test_there_are_few_rooms():
    folders = {path.parent for path in MODULES} - {PACKAGE}
    assert len(folders) + len(list(PACKAGE.glob("*.py"))) <= 22


def code_strings(tree: ast.AST) -> Iterator[str]:
    """String constants that do something: no docstrings."""
    idle = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in idle:
            yield node.value


def spells_hooks(source: str) -> list[str]:
    return [text for text in code_strings(ast.parse(source)) if HOOK_NAME.search(text)]


@each_module
def test_only_site_spells_hook_names(path: Path):
    if name_of(path) != "models/site.py":
        assert spells_hooks(path.read_text()) == []


def opens_pickles(source: str) -> bool:
    """`allow_pickle` with anything but False: a flag that no linter rule looks at."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            return ast.unparse(node.value) != "False"
    return False


@each_module
def test_no_flag_opens_a_pickle(path: Path):
    assert not opens_pickles(path.read_text())


def test_importing_the_package_loads_no_model_library():
    code = "import sys, mechreward; sys.exit('transformer_lens' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent, timeout=300)


# The checks themselves, on made-up code.


def test_a_size_counts_code_alone():
    source = '"""Words."""\n\n# more words\nx = [\n    1,\n]  # and more\n'
    assert size(source) == (6, 3, 0)
    assert size("y = [a for b in c for a in b]\n")[2] == 1


def test_hook_names_are_found_outside_docstrings():
    assert spells_hooks('name = f"blocks.{layer}.mlp"') == ["blocks."]
    source = 'def f():\n    "Reads blocks.0.hook_resid_post."\n    return "3.resid_post"'
    assert spells_hooks(source) == []


def test_an_opened_pickle_is_found():
    assert opens_pickles("numpy.load(path, allow_pickle=True)")
    assert not opens_pickles("numpy.load(path, allow_pickle=False)")
