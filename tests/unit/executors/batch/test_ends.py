"""The ends of jobs on AWS Batch: all of them, also those that an earlier driver or a lost answer left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from k8sflow.aws.api import LostAnswerError
from k8sflow.aws.outcome import REPLACED
from k8sflow.errors import BatchError
from k8sflow.executors.base import Finished, Started
from k8sflow.executors.batch.live import end_all
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.in_memory import MemoryStore
from tests.support import wait_for
from tests.unit.executors.batch_driver import Driver, branches, task
from tests.unit.executors.fake_batch import FakeBatch


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k8sflow.executors.batch.strays._LOOK_SECONDS", 0.02)
    monkeypatch.setattr("k8sflow.executors.batch.strays._LATE_SECONDS", 1.5)


def lose_answers(server: FakeBatch) -> list[dict[str, Any]]:
    """Lets no submit have an answer; returns the requests, which are added as they come."""
    found: list[dict[str, Any]] = []

    def lose(request: dict[str, Any]) -> Any:
        found.append(request)
        raise LostAnswerError("ServerException")

    server.submit = lose  # type: ignore[method-assign]
    return found


def test_a_job_whose_submit_had_no_answer_is_terminated_when_it_appears(server: FakeBatch, driver: Driver) -> None:
    """Its tasks run again, without a retry of the user's."""
    submit = server.submit
    requests = lose_answers(server)
    driver.executor.submit([task("start")])
    end = driver.next(Finished).result
    assert (end.outcome, end.explained.is_final) == (Outcome.NEVER_STARTED, False)
    late = submit(requests[0]).job
    wait_for(lambda: server.terminated == [late])


def test_a_second_job_of_a_name_is_terminated_when_it_appears(server: FakeBatch, driver: Driver) -> None:
    """The first submit of two had no answer; the one with an id is kept."""
    server.is_alone = False
    driver.executor.submit([task("start")])
    (kept,) = server.wait_for_jobs(1)
    second = server.submit(kept.request).job
    wait_for(lambda: server.terminated == [second])


def test_a_job_of_a_lost_answer_that_appears_after_the_end_of_the_run_is_terminated(
    server: FakeBatch, driver: Driver
) -> None:
    """Nobody polls any more when the last task has succeeded."""
    server.is_alone = False
    driver.executor.submit([task("end")])
    (kept,) = server.wait_for_jobs(1)
    driver.commit(task("end"))
    server.set(kept.id, "SUCCEEDED", startedAt=1)
    driver.finished(1)
    driver.stopped()
    listed, looks = server.jobs_named, iter(range(2))

    def late(queue: str, prefix: str) -> Iterator[Any]:
        if next(looks, None) is None and len(server.jobs) == 1:
            server.submit(kept.request)
        return listed(queue, prefix)

    server.jobs_named = late  # type: ignore[method-assign]
    driver.executor.close()
    assert server.terminated == ["job1"]


def test_closing_a_run_that_continues_elsewhere_terminates_nothing(server: FakeBatch, driver: Driver) -> None:
    """Its other driver may have taken over the job of a lost answer."""
    server.is_alone = False
    driver.executor.submit([task("start")])
    (kept,) = server.wait_for_jobs(1)
    driver.stopped()
    server.submit(kept.request)
    driver.executor.close()
    assert server.terminated == []


def test_cancel_ends_the_jobs_that_nobody_waits_for(server: FakeBatch) -> None:
    """Those of an earlier driver in any of the run's queues."""
    store = MemoryStore()
    first = Driver(server, store)
    first.executor.submit([task("start")])
    first.executor.submit(branches(3))
    server.wait_for_jobs(2)
    first.executor.close()
    second = Driver(server, store)
    second.executor.submit([task("start")])
    wait_for(lambda: second.executor._jobs is not None and second.executor._jobs._jobs)
    second.executor.cancel()
    assert sorted(server.terminated) == ["job0", "job1"]
    second.executor.close()


def test_cancel_waits_for_a_job_that_may_appear(server: FakeBatch, driver: Driver) -> None:
    """Its submit had no answer a moment ago."""
    server.refuse_submit = LostAnswerError("ServerException")
    driver.executor.submit([task("start")])
    driver.next(Finished)
    driver.stopped()
    server.refuse_submit = None
    other = Driver(server)
    other.executor.submit([task("start")])
    server.wait_for_jobs(1)
    other.executor.close()
    listed, looks = server.jobs_named, iter(range(2))

    def late(queue: str, prefix: str) -> Iterator[Any]:
        return iter(()) if next(looks, None) is not None else listed(queue, prefix)

    server.jobs_named = late  # type: ignore[method-assign]
    driver.executor.cancel()
    assert server.terminated == ["job0"]


def test_a_job_that_cant_be_terminated_keeps_no_other_running(server: FakeBatch, driver: Driver) -> None:
    """The error is raised when all have been tried."""
    driver.executor.submit([task("start")])
    driver.executor.submit([task("work")])
    driver.executor.submit([task("end")])
    server.wait_for_jobs(3)
    server.refuse_terminate = {"job0"}
    with pytest.raises(BatchError, match="no"):
        driver.executor.cancel()
    assert sorted(set(server.terminated)) == ["job1", "job2"]


def test_an_outage_is_not_waited_out_for_each_job(server: FakeBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    monkeypatch.setattr("k8sflow.executors.batch.live._SECONDS_AFTER_ERROR", -1.0)
    monkeypatch.setattr(server, "limit_patience", limits.append)
    server.refuse_terminate = {"a", "b"}
    with pytest.raises(BatchError):
        end_all(server, ["a", "b", "c"])
    assert len(limits) == 1


def test_a_request_in_flight_is_hurried_before_it_is_waited_for(server: FakeBatch, driver: Driver) -> None:
    """As when AWS Batch doesn't answer, and Ctrl-C is pressed."""
    hurried = threading.Event()
    asked = threading.Event()

    def outage(_ids: Any) -> Any:
        asked.set()
        assert hurried.wait(10), "the request was waited for, and nobody hurried it"
        return []

    server.limit_patience = lambda _: hurried.set()  # type: ignore[method-assign]
    server.describe_jobs, describe = outage, server.describe_jobs  # type: ignore[method-assign]
    driver.executor.submit([task("start")])
    assert asked.wait(10)
    server.describe_jobs = describe  # type: ignore[method-assign]
    driver.executor.cancel()
    assert hurried.is_set()
    assert driver.next(Finished).result.outcome is Outcome.CANCELLED


def test_a_job_that_aws_batch_no_longer_knows_is_terminated(server: FakeBatch, driver: Driver) -> None:
    """It may run nevertheless, and its task runs again."""
    driver.executor.submit([task("start")])
    server.wait_for_jobs(1)
    jobs = driver.stopped()
    hidden = dict(server.jobs)
    server.jobs.clear()
    for _ in range(12):
        jobs.poll()
    assert driver.next(Finished).result.outcome is Outcome.NODE_LOST
    assert server.terminated == [*hidden]


def test_a_job_that_was_given_up_is_not_taken_over(server: FakeBatch) -> None:
    """Another driver submits the task again."""
    store = MemoryStore()
    first = Driver(server, store)
    first.executor.submit([task("start")])
    (job,) = server.wait_for_jobs(1)
    first.executor.close()
    server.set(job.id, "FAILED", statusReason=REPLACED, isTerminated=True)
    second = Driver(server, store)
    second.executor.submit([task("start")])
    again = server.wait_for_jobs(2)[1]
    server.set(again.id, "RUNNING", startedAt=1)
    assert second.next(Started).where == f"job {again.id}"
    second.executor.close()


def test_abandon_ends_the_jobs_of_an_earlier_driver(server: FakeBatch) -> None:
    """A second Ctrl-C leaves nothing of the run behind."""
    store = MemoryStore()
    first = Driver(server, store)
    first.executor.submit([task("start")])
    first.executor.submit([task("end")])
    server.wait_for_jobs(2)
    first.executor.close()
    second = Driver(server, store)
    second.executor.submit([task("start")])
    wait_for(lambda: second.executor._jobs is not None and second.executor._jobs._jobs)
    second.executor.abandon()
    assert sorted(server.terminated) == ["job0", "job1"]


def test_abandon_sends_the_ends(server: FakeBatch, driver: Driver) -> None:
    """Without waiting for them, and whatever AWS Batch says."""
    driver.executor.submit([task("start")])
    driver.executor.submit([task("end")])
    server.wait_for_jobs(2)
    server.refuse_terminate = {"job0"}
    driver.executor.abandon()
    assert server.terminated == ["job1"]
