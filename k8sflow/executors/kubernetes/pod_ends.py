"""Waits for the end of a run's pods, as its watch shows them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator

from k8sflow.errors import KubernetesError
from k8sflow.executors.kubernetes.job import has_ended, index_of, job_of
from k8sflow.executors.kubernetes.run_objects import RunObjects
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.reflector import Change, Reflector

_CANCEL_SECONDS = 60.0
# The result of a task is in its log before the end of its container is in the pod's status, by a second or two.
_STATUS_SECONDS = 10.0


class PodEnds:
    """Waits for the end of pods.

    Args:
        watch: The watch of the run's pods; of one that has ended it keeps no label.
        objects: The run.
    """

    def __init__(self, watch: Reflector, objects: RunObjects) -> None:
        self._watch = watch
        self._objects = objects
        self._changed = asyncio.Event()
        # By the names of their Jobs and their ids, the names and indices of those that have not ended.
        self._running: defaultdict[str, dict[str, tuple[str, int]]] = defaultdict(dict)

    def changed(self, change: Change, pod: Manifest) -> None:
        """Takes note of a change of a pod."""
        job, metadata = job_of(pod), pod["metadata"]
        if change is Change.DELETED or has_ended(pod):
            self._running[job].pop(metadata["uid"], None)
        else:
            self._running[job][metadata["uid"]] = (metadata["name"], index_of(pod))
        self._changed.set()

    async def none_left(self, jobs: Collection[str] | None = None) -> None:
        """Waits until no pod of some Jobs runs, or else until the run has no pod at all.

        Raises:
            KubernetesError: That takes too long.
        """
        try:
            await asyncio.wait_for(self._none(lambda: self._left(jobs)), _CANCEL_SECONDS)
        except asyncio.TimeoutError:
            left = ", ".join(sorted(self._left(jobs)))
            raise KubernetesError(
                f"{_CANCEL_SECONDS:.0f} s after their Jobs were ended there are still pods of the run: {left}.",
                cause="Their nodes may not answer, or a finalizer holds them.",
                advice=f"kubectl get pods -n {self._objects.namespace} -l '{self._objects.selector}'",
            ) from None

    async def others_ended(self, job: str, indices: Collection[int]) -> None:
        """Waits, but not for long, until all pods of a Job have ended but those of some indices."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(
                self._none(lambda: (name for name, index in self._running[job].values() if index not in indices)),
                _STATUS_SECONDS,
            )

    def _left(self, jobs: Collection[str] | None) -> Iterator[str]:
        """The names of the pods of some Jobs that have not ended, or else of all that there are."""
        if jobs is None:
            return (pod["metadata"]["name"] for pod in self._watch.objects.values())
        return (name for job in jobs for name, _ in self._running[job].values())

    async def _none(self, left: Callable[[], Iterator[str]]) -> None:
        await self._watch.is_synced.wait()
        while next(left(), None) is not None:
            self._changed.clear()
            await self._changed.wait()
