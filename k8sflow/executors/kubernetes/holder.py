"""The Job that has a pod, as the pod sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.task.result import TaskResult

if TYPE_CHECKING:
    from k8sflow.executors.kubernetes.pod import PodOnCluster


class Holder(Protocol):
    """The Job that has a pod."""

    options: PodOptions
    is_new: bool

    def explained(self, result: TaskResult) -> TaskResult:
        """The end of one of its tasks, with what its other pods tell about it."""

    def finished(self, pod: PodOnCluster, result: TaskResult) -> None:
        """Takes note that all of its tasks are over, the last one with this result."""

    def stop(self, pod: PodOnCluster) -> None:
        """Ends the pod, now or when it comes."""

    async def is_queued_again(self, pod: PodOnCluster, manifest: Manifest) -> bool:
        """True if a queue manager has stopped the Job, and with it a pod, so that the task waits for its next turn."""

    async def deletion(self) -> TaskResult | None:
        """The end of its tasks if the Job was deleted, by itself or with its namespace; None if it was not."""
