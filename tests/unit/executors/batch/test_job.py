"""One job with its tasks: which ids are described, and what the descriptions say."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from k8sflow.aws.outcome import JobEnd
from k8sflow.aws.queue import Queue
from k8sflow.errors import AccessError
from k8sflow.executors.base import Finished, Output, Queued, Started
from k8sflow.executors.batch.job import JobInBatch
from k8sflow.executors.batch.jobs import Jobs
from k8sflow.executors.batch.output import StoredOutput
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.objects import Buffer
from k8sflow.storage.records import OutcomeRecord
from k8sflow.storage.run_store import RunStore
from tests.unit.executors.batch_driver import OPTIONS, Driver, branches, task
from tests.unit.executors.fake_batch import FakeBatch

WIDTH = 200


def wide() -> JobInBatch:
    """An array job of 200 whose children were described once."""
    job = JobInBatch("j", OPTIONS, Queue("q", {}), WIDTH)
    for index, spec in enumerate(branches(WIDTH)):
        job.add(index, spec)
    assert len(job.ids()) == WIDTH
    return job


def take(job: JobInBatch, status: str, **summary: int) -> list[Any]:
    """The states that follow from a description of the whole."""
    return [*job.take({"jobId": "j", "status": status, "arrayProperties": {"statusSummary": summary}})]


def test_the_children_of_an_array_that_is_over_are_asked_for() -> None:
    """Even if its summary hasn't changed since they were described."""
    job = wide()
    take(job, "PENDING", RUNNING=200)
    job.ids()
    assert job.ids() == ["j"]
    take(job, "FAILED", RUNNING=200)
    assert len(job.ids()) == WIDTH


def test_children_that_ended_by_the_summary_are_asked_for_until_they_say_so() -> None:
    """Their descriptions may be older than the summary."""
    job = wide()
    for _ in range(3):
        take(job, "PENDING", RUNNING=150, SUCCEEDED=50)
        assert len(job.ids()) == WIDTH
        assert job.ids() == ["j"]
    for index in range(50):
        ((found, state),) = job.take({"jobId": f"j:{index}", "status": "SUCCEEDED", "startedAt": 1})
        assert isinstance(state, JobEnd)
        job.ended(found)
    take(job, "PENDING", RUNNING=150, SUCCEEDED=50)
    assert job.ids() == ["j"]


def gang_of_three(server: FakeBatch, driver: Driver) -> Jobs:
    """A multi-node job whose three tasks run; the test polls."""
    driver.executor.submit([task("work", index, nodes=3) for index in range(3)])
    (job,) = server.wait_for_jobs(1)
    for index in range(3):
        server.set(job.id, "RUNNING", index, startedAt=1)
    for _ in range(3):
        driver.next(Started)
    return driver.stopped()


def test_the_failure_of_a_node_ends_the_others() -> None:
    """AWS Batch would let them run until the main one ends."""
    server = FakeBatch()
    driver = Driver(server)
    jobs = gang_of_three(server, driver)
    jobs.poll()
    assert driver.events.empty()
    server.set("job0", "FAILED", 2, startedAt=1, statusReason="Host EC2 (instance i-0) terminated.")
    jobs.poll()
    ends = {event.task.name.id: event.result for event in (driver.next(Finished) for _ in range(3))}
    assert [ends[each].outcome for each in "012"] == [Outcome.CANCELLED, Outcome.CANCELLED, Outcome.NODE_LOST]
    assert "since work/2" in ends["0"].explained.summary
    assert server.terminated == ["job0"]
    jobs.poll()
    assert driver.events.empty()
    jobs.close()


def test_a_node_that_has_ended_waits_for_the_main_one() -> None:
    """One that AWS Batch stopped with the main one doesn't count."""
    server = FakeBatch()
    driver = Driver(server)
    jobs = gang_of_three(server, driver)
    server.set("job0", "SUCCEEDED", 1, startedAt=1)
    jobs.poll()
    assert driver.events.empty()
    for index in range(3):
        driver.commit(task("work", index))
    server.set("job0", "SUCCEEDED", 0, startedAt=1)
    server.set("job0", "FAILED", 2, startedAt=1, statusReason="Main node exited")
    jobs.poll()
    assert set(driver.finished(3).values()) == {Outcome.SUCCEEDED}
    assert server.terminated == []
    jobs.close()


def test_the_log_of_the_main_node_says_nothing_of_the_others() -> None:
    job = JobInBatch("j", OPTIONS, Queue("q", {}), nodes=2)
    for index in range(2):
        job.add(index, task("work", index, nodes=2))
    document = {"jobId": "j", "status": "SUCCEEDED", "container": {"exitCode": 0, "logStreamName": "main"}}
    streams = [state.log_stream for _, state in job.take(document) if isinstance(state, JobEnd)]
    assert streams == ["main", ""]


def test_a_node_that_aws_batch_doesnt_know_is_not_lost() -> None:
    """It is started after the main one."""
    job = JobInBatch("j", OPTIONS, Queue("q", {}), nodes=2)
    for index in range(2):
        job.add(index, task("work", index, nodes=2))
    assert [found for _ in range(30) for found in job.missed("j#1")] == []
    assert len([found for _ in range(10) for found in job.missed("j")]) == 2


def test_each_reason_for_waiting_is_reported_once() -> None:
    """Also if the children have several, in turn."""
    server = FakeBatch()
    driver = Driver(server)
    driver.executor.submit(branches(2))
    server.wait_for_jobs(1)
    jobs = driver.stopped()
    server.set("job0", "RUNNABLE", 0, statusReason="CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY")
    server.set("job0", "RUNNABLE", 1, statusReason="MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE")
    for _ in range(5):
        jobs.poll()
    assert len([driver.next(Queued) for _ in range(2)]) == 2
    assert driver.events.empty()
    jobs.close()


def test_the_output_of_failed_tasks_is_read_by_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread of the executor has a whole run to look after."""
    readers: list[str] = []

    def end(self: StoredOutput) -> Any:
        readers.append(threading.current_thread().name)
        yield Output(self._spec, "stderr", b"the end\n")

    monkeypatch.setattr(StoredOutput, "end", end)
    server = FakeBatch()
    driver = Driver(server)
    monkeypatch.setattr(type(driver.context.settings), "followed_tasks", 0, raising=False)
    driver.executor.submit([task("start")])
    (job,) = server.wait_for_jobs(1)
    driver.run_store.write_outcome("start", "0", 0, OutcomeRecord(Outcome.USER_ERROR, 1.0, "ValueError: no"))
    server.set(job.id, "FAILED", startedAt=1, container={"exitCode": 1})
    driver.next(Started)
    assert driver.next(Output).data == b"the end\n"
    assert driver.next(Finished).result.outcome is Outcome.USER_ERROR
    assert readers[0].startswith("k8sflow-batch-store")
    driver.executor.close()


def test_output_that_was_uploaded_before_the_end_is_shown() -> None:
    """Also if it came after the last poll."""
    server = FakeBatch()
    driver = Driver(server)
    driver.executor.submit([task("start")])
    (job,) = server.wait_for_jobs(1)
    server.set(job.id, "RUNNING", startedAt=1)
    assert driver.next(Started).is_followed
    jobs = driver.stopped()
    log = driver.run_store.open_log("start", "0", 0, "stdout", 1000)
    log.write(b"the last line\n")
    log.close()
    driver.commit(task("start"))
    server.set(job.id, "SUCCEEDED", startedAt=1)
    shown = jobs._show_output
    jobs._show_output = lambda: None  # type: ignore[method-assign]
    jobs.poll()
    jobs._show_output = shown  # type: ignore[method-assign]
    assert driver.next(Output).data == b"the last line\n"
    assert driver.next(Finished).result.outcome is Outcome.SUCCEEDED
    jobs.close()


def test_output_that_may_not_be_read_is_not_shown() -> None:
    """The result of the task counts all the same."""

    class Forbidden(MemoryStore):
        def tail(self, key: str, start: int, most: int | None = None) -> bytes:
            raise AccessError("no")

        def get(self, key: str) -> Buffer:
            raise AccessError("no")

    found = StoredOutput(RunStore(Forbidden(), "Demo", "r1"), task("start"))
    assert [*found.new(), *found.end()] == []
