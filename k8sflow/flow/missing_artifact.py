"""Explains why a step doesn't find an artifact: which steps set it, and where."""

from __future__ import annotations

import ast
import os
from collections import defaultdict
from dataclasses import dataclass, field

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.checks.locate import Source, own_name
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.graph import Graph
from k8sflow.flow.problems import Location, did_you_mean
from k8sflow.flow.spec import FlowSpec


@dataclass
class _Method:
    """A method of the flow: the lines that set attributes of ``self``, and the methods that it calls."""

    sets: dict[str, Location] = field(default_factory=dict)
    calls: set[str] = field(default_factory=set)


def origins(definition: FlowDefinition, source: Source) -> dict[str, dict[str, Location]]:
    """For each artifact that the source sets, the steps that do so, with the line; also by a method that they call."""
    own = (vars(base) for base in source.flow.__mro__ if base not in {object, FlowSpec})
    methods = {name: _read(source, name) for members in own for name in members if not name.startswith("__")}
    found: dict[str, dict[str, Location]] = defaultdict(dict)
    for step in definition.steps:
        seen, waiting = {step}, [step]
        while waiting:
            method = methods[waiting.pop()]
            for name, location in method.sets.items():
                found[name].setdefault(step, location)
            called = (method.calls & methods.keys()) - seen - definition.steps.keys()
            seen |= called
            waiting += called
    return found


def explain(definition: FlowDefinition, step: str, name: str) -> str:
    """Why a step does not find an artifact, and what to do: one or two sentences."""
    graph, source = definition.graph, Source(definition.flow)
    known = origins(definition, source)
    found = {setter: location for setter, location in known.get(name, {}).items() if setter in graph.nodes}
    if not found and (location := _read(source, "__init__").sets.get(name)):
        return (
            f"__init__ sets it ({_short(location)}), but steps have only what __init__ sets before it calls "
            f"super().__init__(), which runs the command line. Set it above that call."
        )
    if not found:
        return (
            f"No step sets it. {did_you_mean(name, [*known, *definition.parameters, *definition.constants])}".rstrip()
        )
    before = _before(graph, step)
    earlier = {setter: location for setter, location in found.items() if setter in before and setter != step}
    if not earlier:
        return _elsewhere(found, step)
    setter, location = list(earlier.items())[-1]
    joins = [n.name for n in graph.nodes.values() if n.joins and n.name in before and setter in _before(graph, n.name)]
    if graph[step].joins:
        return (
            f"{_set_in(earlier)}, but a join takes over nothing by itself. Read inputs[i].{name}, "
            f"or call self.merge_artifacts(inputs) first."
        )
    lossy = [join for join in joins if join not in earlier]
    if lossy:
        return (
            f"{_set_in({setter: location})}, but the join {lossy[0]} comes between, and a join takes over nothing by "
            f"itself. In {lossy[0]}, write self.{name} = inputs[0].{name}, or call self.merge_artifacts(inputs)."
        )
    return f"{_set_in(earlier)}, but did not do so on the way that this run took."


def _elsewhere(found: dict[str, Location], step: str) -> str:
    if step in found:
        return f"The step sets it itself in line {found[step].line}, but has not done so when it is read."
    return f"{_set_in(found)}, which comes later or runs in another branch."


def _set_in(found: dict[str, Location]) -> str:
    return f"It is set in step {' and in step '.join(f'{step} ({_short(at)})' for step, at in found.items())}"


def _short(location: Location) -> str:
    return f"{os.path.basename(location.file)}:{location.line}"  # noqa: PTH119  user's text


def _before(graph: Graph, step: str) -> set[str]:
    """The steps from which a run can come to a step."""
    parents: dict[str, set[str]] = defaultdict(set)
    for node in graph.nodes.values():
        for target in node.next:
            parents[target].add(node.name)
    found: set[str] = set()
    waiting = [step]
    while waiting:
        new = parents[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def _read(source: Source, name: str) -> _Method:
    method = _Method()
    try:
        definition, file = source.definition_of(getattr(source.flow, name))
    except (FlowDefinitionError, AttributeError):
        return method  # not written in Python, or not to be found: then nothing is known of it
    own = own_name(definition)
    for node in ast.walk(definition):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == own:
            if isinstance(node.ctx, ast.Store):
                method.sets.setdefault(node.attr, Location(file, node.lineno))
            else:
                method.calls.add(node.attr)
    return method
