"""The static check of what stands above the steps."""

from __future__ import annotations

from collections.abc import Sequence

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow import registry
from k8sflow.flow.decorators import of_step
from k8sflow.flow.graph import Graph, Mistake, Node, Place
from k8sflow.flow.registry import Decoration
from k8sflow.flow.spec import FlowSpec


def mistakes(flow: type[FlowSpec], graph: Graph) -> list[Mistake]:
    """What is wrong with the decorators of a flow's steps."""
    found = []
    for node in graph.nodes.values():
        for decoration in of_step(flow, node.name):
            place = Place(*decoration.place) if decoration.place[1] else node.place
            if decoration.name == "catch" and not can_be_caught(node):
                found.append(
                    Mistake(place, f"@catch can't stand on step {node.name}, which {_opens(node)}: "
                            f"where the run goes on is known only when the step has not failed.",
                            "Let a step before it do what may fail, under @catch.")
                )  # fmt: skip
            try:
                registry.find(decoration.name).read(decoration)
            except FlowDefinitionError as error:
                summary = error.summary.removeprefix(registry.located(decoration.place))
                found.append(Mistake(place, summary, error.advice))
    return found


def can_be_caught(node: Node) -> bool:
    """Whether the run can go on after the step has failed: its transition says nothing that only the step knows."""
    return not node.is_wide and node.condition is None


def added_to(node: Node, added: Sequence[Decoration]) -> tuple[Decoration, ...]:
    """What of ``--with`` a step can have; ``--with catch`` passes over the steps that can't be caught."""
    return tuple(decoration for decoration in added if decoration.name != "catch" or can_be_caught(node))


def _opens(node: Node) -> str:
    return "is a switch" if node.condition is not None else "opens branches by its data"
