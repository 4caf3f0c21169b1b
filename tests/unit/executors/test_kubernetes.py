"""The executor against a scripted API server."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from k8sflow.executors.base import Finished, Note, Output, OutputMissing, Queued, Reached, Started
from k8sflow.flow.decorators.pod_options import PodOptions, merge
from k8sflow.flow.outcome import Outcome
from k8sflow.kubernetes import names
from k8sflow.kubernetes.pod import agent_command
from k8sflow.outages import Notice
from k8sflow.task.host.framing import Encoder, encode_result
from k8sflow.task.result import TaskResult, failed
from tests.support import pod_options
from tests.unit.executors.kubernetes_driver import (
    DEFAULTS,
    SETTINGS,
    SUCCESS,
    Driver,
    at,
    running,
    task,
    terminated,
    waits,
    with_status,
)
from tests.unit.kubernetes.fake_answers import cut
from tests.unit.kubernetes.fake_api import DEADLINE_SECONDS, FakeApi

FLOWRUN = {"apiVersion": "k8sflow.dev/v1alpha1", "kind": "FlowRun", "name": "demo", "uid": "u"}


def test_a_task_goes_from_its_job_to_its_result(server: FakeApi, start: Callable[..., Driver]) -> None:
    """Started, the output line by line with its stream, and the agent's last line as the end."""
    driver = start()
    (job,) = driver.run("train/3.1")
    pod = server.pod_of(job, **running())
    assert driver.next(Started).where == f"pod {pod['metadata']['name']} on node-1"
    name = pod["metadata"]["name"]
    server.write_log(name, (at(1), b"hello"), (at(2), Encoder("stderr").feed(b"oh\n").rstrip(b"\n")))
    assert driver.next(Output) == Output(task("train/3.1"), "stdout", b"hello\n")
    assert driver.next(Output) == Output(task("train/3.1"), "stderr", b"oh\n")
    server.write_log(name, (at(3), encode_result(SUCCESS.to_json()).rstrip(b"\n")))
    assert driver.next(Finished) == Finished(task("train/3.1"), SUCCESS)


def test_a_task_that_was_over_before_it_was_seen_running_has_its_output(
    server: FakeApi, start: Callable[..., Driver]
) -> None:
    """The log is read to its end before the result is reported."""
    driver = start()
    (job,) = driver.run("a")
    pod = server.pod_of(job)
    server.write_log(pod["metadata"]["name"], (at(1), b"all"), (at(1), b"of it"))
    server.put("pods", with_status(pod, terminated(message=SUCCESS.to_json())))
    driver.next(Started)
    assert [driver.next(Output).data, driver.next(Output).data] == [b"all\n", b"of it\n"]
    assert driver.next(Finished).result == SUCCESS


def test_out_of_memory_is_reported_with_the_request_and_the_last_lines(
    server: FakeApi, start: Callable[..., Driver]
) -> None:
    driver = start(options={"a": merge(pod_options(memory=500), DEFAULTS)})
    (job,) = driver.run("a")
    pod = server.pod_of(job, **running())
    driver.next(Started)
    server.write_log(pod["metadata"]["name"], (at(1), b"allocating"))
    driver.next(Output)
    server.put("pods", with_status(pod, terminated(137, "OOMKilled")))
    result = driver.next(Finished).result
    assert result.outcome is Outcome.OUT_OF_MEMORY
    assert "500M" in result.explained.summary
    assert "memory=800" in result.explained.resolution
    assert "allocating" in result.explained.detail


def test_a_traced_run_reports_when_a_job_exists_and_when_its_pod_has_a_node(
    server: FakeApi, start: Callable[..., Driver]
) -> None:
    """Once each; and the pod's agent gets the option that stores its own times."""
    driver = start(is_traced=True)
    (job,) = driver.run("a")
    created = driver.next(Reached)
    pod = server.pod_of(job, **waits("ContainerCreating"))
    scheduled = driver.next(Reached)
    assert (created.stage, scheduled.stage, scheduled.where) == ("created", "scheduled", "node-1")
    assert created.at <= scheduled.at
    assert "--trace" in server.get("jobs", job)["spec"]["template"]["spec"]["containers"][0]["command"]
    server.put("pods", with_status(pod, running()))
    driver.next(Started)


def test_an_execution_requests_the_memory_of_its_spec(server: FakeApi, start: Callable[..., Driver]) -> None:
    """Instead of the step's: earlier executions ran out of that."""
    driver = start()
    driver.executor.submit([replace(task("work"), attempt=1, memory="8192M")])
    server.wait(lambda: server.names("jobs"), "the Job")
    (name,) = server.names("jobs")
    job = server.objects["jobs", name]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == "8192M"
    assert '"memory":"8192M"' in container["command"][len(agent_command(DEFAULTS))]


def test_a_commit_counts_if_the_pod_recorded_nothing(server: FakeApi, start: Callable[..., Driver]) -> None:
    driver = start()
    driver.commit("a")
    (job,) = driver.run("a")
    pod = server.pod_of(job, **running())
    driver.next(Started)
    server.put("pods", with_status(pod, terminated(137, "OOMKilled")))
    assert driver.next(Finished).result == SUCCESS


def test_the_reason_of_a_wait_is_reported_once(server: FakeApi, start: Callable[..., Driver]) -> None:
    """The words about an image change with each try; the reason doesn't."""
    driver = start()
    (job,) = driver.run("a")
    pod = server.pod_of(job, **waits("ContainerCreating"))
    pod = server.put("pods", with_status(pod, waits("ErrImagePull", "manifest unknown: not found")))
    queued = driver.next(Queued)
    assert "it does not exist" in queued.reason
    assert "image" in queued.resolution
    pod = server.put("pods", with_status(pod, waits("ImagePullBackOff", "Back-off pulling image")))
    server.put("pods", with_status(pod, running()))
    driver.next(Started)


def test_a_pod_that_fits_no_node_is_reported_with_the_largest_node(
    server: FakeApi, start: Callable[..., Driver]
) -> None:
    server.put(
        "nodes",
        {"metadata": {"name": "n"}, "spec": {}, "status": {"allocatable": {"cpu": "4", "memory": "16000000Ki"}}},
    )
    driver = start(options={"a": merge(pod_options(cpu=64), DEFAULTS)})
    (job,) = driver.run("a")
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient cpu.",
    }
    server.pod_of(job, conditions=[condition])
    queued = driver.next(Queued)
    assert queued.reason.startswith("no node is large enough for its pod: it requests cpu=64, memory=4096M.")
    assert "Insufficient cpu" in queued.reason
    assert "cpu=4, memory=16.4 GB" in queued.resolution


def test_an_image_name_that_is_none_ends_the_task_at_once(server: FakeApi, start: Callable[..., Driver]) -> None:
    driver = start()
    (job,) = driver.run("a")
    server.pod_of(job, **waits("InvalidImageName", 'couldn\'t parse image name "A:B:C"'))
    driver.next(Queued)
    assert driver.next(Finished).result.outcome is Outcome.BAD_IMAGE
    server.wait(lambda: not server.names("jobs"), "the deletion of the Job")


@pytest.mark.slow
def test_a_pod_that_waits_too_long_is_given_up(server: FakeApi, start: Callable[..., Driver]) -> None:
    driver = start(options={"a": merge(PodOptions(pending_timeout_seconds=1), DEFAULTS)})
    (job,) = driver.run("a")
    server.pod_of(job, **waits("CreateContainerConfigError", 'secret "keys" not found'))
    assert 'secret "keys" not found' in driver.next(Queued).reason
    result = driver.next(Finished).result
    assert result.outcome is Outcome.NEVER_STARTED
    assert result.explained.summary.startswith("it didn't start within 1 s")
    server.wait(lambda: not server.names("jobs"), "the deletion of the Job")


def test_a_disrupted_pod_is_waited_for_until_its_successor_ends(server: FakeApi, start: Callable[..., Driver]) -> None:
    """A disruption costs the driver nothing: the Job puts another pod in its place."""
    driver = start()
    (job,) = driver.run("a")
    pod = server.pod_of(job, **running())
    driver.next(Started)
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": "for web-1",
    }
    stopped = TaskResult(Outcome.CANCELLED).to_json()
    server.put("pods", with_status(pod, {**terminated(143, "Error", stopped), "conditions": [condition]}))
    assert driver.next(Queued).reason == "it was preempted by a pod with a higher priority. for web-1"
    second = server.pod_of(job, suffix="fghij", **running())
    assert second["metadata"]["name"] in driver.next(Started).where
    server.put("pods", with_status(second, terminated(message=SUCCESS.to_json())))
    assert driver.next(Finished).result == SUCCESS


def test_a_job_without_a_pod_is_explained_by_its_events(server: FakeApi, start: Callable[..., Driver]) -> None:
    driver = start()
    (job,) = driver.run("a")
    server.put(
        "events",
        {
            "metadata": {"name": "e"},
            "type": "Warning",
            "reason": "FailedCreate",
            "message": 'pods "x" is forbidden: exceeded quota: small',
            "involvedObject": {"kind": "Job", "name": job},
        },
    )
    queued = driver.next(Queued)
    assert "quota" in queued.reason
    assert "exceeded quota: small" in queued.reason


def test_a_refused_job_is_a_failed_task_and_not_the_end(server: FakeApi, start: Callable[..., Driver]) -> None:
    refusal = {"kind": "Status", "reason": "Invalid", "code": 422, "message": "spec.template: Invalid value"}
    server.fail("POST", "/jobs", 422, body=refusal)
    driver = start(owner=FLOWRUN)
    driver.executor.submit([task("a")])
    result = driver.next(Finished).result
    assert result.outcome is Outcome.NEVER_STARTED
    assert "spec.template: Invalid value" in result.explained.detail
    driver.run("b")


@pytest.mark.parametrize(
    ("status", "message", "is_final"),
    [
        (403, 'jobs.batch is forbidden: User "me" cannot create resource "jobs"', True),
        (403, "admission webhook denied the request", True),
        (403, 'jobs.batch "x" is forbidden: exceeded quota: small', False),
        (401, "Unauthorized", True),
        (422, "spec.template: Invalid value", True),
    ],
)
def test_only_what_may_change_by_itself_is_worth_another_execution(
    server: FakeApi, start: Callable[..., Driver], status: int, message: str, is_final: bool
) -> None:
    """Rights and manifests stay as they are until a person changes them, and the failure says what to do."""
    body = {"kind": "Status", "reason": "Forbidden", "code": status, "message": message}
    server.fail("POST", "/jobs", status, body=body, times=2)
    driver = start(owner=FLOWRUN)
    driver.executor.submit([task("a")])
    result = driver.next(Finished).result
    assert result.outcome is Outcome.NEVER_STARTED
    assert result.explained.is_final is is_final
    assert result.explained.resolution or status == 422


def test_a_watch_whose_token_expired_continues_with_a_new_one(server: FakeApi, start: Callable[..., Driver]) -> None:
    """One refusal is the old token's; the run continues."""
    driver = start()
    (job,) = driver.run("a")
    server.wait(lambda: server.asked("GET", "/pods", watch="1"), "the watch")
    server.fail("GET", "/pods", 401, times=1)
    server.close_watches()
    server.wait(lambda: len(server.asked("GET", "/pods", watch="1")) >= 2, "the watch after the refused one")
    server.pod_of(job, **terminated(message=SUCCESS.to_json()))
    driver.next(Started)
    assert driver.next(Finished).result == SUCCESS


def test_who_leaves_at_once_has_sent_the_deletes(server: FakeApi, start: Callable[..., Driver]) -> None:
    """Also while ``cancel`` waits for pods that are slow to go."""
    driver = start()
    driver.run("a")
    driver.executor.abandon()
    assert server.names("jobs") == []
    assert server.names("configmaps") == []


def test_a_container_that_got_sigterm_is_run_again(server: FakeApi, start: Callable[..., Driver]) -> None:
    """The agent says that it was stopped; nobody has cancelled the run, and neither Job nor pod is deleted."""
    driver = start()
    (job,) = driver.run("a")
    stopped = failed(Outcome.CANCELLED, "its pod was sent SIGTERM")
    server.pod_of(job, **terminated(143, message=stopped.to_json()))
    driver.next(Started)
    result = driver.next(Finished).result
    assert result.outcome is Outcome.NODE_LOST
    assert "ended by SIGTERM (exit code 143)" in result.failure.summary


def test_a_create_whose_answer_got_lost_makes_one_job(server: FakeApi, start: Callable[..., Driver]) -> None:
    server.drop("POST", "/jobs", after=True)
    driver = start(owner=FLOWRUN)
    (job,) = driver.run("a")
    server.wait(lambda: len(server.asked("POST", "/jobs")) == 2, "the second try")
    server.pod_of(job, **terminated(message=SUCCESS.to_json()))
    driver.next(Started)
    assert driver.next(Finished).result == SUCCESS


def test_a_pod_that_was_there_before_is_taken_over(server: FakeApi, start: Callable[..., Driver]) -> None:
    """A second driver finds the Job of its task, and no second pod is started."""
    first = start()
    (job,) = first.run("a")
    server.pod_of(job, **running())
    first.next(Started)
    second = start()
    second.executor.submit([task("a")])
    assert "on node-1" in second.next(Started).where
    assert server.names("jobs") == [job]


def test_no_more_jobs_than_allowed_are_unfinished(server: FakeApi, start: Callable[..., Driver]) -> None:
    driver = start(max_workers=2)
    driver.executor.submit([task(f"a/{index}") for index in range(3)])
    server.wait(lambda: len(server.names("jobs")) == 2, "two Jobs")
    first = server.names("jobs")[0]
    server.pod_of(first, **terminated(message=SUCCESS.to_json()))
    server.wait(lambda: len(server.names("jobs")) == 3, "the third Job")


def test_cancel_leaves_nothing_and_finishes_every_task(server: FakeApi, start: Callable[..., Driver]) -> None:
    driver = start(max_workers=2)
    driver.executor.submit([task(f"a/{index}") for index in range(3)])
    server.wait(lambda: len(server.names("jobs")) == 2, "two Jobs")
    server.pod_of(server.names("jobs")[0])
    driver.executor.cancel()
    assert server.names("jobs") == server.names("pods") == server.names("configmaps") == []
    ends = {driver.next(Finished).task: Outcome.CANCELLED for _ in range(3)}
    assert ends == {task(f"a/{index}"): Outcome.CANCELLED for index in range(3)}


def test_the_end_of_a_failed_run_keeps_the_jobs_that_have_ended(server: FakeApi, start: Callable[..., Driver]) -> None:
    """The tasks that run or wait are ended; then the failed Job owns the ConfigMap, which has no lease any more."""
    driver = start(max_workers=2, settings=replace(SETTINGS, kubernetes_job_ttl_seconds="60"))
    driver.executor.submit([task(f"a/{index}") for index in range(3)])
    server.wait(lambda: len(server.names("jobs")) == 2, "two Jobs")
    first, second = server.names("jobs")
    failure = failed(Outcome.USER_ERROR, "ValueError: no")
    pod = server.pod_of(first, **terminated(1, "Error", failure.to_json()))
    driver.next(Started)
    assert driver.next(Finished).result == failure
    server.wait(lambda: len(server.names("jobs")) == 3, "the third Job")
    server.pod_of(second, **running())
    driver.executor.end()
    assert server.names("jobs") == [first]
    assert server.names("pods") == [pod["metadata"]["name"]]
    (owner,) = server.names("configmaps")
    kept, config_map = server.get("jobs", first), server.get("configmaps", owner)
    assert kept is not None
    assert config_map is not None
    assert kept["spec"]["ttlSecondsAfterFinished"] == 60
    assert [each["uid"] for each in config_map["metadata"]["ownerReferences"]] == [kept["metadata"]["uid"]]
    assert lease_of(server) is None


@pytest.mark.parametrize(("grace_seconds", "expected"), [(None, set()), (3600, {5})])
def test_cancel_waits_for_no_grace(
    server: FakeApi,
    start: Callable[..., Driver],
    grace_seconds: int | None,
    expected: set[int],
) -> None:
    """Pods with an hour to finish are deleted with the grace of all others."""
    driver = start(options={"a": replace(DEFAULTS, grace_seconds=grace_seconds)})
    (job,) = driver.run("a")
    server.pod_of(job)
    driver.executor.cancel()
    assert {grace for resource, grace in server.grace_of_deletes if resource == "pods"} == expected


def test_a_cancelled_run_reports_that_its_jobs_can_not_be_deleted_yet(
    server: FakeApi, start: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is left when the server is back."""
    monkeypatch.setattr("k8sflow.outages.REPORT_AFTER_SECONDS", 0.2)
    notices: queue.Queue[Notice] = queue.Queue()
    driver = start(notice=notices.put)
    driver.run("a")
    cancelling = threading.Thread(target=driver.executor.cancel)
    with server.away(cut):
        cancelling.start()
        while "The run's Jobs can't be deleted yet" not in notices.get(timeout=DEADLINE_SECONDS).text:
            pass
    assert notices.get(timeout=DEADLINE_SECONDS).is_over
    cancelling.join(DEADLINE_SECONDS)
    assert not cancelling.is_alive()
    assert (server.names("jobs"), server.names("configmaps")) == ([], [])


def test_the_last_job_takes_the_owner_along(server: FakeApi, start: Callable[..., Driver]) -> None:
    """The ConfigMap owns the Jobs, and in the end the last Job owns the ConfigMap."""
    driver = start()
    (job,) = driver.run("a")
    (owner,) = server.names("configmaps")
    manifest = server.get("jobs", job)
    assert manifest is not None
    assert [reference["name"] for reference in manifest["metadata"]["ownerReferences"]] == [owner]
    server.pod_of(job, **terminated(message=SUCCESS.to_json()))
    driver.next(Started)
    driver.next(Finished)
    driver.executor.close()
    config_map = server.get("configmaps", owner)
    assert config_map is not None
    assert config_map["metadata"]["ownerReferences"][0]["name"] == job
    assert config_map["metadata"]["ownerReferences"][0]["uid"] == manifest["metadata"]["uid"]


def test_closing_before_the_end_leaves_the_tasks_to_run(server: FakeApi, start: Callable[..., Driver]) -> None:
    """A later driver takes them over; deleting their owner would delete them."""
    driver = start()
    driver.run("a")
    driver.executor.close()
    assert len(server.names("jobs")) == 1
    assert lease_of(server) is not None


def test_what_a_dead_driver_leaves_has_an_end(server: FakeApi, start: Callable[..., Driver]) -> None:
    """The ConfigMap belongs to a Job without pods from its first moment, which fails a week after the last driver."""
    driver = start()
    driver.run("a")
    (owner,) = server.names("configmaps")
    lease = lease_of(server)
    assert lease is not None
    spec = lease["spec"]
    assert (spec["parallelism"], spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (0, 604_800, 0)
    references = (server.get("configmaps", owner) or {})["metadata"]["ownerReferences"]
    assert [reference["uid"] for reference in references] == [lease["metadata"]["uid"]]
    order = [path.rpartition("/")[2] for method, path, _ in server.requests if method == "POST"]
    assert order == ["jobs", "configmaps", "jobs"]
    driver.executor.close()
    another = start()
    another.executor.submit([task("a")])
    server.wait(lambda: (lease_of(server) or lease)["spec"]["activeDeadlineSeconds"] == 2 * 604_800, "another week")


def test_a_run_whose_lease_is_refused_goes_without(server: FakeApi, start: Callable[..., Driver]) -> None:
    """A policy may forbid it; the run's tasks are what counts."""
    server.fail("POST", "/jobs", 403)
    driver = start()
    driver.run("a")
    assert lease_of(server) is None


def test_a_run_that_ends_takes_its_lease_along(server: FakeApi, start: Callable[..., Driver]) -> None:
    """It is deleted after the last Job has become the owner, and with everything else after Ctrl-C."""
    driver = start()
    (job,) = driver.run("a")
    server.pod_of(job, **terminated(message=SUCCESS.to_json()))
    driver.next(Started)
    driver.next(Finished)
    driver.executor.close()
    assert lease_of(server) is None
    another = start()
    another.run("b")
    assert lease_of(server) is not None
    another.executor.cancel()
    assert lease_of(server) is None


def lease_of(server: FakeApi) -> dict[str, Any] | None:
    """The lease of the tests' run."""
    return server.get("jobs", f"{names.owner_name(flow='Demo', run='r1')}-lease")


def test_an_owner_that_is_given_is_used(server: FakeApi, start: Callable[..., Driver]) -> None:
    driver = start(owner=FLOWRUN)
    (job,) = driver.run("a")
    manifest = server.get("jobs", job)
    assert manifest is not None
    assert manifest["metadata"]["ownerReferences"] == [FLOWRUN]
    assert server.names("configmaps") == []


def test_a_watch_that_is_forbidden_reaches_the_driver(server: FakeApi, start: Callable[..., Driver]) -> None:
    body = {"kind": "Status", "reason": "Forbidden", "code": 403, "message": 'User "me" cannot list resource "pods"'}
    server.fail("GET", "/pods", 403, body=body, times=9)
    driver = start()
    driver.executor.submit([task("a")])
    error = driver.next(BaseException)
    assert "kubectl auth can-i list pods -n lab" in str(error)
    driver.executor.cancel()
    assert server.names("jobs") == []


def test_an_error_of_the_executor_itself_reaches_the_driver(server: FakeApi, start: Callable[..., Driver]) -> None:
    class Broken(dict[str, PodOptions]):
        def __missing__(self, step: str) -> PodOptions:
            raise ZeroDivisionError

    driver = start(options=Broken())
    driver.executor.submit([task("a")])
    driver.next(ZeroDivisionError)


def test_a_deleted_pod_is_run_again_and_a_deleted_job_is_not(server: FakeApi, start: Callable[..., Driver]) -> None:
    driver = start()
    (job,) = driver.run("a")
    pod = server.pod_of(job, **running())
    driver.next(Started)
    server.remove("pods", pod["metadata"]["name"])
    assert driver.next(Finished).result.outcome is Outcome.NODE_LOST
    (other,) = driver.run("b")
    pod = server.pod_of(other, **running())
    driver.next(Started)
    server.remove("jobs", other)
    server.remove("pods", pod["metadata"]["name"])
    assert driver.next(Finished).result.outcome is Outcome.CANCELLED


def test_a_log_that_breaks_is_read_on_without_losing_or_doubling_lines(
    server: FakeApi, start: Callable[..., Driver]
) -> None:
    driver = start()
    (job,) = driver.run("a")
    pod = server.pod_of(job, **running())
    driver.next(Started)
    name = pod["metadata"]["name"]
    server.write_log(name, (at(1), b"one"), (at(2), b"two"), (at(2), b"two too"))
    assert [driver.next(Output).data for _ in range(3)] == [b"one\n", b"two\n", b"two too\n"]
    server.end_log(name)
    server.write_log(name, (at(2), b"two at last"), (at(3), b"three"))
    assert [driver.next(Output).data for _ in range(2)] == [b"two at last\n", b"three\n"]


def test_output_is_shown_again_when_the_kubelet_is_back(
    server: FakeApi, start: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it was down: more failures than any number of tries, reported once, in plain words."""
    monkeypatch.setattr("k8sflow.outages.REPORT_AFTER_SECONDS", 0.05)
    monkeypatch.setattr("k8sflow.kubernetes.logs._LONGEST_DELAY_SECONDS", 0.02)
    server.fail("GET", "/log", 404, times=30)
    driver = start()
    (job,) = driver.run("a")
    pod = server.pod_of(job, **running())
    driver.next(Started)
    note = driver.next(Note).text
    assert note == "its output can't be shown now, because its node doesn't answer (404); it is shown later."
    server.write_log(pod["metadata"]["name"], (at(1), b"back"))
    assert driver.next(Note).text.startswith("Its output is shown again, after ")
    assert driver.next(Output).data == b"back\n"
    assert len(server.asked("GET", "/log")) > 30


@pytest.mark.parametrize("is_live", [True, False])
def test_lines_that_were_not_shown_are_counted(server: FakeApi, start: Callable[..., Driver], is_live: bool) -> None:
    """A log that is rotated quickly has holes; the agent's count is in its last line and in the pod's status."""
    driver = start()
    (job,) = driver.run("a")
    pod = server.pod_of(job, **running())
    driver.next(Started)
    name, result = pod["metadata"]["name"], replace(SUCCESS, log_lines=7).to_json()
    server.write_log(name, (at(1), b"one"), (at(9), b"seven"))
    assert [driver.next(Output).data, driver.next(Output).data] == [b"one\n", b"seven\n"]
    if is_live:
        server.write_log(name, (at(9), encode_result(result).rstrip(b"\n")))
    else:
        server.put("pods", with_status(pod, terminated(message=result)))
    assert driver.next(OutputMissing) == OutputMissing(task("a"), 5)
    assert driver.next(Finished).result.outcome is Outcome.SUCCEEDED


def test_a_job_that_had_ended_and_whose_pod_was_deleted_does_not_hang(
    server: FakeApi, start: Callable[..., Driver]
) -> None:
    """As after the death of a driver and of the pod's node: the store may have the result, else it is run again."""
    first = start()
    jobs = [*first.run("a"), *first.run("b")]
    for job in jobs:
        manifest = server.get("jobs", job)
        assert manifest is not None
        server.put("jobs", {**manifest, "status": {"conditions": [{"type": "Failed", "status": "True"}]}})
    second = start()
    second.commit("a")
    second.executor.submit([task("a"), task("b")])
    ends = {end.task: end.result.outcome for end in (second.next(Finished), second.next(Finished))}
    assert ends == {task("a"): Outcome.SUCCEEDED, task("b"): Outcome.NODE_LOST}


@pytest.mark.parametrize("is_there", [True, False])
def test_a_job_that_is_deleted_with_its_namespace_says_so(
    server: FakeApi, start: Callable[..., Driver], is_there: bool
) -> None:
    """While it is being deleted, and when it is; nothing runs again there."""
    driver = start()
    (job,) = driver.run("a")
    server.pod_of(job, **running())
    driver.next(Started)
    if is_there:
        server.put("namespaces", {"metadata": {"name": "lab", "deletionTimestamp": at(1)}})
    else:
        server.remove("namespaces", "lab")
    server.remove("jobs", job)
    server.remove("pods", f"{job}-abcde")
    result = driver.next(Finished).result
    assert result.outcome is Outcome.NODE_LOST
    assert (
        "the namespace 'lab' is being deleted" if is_there else "has no namespace 'lab'"
    ) in result.explained.summary
    assert result.explained.is_final


def test_a_job_that_is_deleted_before_it_has_a_pod_is_cancelled(server: FakeApi, start: Callable[..., Driver]) -> None:
    driver = start()
    (job,) = driver.run("a")
    server.remove("jobs", job)
    assert driver.next(Finished).result.outcome is Outcome.CANCELLED


def test_a_job_that_a_queue_holds_back_is_reported(server: FakeApi, start: Callable[..., Driver]) -> None:
    """Also where events may not be read."""
    server.fail("GET", "/events", 403, times=100)
    driver = start()
    (job,) = driver.run("a")
    manifest = server.get("jobs", job)
    assert manifest is not None
    server.put("jobs", {**manifest, "spec": {**manifest["spec"], "suspend": True}})
    assert "suspended" in driver.next(Queued).reason


def queued(**more: Any) -> dict[str, PodOptions]:
    return {"a": merge(PodOptions(queue="team", **more), DEFAULTS)}


def suspend(server: FakeApi, job: str, *, suspended: bool, **status: Any) -> None:
    """Does with a Job what Kueue does."""
    manifest = server.get("jobs", job)
    assert manifest is not None
    server.put("jobs", {**manifest, "spec": {**manifest["spec"], "suspend": suspended}, "status": status})


def test_a_queue_of_a_cluster_without_kueue_is_explained(server: FakeApi, start: Callable[..., Driver]) -> None:
    driver = start(options=queued())
    (job,) = driver.run("a")
    assert server.get("jobs", job)["spec"]["suspend"] is True  # type: ignore[index]
    found = driver.next(Queued)
    assert found.reason == "its Job waits in the queue 'team', but the cluster has no Kueue that could start it."
    assert not server.asked("PATCH", "/jobs")


def test_a_queue_is_explained_in_kueues_words(server: FakeApi, start: Callable[..., Driver]) -> None:
    server.groups["kueue.x-k8s.io"] = "v1beta2"
    driver = start(options=queued())
    (job,) = driver.run("a")
    uid = server.get("jobs", job)["metadata"]["uid"]  # type: ignore[index]
    conditions = [{"type": "QuotaReserved", "status": "False", "message": "insufficient quota for cpu"}]
    metadata = {"name": "w", "labels": {"kueue.x-k8s.io/job-uid": uid}}
    server.put("workloads", {"metadata": metadata, "spec": {}, "status": {"conditions": conditions}})
    assert driver.next(Queued).reason == "its Job waits in the queue 'team': insufficient quota for cpu"


@pytest.mark.slow
def test_time_in_a_queue_counts_against_no_timeout(server: FakeApi, start: Callable[..., Driver]) -> None:
    """The time starts with the pod that the queue lets start."""
    driver = start(options=queued(pending_timeout_seconds=1))
    (job,) = driver.run("a")
    driver.next(Queued)
    server.wait(lambda: len(server.asked("GET", f"/jobs/{job}")) >= 3, "looks at the Job for longer than a second")
    assert driver.events.empty()
    suspend(server, job, suspended=False)
    server.pod_of(job, **waits("CreateContainerConfigError", 'secret "keys" not found'))
    driver.next(Queued)
    assert driver.next(Finished).result.explained.summary.startswith("it didn't start within 1 s")


@pytest.mark.parametrize("runs_again", [False, True])
def test_a_task_that_its_queue_stops_waits_for_its_turn(
    server: FakeApi, start: Callable[..., Driver], runs_again: bool
) -> None:
    """Also where the queue has let it start again before the driver looks at the Job."""
    driver = start(options=queued())
    (job,) = driver.run("a")
    suspend(server, job, suspended=False)
    pod = server.pod_of(job, **running())
    driver.next(Started)
    resumed = {"type": "Suspended", "status": "False", "lastTransitionTime": "2026-01-01T00:01:00Z"}
    suspend(server, job, suspended=not runs_again, conditions=[resumed] if runs_again else [])
    server.remove("pods", pod["metadata"]["name"])
    if not runs_again:
        assert "waits in the queue 'team'" in driver.next(Queued).reason
    second = server.pod_of(job, suffix="fghij", **running())
    started = driver.next(Started, after=(Queued,))  # on a slow machine the reason comes once more
    assert second["metadata"]["name"] in started.where
    server.put("pods", with_status(second, terminated(message=SUCCESS.to_json())))
    assert driver.next(Finished).result == SUCCESS


@pytest.mark.slow
def test_a_pod_that_hangs_on_its_node_is_explained_by_its_events(
    server: FakeApi, start: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k8sflow.executors.kubernetes.stuck._SLOW_START_SECONDS", 0.5)
    driver = start()
    (job,) = driver.run("a")
    pod = server.pod_of(job, **waits("ContainerCreating"))
    event = {
        "metadata": {"name": "e"},
        "type": "Warning",
        "reason": "FailedMount",
        "message": "no such volume",
        "involvedObject": {"uid": pod["metadata"]["uid"]},
    }
    server.put("events", event)
    assert driver.next(Queued).reason == "its pod is slow to start (FailedMount). no such volume"


def test_a_long_pull_after_a_wait_for_a_node_is_not_given_up(
    server: FakeApi, start: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time for faulty starts is not counted while the image is pulled."""
    monkeypatch.setattr("k8sflow.executors.kubernetes.stuck._SLOW_START_SECONDS", 0.1)
    monkeypatch.setattr("k8sflow.executors.kubernetes.pod.FAULTY_START_SECONDS", 0.5)
    driver = start()
    (job,) = driver.run("a")
    pod = server.pod_of(job, **waits("ContainerCreating"))
    about = {"metadata": {"name": "e1"}, "involvedObject": {"uid": pod["metadata"]["uid"]}}
    server.put(
        "events",
        {
            **about,
            "type": "Warning",
            "reason": "FailedScheduling",
            "message": "0/1 nodes",
            "lastTimestamp": "2026-01-01T00:00:00Z",
        },
    )
    pulling = {"type": "Normal", "reason": "Pulling", "message": 'Pulling image "app:1"'}
    server.put("events", {**about, "metadata": {"name": "e2"}, **pulling, "lastTimestamp": "2026-01-01T00:01:00Z"})
    assert driver.next(Queued).reason == "the image app:1 is being pulled."
    looks = len(server.asked("GET", "/events"))
    server.wait(lambda: len(server.asked("GET", "/events")) > looks + 1, "two more looks")
    server.put("pods", with_status(pod, running()))
    driver.next(Started)


def test_a_refusal_that_can_not_heal_ends_the_task_at_once(server: FakeApi, start: Callable[..., Driver]) -> None:
    """A LimitRange doesn't change by waiting, nor by another execution."""
    driver = start()
    (job,) = driver.run("a")
    message = 'pods "x" is forbidden: maximum memory usage per Container is 100Mi, but limit is 200M'
    about = {"metadata": {"name": "e"}, "involvedObject": {"kind": "Job", "name": job}}
    server.put("events", {**about, "type": "Warning", "reason": "FailedCreate", "message": message})
    assert "LimitRange" in driver.next(Queued).reason
    result = driver.next(Finished).result
    assert result.outcome is Outcome.NEVER_STARTED
    assert result.explained.is_final
    assert message in result.explained.detail


def test_a_node_that_never_comes_back_is_given_up(
    server: FakeApi, start: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k8sflow.executors.kubernetes.pod._TERMINATION_SLACK_SECONDS", 0.2)
    driver = start()
    (job,) = driver.run("a")
    pod = server.pod_of(job, **running())
    driver.next(Started)
    pod["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}
    server.put("pods", pod)
    assert driver.next(Finished).result.outcome is Outcome.NODE_LOST
    server.wait(lambda: not server.names("jobs"), "the deletion of the Job")


def test_a_log_that_may_not_be_read_is_reported_and_the_task_continues(
    server: FakeApi, start: Callable[..., Driver]
) -> None:
    server.fail("GET", "/log", 403, times=100)
    driver = start()
    (job,) = driver.run("a")
    pod = server.pod_of(job, **running())
    driver.next(Started)
    assert "its output can't be shown here" in driver.next(Note).text
    server.put("pods", with_status(pod, terminated(message=SUCCESS.to_json())))
    assert driver.next(Finished).result == SUCCESS


def test_so_many_tasks_are_followed_and_the_next_when_one_ends(server: FakeApi, start: Callable[..., Driver]) -> None:
    """The log of the others isn't read, but for the end of one that failed."""
    driver = start(settings=replace(SETTINGS, kubernetes_followed_tasks="1"))
    first, second, third, fourth = driver.run("a/0", "a/1", "a/2", "a/3")
    pods = [server.pod_of(job, **running()) for job in (first, second, third)]
    assert [driver.next(Started).is_followed for _ in pods] == [True, False, False]
    names = [pod["metadata"]["name"] for pod in pods]
    server.write_log(names[1], (at(1), b"unseen"))
    server.put("pods", with_status(pods[1], terminated(message=SUCCESS.to_termination_message())))
    assert driver.next(Finished).result == SUCCESS
    server.write_log(names[2], (at(1), b"why"))
    server.put("pods", with_status(pods[2], terminated(1, "Error", failed(Outcome.USER_ERROR, "no").to_json())))
    assert driver.next(Output).data == b"why\n"
    assert driver.next(Finished).result.outcome is Outcome.USER_ERROR
    assert not server.asked("GET", f"{names[1]}/log")
    assert server.asked("GET", f"{names[2]}/log", tailLines="200")
    server.put("pods", with_status(pods[0], terminated(message=SUCCESS.to_termination_message())))
    driver.next(Finished)
    server.pod_of(fourth, **running())
    assert driver.next(Started).is_followed


def test_the_stored_log_of_a_pod_without_an_agent_is_completed(server: FakeApi, start: Callable[..., Driver]) -> None:
    """The kernel has killed the agent too; the kubelet still has what it had not uploaded."""
    driver = start()
    (job,) = driver.run("a")
    log = driver.context.run_store.open_log("a", "0", 0, "stdout")
    log.write(b"first\n", 1.0)
    log.close()
    pod = server.pod_of(job, **running())
    server.write_log(
        pod["metadata"]["name"], (at(1), b"first"), (at(2), Encoder("stderr").feed(b"why\n")[:-1]), (at(3), b"last")
    )
    server.put("pods", with_status(pod, terminated(137, "OOMKilled")))
    while not isinstance(driver.events.get(timeout=DEADLINE_SECONDS), Finished):
        pass
    assert driver.context.run_store.read_log("a", "0", 0, "stdout") == b"first\nlast\n"
    assert driver.context.run_store.read_log("a", "0", 0, "stderr") == b"why\n"
