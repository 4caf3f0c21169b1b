"""The outcome of a task, or the reason why it waits, derived from its pod."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.outcome import Outcome
from k8sflow.kubernetes import diagnosis, waiting
from k8sflow.kubernetes.outcome import PodEnd, Running, Waiting, end_of_deleted, end_without_pod, pod_state
from k8sflow.task.host.launch import OTHER_RUNTIME
from k8sflow.task.result import TaskResult, Transition, failed

OPTIONS = PodOptions(cpu="2", memory="1000M", deadline_seconds=60)
SUCCESS = TaskResult(Outcome.SUCCEEDED, Transition(("end",)))
STOPPED = failed(Outcome.CANCELLED, "it was asked to stop.")


def pod(*, phase: str = "Failed", deleting: bool = False, **status: Any) -> dict[str, Any]:
    metadata = {"name": "p", **({"deletionTimestamp": "now"} if deleting else {})}
    spec = {"nodeName": "n1", "containers": [{"name": "task", "image": "app:1"}]}
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase, **status}}


def ended(code: int, reason: str = "Error", message: str = "", **more: Any) -> dict[str, Any]:
    state = {"exitCode": code, "reason": reason, "message": message, "startedAt": "then"}
    return pod(containerStatuses=[{"name": "task", "state": {"terminated": state}}], **more)


def disrupted(reason: str, message: str = "details") -> list[dict[str, str]]:
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}]


def end_of(document: dict[str, Any]) -> PodEnd:
    state = pod_state(document, OPTIONS)
    assert isinstance(state, PodEnd)
    assert (state.result.failure is None) == (state.result.outcome is Outcome.SUCCEEDED)
    return state


@pytest.mark.parametrize("code", [0, 1, 137])
def test_the_agents_result_takes_precedence(code: int) -> None:
    end = end_of(ended(code, "OOMKilled", SUCCESS.to_json(), conditions=disrupted("EvictionByEvictionAPI")))
    assert end.result == SUCCESS
    assert end.is_reported_by_agent
    assert not end.is_disruption


ENDS = [
    (ended(137, "OOMKilled"), Outcome.OUT_OF_MEMORY, "1000M"),
    (ended(143, "OOMKilled"), Outcome.NODE_LOST, "ended by SIGTERM"),
    (ended(143), Outcome.NODE_LOST, "exit code 143"),
    (ended(3), Outcome.USER_ERROR, "exit code 3"),
    (ended(0, "Completed"), Outcome.USER_ERROR, "without a result"),
    (ended(139), Outcome.USER_ERROR, "exit code 139"),
    (ended(137, "ContainerStatusUnknown"), Outcome.NODE_LOST, "lost track"),
    (ended(128, "StartError", 'exec: "python3": executable file not found in $PATH'), Outcome.BAD_IMAGE, "python3"),
    (ended(127, "ContainerCannotRun", "stat python3: no such file or directory"), Outcome.BAD_IMAGE, "app:1"),
    (
        ended(128, "StartError", 'error mounting "/data" to rootfs at "/data": no such file or directory'),
        Outcome.NEVER_STARTED,
        "StartError",
    ),
    (ended(255, "Error", "exec /usr/bin/python3: exec format error"), Outcome.BAD_IMAGE, "another architecture"),
    (ended(128, "StartError", "exec: python3: exec format error"), Outcome.BAD_IMAGE, "another architecture"),
    (
        ended(128, "StartError", "container init was OOM-killed (memory limit too low?)"),
        Outcome.OUT_OF_MEMORY,
        "too little",
    ),
    (ended(128, "StartError", "something new"), Outcome.NEVER_STARTED, "StartError"),
    (ended(1, message="/usr/bin/python3: No module named k8sflow"), Outcome.BAD_IMAGE, "runtime"),
    (ended(1, message=f"{OTHER_RUNTIME}0.0.0"), Outcome.BAD_IMAGE, "another version of k8sflow"),
    (ended(143, conditions=disrupted("PreemptionByScheduler")), Outcome.PREEMPTED, "higher priority"),
    (ended(143, conditions=disrupted("EvictionByEvictionAPI")), Outcome.EVICTED, "evicted"),
    (ended(143, conditions=disrupted("DeletionByTaintManager")), Outcome.NODE_LOST, "node was lost"),
    (ended(143, conditions=disrupted("DeletionByPodGC")), Outcome.NODE_LOST, "node was lost"),
    (ended(137, conditions=disrupted("TerminationByKubelet"), reason="Evicted"), Outcome.EVICTED, "evicted"),
    (ended(143, deleting=True), Outcome.NODE_LOST, "deleted externally"),
    (pod(reason="Evicted", message="The node was low on resource: ephemeral-storage."), Outcome.EVICTED, "evicted"),
    (pod(reason="Evicted", message="The node was low on resource: memory."), Outcome.EVICTED, "evicted"),
    (pod(reason="NodeShutdown", message="Pod was rejected"), Outcome.NODE_LOST, "shut down"),
    (
        pod(reason="UnexpectedAdmissionError", message="Allocate failed"),
        Outcome.NEVER_STARTED,
        "UnexpectedAdmissionError",
    ),
    (pod(reason="OutOfcpu", message="Node didn't have enough resource"), Outcome.NEVER_STARTED, "OutOfcpu"),
    (pod(reason="DeadlineExceeded", message="too long"), Outcome.TIMED_OUT, "deadline of 60 s"),
    (pod(), Outcome.NEVER_STARTED, "ended as Failed"),
    (pod(phase="Succeeded"), Outcome.NEVER_STARTED, "ended as Succeeded"),
]


@pytest.mark.parametrize(("document", "outcome", "expected"), ENDS)
def test_without_a_result_the_evidence_decides(document: dict[str, Any], outcome: Outcome, expected: str) -> None:
    """Every end has an outcome, and a diagnosis that says what to do."""
    end = end_of(document)
    assert end.result.outcome is outcome
    assert not end.is_reported_by_agent
    found = end.result.failure
    assert found is not None
    assert expected in f"{found.summary} {found.detail}"
    assert found.resolution


def test_the_deadline_takes_precedence_over_the_signal_that_it_sends() -> None:
    document = ended(137, "OOMKilled")
    document["status"]["reason"] = "DeadlineExceeded"
    assert end_of(document).result.outcome is Outcome.TIMED_OUT


def test_an_agent_that_got_sigterm_does_not_mean_cancelled() -> None:
    """The pod may say who sent it; otherwise that is not known, and counts as infrastructure."""
    message = STOPPED.to_json()
    assert end_of(ended(143, message=message, conditions=disrupted("PreemptionByScheduler"))).is_disruption
    assert end_of(ended(143, message=message, deleting=True)).result.outcome is Outcome.NODE_LOST
    end = end_of(ended(143, message=message))
    assert end.result.outcome is Outcome.NODE_LOST
    assert "ended by SIGTERM (exit code 143)" in str(end.result.failure)
    assert not end.is_reported_by_agent, "the store may have the task's commit"


def test_only_the_pods_condition_makes_a_disruption() -> None:
    """An eviction for using too much local disk is not a disruption: the Job counts it as a failure."""
    assert end_of(ended(143, conditions=disrupted("EvictionByEvictionAPI"))).is_disruption
    assert not end_of(pod(reason="Evicted", message="Pod ephemeral local storage usage exceeds")).is_disruption


def test_a_failure_to_copy_the_runtime_is_reported() -> None:
    terminated = {"exitCode": 1, "reason": "Error", "message": "cp: cannot stat '/opt/k8sflow/.'"}
    init = [{"name": "k8sflow-runtime", "state": {"terminated": terminated}}]
    end = end_of(pod(initContainerStatuses=init, containerStatuses=[{"name": "task", "state": {"waiting": {}}}]))
    assert end.result.outcome is Outcome.NEVER_STARTED
    assert "cp: cannot stat" in str(end.result.failure)


def test_a_message_that_was_cut_off_is_not_a_result() -> None:
    assert not end_of(ended(0, "Completed", SUCCESS.to_json()[:-3])).is_reported_by_agent


def test_the_end_of_a_log_is_shown_as_the_task_wrote_it() -> None:
    found = end_of(ended(1, message="hello\n\x1foh no\n\x1e{}")).result.failure
    assert found is not None
    assert found.detail.endswith("hello\noh no")


def test_a_pod_that_vanished_is_lost_or_disrupted() -> None:
    assert end_of_deleted(pod(phase="Running")).result.outcome is Outcome.NODE_LOST
    end = end_of_deleted(pod(phase="Running", conditions=disrupted("DeletionByTaintManager")))
    assert end.is_disruption


def test_a_job_without_pods_has_ended_when_its_condition_says_so_or_it_is_missing() -> None:
    assert end_without_pod({"status": {}}) is None
    assert end_without_pod({"status": {"conditions": [{"type": "Failed", "status": "True"}]}}) is not None
    assert end_without_pod(None) is not None


def test_a_container_that_runs_is_running_whatever_the_phase() -> None:
    state = {"containerStatuses": [{"name": "task", "state": {"running": {}}}]}
    assert pod_state(pod(phase="Running", **state), OPTIONS) == Running("n1")
    assert pod_state(pod(phase="Pending"), OPTIONS) == Waiting()


@given(
    st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
    st.none() | st.integers(0, 255),
    st.text(max_size=20),
    st.text(max_size=200),
    st.booleans(),
)
def test_no_pod_is_too_strange(phase: str, code: int | None, reason: str, message: str, deleting: bool) -> None:
    """Unknown states are reported as such."""
    state = {"waiting": {"reason": reason, "message": message}}
    if code is not None:
        state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}  # type: ignore[dict-item]
    document = pod(phase=phase, deleting=deleting, reason=reason, containerStatuses=[{"name": "task", "state": state}])
    match pod_state(document, OPTIONS):
        case PodEnd(result=result):
            assert result.failure is not None or result.outcome is Outcome.SUCCEEDED
        case _:
            waiting.why(document, OPTIONS)


def waits(reason: str, message: str = "") -> dict[str, Any]:
    return pod(
        phase="Pending",
        containerStatuses=[{"name": "task", "state": {"waiting": {"reason": reason, "message": message}}}],
    )


@pytest.mark.parametrize("reason", ["", "ContainerCreating", "PodInitializing"])
def test_a_normal_start_is_not_reported(reason: str) -> None:
    assert waiting.why(waits(reason), OPTIONS) is None


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("failed to resolve reference: docker.io/x:1: not found", "it does not exist"),
        ("pull access denied, authentication required", "the registry refuses it"),
        ("dial tcp: lookup nowhere.invalid: no such host", "the node can't reach the registry"),
        ("couldn't parse image name: invalid reference format", "not a valid image reference"),
        ("Container image is not present with pull policy of Never", "it isn't on the node"),
        ("something new", "see below"),
    ],
)
def test_the_reason_why_an_image_can_not_be_pulled(message: str, cause: str) -> None:
    found = waiting.why(waits("ErrImagePull", message), OPTIONS)
    assert found is not None
    assert found.outcome is Outcome.BAD_IMAGE
    assert "app:1" in found.explained.summary
    assert cause in found.explained.summary


def test_an_unschedulable_pod_is_reported_with_its_requests() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    document = pod(phase="Pending", conditions=[condition])
    full = waiting.why(document, OPTIONS, ("8", "32Gi"))
    small = waiting.why(document, OPTIONS, ("1", "500Mi"))
    assert full is not None
    assert small is not None
    assert "cpu=2, memory=1000M" in full.explained.summary
    assert "so it waits until one is free" in full.explained.resolution
    assert "no node is large enough" in small.explained.summary
    assert "cpu=1, memory=524.3 MB" in small.explained.resolution


def test_gated_pods_are_not_unschedulable() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": ""}
    assert waiting.why(pod(phase="Pending", conditions=[condition]), OPTIONS) is None


def test_a_missing_secret_is_named() -> None:
    found = waiting.why(waits("CreateContainerConfigError", 'secret "keys" not found'), OPTIONS)
    assert found is not None
    assert 'secret "keys" not found' in found.explained.detail
    assert "Secret" in found.explained.resolution


@pytest.mark.parametrize(
    ("message", "expected", "is_final"),
    [
        ("exceeded quota: small, requested: pods=1", "quota is used up", False),
        (
            'pods "x" is forbidden: unable to create new content in namespace lab because it is being terminated',
            "namespace is being deleted",
            True,
        ),
        ('Internal error occurred: failed calling webhook "x": connection refused', "webhook", False),
        ('admission webhook "x" denied the request: no', "admission policy", True),
        ('Pod "x" is invalid: spec.containers[0].image: Required value', "doesn't accept", True),
        ("something new", "refused", False),
    ],
)
def test_the_reason_why_a_job_has_no_pod(message: str, expected: str, is_final: bool) -> None:
    """Those that a cluster has recorded are in test_recorded."""
    event = {"metadata": {}, "involvedObject": {"name": "j"}, "message": message}
    found = waiting.without_pod([event])["j"]
    assert expected in found.explained.summary
    assert found.explained.detail == message
    assert found.explained.is_final == is_final


@pytest.mark.parametrize(
    ("reasons", "summary", "advice"),
    [
        ("1 node(s) were unschedulable", "nodes are cordoned", "kubectl uncordon"),
        ("2 node(s) had untolerated taint {gpu: true}", "doesn't tolerate a taint", "tolerations"),
        (
            "1 node(s) had untolerated taint(s) {node.kubernetes.io/disk-pressure: }",
            "not ready, or short of disk",
            "kubectl describe nodes",
        ),
        ("1 node(s) had volume node affinity conflict", "its volume is on a node", "volume"),
        ("pod has unbound immediate PersistentVolumeClaims", "isn't bound", "kubectl describe pvc"),
        ("1 Too many pods", "as many pods as they may", "waits until a pod ends"),
    ],
)
def test_a_pod_that_no_node_takes_is_explained_by_the_schedulers_reasons(
    reasons: str, summary: str, advice: str
) -> None:
    """The advice fits: nobody is asked to request less where the node is cordoned."""
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": f"0/3 nodes are available: {reasons}. preemption: 0/3 nodes are available.",
    }
    found = waiting.why(pod(phase="Pending", conditions=[condition]), OPTIONS, ("8", "32Gi"))
    assert found is not None
    assert summary in found.explained.summary
    assert advice in found.explained.resolution
    assert "equest less" not in found.explained.resolution


def _event(kind: str, reason: str, message: str, **time: str) -> dict[str, Any]:
    return {"metadata": {}, "type": kind, "reason": reason, "message": message, **time}


def test_only_the_newest_event_counts() -> None:
    """A pod that no node could take, and that is pulling its image now, is in no trouble, however long that takes."""
    unscheduled = _event("Warning", "FailedScheduling", "0/1 nodes", eventTime="2026-01-01T00:00:00.500000Z")
    mount = _event("Warning", "FailedMount", "no such volume", lastTimestamp="2026-01-01T00:01:00Z")
    pulling = _event("Normal", "Pulling", 'Pulling image "app:1"', lastTimestamp="2026-01-01T00:02:00Z")
    assert waiting.from_events([unscheduled]) is None
    found = waiting.from_events([mount, unscheduled])
    assert found is not None
    assert "FailedMount" in found.explained.summary
    assert waiting.from_events([pulling, mount, unscheduled]) is None
    assert waiting.pulled_image([pulling, mount, unscheduled]) == "app:1"
    assert waiting.pulled_image([mount]) is None


def test_the_largest_node_is_schedulable() -> None:
    def node(cpu: str, memory: str, **spec: Any) -> dict[str, Any]:
        return {"spec": spec, "status": {"allocatable": {"cpu": cpu, "memory": memory}}}

    nodes = [node("4", "8Gi"), node("8", "16Gi"), node("64", "1Ti", unschedulable=True)]
    assert waiting.largest(nodes) == ("8", "16Gi")
    assert waiting.largest([]) is None


@pytest.mark.parametrize(
    ("memory", "suggested"), [("100M", 200), ("4096M", 7000), ("4Gi", 7000), ("1000M", 1500), ("60000M", 90000)]
)
def test_out_of_memory_suggests_half_as_much_again(memory: str, suggested: int) -> None:
    assert f"memory={suggested})" in diagnosis.out_of_memory(PodOptions(memory=memory)).explained.resolution
