"""The part of a run that its Jobs and pods use: the API, the store, and what they may start."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Sequence
from typing import Any, Protocol

from k8sflow.executors.base import Emit
from k8sflow.executors.kubernetes.following import Following
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.storage.run_store import RunStore
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskName, TaskSpec


class PodContext(Protocol):
    """The part of a run that its pods need."""

    api: KubernetesApi
    namespace: str
    emit: Emit
    is_cancelling: bool
    is_traced: bool
    following: Following
    run_store: RunStore

    def committed(self, specs: Sequence[TaskSpec]) -> dict[TaskName, TaskResult]:
        """The results of tasks whose pod left none, as far as the store has them; called in other threads."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs something beside; what it raises ends the run."""

    def spawn_ending(self, work: Coroutine[Any, Any, None]) -> None:
        """Ends a part of a Job beside; the end of the run waits for it."""

    async def others_ended(self, job: str, indices: Collection[int]) -> None:
        """Waits, but not for long, until all pods of a Job have ended but those of some indices."""

    def room_for(self, pod: Manifest) -> int | None:
        """The number of pods like one that the nodes could take if they were empty; None if it is not known."""

    async def largest_node(self) -> tuple[str, str] | None:
        """Allocatable cores and memory of the largest node, where that may be known."""
