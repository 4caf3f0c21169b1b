"""Reasons why a pod has not started, if it takes longer than the usual seconds.

``why`` is a function of the pod's document. What the status doesn't show is in events (``from_events``,
``without_pod``), which the executor lists only for tasks that have waited for some time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from k8sflow.flow.decorators import quantity
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.outcome import Outcome
from k8sflow.kubernetes import diagnosis, images, scheduling
from k8sflow.task.result import TaskResult

Pod = dict[str, Any]

_IMAGE_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
}
# If an init container ran first, the kubelet's event about a failed pull comes some 15 s before the status shows it.
_PULL_FAILED = re.compile(r'Failed to pull image "([^"]+)"')
_PULLING = re.compile(r'Pulling image "([^"]+)"')
_OF_SCHEDULER = {"FailedScheduling", "Scheduled", "TriggeredScaleUp", "NotTriggerScaleUp"}
# The scheduler is faster than the controller that makes the claim of an ephemeral volume.
_CLAIM_TO_COME = "waiting for ephemeral volume controller"
_CONFIGURATION_REASONS = {"CreateContainerConfigError"}
ORDINARY_REASONS = {"", "ContainerCreating", "PodInitializing"}


def why(pod: Pod, options: PodOptions, largest_node: tuple[str, str] | None = None) -> TaskResult | None:
    """The reason why the pod waits, or None if it is starting normally."""
    status = pod.get("status") or {}
    unscheduled = _unscheduled(status)
    if unscheduled is not None and _CLAIM_TO_COME not in unscheduled:
        return scheduling.unschedulable(options, unscheduled, largest_node)
    for container in _containers(status):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        if reason in _IMAGE_REASONS:
            return images.bad_image(_image(pod, container["name"]), message or reason)
        if reason in _CONFIGURATION_REASONS:
            return diagnosis.bad_configuration(message)
        if reason not in ORDINARY_REASONS:
            return diagnosis.slow_start(reason, message)
    return None


def is_same(one: TaskResult | None, other: TaskResult | None) -> bool:
    """True if two reasons are the same to a person; the text about an image changes with each attempt to pull it."""
    if one is None or other is None or one.outcome is not other.outcome:
        return one is other
    return one.outcome is Outcome.BAD_IMAGE or one.explained.summary == other.explained.summary


def is_unschedulable(pod: Pod) -> bool:
    """True if the scheduler has found no node for the pod."""
    return _unscheduled(pod.get("status") or {}) is not None


def from_events(events: Iterable[dict[str, Any]]) -> TaskResult | None:
    """The reason why a pod that has a node waits, from its newest event; None if that is ordinary.

    Older events may describe what is over: a pod that no node could take is pulling its image now.
    """
    latest = max(_of_kubelet(events), key=time_of, default=None)
    if latest is None or latest.get("type") != "Warning":
        return None
    reason, message = str(latest.get("reason") or ""), str(latest.get("message") or "")
    if pull := _PULL_FAILED.match(message):
        return images.bad_image(pull[1], message)
    return diagnosis.slow_start(reason, message)


def pulled_image(events: Iterable[dict[str, Any]]) -> str | None:
    """The image that is being pulled, if that is a pod's newest event."""
    latest = max(_of_kubelet(events), key=time_of, default=None)
    if latest is None or (found := _PULLING.match(str(latest.get("message") or ""))) is None:
        return None
    return found[1]


def _of_kubelet(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event.get("reason") not in _OF_SCHEDULER]


def without_pod(events: Iterable[dict[str, Any]]) -> dict[str, TaskResult]:
    """The reasons why Jobs (by name) have no pod, from the FailedCreate events of the Job controller."""
    newest = {str(event["involvedObject"]["name"]): event for event in sorted(events, key=time_of)}
    return {name: scheduling.no_pod(str(event.get("message") or "")) for name, event in newest.items()}


def largest(nodes: Sequence[dict[str, Any]]) -> tuple[str, str] | None:
    """Allocatable cores and memory of the schedulable node with the most memory."""
    usable = [node for node in nodes if not node["spec"].get("unschedulable")]
    offers = [node["status"]["allocatable"] for node in usable if "memory" in (node["status"].get("allocatable") or {})]
    if not offers:
        return None
    found = max(offers, key=lambda offer: (quantity.parse(offer["memory"]), quantity.parse(offer["cpu"])))
    return str(found["cpu"]), str(found["memory"])


def _unscheduled(status: dict[str, Any]) -> str | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message") or "") if condition.get("reason") == "Unschedulable" else None
    return None


def _containers(status: dict[str, Any]) -> list[dict[str, Any]]:
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _image(pod: Pod, name: str) -> str:
    containers = [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]
    return next((str(c["image"]) for c in containers if c["name"] == name), "of the container")


def time_of(event: dict[str, Any]) -> str:
    """The event's time to the second; some events have fractions, and others have not."""
    time = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    return str(time or "")[:19]
