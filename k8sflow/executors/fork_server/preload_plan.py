"""Finds the libraries that a fork server can import ahead of a flow's own code, by reading that code.

A library may be imported ahead if nothing that the flow does before its ``import`` statement can make a difference to
it. So the statements are read in the order in which they run, through the flow's own modules, up to the first one that
might: a call, say. Some things that flows often do first are understood: variables of ``os.environ`` are set again
before the import, ``sys.path`` matters to the flow's own modules alone, and warnings that are ignored are watched.
Whatever is imported later, each task imports by itself.
"""

from __future__ import annotations

import ast
import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from k8sflow.executors.fork_server.module_names import ModuleNames

OURS = "k8sflow"
# Calls that no library can notice.
_HARMLESS = frozenset({
    "bool", "collections.namedtuple", "dict", "float", "frozenset", "getLogger", "int", "len", "list",
    "logging.getLogger", "max", "min", "namedtuple", "os.cpu_count", "os.environ.get", "os.getcwd", "os.getenv",
    "os.path.abspath", "os.path.dirname", "os.path.exists", "os.path.join", "os.path.realpath", "Path", "pathlib.Path",
    "range", "re.compile", "set", "sorted", "str", "sys.path.append", "sys.path.extend", "sys.path.insert", "time.time",
    "tuple", "TypeVar", "typing.TypeVar", "matplotlib.use", "mpl.use",
})  # fmt: skip
# Methods of texts and paths, whatever they are called on.
_HARMLESS_METHODS = frozenset(
    {"absolute", "as_posix", "format", "joinpath", "lower", "resolve", "split", "strip", "upper"}
)
_HARMLESS_DECORATORS = frozenset(
    {"cache", "classmethod", "dataclass", "lru_cache", "property", "staticmethod", "wraps"}
)
_IGNORING = frozenset({"warnings.filterwarnings", "warnings.simplefilter"})


@dataclass(frozen=True)
class SetVariable:
    """Sets an environment variable.

    Args:
        name: The variable.
        value: Its value.
        is_default: Whether a value that it has already stays.
    """

    name: str
    value: str
    is_default: bool = False


@dataclass(frozen=True)
class Ignore:
    """The flow ignores warnings from here on: a library whose import shows some again has to come after that."""


@dataclass(frozen=True)
class Import:
    """Imports a library's module, which the flow's import has found in a file."""

    module: str
    file: str | None


PlanStep = SetVariable | Ignore | Import


@dataclass(frozen=True)
class PreloadPlan:
    """The libraries to import ahead.

    Args:
        steps: What to do, in this order.
        late: The libraries that each task imports by itself, and where the flow imports them.
    """

    steps: tuple[PlanStep, ...] = ()
    late: tuple[tuple[str, str], ...] = ()


def plan(file: Path, package: str, modules: Mapping[str, ModuleType]) -> PreloadPlan:
    """Plans what to import ahead of a script.

    Args:
        file: The script.
        package: The package that its relative imports are relative to; empty outside of any.
        modules: The modules that are loaded after the script's own import.
    """
    reader = _Reader(modules)
    parents = package.split(".") if package else []
    for depth in range(1, len(parents) + 1):
        reader.module(".".join(parents[:depth]))
    reader.file(str(file), package)
    return PreloadPlan(tuple(reader.steps), tuple(reader.late.items()))


def is_library(module: ModuleType) -> bool:
    """True if a module is installed or comes with Python, and not part of the user's code."""
    name = getattr(module, "__name__", "")
    if name.partition(".")[0] == OURS:
        return True
    if file := getattr(module, "__file__", None):
        return is_library_file(file)
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.origin in {"built-in", "frozen"}:
        return True
    folders = list(getattr(module, "__path__", ()))
    return bool(folders) and all(map(is_library_file, folders))


@cache
def is_library_file(file: str) -> bool:
    """True if a file is in one of the folders that packages are installed in, or Python itself."""
    parts = Path(file).parts
    if "site-packages" in parts or "dist-packages" in parts:
        return True
    return file.startswith(_library_folders()) or os.path.realpath(file).startswith(_library_folders())


@cache
def _library_folders() -> tuple[str, ...]:
    named = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found = [*named, site.getusersitepackages(), *site.getsitepackages()]
    return tuple(f"{folder}{os.sep}" for name in found if name for folder in {name, os.path.realpath(name)})


class _Reader:
    """Reads modules in the order in which Python runs them."""

    def __init__(self, modules: Mapping[str, ModuleType]) -> None:
        self._modules = modules
        self._read: set[str] = set()
        self._is_open = True  # nothing has run yet that could make a difference
        self._variables: set[str] = set()
        self._names = ModuleNames(modules)
        self.steps: list[PlanStep] = []
        self.late: dict[str, str] = {}

    def module(self, name: str) -> None:
        """Reads a module of the user's; of a library, notes that it is imported here."""
        found = self._modules.get(name)
        if found is None or name in self._read:
            return
        self._read.add(name)
        file = getattr(found, "__file__", None)
        if file is None:
            return
        if file.endswith(".py"):
            package = name if hasattr(found, "__path__") else name.rpartition(".")[0]
            self.file(file, package)
        else:
            self._is_open = False  # native code of the user's: nobody knows what it does

    def file(self, file: str, package: str) -> None:
        try:
            tree = ast.parse(Path(file).read_bytes())
        except (OSError, SyntaxError, ValueError):
            self._is_open = False
            return
        outer, self._names = self._names, ModuleNames(self._modules)
        self._statements(tree.body, file, package)
        self._names = outer

    def _statements(self, statements: list[ast.stmt], file: str, package: str, *, is_certain: bool = True) -> None:
        for statement in statements:
            match statement:
                case ast.Import():
                    for alias in statement.names:
                        self._import(alias.name, f"{file}:{statement.lineno}")
                        if alias.asname:
                            self._names.imported_as(alias.name, "", alias.asname)
                        else:
                            self._names.imported(alias.name)
                case ast.ImportFrom():
                    self._import_from(statement, file, package)
                case ast.Try():
                    blocks = [statement.body, *(handler.body for handler in statement.handlers)]
                    for block in (*blocks, statement.orelse, statement.finalbody):
                        self._statements(block, file, package, is_certain=False)
                case ast.If():
                    if not _is_harmless(statement.test) or _is_main_test(statement.test):
                        self._is_open = False
                    self._statements(statement.body, file, package, is_certain=False)
                    self._statements(statement.orelse, file, package, is_certain=False)
                case _:
                    self._other(statement, is_certain=is_certain)

    def _other(self, statement: ast.stmt, *, is_certain: bool) -> None:
        if self._names.changed_by(statement):
            self._is_open = False
        found = list(_variables(statement))
        if found:
            if not is_certain or any(step.name in self._variables for step in found):
                self._is_open = False  # perhaps it isn't set, or it has two values, one after the other
            self._variables.update(step.name for step in found)
            self.steps += found if self._is_open else []
        elif _ignores_warnings(statement):
            self.steps += [Ignore()] if self._is_open else []
        elif not _is_harmless(statement):
            self._is_open = False

    def _import_from(self, statement: ast.ImportFrom, file: str, package: str) -> None:
        name = statement.module or ""
        if statement.level:
            base = package.split(".")[: len(package.split(".")) - statement.level + 1]
            name = ".".join([*base, *([name] if name else [])])
        self._import(name, where := f"{file}:{statement.lineno}")
        for alias in statement.names:
            if f"{name}.{alias.name}" in self._modules:
                self._import(f"{name}.{alias.name}", where)
            self._names.imported_as(name, alias.name, alias.asname or alias.name)

    def _import(self, name: str, where: str) -> None:
        found = self._modules.get(name)
        if found is None:
            return
        root = name.partition(".")[0]
        if not is_library(found):
            parts = name.split(".")
            for depth in range(1, len(parts) + 1):
                self.module(".".join(parts[:depth]))
        elif name not in self._read and root != OURS:
            self._read.add(name)
            if self._is_open:
                self.steps.append(Import(name, getattr(found, "__file__", None)))
            elif root not in sys.stdlib_module_names and root not in {
                step.module.partition(".")[0] for step in self.steps if isinstance(step, Import)
            }:
                self.late.setdefault(root, where)


def _variables(statement: ast.stmt) -> Iterator[SetVariable]:
    """The environment variables that a statement sets, if it does nothing else and their values are written there."""
    match statement:
        case ast.Assign(targets=[ast.Subscript(value=target, slice=name)], value=value):
            if _dotted(target) == "os.environ" and (pair := _constants(name, value)):
                yield SetVariable(*pair)
        case ast.Expr(value=ast.Call(func=function, args=[name, value], keywords=[])):
            if _dotted(function) == "os.environ.setdefault" and (pair := _constants(name, value)):
                yield SetVariable(*pair, is_default=True)
        case ast.Expr(value=ast.Call(func=function, args=[ast.Dict() as given], keywords=[])):
            if _dotted(function) == "os.environ.update":
                pairs = [_constants(key, value) for key, value in zip(given.keys, given.values, strict=True)]
                known = [pair for pair in pairs if pair is not None]
                yield from (SetVariable(*pair) for pair in known if len(known) == len(pairs))


def _constants(key: ast.expr | None, value: ast.expr) -> tuple[str, str] | None:
    match key, value:
        case ast.Constant(value=str(name)), ast.Constant(value=str(text)):
            return name, text
    return None


def _ignores_warnings(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=ast.Call(func=function, args=[ast.Constant(value="ignore"), *rest], keywords=keywords)):
            values = [*rest, *(keyword.value for keyword in keywords)]
            return _dotted(function) in _IGNORING and all(map(_is_harmless, values))
    return False


def _is_main_test(test: ast.expr) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(test))


def _is_harmless(node: ast.AST) -> bool:  # noqa: PLR0911  one for each kind of code
    """True if running this code makes no difference to any library: it calls nothing, and changes no object."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            parts: list[Any] = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
            return not _is_wrapped(node) and all(map(_is_harmless, parts))
        case ast.ClassDef():
            return not _is_wrapped(node) and all(map(_is_harmless, [*node.bases, *node.keywords, *node.body]))
        case ast.Lambda():
            return all(map(_is_harmless, [*node.args.defaults, *filter(None, node.args.kw_defaults)]))
        case ast.BinOp(op=ast.LShift() | ast.RShift()):  # some libraries add to an object so
            return isinstance(node.left, ast.Constant) and isinstance(node.right, ast.Constant)
        case ast.Call():
            name = _dotted(node.func)
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            is_known = name in _HARMLESS or method in _HARMLESS_METHODS
            children: list[ast.AST] = [*node.args, *(keyword.value for keyword in node.keywords)]
            if isinstance(node.func, ast.Attribute):
                children.append(node.func.value)
            return is_known and all(map(_is_harmless, children))
        case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
            return False
        case ast.For() | ast.AsyncFor() | ast.While() | ast.With() | ast.AsyncWith() | ast.Delete() | ast.Raise():
            return False
        case ast.Await() | ast.Yield() | ast.YieldFrom():
            return False
    return all(map(_is_harmless, ast.iter_child_nodes(node)))


def _is_wrapped(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """True if decorators run that may do anything."""
    functions = [found.func if isinstance(found, ast.Call) else found for found in node.decorator_list]
    return any(_dotted(function).rpartition(".")[2] not in _HARMLESS_DECORATORS for function in functions)


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{_dotted(value)}.{name}"
    return ""
