"""The pods of a run that are left, as its watch shows them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection

from k8sflow.errors import KubernetesError
from k8sflow.executors.kubernetes.job import index_of, job_of
from k8sflow.executors.kubernetes.run_objects import RunObjects
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.reflector import Reflector

_CANCEL_SECONDS = 60.0
# The result of a task is in its log before the end of its container is in the pod's status, by a second or two.
_STATUS_SECONDS = 10.0


class LivePods:
    """Waits for the end of pods.

    Args:
        watch: The watch of the run's pods; of one that has ended it keeps no label.
        objects: The run.
    """

    def __init__(self, watch: Reflector, objects: RunObjects) -> None:
        self._watch = watch
        self._objects = objects
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Takes note of a change of a pod."""
        self._changed.set()

    async def none_left(self, counts: Callable[[Manifest], bool] = lambda _: True) -> None:
        """Waits until no pod is left of those that count; all of them do by default.

        Raises:
            KubernetesError: That takes too long.
        """
        try:
            await asyncio.wait_for(self._none(counts), _CANCEL_SECONDS)
        except asyncio.TimeoutError:
            left = ", ".join(sorted(pod["metadata"]["name"] for pod in self._watch.objects.values() if counts(pod)))
            raise KubernetesError(
                f"{_CANCEL_SECONDS:.0f} s after their Jobs were ended there are still pods of the run: {left}.",
                cause="Their nodes may not answer, or a finalizer holds them.",
                advice=f"kubectl get pods -n {self._objects.namespace} -l '{self._objects.selector}'",
            ) from None

    async def others_ended(self, job: str, indices: Collection[int]) -> None:
        """Waits, but not for long, until all pods of a Job have ended but those of some indices."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(
                self._none(lambda pod: job_of(pod) == job and index_of(pod) not in indices), _STATUS_SECONDS
            )

    async def _none(self, counts: Callable[[Manifest], bool]) -> None:
        await self._watch.is_synced.wait()
        while any(map(counts, self._watch.objects.values())):
            self._changed.clear()
            await self._changed.wait()
