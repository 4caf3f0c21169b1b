"""The loop that drives a run, against an executor that does what a test says: its end, its events, its cancellation."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8sflow.errors import BatchError, LoginEndedError, RunCancelledError, RunError, StorageError, SupersededError
from k8sflow.flow.decorators.policy import InfrastructureRetry
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.core.actions import RunEnd
from k8sflow.storage.records import CancelRequest
from k8sflow.task.result import TaskResult, Transition
from k8sflow.task.spec import TaskName, TaskSpec
from tests.unit.flow.graphs import Foreach, Plain, Split
from tests.unit.runtime.core.driver_world import FakeExecutor, World, failure, graph_of


def test_a_run_ends_when_its_end_has_finished(tmp_path: Path) -> None:
    """And its executors are closed, its outcome is written."""
    world = World(graph_of(Plain(), Split(((), ())), Foreach((Plain(),))), tmp_path)
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
    world = World(graph_of(Plain()), tmp_path)
    world.behave = lambda spec: failure(outcome) if spec.name.step == "s1" else None
    result = world.drive()
    infrastructure = outcome in {
        Outcome.PREEMPTED,
        Outcome.EVICTED,
        Outcome.NODE_LOST,
        Outcome.NEVER_STARTED,
        Outcome.STORAGE_ERROR,
    }
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
    world = World(graph_of(Foreach((Plain(),))), tmp_path, widths=(3,))
    world.behave = lambda spec: failure(Outcome.NODE_LOST) if spec.attempt < 2 else None
    assert world.drive().is_success
    assert {spec.attempt for spec in world.attempts} == {0, 1, 2}


def test_an_executor_that_fails_ends_the_run(tmp_path: Path) -> None:
    """Its error reaches the caller, after everything was stopped and the outcome written."""
    world = World(graph_of(Plain()), tmp_path)

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


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_every_executor_ends_even_if_one_raises(tmp_path: Path, is_cancelled: bool) -> None:
    """Nothing that the others started may keep running."""
    world = World(graph_of(Plain()), tmp_path)

    class Refused(FakeExecutor):
        def cancel(self) -> None:
            raise BatchError("the jobs may not be terminated")

        end = cancel

    def behave(_: TaskSpec) -> TaskResult:
        if is_cancelled:
            raise KeyboardInterrupt
        return failure(Outcome.USER_ERROR)

    world.behave = behave
    world.others = {"other": FakeExecutor(lambda _: None, world), "refused": Refused(lambda _: None, world)}
    if is_cancelled:
        with pytest.raises(BatchError, match="may not be terminated"):
            world.drive()
    else:  # the failure is shown, with what follows from it
        result = world.drive()
        assert (result.end, str(result.unended)) == (RunEnd.FAILED, "the jobs may not be terminated")
    assert world.executor is not None
    assert (world.others["other"].cancelled, world.executor.cancelled) == (1, 1)


def test_ctrl_c_while_a_failed_run_ends_cancels_the_rest(tmp_path: Path) -> None:
    """Every executor, at once; the run has failed all the same."""
    world = World(graph_of(Plain()), tmp_path)

    class Slow(FakeExecutor):
        def end(self) -> None:
            raise KeyboardInterrupt

    world.behave = lambda _: failure(Outcome.USER_ERROR)
    world.others = {"other": FakeExecutor(lambda _: None, world), "slow": Slow(lambda _: None, world)}
    result = world.drive()
    assert (result.end, result.unended) == (RunEnd.FAILED, None)
    assert result.failed is not None
    assert world.others["slow"].cancelled == 1


def test_a_cancelled_run_is_recorded_as_cancelled(tmp_path: Path) -> None:
    """KeyboardInterrupt reaches the caller, after everything was stopped."""
    world = World(graph_of(Plain()), tmp_path)

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
    world = World(graph_of(Plain()), tmp_path)
    world.behave = lambda _: TaskResult(Outcome.SUCCEEDED, Transition())
    with pytest.raises(RunError, match="no task left"):
        world.drive()


def test_events_pass_to_observers_in_their_order(tmp_path: Path) -> None:
    """Each task's start before its end."""
    world = World(graph_of(), tmp_path)
    assert world.drive().is_success
    assert [(type(event).__name__, event.task.name.step) for event in world.seen] == [
        ("Started", "start"),
        ("Finished", "start"),
        ("Started", "end"),
        ("Finished", "end"),
    ]


def test_a_run_that_someone_has_cancelled_ends_as_cancelled(tmp_path: Path) -> None:
    """A deleted Job makes the driver look for the request, which says who it was; else it is a failure."""
    world = World(graph_of(Plain()), tmp_path)
    world.behave = lambda _: failure(Outcome.CANCELLED)
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


@pytest.mark.parametrize("kind", [SupersededError, LoginEndedError])
def test_a_driver_that_was_superseded_or_logged_out_leaves_what_runs(tmp_path: Path, kind: type[Exception]) -> None:
    """Its executors are closed and not cancelled, and it writes no outcome: another one has the run, or will."""
    world = World(graph_of(Plain()), tmp_path)

    def behave(spec: TaskSpec) -> None:
        assert world.executor is not None
        world.executor.report(kind("the driver ends"))

    world.behave = behave  # type: ignore[assignment]
    with pytest.raises(kind):
        world.drive()
    assert world.executor is not None
    assert (world.executor.cancelled, world.executor.closed) == (0, 1)
    assert world.run_store.read_run_outcome() is None


def test_decisions_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """For a person who looks into a driver's pod; only where debug logging is on."""
    caplog.set_level("DEBUG", "k8sflow.runtime")
    world = World(graph_of(Plain()), tmp_path)
    world.behave = lambda spec: failure(Outcome.NODE_LOST) if (spec.name.step, spec.attempt) == ("s1", 0) else None
    assert world.drive().is_success
    messages = [record.getMessage() for record in caplog.records]
    assert "s1/0, attempt 0: node_lost." in messages
    assert "s1/0 runs again in 2.0 s as attempt 1." in messages
