"""Finds a foreach or a switch that reads an attribute which nothing sets.

Only what is certain is a problem: where something may set attributes that the source doesn't name, nothing is said.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.checks.locate import Source, own_name
from k8sflow.flow.config_expressions import Late
from k8sflow.flow.decorators import registry
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.delayed import opened
from k8sflow.flow.graph import Node
from k8sflow.flow.parameters import Parameter
from k8sflow.flow.problems import Problem, did_you_mean
from k8sflow.flow.spec import FlowSpec

# With these a method may set an attribute that the source doesn't name.
_WAYS_AROUND = {"exec", "eval", "globals", "locals"}
_OWN_WAYS_AROUND = {"__dict__", "__setattr__"}
# A class that defines one of these decides by itself what an attribute is.
_HOOKS = {"__getattr__", "__getattribute__", "__setattr__"}


class _UnknownError(Exception):
    """Something may set any attribute."""


def check(definition: FlowDefinition, source: Source) -> list[Problem]:
    """The steps whose transition depends on an attribute that is never set."""
    nodes = definition.graph.nodes.values()
    wanted = [(node, name) for node in nodes if (name := node.foreach or node.condition) is not None]
    is_set = [*definition.parameters, *definition.set_by_init]
    missing = [(node, name) for node, name in wanted if name not in is_set and not _has(definition, node, name)]
    if not missing:
        return []
    try:
        known = set(_set_by_methods(source)) | set(_set_by_decorators(definition))
    except _UnknownError:
        return []
    names = [*known, *definition.parameters, *definition.constants]
    return [
        node.next_at.problem(
            f"{'foreach' if node.foreach else 'condition'}={name!r} in step {node.name}: nothing sets self.{name}.",
            did_you_mean(name, names) or f"Set it in {node.name} or in a step before it: self.{name} = ...",
        )
        for node, name in missing
        if name not in known
    ]


def _has(definition: FlowDefinition, node: Node, name: str) -> bool:
    """True if the class has the attribute; a foreach needs one that isn't the text or method of every flow."""
    found = inspect.getattr_static(definition.flow, name, None)
    if node.foreach and name != "input" and found is inspect.getattr_static(FlowSpec, name, None):
        return False
    return found is not None or hasattr(definition.flow, name)


def _set_by_methods(source: Source) -> Iterator[str]:
    """The attributes that the methods of the class and of all its bases set on their first argument."""
    for base in source.flow.__mro__:
        if base in {object, FlowSpec}:
            continue
        if _HOOKS & vars(base).keys():
            raise _UnknownError
        for name, member in vars(base).items():
            if not name.startswith("__") or name == "__init__":
                yield from (set_ for function in _functions(member) for set_ in _set_by(source, function))


def _functions(member: Any) -> Iterable[Callable[..., Any]]:
    """The functions that run when a member of a class is used."""
    if isinstance(member, property):
        return [function for function in (member.fget, member.fset, member.fdel) if function is not None]
    if isinstance(member, staticmethod):
        return []  # it has no self
    if isinstance(member, classmethod):
        return [member.__func__]
    if hasattr(member, "__code__"):
        return [member]
    if isinstance(member, (type, Parameter, Late)):
        return []
    if callable(member) or hasattr(type(member), "__get__"):
        raise _UnknownError
    return []


def _set_by(source: Source, function: Callable[..., Any]) -> set[str]:
    if source.is_wrapped(function):
        raise _UnknownError  # the wrapper has self too
    try:
        definition, _ = source.definition_of(function)
    except FlowDefinitionError:
        raise _UnknownError from None
    name = own_name(definition)
    if name is None:
        raise _UnknownError
    nodes = list(ast.walk(definition))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute) and _is_name(node.value, name)]
    own = {id(attribute.value) for attribute in attributes}
    if any(
        isinstance(node, ast.Name) and (node.id in _WAYS_AROUND or (node.id == name and id(node) not in own))
        for node in nodes
    ) or any(attribute.attr in _OWN_WAYS_AROUND for attribute in attributes):
        raise _UnknownError
    return {attribute.attr for attribute in attributes if isinstance(attribute.ctx, ast.Store)}


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _set_by_decorators(definition: FlowDefinition) -> Iterator[str]:
    """The attributes that the steps' decorators set; what a user's own decorator sets is unknown."""
    for step in definition.steps.values():
        for decoration in step.decorations:
            if decoration.name == "catch":
                yield str(opened(decoration.options, definition.configs).get("var"))
            elif not registry.is_built_in(decoration.name) and decoration.name != "step":
                raise _UnknownError
