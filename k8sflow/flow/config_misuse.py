"""Finds uses of a config's value where it isn't known yet, and keeps them with the config for the check."""

from __future__ import annotations

import ast
import linecache
import opcode
import sys
from collections.abc import Iterator, Sequence
from inspect import CO_OPTIMIZED
from types import FrameType
from typing import TYPE_CHECKING, Any

from k8sflow.flow.problems import Problem, caller, is_class_body, location_of

if TYPE_CHECKING:
    from k8sflow.flow.config_expressions import ConfigSource, Late

NOTHING: Any = object()
# Calls that take late values.
_DECLARED = {"Parameter", "IncludeFile", "Config"}
# What ``**value`` is compiled to, in a call and in a dict display.
_UNPACKING = {"DICT_MERGE", "DICT_UPDATE"}


def class_body() -> FrameType | None:
    """The innermost class statement that is being run, also by way of functions that it calls."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  the only way to find the caller
    while frame is not None and not is_running_class_body(frame):
        frame = frame.f_back
    return frame


def is_running_class_body(frame: FrameType) -> bool:
    """True if a frame is that of a class statement; a function's is recognised without reading its variables."""
    return not frame.f_code.co_flags & CO_OPTIMIZED and is_class_body(frame)


def is_unpacking(frame: FrameType) -> bool:
    """True if a frame is about to unpack a table: ``f(**value)``, ``{**value}``."""
    return opcode.opname[frame.f_code.co_code[frame.f_lasti]] in _UNPACKING


def keep(late: Late, use: str, *, can_go_on: bool = True) -> None:
    """Keeps the problem for the check of the config's flow.

    Args:
        late: The value that isn't known yet.
        use: What needs it, in words.
        can_go_on: Whether something can replace the value until the check.

    Raises:
        FlowDefinitionError: No check will see the problem, or nothing can replace the value.
    """
    body = class_body()
    frame = caller() if body is None else body
    source = late.k8sflow_source()
    if source is None:
        source = _any_config(body)
    problem = Problem(
        f"{use} needs the value of {late.k8sflow_text()}, which is known only when a run starts.",
        advice_at(frame.f_code.co_filename, frame.f_lineno, _names(late.k8sflow_source(), frame)),
    )
    found = problem.at(location_of(frame))
    is_in_body = body is not None and any(value is source for value in body.f_locals.values())
    if body is None or source is None or not (can_go_on and (is_in_body or source.k8sflow_is_placed())):
        raise found.error()
    if all((known.location, known.advice) != (found.location, problem.advice) for known in source.k8sflow_misuses):
        source.k8sflow_misuses.append(found)


def _any_config(body: FrameType | None) -> ConfigSource | None:
    """A config of a class body, whose check reports the problems of a ``config_expr`` too."""
    values = () if body is None else body.f_locals.values()
    return next((value for value in values if hasattr(type(value), "k8sflow_is_placed")), None)


def _names(source: Any, frame: FrameType) -> set[str]:
    """The names of a config, or of ``config_expr``, that a frame sees."""
    if source is None:
        return {"config_expr"}
    return {name for name, value in [*frame.f_globals.items(), *frame.f_locals.items()] if value is source}


def advice_at(file: str, line: int, names: set[str]) -> str:
    """The ``config_expr`` to write at a line.

    Args:
        file: The flow's file.
        line: The line, where a value is needed that isn't known yet.
        names: The names of its config, or of all late values, at this position.
    """
    whole = _expression(file, line, names)
    if whole is None:
        read = f"self.{min(names, default='config')}"
        return f'Write the whole expression as a text in config_expr("..."), or read {read} in a step.'
    quoted = repr(whole) if '"' in whole else f'"{whole}"'
    return f"Write config_expr({quoted}), which is evaluated when the run starts."


def _expression(file: str, line: int, names: set[str]) -> str | None:
    """The expression at a line that ``config_expr`` can replace."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return None
    found = [node for node in _values(tree) if _covers(node, line) and _uses(node, names)]
    whole = min(found, key=lambda node: (node.end_lineno or node.lineno) - node.lineno, default=None)
    while whole is not None and (parts := _parts(whole)) is not None:
        if any(isinstance(part, ast.Starred) for part in parts):  # *value is not an expression itself
            break
        using = [part for part in parts if _covers(part, line) and _uses(part, names)]
        whole = using[0] if len(using) == 1 else None
    return None if whole is None else ast.unparse(whole)


def _values(tree: ast.AST) -> Iterator[ast.expr]:
    """The values that statements assign, and the options of decorators."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value):
                yield value
            case ast.FunctionDef(decorator_list=decorators) | ast.ClassDef(decorator_list=decorators):
                for call in (found for found in decorators if isinstance(found, ast.Call)):
                    yield from (*call.args, *(keyword.value for keyword in call.keywords))


def _parts(node: ast.expr) -> Sequence[ast.expr] | None:
    """The values in a display, or in the call of a class; None for an expression that is one value."""
    match node:
        case ast.Dict(values=values) | ast.List(elts=values) | ast.Tuple(elts=values):
            return values
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args, keywords=keywords):
            is_declared = name in _DECLARED
            return [*args, *(keyword.value for keyword in keywords)] if is_declared else None
    return None


def _covers(node: ast.expr, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


def _uses(node: ast.expr, names: set[str]) -> bool:
    """True if an expression does more with a config than to read a part of it."""
    inner: ast.expr = node
    while isinstance(inner, (ast.Attribute, ast.Subscript)):
        inner = inner.value
    is_bare = isinstance(inner, ast.Name) and inner.id in names
    return not is_bare and any(isinstance(part, ast.Name) and part.id in names for part in ast.walk(node))
