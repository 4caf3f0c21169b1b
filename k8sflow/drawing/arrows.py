"""Arrows and notes in a drawing of a graph: which step leads to which, and when."""

from __future__ import annotations

from dataclasses import dataclass

from k8sflow.flow.graph import Graph, Node


@dataclass(frozen=True)
class Arrow:
    """An arrow from one step to another; the label says when, or how often, it is taken."""

    source: str
    target: str
    label: str = ""


def arrows(graph: Graph) -> list[Arrow]:
    """The arrows between different steps, ordered by source."""
    return [
        Arrow(node.name, target, _label(node, target))
        for node in graph.nodes.values()
        for target in node.next
        if target != node.name
    ]


def loop(node: Node) -> str:
    """The condition on which a step repeats, or "" if it never does."""
    return _case(node, node.name) if node.is_loop else ""


def joined(graph: Graph, node: Node) -> str:
    """A note about the foreach that a join closes, or "" for any other step."""
    if node.joins is None or not graph[node.joins].is_wide:
        return ""
    return f"joins {graph[node.joins].foreach or 'the processes'}"


def _label(node: Node, target: str) -> str:
    if node.foreach is not None:
        return f"for each of {node.foreach}"
    if node.num_parallel:
        return "num_parallel times"
    if node.condition is not None:
        return _case(node, target)
    return ""


def _case(node: Node, target: str) -> str:
    keys = " or ".join(key for key, step in node.cases if step == target)
    return f"{node.condition} is {keys}"
