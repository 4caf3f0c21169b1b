"""A wide foreach as Indexed Jobs, against a scripted API server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from k8sflow.executors.base import Finished, Output, Queued, Started, TaskEvent
from k8sflow.flow.outcome import Outcome
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.task.batch import TaskBatch
from k8sflow.task.host.framing import encode_result
from k8sflow.task.result import failed
from k8sflow.task.spec import TaskInput, TaskName, TaskSpec
from tests.unit.executors.kubernetes_driver import (
    SETTINGS,
    SUCCESS,
    Driver,
    at,
    running,
    terminated,
    waits,
    with_status,
)
from tests.unit.kubernetes.fake_answers import refusing
from tests.unit.kubernetes.fake_api import DEADLINE_SECONDS, FakeApi

WIDE = replace(SETTINGS, kubernetes_indexed_from="3")
FAILURE = failed(Outcome.USER_ERROR, "ValueError: no")


def branches(*indices: int, attempt: int = 0) -> list[TaskSpec]:
    inputs = (TaskInput("start", ()),)
    return [TaskSpec("Demo", "r1", TaskName("work", (index,)), attempt, inputs) for index in indices]


def wide(start: Callable[..., Driver], server: FakeApi, tasks: list[TaskSpec], **more: Any) -> tuple[Driver, str]:
    """A driver with the tasks, and the name of the one Job for them."""
    driver = start(settings=WIDE, **more)
    driver.executor.submit(tasks)
    server.wait(lambda: server.names("jobs"), "the Job")
    server.wait(lambda: server.watchers, "the watch")
    (job,) = server.names("jobs")
    return driver, job


def spec_of(server: FakeApi, job: str) -> dict[str, Any]:
    found = server.get("jobs", job)
    assert found is not None
    spec: dict[str, Any] = found["spec"]
    return spec


def ended(server: FakeApi, job: str, index: int, message: str = SUCCESS.to_json(), code: int = 0) -> None:
    server.pod_of(job, index=index, **terminated(code, message=message))


def next_finished(driver: Driver) -> Finished:
    while True:
        event: TaskEvent | BaseException = driver.events.get(timeout=DEADLINE_SECONDS)
        if isinstance(event, Finished):
            return event


def test_a_wide_foreach_is_one_job_with_an_index_for_each_branch(server: FakeApi, start: Callable[..., Driver]) -> None:
    driver, job = wide(start, server, branches(0, 1, 2, 3))
    spec = spec_of(server, job)
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (4, 4, "Indexed")
    assert spec["backoffLimitPerIndex"] == 0
    assert "backoffLimit" not in spec
    given = TaskBatch.from_json(spec["template"]["spec"]["containers"][0]["command"][3])
    assert list(given) == branches(0, 1, 2, 3)
    server.pod_of(job, index=2, **running())
    assert driver.next(Started).task.name.id == "2"
    ended(server, job, 2)
    assert next_finished(driver) == Finished(branches(2)[0], SUCCESS)


def test_one_branch_that_fails_leaves_the_others_alone(server: FakeApi, start: Callable[..., Driver]) -> None:
    driver, job = wide(start, server, branches(0, 1, 2))
    ended(server, job, 1, FAILURE.to_json(), code=1)
    assert next_finished(driver) == Finished(branches(1)[0], FAILURE)
    ended(server, job, 0)
    assert next_finished(driver) == Finished(branches(0)[0], SUCCESS)
    assert server.names("jobs") == [job]


def test_the_end_of_a_failed_run_keeps_the_pods_that_have_ended(server: FakeApi, start: Callable[..., Driver]) -> None:
    """The Job controller ends the others: the Job's time is over; without a pod that has ended it is deleted."""
    driver, job = wide(start, server, branches(0, 1, 2, 3))
    for index in (0, 2):
        server.pod_of(job, index=index, **running())
        driver.next(Started)
    ended(server, job, 1, FAILURE.to_json(), code=1)
    next_finished(driver)
    driver.executor.submit([replace(task, name=replace(task.name, step="other")) for task in branches(*range(5))])
    server.wait(lambda: len(server.names("jobs")) == 2, "the second Job")
    driver.executor.end()
    assert server.names("jobs") == [job]
    assert server.names("pods") == [f"{job}-1-abcde"]
    assert spec_of(server, job)["activeDeadlineSeconds"] == 1
    (owner,) = server.names("configmaps")
    config_map = server.get("configmaps", owner)
    assert config_map is not None
    assert config_map["metadata"]["ownerReferences"][0]["name"] == job


def test_a_failed_run_ends_although_jobs_may_not_be_changed(server: FakeApi, start: Callable[..., Driver]) -> None:
    """A Role or an admission policy may allow no patches: then the Job is deleted, and the others end as well."""
    driver, job = wide(start, server, branches(0, 1, 2))
    for index in (0, 2):
        server.pod_of(job, index=index, **running())
        driver.next(Started)
    ended(server, job, 1, FAILURE.to_json(), code=1)
    next_finished(driver)
    server.answer("PATCH", job, refusing(403))
    driver.executor.end()
    assert server.names("jobs") == []
    assert server.names("pods") == []


def test_pods_that_can_not_start_before_the_create_of_their_job_is_answered(
    server: FakeApi, start: Callable[..., Driver]
) -> None:
    """All of them end at once, as soon as the Job is known."""
    driver, first = wide(start, server, branches(7, 8, 9))
    server.delay_answer("POST", "/jobs", 1.0)
    driver.executor.submit([replace(task, name=replace(task.name, step="other")) for task in branches(0, 1, 2)])
    server.wait(lambda: len(server.names("jobs")) == 2, "the second Job")
    (job,) = {*server.names("jobs")} - {first}
    for index in range(3):
        server.pod_of(job, index=index, **waits("InvalidImageName", "invalid reference format"))
    for _ in range(3):
        assert next_finished(driver).result.outcome is Outcome.BAD_IMAGE


def test_the_pod_of_the_branch_that_failed_is_kept_before_its_status_shows_its_end(
    server: FakeApi, start: Callable[..., Driver]
) -> None:
    """Its result is in its log a second or two earlier; until then the Job controller would end it with the others."""
    driver, job = wide(start, server, branches(0, 1, 2))
    for index in (0, 1, 2):
        server.pod_of(job, index=index, **running())
        driver.next(Started)
    failed_pod = f"{job}-1-abcde"
    server.write_log(failed_pod, (at(1), encode_result(FAILURE.to_json()).rstrip()))
    assert next_finished(driver) == Finished(branches(1)[0], FAILURE)
    driver.executor.submit([replace(task, name=replace(task.name, step="other")) for task in branches(0, 1)])
    server.wait(lambda: len(server.names("jobs")) == 3, "the other Jobs")
    ending = threading.Thread(target=driver.executor.end)
    ending.start()
    server.wait(lambda: server.names("jobs") == [job], "the end of the other Jobs")
    pod = server.get("pods", failed_pod)
    assert pod is not None
    server.put("pods", with_status(pod, terminated(1, message=FAILURE.to_json())))
    ending.join(DEADLINE_SECONDS)
    assert not ending.is_alive()
    assert server.names("pods") == [failed_pod]


def test_branches_that_run_again_are_in_one_new_job(server: FakeApi, start: Callable[..., Driver]) -> None:
    driver, first = wide(start, server, branches(*range(8)))
    for task in branches(1, 3, 7, attempt=1):
        driver.executor.submit([task])
    server.wait(lambda: len(server.names("jobs")) == 2, "the second Job")
    (second,) = set(server.names("jobs")) - {first}
    assert spec_of(server, second)["completions"] == 3
    ended(server, second, 2)
    assert next_finished(driver).task == branches(7, attempt=1)[0]


def test_the_live_pods_of_all_jobs_are_within_the_window(server: FakeApi, start: Callable[..., Driver]) -> None:
    """A second Job starts with the room that the first one leaves, and is widened as it leaves more."""
    driver, first = wide(start, server, branches(*range(4)), max_workers=3)
    assert spec_of(server, first)["parallelism"] == 3
    driver.executor.submit([replace(task, name=replace(task.name, step="other")) for task in branches(*range(5))])
    ended(server, first, 0)  # index 3 takes its place
    next_finished(driver)
    ended(server, first, 1)
    next_finished(driver)
    server.wait(lambda: len(server.names("jobs")) == 2, "the second Job")
    (second,) = set(server.names("jobs")) - {first}
    assert spec_of(server, second)["parallelism"] == 1
    ended(server, first, 2)
    server.wait(lambda: spec_of(server, second)["parallelism"] == 2, "a wider Job")
    ended(server, first, 3)
    server.wait(lambda: spec_of(server, second)["parallelism"] == 3, "a wider Job")


def test_a_branch_that_can_not_start_ends_its_pod_and_not_the_job(
    server: FakeApi, start: Callable[..., Driver]
) -> None:
    """And a pod that the Job starts for it again."""
    driver, job = wide(start, server, branches(0, 1, 2))
    pod = server.pod_of(job, index=1, **waits("InvalidImageName", 'couldn\'t parse image name "A:B:C"'))
    driver.next(Queued)
    assert driver.next(Finished).result.outcome is Outcome.BAD_IMAGE
    server.wait(lambda: not server.names("pods"), "the deletion of the pod")
    server.pod_of(job, index=1, suffix="again")
    server.wait(lambda: not server.names("pods"), "the deletion of the pod after it")
    assert server.names("jobs") == [job]
    assert pod["metadata"]["name"].startswith(f"{job}-1-")
    for index in (0, 2):
        ended(server, job, index)
        next_finished(driver)
    server.wait(lambda: not server.names("jobs"), "the deletion of the Job, which could start it again")


def test_another_driver_takes_over_the_rest_of_a_wide_job(server: FakeApi, start: Callable[..., Driver]) -> None:
    """It submits what has no result yet, in whatever parts; no task gets a second pod (I5)."""
    first, job = wide(start, server, branches(*range(6)), max_workers=3)
    ended(server, job, 0)
    next_finished(first)
    server.pod_of(job, index=2, **running())
    second = start(settings=WIDE, max_workers=3)
    second.executor.submit(branches(1, 2))
    second.executor.submit(branches(3, 4, 5))
    started = second.next(Started)
    assert started.task.name.id == "2"
    ended(server, job, 5)
    assert next_finished(second) == Finished(branches(5)[0], SUCCESS)
    assert server.names("jobs") == [job]


def test_an_index_that_ended_and_lost_its_pod_is_decided_by_the_store(
    server: FakeApi, start: Callable[..., Driver]
) -> None:
    """As when a node and its pods were removed while there was no driver."""
    _, job = wide(start, server, branches(*range(4)))
    manifest = server.get("jobs", job)
    assert manifest is not None
    server.put("jobs", {**manifest, "status": {"completedIndexes": "0-1", "failedIndexes": "3"}})
    second = start(settings=WIDE)
    second.commit("work/1")
    second.executor.submit(branches(1, 2, 3))
    ends = {end.task.name.id: end.result.outcome for end in (next_finished(second), next_finished(second))}
    assert ends == {"1": Outcome.SUCCEEDED, "3": Outcome.NODE_LOST}


def test_a_wide_job_that_is_deleted_ends_all_of_its_tasks(server: FakeApi, start: Callable[..., Driver]) -> None:
    driver, job = wide(start, server, branches(*range(4)), max_workers=3)
    server.pod_of(job, index=0, **running())
    driver.next(Started)
    server.remove("jobs", job)
    server.remove("pods", f"{job}-0-abcde")
    ends = {next_finished(driver).task.name.id for _ in range(4)}
    assert ends == {"0", "1", "2", "3"}


def test_a_disrupted_index_is_waited_for(server: FakeApi, start: Callable[..., Driver]) -> None:
    """The Job starts the index again: a disruption doesn't count for it."""
    driver, job = wide(start, server, branches(0, 1, 2))
    pod = server.pod_of(job, index=1, **running())
    driver.next(Started)
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drain"}
    server.put("pods", with_status(pod, {**terminated(137, "Error"), "conditions": [condition]}))
    driver.next(Queued)
    second = server.pod_of(job, index=1, suffix="again", **running())
    assert "1-again" in driver.next(Started).where
    server.put("pods", with_status(second, terminated(message=SUCCESS.to_json())))
    assert next_finished(driver) == Finished(branches(1)[0], SUCCESS)


def test_logs_are_left_out_where_so_many_pods_start_that_they_would_hold_up_the_rest(
    server: FakeApi, start: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not those of pods that failed."""
    monkeypatch.setattr(KubernetesApi, "is_busy", property(lambda _: True))
    driver, job = wide(start, server, branches(0, 1, 2))
    for index, (message, code) in enumerate([(SUCCESS.to_json(), 0), (FAILURE.to_json(), 1)]):
        pod = server.pod_of(job, index=index, **running())
        driver.next(Started)
        server.write_log(pod["metadata"]["name"], (at(1), b"hello"))
        server.put("pods", with_status(pod, terminated(code, message=message)))
        if code:
            assert driver.next(Output).data == b"hello\n"
        assert driver.next(Finished).task.name.id == str(index)
    assert len(server.asked("GET", "/log")) == 1
