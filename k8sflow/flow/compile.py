"""Compiles a flow's class: reads its source, applies its mutators, and checks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from k8sflow.flow import spec
from k8sflow.flow.checks import assignments, locate, missing_step, reader, switches, unset_attributes
from k8sflow.flow.checks import decorators as decorator_checks
from k8sflow.flow.checks import graph as graph_checks
from k8sflow.flow.decorators import mutators
from k8sflow.flow.graph import Graph, Node, class_place, refuse


def build(flow: type[spec.FlowSpec]) -> Graph:
    """The checked graph of a flow.

    Raises:
        FlowDefinitionError: The class body has mistakes; all of them are told.
    """
    mutators.prepare(flow)  # what it finds wrong is told with the decorators
    locate.look_behind_wrappers(flow)
    nodes: dict[str, Node] = {}
    mistakes = reader.class_bodies(flow)
    unread = set()
    meant = list(missing_step.find(flow))
    mistakes += [each.mistake for each in meant if each.mistake is not None]
    functions = {**spec.steps(flow), **{each.name: each.function for each in meant}}
    for name, function in functions.items():
        if function is None:
            unread.add(name)
            continue
        node, found = reader.read_step(name, function)
        nodes[name] = node
        mistakes += [*found, *assignments.check(flow, name, function)]
        if found:
            unread.add(name)
        else:
            mistakes += switches.check(flow, node, function)
    for name in _unused_aliases(functions, nodes):
        del nodes[name]
    nodes |= {each.name: Node(each.name, each.place, each.place) for each in meant if each.function is None}
    graph, found = graph_checks.check(Graph(flow.__name__, nodes), class_place(flow), unread)
    mistakes += [*found, *unset_attributes.check(flow, graph), *decorator_checks.mistakes(flow, graph)]
    if mistakes:
        raise refuse(flow.__name__, mistakes)
    return graph


def _unused_aliases(functions: Mapping[str, Callable[..., Any] | None], nodes: Mapping[str, Node]) -> set[str]:
    """The names of steps that are other names of the same function, by which no step goes on: ``fit = train``."""
    named = {target for node in nodes.values() for target in node.next}
    names: dict[int, list[str]] = {}
    for name, function in functions.items():
        if function is not None:
            names.setdefault(id(function), []).append(name)
    kept = {name for same in names.values() for name in ([n for n in same if n in named] or same[:1])}
    return nodes.keys() - kept
