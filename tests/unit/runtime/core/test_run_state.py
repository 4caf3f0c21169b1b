"""The run's state machine by itself: every order of events, and drivers that die, without a store or a process (I5)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8sflow.errors import RunError
from k8sflow.executors.base import Finished
from k8sflow.flow.checks import graph as lint
from k8sflow.flow.decorators.policy import Catch, RetryPolicy, StepPolicy
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.core.actions import (
    Action,
    CatchCommitted,
    CatchFailure,
    DoneBefore,
    End,
    Event,
    Opened,
    PauseOver,
    Record,
    Retry,
    RunEnd,
    RunResult,
    Start,
    Submit,
)
from k8sflow.runtime.core.earlier import Earlier
from k8sflow.runtime.core.retries import Again
from k8sflow.runtime.core.run_state import OneTask, RunState
from k8sflow.storage.records import OutcomeRecord
from k8sflow.task.result import TaskResult, Transition
from k8sflow.task.spec import TaskName, TaskSpec
from tests.unit.flow.graphs import PLACE, SEQUENCES, Foreach, Part, Plain, taken, unchecked

SUCCEEDED = TaskResult(Outcome.SUCCEEDED, Transition(("end",)))
USER_ERROR = TaskResult(Outcome.USER_ERROR)
WIDTHS = st.lists(st.integers(0, 3), min_size=1, max_size=4)


def _graph(*parts: Part) -> Graph:
    graph, mistakes = lint.check(unchecked(parts), PLACE)
    assert mistakes == []
    return graph


class World:
    """A store and a cluster: results, ends of executions, and which of them run."""

    def __init__(self, graph: Graph, widths: Sequence[int], order: random.Random, limit: int | None = None) -> None:
        self.graph = graph
        self.widths = widths
        self.order = order
        self.limit = limit
        self.policies: dict[str, StepPolicy] = {}
        self.fails: Callable[[TaskSpec], bool] = lambda _: False
        self.outlives = False
        self.transitions: dict[TaskName, Transition] = {}
        self.ended: dict[TaskName, dict[int, OutcomeRecord]] = {}
        self.started: dict[TaskName, int] = {}
        self.running: dict[TaskName, TaskSpec] = {}
        self.followed: dict[TaskName, TaskSpec] = {}
        self.executions: Counter[tuple[TaskName, int]] = Counter()
        self.actions: list[Action] = []

    def earlier(self) -> Earlier:
        """The records that a driver finds which takes over."""
        open_tasks = self.started.keys() - self.transitions.keys()
        return Earlier(
            {str(name): found for name, found in self.transitions.items()},
            {str(name): self.started[name] for name in open_tasks},
            {str(name): self.ended.get(name, {}) for name in open_tasks},
        )

    def drive(self, moments: int = -1) -> RunResult | None:
        """Drives the run to its end; None where the driver dies, after so many events."""
        self.followed.clear()
        for task in [*self.running.values()] if self.outlives else []:
            if self.order.random() < 0.5:  # it ends while it has no driver
                self._finish(task)
        if not self.outlives:
            self.running.clear()
        state = RunState(
            self.graph, "r", policies=self.policies, outlives=lambda _: self.outlives, earlier=self.earlier()
        )
        events: list[Event] = [Start(0.0)]
        while moments != 0:
            moments -= 1
            for action in state.handle(self._some(events)):
                self.actions.append(action)
                match action:
                    case End(result):
                        assert state.handle(PauseOver([])) == []
                        return result
                    case Submit(tasks):
                        self.running |= {task.name: task for task in tasks}
                        self.followed |= {task.name: task for task in tasks}
                        self.started |= {task.name: task.attempt for task in tasks}
                    case Retry(tasks=tasks):
                        events.append(PauseOver(tasks))
                    case CatchFailure(task):
                        step = task.name.step
                        self.transitions[task.name] = Transition(self.graph[step].next)
                        events.append(CatchCommitted(task, TaskResult(Outcome.SUCCEEDED, self.transitions[task.name])))
        return None

    def _some(self, events: list[Event]) -> Event:
        """One of the events that can be next, in whatever order."""
        index = self.order.randrange(len(events) + len(self.followed))
        if index < len(events):
            return events.pop(index)
        return self._finish(self.followed.pop(list(self.followed)[index - len(events)]))

    def _finish(self, task: TaskSpec) -> Finished:
        """Lets an execution end."""
        del self.running[task.name]
        self.executions[task.name, task.attempt] += 1
        if self.fails(task):
            self.ended.setdefault(task.name, {})[task.attempt] = OutcomeRecord(Outcome.USER_ERROR, 0.0)
            return Finished(task, USER_ERROR)
        assert task.name not in self.transitions, f"{task.name} has two results"
        self.transitions[task.name] = self._transition(task)
        return Finished(task, TaskResult(Outcome.SUCCEEDED, self.transitions[task.name]))

    def _transition(self, task: TaskSpec) -> Transition:
        node = self.graph[task.name.step]
        steps = taken(node, task.name.path, task.name.turn, list(self.widths))
        if node.foreach is None:
            return Transition(steps)
        position = list(self.graph.nodes).index(node.name) + sum(task.name.path)
        return Transition(steps, self.widths[position % len(self.widths)], self.limit)


@settings(max_examples=100, deadline=None)
@given(SEQUENCES, WIDTHS, st.integers(0, 10**6))
def test_every_order_of_events_leads_to_the_end(parts: tuple[Part, ...], widths: list[int], seed: int) -> None:
    """Each task runs once, and nothing runs when the run has ended."""
    world = World(_graph(*parts), widths, random.Random(seed), limit=seed % 3 or None)
    assert world.drive() == RunResult(RunEnd.SUCCEEDED)
    assert set(world.executions.values()) == {1}
    assert world.executions[TaskName("end"), 0] == 1
    assert world.running == {}


@settings(max_examples=50, deadline=None)
@given(SEQUENCES, WIDTHS, st.integers(0, 10**6))
def test_a_run_continues_from_any_moment_without_running_a_committed_task_again(
    parts: tuple[Part, ...], widths: list[int], seed: int
) -> None:
    """Each driver dies one event later than the one before it; together they finish the run."""
    world = World(_graph(*parts), widths, random.Random(seed), limit=seed % 3 or None)
    moment = 0
    while world.drive(moment) is None:
        moment += 1
    assert len({name for name, _ in world.executions}) == sum(world.executions.values())
    done_before = [task.name for action in world.actions if isinstance(action, DoneBefore) for task in action.tasks]
    assert set(done_before) <= set(world.transitions)


@settings(max_examples=50, deadline=None)
@given(SEQUENCES, st.integers(0, 10**6), st.integers(0, 2), st.booleans())
def test_drivers_that_die_count_the_retries_of_those_before_them(
    parts: tuple[Part, ...], seed: int, failures: int, outlives: bool
) -> None:
    """No execution runs twice under one number, and no task fails more often than its budget allows."""
    world = World(_graph(*parts), (2,), random.Random(seed))
    world.policies = {step: StepPolicy(RetryPolicy(failures)) for step in world.graph.nodes}
    world.outlives = outlives

    def fails(task: TaskSpec) -> bool:
        return len(world.ended.get(task.name, {})) < failures

    world.fails = fails
    moment = 0
    while (result := world.drive(moment)) is None:
        moment += 1
    assert result == RunResult(RunEnd.SUCCEEDED)
    assert set(world.executions.values()) == {1}
    assert {len(found) for found in world.ended.values()} <= {failures}


@settings(max_examples=50, deadline=None)
@given(SEQUENCES, WIDTHS, st.integers(0, 10**6))
def test_a_failure_for_good_ends_the_run_at_once(parts: tuple[Part, ...], widths: list[int], seed: int) -> None:
    """With the task that failed; it is recorded before."""
    world = World(_graph(*parts), widths, random.Random(seed))
    world.fails = lambda _: True
    result = world.drive()
    assert result is not None
    assert (result.end, result.result) == (RunEnd.FAILED, USER_ERROR)
    assert [type(action) for action in world.actions] == [Submit, Record, End]


def test_a_caught_failure_is_committed_by_the_loop() -> None:
    """The machine waits for it, and continues from its result."""
    world = World(_graph(Plain()), (1,), random.Random(0))
    world.policies = {"s1": StepPolicy(catch=Catch("failed"))}
    world.fails = lambda task: task.name.step == "s1"
    assert world.drive() == RunResult(RunEnd.SUCCEEDED)
    assert [type(action) for action in world.actions] == [Submit, Submit, Record, CatchFailure, Submit, End]


def test_a_pause_that_has_passed_since_a_drivers_death_is_not_waited_for() -> None:
    """Only its rest is."""
    graph = _graph(Plain())
    earlier = Earlier(
        {"start/0": Transition(("s1",))}, {"s1/0": 0}, {"s1/0": {0: OutcomeRecord(Outcome.NODE_LOST, 100.0)}}
    )
    *_, retry = RunState(graph, "r", earlier=earlier).handle(Start(100.5))
    assert isinstance(retry, Retry)
    assert (retry.again, retry.pause_seconds) == (Again(2.0), 1.5)
    assert [task.attempt for task in retry.tasks] == [1]


def test_a_run_without_a_task_is_an_error() -> None:
    """It can't happen; if it does, it must not hang."""
    state = RunState(_graph(Plain()), "r")
    (submit,) = state.handle(Start(0.0))
    assert isinstance(submit, Submit)
    with pytest.raises(RunError, match="no task left"):
        state.handle(Finished(submit.tasks[0], TaskResult(Outcome.SUCCEEDED, Transition())))


def test_the_width_of_a_foreach_is_reported_once() -> None:
    """All of its branches, also those that max_parallel holds back, and not again when some of them run again."""
    world = World(_graph(Foreach((Plain(),))), [5], random.Random(1), limit=2)
    assert world.drive() == RunResult(RunEnd.SUCCEEDED)
    assert [action.width for action in world.actions if isinstance(action, Opened)] == [5]


@pytest.mark.parametrize(("result", "end"), [(SUCCEEDED, RunEnd.SUCCEEDED), (USER_ERROR, RunEnd.FAILED)])
def test_a_single_task_is_a_run_of_its_own(result: TaskResult, end: RunEnd) -> None:
    """As spin runs it."""
    task = TaskSpec("F", "r", TaskName("work"))
    state = OneTask(task)
    assert state.handle(Start(0.0)) == [Submit([task])]
    (action,) = state.handle(Finished(task, result))
    assert isinstance(action, End)
    assert action.result.end is end
