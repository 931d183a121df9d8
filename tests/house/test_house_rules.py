"""Rules of the house that a tool can check: see CONTRIBUTING.md for why they are rules."""

from __future__ import annotations

import ast
import re
import statistics
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "ranef"
SOURCES = sorted(PACKAGE.rglob("*.py"))
CORE = sorted((ROOT / "rust" / "core" / "src").rglob("*.rs"))

# Who stands on which floor. What is not here yet gets its floor when it is added.
FLOORS = {
    "errors": 0, "progress": 0, "_core": 0,
    "formula": 1, "families": 1, "structures": 1, "priors": 1,
    "frame": 2,
    "engines": 3,
    "call": 4, "layout": 4, "model": 4,
    "inference": 5, "predict": 5, "diagnose": 5, "criteria": 5, "power": 5,
    "report": 6, "plot": 6,
    "datasets": 7, "cli": 7, "sklearn": 7, "__init__": 8, "__main__": 8,
}  # fmt: skip
LONGEST, NINTH_DECILE = 60, 30  # lines of a function without its docstring

Function = ast.FunctionDef | ast.AsyncFunctionDef


def room(path: Path) -> str:
    """Return the part of the package a file belongs to: the first name below `ranef`."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def is_delegation(node: ast.AST) -> bool:
    """Tell whether a function is a docstring, imports, and one statement: the one-line method that may look upwards."""
    if not isinstance(node, Function):
        return False
    work = [s for s in node.body if not isinstance(s, ast.Import | ast.ImportFrom | ast.Expr)]
    docs = [s for s in node.body if isinstance(s, ast.Expr)]
    return len(work) <= 1 and len(docs) <= 2


def is_for_annotations(node: ast.AST) -> bool:
    """Tell whether a block is `if TYPE_CHECKING:`, which never runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported(statement: ast.AST) -> Iterator[str]:
    """Yield the rooms of the package that an import statement names."""
    if isinstance(statement, ast.Import):
        names = [alias.name for alias in statement.names]
    elif isinstance(statement, ast.ImportFrom) and statement.module == "ranef":
        names = [f"ranef.{alias.name}" for alias in statement.names]
    elif isinstance(statement, ast.ImportFrom):
        names = [statement.module or ""]
    else:
        names = []
    for name in names:
        parts = name.split(".")
        if parts[0] == "ranef" and len(parts) > 1:
            yield parts[1]


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (room, in a one-line method or for annotations only) for each import of the package by a file."""

    def walk(node: ast.AST, excused: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            for name in imported(child):
                yield name, excused
            yield from walk(child, excused or is_delegation(child) or is_for_annotations(child))

    yield from walk(ast.parse(path.read_text()), False)


def relative_imports(path: Path) -> list[int]:
    """Return the lines with relative imports."""
    return [n.lineno for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom) and n.level]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards_only(path):
    assert room(path) in FLOORS, f"give {room(path)!r} a floor in FLOORS"
    assert not relative_imports(path), "relative imports hide the floor"
    here = FLOORS[room(path)]
    upwards = {
        name
        for name, excused in imports(path)
        if FLOORS.get(name, here) > here and not (excused and room(path) == "model")
    }
    assert not upwards, f"floor {here} imports {upwards} from above"


def test_rooms_of_one_floor_do_not_import_each_other_in_circles():
    edges = {(room(path), name) for path in SOURCES for name, _ in imports(path) if room(path) != name}
    circles = {(a, b) for a, b in edges if (b, a) in edges and FLOORS.get(a) == FLOORS.get(b)}
    assert not circles


def test_the_version_stands_in_one_place():
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    for crate in (ROOT / "rust").glob("*/Cargo.toml"):
        assert tomllib.loads(crate.read_text())["package"]["version"] == {"workspace": True}, crate
    quoted = re.compile(rf"""["']{re.escape(version)}["']""")
    assert not [path for path in SOURCES if quoted.search(path.read_text())]


def texts() -> list[Path]:
    """Return the project's own text files."""
    folders = ["src", "rust", "tests", "benchmarks", "examples", "docs", ".ci"]
    kinds = {".py", ".pyi", ".rs", ".toml", ".md", ".R", ".sh", ".json", ".txt", ""}
    below = [p for f in folders for p in (ROOT / f).rglob("*") if p.is_file() and p.suffix in kinds]
    top = [p for p in ROOT.glob("*") if p.is_file() and p.suffix in kinds and not p.name.startswith(".")]
    return [p for p in below + top if "__pycache__" not in p.parts and "out" not in p.parts]


def hits(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    """Return file:line of what matches."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in paths
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_paths_of_somebodys_machine():
    # The folders are spelled apart so that this file passes its own test.
    roots = "|".join(["ho" + "me", "ro" + "ot", "Us" + "ers", "wo" + "rk", "m" + "nt"])
    assert not hits(re.compile(rf"""(?:^|[\s"'(=`])/(?:{roots})/\w"""), texts())


def test_nothing_is_left_for_later():
    words = "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"])
    assert not hits(re.compile(rf"\b(?:{words})\b"), texts())


def test_the_core_knows_no_python_and_never_prints():
    assert not hits(re.compile(r"\b(?:pyo3|numpy)::|\b(?:e?println|e?print|dbg)!"), CORE)


def test_nothing_dense_where_the_model_is_sparse():
    assert not hits(re.compile(r"\.(?:todense|toarray)\("), SOURCES)


def lengths() -> dict[str, int]:
    """Return the length of every function of the package, without its docstring."""
    found: dict[str, int] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Function):
                doc = ast.get_docstring(node, clean=False)
                size = (node.end_lineno or node.lineno) - node.lineno + 1 - (doc.count("\n") + 1 if doc else 0)
                found[f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"] = size
    return found


def test_functions_are_short():
    sizes = lengths()
    assert not {name: size for name, size in sizes.items() if size > LONGEST}
    assert statistics.quantiles(sizes.values(), n=10)[-1] < NINTH_DECILE
