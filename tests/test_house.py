"""The house holds: folders import only folders above them, modules only modules above them in their own folder.

The order below is the plan of the house. A new module needs a place in it. One thing looks upward and is allowed:
`models/adapter.py` names the folder of the bundled weights. That is a path, no import.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mechreward"
MAX_LINES = 300
TOP = ""
FLOORS = (
    (TOP, ("_check", "_bounds", "_columns", "_files", "_progress", "_workers", "stats", "results")),
    ("tasks", ("base", "countdown", "chain", "paths")),
    ("models", ("site", "hooked", "adapter", "cache", "lean", "edits", "clock", "capture", "draw", "engine")),
    ("rollouts", ("trajectory", "sample", "value")),
    (
        "probing",
        (
            *("store", "activations", "targets", "batched", "probe", "rankings", "neurons"),
            *("pruning", "evidence", "surface", "transfer"),
        ),
    ),
    (
        "causal",
        (
            *("reference", "intervene", "attach", "patching", "controls", "effect", "repair"),
            *("answers", "push", "trials", "claims", "certificate"),
        ),
    ),
    ("uses", ("confidence",)),
    ("show", ("style", "matrix", "figures", "tokens", "patching", "traces", "steering", "estimates", "report")),
    (
        "testbed",
        (
            *("vocabulary", "traces", "process", "walks", "layout", "planted"),
            *("calibrate", "cases", "coverage", "detection", "certify_rates", "train", "card"),
        ),
    ),
    ("contests", ("ground", "passes", "generation", "fits")),
    (
        "paper",
        (
            "split",
            "reads",
            "causes",
            "besides",
            "arms",
            "directions",
            "doses",
            "surprise",
            "transfer",
            "uses",
            "choice",
        ),
    ),
    (
        TOP,
        (
            *("study", "experiments", "reproduction", "findings_causal"),
            *("findings_compared", "findings_steered", "findings"),
            *("cells", "tables_causal", "tables", "comparisons", "pictures"),
            *("reading", "account", "bench", "levels", "calibration", "verdicts", "calibration_page", "cli"),
        ),
    ),
)
ROOF = (len(FLOORS), 0)  # the package itself: its nouns and verbs are for users, not for its own modules
HOOK_NAME = re.compile(r"hook_resid|hook_post|blocks\.")
LENS = "transformer_lens"


def plan() -> dict[str, tuple[int, int]]:
    """Place (floor, row) of every module. A folder's `__init__` stands below its modules, so it may import them."""
    places = {"mechreward": ROOF}
    for floor, (folder, rooms) in enumerate(FLOORS):
        home = f"mechreward.{folder}" if folder else "mechreward"
        places.update({f"{home}.{room}": (floor, row) for row, room in enumerate(rooms)})
        if folder:
            places[home] = (floor, len(rooms))
    return places


PLAN = plan()
MODULES = sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    """`mechreward/tasks/base.py` -> `mechreward.tasks.base`; an `__init__` is its folder."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported(tree: ast.AST, module: str, is_folder: bool = False) -> Iterator[str]:
    """Every module of the package that the code imports, wherever the import stands: also inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: None if is_folder and node.level == 1 else -node.level + is_folder]
                base = ".".join([*parents, *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in PLAN else base for name in names]
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            names = [word.value for word in node.args[:1] if isinstance(word, ast.Constant)]
        else:
            continue
        yield from (name for name in map(str, names) if name.split(".")[0] == "mechreward")


def upward(source: str, module: str, is_folder: bool = False) -> list[str]:
    """Imports of `module` that break the order, with what is wrong about each."""
    if module == "mechreward":
        return []
    if module not in PLAN:
        return [f"{module} has no place in the plan of the house (FLOORS in tests/test_house.py)"]
    wrong = []
    for name in imported(ast.parse(source), module, is_folder):
        if name not in PLAN:
            wrong.append(f"{module} imports {name}, which has no place in the plan of the house")
        elif PLAN[name] >= PLAN[module]:
            wrong.append(f"{module} imports {name}, which is not above it")
    return wrong


def code_strings(tree: ast.AST) -> Iterator[str]:
    """String constants that do something: no docstrings."""
    idle = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in idle:
            yield node.value


def spells_hooks(source: str) -> list[str]:
    return [text for text in code_strings(ast.parse(source)) if HOOK_NAME.search(text)]


def _names(node: ast.AST) -> list[str]:
    """Dotted names an import binds or a call calls."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [ast.unparse(node.func)] if isinstance(node, ast.Call) else []


def _swallows(node: ast.AST) -> bool:
    """An `except` that does nothing, or one that takes everything and does not raise again."""
    if not isinstance(node, ast.ExceptHandler):
        return False
    idle = all(isinstance(line, ast.Pass) or ast.unparse(line) == "..." for line in node.body)
    return idle or (node.type is None and not any(isinstance(line, ast.Raise) for line in ast.walk(node)))


def unsafe(source: str) -> list[str]:
    """Pickles, run-time code and swallowed exceptions, by line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        for name in _names(node):
            if name in ("eval", "exec", "torch.load") or re.match(r"(pickle|cloudpickle|dill)\b", name):
                found.append(f"line {node.lineno}: {name}")
            if name.split(".")[-1] == "suppress" and re.search(r"\((Base)?Exception\)$", ast.unparse(node)):
                found.append(f"line {node.lineno}: suppresses every exception")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append(f"line {node.value.lineno}: allow_pickle")
        if _swallows(node):
            found.append(f"line {node.lineno}: swallowed exception")
    return found


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: all but the bodies of functions and of `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        asleep = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if asleep or (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")):
            continue
        yield node
        yield from at_import(node)


def early_lens(source: str) -> list[str]:
    names = [name for node in at_import(ast.parse(source)) if not isinstance(node, ast.Call) for name in _names(node)]
    return [name for name in names if name.split(".")[0] == LENS]


each_module = pytest.mark.parametrize("path", MODULES, ids=dotted)


@each_module
def test_imports_point_up_the_plan(path: Path):
    assert upward(path.read_text(), dotted(path), path.name == "__init__.py") == []


@each_module
def test_only_site_spells_hook_names(path: Path):
    if dotted(path) != "mechreward.models.site":
        assert spells_hooks(path.read_text()) == []


@each_module
def test_nothing_unsafe(path: Path):
    assert unsafe(path.read_text()) == []


@each_module
def test_rooms_are_small(path: Path):
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES


@each_module
def test_transformer_lens_is_not_imported_early(path: Path):
    assert early_lens(path.read_text()) == []


def test_importing_the_package_loads_no_model_library():
    code = f"import sys, mechreward; sys.exit({LENS!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent, timeout=300)


# The checks themselves, on made-up code.


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tasks.base", "from mechreward.models.site import Site"),  # a folder below
        ("tasks.base", "from mechreward import models"),
        ("tasks.base", "import mechreward.paper"),
        ("tasks.base", "from mechreward.tasks.chain import Chain"),  # a module below in the same folder
        ("tasks.base", "from mechreward.tasks import chain"),
        ("tasks.base", "from .chain import Chain"),
        ("tasks.base", "from . import chain"),
        ("tasks.base", "from ..models import site"),
        ("tasks.chain", "from mechreward.tasks import Countdown"),  # its own folder's front door
        ("tasks.chain", "from mechreward import Problem"),  # the package's front door
        ("tasks.base", "def late():\n    from mechreward.causal import effect"),
        ("tasks.base", "if TYPE_CHECKING:\n    from mechreward.causal.effect import Effect"),
        ("tasks.base", "import importlib\nimportlib.import_module('mechreward.cli')"),
        ("tasks.base", "from mechreward.attic import old"),  # nowhere in the plan
        ("attic.old", "import math"),
        ("_check", "from mechreward.stats import auroc"),
        ("paper.reads", "from mechreward import study"),
    ],
)
def test_an_upward_import_is_found(module: str, source: str):
    assert len(upward(source, f"mechreward.{module}")) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tasks.chain", "from mechreward.tasks.base import Task\nfrom .base import Verdict\nfrom . import countdown"),
        ("models.engine", "from mechreward import stats, tasks\nfrom ..tasks.base import Problem\nimport torch"),
        ("cli", "from mechreward import bench, paper, study\nimport mechreward.show.report"),
    ],
)
def test_a_downward_view_is_allowed(module: str, source: str):
    assert upward(source, f"mechreward.{module}") == []


def test_a_folder_may_import_its_own_rooms_and_no_folder_below():
    assert upward("from mechreward.tasks.paths import Paths\nfrom .base import Task", "mechreward.tasks", True) == []
    assert len(upward("from ..models import site", "mechreward.tasks", True)) == 1
    assert upward("from mechreward.paper import everything", "mechreward", True) == []


def test_hook_names_are_found_outside_docstrings():
    assert spells_hooks('name = f"blocks.{layer}.mlp"') == ["blocks."]
    assert spells_hooks('def f():\n    "Reads blocks.0.hook_resid_post."\n    return "3.resid_post"') == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "from torch import load",
        "numpy.load(path, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
        "try:\n    f()\nexcept:\n    pass",
        "try:\n    f()\nexcept OSError:\n    pass",
        "try:\n    f()\nexcept:\n    print('oh')",
        "with contextlib.suppress(Exception):\n    f()",
    ],
)
def test_unsafe_code_is_found(source: str):
    assert len(unsafe(source)) == 1


def test_safe_code_is_not_accused():
    lines = ["model.eval()", "numpy.load(path, allow_pickle=False)", "mechreward.load(name)", "json.load(file)"]
    assert unsafe("\n".join(lines)) == []
    assert unsafe("try:\n    f()\nexcept BaseException:\n    undo()\n    raise") == []


def test_early_imports_of_transformer_lens_are_found():
    assert early_lens("from transformer_lens import HookedTransformer") == ["transformer_lens.HookedTransformer"]
    assert early_lens("try:\n    import transformer_lens\nexcept ImportError:\n    raise") == [LENS]
    assert early_lens("def load():\n    import transformer_lens\n") == []
    assert early_lens("if TYPE_CHECKING:\n    import transformer_lens\n") == []


def test_the_plan_names_every_room_once():
    assert len(PLAN) == 1 + sum(len(rooms) + bool(folder) for folder, rooms in FLOORS)
