"""Checks what is declared in a flow's class: parameters, configs, and decorators above steps, the class and helpers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FunctionType

from k8sflow.flow import spec
from k8sflow.flow.checks.locate import Source
from k8sflow.flow.configs import Config
from k8sflow.flow.decorators import base, mutators
from k8sflow.flow.decorators.step import is_step
from k8sflow.flow.definition import FlowDefinition, can_be_caught
from k8sflow.flow.delayed import is_delayed
from k8sflow.flow.graph import Node
from k8sflow.flow.parameters import Parameter
from k8sflow.flow.problems import Location, Misplaced, Problem
from k8sflow.flow.spec import FlowSpec


def problems(definition: FlowDefinition, source: Source) -> list[Problem]:
    """The problems of a flow's parameters, configs and decorators."""
    declared = _declared(definition.flow)
    # Where a config is declared wrongly, what depends on it would be reported for a second time.
    configs = None if declared else definition.configs
    found = [*declared, *_beside_steps(definition), *_above_helpers(definition.flow)]
    for name, step in definition.steps.items():
        node = definition.graph.nodes.get(name)
        for decoration in step.decorations:
            at = decoration.location if decoration.location.line or node is None else node.location
            found += [problem.at(at) for problem in decoration.decorator.problems(decoration, configs)]
            if decoration.name == "catch" and node is not None and not can_be_caught(node):
                found.append(_cannot_be_caught(node).at(at))
            if decoration.name == "cache" and node is not None and node.is_parallel:
                found.append(_cannot_be_cached(node).at(at))
    for decoration in definition.decorations:
        at = decoration.location if decoration.location.line else source.location_of(definition.flow)
        found += [problem.at(at) for problem in decoration.decorator.problems(decoration, configs)]
    return [*found, *_delayed_constants(definition, source), *_same_names(definition)]


def prevents_commands(definition: FlowDefinition) -> bool:
    """True if a parameter or a config is so wrong that the command line can't be made."""
    return bool(_declared(definition.flow) or _same_names(definition))


def _declared(flow: type[FlowSpec]) -> list[Problem]:
    """The problems of calls in a class body: its parameters, its configs and their use, misplaced decorators."""
    members = [member for _, member in spec.members(flow) if isinstance(member, (Parameter, Config, Misplaced))]
    misuses = [misuse for member in members if isinstance(member, Config) for misuse in member.k8sflow_misuses]
    return [*(member.k8sflow_problem for member in members if member.k8sflow_problem is not None), *misuses]


def _beside_steps(definition: FlowDefinition) -> Iterator[Problem]:
    """Decorators and mutators on members of the class that neither are steps nor were intended as steps."""
    for name, member in spec.members(definition.flow):
        can_be_decorated = isinstance(member, (FunctionType, type, staticmethod, classmethod))
        if can_be_decorated and name not in definition.graph.nodes and not is_step(member):
            for location, decorator in [*_decorations(member), *mutators.written_on(member)]:
                yield location.problem(
                    f"@{decorator} is on {name}, which is not a step.", f"Is @step missing on {name}?"
                )


def _above_helpers(flow: type[FlowSpec]) -> Iterator[Problem]:
    """Decorators on functions and classes of the flow's module, where they would do nothing."""
    module = sys.modules.get(flow.__module__)
    for name, member in list(vars(module).items()) if module is not None else []:
        is_own = isinstance(member, (FunctionType, type)) and member.__module__ == flow.__module__
        if is_own and not is_step(member) and not (isinstance(member, type) and issubclass(member, FlowSpec)):
            for location, decorator in _decorations(member):
                yield location.problem(
                    f"@{decorator} is on {name}, which is not a step of a flow: it does nothing there.",
                    "Move it above the step that needs it.",
                )


def _delayed_constants(definition: FlowDefinition, source: Source) -> Iterator[Problem]:
    """Lists and tables of the class that hold configs' values, which steps would see before they are known."""
    for name, value in definition.constants.items():
        if is_delayed(value):
            yield source.assignment_of(name).problem(
                f"{name} holds values of configs, which are known only when a run starts.",
                f'Write the whole of it as an expression: {name} = config_expr("[config.a, config.b]").',
            )


def _decorations(member: object) -> list[tuple[Location, str]]:
    return [(decoration.location, decoration.name) for decoration in base.of(member)]


def _same_names(definition: FlowDefinition) -> list[Problem]:
    """Parameters that would be one option."""
    names: dict[str, str] = {}
    found = []
    for attribute, parameter in definition.parameters.items():
        if (other := names.setdefault(parameter.name, attribute)) != attribute:
            message = f"{definition.name} has two parameters with the name {parameter.name!r}: {other} and {attribute}."
            found.append(parameter.location.problem(message, "Give one of them another name."))
    return found


def _cannot_be_caught(node: Node) -> Problem:
    why = "is a switch" if node.condition is not None else "opens branches by its data"
    return Problem(
        f"@catch can't be on step {node.name}, which {why}: where the run continues is known only if the step has "
        f"not failed.",
        "Move what may fail to a step before it, under @catch.",
    )


def _cannot_be_cached(node: Node) -> Problem:
    return Problem(
        f"@cache can't be on step {node.name}, which is under @parallel: its processes have one result together.",
        "Put @cache on the step that joins them.",
    )
