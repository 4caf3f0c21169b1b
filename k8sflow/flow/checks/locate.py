"""Finds where the steps and classes of a flow are written: the statements that define them."""

from __future__ import annotations

import ast
import inspect
import linecache
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow import spec
from k8sflow.flow.problems import Location

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Function = ast.FunctionDef | ast.AsyncFunctionDef


def own_name(definition: Function) -> str | None:
    """The name of a method's first argument, usually ``self``; None if it has none."""
    arguments = [*definition.args.posonlyargs, *definition.args.args]
    return arguments[0].arg if arguments else None


class Source:
    """The source of a flow; each of its files is parsed once.

    Args:
        flow: The flow's class.
    """

    def __init__(self, flow: type[spec.FlowSpec]) -> None:
        self.flow = flow
        self._files: dict[str, dict[str, list[_Definition]]] = {}
        self._locations: dict[type, Location] = {}
        # The ``def`` of functions that a decorator below @step made without functools.wraps, with its file.
        self._behind: dict[FunctionType, tuple[Function, str]] = {}
        self._look_behind_wrappers()

    def definition_of(self, function: Callable[..., Any]) -> tuple[Function, str]:
        """The ``def`` of a step, and its file.

        Raises:
            FlowDefinitionError: It can't be found.
        """
        if isinstance(function, FunctionType) and function in self._behind:
            return self._behind[function]
        code = _code_of(function)
        file = "?"
        if code is not None:
            file = code.co_filename
            for node in self._definitions(file).get(code.co_name, []):
                if not isinstance(node, ast.ClassDef) and _first_line(node) == code.co_firstlineno:
                    return node, file
        raise FlowDefinitionError(
            f"the source of step {getattr(function, '__name__', function)} can't be found in {file}.",
            cause="A flow's graph is read from its source, so it has to be in a file (or a notebook cell).",
        )

    def is_wrapped(self, function: Callable[..., Any]) -> bool:
        """True if a wrapper runs around a step, of which its source says nothing."""
        return hasattr(function, "__wrapped__") or (isinstance(function, FunctionType) and function in self._behind)

    def bodies(self) -> Iterator[tuple[ast.ClassDef, str]]:
        """The class statements of the flow and of the flows that it derives from, each with its file."""
        for base in self.flow.__mro__:
            if base is not spec.FlowSpec and issubclass(base, spec.FlowSpec):
                for body in self.class_definitions(base):
                    yield body, self.location_of(base).file

    def class_definitions(self, cls: type) -> list[ast.ClassDef]:
        """The class statement of a class, if its source can be read."""
        location = self.location_of(cls)
        return [
            node
            for node in self._definitions(location.file).get(cls.__name__, [])
            if isinstance(node, ast.ClassDef) and location.line in {node.lineno, _first_line(node)}
        ]

    def location_of(self, cls: type) -> Location:
        """The class statement of a class."""
        if cls not in self._locations:
            try:
                found = Location(inspect.getsourcefile(cls) or "?", inspect.getsourcelines(cls)[1])
            except (OSError, TypeError):
                found = Location("?", 0)
            self._locations[cls] = found
        return self._locations[cls]

    def assignment_of(self, name: str) -> Location:
        """The line at which the class, or a base of it, sets a member; the class itself where that can't be read."""
        owner = next(base for base in self.flow.__mro__ if name in vars(base))
        location = self.location_of(owner)
        for body in self.class_definitions(owner):
            for node in body.body:
                targets = node.targets if isinstance(node, ast.Assign) else []
                targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
                if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                    return Location(location.file, node.lineno)
        return location

    def _look_behind_wrappers(self) -> None:
        """Finds the ``def`` of each step that a decorator below ``@step`` has replaced."""
        functions = spec.steps(self.flow)
        for base in self.flow.__mro__:
            if base is spec.FlowSpec or not issubclass(base, spec.FlowSpec):
                continue
            own: dict[str, Any] = {name: member for name, member in vars(base).items() if functions.get(name) is member}
            replaced: dict[str, FunctionType] = {
                name: function
                for name, function in own.items()
                if isinstance(function, FunctionType) and getattr(_code_of(function), "co_name", "") != name
            }
            if not replaced:
                continue
            for node in (node for body in self.class_definitions(base) for node in body.body):
                if isinstance(node, Function) and node.name in replaced and is_decorated_as_step(node):
                    self._behind[replaced[node.name]] = (node, self.location_of(base).file)

    def _definitions(self, file: str) -> dict[str, list[_Definition]]:
        """The functions and classes of a file by name."""
        if file not in self._files:
            found: dict[str, list[_Definition]] = {}
            for node in ast.walk(ast.parse("".join(linecache.getlines(file)))):
                if isinstance(node, _Definition):
                    found.setdefault(node.name, []).append(node)
            self._files[file] = found
        return self._files[file]


def _code_of(function: Callable[..., Any]) -> CodeType | None:
    """The code of the function inside all wrappers; None for another kind of callable."""
    code: CodeType | None = getattr(inspect.unwrap(function), "__code__", None)
    return code


def _first_line(definition: _Definition) -> int:
    """The line of a definition's first decorator, or of the definition."""
    return min([definition.lineno, *(d.lineno for d in definition.decorator_list)])


def is_decorated_as_step(definition: Function) -> bool:
    """True if ``@step`` is above a ``def``."""
    decorators = [d.func if isinstance(d, ast.Call) else d for d in definition.decorator_list]
    return "step" in map(name_of, decorators)


def name_of(function: ast.expr) -> str:
    """The last name of a dotted expression."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
