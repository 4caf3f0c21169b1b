# ruff: noqa: E501  the cases read better unbroken
"""A foreach or a switch that reads an attribute which nothing sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8sflow.flow.compile import compile_flow
from tests.support import load_flow, write_flow
from tests.unit.flow.checks.flows import marked_lines, mistakes

UNSET = """
class F(FlowSpec):
    rate = Parameter("rate", default=1)
    @step
    def start(self):
        self.items = [1]
        self.next(self.work, foreach="{name}") # <-
    @step
    def work(self):
        self.kind = "a"
        self.next({{"a": self.join, "b": self.end_work}}, condition="knd") # <-
    @step
    def end_work(self):
        self.next(self.join)
    @step
    def join(self, inputs):
        self.next(self.end)
    @step
    def end(self): pass
"""


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("itms", "Did you mean 'items'?"),
        ("papers", "self.papers = ..."),
        ("raet", "Did you mean 'rate'?"),
        ("name", "self.name = ..."),
    ],
)
def test_a_foreach_or_a_switch_by_an_unset_attribute_is_reported(tmp_path: Path, name: str, advice: str) -> None:
    """The report has the line of the transition, and the closest name."""
    text = UNSET.format(name=name)
    found = mistakes(tmp_path, text)
    assert [line for line, _ in found] == marked_lines(text)
    assert f"foreach={name!r} in step start: nothing sets self.{name}." in found[0][1]
    assert advice in found[0][1]
    assert "nothing sets self.knd" in found[1][1]
    assert "Did you mean 'kind'?" in found[1][1]


SET = """
{module}
class Mixed:
    of_mixin = "ab"
    def helper(self): self.by_mixin = [1]
class F(Mixed, FlowSpec):
    pass
{members}
    @step
    def start(self):
        {body}
        self.next(self.work, foreach="them")
    @step
    def work(self): self.next(self.join)
    @step
    def join(self, inputs): self.next(self.end)
    @step
    def end(self): pass
"""


@pytest.mark.parametrize(
    ("body", "members", "module"),
    [
        ("self.them, y = [1], 2", "", ""),
        ("for self.them in [[1]]: pass", "", ""),
        ("with open(__file__) as self.them: pass", "", ""),
        ("self.them: list = []", "", ""),
        ("[0 for self.them in ['ab']]", "", ""),
        ("self.helper()", "    def helper(me): me.them = [1]", ""),
        ("self.prop", "    @property\n    def prop(self):\n        self.them = [1]", ""),
        ("pass", "    them = [1]", ""),
        ("pass", "    them = Parameter('p', separator=',', default='a,b')", ""),
        ("pass", "    them = Config('c', default_value=[1])", "from k8sflow import Config"),
        ("pass", "    them = property(lambda self: [1])", ""),
        ("setattr(self, 'th' + 'em', [1])", "", ""),
        ("self.__dict__['th' + 'em'] = [1]", "", ""),
        ("fill(self)", "", "def fill(flow): flow.them = [1]"),
        ("flow = self; flow.them = [1]", "", ""),
        ("exec('self.them = [1]')", "", ""),
        ("self.filled()", "    filled = staticmethod(print)\n    def __getattr__(self, name): return [1]", ""),
        ("super().__init__", "    def __setattr__(self, name, value): super().__setattr__('them', value)", ""),
        ("self.fill()", "    fill = partialmethod(setattr, 'them', [1])", "from functools import partialmethod"),
        (
            "pass",
            "    @with_them",
            (
                "from k8sflow import user_step_decorator\n@user_step_decorator\ndef with_them(step_name, flow, inputs, attributes):\n"
                "    flow.them = [1]\n    yield"
            ),
        ),
    ],
)
def test_an_attribute_that_may_be_set_is_accepted(tmp_path: Path, body: str, members: str, module: str) -> None:
    """It may be set by name, by a method, by a function that gets self, or by the class."""
    text = SET.format(body=body, members=members, module=module)
    compile_flow(load_flow(write_flow(tmp_path, text)))
