# ruff: noqa: E501  the cases read better unbroken
"""Steps that set a parameter, a config, a constant or another step."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.unit.flow.checks.flows import Case, build, check_case

CASES: dict[str, Case] = {
    "what no step can set": (
        (
            "from k8sflow import Config\nclass F(FlowSpec):\n  n = Parameter('n', default=1)\n  c = Config('c', default_value={})\n  limit = 3\n  @step\n  def start(me):\n"
            "    if me.n is None:\n      me.n = 2 # <-\n    me.y, me.c = 1, 2 # <-\n    me.limit += 1 # <-\n    me.end = 1 # <-\n    me.index: int = 3 # <-\n    me.next(me.end)\n"
            "  @step\n  def end(self): pass"
        ),
        ["start sets self.n, which is the Parameter 'n'", "under another name"],
        ["self.c, which is a Config"],
        ["self.limit, which is a constant"],
        ["self.end, which is a step of F"],
        ["self.index, which is a part of every flow"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_reported_with_its_line_and_advice(tmp_path: Path, case: str) -> None:
    """The report has each mistake in the order of the source, and none that only follows from another."""
    check_case(tmp_path, *CASES[case])


@pytest.mark.parametrize(
    "body",
    [
        "try: self.n = 2\nexcept AttributeError: pass",
        "with suppress(AttributeError): self.n = 2",
        "class Other:\n      def f(self): self.n = 2",
        "def f(self): self.n = 2",
        "self.other.n = self.n",
        "self.n: int",
    ],
)
def test_setting_a_parameter_may_be_intended(tmp_path: Path, body: str) -> None:
    """An except clause may expect the error, or the object isn't the flow."""
    build(
        tmp_path,
        "class F(FlowSpec):\n  n = Parameter('n', default=1)\n  @step\n  def start(self):\n"
        f"{textwrap.indent(body, '    ')}\n    self.next(self.end)\n  @step\n  def end(self): pass",
    )


def test_a_flow_with_its_own_setattr_may_set_anything(tmp_path: Path) -> None:
    build(
        tmp_path,
        "class F(FlowSpec):\n  n = 1\n  def __setattr__(self, name, value): super().__setattr__('own_' + name, value)\n"
        "  @step\n  def start(self):\n    self.n = 2\n    self.next(self.end)\n  @step\n  def end(self): pass",
    )
