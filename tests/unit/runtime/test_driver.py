"""The driver, against an executor that does what a test says: failures, retries, and a run taken up again (I5)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k8sflow.errors import RunError, StorageError
from k8sflow.executors.base import Finished, Started, TaskEvent
from k8sflow.flow import lint
from k8sflow.flow.graph import Graph
from k8sflow.runtime.driver import INFRASTRUCTURE_RETRIES, Driver, Report, RunResult
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import Commit, ForeachItems, RunStore
from k8sflow.task.outcome import Diagnosis, Outcome
from k8sflow.task.result import TaskResult, Transition
from k8sflow.task.spec import TaskName, TaskSpec
from tests.unit.flow.graphs import PLACE, SEQUENCES, Foreach, Part, Plain, Split, taken, unchecked


class DriverKilled(BaseException):
    """The driver's process is gone: nothing of it runs after this."""


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

    def went_on(self) -> None:
        """The driver has acted on an event."""
        self._finish_one()

    def cancel(self) -> None:
        self.cancelled += 1

    def close(self) -> None:
        self.closed += 1


class World:
    """What outlives a driver: the store, and how tasks behave."""

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
        self.seen: list[TaskEvent] = []
        self.retries: list[TaskSpec] = []

    def change(self) -> None:
        """A change of the run's state: here a driver may die."""
        if self.changes_left == 0:
            raise DriverKilled
        self.changes_left -= 1

    def run(self, spec: TaskSpec) -> TaskResult:
        """Runs a task as a process would: a commit, unless it behaves otherwise."""
        self.attempts.append(spec)
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

    def drive(self, *, go_on: bool = False) -> RunResult:
        """Runs a driver until it ends, or dies at a change of state."""

        def executors(report: Report) -> dict[str, FakeExecutor]:
            self.executor = FakeExecutor(report, self)
            return {"fake": self.executor}

        driver = Driver(
            self.graph, self.run_store, executors=executors, executor_of=lambda _: "fake", observers=[self]
        )  # fmt: skip
        return driver.run(go_on=go_on)

    # ------------------------------------------------------------------ as an observer

    def submitted(self, group: Sequence[TaskSpec]) -> None:  # noqa: ARG002  as the protocol has it
        self.change()

    def event(self, event: TaskEvent) -> None:
        self.change()
        self.seen.append(event)
        if isinstance(event, Finished):
            assert self.executor is not None
            self.executor.went_on()

    def retried(self, task: TaskSpec, result: TaskResult) -> None:  # noqa: ARG002  as the protocol has it
        self.retries.append(task)


def _graph(*parts: Part) -> Graph:
    graph, mistakes = lint.check(unchecked(parts), PLACE)
    assert mistakes == []
    return graph


def _failure(outcome: Outcome) -> TaskResult:
    return TaskResult(outcome, diagnosis=Diagnosis(outcome, f"it was {outcome.value}"))


def test_a_run_ends_when_its_end_has_finished(tmp_path: Path) -> None:
    """And its executors are closed, its outcome is written."""
    world = World(_graph(Plain(), Split(((), ())), Foreach((Plain(),))), tmp_path)
    assert world.drive().is_success
    assert set(world.ran.values()) == {1}
    assert world.executor is not None
    assert (world.executor.closed, world.executor.cancelled) == (1, 0)
    outcome = world.run_store.read_run_outcome()
    assert outcome is not None
    assert outcome.outcome == "succeeded"


@pytest.mark.parametrize("outcome", [o for o in Outcome if o.is_failure])
def test_a_failure_is_retried_only_where_the_infrastructure_failed(tmp_path: Path, outcome: Outcome) -> None:
    """Three times more, under new attempts; then it is the run's failure, and everything is stopped."""
    world = World(_graph(Plain()), tmp_path)
    world.behave = lambda spec: _failure(outcome) if spec.name.step == "s1" else None
    result = world.drive()
    infrastructure = outcome in {Outcome.PREEMPTED, Outcome.EVICTED, Outcome.NODE_LOST, Outcome.NEVER_STARTED}
    attempts = [spec.attempt for spec in world.attempts if spec.name.step == "s1"]
    assert attempts == (list(range(INFRASTRUCTURE_RETRIES + 1)) if infrastructure else [0])
    assert len(world.retries) == len(attempts) - 1
    assert not result.is_success
    assert result.failed is not None
    assert result.failed.name == TaskName("s1")
    assert world.executor is not None
    assert world.executor.cancelled == 1
    record = world.run_store.read_run_outcome()
    assert record is not None
    assert record.outcome == outcome.value
    assert "s1/0 failed" in record.summary
    assert f"it was {outcome.value}" in record.summary


def test_a_retry_that_succeeds_lets_the_run_go_on(tmp_path: Path) -> None:
    """Nobody is the wiser."""
    world = World(_graph(Foreach((Plain(),))), tmp_path, widths=(3,))
    world.behave = lambda spec: _failure(Outcome.NODE_LOST) if spec.attempt < 2 else None
    assert world.drive().is_success
    assert {spec.attempt for spec in world.attempts} == {0, 1, 2}


def test_an_executor_that_fails_ends_the_run(tmp_path: Path) -> None:
    """Its error reaches the caller, after everything was stopped and the outcome written."""
    world = World(_graph(Plain()), tmp_path)

    def behave(spec: TaskSpec) -> None:
        assert world.executor is not None
        world.executor.report(StorageError("the disk is full"))

    world.behave = behave  # type: ignore[assignment]
    with pytest.raises(StorageError, match="the disk is full"):
        world.drive()
    assert world.executor is not None
    assert world.executor.cancelled == 1
    record = world.run_store.read_run_outcome()
    assert record is not None
    assert "the disk is full" in record.summary


def test_a_cancelled_run_is_recorded_as_cancelled(tmp_path: Path) -> None:
    """KeyboardInterrupt reaches the caller, after everything was stopped."""
    world = World(_graph(Plain()), tmp_path)

    def behave(spec: TaskSpec) -> None:
        if spec.name.step == "s1":
            raise KeyboardInterrupt

    world.behave = behave  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        world.drive()
    assert world.executor is not None
    assert world.executor.cancelled == 1
    record = world.run_store.read_run_outcome()
    assert record is not None
    assert record.outcome == "cancelled"


def test_a_run_without_a_task_left_is_told(tmp_path: Path) -> None:
    """It can't happen; if it does, it is an error and no hang."""
    world = World(_graph(Plain()), tmp_path)
    world.behave = lambda _: TaskResult(Outcome.SUCCEEDED, Transition())
    with pytest.raises(RunError, match="no task left"):
        world.drive()


def test_events_pass_to_observers_in_their_order(tmp_path: Path) -> None:
    """Each task's start before its end."""
    world = World(_graph(), tmp_path)
    assert world.drive().is_success
    assert [(type(event).__name__, event.task.name.step) for event in world.seen] == [
        ("Started", "start"), ("Finished", "start"), ("Started", "end"), ("Finished", "end"),
    ]  # fmt: skip


def _deaths(graph: Graph, folder: Path, widths: Sequence[int], order: random.Random) -> Iterator[int]:
    """How many changes of state a whole run has: each of them is a moment at which its driver may die."""
    world = World(graph, folder, widths, order)
    world.changes_left = 10**9
    assert world.drive().is_success
    yield from range(10**9 - world.changes_left)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SEQUENCES, st.lists(st.integers(0, 2), min_size=1, max_size=4), st.integers(0, 10**6))
def test_a_run_goes_on_from_any_moment_without_running_a_committed_task_again(
    tmp_path_factory: pytest.TempPathFactory, parts: tuple[Part, ...], widths: list[int], seed: int
) -> None:
    """Each driver dies one change of state later than the one before it; together they finish the run (I5)."""
    graph = _graph(*parts)
    limit = seed % 3 or None
    world = World(graph, tmp_path_factory.mktemp("run"), widths, random.Random(seed), limit=limit)
    for moment in range(10**6):
        world.changes_left = moment
        try:
            assert world.drive(go_on=moment > 0).is_success
        except DriverKilled:
            continue
        break
    assert set(world.ran.values()) == {1}, "World.run asserts that no task commits twice"
    assert world.ran[TaskName("end")] == 1


@settings(max_examples=10, deadline=None)
@given(SEQUENCES, st.lists(st.integers(0, 2), min_size=1, max_size=4), st.integers(0, 10**6), st.data())
def test_a_run_may_die_once_at_any_moment(
    tmp_path_factory: pytest.TempPathFactory,
    parts: tuple[Part, ...],
    widths: list[int],
    seed: int,
    data: st.DataObject,
) -> None:
    """And the second driver finishes it, running exactly the rest."""
    graph = _graph(*parts)
    moments = len(list(_deaths(graph, tmp_path_factory.mktemp("whole"), widths, random.Random(seed))))
    world = World(graph, tmp_path_factory.mktemp("run"), widths, random.Random(seed))
    world.changes_left = data.draw(st.integers(0, moments - 1))
    with pytest.raises(DriverKilled):
        world.drive()
    before = set(world.ran)
    world.changes_left = -1
    world.attempts.clear()
    assert world.drive(go_on=True).is_success
    assert not before & {spec.name for spec in world.attempts}
    assert set(world.ran.values()) == {1}


def test_a_finished_run_is_gone_on_with_at_once(tmp_path: Path) -> None:
    """Nothing is left to do."""
    world = World(_graph(Foreach((Plain(),))), tmp_path)
    assert world.drive().is_success
    world.attempts.clear()
    assert world.drive(go_on=True).is_success
    assert world.attempts == []
