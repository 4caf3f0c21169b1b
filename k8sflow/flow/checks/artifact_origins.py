"""Which steps set which artifacts, read from the source: for the message about one that is not there."""

from __future__ import annotations

import ast
import os
from collections import defaultdict
from dataclasses import dataclass, field

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow import spec
from k8sflow.flow.checks.locate import definition_of
from k8sflow.flow.graph import Graph, Place, closest


@dataclass
class _Method:
    """What a method of the flow does to ``self``: the lines that set its attributes, and the methods that it calls."""

    places: dict[str, Place] = field(default_factory=dict)
    calls: set[str] = field(default_factory=set)


_Setters = dict[str, dict[str, Place]]
_known: dict[type[spec.FlowSpec], _Setters] = {}


def setters(flow: type[spec.FlowSpec]) -> _Setters:
    """For each artifact that the source sets, the steps that do so, with the line; also by a method that they call."""
    if flow not in _known:
        _known[flow] = _read_setters(flow)
    return _known[flow]


def _read_setters(flow: type[spec.FlowSpec]) -> _Setters:
    steps = spec.steps(flow)
    own = (vars(base) for base in flow.__mro__ if base not in {object, spec.FlowSpec})
    methods = {name: _read(flow, name) for members in own for name in members if not name.startswith("__")}
    found: _Setters = defaultdict(dict)
    for step in steps:
        seen, waiting = {step}, [step]
        while waiting:
            method = methods[waiting.pop()]
            for name, place in method.places.items():
                found[name].setdefault(step, place)
            called = (method.calls & methods.keys()) - seen - steps.keys()
            seen |= called
            waiting += called
    return found


def explain(flow: type[spec.FlowSpec], graph: Graph, step: str, name: str) -> str:
    """Why a step does not find an artifact, and what to do: one or two sentences."""
    known = setters(flow)
    found = {setter: place for setter, place in known.get(name, {}).items() if setter in graph.nodes}
    if not found and (place := _read(flow, "__init__").places.get(name)):
        return (
            f"__init__ sets it ({os.path.basename(place.file)}:{place.line}), but steps have only what __init__ sets "  # noqa: PTH119  user's text
            f"before it calls super().__init__(), which runs the command line. Set it above that call."
        )
    if not found:
        names = [*known, *spec.parameters(flow), *spec.constants(flow)]
        return f"No step sets it. {closest(name, names)}".rstrip()
    before = _before(graph, step)
    earlier = {setter: place for setter, place in found.items() if setter in before and setter != step}
    if not earlier:
        return _elsewhere(found, step)
    setter, place = list(earlier.items())[-1]
    joins = [n.name for n in graph.nodes.values() if n.joins and n.name in before and setter in _before(graph, n.name)]
    if graph[step].joins:
        return (
            f"{_told(earlier)}, but a join takes over nothing by itself. Read inputs[i].{name}, "
            f"or call self.merge_artifacts(inputs) first."
        )
    lossy = [join for join in joins if join not in earlier]
    if lossy:
        return (
            f"{_told({setter: place})}, but the join {lossy[0]} comes between, and a join takes over nothing by "
            f"itself. In {lossy[0]}, write self.{name} = inputs[0].{name}, or call self.merge_artifacts(inputs)."
        )
    return f"{_told(earlier)}, but did not do so on the way that this run took."


def _elsewhere(found: dict[str, Place], step: str) -> str:
    if step in found:
        return f"The step sets it itself in line {found[step].line}, but has not done so when it is read."
    return f"{_told(found)}, which comes later or runs in another branch."


def _told(found: dict[str, Place]) -> str:
    places = [f"{step} ({os.path.basename(p.file)}:{p.line})" for step, p in found.items()]  # noqa: PTH119  user's text
    return f"It is set in step {' and in step '.join(places)}"


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


def _read(flow: type[spec.FlowSpec], name: str) -> _Method:
    method = _Method()
    try:
        definition, file = definition_of(getattr(flow, name))
    except (FlowDefinitionError, AttributeError):
        return method  # not written in Python, or not to be found: then nothing is known of it
    for node in ast.walk(definition):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            if isinstance(node.ctx, ast.Store):
                method.places.setdefault(node.attr, Place(file, node.lineno))
            else:
                method.calls.add(node.attr)
    return method
