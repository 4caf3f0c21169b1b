"""Where the steps and classes of a flow are written: the statements that define them."""

from __future__ import annotations

import ast
import inspect
import linecache
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow import spec
from k8sflow.flow.graph import Place, class_place

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_read: dict[tuple[str, int], dict[str, list[_Definition]]] = {}
# The written steps of functions that don't tell what they stand before: wrappers without functools.wraps.
_behind: WeakKeyDictionary[FunctionType, tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]] = WeakKeyDictionary()


def definition_of(function: Callable[..., Any]) -> tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]:
    """Where a step is written: its ``def``, and the file.

    Raises:
        FlowDefinitionError: It can't be found.
    """
    if isinstance(function, FunctionType) and function in _behind:
        return _behind[function]
    code = _code_of(function)
    file = "?"
    if code is not None:
        file = code.co_filename
        for node in _definitions(file).get(code.co_name, []):
            if not isinstance(node, ast.ClassDef) and first_line(node) == code.co_firstlineno:
                return node, file
    raise FlowDefinitionError(
        f"the source of step {getattr(function, '__name__', function)} can't be found in {file}.",
        cause="A flow's graph is read from its source, so it has to be in a file (or a notebook cell).",
    )


def look_behind_wrappers(flow: type[spec.FlowSpec]) -> None:
    """Finds for the steps of a flow that a decorator below ``@step`` has replaced what is written in the class."""
    functions = spec.steps(flow)
    for base in flow.__mro__:
        if base is spec.FlowSpec or not issubclass(base, spec.FlowSpec):
            continue
        place = class_place(base)
        for node in (node for body in class_definitions(base.__name__, place) for node in body.body):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and is_decorated_as_step(node):
                function: Any = vars(base).get(node.name)
                is_function = isinstance(function, FunctionType) and functions.get(node.name) is function
                if is_function and getattr(_code_of(function), "co_name", "") != node.name:
                    _behind[function] = (node, place.file)


def _code_of(function: Callable[..., Any]) -> CodeType | None:
    """The code behind what is wrapped; None where that is no function, but something else that can be called."""
    code: CodeType | None = getattr(inspect.unwrap(function), "__code__", None)
    return code


def is_wrapped(function: Callable[..., Any]) -> bool:
    """Whether something runs around a step of which its source says nothing."""
    return hasattr(function, "__wrapped__") or (isinstance(function, FunctionType) and function in _behind)


def class_definitions(name: str, place: Place) -> list[ast.ClassDef]:
    """The class statement at a place, if its source can be read."""
    found = _definitions(place.file).get(name, [])
    return [node for node in found if isinstance(node, ast.ClassDef) and place.line in {node.lineno, first_line(node)}]


def assigned_at(flow: type[spec.FlowSpec], name: str) -> Place:
    """The line at which a class, or a base of it, sets a member; the class itself where that can't be read."""
    owner = next(base for base in flow.__mro__ if name in vars(base))
    place = class_place(owner)
    for body in class_definitions(owner.__name__, place):
        for node in body.body:
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign)
                else []
            )
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return Place(place.file, node.lineno)
    return place


def _definitions(file: str) -> dict[str, list[_Definition]]:
    """The functions and classes of a file by name; each version of a file is read once."""
    source = "".join(linecache.getlines(file))
    key = (file, hash(source))
    if key not in _read:
        found: dict[str, list[_Definition]] = {}
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, _Definition):
                found.setdefault(node.name, []).append(node)
        _read[key] = found
    return _read[key]


def first_line(definition: _Definition) -> int:
    """Where a definition begins: with its first decorator, if it has one."""
    return min([definition.lineno, *(d.lineno for d in definition.decorator_list)])


def is_decorated_as_step(definition: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    decorators = [d.func if isinstance(d, ast.Call) else d for d in definition.decorator_list]
    return "step" in map(name_of, decorators)


def name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
