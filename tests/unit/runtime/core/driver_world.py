"""The world around a driver in tests: a store, and an executor that does what a test says."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from k8sflow.executors.base import Finished, Report, Started, TaskEvent
from k8sflow.flow.checks import graph as lint
from k8sflow.flow.decorators.policy import Catch, StepPolicy
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.core.actions import RunResult
from k8sflow.runtime.core.earlier import read_earlier
from k8sflow.runtime.core.inbox import Inbox
from k8sflow.runtime.core.loop import Loop
from k8sflow.runtime.core.observer import Observer
from k8sflow.runtime.core.retries import Again
from k8sflow.runtime.core.run_state import RunState
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import Commit, ForeachItems
from k8sflow.storage.run_store import RunStore
from k8sflow.task.result import TaskResult, Transition, failed
from k8sflow.task.spec import TaskName, TaskSpec
from tests.unit.flow.graphs import PLACE, Part, taken, unchecked


class DriverKilled(BaseException):
    """The driver's process is dead: nothing of it runs after this."""


class FakeExecutor:
    """Runs tasks by committing them, one after the other, in an order that the test gives."""

    def __init__(self, report: Report, world: World) -> None:
        self.report = report
        self.world = world
        self.waiting: list[TaskSpec] = []
        self.cancelled = self.closed = 0

    def submit(self, tasks: Sequence[TaskSpec]) -> None:
        self.world.change()
        self.waiting += tasks
        if len(self.waiting) == len(tasks):
            self._finish_one()

    def _finish_one(self) -> None:
        if self.waiting:
            spec = self.waiting.pop(self.world.order.randrange(len(self.waiting)))
            self.report(Started(spec, "here"))
            self.report(Finished(spec, self.world.run(spec)))

    def acted(self) -> None:
        """The driver has acted on an event."""
        self._finish_one()

    def cancel(self) -> None:
        self.cancelled += 1

    end = cancel

    def close(self) -> None:
        self.closed += 1


class World(Observer):
    """The world around drivers: the store, and how tasks behave."""

    def __init__(
        self,
        graph: Graph,
        folder: Path,
        widths: Sequence[int] = (2,),
        order: random.Random | None = None,
        *,
        limit: int | None = None,
    ) -> None:
        self.graph = graph
        self.run_store = RunStore(FolderStore(str(folder)), "F", "r")
        self.widths = widths
        self.limit = limit
        self.order = order or random.Random(0)
        self.ran: Counter[TaskName] = Counter()
        self.attempts: list[TaskSpec] = []
        self.behave: Callable[[TaskSpec], TaskResult | None] = lambda _: None
        self.changes_left = -1
        self.executor: FakeExecutor | None = None
        self.others: dict[str, FakeExecutor] = {}
        self.seen: list[TaskEvent] = []
        self.submitted_names: list[TaskName] = []
        self.before: list[TaskSpec] = []
        self.retries: list[TaskSpec] = []
        self.decisions: list[Again] = []
        self.catches: list[TaskSpec] = []
        self.policies: dict[str, StepPolicy] = {}
        self.outlives = True
        self.time = 1000.0
        self.started: list[tuple[float, TaskSpec]] = []

    def change(self) -> None:
        """A change of the run's state: here a driver may die."""
        if self.changes_left == 0:
            raise DriverKilled
        self.changes_left -= 1

    def run(self, spec: TaskSpec) -> TaskResult:
        """Runs a task as a process would: a commit, unless it behaves otherwise."""
        self.attempts.append(spec)
        self.started.append((self.time, spec))
        if (result := self.behave(spec)) is not None:
            return result
        self.ran[spec.name] += 1
        node = self.graph[spec.name.step]
        width = None
        if node.foreach is not None:
            width = self.widths[(list(self.graph.nodes).index(node.name) + sum(spec.name.path)) % len(self.widths)]
        steps = taken(node, spec.name.path, spec.name.turn, list(self.widths))
        commit = Commit(0, steps, {}, foreach=None if width is None else ForeachItems(width, (), self.limit))
        assert self.run_store.commit(spec.name.step, spec.name.id, commit), f"{spec.name} was committed before"
        return TaskResult(Outcome.SUCCEEDED, Transition(steps, width, None if width is None else self.limit))

    def drive(self, *, take_over: bool = False) -> RunResult:
        """Runs a driver until it ends, or dies at a change of state."""

        def executors(report: Report) -> dict[str, FakeExecutor]:
            self.executor = FakeExecutor(report, self)
            return {**self.others, "fake": self.executor}

        def state() -> RunState:
            earlier = read_earlier(self.run_store, self.graph) if take_over else None
            return RunState(self.graph, "r", policies=self.policies, outlives=lambda _: self.outlives, earlier=earlier)

        return Loop(
            self.graph,
            self.run_store,
            state=state,
            executors=executors,
            executor_of=lambda _: "fake",
            observer=self,
            clock=self,
        ).run()

    # ------------------------------------------------------------------ as an observer

    def submitted(self, group: Sequence[TaskSpec]) -> None:
        self.change()
        self.submitted_names += [task.name for task in group]

    def done_before(self, tasks: Sequence[TaskSpec]) -> None:
        self.before += tasks

    def event(self, event: TaskEvent) -> None:
        self.change()
        self.seen.append(event)
        if isinstance(event, Finished):
            assert self.executor is not None
            self.executor.acted()

    def retried(self, task: TaskSpec, result: TaskResult, again: Again) -> None:
        self.change()
        self.retries.append(task)
        self.decisions.append(again)

    def caught(self, task: TaskSpec, result: TaskResult, catch: Catch) -> None:
        self.change()
        self.catches.append(task)

    # ------------------------------------------------------------------ as a clock

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    def wait(self, inbox: Inbox, seconds: float | None) -> TaskEvent | Exception | None:
        if seconds is None or not inbox.empty():
            return inbox.get(timeout=30)
        self.time += seconds
        return None


def graph_of(*parts: Part) -> Graph:
    graph, mistakes = lint.check(unchecked(parts), PLACE)
    assert mistakes == []
    return graph


def failure(outcome: Outcome) -> TaskResult:
    return failed(outcome, f"it was {outcome.value}")
