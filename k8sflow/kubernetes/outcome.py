"""From a pod to how its task ended: a function of the pod's document alone.

The end is read from the containers' terminated state, never from the Job's condition, which comes seconds to
minutes later. What counts, in this order:

1. the result that the agent left as termination message, unless it only says that it was sent SIGTERM;
2. the deadline; an OOM kill (reason and exit code together: containerd tells of kills that weren't, k/k#140716);
3. the DisruptionTarget condition; the pod's reason (Evicted, NodeShutdown, …);
4. that somebody deleted the pod; the container's reason (StartError, …); its exit code.

The agent's word that it was stopped is never the task's outcome: only the run's driver knows of a cancellation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.kubernetes import diagnosis
from k8sflow.kubernetes.job import CONTAINER, RUNTIME_CONTAINER
from k8sflow.task.host.framing import Piece, decode
from k8sflow.task.outcome import Outcome
from k8sflow.task.result import TaskResult

Manifest = dict[str, Any]
Pod = Manifest

_OUT_OF_MEMORY_EXIT = 137
_SIGNALS_FROM_OUTSIDE = {137, 143}
_DISRUPTIONS_OF_A_NODE = {"DeletionByTaintManager", "DeletionByPodGC"}
_NODE_REASONS = {"NodeShutdown", "Terminated", "Shutdown", "NodeLost"}
_START_FAILURES = {"StartError", "ContainerCannotRun", "CreateContainerError", "CreateContainerConfigError"}


@dataclass(frozen=True)
class Running:
    """The task's container runs."""

    node: str


@dataclass(frozen=True)
class PodEnd:
    """The pod is over.

    Args:
        result: How its task ended.
        is_told_by_agent: Whether that is the agent's word; else it is inferred, and the store may know better.
        is_disruption: Whether Kubernetes took the pod away, so that its Job puts another one in its place.
        ran: Whether the task's container ran, so that there may be a log.
    """

    result: TaskResult
    is_told_by_agent: bool = False
    is_disruption: bool = False
    ran: bool = False


@dataclass(frozen=True)
class Waiting:
    """The pod has not started yet; ``waiting.why`` tells what it waits for."""


PodState = Waiting | Running | PodEnd


def pod_state(pod: Pod, options: PodOptions) -> PodState:
    """What the pod's status says about its task."""
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
    """The end of a pod whose object is gone before its container was seen to end."""
    disruption = _disruption(last_known)
    found = _disrupted(last_known, disruption)
    if found is None:
        found = diagnosis.pod_deleted("The pod was gone before the end of its container was told.")
    return PodEnd(found, is_disruption=disruption is not None)


def end_of_unreachable(last_known: Pod) -> PodEnd:
    """The end of a pod that should long be deleted, so that its node can't be there any more."""
    node = last_known["spec"].get("nodeName")
    return PodEnd(diagnosis.node_lost(f"The pod should be gone, and node {node} doesn't answer for it."))


def end_without_pod(job: Manifest | None) -> PodEnd | None:
    """The end that a Job without any pod stands for: it is over, or was deleted (None); None while pods may come."""
    conditions = ((job or {}).get("status") or {}).get("conditions") or ()
    finished = any(c["type"] in {"Complete", "Failed", "FailureTarget"} and c["status"] == "True" for c in conditions)
    return PodEnd(diagnosis.pod_gone()) if job is None or finished else None


def is_being_deleted(pod: Pod) -> bool:
    """Whether somebody has asked for the pod's deletion."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def image_of(pod: Pod) -> str:
    """The image of the task's container."""
    return str(next(c["image"] for c in pod["spec"]["containers"] if c["name"] == CONTAINER))


def _ended(pod: Pod, options: PodOptions, terminated: dict[str, Any]) -> PodEnd:
    told = _told_by_agent(terminated)
    disruption = _disruption(pod)
    if told is not None and told.outcome is not Outcome.CANCELLED:
        return PodEnd(told, is_told_by_agent=True, ran=True)
    reason = str(terminated.get("reason") or "")
    ran = bool(terminated.get("startedAt")) and reason not in _START_FAILURES
    found = _inferred(pod, options, terminated, disruption)
    note = told.note if told is not None else ""
    return PodEnd(replace(found, note=note), is_disruption=disruption is not None, ran=ran)


def _inferred(
    pod: Pod, options: PodOptions, terminated: dict[str, Any], disruption: dict[str, Any] | None
) -> TaskResult:
    """The diagnosis that the evidence asks for."""
    code, reason = int(terminated.get("exitCode", -1)), str(terminated.get("reason") or "")
    message = _plain(str(terminated.get("message") or ""))
    status = pod["status"]
    if status.get("reason") == "DeadlineExceeded":
        return diagnosis.timed_out(options, str(status.get("message") or ""))
    if reason == "OOMKilled" and code == _OUT_OF_MEMORY_EXIT:
        return diagnosis.out_of_memory(options)
    if (found := _disrupted(pod, disruption)) is not None:
        return found
    if is_being_deleted(pod):
        return diagnosis.pod_deleted(_evidence(code, reason, ""))
    if (told := _told_by_agent(terminated)) is not None:
        return diagnosis.killed(code, told.failure.detail if told.failure is not None else "")
    return _by_container(pod, options, code, reason, message)


def _disrupted(pod: Pod, disruption: dict[str, Any] | None) -> TaskResult | None:
    """What took the pod off its node, if anything did."""
    status = pod["status"]
    reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    if disruption is not None:
        why, told = str(disruption.get("reason") or ""), str(disruption.get("message") or message)
        if why == "PreemptionByScheduler":
            return diagnosis.preempted(told)
        if why in _DISRUPTIONS_OF_A_NODE or reason in _NODE_REASONS:
            return diagnosis.node_lost(f"{why}: {told}")
        return diagnosis.evicted(message or told)
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
    if "No module named" in message and "k8sflow" in message:
        return diagnosis.no_runtime(image, message.strip())
    detail = _evidence(code, reason, message)
    if code in _SIGNALS_FROM_OUTSIDE:
        return diagnosis.killed(code, detail)
    return diagnosis.no_result(code, reason, detail)


def _start_failure(image: str, options: PodOptions, reason: str, message: str) -> TaskResult:
    low = message.lower()
    if "executable file not found" in low or "no such file or directory" in low or "permission denied" in low:
        return diagnosis.cant_execute(image, message)
    if "memory limit too low" in low or "oom-killed" in low:
        return diagnosis.limit_too_low(options, message)
    return diagnosis.cant_start(reason, message)


def _ended_without_container(pod: Pod, options: PodOptions) -> PodEnd:
    """A pod that was over before its task's container ran: refused, evicted, or failed in its init container."""
    status = pod["status"]
    phase, reason, message = status["phase"], str(status.get("reason") or ""), str(status.get("message") or "")
    disruption = _disruption(pod)
    if reason == "DeadlineExceeded":
        return PodEnd(diagnosis.timed_out(options, message))
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


def _told_by_agent(terminated: dict[str, Any]) -> TaskResult | None:
    message = str(terminated.get("message") or "")
    try:
        return TaskResult.from_json(message) if message.startswith("{") else None
    except ValueError:
        return None  # the last lines of a log, or a message that was cut off: evidence, but no result


def _disruption(pod: Pod) -> dict[str, Any] | None:
    conditions: Iterator[dict[str, Any]] = iter(pod["status"].get("conditions") or ())
    return next((c for c in conditions if c.get("type") == "DisruptionTarget" and c.get("status") == "True"), None)


def _container(statuses: list[dict[str, Any]] | None, name: str) -> dict[str, Any] | None:
    return next((status for status in statuses or () if status["name"] == name), None)


def _plain(message: str) -> str:
    """A termination message that is the end of the log, as the task wrote it."""
    pieces = [decode(line) for line in message.encode().split(b"\n")]
    return b"".join(piece.data for piece in pieces if isinstance(piece, Piece)).decode(errors="replace").strip()


def _evidence(code: int, reason: str, message: str) -> str:
    return "\n".join(part for part in (f"exit code {code}, reason {reason or 'none'}", message.strip()) if part)
