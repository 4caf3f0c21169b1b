"""Finds switches without a case for a value that their condition can be seen to have.

Only what is certain is a problem: a value that comes from a call, a loop or a method that may set it is not judged.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from k8sflow.flow.checks.locate import Source
from k8sflow.flow.checks.reader import literal
from k8sflow.flow.definition import FlowDefinition, StepDefinition
from k8sflow.flow.graph import Node
from k8sflow.flow.problems import Location, Problem

# The values that an attribute may have, each with the line that sets it; None where they are not known.
_Values = Mapping[Any, int] | None
_UNREACHABLE: _Values = {}
_TRUTH_VALUES = (False, True)
_PREDICATES = {"all", "any", "bool", "callable", "hasattr", "isinstance", "issubclass"}


def check(definition: FlowDefinition, source: Source, node: Node, step: StepDefinition) -> list[Problem]:
    """The values of a step's condition that have no case.

    Args:
        definition: The flow, after its mutators.
        source: Its source.
        node: The step's node, with its transition.
        step: The step.
    """
    if node.condition is None:
        return []
    keys = set()
    for text, _ in node.cases:
        key, is_known = literal(ast.parse(text, mode="eval").body)
        if not is_known:
            return []
        keys.add(key)
    function, file = source.definition_of(step.function)
    values = _fixed(definition, node) or _after(function.body[:-1], None, node.condition) or {}
    return [
        Location(file, line).problem(
            f"self.{node.condition} can be {value!r}, for which the switch of step {node.name} "
            f"(line {node.next_at.line}) has no case.",
            f"Add a case: {value!r}: self.step_name.",
        )
        for value, line in values.items()
        if value not in keys
    ]


def _fixed(definition: FlowDefinition, node: Node) -> _Values:
    """The values of a condition that is a parameter or a constant."""
    line = node.next_at.line
    parameter = definition.parameters.get(str(node.condition))
    if parameter is not None and isinstance(parameter.default, bool):
        return dict.fromkeys(_TRUTH_VALUES, line)
    constant = definition.constants.get(str(node.condition))
    return {constant: line} if isinstance(constant, (str, int)) else None


def _after(statements: Iterable[ast.stmt], values: _Values, name: str) -> _Values:
    """The values that the attribute may have after some statements."""
    for statement in statements:
        match statement:
            case ast.Return() | ast.Raise() | ast.Break() | ast.Continue():
                return _UNREACHABLE
            case ast.Assign(targets=targets, value=value) if any(_is_attribute(target, name) for target in targets):
                values = _possible(value, statement.lineno)
            case ast.AnnAssign(target=target, value=ast.expr() as value) if _is_attribute(target, name):
                values = _possible(value, statement.lineno)
            case ast.If(test=test, body=body, orelse=orelse):
                before = None if _may_set(test, name) else values
                values = _either(_after(body, before, name), _after(orelse, before, name))
                if values == _UNREACHABLE:
                    return _UNREACHABLE
            case _ if _may_set(statement, name):
                values = None
    return values


def _either(left: _Values, right: _Values) -> _Values:
    return None if left is None or right is None else {**left, **right}


def _possible(expression: ast.expr, line: int) -> _Values:
    """The values that an expression may have."""
    value, is_known = literal(expression)
    if is_known:
        return {value: line}
    match expression:
        case ast.Compare() | ast.UnaryOp(op=ast.Not()):
            return dict.fromkeys(_TRUTH_VALUES, line)
        case ast.Call(func=ast.Name(id=name)) if name in _PREDICATES:
            return dict.fromkeys(_TRUTH_VALUES, line)
        case ast.IfExp(body=body, orelse=orelse):
            return _either(_possible(body, line), _possible(orelse, line))
    return None


def _may_set(node: ast.AST, name: str) -> bool:
    """True if something may change the attribute: by name, by a method of self, or by a call that takes self."""
    parents = {child: parent for parent in ast.walk(node) for child in ast.iter_child_nodes(parent)}
    for found in ast.walk(node):
        if isinstance(found, ast.Attribute) and _is_attribute(found, name) and not isinstance(found.ctx, ast.Load):
            return True
        if isinstance(found, ast.Name) and found.id == "self":
            attribute = parents.get(found)
            if not isinstance(attribute, ast.Attribute):
                return True
            call = parents.get(attribute)
            if isinstance(call, ast.Call) and call.func is attribute:
                return True
    return False


def _is_attribute(node: ast.AST, name: str) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr == name
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    )
