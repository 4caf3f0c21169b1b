# ruff: noqa: E501  the cases read better unbroken
"""The statements of a flow's class apart from its steps: taken names, members that are defined twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.flow.checks.flows import Case, build, check_case

CASES: dict[str, Case] = {
    "a parameter that a step replaces": (
        ("class F(FlowSpec):\n  end = Parameter('end', default=1)\n  n = Parameter('n', default=1)\n  @step\n  def start(self): self.next(self.end)\n"
        "  @step\n  def end(self): pass # <-\n  n: int = 3 # <-\n  m = 1\n  m = 2\n  @property\n  def y(self): pass\n  @y.setter\n  def y(self, v): pass"),
        ["end is defined twice, there as a parameter, here as a step"], ["n is defined twice"],
    ),
    "a parameter with a reserved name": (
        ("class F(FlowSpec):\n  input = Parameter('input') # <-\n  @step\n  def start(self): self.next(self.end)\n"
        "  @step\n  def end(self): pass"),
        ["'input'", "taken"],
    ),
    "a constant and a method with reserved names": (
        ("class F(FlowSpec):\n  index: int = 5 # <-\n  @step\n  def start(self): self.next(self.end)\n"
        "  def foreach_stack(self): pass # <-\n  @step\n  def end(self): pass"),
        ["'index'", "taken"], ["'foreach_stack'", "taken"],
    ),
    "a step that is defined twice": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.end)\n  @step\n  def end(self): print(1)\n"
        "  @resources(cpu=1)\n  @step\n  def end(self): pass # <-"),
        ["end is defined twice", "line "],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_reported_with_its_line_and_advice(tmp_path: Path, case: str) -> None:
    """The report has each mistake in the order of the source, and none that only follows from another."""
    check_case(tmp_path, *CASES[case])


def test_a_step_redefined_from_itself_is_accepted(tmp_path: Path) -> None:
    """A decorator may be called by hand, and a step may have an unused second name."""
    graph = build(
        tmp_path,
        """
        from k8sflow import resources
        class F(FlowSpec):
          @step
          def start(self): self.next(self.end)
          start = resources(cpu=2)(start)
          begin = start
          @step
          def end(self): pass
        """,
    )
    assert list(graph.nodes) == ["start", "end"]
