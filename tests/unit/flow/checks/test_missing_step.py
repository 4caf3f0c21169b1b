# ruff: noqa: E501  the cases read better unbroken
"""Methods that were intended as steps: without @step, or with something that hides it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.flow.checks.flows import Case, build, check_case

CASES: dict[str, Case] = {
    "steps under what hides them": (
        ("class F(FlowSpec):\n  @staticmethod\n  @step\n  def start(self): # <-\n    self.next(self.a)\n  @classmethod\n  @step\n  def a(self): # <-\n    self.next(self.b)\n"
        "  @(lambda function: None)\n  @step\n  def b(self): # <-\n    self.next(self.end)\n  @step\n  def end(self): pass"),
        ["start is under @staticmethod", "Remove @staticmethod"], ["a is under @classmethod"],
        ["a decorator above @step of b turned it into None", "functools.wraps"],
    ),
    "@step above @staticmethod": (
        "class F(FlowSpec):\n  @step # <-\n  @staticmethod\n  def start(self): self.next(self.end)\n  @step\n  def end(self): pass",
        ["@step is on a staticmethod"],
    ),
    "methods without @step": (
        ("class F(FlowSpec):\n  def start(self): # <-\n    self.next(self.a)\n  def a(me): me.next(me.b, me.c) # <-\n  @step\n  def b(self): self.next(self.end)\n"
        "  @step\n  def c(self): self.next(self.end)\n  def end(self): pass # <- <-\n  def help(self): return next(iter([]))"),
        ["start is a method of the flow, but not a step", "Write @step above def start"], ["a is a method"],
        ["end is a method of the flow, but not a step", "def end"], ["end comes after b and c"],
    ),
    "decorators without @step": (
        ("from k8sflow import retry, timeout\nclass F(FlowSpec):\n  @retry\n  @timeout(seconds=5)\n  def start(self): # <-\n    self.next(self.end)\n"
        "  @step\n  def end(self): pass"),
        ["start is a method of the flow, but not a step"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_reported_with_its_line_and_advice(tmp_path: Path, case: str) -> None:
    """The report has each mistake in the order of the source, and none that only follows from another."""
    check_case(tmp_path, *CASES[case])


def test_a_method_that_no_step_leads_to_is_not_a_step(tmp_path: Path) -> None:
    """It may call anything, and be under any decorator."""
    graph = build(
        tmp_path,
        """
        def step_of_another_library(function): return property(function)
        class other: step = staticmethod(step_of_another_library)
        class F(FlowSpec):
          def helper(self, *targets): self.next(*targets)
          def go_on(self): self.next(self.end)
          @other.step
          def shown(self): return 1
          @step
          def start(self): self.next(self.end)
          @step
          def end(self): pass
        """,
    )
    assert list(graph.nodes) == ["start", "end"]
