"""A graph as lines of text, with box-drawing characters or in ASCII."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from k8sflow.drawing.arrows import arrows, joined, loop
from k8sflow.drawing.cells import cell_len
from k8sflow.drawing.layout import Extent, Segment, lay_out
from k8sflow.flow.graph import Graph, Node

_GAP = 3
_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_VERTICAL, _HORIZONTAL = _UP | _DOWN, _LEFT | _RIGHT
_CORNERS = (_UP | _DOWN, _LEFT | _RIGHT, _DOWN | _RIGHT, _DOWN | _LEFT, _UP | _RIGHT, _UP | _LEFT)
_JUNCTIONS = (15 - _LEFT, 15 - _RIGHT, 15 - _UP, 15 - _DOWN, 15)
_CHARACTERS = dict(zip((*_CORNERS, *_JUNCTIONS), "│─╭╮╰╯├┤┬┴┼", strict=True))
_ASCII = dict(zip((*_CORNERS, *_JUNCTIONS), "|-+++++++++", strict=True))


def draw(graph: Graph, *, ascii_only: bool = False, emphasized: Callable[[str], str] = str) -> str:
    """Draws the graph, from the first step at the top to the last one at the bottom.

    Args:
        graph: The flow's graph.
        ascii_only: True to draw lines with ``|``, ``-`` and ``+``; names and values are unchanged.
        emphasized: Highlights the name of a step.
    """
    notes = {node.name: _note(graph, node, ascii_only=ascii_only) for node in graph.nodes.values()}

    def extent(step: str) -> Extent:
        left = (len(step) - 1) // 2
        return Extent(left, len(step) - left - 1 + cell_len(notes[step]))

    layout = lay_out(graph, arrows(graph), extent, lambda label: cell_len(label) + 2, _GAP, whole=True)
    columns = {name: int(x) for name, x in layout.x.items()}
    canvas = _Canvas(_ASCII if ascii_only else _CHARACTERS)
    top = 0
    for index, row in enumerate(layout.rows):
        for name in row:
            if name in graph.nodes:
                left = columns[name] - int(extent(name).left)
                canvas.put(top, left, name, emphasized(name))
                canvas.put(top, left + len(name), notes[name])
            else:
                canvas.line(top, columns[name], _VERTICAL, name)
        gap = _Gap([segment for segment in layout.segments if segment.row == index], columns)
        gap.draw(canvas, top + 1)
        top += 1 + gap.height
    return canvas.text()


def _note(graph: Graph, node: Node, *, ascii_only: bool) -> str:
    found = f" ({joined(graph, node)})" if node.joins and joined(graph, node) else ""
    if node.is_loop:
        found += f" (again where {loop(node)})" if ascii_only else f" ↺ {loop(node)}"
    return found


@dataclass
class _Canvas:
    """A grid of lines and words."""

    characters: dict[int, str]
    words: dict[tuple[int, int], str] = field(default_factory=dict)
    lines: dict[tuple[int, int], dict[str, int]] = field(default_factory=lambda: defaultdict(dict))

    def put(self, row: int, column: int, text: str, shown: str | None = None) -> None:
        """Writes a text, or its highlighted form."""
        if not text:
            return
        self.words[row, column] = shown or text
        for offset in range(1, cell_len(text)):
            self.words[row, column + offset] = ""

    def line(self, row: int, column: int, directions: int, owner: str) -> None:
        """Draws lines from the middle of a cell to some of its sides; lines of the same owner join, others cross."""
        owners = self.lines[row, column]
        owners[owner] = owners.get(owner, 0) | directions

    def text(self) -> str:
        rows: dict[int, dict[int, str]] = defaultdict(dict)
        for (row, column), owners in self.lines.items():
            rows[row][column] = self._character(list(owners.values()))
        for (row, column), word in self.words.items():
            rows[row][column] = word
        lines = []
        for row in range(max(rows) + 1):
            last = max(rows[row], default=-1)
            lines.append("".join(rows[row].get(column, " ") for column in range(last + 1)).rstrip())
        return "\n".join(lines)

    def _character(self, directions: list[int]) -> str:
        if len(directions) > 1 and _VERTICAL in directions:
            return self.characters[_VERTICAL]  # it crosses in front of the others
        found = 0
        for each in directions:
            found |= each
        return self.characters[found]


@dataclass
class _Bus:
    """Segments that share a horizontal line: those that leave a step, or those that reach one."""

    name: str
    uppers: set[int] = field(default_factory=set)
    lowers: set[int] = field(default_factory=set)
    track: int = -1

    @property
    def left(self) -> int:
        return min(self.uppers | self.lowers)

    @property
    def right(self) -> int:
        return max(self.uppers | self.lowers)

    @property
    def is_straight(self) -> bool:
        return self.left == self.right


class _Gap:
    """The space between two rows: tracks with the horizontal lines, and the labels."""

    def __init__(self, segments: Sequence[Segment], columns: dict[str, int]) -> None:
        self._columns = columns
        self._upper_labels = [segment for segment in segments if segment.label and segment.is_gathered]
        self._lower_labels = [segment for segment in segments if segment.label and not segment.is_gathered]
        self._buses = self._gather(segments)
        tracks = self._assign([bus for bus in self._buses if not bus.is_straight])
        rows = bool(self._upper_labels) + tracks + bool(self._lower_labels)
        self.height = max(rows, 1) if segments else 0

    def draw(self, canvas: _Canvas, top: int) -> None:
        """Draws the lines and writes the labels."""
        bottom = top + self.height - 1
        for bus in self._buses:
            at = top + bool(self._upper_labels) * (not bus.is_straight) + max(bus.track, 0)
            for column in bus.uppers:
                for row in range(top, at):
                    canvas.line(row, column, _VERTICAL, bus.name)
                canvas.line(at, column, _UP, bus.name)
            for column in bus.lowers:
                canvas.line(at, column, _DOWN, bus.name)
                for row in range(at + 1, bottom + 1):
                    canvas.line(row, column, _VERTICAL, bus.name)
            for column in range(bus.left, bus.right):
                canvas.line(at, column, _RIGHT, bus.name)
                canvas.line(at, column + 1, _LEFT, bus.name)
        for segments, row in ((self._upper_labels, top), (self._lower_labels, bottom)):
            for segment in segments:
                canvas.put(row, self._columns[segment.labelled] + 2, segment.label)

    def _gather(self, segments: Sequence[Segment]) -> list[_Bus]:
        buses: dict[str, _Bus] = {}
        for segment in segments:
            name = f"to {segment.lower}" if segment.is_gathered else f"from {segment.upper}"
            bus = buses.setdefault(name, _Bus(name))
            bus.uppers.add(self._columns[segment.upper])
            bus.lowers.add(self._columns[segment.lower])
        return list(buses.values())

    @staticmethod
    def _assign(buses: list[_Bus]) -> int:
        """Assigns each bus a track, so that none overlaps another; returns the number of tracks.

        If one bus goes down in the column in which another comes from above, the other one gets the higher track.
        """
        waiting = sorted(buses, key=lambda bus: bus.left)
        placed: list[_Bus] = []
        while waiting:
            free = [b for b in waiting if not any(b.lowers & o.uppers for o in waiting if o is not b)]
            bus = (free or waiting)[0]
            waiting.remove(bus)
            least = max((o.track + 1 for o in placed if bus.lowers & o.uppers), default=0)
            taken = {o.track for o in placed if o.left <= bus.right and bus.left <= o.right}
            bus.track = next(track for track in range(least, least + len(placed) + 1) if track not in taken)
            placed.append(bus)
        return max((bus.track + 1 for bus in placed), default=0)
