"""The runs of a flow as AWS Batch has them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from k8sflow.errors import BatchError, NotFoundError
from k8sflow.flow.graph import Graph
from k8sflow.runtime.commands.describe_job import DescribedJob, described_jobs
from k8sflow.runtime.commands.on_batch import OnBatch
from k8sflow.runtime.lookup import Runs
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore
from tests.unit.executors.batch_driver import OPTIONS, Driver, branches, task
from tests.unit.executors.fake_batch import FakeBatch

OLD_QUEUE = {"work": replace(OPTIONS, queue="old")}


@pytest.fixture
def server() -> FakeBatch:
    """AWS Batch with three jobs of a run, one of them in a queue that the flow no longer names."""
    found = FakeBatch()
    driver = Driver(found, batch=OLD_QUEUE)
    driver.executor.submit([task("start")])
    driver.executor.submit(branches(2))
    driver.executor.submit([task("end")])
    found.wait_for_jobs(3)
    driver.executor.close()
    return found


@pytest.fixture
def store() -> MemoryStore:
    """A bucket with the record of the run."""
    found = MemoryStore()
    record = RunRecord("Demo", "r1", "demo.py", {}, Graph("Demo"), batch={"start": OPTIONS, **OLD_QUEUE})
    RunStore(found, "Demo", "r1").create(record)
    return found


def test_the_jobs_of_a_run_are_listed(server: FakeBatch, store: MemoryStore) -> None:
    """With their tasks and their states."""
    remote = OnBatch(server, ("q", "old"), Runs("Demo", [store]))
    found = {str(job.tasks.template.name.step): job for job in remote.work("r1")}
    assert {step: (job.tasks.ids, job.state) for step, job in found.items()} == {
        "start": ("0", "runnable"),
        "work": ("0-1", "2 runnable"),
        "end": ("0", "runnable"),
    }
    assert [*remote.work("another")] == []


def test_a_run_ends_in_all_the_queues_of_its_record(server: FakeBatch, store: MemoryStore) -> None:
    """Also in those that the flow and the settings no longer name."""
    OnBatch(server, ("q",), Runs("Demo", [store])).end(RunStore(store, "Demo", "r1"))
    assert sorted(server.terminated) == ["job0", "job1", "job2"]


def test_a_job_that_may_not_be_terminated_keeps_no_other_running(server: FakeBatch, store: MemoryStore) -> None:
    server.refuse_terminate = {"job0"}
    with pytest.raises(BatchError):
        OnBatch(server, ("q",), Runs("Demo", [store])).end(RunStore(store, "Demo", "r1"))
    assert sorted(server.terminated) == ["job1", "job2"]


def describe(server: FakeBatch, store: MemoryStore, step: str, task: str | None) -> list[DescribedJob]:
    remote = OnBatch(server, ("q", "old"), Runs("Demo", [store]))
    return described_jobs(remote, RunStore(store, "Demo", "r1"), step, task)


def test_a_branch_is_described_by_its_child(server: FakeBatch, store: MemoryStore) -> None:
    """With the diagnosis that its driver would give."""
    server.set("job1", "FAILED", 1, startedAt=1, statusReason="Host EC2 (instance i-0) terminated.")
    (found,) = describe(server, store, "work", "1")
    facts = found.facts()
    assert (facts["job"], facts["queue"], facts["state"]) == ("job1:1", "old", "failed")
    assert facts["outcome"] == "node_lost"
    shown = dict(found.pairs())
    assert "instance was lost" in shown["Diagnosis"]
    assert shown["Why"] == "Host EC2 (instance i-0) terminated."


def test_why_a_job_waits_is_described(server: FakeBatch, store: MemoryStore) -> None:
    server.set("job0", "RUNNABLE", statusReason="CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY")
    (found,) = describe(server, store, "start", "0")
    assert found.facts()["outcome"] == "unschedulable"
    assert found.facts()["diagnosis"]["summary"] == "AWS has no such instances free."


def test_a_step_is_described_by_its_jobs(server: FakeBatch, store: MemoryStore) -> None:
    (found,) = describe(server, store, "work", None)
    assert (found.facts()["tasks"], found.facts()["state"]) == ("0-1", "2 runnable")
    with pytest.raises(NotFoundError, match=r"Demo/r1/work/7 has no job on AWS Batch\."):
        describe(server, store, "work", "7")
