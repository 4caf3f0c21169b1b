"""Drawings of graphs: nothing is missing, nothing overlaps, and they look as they should."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from rich.cells import cell_len

from k8sflow.drawing import markup, svg, text
from k8sflow.drawing.arrows import arrows, loop
from k8sflow.drawing.layout import Extent, lay_out
from k8sflow.flow.checks import graph as lint
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.graph import Graph, Node
from tests.support import load_flow, write_flow
from tests.unit.flow.graphs import PLACE, SEQUENCES, Part, unchecked

SEARCH = """
    class F(FlowSpec):
        @step
        def start(self):
            self.numbers = [1]
            self.next(self.guess, foreach="numbers")
        @step
        def guess(self):
            '''A "wild" <guess>.'''
            self.kind = "fine"
            self.next({"fine": self.improve, "日本 & \\"x\\"": self.third, "bad": self.collect}, condition="kind")
        @step
        def improve(self):
            self.close = True
            self.next({True: self.collect, False: self.improve}, condition="close")
        @step
        def third(self): self.next(self.collect)
        @step
        def collect(self, inputs): self.next(self.end)
        @step
        def end(self): pass
"""
BRANCHES = """
    class F(FlowSpec):
        @step
        def start(self): self.next(self.left, self.middle, self.right)
        @step
        def left(self): self.next(self.far)
        @step
        def far(self): self.next(self.join)
        @step
        def middle(self): self.next(self.join)
        @step
        def right(self): self.next(self.join)
        @step
        def join(self, inputs): self.next(self.end)
        @step
        def end(self): pass
"""


def _graph(tmp_path: Path, source: str) -> Graph:
    return compile_flow(load_flow(write_flow(tmp_path, source))).graph


def test_branches_are_side_by_side(tmp_path: Path) -> None:
    """In the order of the source, below the step that opens them and above the one that joins them."""
    drawn = text.draw(_graph(tmp_path, BRANCHES))
    assert drawn.splitlines() == [
        "      start",
        " ╭──────┼───────╮",
        "left  middle  right",
        " │      │       │",
        "far     │       │",
        " ╰──────┼───────╯",
        "       join",
        "        │",
        "       end",
    ]


def test_switches_loops_and_foreach_say_when(tmp_path: Path) -> None:
    """Labels are beside their lines; wide characters take two columns, as in a terminal."""
    graph = _graph(tmp_path, SEARCH)
    drawn = text.draw(graph)
    for words in (
        "│ for each of numbers",
        "improve ↺ close is False",
        "│ kind is 'fine'",
        "│ kind is '日本 & \"x\"'",
        "collect (joins numbers)",
    ):
        assert drawn.count(words) == 1, drawn
    columns = {cell_len(line[: line.index("kind is 'bad'")]) for line in drawn.splitlines() if "kind is 'bad'" in line}
    below = {line.rindex("│") for line in drawn.splitlines() if "improve" in line}
    assert columns == {column + 2 for column in below}, drawn


def test_ascii_drawings_have_only_ascii_lines(tmp_path: Path) -> None:
    """Only names and values may have other characters."""
    drawn = text.draw(_graph(tmp_path, SEARCH), ascii_only=True)
    assert "improve (again where close is False)" in drawn
    assert drawn.replace("日本", "").isascii()


def test_names_can_be_highlighted(tmp_path: Path) -> None:
    """Highlighting moves nothing."""
    graph = _graph(tmp_path, SEARCH)
    loud = text.draw(graph, emphasized=lambda name: f"\x1b[1m{name}\x1b[0m")
    assert loud.count("\x1b[1m") == 6
    assert re.sub(r"\x1b\[\dm", "", loud) == text.draw(graph)


def _checked(parts: tuple[Part, ...]) -> Graph:
    graph, mistakes = lint.check(unchecked(parts), PLACE)
    assert mistakes == []
    return graph


@pytest.mark.slow
@given(SEQUENCES)
@settings(max_examples=60, deadline=None)
def test_lines_lead_to_the_next_steps(parts: tuple[Part, ...]) -> None:
    """From every step down to each step that follows, and every name and label is there."""
    graph = _checked(parts)
    drawn = text.draw(graph)
    lines = drawn.splitlines()
    places = {
        found[0]: (row, found.start(), found.end())
        for row, line in enumerate(lines)
        for found in re.finditer(r"\b(s\d+|start|end)\b", line)
    }
    assert set(places) == set(graph.nodes), drawn
    for arrow in arrows(graph):
        assert arrow.target in set(_below(lines, places, arrow.source)), f"{arrow}\n{drawn}"
        assert arrow.label in drawn
    for node in graph.nodes.values():
        assert loop(node) in drawn


_WAYS = {
    "│": "ud", "─": "lr", "╭": "dr", "╮": "dl", "╰": "ur", "╯": "ul", "├": "udr", "┤": "udl", "┬": "dlr", "┴": "ulr",
    "┼": "udlr",
}  # fmt: skip
_STEPS = {"d": (1, 0), "l": (0, -1), "r": (0, 1)}


def _below(lines: list[str], places: dict[str, tuple[int, int, int]], step: str) -> Iterator[str]:
    """The steps to which lines lead from a step, never upwards."""
    row, begin, end = places[step]
    width = max(map(len, lines))
    grid = [line.ljust(width) for line in lines]
    seen = set()
    waiting = [(row + 1, column, "d") for column in range(begin, end)]
    while waiting:
        here = waiting.pop()
        row, column, coming = here
        if here in seen or row >= len(grid):
            continue
        seen.add(here)
        for name, (top, left, right) in places.items():
            if top == row and left <= column < right:
                yield name
        ways = _WAYS.get(grid[row][column], "")
        if coming == "d" and "u" in ways:
            following = ways.replace("u", "")
        elif coming in "lr" and {"l": "r", "r": "l"}[coming] in ways:
            following = ways.replace({"l": "r", "r": "l"}[coming], "")
        elif coming in "lr" and grid[row][column] == "│":  # behind a line that crosses
            following = coming
        else:
            continue
        waiting += [(row + _STEPS[way][0], column + _STEPS[way][1], way) for way in following if way in _STEPS]


@given(SEQUENCES)
@settings(max_examples=60, deadline=None)
def test_nothing_overlaps(parts: tuple[Part, ...]) -> None:
    """Neighbours in a row are as far from each other as they are wide."""
    graph = _checked(parts)
    layout = lay_out(graph, arrows(graph), lambda _: Extent(10, 20), len, 5, whole=False)
    for row in layout.rows:
        for left, right in itertools.pairwise(row):
            wide = 30 if ">" not in left + right else 0
            assert layout.x[right] - layout.x[left] >= wide + 5 - 1e-6


@given(SEQUENCES)
@settings(max_examples=30, deadline=None)
def test_svg_is_xml_with_every_step_and_arrow(parts: tuple[Part, ...]) -> None:
    """A box for every step, and a line for every arrow, inside the drawing."""
    graph = _checked(parts)
    root = ET.fromstring(svg.draw(graph))
    space = "{http://www.w3.org/2000/svg}"
    words = [found.text for found in root.iter(f"{space}text")]
    assert set(graph.nodes) <= set(words)
    assert {arrow.label for arrow in arrows(graph) if arrow.label} <= set(words)
    heads = [path for path in root.iter(f"{space}path") if path.get("marker-end")]
    assert len(heads) == len(arrows(graph)) + sum(node.is_loop for node in graph.nodes.values())
    for path in heads:  # a head has the direction of its path's last piece
        *_, before, last = re.findall(r"-?[\d.]+", path.attrib["d"])
        assert "V" not in path.attrib["d"] or float(last) - float(before) > 7
    width = float(root.attrib["width"])
    for found in root.iter(f"{space}rect"):
        if "step" in found.get("class", ""):
            assert (
                0 <= float(found.attrib["x"]) + 24 <= float(found.attrib["x"]) + float(found.attrib["width"]) <= width
            )


def test_texts_are_escaped(tmp_path: Path) -> None:
    """Quotes, brackets and ampersands of the flow are text everywhere."""
    graph = _graph(tmp_path, SEARCH)
    root = ET.fromstring(svg.draw(graph))
    assert "kind is '日本 & \"x\"'" in {found.text for found in root.iter("{http://www.w3.org/2000/svg}text")}
    assert 'A "wild" <guess>.' in {found.text for found in root.iter("{http://www.w3.org/2000/svg}title")}
    assert "kind is '日本 & #quot;x#quot;'" in markup.mermaid(graph)
    assert "kind is '日本 & \\\"x\\\"'" in markup.dot(graph)


@pytest.mark.parametrize("draw", [markup.mermaid, markup.dot])
def test_other_programs_get_every_arrow_once(tmp_path: Path, draw: object) -> None:
    """Loops too."""
    graph = _graph(tmp_path, SEARCH)
    drawn = draw(graph)  # type: ignore[operator]
    assert len(re.findall(r"--?>", drawn)) == len(arrows(graph)) + 1
    assert '"end"' in drawn


def test_a_long_flow_is_drawn_quickly() -> None:
    """Hundreds of steps in a row, and a hundred side by side."""
    names = [f"s{i}" for i in range(400)]
    nodes = {name: Node(name, PLACE, PLACE, next=(after,)) for name, after in itertools.pairwise(names)}
    graph = Graph(
        "F",
        {
            "start": Node("start", PLACE, PLACE, next=("s0",), is_start=True),
            **nodes,
            "s399": Node("s399", PLACE, PLACE, is_end=True),
        },
    )
    assert len(text.draw(graph).splitlines()) == 801
    wide = {f"b{i}": Node(f"b{i}", PLACE, PLACE, next=("end",)) for i in range(100)}
    graph = Graph(
        "F",
        {
            "start": Node("start", PLACE, PLACE, next=tuple(wide), is_start=True),
            **wide,
            "end": Node("end", PLACE, PLACE, is_end=True),
        },
    )
    assert len(text.draw(graph).splitlines()) == 5
