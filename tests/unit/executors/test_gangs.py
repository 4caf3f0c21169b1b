"""Processes that run together, against a scripted API server: one Job and one Service, all of them or none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from k8sflow.executors.base import Finished, Queued, Started
from k8sflow.flow.decorators.pod_options import PodOptions, merge
from k8sflow.flow.outcome import Outcome
from k8sflow.task.host.gang import MISSING_PEERS
from k8sflow.task.result import TaskResult, failed
from k8sflow.task.spec import TaskInput, TaskName, TaskSpec
from tests.unit.executors.kubernetes_driver import DEFAULTS, SUCCESS, Driver, running, terminated, with_status
from tests.unit.kubernetes.fake_api import FakeApi

FAILURE = failed(Outcome.USER_ERROR, "ValueError: no")


def gang(attempt: int = 0) -> list[TaskSpec]:
    inputs = (TaskInput("start", ()),)
    return [TaskSpec("Demo", "r1", TaskName("train", (index,)), attempt, inputs, 3) for index in range(3)]


def started_gang(start: Callable[..., Driver], server: FakeApi) -> tuple[Driver, str]:
    """A driver whose three processes run, and the name of their Job."""
    driver = start(max_workers=1)
    driver.executor.submit(gang())
    server.wait(lambda: server.names("jobs"), "the Job")
    server.wait(lambda: server.watchers, "the watch")
    (job,) = server.names("jobs")
    for index in range(3):
        server.pod_of(job, index=index, **running())
        driver.next(Started)
    return driver, job


def test_all_of_them_are_one_job_with_names_in_dns(server: FakeApi, start: Callable[..., Driver]) -> None:
    """Also where fewer pods may run at a time: they need each other."""
    _, job = started_gang(start, server)
    manifest = server.get("jobs", job)
    (name,) = server.names("services")
    service = server.get("services", name)
    assert manifest is not None
    assert service is not None
    spec = manifest["spec"]
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (3, 3, "Indexed")
    assert "podFailurePolicy" not in spec
    pod = spec["template"]["spec"]
    assert pod["subdomain"] == name
    assert f"--peers={job}-%d.{name}.lab.svc" in pod["containers"][0]["command"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    assert service["metadata"]["ownerReferences"] == manifest["metadata"]["ownerReferences"]


def test_they_succeed_one_by_one(server: FakeApi, start: Callable[..., Driver]) -> None:
    driver, job = started_gang(start, server)
    for index in (2, 0, 1):
        server.pod_of(job, index=index, **terminated(message=SUCCESS.to_json()))
    assert set(driver.ends(3).values()) == {Outcome.SUCCEEDED}
    assert server.names("jobs") == [job]


def test_the_failure_of_one_ends_the_others(server: FakeApi, start: Callable[..., Driver]) -> None:
    """It is reported first, and its pod stays; the next execution has a Job of its own and the same Service."""
    driver, job = started_gang(start, server)
    server.pod_of(job, index=1, **terminated(1, "Error", FAILURE.to_json()))
    ends = driver.ends(3)
    assert next(iter(ends.items())) == ("1", Outcome.USER_ERROR)
    assert ends == {"1": Outcome.USER_ERROR, "0": Outcome.CANCELLED, "2": Outcome.CANCELLED}
    server.wait(lambda: len(server.names("pods")) == 1, "the end of the other pods")
    driver.executor.submit(gang(attempt=1))
    server.wait(lambda: len(server.names("jobs")) == 2, "the next Job")
    assert server.names("pods") == [f"{job}-1-abcde"]
    assert len(server.names("services")) == 1


def test_a_disruption_of_one_ends_the_others(server: FakeApi, start: Callable[..., Driver]) -> None:
    """No other pod is waited for, which would find nobody to talk to."""
    driver, job = started_gang(start, server)
    pod = server.get("pods", f"{job}-2-abcde")
    assert pod is not None
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drain"}
    server.put("pods", with_status(pod, {**terminated(137, "Error"), "conditions": [condition]}))
    assert driver.ends(3) == {"2": Outcome.EVICTED, "0": Outcome.CANCELLED, "1": Outcome.CANCELLED}


def test_another_driver_takes_them_over(server: FakeApi, start: Callable[..., Driver]) -> None:
    """No process gets a second pod (I5)."""
    _, job = started_gang(start, server)
    second = start()
    second.executor.submit(gang())
    for _ in range(3):
        second.next(Started)
    for index in range(3):
        server.pod_of(job, index=index, **terminated(message=SUCCESS.to_json()))
    assert set(second.ends(3).values()) == {Outcome.SUCCEEDED}
    assert server.names("jobs") == [job]


MISSING = failed(
    Outcome.NEVER_STARTED,
    "1 of the 3 processes that have to run together had no pod within 9 s: train/2.",
    error_type=MISSING_PEERS,
)


def missing_peer(start: Callable[..., Driver], server: FakeApi, cpu: str) -> tuple[TaskResult, dict[str, Outcome]]:
    """The end of a process whose peer had no pod in time, and the ends of the others; a node has 10 cores."""
    options = merge(PodOptions(cpu=cpu, memory="1Gi"), DEFAULTS)
    node = {"metadata": {"name": "n"}, "spec": {}, "status": {"allocatable": {"cpu": "10", "memory": "64Gi"}}}
    server.put("nodes", node)
    driver = start(options=defaultdict(lambda: options))
    driver.executor.submit(gang())
    server.wait(lambda: server.names("jobs"), "the Job")
    server.wait(lambda: server.watchers, "the watch")
    (job,) = server.names("jobs")
    for index in range(2):
        server.pod_of(job, index=index, **running())
        driver.next(Started)
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient cpu.",
    }
    server.pod_of(job, index=2, conditions=[condition])
    driver.next(Queued)
    server.pod_of(job, index=0, **terminated(1, "Error", MISSING.to_json()))
    first = driver.next(Finished)
    assert first.task.name.id == "0"
    return first.result, driver.ends(2)


def test_processes_that_never_fit_together_are_not_run_again(server: FakeApi, start: Callable[..., Driver]) -> None:
    """The nodes have room for two of three, even when empty: each of them fits, which is why two wait for the third."""
    result, others = missing_peer(start, server, "5")
    assert result.outcome is Outcome.UNSCHEDULABLE
    assert "train/2 can't get a pod: 3 processes have to run together" in result.explained.summary
    assert "room for 2 of their pods, even when empty" in result.explained.summary
    assert "Insufficient cpu" in result.explained.detail
    assert set(others.values()) == {Outcome.CANCELLED}


def test_a_process_that_did_not_fit_in_time_is_named_with_its_reason(
    server: FakeApi, start: Callable[..., Driver]
) -> None:
    """They would fit if the nodes were less busy, so they run again."""
    result, _ = missing_peer(start, server, "3")
    assert result.outcome is Outcome.NEVER_STARTED
    assert result.explained.summary == (
        "1 of the 3 processes that have to run together had no pod within 9 s: train/2, "
        "because no node can take its pod now: it requests cpu=3, memory=1Gi (too little cpu)."
    )


def test_processes_that_lost_their_pods_without_a_driver_end_by_that(
    server: FakeApi, start: Callable[..., Driver]
) -> None:
    """Each is recorded as what it was, and not as cancelled because of the others."""
    _, job = started_gang(start, server)
    for index in (0, 2):
        server.remove("pods", f"{job}-{index}-abcde", silently=True)
    manifest = server.get("jobs", job)
    assert manifest is not None
    second = start()
    server.put("jobs", {**manifest, "status": {"failedIndexes": "0,2"}}, silently=True)
    second.executor.submit(gang())
    assert second.ends(3) == {"0": Outcome.NODE_LOST, "2": Outcome.NODE_LOST, "1": Outcome.CANCELLED}


def test_a_refused_service_is_the_failure_of_all(server: FakeApi, start: Callable[..., Driver]) -> None:
    """No pod of them starts, which would wait for the others in vain."""
    server.fail("POST", "/services", 403, times=100)
    driver = start()
    driver.executor.submit(gang())
    assert set(driver.ends(3).values()) == {Outcome.NEVER_STARTED, Outcome.CANCELLED}
    assert server.names("jobs") == []
