"""A graph in the languages of other drawing programs: Mermaid (https://mermaid.js.org) and DOT
(https://graphviz.org/doc/info/lang.html).
"""  # noqa: D205

from __future__ import annotations

from k8sflow.drawing.arrows import arrows, loop
from k8sflow.flow.graph import Graph, Node


def mermaid(graph: Graph) -> str:
    """The graph as a Mermaid flowchart, which many Markdown viewers render."""
    # Generated names, since `end` is a keyword of the language.
    names = {step: f"s{index}" for index, step in enumerate(graph.nodes)}
    lines = ["flowchart TD"]
    for node in graph.nodes.values():
        before, after = _mermaid_shape(graph, node)
        lines.append(f'    {names[node.name]}{before}"{_mermaid_text(node.name)}"{after}')
    for source, target, label in _edges(graph):
        text = f'|"{_mermaid_text(label)}"|' if label else ""
        lines.append(f"    {names[source]} -->{text} {names[target]}")
    return "\n".join(lines) + "\n"


def dot(graph: Graph) -> str:
    """The graph in the language of Graphviz."""
    lines = [
        f"digraph {_dot_text(graph.flow)} {{",
        '    node [shape=box, style="rounded,filled", fillcolor="#eef4fb", color="#3b6ea5", fontname="monospace"];',
        '    edge [color="#7b8794", fontname="monospace", fontsize=10];',
    ]
    for node in graph.nodes.values():
        attributes = "".join(f", {text}" for text in _dot_attributes(graph, node))
        lines.append(f"    {_dot_text(node.name)} [label={_dot_text(node.name)}{attributes}];")
    for source, target, label in _edges(graph):
        attributes = f" [label={_dot_text(label)}]" if label else ""
        lines.append(f"    {_dot_text(source)} -> {_dot_text(target)}{attributes};")
    return "\n".join([*lines, "}"]) + "\n"


def _edges(graph: Graph) -> list[tuple[str, str, str]]:
    """The arrows between steps, then those from a step to itself: source, target and label."""
    found = [(arrow.source, arrow.target, arrow.label) for arrow in arrows(graph)]
    return found + [(node.name, node.name, loop(node)) for node in graph.nodes.values() if node.is_loop]


def _mermaid_shape(graph: Graph, node: Node) -> tuple[str, str]:
    if node.is_start or node.is_end:
        return "([", "])"
    if node.condition is not None:
        return "{{", "}}"
    return ("[[", "]]") if graph.depth(node.name) else ("[", "]")


def _mermaid_text(text: str) -> str:
    for character, name in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;")):
        text = text.replace(character, name)
    return text


def _dot_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _dot_attributes(graph: Graph, node: Node) -> list[str]:
    found = []
    if node.is_start or node.is_end:
        found.append('fillcolor="#e6f4ea", color="#2f855a"')
    elif node.condition is not None:
        found.append('fillcolor="#fff7e0", color="#b7791f"')
    if graph.depth(node.name):
        found.append("peripheries=2")
    return found
