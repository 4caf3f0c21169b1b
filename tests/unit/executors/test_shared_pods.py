"""Branches that share pods, against a scripted API server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k8sflow.executors.base import Finished, Output, Started
from k8sflow.flow.decorators.pod_options import PodOptions, merge
from k8sflow.flow.outcome import Outcome
from k8sflow.task.host.framing import Encoder, encode_result, encode_start
from k8sflow.task.result import failed
from k8sflow.task.shared_results import SharedEnds
from k8sflow.task.spec import TaskInput, TaskName, TaskSpec
from tests.unit.executors.kubernetes_driver import (
    DEFAULTS,
    SUCCESS,
    Driver,
    at,
    running,
    terminated,
    with_status,
)
from tests.unit.kubernetes.fake_api import FakeApi

FOUR = {"work": merge(PodOptions(branches_per_pod=4, branches_at_a_time=2), DEFAULTS)}
FAILURE = failed(Outcome.USER_ERROR, "ValueError: no")


def branches(*indices: int, attempt: int = 0) -> list[TaskSpec]:
    inputs = (TaskInput("start", ()),)
    return [TaskSpec("Demo", "r1", TaskName("work", (index,)), attempt, inputs) for index in indices]


def begin(start: Callable[..., Driver], server: FakeApi, tasks: list[TaskSpec]) -> tuple[Driver, str, dict[str, Any]]:
    """A driver with tasks that share one pod, its Job, and the running pod."""
    driver = start(options=FOUR)
    driver.executor.submit(tasks)
    server.wait(lambda: server.names("jobs"), "the Job")
    server.wait(lambda: server.watchers, "the watch")
    (job,) = server.names("jobs")
    return driver, job, server.pod_of(job, **running())


def lines(*written: bytes) -> list[tuple[str, bytes]]:
    return [(at(1), line) for data in written for line in data.rstrip(b"\n").split(b"\n")]


def test_the_events_of_each_branch_are_read_from_the_one_log(server: FakeApi, start: Callable[..., Driver]) -> None:
    driver, job, pod = begin(start, server, branches(0, 1, 2))
    written = [encode_start("1"), Encoder("stderr", "1").feed(b"oh\n"), b"not of a branch\n"]
    server.write_log(pod["metadata"]["name"], *lines(*written, encode_result(FAILURE.to_json(), "1")))
    assert driver.next(Started).task == branches(1)[0]
    assert driver.next(Output) == Output(branches(1)[0], "stderr", b"oh\n")
    assert driver.next(Finished) == Finished(branches(1)[0], FAILURE)
    message = SharedEnds({0: SUCCESS, 1: FAILURE, 2: SUCCESS}).to_termination_message()
    server.put("pods", with_status(pod, terminated(1, message=message)))
    assert driver.ends(2) == {"0": Outcome.SUCCEEDED, "2": Outcome.SUCCEEDED}
    manifest = server.get("jobs", job)
    assert manifest is not None
    assert "podFailurePolicy" not in manifest["spec"]
    words = manifest["spec"]["template"]["spec"]["containers"][0]["command"]
    assert {"--per-pod=4", "--at-a-time=2"} <= set(words)


def test_of_a_pod_that_was_killed_only_what_is_not_done_runs_again(
    server: FakeApi, start: Callable[..., Driver]
) -> None:
    """The log, the message and the store each know of one branch."""
    driver, _, pod = begin(start, server, branches(0, 1, 2, 3))
    server.write_log(pod["metadata"]["name"], *lines(encode_start("0"), encode_result(SUCCESS.to_json(), "0")))
    driver.next(Started)
    driver.next(Finished)
    driver.commit("work/2")
    message = SharedEnds({0: SUCCESS, 1: SUCCESS}).to_termination_message()
    server.put("pods", with_status(pod, terminated(143, "Error", message)))
    assert driver.ends(3) == {"1": Outcome.SUCCEEDED, "2": Outcome.SUCCEEDED, "3": Outcome.NODE_LOST}


def test_a_container_that_ran_out_of_memory_is_blamed_on_the_branches_that_ran(
    server: FakeApi, start: Callable[..., Driver]
) -> None:
    driver, _, pod = begin(start, server, branches(0, 1, 2, 3))
    server.write_log(pod["metadata"]["name"], *lines(encode_start("0"), encode_start("1")))
    driver.next(Started)
    driver.next(Started)
    server.put("pods", with_status(pod, terminated(137, "OOMKilled")))
    assert driver.ends(4) == {
        "0": Outcome.OUT_OF_MEMORY,
        "1": Outcome.OUT_OF_MEMORY,
        "2": Outcome.NEVER_STARTED,
        "3": Outcome.NEVER_STARTED,
    }


def test_a_disrupted_pod_of_several_branches_is_not_waited_for(server: FakeApi, start: Callable[..., Driver]) -> None:
    """Another pod of its Job would run what is done once more."""
    driver, _, pod = begin(start, server, branches(0, 1))
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "web"}
    message = SharedEnds({0: SUCCESS}).to_termination_message()
    server.put("pods", with_status(pod, {**terminated(143, "Error", message), "conditions": [condition]}))
    assert driver.ends(2) == {"0": Outcome.SUCCEEDED, "1": Outcome.PREEMPTED}


def test_another_driver_takes_over_the_branches_of_a_pod(server: FakeApi, start: Callable[..., Driver]) -> None:
    first, job, pod = begin(start, server, branches(0, 1, 2))
    name = pod["metadata"]["name"]
    server.write_log(name, *lines(encode_start("0"), encode_result(SUCCESS.to_json(), "0"), encode_start("1")))
    assert first.ends(1) == {"0": Outcome.SUCCEEDED}
    second = start(options=FOUR)
    second.executor.submit(branches(1))
    second.executor.submit(branches(2))
    assert second.next(Started).task == branches(1)[0]
    message = SharedEnds({0: SUCCESS, 1: SUCCESS, 2: FAILURE}).to_termination_message()
    server.put("pods", with_status(pod, terminated(1, message=message)))
    assert second.ends(2) == {"1": Outcome.SUCCEEDED, "2": Outcome.USER_ERROR}
    assert server.names("jobs") == [job]
