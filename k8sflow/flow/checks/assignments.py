"""Whether a step sets what no step can set: a parameter, a config, a constant of the class, another step.

Only what is certain is a mistake: where something else may deal with the error, nothing is said.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any

from k8sflow.flow import spec
from k8sflow.flow.checks.locate import definition_of
from k8sflow.flow.configs import Config
from k8sflow.flow.graph import Mistake, Place
from k8sflow.flow.parameters import Parameter

# In these another function runs, in which the step's ``self`` may be something else, or at another time.
_ELSEWHERE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def check(flow: type[spec.FlowSpec], step: str, function: Callable[..., Any]) -> list[Mistake]:
    """The lines of a step that set what can't be set.

    Args:
        flow: The flow's class, after its mutators.
        step: The step's name.
        function: Its function.
    """
    if flow.__setattr__ is not spec.FlowSpec.__setattr__:
        return []  # the flow decides by itself what may be set
    definition, file = definition_of(function)
    arguments = [*definition.args.posonlyargs, *definition.args.args]
    own = arguments[0].arg if arguments else ""
    found = [(target, _what(flow, target.attr)) for node in definition.body for target in _set_in(node, own)]
    return [
        Mistake(Place(file, target.lineno), f"step {step} sets self.{target.attr}, which is {what}.",
                "Put the value under another name.")
        for target, what in found if what
    ]  # fmt: skip


def _what(flow: type[spec.FlowSpec], name: str) -> str:
    member = dict(spec.members(flow)).get(name)
    if isinstance(member, Parameter):
        return f"the Parameter {member.name!r} and can't change during a run"
    if isinstance(member, Config):
        return "a Config and can't change during a run"
    return spec.fixed(flow, name)


def _set_in(node: ast.AST, own: str) -> Iterator[ast.Attribute]:
    """The attributes of the step's first argument that a statement sets, if nothing around them may catch an error."""
    is_annotation = isinstance(node, ast.AnnAssign) and node.value is None  # self.n: int
    if is_annotation or isinstance(node, (*_ELSEWHERE, ast.With, ast.AsyncWith)):
        return
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        if isinstance(node.value, ast.Name) and node.value.id == own:
            yield node
        return
    caught = node.body if getattr(node, "handlers", None) else []  # type: ignore[attr-defined]  # any kind of try
    for child in ast.iter_child_nodes(node):
        if child not in caught:
            yield from _set_in(child, own)
