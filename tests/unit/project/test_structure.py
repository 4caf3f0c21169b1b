"""The structure of the code: no import cycles, and modules and functions short enough to read in one go."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[3] / "k8sflow"
MODULE_LINES = 400
FUNCTION_LINES = 50


def test_no_module_imports_itself_through_others():
    """Imports inside of functions count too: they only postpone the cycle."""
    graph = imports_of(PACKAGE)
    assert len(graph) > 100
    assert cycle_in(graph) is None


def test_modules_are_short():
    long = {path: lines for path, lines in lines_of_modules(PACKAGE) if lines > MODULE_LINES}
    assert long == {}


def test_the_generator_of_users_is_left_alone():
    """Users seed it and draw from it: only the jitter and the seeding of the fork server import ``random``."""
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^\s*(import random\b|from random import)", path.read_text(), re.MULTILINE)
    }
    assert found == {"jitter.py", "executors/fork_server/preloading.py"}


def test_functions_are_short():
    long = {f"{path}: {name}": lines for path, name, lines in lines_of_functions(PACKAGE) if lines > FUNCTION_LINES}
    assert long == {}


# ---------------------------------------------------------------------- the checks themselves


@pytest.mark.parametrize(
    "back",
    [
        "import app.top\n",
        "from app.top import run\n",
        "from app import top\n",
        "from . import top\n",
        "from .top import run\n",
        "def later():\n    from app.top import run\n",
        "if TYPE_CHECKING:\n    import os\nelse:\n    import app.top\n",
    ],
)
def test_a_cycle_is_found(tmp_path: Path, back: str):
    write(tmp_path / "app", top="from app.middle import walk\n", middle="import app.bottom\n", bottom=back)
    assert cycle_in(imports_of(tmp_path / "app")) == {"app.top", "app.middle", "app.bottom"}


def test_a_cycle_through_a_package_is_found(tmp_path: Path):
    """``from app.sub import name`` runs the package's ``__init__.py``."""
    write(tmp_path / "app", base="from app.sub import name\n")
    write(tmp_path / "app/sub", __init__="from app.sub.part import name\n", part="import app.base\n")
    assert cycle_in(imports_of(tmp_path / "app")) == {"app.base", "app.sub", "app.sub.part"}


@pytest.mark.parametrize("guard", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_an_import_for_types_alone_makes_no_cycle(tmp_path: Path, guard: str):
    write(tmp_path / "app", top="import app.bottom\n", bottom=f"if {guard}:\n    from app.top import run\n")
    assert cycle_in(imports_of(tmp_path / "app")) is None


def test_lines_are_counted_with_decorators_and_methods(tmp_path: Path):
    write(
        tmp_path / "app",
        top="class C:\n    @property\n    def f(self):\n        return 1\n"
        "    def h(self): ...\n    async def g(self): pass\n",
    )
    assert list(lines_of_functions(tmp_path / "app")) == [("top.py", "f", 3), ("top.py", "g", 1)]
    assert ("top.py", 6) in list(lines_of_modules(tmp_path / "app"))


# ---------------------------------------------------------------------- reading the code


def imports_of(package: Path) -> dict[str, set[str]]:
    """The modules of a package, each with the modules of the package that it imports while the program runs.

    The package's own ``__init__.py`` is left out: it exports names of all layers, and imports them on first use.
    """
    names = {_module(package, path): path for path in package.rglob("*.py")}
    graph = {name: set(_imported(name, path, names)) for name, path in names.items()}
    graph.pop(package.name, None)
    return {name: found - {name, package.name} for name, found in graph.items()}


def _imported(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    around = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in _running(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            parts = around.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            for alias in node.names:
                yield from [found for found in (f"{base}.{alias.name}", base) if found in known][:1]


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a tree but for those that only a type checker reads."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING"
        waiting += node.orelse if isinstance(node, ast.If) and is_for_types else ast.iter_child_nodes(node)


def cycle_in(graph: dict[str, set[str]]) -> set[str] | None:
    """The modules of one cycle, or None."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return set(error.args[1])
    return None


def lines_of_modules(package: Path) -> Iterator[tuple[str, int]]:
    """The modules by path, and their numbers of lines."""
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package).as_posix(), path.read_text().count("\n")


def lines_of_functions(package: Path) -> Iterator[tuple[str, str, int]]:
    """The functions with code, each with its module and its number of lines, decorators included.

    A function whose body is ``...`` declares a signature, which is as long as it has options.
    """
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_declaration(node):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                assert node.end_lineno is not None
                yield path.relative_to(package).as_posix(), node.name, node.end_lineno - first + 1


def _is_declaration(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return all(isinstance(line, ast.Expr) and getattr(line.value, "value", None) is ... for line in node.body)


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _module(package: Path, path: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def write(folder: Path, **modules: str) -> None:
    """A package with these modules."""
    folder.mkdir(exist_ok=True)
    for name, text in {"__init__": "", **modules}.items():
        (folder / f"{name}.py").write_text(text)
