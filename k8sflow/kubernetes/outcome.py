"""The state of a task, derived from its pod's document alone.

How it ended is read from the containers' terminated state, never from the Job's condition, which follows seconds to
minutes later. The evidence, in order of precedence:

1. the result in the agent's termination message, unless it only says that the agent got SIGTERM;
2. the deadline; an OOM kill (reason and exit code together: containerd reports false OOM kills, k/k#140716);
3. the DisruptionTarget condition; the pod's reason (Evicted, NodeShutdown, …);
4. the deletion of the pod; the container's reason (StartError, …); its exit code.

An agent's report that it was stopped is never the task's outcome: only the run's driver knows of a cancellation.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.outcome import Outcome
from k8sflow.kubernetes import diagnosis, images
from k8sflow.kubernetes.manifest import Manifest, condition
from k8sflow.kubernetes.pod import CONTAINER, RUNTIME_CONTAINER
from k8sflow.task import container_ends
from k8sflow.task.host.framing import Piece, decode
from k8sflow.task.host.launch import OTHER_RUNTIME
from k8sflow.task.result import TaskResult
from k8sflow.task.shared_results import SharedEnds

Pod = Manifest

_OUT_OF_MEMORY_EXIT = 137
_DISRUPTIONS_OF_A_NODE = {"DeletionByTaintManager", "DeletionByPodGC"}
_NODE_REASONS = {"NodeShutdown", "Terminated", "Shutdown", "NodeLost"}
_START_FAILURES = {"StartError", "ContainerCannotRun", "CreateContainerError", "CreateContainerConfigError"}


@dataclass(frozen=True)
class Running:
    """The task's container is running."""

    node: str


@dataclass(frozen=True)
class PodEnd:
    """The pod has ended.

    Args:
        result: How its task ended.
        is_reported_by_agent: True if the agent reported the result; else it is inferred, and the store may know better.
        is_disruption: True if Kubernetes removed the pod, so that its Job replaces it.
        ran: True if the task's container ran, so that there may be a log.
        shared: The ends of the tasks that shared the pod, as far as the agent reported them.
    """

    result: TaskResult
    is_reported_by_agent: bool = False
    is_disruption: bool = False
    ran: bool = False
    shared: SharedEnds = field(default_factory=SharedEnds)


@dataclass(frozen=True)
class Waiting:
    """The pod has not started yet; ``waiting.why`` explains why."""


PodState = Waiting | Running | PodEnd


def pod_state(pod: Pod, options: PodOptions) -> PodState:
    """The state of a pod's task."""
    status = pod.get("status") or {}
    task = _container(status.get("containerStatuses"), CONTAINER)
    state = (task or {}).get("state") or {}
    if "terminated" in state:
        return _ended(pod, options, state["terminated"])
    if status.get("phase") in {"Failed", "Succeeded"}:
        return _ended_without_container(pod, options)
    if "running" in state:
        return Running(node=str(pod["spec"].get("nodeName") or "an unknown node"))
    return Waiting()


def end_of_deleted(last_known: Pod) -> PodEnd:
    """The end of a pod that was deleted before its container was seen to end."""
    disruption = _disruption(last_known)
    found = _disrupted(last_known, disruption)
    if found is None:
        found = diagnosis.pod_deleted("The pod was deleted before the end of its container was reported.")
    return PodEnd(found, is_disruption=disruption is not None)


def end_of_unreachable(last_known: Pod) -> PodEnd:
    """The end of a pod that is long overdue for deletion, so that its node must be lost."""
    node = last_known["spec"].get("nodeName")
    return PodEnd(diagnosis.node_lost(f"The pod is overdue for deletion, and node {node} doesn't answer."))


def end_without_pod(job: Manifest | None, index: int = 0) -> PodEnd | None:
    """The end of an index that has no pod, as its Job has ended it or was deleted (None); None while one may come."""
    finished = job is None or any(condition(job, kind) for kind in ("Complete", "Failed", "FailureTarget"))
    if job is not None and not finished:
        status = job.get("status") or {}
        finished = any(index in _indices(status.get(key)) for key in ("completedIndexes", "failedIndexes"))
    return PodEnd(diagnosis.pod_missing()) if finished else None


def _indices(text: str | None) -> set[int]:
    """The indices in a Job's status: ``1,3-5``."""
    parts = (part.partition("-") for part in (text or "").split(",") if part)
    return {index for first, _, last in parts for index in range(int(first), int(last or first) + 1)}


def is_out_of_memory(terminated: Manifest) -> bool:
    """True if the kernel killed the container for lack of memory: containerd reports false OOM kills (k/k#140716)."""
    return terminated.get("reason") == "OOMKilled" and terminated.get("exitCode") == _OUT_OF_MEMORY_EXIT


def is_being_deleted(pod: Pod) -> bool:
    """True if the pod's deletion was requested."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def image_of(pod: Pod) -> str:
    """The image of the task's container."""
    return str(next(c["image"] for c in pod["spec"]["containers"] if c["name"] == CONTAINER))


def _ended(pod: Pod, options: PodOptions, terminated: dict[str, Any]) -> PodEnd:
    reported = _reported(terminated)
    disruption = _disruption(pod)
    if reported is not None and reported.outcome is not Outcome.CANCELLED:
        return PodEnd(reported, is_reported_by_agent=True, ran=True)
    reason = str(terminated.get("reason") or "")
    ran = bool(terminated.get("startedAt")) and reason not in _START_FAILURES
    found = _inferred(pod, options, terminated, disruption)
    note = reported.note if reported is not None else ""
    shared = _shared(str(terminated.get("message") or ""))
    return PodEnd(replace(found, note=note), is_disruption=disruption is not None, ran=ran, shared=shared)


def _inferred(
    pod: Pod, options: PodOptions, terminated: dict[str, Any], disruption: dict[str, Any] | None
) -> TaskResult:
    """The diagnosis that follows from the evidence."""
    code, reason = int(terminated.get("exitCode", -1)), str(terminated.get("reason") or "")
    message = _plain(str(terminated.get("message") or ""))
    status = pod["status"]
    if status.get("reason") == "DeadlineExceeded":
        return container_ends.timed_out(options.deadline_seconds, str(status.get("message") or ""))
    if is_out_of_memory(terminated):
        return diagnosis.out_of_memory(options)
    if (found := _disrupted(pod, disruption)) is not None:
        return found
    if is_being_deleted(pod):
        return diagnosis.pod_deleted(_evidence(code, reason, ""))
    if (reported := _reported(terminated)) is not None:
        return diagnosis.killed(code, reported.failure.detail if reported.failure is not None else "")
    return _by_container(pod, options, code, reason, message)


def _disrupted(pod: Pod, disruption: dict[str, Any] | None) -> TaskResult | None:
    """Why the pod was removed from its node, or None if it wasn't."""
    status = pod["status"]
    reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    if disruption is not None:
        cause, details = str(disruption.get("reason") or ""), str(disruption.get("message") or message)
        if cause == "PreemptionByScheduler":
            return diagnosis.preempted(details)
        if cause in _DISRUPTIONS_OF_A_NODE or reason in _NODE_REASONS:
            return diagnosis.node_lost(f"{cause}: {details}")
        return diagnosis.evicted(message or details)
    if reason == "Evicted":
        return diagnosis.evicted(message)
    if reason in _NODE_REASONS:
        return diagnosis.node_lost(f"{reason}: {message}")
    return None


def _by_container(pod: Pod, options: PodOptions, code: int, reason: str, message: str) -> TaskResult:
    image = image_of(pod)
    if reason in _START_FAILURES:
        return _start_failure(image, options, reason, message)
    if reason == "ContainerStatusUnknown":
        return diagnosis.lost_container(message)
    if (found := _by_last_words(image, message.strip())) is not None:
        return found
    detail = _evidence(code, reason, message)
    if code in container_ends.SIGNALS_FROM_OUTSIDE:
        return diagnosis.killed(code, detail)
    return container_ends.no_result(code, reason, detail)


def _by_last_words(image: str, message: str) -> TaskResult | None:
    """The fault of an image that can't start the agent, by the text in its place; None for anything else."""
    if container_ends.was_not_executed(message):
        return images.wrong_architecture(image, message)
    if "No module named" in message and "k8sflow" in message:
        return images.no_runtime(image, message)
    if OTHER_RUNTIME in message:
        return images.other_runtime(image, message)
    return None


def _start_failure(image: str, options: PodOptions, reason: str, message: str) -> TaskResult:
    low = message.lower()
    if container_ends.cant_be_executed(message):
        return images.wrong_architecture(image, message)
    if container_ends.has_no_program(message):
        return images.cant_execute(image, options, message)
    if "memory limit too low" in low or "oom-killed" in low:
        return diagnosis.limit_too_low(options, message)
    return diagnosis.cant_start(reason, message)


def _ended_without_container(pod: Pod, options: PodOptions) -> PodEnd:
    """A pod that ended before its task's container ran: refused, evicted, or failed in its init container."""
    status = pod["status"]
    phase, reason, message = status["phase"], str(status.get("reason") or ""), str(status.get("message") or "")
    disruption = _disruption(pod)
    if reason == "DeadlineExceeded":
        return PodEnd(container_ends.timed_out(options.deadline_seconds, message))
    if (found := _disrupted(pod, disruption)) is not None:
        return PodEnd(found, is_disruption=disruption is not None)
    if (copying := _failed_init(pod)) is not None:
        return PodEnd(copying)
    if reason:
        return PodEnd(diagnosis.refused_by_node(reason, message))
    return PodEnd(diagnosis.unknown_end(phase, reason, message))


def _failed_init(pod: Pod) -> TaskResult | None:
    init = _container(pod["status"].get("initContainerStatuses"), RUNTIME_CONTAINER)
    terminated = ((init or {}).get("state") or {}).get("terminated")
    if not terminated or terminated.get("exitCode") == 0:
        return None
    reason, message = str(terminated.get("reason") or ""), str(terminated.get("message") or "")
    return diagnosis.runtime_not_copied(_evidence(int(terminated["exitCode"]), reason, message))


def _reported(terminated: dict[str, Any]) -> TaskResult | None:
    message = str(terminated.get("message") or "")
    try:
        return TaskResult.from_json(message) if message.startswith("{") else None
    except ValueError:
        return None  # the end of a log, or a message that was cut off: evidence, but not a result


def _shared(message: str) -> SharedEnds:
    try:
        return SharedEnds.from_json(message) if message.startswith("{") else SharedEnds()
    except ValueError:
        return SharedEnds()


def _disruption(pod: Pod) -> Manifest | None:
    return condition(pod, "DisruptionTarget")


def _container(statuses: list[dict[str, Any]] | None, name: str) -> dict[str, Any] | None:
    return next((status for status in statuses or () if status["name"] == name), None)


def _plain(message: str) -> str:
    """A termination message that is the end of the log, decoded to the task's own output."""
    pieces = [decode(line) for line in message.encode().split(b"\n")]
    return b"".join(piece.data for piece in pieces if isinstance(piece, Piece)).decode(errors="replace").strip()


def _evidence(code: int, reason: str, message: str) -> str:
    return "\n".join(part for part in (f"exit code {code}, reason {reason or 'none'}", message.strip()) if part)
