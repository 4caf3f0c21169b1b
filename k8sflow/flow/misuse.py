"""The mistake of using a config's value where it isn't known yet: kept with the config, for the static check."""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Iterator
from inspect import CO_OPTIMIZED
from types import FrameType
from typing import TYPE_CHECKING, Any

from k8sflow.flow.faults import Fault, Located, caller, is_class_body, place_of

if TYPE_CHECKING:
    from k8sflow.flow.late import Late, Source

NOTHING: Any = object()


def class_body() -> FrameType | None:
    """The innermost class statement that is being run, also by way of functions that it calls."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  the only way to know who asks
    while frame is not None and (frame.f_code.co_flags & CO_OPTIMIZED or not is_class_body(frame)):
        frame = frame.f_back
    return frame


def keep(late: Late, use: str, *, can_go_on: bool = True) -> None:
    """Keeps the mistake for the check of the config's flow.

    Args:
        late: The value that isn't known yet.
        use: What needs it, in words.
        can_go_on: Whether something can take the value's place until the check.

    Raises:
        FlowDefinitionError: No check will see the mistake, or nothing can take the value's place.
    """
    body = class_body()
    frame = caller() if body is None else body
    source = late.k8sflow_source()
    if source is None:
        source = _any_config(body)
    fault = Fault(
        f"{use} needs the value of {late.k8sflow_text()}, which is known only when a run starts.",
        _advice(frame, _names(late.k8sflow_source(), frame)),
    )
    found = Located(place_of(frame), fault)
    is_in_body = body is not None and any(value is source for value in body.f_locals.values())
    if body is None or source is None or not (can_go_on and (is_in_body or source.k8sflow_is_placed())):
        raise found.error()
    if all((known.place, known.fault.advice) != (found.place, fault.advice) for known in source.k8sflow_misuses):
        source.k8sflow_misuses.append(found)


def _any_config(body: FrameType | None) -> Source | None:
    """A config of a class body, whose check reports the mistakes of a ``config_expr`` too."""
    values = () if body is None else body.f_locals.values()
    return next((value for value in values if hasattr(type(value), "k8sflow_is_placed")), None)


def _names(source: Any, frame: FrameType) -> set[str]:
    """The names of a config, or of ``config_expr``, at a place."""
    if source is None:
        return {"config_expr"}
    return {name for name, value in [*frame.f_globals.items(), *frame.f_locals.items()] if value is source}


def _advice(frame: FrameType, names: set[str]) -> str:
    whole = _expression(frame, names)
    if whole is None:
        return 'Write the whole expression as a text in config_expr("..."), or read self.config in a step.'
    quoted = repr(whole) if '"' in whole else f'"{whole}"'
    return f"Write config_expr({quoted}), which is evaluated when the run starts."


def _expression(frame: FrameType, names: set[str]) -> str | None:
    """The smallest argument, item or assigned value at a frame's line that uses the names, and does more than that."""
    line, file = frame.f_lineno, frame.f_code.co_filename
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return None
    found = [
        node for node in _places_for_values(tree)
        if node.lineno <= line <= (node.end_lineno or node.lineno) and _uses(node, names)
    ]  # fmt: skip
    texts = [ast.unparse(node) for node in found]
    return min((text for text in texts if "config_expr" not in text), key=len, default=None)


def _places_for_values(tree: ast.AST) -> Iterator[ast.expr]:
    """The expressions in whose place ``config_expr`` can be written."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(args=args, keywords=keywords):
                yield from (*args, *(keyword.value for keyword in keywords))
            case ast.Dict(values=values):
                yield from values
            case ast.List(elts=values) | ast.Tuple(elts=values):
                yield from values
            case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value):
                yield value


def _uses(node: ast.expr, names: set[str]) -> bool:
    """Whether an expression does more with a config than to read a part of it."""
    inner: ast.expr = node
    while isinstance(inner, (ast.Attribute, ast.Subscript)):
        inner = inner.value
    is_bare = isinstance(inner, ast.Name)
    declares = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id[:1].isupper()
    return not is_bare and not declares and any(isinstance(n, ast.Name) and n.id in names for n in ast.walk(node))
