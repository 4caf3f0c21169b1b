# ruff: noqa: E501  the cases read better unbroken
"""A switch without a case for a value that its condition can have."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.unit.flow.checks.flows import Case, build, check_case

CASES: dict[str, Case] = {
    "a case that is missing for a literal": (
        (
            "class F(FlowSpec):\n  @step\n  def start(self):\n    if self.n > 3:\n      self.x = 'large'\n    elif self.n:\n      self.x = 'middle' # <-\n    else:\n      self.x = 'small'\n"
            "    print(self.x)\n    self.next({'large': self.end, 'small': self.end}, condition='x')\n  @step\n  def end(self): pass"
        ),
        ["self.x can be 'middle'", "start (line", "'middle': self.step_name"],
    ),
    "a case that is missing for a comparison": (
        (
            "class F(FlowSpec):\n  @step\n  def start(self):\n    self.x: bool = self.n > 3 # <-\n    self.next({True: self.end, 'False': self.end}, condition='x')\n  @step\n  def end(self): pass"
        ),
        ["self.x can be False"],
    ),
    "a case that is missing for a bool parameter": (
        (
            "class F(FlowSpec):\n  x = Parameter('x', default=True)\n  @step\n  def start(self):\n    self.next({'yes': self.end, True: self.end}, condition='x') # <-\n  @step\n  def end(self): pass"
        ),
        ["self.x can be False"],
    ),
    "a case that is missing for a constant": (
        (
            "class F(FlowSpec):\n  x = 'deep'\n  @step\n  def start(self):\n    self.next({'wide': self.end, True: self.end}, condition='x') # <-\n  @step\n  def end(self): pass"
        ),
        ["self.x can be 'deep'"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_reported_with_its_line_and_advice(tmp_path: Path, case: str) -> None:
    """The report has each mistake in the order of the source, and none that only follows from another."""
    check_case(tmp_path, *CASES[case])


@pytest.mark.parametrize(
    "body",
    [
        "self.x = None\nif self.n: self.x = 'a'\nelse: self.x = 'b'",
        "self.x = 'c'\nself.set_it()",
        "self.x = 'c'\nset_it(self)",
        "self.x = 'c'\nfor i in range(3): self.x = 'a'",
        "self.x = 'c'\ntry: self.x = f()\nexcept ValueError: self.x = 'b'",
        "self.x = 'c'\nself.x, y = 'a', 1",
        "self.x = 'a' if self.n else f()",
        "if self.n:\n      self.x = 'c'\n      raise ValueError(self.x)\nself.x = 'b'",
        "self.x = 'c'\nif self.set_it(): pass",
        "self.x = 'c'\nself.x += 'd'",
        "self.x = 'c'\nsetattr(self, 'x', 'a')",
        "pass",
    ],
)
def test_a_value_that_may_not_reach_the_switch_is_accepted(tmp_path: Path, body: str) -> None:
    """Only a certain mistake is reported before the run; the others when the value is known."""
    indented = textwrap.indent(body, "    ")
    graph = build(
        tmp_path,
        f"class F(FlowSpec):\n  @step\n  def start(self):\n{indented}\n"
        "    self.next({'a': self.end, 'b': self.end}, condition='x')\n  @step\n  def end(self): pass",
    )
    assert graph["start"].cases == (("'a'", "end"), ("'b'", "end"))
