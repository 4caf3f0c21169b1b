# ruff: noqa: E501  the cases read better unbroken
"""Branches and their joins."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings

from k8sflow.flow.checks import graph as lint
from k8sflow.flow.graph import Graph
from tests.unit.flow.checks.flows import Case, check_case
from tests.unit.flow.graphs import PLACE, SEQUENCES, Part, unchecked

CASES: dict[str, Case] = {
    "foreach straight to a join": (
        ("class F(FlowSpec):\n  @step\n  def start(self):\n    self.next(self.j, foreach='items') # <-\n"
        "  @step\n  def j(self, inputs): self.next(self.end)\n  @step\n  def end(self): pass"),
        ["foreach", "j", "(self)"],
    ),
    "a join of nothing": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a)\n  @step\n  def a(self, inputs): # <-\n"
        "    self.next(self.end)\n  @step\n  def end(self): pass"),
        ["a takes inputs", "start opens no branches", "def a(self)"],
    ),
    "branches that aren't joined": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.b)\n  @step\n  def a(self): self.next(self.end)\n"
        "  @step\n  def b(self): self.next(self.end)\n  @step\n  def end(self): pass # <-"),
        ["end comes after a and b", "doesn't join"],
    ),
    "a foreach that isn't joined": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, foreach='x')\n  @step\n  def a(self): self.next(self.end)\n"
        "  @step\n  def end(self): pass # <-"),
        ["branches of start reach the end", "def join(self, inputs)"],
    ),
    "an end that joins": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, foreach='x')\n  @step\n  def a(self): self.next(self.end)\n"
        "  @step\n  def end(self, inputs): pass # <-"),
        ["the end can't join"],
    ),
    "a join that forgets a branch": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.b, self.c)\n  @step\n  def a(self): self.next(self.j)\n"
        "  @step\n  def b(self): self.next(self.j)\n  @step\n  def c(self): self.next(self.k)\n"
        "  @step\n  def j(self, inputs): self.next(self.k)\n  @step\n  def k(self, inputs): # <-\n    self.next(self.end)\n"
        "  @step\n  def end(self): pass"),
        ["k joins", "weren't split together"],
    ),
    "a join over two levels": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.b)\n  @step\n  def a(self): self.next(self.c, foreach='x')\n"
        "  @step\n  def b(self): self.next(self.j)\n  @step\n  def c(self): self.next(self.j)\n"
        "  @step\n  def j(self, inputs): # <-\n    self.next(self.end)\n  @step\n  def end(self): pass"),
        ["j joins", "weren't split together", "a and start"],
    ),
    "two joins of one split": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.b)\n  @step\n  def a(self): self.next(self.j)\n"
        "  @step\n  def b(self): self.next(self.k)\n  @step\n  def j(self, inputs): self.next(self.k)\n"
        "  @step\n  def k(self, inputs): # <-\n    self.next(self.end)\n  @step\n  def end(self): pass"),
        ["k joins", "weren't split together"],
    ),
    "a way out of a foreach": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, foreach='x')\n  @step\n  def a(self): self.next({1: self.j, 2: self.b}, condition='x')\n"
        "  @step\n  def j(self, inputs): self.next(self.b)\n  @step\n  def b(self): # <-\n    self.next(self.end)\n  @step\n  def end(self): pass"),
        ["b comes after a and j, but doesn't join them", "One of these ways is in the branches of start, another is not"],
    ),
    "a way to an end out of a branch": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.b)\n  @step\n  def a(self): self.next({1: self.j, 2: self.end}, condition='x')\n"
        "  @step\n  def b(self): self.next(self.j)\n  @step\n  def j(self, inputs): self.next(self.end)\n  @step\n  def end(self): pass # <-"),
        ["end comes after a and j, but doesn't join them"],
    ),
    "a step that two branches reach": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.b)\n  @step\n  def a(self): self.next({1: self.c, 2: self.j}, condition='x')\n"
        "  @step\n  def b(self): self.next(self.c)\n  @step\n  def c(self): # <-\n    self.next(self.j)\n"
        "  @step\n  def j(self, inputs): self.next(self.end)\n  @step\n  def end(self): pass"),
        ["c comes after a and b, but doesn't join them", "def c(self, inputs)"],
    ),
    "a switch of which the ways are joined": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next({1: self.a, 2: self.b}, condition='x')\n  @step\n  def a(self): self.next(self.j)\n"
        "  @step\n  def b(self): self.next(self.j)\n  @step\n  def j(self, inputs): # <-\n    self.next(self.end)\n  @step\n  def end(self): pass"),
        ["j takes inputs, but a and b opens no branches", "def j(self)"],
    ),
    "a join that doesn't say so": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.b)\n  @step\n  def a(self): self.next(self.j)\n  @step\n  def b(self): self.next(self.j)\n"
        "  @step\n  def j(self): # <-\n    self.next(self.end)\n  @step\n  def end(self): pass"),
        ["j comes after a and b, but doesn't join them", "def j(self, inputs)"],
    ),
    "a step of a foreach that takes inputs": (
        ("class F(FlowSpec):\n  x = [1]\n  @step\n  def start(self): self.next(self.a, foreach='x') # <-\n  @step\n  def a(self, inputs): self.next(self.j)\n"
        "  @step\n  def j(self, inputs): self.next(self.end)\n  @step\n  def end(self): pass"),
        ["goes straight to the join a"],
    ),
    "a step that doesn't go on beside branches that aren't joined": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.b)\n  @step\n  def a(self): pass # <-\n"
        "  @step\n  def b(self): self.next(self.c, foreach='items')\n  @step\n  def c(self): self.next(self.end)\n"
        "  @step\n  def end(self): pass # <-"),
        ["step a has no self.next"], ["branches of b reach the end"],
    ),
    "joins that can't be, beside an unknown step": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.b)\n  @step\n  def a(self): self.next(self.jion) # <-\n"
        "  @step\n  def b(self): self.next(self.c, self.d)\n  @step\n  def c(self): self.next(self.j)\n  @step\n  def d(self): self.next(self.k)\n"
        "  @step\n  def j(self, inputs): self.next(self.k)\n  @step\n  def k(self, inputs): # <-\n    self.next(self.end)\n"
        "  @step\n  def end(self): pass"),
        ["'jion', which is not a step"], ["k joins", "weren't split together"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_reported_with_its_line_and_advice(tmp_path: Path, case: str) -> None:
    """The report has each mistake in the order of the source, and none that only follows from another."""
    check_case(tmp_path, *CASES[case])


@settings(max_examples=200)
@given(SEQUENCES)
def test_well_formed_graphs_pass(parts: tuple[Part, ...]) -> None:
    """Any nesting is accepted, and each split is closed by its join."""
    graph, mistakes = lint.check(unchecked(parts), PLACE)
    assert mistakes == []
    for node in graph.nodes.values():
        assert graph.depth(node.name) == sum(graph[s].foreach is not None for s in node.splits)
        if node.joins:
            assert graph[node.joins].splits == node.splits
            assert node.is_join
    assert Graph.from_document(graph.flow, graph.to_document()) == graph
    names = {"location": "place", "next_at": "next_place"}
    earlier = [{names.get(key, key): value for key, value in node.items()} for node in graph.to_document()]
    assert Graph.from_document(graph.flow, earlier) == graph, "records of earlier builds are read"
