"""The statements that define a flow's steps: in bases, under decorators, without a source."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.compile import compile_flow
from tests.support import HEAD
from tests.unit.flow.checks.flows import build


def test_a_wrapper_may_wrap_a_callable_object(tmp_path: Path) -> None:
    """functools.wraps then leads to something other than a function."""
    graph = build(
        tmp_path,
        """
        import functools
        class Call:
          def __init__(self, function): self.function = function
          def __call__(self, *arguments): return self.function(*arguments)
        def called(function):
          call = Call(function)
          @functools.wraps(call)
          def wrapper(self): return call(self)
          return wrapper
        class F(FlowSpec):
          @step
          @called
          def start(self): self.next(self.end)
          @step
          def end(self): pass
        """,
    )
    assert graph["start"].next == ("end",)


def test_mistakes_in_a_base_class_are_reported_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report has their own file, not that of the derived class."""
    (tmp_path / "base_of_test.py").write_text(
        HEAD + "class Base(FlowSpec):\n  @step\n  def start(self):\n    self.next(self.nowhere)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(FlowDefinitionError) as raised:
        build(tmp_path, "from base_of_test import Base\nclass F(Base):\n  @step\n  def end(self): pass")
    assert (
        f"{tmp_path / 'base_of_test.py'}:{HEAD.count(chr(10)) + 4}: step start leads to 'nowhere'"
        in raised.value.advice
    )


def test_flows_inherit_steps_and_replace_them(tmp_path: Path) -> None:
    """Steps come from flows and from plain mixins, over several levels."""
    graph = build(
        tmp_path,
        """
        class Mixin:
            @step
            def middle(self):
                self.next(self.end)
        class Base(FlowSpec):
            @step
            def start(self):
                self.next(self.end)
            @step
            def end(self):
                "of the base"
        class F(Mixin, Base):
            @step
            def start(self):
                self.next(self.middle)
        """,
    )
    assert {name: node.next for name, node in graph.nodes.items()} == {
        "start": ("middle",),
        "middle": ("end",),
        "end": (),
    }
    assert graph["end"].doc == "of the base"


def test_decorators_may_be_above_and_below_step(tmp_path: Path) -> None:
    """They may be k8sflow's, or a user's with functools.wraps; comments and docstrings don't matter."""
    graph = build(
        tmp_path,
        '''
        import functools
        def logged(function):
            @functools.wraps(function)
            def wrapper(*args):
                return function(*args)
            return wrapper
        class F(FlowSpec):
            @resources(cpu=1)
            @step
            @logged
            def start(self):
                """Says
                hello."""
                # self.next(self.nowhere)
                "self.next(self.nowhere)"
                self.next(
                    self.end,
                )  # done
            @logged
            @step
            @resources(
                memory=100
            )
            def end(self): pass
        ''',
    )
    assert graph["start"].next == ("end",)
    assert graph["start"].doc == "Says\nhello."


def test_a_flow_without_source_is_an_error() -> None:
    """The graph of a flow from exec() can't be read."""
    scope: dict[str, object] = {"__name__": __name__}
    exec(textwrap.dedent(HEAD + "class F(FlowSpec):\n  @step\n  def start(self): self.next(self.end)\n"), scope)
    with pytest.raises(FlowDefinitionError, match="source of step start can't be found"):
        compile_flow(scope["F"])  # type: ignore[arg-type]
