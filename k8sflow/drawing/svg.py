"""A graph as an SVG picture."""

from __future__ import annotations

from html import escape

from k8sflow.drawing.arrows import arrows, joined, loop
from k8sflow.drawing.cells import cell_len
from k8sflow.drawing.layout import Extent, Layout, Segment, lay_out
from k8sflow.flow.graph import Graph, Node

# Lengths in pixels. Monospaced fonts have the same width in every viewer.
_LETTER, _LABEL_LETTER = 8.43, 6.63
_STEP_HEIGHT, _ROW_HEIGHT, _LABELLED_ROW_HEIGHT = 34.0, 78.0, 104.0
_PADDING, _GAP, _MARGIN = 17.0, 26.0, 24.0
_CARD, _LABEL_HEIGHT, _HEAD = 4.0, 22.0, 9.0
_STYLE = """
  text { font: 14px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #1f2933; }
  text.label { font-size: 11px; fill: #52606d; paint-order: stroke; stroke: #fff; stroke-width: 4px; }
  rect.step { fill: #eef4fb; stroke: #3b6ea5; stroke-width: 1.3; }
  rect.end { fill: #e6f4ea; stroke: #2f855a; }
  rect.switch { fill: #fff7e0; stroke: #b7791f; }
  rect.current { stroke: #c2410c; stroke-width: 3; }
  path { fill: none; stroke: #7b8794; stroke-width: 1.4; }
  path.head { fill: #7b8794; stroke: none; }
"""


def draw(graph: Graph, *, current: str = "", is_inline: bool = False) -> str:
    """The drawing as the text of an SVG file; steps inside a foreach are stacks of cards.

    Args:
        graph: The graph.
        current: A step that is marked; empty for none.
        is_inline: True for a part of a page, which has the styles, and may find each step by its ``data-step``.
    """
    found = arrows(graph)
    layout = lay_out(graph, found, lambda step: _extent(graph, graph[step]), _label_width, _GAP, whole=False)
    tops = _tops(layout)
    right = max(layout.x[step] + _extent(graph, graph[step]).right for step in graph.nodes)
    right = max([right, *(layout.x[s.labelled] + _label_width(s.label) for s in layout.segments)])
    size = (right + 2 * _MARGIN, max(tops) + _STEP_HEIGHT + 2 * _MARGIN)
    row = {step: index for index, names in enumerate(layout.rows) for step in names}
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]:.0f}" height="{size[1]:.0f}" '
            f'viewBox="0 0 {size[0]:.0f} {size[1]:.0f}" role="img">'
        ),
        f"<title>{escape(graph.flow)}</title>",
        "" if is_inline else f"<style>{_STYLE}</style>",
        (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto">'
            '<path class="head" d="M0 0.5 L8 4 L0 7.5 z"/></marker></defs>'
        ),
        "" if is_inline else '<rect width="100%" height="100%" rx="8" fill="#fff"/>',
        f'<g transform="translate({_MARGIN} {_MARGIN})">',
        *(_segment(graph, segment, layout, tops) for segment in layout.segments),
        *(
            _step(graph, node, layout.x[node.name], tops[row[node.name]], is_current=node.name == current)
            for node in graph.nodes.values()
        ),
        *(_label(segment, layout, tops) for segment in layout.segments if segment.label),
        "</g>",
        "</svg>",
    ]
    return "\n".join(filter(None, parts)) + "\n"


def _tops(layout: Layout) -> list[float]:
    """The y positions of the rows; labelled arrows move the row below them further down."""
    tops = [0.0]
    for index in range(1, len(layout.rows)):
        labelled = any(s.row == index - 1 and s.label for s in layout.segments)
        tops.append(tops[-1] + (_LABELLED_ROW_HEIGHT if labelled else _ROW_HEIGHT))
    return tops


def _half(node: Node) -> float:
    return max(len(node.name) * _LETTER / 2 + _PADDING, 38.0)


def _note(graph: Graph, node: Node) -> str:
    return " · ".join(filter(None, [joined(graph, node), loop(node)]))


def _extent(graph: Graph, node: Node) -> Extent:
    half = _half(node)
    note = _note(graph, node)
    more = (28.0 if node.is_loop else 8.0) + cell_len(note) * _LABEL_LETTER if note else 0.0
    return Extent(half, half + more + 2 * _CARD)


def _label_width(label: str) -> float:
    return 8 + cell_len(label) * _LABEL_LETTER


def _segment(graph: Graph, segment: Segment, layout: Layout, tops: list[float]) -> str:
    """A curve that is vertical beside its label, and ends above the topmost card."""
    x, y = layout.x[segment.upper], tops[segment.row] + (_STEP_HEIGHT if segment.is_first else _STEP_HEIGHT / 2)
    to_x, to_y = layout.x[segment.lower], tops[segment.row + 1] + _STEP_HEIGHT / 2
    if segment.is_last:
        to_y = tops[segment.row + 1] - (2 * _CARD if graph.depth(segment.lower) else 0)
    from_y = y + (_LABEL_HEIGHT if segment.label and segment.is_gathered else 0)
    # A head has the direction of the path's last piece, which therefore has a length.
    until_y = to_y - (_LABEL_HEIGHT if segment.label and not segment.is_gathered else _HEAD if segment.is_last else 0)
    middle = (from_y + until_y) / 2
    curve = f"M{x:.1f} {y:.1f} V{from_y:.1f} C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {until_y:.1f}"
    head = ' marker-end="url(#head)"' if segment.is_last else ""
    return f'<path d="{curve} V{to_y:.1f}"{head}/>'


def _label(segment: Segment, layout: Layout, tops: list[float]) -> str:
    y = tops[segment.row] + _STEP_HEIGHT + 16 if segment.is_gathered else tops[segment.row + 1] - 16
    return f'<text class="label" x="{layout.x[segment.labelled] + 8:.1f}" y="{y:.1f}">{escape(segment.label)}</text>'


def _step(graph: Graph, node: Node, x: float, top: float, *, is_current: bool) -> str:
    half = _half(node)
    kind = "end" if node.is_start or node.is_end else "switch" if node.condition is not None else ""
    kind += " current" * is_current
    radius = _STEP_HEIGHT / 2 if node.is_start or node.is_end else 7
    cards = [2, 1, 0] if graph.depth(node.name) else [0]
    parts = [
        f'<rect class="step {kind}" x="{x - half + card * _CARD:.1f}" y="{top - card * _CARD:.1f}" '
        f'width="{2 * half:.1f}" height="{_STEP_HEIGHT}" rx="{radius}"/>'
        for card in cards
    ]
    if node.is_loop:
        right, upper, lower = x + half, top + 8, top + _STEP_HEIGHT - 8
        curve = f"M{right:.1f} {lower:.1f} c24 10 24 -28 2 {upper - lower:.1f}"
        parts.append(f'<path d="{curve}" marker-end="url(#head)"/>')
    if note := _note(graph, node):
        right, middle = x + half + (24 if node.is_loop else 6) + cards[0] * _CARD, top + _STEP_HEIGHT / 2 + 4
        parts.append(f'<text class="label" x="{right:.1f}" y="{middle:.1f}">{escape(note)}</text>')
    parts.append(
        f'<text x="{x:.1f}" y="{top + _STEP_HEIGHT / 2 + 5:.1f}" text-anchor="middle">{escape(node.name)}</text>'
    )
    title = f"<title>{escape(node.doc)}</title>" if node.doc else ""
    return f'<g data-step="{escape(node.name)}">{title}{"".join(parts)}</g>'
