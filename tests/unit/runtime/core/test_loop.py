"""The driver, against an executor that does what a test says: failures, retries, and a run taken up again (I5)."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k8sflow.errors import RunCancelledError, RunError, StorageError, SupersededError
from k8sflow.executors.base import Finished, Report, Started, TaskEvent
from k8sflow.flow.checks import graph as lint
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.decorators.policy import Catch, InfrastructureRetry, Retry, StepPolicy
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.core.actions import RunResult
from k8sflow.runtime.core.earlier import read_earlier
from k8sflow.runtime.core.inbox import Inbox
from k8sflow.runtime.core.loop import Loop
from k8sflow.runtime.core.observer import Observer
from k8sflow.runtime.core.retries import Again
from k8sflow.runtime.core.run_state import RunState
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import CancelRequest, Commit, ForeachItems, OutcomeRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.result import Failure, TaskResult, Transition, failed
from k8sflow.task.spec import TaskName, TaskSpec
from k8sflow.task.stored_results import write_outcome
from tests.support import load_flow, write_flow
from tests.unit.flow.graphs import PLACE, SEQUENCES, Foreach, Part, Plain, Split, taken, unchecked


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
            return {"fake": self.executor}

        def state() -> RunState:
            earlier = read_earlier(self.run_store, self.graph) if take_over else None
            return RunState(self.graph, "r", policies=self.policies, outlives=lambda _: self.outlives, earlier=earlier)

        return Loop(
            self.graph, self.run_store, state=state, executors=executors, executor_of=lambda _: "fake",
            observer=self, clock=self,
        ).run()  # fmt: skip

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


def _graph(*parts: Part) -> Graph:
    graph, mistakes = lint.check(unchecked(parts), PLACE)
    assert mistakes == []
    return graph


def _failure(outcome: Outcome) -> TaskResult:
    return failed(outcome, f"it was {outcome.value}")


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
    infrastructure = outcome in {
        Outcome.PREEMPTED, Outcome.EVICTED, Outcome.NODE_LOST, Outcome.NEVER_STARTED, Outcome.STORAGE_ERROR,
    }  # fmt: skip
    attempts = [spec.attempt for spec in world.attempts if spec.name.step == "s1"]
    assert attempts == (list(range(InfrastructureRetry().times + 1)) if infrastructure else [0])
    assert result.result is not None
    assert ("It was run again 3 times already" in result.result.explained.resolution) == infrastructure
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


def test_a_run_without_a_remaining_task_is_an_error(tmp_path: Path) -> None:
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
    """The changes of state of a whole run: at each of them its driver may die."""
    world = World(graph, folder, widths, order)
    world.changes_left = 10**9
    assert world.drive().is_success
    yield from range(10**9 - world.changes_left)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SEQUENCES, st.lists(st.integers(0, 2), min_size=1, max_size=4), st.integers(0, 10**6))
def test_a_run_continues_from_any_moment_without_running_a_committed_task_again(
    tmp_path_factory: pytest.TempPathFactory, parts: tuple[Part, ...], widths: list[int], seed: int
) -> None:
    """Each driver dies one change of state later than the one before it; together they finish the run (I5)."""
    graph = _graph(*parts)
    limit = seed % 3 or None
    world = World(graph, tmp_path_factory.mktemp("run"), widths, random.Random(seed), limit=limit)
    for moment in range(10**6):
        world.changes_left = moment
        try:
            assert world.drive(take_over=moment > 0).is_success
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
    world.submitted_names.clear()
    assert world.drive(take_over=True).is_success
    assert not before & {spec.name for spec in world.attempts}
    assert set(world.ran.values()) == {1}
    observed = [*world.submitted_names, *(spec.name for spec in world.before)]
    assert sorted(map(str, observed)) == sorted(map(str, world.ran)), "an observer hears of each task, once"


def test_a_finished_run_is_taken_over_at_once(tmp_path: Path) -> None:
    """Nothing is left to do."""
    world = World(_graph(Foreach((Plain(),))), tmp_path)
    assert world.drive().is_success
    world.attempts.clear()
    assert world.drive(take_over=True).is_success
    assert world.attempts == []


def test_a_user_retry_waits_without_holding_a_worker(tmp_path: Path) -> None:
    """In virtual time: each pause is longer than the one before, up to the longest; attempts count up."""
    world = World(_graph(Plain()), tmp_path)
    world.policies = {"s1": StepPolicy(Retry(4, pause_seconds=60, backoff=3, longest_pause_seconds=400))}
    world.behave = lambda spec: _failure(Outcome.USER_ERROR) if spec.name.step == "s1" and spec.attempt < 4 else None
    assert world.drive().is_success
    begins = [moment for moment, spec in world.started if spec.name.step == "s1"]
    assert [after - before for before, after in itertools.pairwise(begins)] == [60, 180, 400, 400]
    assert [spec.attempt for spec in world.attempts if spec.name.step == "s1"] == [0, 1, 2, 3, 4]
    assert len(world.retries) == 4


@pytest.mark.parametrize(
    ("outcomes", "on", "times", "attempts"),
    [
        ("uuu", "uto", 2, 3),
        ("uto", "uto", 2, 3),
        ("nun", "uto", 0, 2),
        ("nnnn", "uto", 5, 4),
        ("nunun", "uto", 2, 6),
        ("o", "u", 5, 1),
        ("uo", "u", 5, 2),
        ("tto", "to", 5, 4),
        ("b", "uto", 5, 1),
    ],
)
def test_the_users_budget_pays_for_code_alone(
    tmp_path: Path, outcomes: str, on: str, times: int, attempts: int
) -> None:
    """Failures of the infrastructure have one of their own, whatever came before."""
    kinds = {"u": Outcome.USER_ERROR, "t": Outcome.TIMED_OUT, "o": Outcome.OUT_OF_MEMORY, "n": Outcome.NODE_LOST,
             "b": Outcome.BAD_IMAGE}  # fmt: skip
    world = World(_graph(Plain()), tmp_path)
    world.policies = {"s1": StepPolicy(Retry(times, on=tuple(kinds[kind].value for kind in on)))}

    def behave(spec: TaskSpec) -> TaskResult | None:
        if spec.name.step != "s1" or spec.attempt >= len(outcomes):
            return None
        return _failure(kinds[outcomes[spec.attempt]])

    world.behave = behave
    world.drive()
    assert [spec.attempt for spec in world.attempts if spec.name.step == "s1"] == list(range(attempts))


def test_catch_lets_the_run_go_on_after_the_last_retry(tmp_path: Path) -> None:
    """With the exception in the artifact, what the step before left, and the step's only transition."""
    world = World(_graph(Plain(), Split(((), ()))), tmp_path)
    world.policies = {"s1": StepPolicy(Retry(1), catch=Catch("failed"))}
    found = Failure("ValueError: no", "Traceback …: no", error_type="builtins.ValueError")
    world.behave = lambda spec: TaskResult(Outcome.USER_ERROR, failure=found) if spec.name.step == "s1" else None
    assert world.drive().is_success
    assert [spec.attempt for spec in world.attempts if spec.name.step == "s1"] == [0, 1]
    assert [task.name for task in world.catches] == [TaskName("s1")]
    commit = world.run_store.read_commit("s1", "0")
    assert commit is not None
    assert commit.attempt == 1
    assert commit.steps == world.graph["s1"].next
    caught = ArtifactStore(world.run_store.store, "F").load(commit.artifacts["failed"], "failed")
    assert (caught.type, caught.exception, caught.stacktrace) == ("builtins.ValueError", "no", "Traceback …: no")
    assert str(caught) == "Traceback …: no"


def test_catch_is_for_the_code_and_not_for_the_cluster(tmp_path: Path) -> None:
    """An image that can't be pulled is an error to report."""
    world = World(_graph(Plain()), tmp_path)
    world.policies = {"s1": StepPolicy(catch=Catch("failed"))}
    world.behave = lambda spec: _failure(Outcome.BAD_IMAGE) if spec.name.step == "s1" else None
    assert not world.drive().is_success


@settings(max_examples=25, deadline=None)
@given(SEQUENCES, st.integers(0, 10**6), st.integers(0, 2))
def test_a_driver_that_dies_counts_the_retries_of_those_before_it(
    tmp_path_factory: pytest.TempPathFactory, parts: tuple[Part, ...], seed: int, failures: int
) -> None:
    """Whenever drivers die, no execution is run twice under one name, and none more than the budget allows (I5)."""
    graph = _graph(*parts)
    world = World(graph, tmp_path_factory.mktemp("run"), (2,), random.Random(seed))
    world.policies = {step: StepPolicy(Retry(failures, pause_seconds=5)) for step in graph.nodes}
    ended: Counter[TaskSpec] = Counter()

    def behave(spec: TaskSpec) -> TaskResult | None:
        if spec.attempt >= failures:
            return None
        ended[spec] += 1
        result = _failure(Outcome.USER_ERROR)
        write_outcome(world.run_store, spec, result)
        return result

    world.behave = behave
    for moment in itertools.count():
        world.changes_left = moment
        try:
            assert world.drive(take_over=moment > 0).is_success
        except DriverKilled:
            continue
        break
    assert set(world.ran.values()) == {1}
    assert set(ended.values()) <= {1}
    assert sum(ended.values()) == failures * len(world.ran)


@pytest.mark.parametrize(
    ("outlives", "ended", "started", "attempts"),
    [
        (False, [], [0], [1]),
        (False, [], [0, 1, 2], [3]),
        (False, [0], [1], [2]),
        (False, [0], [0], [1]),
        (True, [], [0], [0]),
        (True, [0], [1], [1]),
    ],
)
def test_an_execution_that_died_with_its_driver_has_a_number_of_its_own(
    tmp_path: Path, outlives: bool, ended: list[int], started: list[int], attempts: list[int]
) -> None:
    """The next one has another; one that runs on without its driver is found again under its own (I5)."""
    world = World(_graph(Plain()), tmp_path)
    world.outlives = outlives
    world.policies = {"s1": StepPolicy(Retry(1))}
    for attempt in started:
        log = world.run_store.open_log("s1", "0", attempt, "stdout")
        log.write(b"")
        log.close()
    for attempt in ended:
        spec = TaskSpec("F", "r", TaskName("s1"), attempt)
        write_outcome(world.run_store, spec, _failure(Outcome.USER_ERROR))
    assert world.drive(take_over=True).is_success
    assert [spec.attempt for spec in world.attempts if spec.name.step == "s1"] == attempts


def test_a_run_that_someone_has_cancelled_ends_as_cancelled(tmp_path: Path) -> None:
    """A deleted Job makes the driver look for the request, which says who it was; else it is a failure."""
    world = World(_graph(Plain()), tmp_path)
    world.behave = lambda _: _failure(Outcome.CANCELLED)
    assert not world.drive().is_success
    ended = world.run_store.read_run_outcome()
    assert ended is not None
    assert "failed" in ended.summary
    world.run_store.request_cancel(CancelRequest("ann", "laptop", 0.0))
    with pytest.raises(RunCancelledError, match="cancelled by ann on laptop"):
        world.drive()
    ended = world.run_store.read_run_outcome()
    assert ended is not None
    assert (ended.outcome, ended.summary) == (Outcome.CANCELLED, "cancelled by ann on laptop")
    assert world.executor is not None
    assert world.executor.cancelled == 1


def test_a_driver_that_was_superseded_leaves_what_runs(tmp_path: Path) -> None:
    """Its executors are closed and not cancelled, and it writes no outcome: the run is another one's."""
    world = World(_graph(Plain()), tmp_path)

    def behave(spec: TaskSpec) -> None:
        assert world.executor is not None
        world.executor.report(SupersededError("another process has taken over"))

    world.behave = behave  # type: ignore[assignment]
    with pytest.raises(SupersededError):
        world.drive()
    assert world.executor is not None
    assert (world.executor.cancelled, world.executor.closed) == (0, 1)
    assert world.run_store.read_run_outcome() is None


# Three processes that know each other.
TOGETHER = """
    from k8sflow import parallel
    class F(FlowSpec):
        @step
        def start(self): self.next(self.train, num_parallel=3)
        @parallel
        @step
        def train(self): self.next(self.join)
        @step
        def join(self, inputs): self.next(self.end)
        @step
        def end(self): pass
"""


def test_processes_that_know_each_other_start_again_together(tmp_path: Path) -> None:
    """After their driver's death, the one that has a result already too: the others would wait for it for ever."""
    world = World(compile_flow(load_flow(write_flow(tmp_path, TOGETHER))).graph, tmp_path / "store")
    world.outlives = False
    world.run_store.commit("start", "0", Commit(0, ("train",), {}, foreach=ForeachItems(3, ())))
    world.run_store.commit("train", "1", Commit(0, ("join",), {}))
    log = world.run_store.open_log("train", "2", 0, "stdout")
    log.write(b"")
    log.close()
    world.behave = lambda spec: (
        TaskResult(Outcome.SUCCEEDED, Transition(("join",))) if spec.name == TaskName("train", (1,)) else None
    )
    assert world.drive(take_over=True).is_success
    together = [(spec.name.id, spec.attempt) for spec in world.attempts if spec.name.step == "train"]
    assert sorted(together) == [("0", 1), ("1", 1), ("2", 1)]
    assert {spec.nodes for spec in world.attempts if spec.name.step == "train"} == {3}


def test_processes_that_know_each_other_fail_once(tmp_path: Path) -> None:
    """However many of them were ended for one; a driver that dies hands on the count, and @retry pays once for each."""
    world = World(compile_flow(load_flow(write_flow(tmp_path, TOGETHER))).graph, tmp_path / "store")
    world.outlives = False
    world.policies = {"train": StepPolicy(Retry(2))}
    world.run_store.commit("start", "0", Commit(0, ("train",), {}, foreach=ForeachItems(3, ())))
    for task, outcome in (("0", Outcome.CANCELLED), ("1", Outcome.USER_ERROR), ("2", Outcome.CANCELLED)):
        world.run_store.write_outcome("train", task, 0, OutcomeRecord(outcome, world.time))
    world.behave = lambda spec: (
        TaskResult(Outcome.USER_ERROR if spec.name.path == (2,) else Outcome.CANCELLED)
        if spec.name.step == "train"
        else None
    )
    done = world.drive(take_over=True)
    assert done.failed is not None
    assert (str(done.failed.name), done.failed.attempt) == ("train/2", 2)
    assert sorted((spec.name.id, spec.attempt) for spec in world.attempts) == [(i, n) for i in "012" for n in (1, 2)]


@pytest.mark.parametrize(
    ("ends", "attempt"),
    [
        ({}, 1),
        ({("0", 1): Outcome.SUCCEEDED}, 1),
        ({("0", 1): Outcome.NODE_LOST, ("1", 1): Outcome.CANCELLED}, 2),
        ({("0", 1): Outcome.CANCELLED, ("1", 1): Outcome.CANCELLED}, 2),
    ],
)
def test_processes_that_outlive_their_driver_are_taken_up(
    tmp_path: Path, ends: dict[tuple[str, int], Outcome], attempt: int
) -> None:
    """In pods they may still run as their last execution, unless one of them has failed in it."""
    world = World(compile_flow(load_flow(write_flow(tmp_path, TOGETHER))).graph, tmp_path / "store")
    world.run_store.commit("start", "0", Commit(0, ("train",), {}, foreach=ForeachItems(3, ())))
    log = world.run_store.open_log("train", "2", 1, "stdout")
    log.write(b"x")
    log.close()
    for (task, number), outcome in {("1", 0): Outcome.EVICTED, **ends}.items():
        world.run_store.write_outcome("train", task, number, OutcomeRecord(outcome, world.time))
    assert world.drive(take_over=True).is_success
    together = [(spec.name.id, spec.attempt) for spec in world.attempts if spec.name.step == "train"]
    assert sorted(together) == [(task, attempt) for task in "012"]


def test_infrastructure_reruns_back_off(tmp_path: Path) -> None:
    """Seconds, then minutes: what takes pods away or refuses them lasts."""
    world = World(_graph(Plain()), tmp_path)
    world.behave = lambda spec: _failure(Outcome.NODE_LOST) if spec.name.step == "s1" else None
    world.drive()
    times = [at for at, spec in world.started if spec.name.step == "s1"]
    assert [after - before for before, after in itertools.pairwise(times)] == [2.0, 20.0, 120.0]


def test_the_settings_say_how_often_and_after_which_pauses(tmp_path: Path) -> None:
    """The last pause is repeated."""
    world = World(_graph(Plain()), tmp_path)
    world.policies = {"s1": StepPolicy(infrastructure=InfrastructureRetry(4, (1.0, 5.0)))}
    world.behave = lambda spec: _failure(Outcome.EVICTED) if spec.name.step == "s1" else None
    assert not world.drive().is_success
    times = [at for at, spec in world.started if spec.name.step == "s1"]
    assert [after - before for before, after in itertools.pairwise(times)] == [1.0, 5.0, 5.0, 5.0]


def _memory_of(world: World, step: str) -> list[tuple[int, str]]:
    return [(spec.attempt, spec.memory) for spec in world.attempts if spec.name.step == step]


def test_a_task_that_ran_out_of_memory_gets_more_until_the_maximum(tmp_path: Path) -> None:
    """This costs no retry; the user's retries come after it, and the last words name the option to change."""
    world = World(_graph(Plain()), tmp_path)
    world.policies = {"s1": StepPolicy(Retry(1), more_memory=("400M", "500M"))}
    world.behave = lambda spec: _failure(Outcome.OUT_OF_MEMORY) if spec.name.step == "s1" else None
    result = world.drive().result
    assert _memory_of(world, "s1") == [(0, ""), (1, "400M"), (2, "500M"), (3, "500M")]
    assert [(again.number, again.memory) for again in world.decisions] == [(None, "400M"), (None, "500M"), (1, "")]
    assert result is not None
    assert "It had 500M" in result.explained.resolution
    assert "max_memory" in result.explained.resolution


def test_the_memory_stays_raised_after_other_failures(tmp_path: Path) -> None:
    """An eviction and an error of the user's don't take it back, nor do they raise it."""
    ends = [Outcome.OUT_OF_MEMORY, Outcome.EVICTED, Outcome.USER_ERROR]
    world = World(_graph(Plain()), tmp_path)
    world.policies = {"s1": StepPolicy(Retry(1), more_memory=("2Gi", "4Gi"))}
    world.behave = lambda spec: (
        _failure(ends[spec.attempt]) if spec.name.step == "s1" and spec.attempt < len(ends) else None
    )
    assert world.drive().is_success
    assert _memory_of(world, "s1") == [(0, ""), (1, "2Gi"), (2, "2Gi"), (3, "2Gi")]


def test_the_next_driver_asks_for_the_raised_memory(tmp_path: Path) -> None:
    """It follows from the recorded outcomes alone."""
    world = World(_graph(Plain()), tmp_path)
    world.policies = {"s1": StepPolicy(more_memory=("2Gi", "4Gi"))}
    for attempt in (0, 1):
        world.run_store.write_outcome("s1", "0", attempt, OutcomeRecord(Outcome.OUT_OF_MEMORY, world.time))
    assert world.drive(take_over=True).is_success
    assert _memory_of(world, "s1") == [(2, "4Gi")]
    record = world.run_store.read_outcome("s1", "0", 1)
    assert record is not None


@pytest.mark.parametrize("outcome", [Outcome.NEVER_STARTED, Outcome.STORAGE_ERROR])
def test_what_would_fail_again_in_the_same_way_is_not_tried_again(tmp_path: Path, outcome: Outcome) -> None:
    """A Job that the API server forbids, or an object that is damaged."""
    world = World(_graph(Plain()), tmp_path)
    final = failed(outcome, "refused", is_final=True)
    world.behave = lambda spec: final if spec.name.step == "s1" else None
    result = world.drive()
    assert not result.is_success
    assert [spec.attempt for spec in world.attempts if spec.name.step == "s1"] == [0]
    assert world.retries == []


def test_decisions_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """For a person who looks into a driver's pod; only where debug logging is on."""
    caplog.set_level("DEBUG", "k8sflow.runtime")
    world = World(_graph(Plain()), tmp_path)
    world.behave = lambda spec: _failure(Outcome.NODE_LOST) if (spec.name.step, spec.attempt) == ("s1", 0) else None
    assert world.drive().is_success
    messages = [record.getMessage() for record in caplog.records]
    assert "s1/0, attempt 0: node_lost." in messages
    assert "s1/0 runs again in 2.0 s as attempt 1." in messages
