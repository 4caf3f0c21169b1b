"""Finds tests of a config's value in a class body that Python answers without asking the value: ``is``, ``isinstance``.

Operators and calls that ask the value are found when the class body runs: see ``config_misuse``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from typing import Any

from k8sflow.flow import config_misuse
from k8sflow.flow.checks.locate import Source, name_of
from k8sflow.flow.config_expressions import Late
from k8sflow.flow.problems import Location, Problem
from k8sflow.flow.spec import FlowSpec

# Functions whose answer would be about the late value itself, and their number of arguments.
_ABOUT_THE_VALUE = {"isinstance": 2, "type": 1, "callable": 1, "hasattr": 2, "getattr": 3, "id": 1}


def problems(source: Source) -> list[Problem]:
    """The tests in the class bodies of a flow that see a late value instead of the config's value."""
    found = []
    for owner in source.flow.__mro__:
        if owner is not FlowSpec and issubclass(owner, FlowSpec):
            names = {name for name, value in _names(owner).items() if isinstance(value, Late)}
            file = source.location_of(owner).file
            for body in source.class_definitions(owner) if names else ():
                found += [_problem(Location(file, line), use, value, names) for use, value, line in _tests(body, names)]
    return found


def _names(owner: type) -> dict[str, Any]:
    """The values of the names in a class body, those of its module included."""
    module = sys.modules.get(owner.__module__)
    return {**({} if module is None else vars(module)), **vars(owner)}


def _problem(at: Location, use: str, value: ast.expr, names: set[str]) -> Problem:
    message = f"{use} needs the value of {ast.unparse(value)}, which is known only when a run starts."
    return at.problem(message, config_misuse.advice_at(at.file, at.line, names))


def _tests(body: ast.ClassDef, names: set[str]) -> Iterator[tuple[str, ast.expr, int]]:
    """Each test in what runs with a class body: what it tests with, the value, and the line."""
    for node in _running(body):
        match node:
            case ast.Compare(left=left, ops=operators, comparators=others):
                for operator, pair in zip(operators, zip([left, *others], others, strict=False), strict=True):
                    if isinstance(operator, (ast.Is, ast.IsNot)):
                        use = "is" if isinstance(operator, ast.Is) else "is not"
                        yield from ((use, value, node.lineno) for value in pair if _root(value) in names)
            case ast.Call(func=ast.Name() as function, args=[first, *_] as args) if _root(first) in names:
                if _ABOUT_THE_VALUE.get(name_of(function)) == len(args):
                    yield f"{name_of(function)}()", first, node.lineno


def _running(body: ast.ClassDef) -> Iterator[ast.AST]:
    """The parts of a class statement that run with it: not those of its functions and of classes inside it."""
    pending: list[ast.AST] = [*body.body]
    while pending:
        node = pending.pop(0)
        yield node
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                pending += [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
            case ast.Lambda() | ast.ClassDef():
                pass
            case _:
                pending += ast.iter_child_nodes(node)


def _root(value: ast.expr) -> str:
    """The name of which an expression reads a part: ``cfg`` of ``cfg.db["host"].lower()``."""
    while isinstance(value, (ast.Attribute, ast.Subscript, ast.Call)):
        value = value.func if isinstance(value, ast.Call) else value.value
    return value.id if isinstance(value, ast.Name) else ""
