"""Finds steps that set what no step can set: a parameter, a config, a constant of the class, another step.

Only what is certain is a problem: an assignment whose error might be handled is not reported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from k8sflow.flow.checks.locate import Source, own_name
from k8sflow.flow.definition import FlowDefinition, StepDefinition
from k8sflow.flow.problems import Location, Problem
from k8sflow.flow.spec import FlowSpec

# Their bodies run in another function, in which ``self`` may be something else, or at another time.
_ELSEWHERE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def check(definition: FlowDefinition, source: Source, step: StepDefinition) -> list[Problem]:
    """The lines of a step that set what can't be set."""
    if definition.flow.__setattr__ is not FlowSpec.__setattr__:
        return []  # the flow decides by itself what may be set
    function, file = source.definition_of(step.function)
    own = own_name(function) or ""
    found = [(target, _what(definition, target.attr)) for node in function.body for target in _set_in(node, own)]
    return [
        Location(file, target.lineno).problem(
            f"step {step.name} sets self.{target.attr}, which is {what}.", "Put the value under another name."
        )
        for target, what in found
        if what
    ]


def _what(definition: FlowDefinition, name: str) -> str:
    if (parameter := definition.parameters.get(name)) is not None:
        return f"the Parameter {parameter.name!r} and can't change during a run"
    if name in definition.configs:
        return "a Config and can't change during a run"
    return definition.fixed(name)


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
