# ruff: noqa: E501  the cases read better unbroken
"""Mistakes in a class body: the static check reports them with all others, and never by a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8sflow import Config, FlowSpec, Parameter, StepMutator, project, resources, retry, step
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.compile import compile_flow
from tests.support import flow_command, load_flow, write_flow

HEAD = """from k8sflow import (
    Config, FlowMutator, FlowSpec, IncludeFile, Parameter, StepMutator, UserStepDecorator,
    catch, config_expr, environment, kubernetes, project, resources, retry, step, timeout, user_step_decorator)
class again(StepMutator):
    def init(self, times=3): pass
class everywhere(FlowMutator):
    def mutate(self, mutable_flow):
        for _, mutable_step in mutable_flow.steps: mutable_step.add_decorator("rety")
class kept(UserStepDecorator):
    def init(self, times, *, pause=1): pass
class bare(UserStepDecorator): pass
class made(UserStepDecorator):
    def __init__(self): pass
@user_step_decorator
def timed(step_name, flow, inputs, attributes): yield
@user_step_decorator
def still(step_name, flow, inputs, attributes): pass
"""
END = "  @step\n  def end(self): pass\n"
FLOW = "class F(FlowSpec):\n{}  @step\n  def start(self): self.next(self.end)\n" + END


def above_start(*decorators: str) -> str:
    lines = "".join(f"  {line}\n" for line in decorators)
    return f"class F(FlowSpec):\n{lines}  def start(self): self.next(self.end)\n{END}"


CASES = {
    "an unknown option": (above_start("@resources(cpus=2) # <-", "@step"), "@resources has no option 'cpus'", "Did you mean 'cpu'?"),
    "an unknown option that is None": (above_start("@resources(cpus=None) # <-", "@step"), "no option 'cpus'"),
    "a wrong value": (above_start("@resources(memory='lots') # <-", "@step"), "'lots' is not an amount of memory"),
    "two of them": (above_start("@resources(memory='lots', cpu=-1) # <- <-", "@step"), "'lots'", "cpu=-1"),
    "below @step": (above_start("@step", "@retry(times='x') # <-"), "times='x'"),
    "by position": (above_start("@retry(3) # <-", "@step"), "by name, not 3.", "@retry(times=3)"),
    "options that go together": (above_start("@timeout # <-", "@step"), "needs a time"),
    "a long decorator": (above_start("@kubernetes( # <-", "  imagee='x',", ")", "@step"), "Did you mean 'image'"),
    "a decorator of one's own, by position": (above_start("@timed(5) # <-", "@step"), "@timed takes its options by name"),
    "one that isn't a generator": (above_start("@still # <-", "@step"), "still does not yield"),
    "a class's options": (above_start("@kept(tims=3) # <-", "@step"), "@kept has no option 'tims'", "Did you mean 'times'"),
    "those that it needs": (above_start("@kept # <-", "@step"), "@kept: missing a required argument: 'times'"),
    "too many for a class": (above_start("@kept(1, 2) # <-", "@step"), "@kept takes its options by name, not 1, 2"),
    "those of a class without": (above_start("@bare(a=3) # <-", "@step"), "@bare has no option 'a'", "takes no options"),
    "a class with __init__": (above_start("@made # <-", "@step"), "@made has an __init__", "by init(self, ...)"),
    "a class above a flow": ("@bare # <-\n" + FLOW.format(""), "@bare is on the class F"),
    "a class above a method": (FLOW.format("  @bare # <-\n  def help(self): pass\n"), "@bare is on help, which is not a step"),
    "a mutator's options": (above_start("@again(tims=3) # <-", "@step"), "@again has no option 'tims'", "Did you mean 'times'"),
    "too many of them": (above_start("@again(3, 4) # <-", "@step"), "too many positional arguments"),
    "what a mutator adds": ("@everywhere # <-\n" + FLOW.format(""), "Did you mean 'retry'"),
    "a step mutator above a class": ("@again # <-\n" + FLOW.format(""), "@again is on F", "above a step's def"),
    "a flow mutator above a step": (above_start("@everywhere # <-", "@step"), "@everywhere is on start", "above a flow's class"),
    "a mutator below @step": (above_start("@step", "@again(tims=1) # <-"), "no option 'tims'"),
    "a step's above a class": ("@resources(cpu=2) # <-\n" + FLOW.format(""), "@resources is on the class F"),
    "a step's wrong one above a class": ("@resources(cpus=2) # <- <-\n" + FLOW.format(""), "is on the class F", "'cpus'"),
    "a flow's above a step": (above_start("@project(name='x') # <-", "@step"), "@project is on the function start"),
    "a flow's option": ("@project(nme='x') # <-\n" + FLOW.format(""), "Did you mean 'name'"),
    "above a method": (FLOW.format("  @retry # <-\n  def help(self): pass\n"), "@retry is on help, which is not a step"),
    "a mutator above a method": (FLOW.format("  @again # <-\n  def help(self): pass\n"), "@again is on help"),
    "above a property": (FLOW.format("  @retry # <-\n  @property\n  def help(self): pass\n"), "@retry is on", "property", "is not a method"),
    "a mutator above a property": (FLOW.format("  @again() # <-\n  @property\n  def help(self): pass\n"), "@again is on"),
    "above a static method": (FLOW.format("  @retry # <-\n  @staticmethod\n  def help(): pass\n"), "@retry is on help"),
    "above an inner class": (FLOW.format("  @retry # <-\n  class Help: pass\n"), "@retry is on Help"),
    "above a function": ("@retry # <-\ndef help(): pass\n" + FLOW.format(""), "@retry is on help, which is not a step of a flow"),
    "@step's option": (above_start("@step(strat=True) # <-"), "Did you mean 'start'"),
    "@step by position": (above_start("@step('start') # <-"), "@step takes its options by name, not 'start'"),
    "@step above a property": (FLOW.format("  @step # <-\n  @property\n  def help(self): pass\n"), "@step is on a property"),
    "@step above a class": (FLOW.format("  @step # <-\n  class Help: pass\n"), "@step is on the class Help"),
    "@step above a static method": (FLOW.format("  @step # <-\n  @staticmethod\n  def help(): pass\n"), "@step is on a staticmethod"),
    "a parameter's option": (FLOW.format("  n = Parameter('n', defalt=1) # <-\n"), "Parameter has no option 'defalt'", "Did you mean 'default'"),
    "a parameter without a name": (FLOW.format("  n = Parameter() # <-\n"), "missing a required argument: 'name'"),
    "a parameter's type": (FLOW.format("  n = Parameter('n', type=list) # <-\n"), "not one of str, int"),
    "a parameter's default": (FLOW.format("  n = Parameter('n', type=int, default='x') # <-\n"), "'x' is not of type int"),
    "a parameter's name": (FLOW.format("  n = Parameter('tag') # <-\n"), "the name is taken"),
    "two parameters": (FLOW.format("  a = Parameter('n')\n  b = Parameter('n') # <-\n"), "two parameters with the name 'n': a and b"),
    "a file's option": (FLOW.format("  n = IncludeFile('n', is_txt=True) # <-\n"), "Did you mean 'is_text'"),
    "two values of a config": (FLOW.format("  c = Config('c', default='c.json', default_value={}) # <-\n"), "default and default_value are both set", "Keep default"),
    "a config's option": (FLOW.format("  c = Config('c', defalt=1) # <-\n  n = Parameter('n', default=c.n)\n  m = Parameter('m', default=c['m'])\n"), "Config has no option 'defalt'"),
    "what a config doesn't have": (FLOW.format("  c = Config('c', default_value={'a': 1})\n  @resources(cpu=c.b) # <-\n"), "cpu=<c.b>", "no 'b'"),
    "what a config has, but wrong": (FLOW.format("  c = Config('c', default_value={'a': -1})\n  @resources(cpu=c.a) # <-\n"), "'-1'"),
}  # fmt: skip


def mistakes(folder: Path, source: str) -> tuple[list[int], str]:
    """Return the lines of the mistakes, counted from the end of the head, and the report."""
    file = write_flow(folder, source, head=HEAD)
    with pytest.raises(FlowDefinitionError) as raised:
        compile_flow(load_flow(file))
    lines = [line.split(":")[1] for line in raised.value.advice.splitlines() if line.startswith(f"{file}:")]
    return [int(line) - HEAD.count("\n") for line in lines], raised.value.advice


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_reported_with_its_line(tmp_path: Path, case: str) -> None:
    """The report comes when the flow's graph is built, and proposes a correction."""
    source, *words = CASES[case]
    lines, report = mistakes(tmp_path, source)
    marked = [i for i, line in enumerate(source.splitlines(), 1) for _ in range(line.count("<-"))]
    assert lines == marked, report
    assert [word for word in words if word not in report] == [], report


ALL = """
    @resources(cpu=1)
    class F(FlowSpec):
        n = Parameter("n", type=int, default="x")
        @resources(cpus=2, memory="lots")
        @retry(times="x")
        @step
        def start(self):
            self.next(self.ende)
        @again(tims=3)
        @step
        def end(self): pass
"""


@pytest.mark.parametrize("arguments", [("run", "--n", "3"), ("check",), ("show",)], ids=" ".join)
def test_all_mistakes_of_a_flow_are_reported_at_once(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Every command does so, with exit code 1 and no traceback, even if the command line itself can't be built."""
    done = flow_command(write_flow(tmp_path, ALL, head=HEAD), *arguments)
    assert done.returncode == 1
    assert "F has 7 mistakes; nothing was run." in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["flow.py"]


def test_outside_of_a_class_a_mistake_is_an_error_at_once() -> None:
    """Nothing would check it later."""

    def function(self: object) -> None: ...

    class Again(StepMutator):
        """A mutator without effect."""

    for wrong in (
        lambda: retry(tims=3)(function),
        lambda: retry(3)(function),
        lambda: project(name="x")(function),
        lambda: step(strat=True)(function),  # type: ignore[call-overload]
        lambda: step(property(function)),  # type: ignore[call-overload]
        lambda: Parameter("n", defalt=1),  # type: ignore[call-arg]
        lambda: Config("n", defalt=1),  # type: ignore[call-arg]
        lambda: Again()(int),
    ):
        with pytest.raises(FlowDefinitionError):
            wrong()


def test_a_mistake_in_a_base_belongs_to_the_flow() -> None:
    """It is reported once; so is a mixin's."""

    class Mixin:
        @resources(cpus=2)
        @step
        def start(self) -> None:
            self.next(self.end)  # type: ignore[attr-defined]

    class F(Mixin, FlowSpec):
        n = Parameter("n", defalt=1)  # type: ignore[call-arg]

        @step
        def end(self) -> None: ...

    class G(F): ...

    with pytest.raises(FlowDefinitionError, match="G has 2 mistakes"):
        compile_flow(G)
