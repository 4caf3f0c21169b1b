# ruff: noqa: E501  the cases read better unbroken
"""The static check tells every mistake in a flow's graph, where it is, and how to write it right."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.checks import graph as lint
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.graph import Graph
from tests.support import HEAD, load_flow, write_flow
from tests.unit.flow.graphs import PLACE, SEQUENCES, Part, source, unchecked

# The flows here are skeletons: what a foreach or a switch of theirs goes by is there, whatever it is.
GIVEN = HEAD + "class Given:\n    @property\n    def x(self): return 1\n    items = x\n"
HEAD_LINES = GIVEN.count("\n")


def _build(folder: Path, text: str) -> Graph:
    return compile_flow(
        load_flow(write_flow(folder, text.replace("(FlowSpec)", "(Given, FlowSpec)"), head=GIVEN))
    ).graph


def _mistakes(folder: Path, text: str) -> list[tuple[int, str]]:
    """Line (of the text, the first being 1) and words of each mistake."""
    with pytest.raises(FlowDefinitionError) as told:
        _build(folder, text)
    error = told.value
    assert "nothing was run" in error.summary
    found: list[tuple[int, str]] = []
    for line in error.advice.splitlines():
        if line.startswith("    "):
            found[-1] = (found[-1][0], found[-1][1] + line)
        else:
            place, _, words = line.partition(": ")
            file, _, number = place.rpartition(":")
            assert file == str(folder / "flow.py")
            found.append((int(number) - HEAD_LINES, words))
    return found


def _line(text: str, mark: str = "<-") -> list[int]:
    """The lines with marks, each as often as it is marked."""
    return [i for i, line in enumerate(text.splitlines(), 1) for _ in range(line.count(mark))]


CASES: dict[str, tuple[Any, ...]] = {
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
    "a parameter that a step replaces": (
        ("class F(FlowSpec):\n  end = Parameter('end', default=1)\n  n = Parameter('n', default=1)\n  @step\n  def start(self): self.next(self.end)\n"
        "  @step\n  def end(self): pass # <-\n  n: int = 3 # <-\n  m = 1\n  m = 2\n  @property\n  def y(self): pass\n  @y.setter\n  def y(self, v): pass"),
        ["end is defined twice, there as a parameter, here as a step"], ["n is defined twice"],
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
    "foreach straight to a join": (
        ("class F(FlowSpec):\n  @step\n  def start(self):\n    self.next(self.j, foreach='items') # <-\n"
        "  @step\n  def j(self, inputs): self.next(self.end)\n  @step\n  def end(self): pass"),
        ["foreach", "j", "(self)"],
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
    "a step that goes on to itself": (
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
    "two starts and two ends": (
        ("class F(FlowSpec):\n  @step(start=True)\n  def a(self): self.next(self.b)\n  @step(start=True, end=True)\n  def b(self): pass # <-\n"
        "  @step(end=True)\n  def c(self): pass # <-"),
        ["a and b are both marked as the start"], ["b and c are both marked as the end"],
    ),
    "an end under another name that goes on": (
        "class F(FlowSpec):\n  @step\n  def start(self): self.next(self.stop)\n  @step(end=True)\n  def stop(self): self.next(self.end) # <-\n  @step\n  def end(self): pass # <-",
        ["step stop has a next step", "where the run ends"], ["step end has no self.next"],
    ),
    "a start under another name to come back to": (
        "class F(FlowSpec):\n  @step(start=True)\n  def load(self): self.next(self.a)\n  @step\n  def a(self): self.next(self.load) # <-\n  @step\n  def end(self): pass",
        ["a goes back to load"],
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
    "a wrong max_parallel": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, max_parallel=0) # <- <-\n  @step\n  def a(self): self.next(self.b, foreach='x', max_parallel=True) # <-\n"
        "  @step\n  def b(self): self.next(self.j)\n  @step\n  def j(self, inputs): self.next(self.end)\n  @step\n  def end(self): pass"),
        ["max_parallel in step start limits nothing", "foreach"], ["max_parallel=0 in step start is not a number from 1"], ["max_parallel=True"],
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
    "num_parallel over two steps and with a foreach": (
        "class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.end, num_parallel=2, foreach='x') # <- <- <-\n  @step\n  def a(self): self.next(self.end)\n  @step\n  def end(self): pass",
        ["foreach over 2 steps"], ["num_parallel over 2 steps"], ["foreach and num_parallel in one"],
    ),
    "a case that is missing for a literal": (
        ("class F(FlowSpec):\n  @step\n  def start(self):\n    if self.n > 3:\n      self.x = 'large'\n    elif self.n:\n      self.x = 'middle' # <-\n    else:\n      self.x = 'small'\n"
        "    print(self.x)\n    self.next({'large': self.end, 'small': self.end}, condition='x')\n  @step\n  def end(self): pass"),
        ["self.x can be 'middle'", "start (line", "'middle': self.step_name"],
    ),
    "a case that is missing for a comparison": (
        ("class F(FlowSpec):\n  @step\n  def start(self):\n    self.x: bool = self.n > 3 # <-\n    self.next({True: self.end, 'False': self.end}, condition='x')\n  @step\n  def end(self): pass"),
        ["self.x can be False"],
    ),
    "a case that is missing for a bool parameter": (
        ("class F(FlowSpec):\n  x = Parameter('x', default=True)\n  @step\n  def start(self):\n    self.next({'yes': self.end, True: self.end}, condition='x') # <-\n  @step\n  def end(self): pass"),
        ["self.x can be False"],
    ),
    "a case that is missing for a constant": (
        ("class F(FlowSpec):\n  x = 'deep'\n  @step\n  def start(self):\n    self.next({'wide': self.end, True: self.end}, condition='x') # <-\n  @step\n  def end(self): pass"),
        ["self.x can be 'deep'"],
    ),
    "a step that doesn't go on beside branches that aren't joined": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.b)\n  @step\n  def a(self): pass # <-\n"
        "  @step\n  def b(self): self.next(self.c, foreach='items')\n  @step\n  def c(self): self.next(self.end)\n"
        "  @step\n  def end(self): pass # <-"),
        ["step a has no self.next"], ["branches of b reach the end"],
    ),
    "a circle and a join of nothing beside a step that can't be read": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.b, self.d)\n  @step\n  def a(self, x, y): # <-\n    self.next(self.j)\n"
        "  @step\n  def b(self): self.next(self.c)\n  @step\n  def c(self): self.next(self.b) # <-\n  @step\n  def d(self): self.next(self.j)\n"
        "  @step\n  def j(self, inputs): self.next(self.end)\n  @step\n  def end(self): pass"),
        ["a takes (self, x, y)"], ["in a circle: b -> c -> b"],
    ),
    "joins that can't be, beside an unknown step": (
        ("class F(FlowSpec):\n  @step\n  def start(self): self.next(self.a, self.b)\n  @step\n  def a(self): self.next(self.jion) # <-\n"
        "  @step\n  def b(self): self.next(self.c, self.d)\n  @step\n  def c(self): self.next(self.j)\n  @step\n  def d(self): self.next(self.k)\n"
        "  @step\n  def j(self, inputs): self.next(self.k)\n  @step\n  def k(self, inputs): # <-\n    self.next(self.end)\n"
        "  @step\n  def end(self): pass"),
        ["'jion', which is not a step"], ["k joins", "weren't split together"],
    ),
    "steps under what hides them": (
        ("class F(FlowSpec):\n  @staticmethod\n  @step\n  def start(self): # <-\n    self.next(self.a)\n  @classmethod\n  @step\n  def a(self): # <-\n    self.next(self.b)\n"
        "  @(lambda function: None)\n  @step\n  def b(self): # <-\n    self.next(self.end)\n  @step\n  def end(self): pass"),
        ["start is under @staticmethod", "Remove @staticmethod"], ["a is under @classmethod"],
        ["a decorator above @step of b turned it into a NoneType", "functools.wraps"],
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
    "what no step can set": (
        ("from k8sflow import Config\nclass F(FlowSpec):\n  n = Parameter('n', default=1)\n  c = Config('c', default_value={})\n  limit = 3\n  @step\n  def start(me):\n"
        "    if me.n is None:\n      me.n = 2 # <-\n    me.y, me.c = 1, 2 # <-\n    me.limit += 1 # <-\n    me.end = 1 # <-\n    me.index: int = 3 # <-\n    me.next(me.end)\n"
        "  @step\n  def end(self): pass"),
        ["start sets self.n, which is the Parameter 'n'", "under another name"], ["self.c, which is a Config"],
        ["self.limit, which is a constant"], ["self.end, which is a step of F"], ["self.index, which is a part of every flow"],
    ),
    "several at once": (
        ("class F(FlowSpec):\n  @step\n  def start(self):\n    self.next(self.a, self.b, fourach='x') # <-\n"
        "  @step\n  def a(self, x, y): # <-\n    self.next(self.jion) # <-\n  @step\n  def b(self):\n    self.next() # <-\n"
        "  @step\n  def join(self, inputs): self.next(self.end)\n  @step\n  def end(self): pass"),
        ["fourach"], ["a takes (self, x, y)"], ["'jion'", "'join'"], ["step b has no self.next"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_told_with_its_line_and_advice(tmp_path: Path, case: str) -> None:
    """Each of them, in the order of the source, and nothing that follows from them."""
    text, *expected = CASES[case]
    found = _mistakes(tmp_path, text)
    assert [line for line, _ in found] == _line(text), found
    for (_, words), wanted in zip(found, expected, strict=True):
        for word in wanted:
            assert word in words


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
)  # fmt: skip
def test_a_value_that_may_not_come_to_the_switch_is_no_mistake(tmp_path: Path, body: str) -> None:
    """Only what is certain is told before the run; the rest when the value is there."""
    indented = textwrap.indent(body, "    ")
    graph = _build(
        tmp_path,
        f"class F(FlowSpec):\n  @step\n  def start(self):\n{indented}\n"
        "    self.next({'a': self.end, 'b': self.end}, condition='x')\n  @step\n  def end(self): pass",
    )
    assert graph["start"].cases == (("'a'", "end"), ("'b'", "end"))


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
def test_setting_a_parameter_where_it_may_be_meant_is_no_mistake(tmp_path: Path, body: str) -> None:
    """The error may be awaited there, or self be something else."""
    _build(
        tmp_path,
        "class F(FlowSpec):\n  n = Parameter('n', default=1)\n  @step\n  def start(self):\n"
        f"{textwrap.indent(body, '    ')}\n    self.next(self.end)\n  @step\n  def end(self): pass",
    )


def test_a_flow_that_decides_by_itself_what_is_set_may_set_anything(tmp_path: Path) -> None:
    _build(
        tmp_path,
        "class F(FlowSpec):\n  n = 1\n  def __setattr__(self, name, value): super().__setattr__('own_' + name, value)\n"
        "  @step\n  def start(self):\n    self.n = 2\n    self.next(self.end)\n  @step\n  def end(self): pass",
    )


def test_a_method_that_no_step_goes_on_to_is_no_step(tmp_path: Path) -> None:
    """Whatever it calls, and whatever stands above it."""
    graph = _build(
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


@pytest.mark.parametrize("name", ["only", "start", "end"])
def test_an_only_step_is_the_start_and_the_end(tmp_path: Path, name: str) -> None:
    """Under any name."""
    graph = _build(tmp_path, f"class F(FlowSpec):\n  @step\n  def {name}(self): pass")
    assert graph.start == graph.end == name


def test_a_step_may_be_written_in_odd_ways(tmp_path: Path) -> None:
    """Arguments that nobody has to give, options that say nothing, and somebody else's self.next."""
    graph = _build(
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


def test_a_step_may_stand_under_a_wrapper_of_what_is_no_function(tmp_path: Path) -> None:
    """As a decorator's that calls its function by an object."""
    graph = _build(
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


def test_a_step_made_from_itself_is_not_lost(tmp_path: Path) -> None:
    """A decorator that is called by hand, and another name that nothing goes on by."""
    graph = _build(
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
    [("itms", "Did you mean 'items'?"), ("papers", "self.papers = ..."), ("raet", "Did you mean 'rate'?")],
)
def test_a_foreach_and_a_switch_by_what_nothing_sets_are_told(tmp_path: Path, name: str, advice: str) -> None:
    """With the line of the transition, and the name that was meant."""
    text = UNSET.format(name=name)
    found = _mistakes(tmp_path, text)
    assert [line for line, _ in found] == _line(text)
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
        ("pass", "    @with_them",
         ("from k8sflow import user_step_decorator\n@user_step_decorator\ndef with_them(step_name, flow, inputs, attributes):\n"
         "    flow.them = [1]\n    yield")),
    ],
)  # fmt: skip
def test_what_may_be_set_is_no_mistake(tmp_path: Path, body: str, members: str, module: str) -> None:
    """In whatever way: by name, by a method, by somebody to whom self was handed, by the class."""
    text = SET.format(body=body, members=members, module=module)
    compile_flow(load_flow(write_flow(tmp_path, text)))


def test_mistakes_in_a_base_class_are_told_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are, and not where the class is used."""
    (tmp_path / "base_of_test.py").write_text(
        HEAD + "class Base(FlowSpec):\n  @step\n  def start(self):\n    self.next(self.nowhere)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(FlowDefinitionError) as told:
        _build(tmp_path, "from base_of_test import Base\nclass F(Base):\n  @step\n  def end(self): pass")
    assert (
        f"{tmp_path / 'base_of_test.py'}:{HEAD.count(chr(10)) + 4}: step start leads to 'nowhere'" in told.value.advice
    )


def test_the_first_argument_of_a_step_may_have_any_name(tmp_path: Path) -> None:
    """As that of any method."""
    graph = _build(
        tmp_path,
        "class F(FlowSpec):\n  @step\n  def start(me):\n    me.next(me.a, me.b)\n  @step\n  def a(this): this.next(this.j)\n"
        "  @step\n  def b(self): self.next(self.j)\n  @step\n  def j(flow, branches): flow.next(flow.end)\n  @step\n  def end(_): pass",
    )
    assert graph["start"].next == ("a", "b")
    assert graph["j"].joins == "start"


def test_flows_inherit_steps_and_replace_them(tmp_path: Path) -> None:
    """From flows and from plain mixins, over several levels."""
    graph = _build(
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


def test_decorators_may_stand_above_and_below_step(tmp_path: Path) -> None:
    """Ours, and a user's own that keep the function by functools.wraps; comments and docstrings don't disturb."""
    graph = _build(
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
                """What
                it does."""
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
    assert graph["start"].doc == "What\nit does."


@settings(max_examples=200)
@given(SEQUENCES)
def test_well_formed_graphs_pass(parts: tuple[Part, ...]) -> None:
    """Whatever is nested in what; and each split is joined by the join that closes it."""
    graph, mistakes = lint.check(unchecked(parts), PLACE)
    assert mistakes == []
    for node in graph.nodes.values():
        assert graph.depth(node.name) == sum(graph[s].foreach is not None for s in node.splits)
        if node.joins:
            assert graph[node.joins].splits == node.splits
            assert node.is_join
    assert Graph.from_document(graph.flow, graph.to_document()) == graph


@settings(max_examples=30, deadline=None)
@given(SEQUENCES)
def test_the_graph_that_is_read_is_the_one_that_was_written(
    tmp_path_factory: pytest.TempPathFactory, parts: tuple[Part, ...]
) -> None:
    """From source to graph."""
    graph = _build(tmp_path_factory.mktemp("flow"), source(parts))
    wanted = unchecked(parts)
    assert {n.name: (n.next, n.foreach, n.condition, n.is_join) for n in graph.nodes.values()} == {
        n.name: (n.next, n.foreach, n.condition, n.is_join) for n in wanted.nodes.values()
    }


def test_a_flow_without_source_is_told() -> None:
    """As from exec(); its graph can't be read."""
    scope: dict[str, object] = {"__name__": __name__}
    exec(textwrap.dedent(HEAD + "class F(FlowSpec):\n  @step\n  def start(self): self.next(self.end)\n"), scope)
    with pytest.raises(FlowDefinitionError, match="source of step start can't be found"):
        compile_flow(scope["F"])  # type: ignore[arg-type]


def test_a_long_flow_is_checked_quickly(tmp_path: Path) -> None:
    """A thousand steps: no recursion, no search of the source for each of them."""
    steps = "".join(
        f"  @step\n  def s{i}(self):\n    self.next(self.{f's{i + 1}' if i < 999 else 'end'})\n" for i in range(1000)
    )
    text = f"class F(FlowSpec):\n  @step\n  def start(self):\n    self.next(self.s0)\n{steps}  @step\n  def end(self): pass"
    assert len(_build(tmp_path, text).nodes) == 1002
