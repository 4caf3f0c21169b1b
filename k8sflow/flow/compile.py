"""Compiles a flow's class into a ``FlowDefinition``, or into all the problems that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from k8sflow.flow import spec
from k8sflow.flow.checks import assignments, class_body, late_values, missing_step, reader, switches, unset_attributes
from k8sflow.flow.checks import decorators as decorator_checks
from k8sflow.flow.checks import graph as graph_checks
from k8sflow.flow.checks.locate import Source
from k8sflow.flow.config_set import ConfigSet
from k8sflow.flow.decorators import base
from k8sflow.flow.decorators.mutators import mutated
from k8sflow.flow.definition import FlowDefinition, StepDefinition
from k8sflow.flow.graph import Graph, Node
from k8sflow.flow.parameters import Parameter
from k8sflow.flow.problems import all_problems
from k8sflow.flow.spec import FlowSpec


def compile_flow(
    flow: type[FlowSpec], configs: ConfigSet | None = None, attributes: Mapping[str, Any] | None = None
) -> FlowDefinition:
    """The definition of a flow.

    Args:
        flow: The flow's class.
        configs: The values of its configs; by default those of their defaults.
        attributes: What ``__init__`` of the flow's instance has set, where there is one.

    Raises:
        FlowDefinitionError: The flow has problems; all of them are reported.
    """
    return checked(mutated(declared(flow, configs, attributes)))


def compile_checked(
    flow: type[FlowSpec], configs: ConfigSet, attributes: Mapping[str, Any] | None, graph: Graph
) -> FlowDefinition:
    """The definition of a flow whose run has been started: it was checked then, and its source is not read again.

    Args:
        flow: The flow's class.
        configs: The values of its configs.
        attributes: As in ``compile_flow``.
        graph: The flow's graph, as the run's record has it.

    Raises:
        ParameterError: A config that a decorator needs has no value.
    """
    return _settled(replace(mutated(declared(flow, configs, attributes)), graph=graph))


def declared(
    flow: type[FlowSpec], configs: ConfigSet | None = None, attributes: Mapping[str, Any] | None = None
) -> FlowDefinition:
    """The declarations of a flow's class: the first stage of ``compile_flow``, with the same arguments."""
    values = ConfigSet(flow) if configs is None else configs
    members = dict(spec.members(flow))
    return FlowDefinition(
        flow=flow,
        configs=values,
        steps={name: StepDefinition(name, step, base.of(step)) for name, step in spec.steps(flow).items()},
        parameters={
            name: member.with_configs(values)
            for name, member in members.items()
            if isinstance(member, Parameter) and member.k8sflow_problem is None
        },
        constants={name: member for name, member in members.items() if spec.is_constant(name, member)},
        decorations=base.of(flow),
        graph=Graph(flow.__name__),
        attributes=attributes,
    )


def checked(definition: FlowDefinition) -> FlowDefinition:
    """The definition with its graph and the values of its configs: the last stage of ``compile_flow``.

    Args:
        definition: What the flow declares, after its mutators.

    Raises:
        FlowDefinitionError: The flow has problems; all of them are reported.
    """
    source = Source(definition.flow)
    definition = _with_graph(definition, source)
    problems = [*definition.problems, *decorator_checks.problems(definition, source)]
    if problems:
        raise all_problems(definition.name, problems)
    return _settled(definition)


def refuse_unusable(definition: FlowDefinition) -> None:
    """Returns if a command line can be made from what a flow declares.

    Raises:
        FlowDefinitionError: A parameter or config is so wrong that it can't; all problems of the flow are reported.
    """
    if decorator_checks.prevents_commands(definition):
        checked(definition)


def _with_graph(definition: FlowDefinition, source: Source) -> FlowDefinition:
    """The definition with its graph, and with the problems in the source of the class and its steps."""
    problems = [*class_body.problems(source), *late_values.problems(source)]
    intended = missing_step.find(source)
    problems += [each.problem for each in intended if each.problem is not None]
    functions: dict[str, Callable[..., Any] | None] = {n: step.function for n, step in definition.steps.items()}
    functions |= {each.name: each.function for each in intended}
    nodes: dict[str, Node] = {}
    unread = set()
    for name, function in functions.items():
        if function is None:
            unread.add(name)
            continue
        step = definition.steps.get(name, StepDefinition(name, function, base.of(function)))
        node, found = reader.read_step(source, step)
        nodes[name] = node
        problems += [*found, *assignments.check(definition, source, step)]
        if found:
            unread.add(name)
        else:
            problems += switches.check(definition, source, node, step)
    for name in _unused_aliases(functions, nodes):
        del nodes[name]
    nodes |= {each.name: Node(each.name, each.location, each.location) for each in intended if each.function is None}
    graph, found = graph_checks.check(Graph(definition.name, nodes), source.location_of(definition.flow), unread)
    definition = replace(definition, graph=graph)
    problems += [*found, *unset_attributes.check(definition, source)]
    return replace(definition, problems=(*definition.problems, *problems))


def _unused_aliases(functions: Mapping[str, Callable[..., Any] | None], nodes: Mapping[str, Node]) -> set[str]:
    """Names of steps that are further names of a function and that no transition uses: ``fit = train``."""
    named = {target for node in nodes.values() for target in node.next}
    names: dict[int, list[str]] = {}
    for name, function in functions.items():
        if function is not None:
            names.setdefault(id(function), []).append(name)
    kept = {name for same in names.values() for name in ([n for n in same if n in named] or same[:1])}
    return nodes.keys() - kept


def _settled(definition: FlowDefinition) -> FlowDefinition:
    """The definition with the values of the configs in the options of its decorators."""
    configs = definition.configs
    steps = {
        name: replace(step, decorations=base.with_configs(step.decorations, configs))
        for name, step in definition.steps.items()
    }
    decorations = base.with_configs(definition.decorations, configs)
    return replace(definition, steps=steps, decorations=decorations, is_compiled=True)
