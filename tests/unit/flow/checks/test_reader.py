# ruff: noqa: E501  the cases read better unbroken
"""Steps and their transitions, read from the source."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings

from tests.unit.flow.checks.flows import Case, build, check_case
from tests.unit.flow.graphs import SEQUENCES, Part, source, unchecked

CASES: dict[str, Case] = {
    "no next": (
        "class F(FlowSpec):\n  @step\n  def start(self):\n    x = 1 # <-\n  @step\n  def end(self): pass",
        ["start has no self.next", "self.next(self.end)"],
    ),
    "next in an if": (
        ("class F(FlowSpec):\n  @step\n  def start(self):\n    if self.x:\n      self.next(self.end) # <-\n"
        "  @step\n  def end(self): pass"),
        ["before its end", "outside of any if or loop"],
    ),
    "next twice": (
        ("class F(FlowSpec):\n  @step\n  def start(self):\n    self.next(self.end) # <-\n    self.next(self.end)\n"
        "  @step\n  def end(self): pass"),
        ["before its end"],
    ),
    "next returned": (
        "class F(FlowSpec):\n  @step\n  def start(self):\n    return self.next(self.end) # <-\n  @step\n  def end(self): pass",
        ["start returns self.next()", "without return"],
    ),
    "next in a nested function": (
        ("class F(FlowSpec):\n  @step\n  def start(self):\n    f = lambda: self.next(self.end) # <-\n    self.next(self.end)\n"
        "  @step\n  def end(self): pass"),
        ["before its end"],
    ),
    "a step in quotes": (
        "class F(FlowSpec):\n  @step\n  def start(self):\n    self.next('end') # <-\n  @step\n  def end(self): pass",
        ["\"'end'\", which is not a step", "self.next(self.step_name)"],
    ),
    "unpacked steps": (
        "class F(FlowSpec):\n  @step\n  def start(self):\n    self.next(*[self.end]) # <-\n  @step\n  def end(self): pass",
        ["*[self.end]", "which is not a step"],
    ),
    "unpacked options": (
        "class F(FlowSpec):\n  @step\n  def start(self):\n    self.next(self.end, **{}) # <-\n  @step\n  def end(self): pass",
        ["self.next() in step start", "**{}"],
    ),
    "unknown option": (
        "class F(FlowSpec):\n  @step\n  def start(self):\n    self.next(self.end, for_each='x') # <-\n  @step\n  def end(self): pass",
        ["unknown argument for_each", "Did you mean 'foreach'"],
    ),
    "foreach without quotes": (
        ("class F(FlowSpec):\n  @step\n  def start(self):\n    self.next(self.a, foreach=self.items) # <-\n"
        "  @step\n  def a(self): self.next(self.j)\n  @step\n  def j(self, inputs): self.next(self.end)\n"
        "  @step\n  def end(self): pass"),
        ["foreach=self.items", "not a name in quotes"],
    ),
    "foreach over two steps": (
        ("class F(FlowSpec):\n  @step\n  def start(self):\n    self.next(self.a, self.b, foreach='items') # <-\n"
        "  @step\n  def a(self): self.next(self.j)\n  @step\n  def b(self): self.next(self.j)\n"
        "  @step\n  def j(self, inputs): self.next(self.end)\n  @step\n  def end(self): pass"),
        ["foreach over 2 steps", "that step may branch"],
    ),
    "three arguments": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a)\n  @step\n  def a(self, b, c): # <-\n    self.next(self.end)\n"
        "  @step\n  def end(self): pass"),
        ["a takes (self, b, c)", "(self, inputs)"],
    ),
    "no arguments": (
        "class F(FlowSpec):\n  @step\n  def start(self): self.next(self.end)\n  @step\n  def end(): pass # <-",
        ["end takes ()"],
    ),
    "yield": (
        ("class F(FlowSpec):\n  @step\n  def start(self):\n    for i in range(3):\n      x = yield i # <-\n"
        "    self.next(self.end)\n  @step\n  def end(self): pass"),
        ["start has a yield", "into a method or a function"],
    ),
    "yield from": (
        ("class F(FlowSpec):\n  @step\n  def start(self):\n    self.all = list(map(lambda: (yield), []))\n"
        "    self.next(self.end)\n  @step\n  def end(self):\n    yield from self.all # <-"),
        ["end has a yield"],
    ),
    "async": (
        "class F(FlowSpec):\n  @step\n  async def start(self): # <-\n    self.next(self.end)\n  @step\n  def end(self): pass",
        ["start is async", "asyncio.run"],
    ),
    "a switch with one case": (
        "class F(FlowSpec):\n  @step\n  def start(self): self.next({1: self.end}, condition='x') # <-\n  @step\n  def end(self): pass",
        ["fewer than two cases", "self.next(self.step_name)"],
    ),
    "a switch without a condition": (
        "class F(FlowSpec):\n  @step\n  def start(self): self.next({1: self.end, 2: self.end}) # <-\n  @step\n  def end(self): pass",
        ["has no condition", "condition='size'"],
    ),
    "a condition without cases": (
        "class F(FlowSpec):\n  @step\n  def start(self): self.next(self.end, condition='x') # <-\n  @step\n  def end(self): pass",
        ["doesn't have its cases as one dict", "condition='size'"],
    ),
    "cases in a variable": (
        "class F(FlowSpec):\n  @step\n  def start(self): self.next(self.cases, condition='x') # <-\n  @step\n  def end(self): pass",
        ["doesn't have its cases as one dict"],
    ),
    "a condition without quotes, and a foreach too": (
        "class F(FlowSpec):\n  @step\n  def start(self): self.next({1: self.end, 2: self.end}, condition=self.x, foreach='y') # <- <-\n  @step\n  def end(self): pass",
        ["a switch and foreach in one"], ["condition=self.x", "not a name in quotes"],
    ),
    "cases that can't be": (
        ("class F(FlowSpec):\n  @step\n  def start(self):\n    self.next({\n      1: self.end,\n      1.0: self.end, # <-\n      f(): self.end, # <-\n"
        "      'b': end, # <-\n      **more, # <-\n    }, condition='x')\n  @step\n  def end(self): pass"),
        ["start has the case 1.0 twice"], ["case f()", "not a literal"], ["'end', which is not a step"], ["unpacks 'more'"],
    ),
    "a wrong max_parallel": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, max_parallel=0) # <- <-\n  @step\n  def a(self): self.next(self.b, foreach='x', max_parallel=True) # <-\n"
        "  @step\n  def b(self): self.next(self.j)\n  @step\n  def j(self, inputs): self.next(self.end)\n  @step\n  def end(self): pass"),
        ["max_parallel in step start limits nothing", "foreach"], ["max_parallel=0 in step start is not a number from 1"], ["max_parallel=True"],
    ),
    "num_parallel over two steps and with a foreach": (
        "class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.end, num_parallel=2, foreach='x') # <- <- <-\n  @step\n  def a(self): self.next(self.end)\n  @step\n  def end(self): pass",
        ["foreach over 2 steps"], ["num_parallel over 2 steps"], ["foreach and num_parallel in one"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_reported_with_its_line_and_advice(tmp_path: Path, case: str) -> None:
    """The report has each mistake in the order of the source, and none that only follows from another."""
    check_case(tmp_path, *CASES[case])


def test_unusual_spellings_of_a_step_are_accepted(tmp_path: Path) -> None:
    """A step may have optional arguments and empty options, and other objects may have a method called next."""
    graph = build(
        tmp_path,
        """
        class F(FlowSpec):
          @step
          def start(self, *more, **options):
            class Stream:
              def __next__(self): return self.next()
              def next(self): raise StopIteration
            skip = lambda self: self.next()
            self.next(self.a, foreach=None)
          @step
          def a(self, *, debug=False): self.next(self.end, condition=None, num_parallel=None)
          @step
          def end(self): pass
        """,
    )
    assert [node.next for node in graph.nodes.values()] == [("a",), ("end",), ()]


def test_the_first_argument_of_a_step_may_have_any_name(tmp_path: Path) -> None:
    """The same holds for any method."""
    graph = build(
        tmp_path,
        "class F(FlowSpec):\n  @step\n  def start(me):\n    me.next(me.a, me.b)\n  @step\n  def a(this): this.next(this.j)\n"
        "  @step\n  def b(self): self.next(self.j)\n  @step\n  def j(flow, branches): flow.next(flow.end)\n  @step\n  def end(_): pass",
    )
    assert graph["start"].next == ("a", "b")
    assert graph["j"].joins == "start"


@settings(max_examples=30, deadline=None)
@given(SEQUENCES)
def test_the_graph_that_is_read_is_the_one_that_was_written(
    tmp_path_factory: pytest.TempPathFactory, parts: tuple[Part, ...]
) -> None:
    """A graph survives the round trip by its source."""
    graph = build(tmp_path_factory.mktemp("flow"), source(parts))
    wanted = unchecked(parts)
    assert {n.name: (n.next, n.foreach, n.condition, n.is_join) for n in graph.nodes.values()} == {
        n.name: (n.next, n.foreach, n.condition, n.is_join) for n in wanted.nodes.values()
    }
