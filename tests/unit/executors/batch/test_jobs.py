"""The executor for AWS Batch against a scripted one: jobs, polls, ends, and takeovers."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from k8sflow.errors import BatchError
from k8sflow.executors.base import Finished, Queued, Started
from k8sflow.executors.batch.submission import in_requests, request_of, tasks_of
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.records import OutcomeRecord
from k8sflow.task.batch import TaskBatch
from k8sflow.task.host.framing import Encoder
from k8sflow.task.spec import TaskName, TaskSpec
from tests.unit.executors.batch_driver import OPTIONS, ROLE, SECONDS, Driver, branches, task
from tests.unit.executors.fake_batch import FakeBatch


def test_a_task_is_a_job_of_its_steps_definition(server: FakeBatch, driver: Driver) -> None:
    """It starts, and ends as the store says."""
    spec = task("start")
    driver.executor.submit([spec])
    (job,) = server.wait_for_jobs(1)
    assert job.request["jobQueue"] == "q"
    assert job.request["retryStrategy"] == {"attempts": 1}
    assert job.request["tags"]["k8sflow:user"] == "ada"
    assert "arrayProperties" not in job.request
    server.set(job.id, "RUNNING", startedAt=1)
    assert driver.next(Started).where == f"job {job.id}"
    driver.commit(spec)
    server.set(job.id, "SUCCEEDED", startedAt=1)
    end = driver.next(Finished)
    assert (end.result.outcome, end.result.transition.steps) == (Outcome.SUCCEEDED, ("end",))


def test_a_foreach_is_one_array_job(server: FakeBatch, driver: Driver) -> None:
    """Each child is a branch; what the store has of each counts."""
    driver.executor.submit(branches(3))
    (job,) = server.wait_for_jobs(1)
    assert job.request["arrayProperties"] == {"size": 3}
    driver.commit(task("work", 0))
    server.set(job.id, "SUCCEEDED", 0, startedAt=1)
    driver.run_store.write_outcome("work", "1", 0, OutcomeRecord(Outcome.USER_ERROR, 1.0, "ValueError: no"))
    server.set(job.id, "FAILED", 1, startedAt=1, container={"exitCode": 1})
    server.set(job.id, "FAILED", 2, statusReason="Host EC2 (instance i-0) terminated.")
    assert driver.finished(3) == {"0": Outcome.SUCCEEDED, "1": Outcome.USER_ERROR, "2": Outcome.NODE_LOST}


def test_the_tasks_of_a_num_parallel_step_are_one_multi_node_job(server: FakeBatch, driver: Driver) -> None:
    """It takes them by a parameter, since it can't override a command for all nodes."""
    driver.executor.submit([task("work", 0, nodes=2), task("work", 1, nodes=2)])
    (job,) = server.wait_for_jobs(1)
    (definition,) = server.definitions.values()
    assert definition["type"] == "multinode"
    assert definition["nodeProperties"]["numNodes"] == 2
    container = definition["nodeProperties"]["nodeRangeProperties"][0]["container"]
    assert "Ref::tasks" in container["command"]
    assert len(TaskBatch.from_json(job.request["parameters"]["tasks"])) == 2
    for index in range(2):
        driver.commit(task("work", index))
    server.set(job.id, "SUCCEEDED", startedAt=1)
    assert set(driver.finished(2).values()) == {Outcome.SUCCEEDED}


def test_definitions_are_shared_by_the_steps_with_the_same_options(server: FakeBatch, driver: Driver) -> None:
    """The name is the hash of the content."""
    driver.executor.submit([task("start")])
    driver.executor.submit([task("end")])
    server.wait_for_jobs(2)
    assert len(server.definitions) == 1
    assert server.calls["definition"] == 1


def test_a_task_without_any_result_is_explained_by_its_job(server: FakeBatch, driver: Driver) -> None:
    driver.executor.submit([task("start")])
    (job,) = server.wait_for_jobs(1)
    reason = "OutOfMemoryError: Container killed due to memory usage"
    server.set(job.id, "FAILED", startedAt=1, container={"exitCode": 137, "reason": reason})
    driver.next(Started)
    end = driver.next(Finished).result
    assert end.outcome is Outcome.OUT_OF_MEMORY
    assert "@resources(memory=7000)" in end.explained.resolution


def test_output_that_only_cloudwatch_has_is_stored(server: FakeBatch, driver: Driver) -> None:
    """``logs`` shows it as any other; what the store has already is kept."""
    lines = Encoder("stdout").feed(b"read 3 files\n\nand no more\n") + Encoder("stderr").feed(b"a warning\n")
    server.logs["/aws/batch/job:s"] = lines.splitlines()
    log = driver.run_store.open_log("end", "0", 0, "stdout")
    log.write(b"stored\n")
    log.close()
    for step in ("start", "end"):
        driver.executor.submit([task(step)])
    ended = {"exitCode": 137, "reason": "OutOfMemoryError: Container killed", "logStreamName": "s"}
    for job in server.wait_for_jobs(2):
        server.set(job.id, "FAILED", startedAt=1, container=ended)
    ends: list[Finished] = []
    while len(ends) < 2:
        event = driver.events.get(timeout=SECONDS)
        ends += [event] if isinstance(event, Finished) else []
    assert all("and no more" in end.result.explained.detail for end in ends)
    stored = [driver.run_store.read_log(step, "0", 0, "stdout") for step in ("start", "end")]
    assert stored == [b"read 3 files\n\nand no more\n", b"stored\n"]
    assert driver.run_store.read_log("start", "0", 0, "stderr") == b"a warning\n"


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [None]), (2, [2]), (10_000, [10_000]), (10_001, [10_000, None]), (10_002, [10_000, 2])]
)
def test_array_jobs_have_two_to_ten_thousand_children(
    server: FakeBatch, driver: Driver, count: int, sizes: list[int | None]
) -> None:
    """AWS has no larger ones, and none with a single child; each branch is in one job."""
    driver.executor.submit(branches(count))
    jobs = server.wait_for_jobs(len(sizes))
    assert [job.request.get("arrayProperties", {}).get("size") for job in jobs] == sizes
    assert [spec.name for job in jobs for spec in job.tasks] == [spec.name for spec in branches(count)]


def test_why_a_job_waits_is_reported_once(server: FakeBatch, driver: Driver) -> None:
    driver.executor.submit([task("start")])
    (job,) = server.wait_for_jobs(1)
    reason = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement is higher than …"
    server.set(job.id, "RUNNABLE", statusReason=reason)
    queued = driver.next(Queued)
    assert "more than any instance of its job queue has" in queued.reason
    driver.commit(task("start"))
    server.set(job.id, "SUCCEEDED", startedAt=1)
    driver.next(Started)
    driver.next(Finished)


def test_a_job_that_is_refused_is_a_failure_of_its_tasks(server: FakeBatch, driver: Driver) -> None:
    """One that only a person can repair isn't tried again."""
    server.refuse_submit = BatchError("no", cause="not authorized", advice="allow it", code="AccessDeniedException")
    driver.executor.submit(branches(2))
    for _ in range(2):
        end = driver.next(Finished).result
        assert (end.outcome, end.explained.is_final) == (Outcome.NEVER_STARTED, True)


def test_another_driver_takes_over_the_jobs(server: FakeBatch) -> None:
    """It finds each execution in the job that has it, and submits the rest (invariant I5)."""
    store = MemoryStore()
    first = Driver(server, store)
    first.executor.submit(branches(3))
    (array,) = server.wait_for_jobs(1)
    first.executor.close()
    second = Driver(server, store)
    second.executor.submit([*branches(3), task("work", 3)])
    server.wait_for_jobs(2)
    for spec in (*branches(3), task("work", 3)):
        second.commit(spec)
    for index in range(3):
        server.set(array.id, "SUCCEEDED", index, startedAt=1)
    server.set("job1", "SUCCEEDED", startedAt=1)
    assert len(second.finished(4)) == 4
    second.executor.close()
    assert len(server.jobs) == 2
    assert len(server.jobs["job1"].tasks) == 1


def test_cancel_terminates_every_job(server: FakeBatch, driver: Driver) -> None:
    """Array jobs with one request; every task ends as cancelled, also those that weren't submitted."""
    driver.executor.submit(branches(5))
    driver.executor.submit([task("start")])
    server.wait_for_jobs(2)
    driver.executor.cancel()
    assert sorted(server.terminated) == ["job0", "job1"]
    assert set(_outcomes(driver)) == {Outcome.CANCELLED}


def _outcomes(driver: Driver) -> list[Outcome]:
    found = []
    while not driver.events.empty():
        event = driver.events.get()
        if isinstance(event, Finished):
            found.append(event.result.outcome)
    assert len(found) == 6
    return found


def test_max_workers_limits_what_is_in_the_queue() -> None:
    """The next ones follow as others end."""
    server = FakeBatch(runs=100)
    driver = Driver(server, max_workers=4)
    server._on_end = driver.commit
    driver.executor.submit(branches(10))
    assert len(driver.finished(10)) == 10
    driver.executor.close()
    assert max(len(job.tasks) for job in server.jobs.values()) == 4


def test_scattered_branches_are_as_many_requests_as_they_need() -> None:
    """ECS takes 8192 characters for the overrides of a job, with the quotes and braces of their JSON."""
    tasks = TaskBatch.of([task("work", index) for index in range(0, 20_000, 2)])
    driver = Driver(FakeBatch())
    parts = list(in_requests(driver.context, tasks, OPTIONS))
    assert 1 < len(parts) < 20
    requests = [request_of(driver.context, part, OPTIONS, "q", "d") for part in parts]
    assert max(len(json.dumps(request["containerOverrides"])) for request in requests) <= 7_500
    assert [spec for part in parts for spec in part] == list(tasks)


def test_a_job_with_more_memory_overrides_nothing_else() -> None:
    """The definition has the other variables, however long they are."""
    options = replace(OPTIONS, env={"A": "x" * 9000})
    context = Driver(FakeBatch()).context
    spec = replace(task("start"), memory="8192M")
    overrides = request_of(context, TaskBatch.of([spec]), options, "q", "d")["containerOverrides"]
    assert overrides["environment"] == [{"name": "K8SFLOW_MEMORY_BYTES", "value": str(8192 << 20)}]
    assert {"type": "MEMORY", "value": "8192"} in overrides["resourceRequirements"]


def test_overrides_that_are_too_long_are_an_error() -> None:
    """As those for a definition of the user's, which has none of the variables."""
    options = replace(OPTIONS, env={"A": "x" * 9000}, job_definition="mine")
    with pytest.raises(BatchError, match="the command and the variables of the job have 9") as caught:
        request_of(Driver(FakeBatch()).context, TaskBatch.of([task("start")]), options, "q", "d")
    assert "shorter variables" in caught.value.advice


def test_vcpus_of_a_definition_of_the_users_may_be_fractions_on_fargate() -> None:
    options = replace(OPTIONS, cpu="500m", memory="1024M", job_definition="mine")
    tasks, context = TaskBatch.of([task("start")]), Driver(FakeBatch()).context
    found = [request_of(context, tasks, options, "q", "d", is_fargate=each) for each in (True, False)]
    sizes = [request["containerOverrides"]["resourceRequirements"][0]["value"] for request in found]
    assert sizes == ["0.5", "1"]


def test_more_memory_than_fargate_has_is_refused_before_the_submit(server: FakeBatch) -> None:
    """It would wait for ever."""
    server.compute = [{"computeEnvironmentName": "env", "computeResources": {"type": "FARGATE", "maxvCpus": 16}}]
    driver = Driver(server, batch={"start": replace(OPTIONS, execution_role=ROLE)})
    driver.executor.submit([replace(task("start"), memory="16384M")])
    end = driver.next(Finished).result
    assert (end.outcome, end.explained.is_final) == (Outcome.NEVER_STARTED, True)
    assert "no size with 1 vCPUs and 16384 MiB" in end.explained.detail
    assert server.jobs == {}
    driver.executor.close()


def test_a_job_of_something_else_has_no_tasks() -> None:
    assert tasks_of({"container": {"command": ["echo", "hello"]}}) is None
    assert tasks_of({}) is None


def test_a_wide_run_asks_once_for_each_hundred_jobs() -> None:
    """And not at all for children as long as the array's summary doesn't change."""
    server = FakeBatch(runs=500)
    driver = Driver(server)
    server._on_end = driver.commit
    driver.executor.submit(branches(1000))
    assert len(driver.finished(1000)) == 1000
    driver.executor.close()
    assert server.calls["submit"] == 1
    assert max(server.asked) == 100
    # two rounds of 500 run and end: each change is one look at the array, and one at its unfinished children
    assert server.calls["describe_jobs"] <= 60


def test_an_unchanged_array_costs_one_request_a_poll() -> None:
    server = FakeBatch()
    driver = Driver(server)
    driver.executor.submit(branches(2000))
    server.wait_for_jobs(1)
    jobs = driver.stopped()
    for _ in range(3):
        jobs.poll()
    before = server.calls["describe_jobs"]
    for _ in range(5):
        jobs.poll()
    assert server.calls["describe_jobs"] - before == 5
    jobs.close()


@pytest.mark.parametrize("specs", [[task("start")], branches(3), [task("work", 0, nodes=2), task("work", 1, nodes=2)]])
def test_there_are_pauses_between_polls(server: FakeBatch, driver: Driver, specs: list[TaskSpec]) -> None:
    """As soon as the state of a job of any kind is known."""
    driver.executor.submit(specs)
    server.wait_for_jobs(1)
    jobs = driver.stopped()
    jobs.poll()
    assert min(jobs.poll() for _ in range(5)) > 0.3


def test_polls_are_bounded_by_the_unfinished_jobs(server: FakeBatch) -> None:
    """With any mixture of single jobs and arrays: one request for each hundred, rounded up."""
    driver = Driver(server)
    for index in range(7):
        driver.executor.submit([TaskSpec("Demo", "r1", TaskName("start", (), index))])
    driver.executor.submit(branches(150))
    server.wait_for_jobs(8)
    jobs = driver.stopped()
    for _ in range(6):
        before = server.calls["describe_jobs"]
        jobs.poll()
        assert server.calls["describe_jobs"] - before <= math.ceil((7 + 150 + 1) / 100)
    jobs.close()


@pytest.mark.slow
def test_ten_thousand_branches_keep_the_driver_small(tmp_path: Path) -> None:
    """The whole driver, in a process of its own, in less than 200 MB."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.executors.wide_batch", str(tmp_path)],
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    finished, megabytes, describes = map(float, done.stdout.split())
    assert finished == 10_000
    assert megabytes < 200, megabytes
    assert describes < 400


def test_an_error_of_the_thread_ends_the_run(server: FakeBatch) -> None:
    """As when the queue was deleted."""
    driver = Driver(server)

    def broken(_ids: Any) -> Any:
        raise BatchError("this user may not call DescribeJobs", code="AccessDeniedException")

    server.describe_jobs = broken  # type: ignore[method-assign]
    driver.executor.submit([task("start")])
    error = driver.events.get(timeout=SECONDS)
    assert isinstance(error, BatchError)
    assert threading.active_count() < 50


def test_the_children_of_a_new_array_job_may_come_late(server: FakeBatch, driver: Driver) -> None:
    """They are not lost as long as the array job itself is known."""
    server.hides_children = True
    driver.executor.submit(branches(3))
    server.wait_for_jobs(1)
    jobs = driver.stopped()
    for _ in range(30):
        jobs.poll()
    assert driver.events.empty()
    server.hides_children = False
    for index in range(3):
        driver.commit(task("work", index))
        server.set("job0", "SUCCEEDED", index, startedAt=1)
    for _ in range(3):
        jobs.poll()
    assert set(driver.finished(3).values()) == {Outcome.SUCCEEDED}


def test_a_job_that_aws_batch_no_longer_knows_is_lost(server: FakeBatch, driver: Driver) -> None:
    """Not at once: a new job may take a moment to appear."""
    driver.executor.submit([task("start")])
    driver.executor.submit(branches(2))
    server.wait_for_jobs(2)
    jobs = driver.stopped()
    server.jobs.clear()
    for _ in range(25):
        jobs.poll()
    found = [driver.next(Finished).result.outcome for _ in range(3)]
    assert set(found) == {Outcome.NODE_LOST}


def test_a_reason_that_only_some_children_have_is_reported_once(server: FakeBatch, driver: Driver) -> None:
    driver.executor.submit(branches(2))
    server.wait_for_jobs(1)
    jobs = driver.stopped()
    server.set("job0", "RUNNABLE", 1, statusReason="CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY")
    for _ in range(5):
        jobs.poll()
    assert isinstance(driver.next(Queued), Queued)
    assert driver.events.empty()
