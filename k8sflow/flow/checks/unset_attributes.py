"""Whether anything sets the attribute that a foreach goes over, or that a switch goes by.

Only what is certain is a mistake: where something may set attributes that the source doesn't name, nothing is said.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow import spec
from k8sflow.flow.checks.locate import definition_of, is_wrapped
from k8sflow.flow.config_expressions import Late
from k8sflow.flow.decorators import registry
from k8sflow.flow.decorators import step as decorators
from k8sflow.flow.decorators.kind import opened, settled
from k8sflow.flow.graph import Graph, Mistake, closest
from k8sflow.flow.parameters import Parameter

# By these a method may set an attribute without its name standing in the source.
_WAYS_AROUND = {"exec", "eval", "globals", "locals"}
_OWN_WAYS_AROUND = {"__dict__", "__setattr__"}
# Whoever defines one of these decides by itself what an attribute is.
_HOOKS = {"__getattr__", "__getattribute__", "__setattr__"}


class _UnknownError(Exception):
    """Something may set any attribute."""


def check(flow: type[spec.FlowSpec], graph: Graph) -> list[Mistake]:
    """The steps that go on by an attribute which is never there.

    Args:
        flow: The flow's class, after its mutators.
        graph: Its steps.
    """
    wanted = [(node, name) for node in graph.nodes.values() if (name := node.foreach or node.condition) is not None]
    missing = [(node, name) for node, name in wanted if not hasattr(flow, name)]
    if not missing:
        return []
    try:
        known = set(_set_by_methods(flow)) | set(_set_by_decorators(flow))
    except _UnknownError:
        return []
    names = [*known, *spec.parameters(flow), *spec.constants(flow)]
    return [
        Mistake(
            node.next_place,
            f"{'foreach' if node.foreach else 'condition'}={name!r} in step {node.name}: nothing sets self.{name}.",
            closest(name, names) or f"Set it in {node.name} or in a step before it: self.{name} = ...",
        )
        for node, name in missing if name not in known
    ]  # fmt: skip


def _set_by_methods(flow: type[spec.FlowSpec]) -> Iterator[str]:
    """The attributes that the methods of the class and of all its bases set on their first argument."""
    for base in flow.__mro__:
        if base in {object, spec.FlowSpec}:
            continue
        if _HOOKS & vars(base).keys():
            raise _UnknownError
        for name, member in vars(base).items():
            if not name.startswith("__") or name == "__init__":
                yield from (set_ for function in _functions(member) for set_ in _set_by(function))


def _functions(member: Any) -> Iterable[Callable[..., Any]]:
    """The functions that run when a member of a class is used."""
    if isinstance(member, property):
        return [function for function in (member.fget, member.fset, member.fdel) if function is not None]
    if isinstance(member, staticmethod):
        return []  # it has self only from who calls it
    if isinstance(member, classmethod):
        return [member.__func__]
    if hasattr(member, "__code__"):
        return [member]
    if isinstance(member, (type, Parameter, Late)):
        return []
    if callable(member) or hasattr(type(member), "__get__"):
        raise _UnknownError
    return []


def _set_by(function: Callable[..., Any]) -> set[str]:
    if is_wrapped(function):
        raise _UnknownError  # what is around it has self too
    try:
        definition, _ = definition_of(function)
    except FlowDefinitionError:
        raise _UnknownError from None
    arguments = [*definition.args.posonlyargs, *definition.args.args]
    if not arguments:
        raise _UnknownError
    name = arguments[0].arg
    nodes = list(ast.walk(definition))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute) and _is_name(node.value, name)]
    own = {id(attribute.value) for attribute in attributes}
    if any(isinstance(node, ast.Name) and (node.id in _WAYS_AROUND or (node.id == name and id(node) not in own))
           for node in nodes) or any(attribute.attr in _OWN_WAYS_AROUND for attribute in attributes):  # fmt: skip
        raise _UnknownError
    return {attribute.attr for attribute in attributes if isinstance(attribute.ctx, ast.Store)}


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _set_by_decorators(flow: type[spec.FlowSpec]) -> Iterator[str]:
    """The attributes that the steps' decorators set; what somebody else's sets can't be known."""
    for step in spec.steps(flow):
        for decoration in decorators.of_step(flow, step):
            if decoration.name == "catch":
                yield str(settled(opened(decoration.options).get("var")))
            elif not registry.is_ours(decoration.name) and decoration.name != "step":
                raise _UnknownError
