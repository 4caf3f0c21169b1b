# ruff: noqa: E501  the cases read better unbroken
"""Mistakes in a flow's graph: the static check reports each of them, its line, and a correction."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.flow.checks.flows import Case, build, check_case

CASES: dict[str, Case] = {
    "no start": (
        "class F(FlowSpec): # <-\n  @step\n  def begin(self): self.next(self.end)\n  @step\n  def end(self): pass",
        ["no step 'start'", "def start(self)"],
    ),
    "no end": (
        "class F(FlowSpec): # <-\n  @step\n  def start(self):\n    self.next(self.start) # <-",
        ["no step 'end'"], ["goes back to start"],
    ),
    "no steps": ("class F(FlowSpec): # <- <-\n  pass", ["no step 'start'"], ["no step 'end'"]),
    "unknown step": (
        "class F(FlowSpec):\n  @step\n  def start(self):\n    self.next(self.ende) # <-\n  @step\n  def end(self): pass",
        ["'ende', which is not a step", "Did you mean 'end'"],
    ),
    "a method": (
        ("class F(FlowSpec):\n  def train(self): pass\n  @step\n  def start(self):\n    self.next(self.train) # <-\n"
        "  @step\n  def end(self): pass"),
        ["'train', which is not a step", "@step missing on train"],
    ),
    "the same step twice": (
        "class F(FlowSpec):\n  @step\n  def start(self):\n    self.next(self.end, self.end) # <-\n  @step\n  def end(self): pass",
        ["'end' twice"],
    ),
    "orphan": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.end)\n"
        "  @step\n  def lost(self): # <-\n    self.next(self.end)\n  @step\n  def end(self): pass"),
        ["no step leads to lost", "self.next(self.lost)"],
    ),
    "cycle": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a)\n  @step\n  def a(self): self.next(self.b)\n"
        "  @step\n  def b(self):\n    self.next(self.a) # <-\n  @step\n  def end(self): pass # <-"),
        ["in a circle: a -> b -> a"], ["no step leads to end"],
    ),
    "a step that leads to itself": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.end)\n  @step\n  def a(self):\n    self.next(self.a) # <-\n"
        "  @step\n  def end(self): pass"),
        ["in a circle: a -> a"],
    ),
    "back to start": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a)\n  @step\n  def a(self):\n    self.next(self.start) # <-\n"
        "  @step\n  def end(self): pass"),
        ["goes back to start"],
    ),
    "after the end": (
        "class F(FlowSpec):\n  @step\n  def start(self): self.next(self.end)\n  @step\n  def end(self):\n    self.next(self.start) # <-",
        ["step end has a next step"],
    ),
    "start takes inputs": (
        "class F(FlowSpec):\n  @step\n  def start(self, inputs): # <-\n    self.next(self.end)\n  @step\n  def end(self): pass",
        ["start takes inputs"],
    ),
    "a reserved name": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.input)\n  @step\n  def input(self): # <-\n    self.next(self.end)\n"
        "  @step\n  def end(self): pass"),
        ["can't be called 'input'"],
    ),
    "a hidden name": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self._a)\n  @step\n  def _a(self): # <-\n    self.next(self.end)\n"
        "  @step\n  def end(self): pass"),
        ["can't be called '_a'", "starts with a letter"],
    ),
    "two starts and two ends": (
        ("class F(FlowSpec):\n  @step(start=True)\n  def a(self): self.next(self.b)\n  @step(start=True, end=True)\n  def b(self): pass # <-\n"
        "  @step(end=True)\n  def c(self): pass # <-"),
        ["a and b are both marked as the start"], ["b and c are both marked as the end"],
    ),
    "an end under another name with a next step": (
        "class F(FlowSpec):\n  @step\n  def start(self): self.next(self.stop)\n  @step(end=True)\n  def stop(self): self.next(self.end) # <-\n  @step\n  def end(self): pass # <-",
        ["step stop has a next step", "where the run ends"], ["step end has no self.next"],
    ),
    "a start under another name to come back to": (
        "class F(FlowSpec):\n  @step(start=True)\n  def load(self): self.next(self.a)\n  @step\n  def a(self): self.next(self.load) # <-\n  @step\n  def end(self): pass",
        ["a goes back to load"],
    ),
    "an unknown step in a case": (
        "class F(FlowSpec):\n  @step\n  def start(self): self.next({1: self.ende, 2: self.end}, condition='x') # <-\n  @step\n  def end(self): pass",
        ["'ende', which is not a step", "Did you mean 'end'"],
    ),
    "a loop without a way out": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next({1: self.a, 2: self.end}, condition='x')\n"
        "  @step\n  def a(self): self.next({1: self.a, 2: self.a}, condition='x') # <-\n  @step\n  def end(self): pass"),
        ["a always comes back to itself"],
    ),
    "a loop over several steps": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a)\n  @step\n  def a(self): self.next(self.b)\n"
        "  @step\n  def b(self): self.next({1: self.a, 2: self.end}, condition='x') # <-\n  @step\n  def end(self): pass"),
        ["in a circle: a -> b -> a", "by a switch to itself"],
    ),
    "a join that comes back to itself": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.b)\n  @step\n  def a(self): self.next(self.j)\n"
        "  @step\n  def b(self): self.next(self.j)\n  @step\n  def j(self, inputs): self.next({1: self.j, 2: self.end}, condition='x') # <-\n"
        "  @step\n  def end(self): pass"),
        ["j joins branches, and can't come back to itself", "def turn(self)"],
    ),
    "num_parallel without @parallel": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, num_parallel=2) # <-\n  @step\n  def a(self): self.next(self.j)\n"
        "  @step\n  def j(self, inputs): self.next(self.end)\n  @step\n  def end(self): pass"),
        ["start opens a with num_parallel, but it is not under @parallel"],
    ),
    "@parallel without num_parallel": (
        ("from k8sflow import parallel\nclass F(FlowSpec):\n  @step\n  def start(self): self.next(self.a)\n  @parallel\n  @step\n  def a(self): # <-\n    self.next(self.end)\n"
        "  @step\n  def end(self): pass"),
        ["a is under @parallel, but no step opens it", "num_parallel=4"],
    ),
    "a circle and a join of nothing beside a step that can't be read": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.b, self.d)\n  @step\n  def a(self, x, y): # <-\n    self.next(self.j)\n"
        "  @step\n  def b(self): self.next(self.c)\n  @step\n  def c(self): self.next(self.b) # <-\n  @step\n  def d(self): self.next(self.j)\n"
        "  @step\n  def j(self, inputs): self.next(self.end)\n  @step\n  def end(self): pass"),
        ["a takes (self, x, y)"], ["in a circle: b -> c -> b"],
    ),
    "a name that no file can have": (
        (f"class F(FlowSpec):\n  @step\n  def start(self): self.next(self.{'ж' * 101})\n"
        f"  @step\n  def {'ж' * 101}(self): self.next(self.end) # <-\n  @step\n  def end(self): pass"),
        ["takes 202 bytes", "at most 200"],
    ),
    "several at once": (
        ("class F(FlowSpec):\n  @step\n  def start(self):\n    self.next(self.a, self.b, fourach='x') # <-\n"
        "  @step\n  def a(self, x, y): # <-\n    self.next(self.jion) # <-\n  @step\n  def b(self):\n    self.next() # <-\n"
        "  @step\n  def join(self, inputs): self.next(self.end)\n  @step\n  def end(self): pass"),
        ["fourach"], ["a takes (self, x, y)"], ["'jion'", "'join'"], ["step b has no self.next"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_reported_with_its_line_and_advice(tmp_path: Path, case: str) -> None:
    """The report has each mistake in the order of the source, and none that only follows from another."""
    check_case(tmp_path, *CASES[case])


@pytest.mark.parametrize("name", ["only", "start", "end"])
def test_a_single_step_is_the_start_and_the_end(tmp_path: Path, name: str) -> None:
    """It may have any name."""
    graph = build(tmp_path, f"class F(FlowSpec):\n  @step\n  def {name}(self): pass")
    assert graph.start == graph.end == name


def test_a_flow_of_a_thousand_steps_is_checked(tmp_path: Path) -> None:
    """The check neither recurses nor searches the source again for each step."""
    steps = "".join(
        f"  @step\n  def s{i}(self):\n    self.next(self.{f's{i + 1}' if i < 999 else 'end'})\n" for i in range(1000)
    )
    text = f"class F(FlowSpec):\n  @step\n  def start(self):\n    self.next(self.s0)\n{steps}  @step\n  def end(self): pass"
    assert len(build(tmp_path, text).nodes) == 1002
