"""Flows under test."""

from __future__ import annotations

import os
from typing import Any

from k8sflow import (
    Config,
    FlowMutator,
    FlowSpec,
    MutableFlow,
    Parameter,
    catch,
    config_expr,
    current,
    environment,
    parallel,
    parallel_map,
    project,
    retry,
    step,
    user_step_decorator,
)


@user_step_decorator
def marked(step_name: str, flow: Any, inputs: Any, attributes: Any) -> Any:
    flow.marks = [*getattr(flow, "marks", []), step_name]
    yield


@project(name="tested")
class Grid(FlowSpec):
    """A foreach with a split, a loop and a switch in it, and every decorator that a step may have."""

    n = Parameter("n", default=3)
    rate = Parameter("learning-rate", default=0.5)
    FACTOR = 7

    @step
    def start(self):
        self.items = list(range(self.n))
        self.base = 10
        self.project = current.project_flow_name
        self.next(self.work, foreach="items")

    @marked
    @environment(vars={"PLACE": "here"})
    @retry(times=2, minutes_between_retries=500)
    @step
    def work(self):
        if current.retry_count < 1:
            raise ConnectionError(f"{self.input} is busy")
        self.value = self.base + self.input * self.FACTOR
        self.seen = (os.environ["PLACE"], current.step_name, current.task_id, self.index)
        self.next(self.left, self.right)

    @step
    def left(self):
        self.squares = parallel_map(lambda number: number**2, range(self.input))
        self.next(self.meet)

    @catch(var="failed")
    @step
    def right(self):
        self.quotient = 6 / self.input
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.merge_artifacts(inputs, exclude=["failed"])
        self.failed = inputs.right.failed
        self.turns = 0
        self.next(self.turn)

    @step
    def turn(self):
        self.turns += 1
        self.is_done = self.turns > self.input
        self.next({True: self.join, False: self.turn}, condition="is_done")

    @step
    def join(self, inputs):
        self.values = [branch.value for branch in inputs]
        self.inputs = [branch.input for branch in inputs]
        self.failures = [branch.failed.exception for branch in inputs if branch.failed]
        self.turns = [branch.turns for branch in inputs]
        self.marks = inputs[0].marks
        self.next(self.end)

    @step
    def end(self):
        self.doubled = self.rate * 2


class Nested(FlowSpec):
    """Nested foreaches."""

    @step
    def start(self):
        self.letters = "ab"
        self.next(self.outer, foreach="letters")

    @step
    def outer(self):
        self.numbers = [1, 2]
        self.next(self.inner, foreach="numbers")

    @step
    def inner(self):
        self.stack = self.foreach_stack()
        self.word = f"{self.stack[0][2]}{self.input}"
        self.next(self.collect)

    @step
    def collect(self, inputs):
        self.words = [branch.word for branch in inputs]
        self.letter = self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.words = [word for branch in inputs for word in branch.words]
        self.next(self.end)

    @step
    def end(self):
        pass


class Ways(FlowSpec):
    """A split with a branch that goes directly to the join, and parallel processes that know each other."""

    @step
    def start(self):
        self.x = 1
        self.next(self.a, self.join)

    @step
    def a(self):
        self.y = self.x + 1
        self.next(self.join)

    @step
    def join(self, inputs):
        self.sums = [inputs.a.y, inputs.start.x]
        self.next(self.train, num_parallel=2)

    @parallel
    @step
    def train(self):
        self.place = (current.parallel.node_index, current.parallel.num_nodes)
        self.next(self.collect)

    @step
    def collect(self, inputs):
        self.places = [branch.place for branch in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


class Fails(FlowSpec):
    """A step that raises its parameter."""

    what: type[BaseException] = ValueError

    @retry(times=2)
    @step
    def start(self):
        executions.append(current.retry_count)
        raise raised[0]
        self.next(self.end)

    @step
    def end(self):
        pass


raised: list[BaseException] = []
executions: list[int | None] = []


class many(FlowMutator):  # noqa: N801  it is written as a decorator
    """A mutator that adds a parameter for each name in the config, and retries as often as it says."""

    def pre_mutate(self, mutable_flow: MutableFlow) -> None:
        for name in mutable_flow.limits["names"]:
            mutable_flow.add_parameter(name, Parameter(name, default=name.upper()))

    def mutate(self, mutable_flow: MutableFlow) -> None:
        mutable_flow.start.add_decorator("retry", deco_kwargs={"times": mutable_flow.limits["times"]})


def doubled(number: int) -> int:
    return number * 2


@many
class Configured(FlowSpec):
    """A flow whose parameters, variables and retries depend on a config."""

    limits = Config("the-limits", default_value={"times": 0, "names": ["one"], "place": "home"})
    rows = Parameter("rows", default=config_expr("doubled(len(limits.names)) + int(limits.times)"), type=int)

    @environment(vars={"PLACE": limits.place})
    @step
    def start(self):
        if current.retry_count < 1 and self.limits.times:
            raise ConnectionError("busy")
        self.seen = (self.rows, os.environ["PLACE"], self.limits.place, [getattr(self, n) for n in self.limits.names])
        self.next(self.end)

    @step
    def end(self):
        pass
