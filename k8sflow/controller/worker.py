"""Carries out what ``reconcile`` decides: a copy of what the watches tell, a queue of FlowRuns to look at, one worker.

The same FlowRun is never looked at twice at a time, and what happens to it meanwhile makes for one more look, not for
many. A look that fails is repeated with growing pauses; it reads nothing but this copy, so repeating is safe.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus

from k8sflow.controller.policy import Policy
from k8sflow.controller.reconcile import Decision, Observed, is_ours, reconcile
from k8sflow.errors import ApiStatusError, KubernetesError
from k8sflow.kubernetes import flowrun as flowruns
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.manifest import Manifest

Key = tuple[str, str]  # namespace and name of a FlowRun

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0

logger = logging.getLogger(__name__)


class Worker:
    """Keeps the FlowRuns of some namespaces going.

    Args:
        api: The client.
        policy: How drivers are made.
        clock: The time, in seconds since 1970.
    """

    def __init__(self, api: KubernetesApi, policy: Policy, clock: Callable[[], float]) -> None:
        self._api = api
        self._policy = policy
        self._clock = clock
        self._flowruns: dict[Key, Manifest] = {}
        self._jobs: dict[Key, Manifest] = {}
        self._pods: dict[Key, dict[str, Manifest]] = {}
        self._queue: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()
        self._failures: dict[Key, int] = {}

    def flowrun_changed(self, flowrun: Manifest, *, is_gone: bool) -> None:
        """Takes in a FlowRun."""
        key = (flowrun["metadata"]["namespace"], flowrun["metadata"]["name"])
        if is_gone:
            self._flowruns.pop(key, None)
            self._failures.pop(key, None)
            return
        self._flowruns[key] = flowrun
        self._enqueue(key)

    def job_changed(self, job: Manifest, *, is_gone: bool) -> None:
        """Takes in a driver's Job."""
        key = _key_of(job)
        if not is_gone:
            self._jobs[key] = job
        elif (known := self._jobs.get(key)) is not None and known["metadata"]["uid"] == job["metadata"]["uid"]:
            del self._jobs[key]
        self._enqueue(key)

    def pod_changed(self, pod: Manifest, *, is_gone: bool) -> None:
        """Takes in a driver's pod."""
        key, uid = _key_of(pod), pod["metadata"]["uid"]
        if not is_gone:
            self._pods.setdefault(key, {})[uid] = pod
        elif key in self._pods:
            self._pods[key].pop(uid, None)
            if not self._pods[key]:
                del self._pods[key]
        self._enqueue(key)

    async def run(self) -> None:
        """Looks at what is queued, until it is cancelled."""
        while True:
            key = await self._queue.get()
            self._queued.discard(key)
            try:
                await self._look(key)
            except Exception:  # the border between FlowRuns: whatever one of them brings up must not stop the others
                pause = self._pause(key)
                logger.exception("FlowRun %s/%s: next try in %.0f s", *key, pause)
                asyncio.get_running_loop().call_later(pause, self._enqueue, key)
            else:
                self._failures.pop(key, None)

    async def refresh(self, every_seconds: float) -> None:
        """Reads the Jobs of runs that are on again and again, until it is cancelled.

        A watch that breaks off for long enough lists anew, and tells nothing of what was deleted meanwhile. A FlowRun
        that is gone costs nothing, for it is read before anything is done; a driver's Job that is gone is missed here.
        """
        while True:
            await asyncio.sleep(every_seconds)
            for key in list(self._jobs):
                flowrun = self._flowruns.get(key)
                phase = flowruns.phase_of(flowrun) if flowrun is not None else None
                if phase is not None and not phase.is_final:
                    try:
                        await self._refresh_job(key)
                    except KubernetesError as error:
                        logger.debug("FlowRun %s/%s: its Job can't be read until the next round: %s", *key, error)

    async def _refresh_job(self, key: Key) -> None:
        path = f"/apis/batch/v1/namespaces/{key[0]}/jobs/{self._jobs[key]['metadata']['name']}"
        try:
            self._jobs[key] = await self._api.get(path)
        except ApiStatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            self._jobs.pop(key, None)
        self._enqueue(key)

    async def _look(self, key: Key) -> None:
        flowrun = self._flowruns.get(key)
        if flowrun is None:
            return
        decision = self._decide(key, flowrun)
        if decision.create is None and not decision.status:
            return
        # Watches of different kinds tell nothing of each other: before anything is done, what it is done for is read.
        current = await self._read(key)
        if current is None:
            return
        decision = self._decide(key, current)
        if decision.create is not None:
            await self._create(key, current, decision.create)
            decision = self._decide(key, current)
        if decision.status:
            await self._write(key, decision.status)

    def _decide(self, key: Key, flowrun: Manifest) -> Decision:
        pods = tuple(self._pods.get(key, {}).values())
        return reconcile(Observed(flowrun, self._jobs.get(key), pods, self._clock()), self._policy)

    async def _read(self, key: Key) -> Manifest | None:
        try:
            flowrun = await self._api.get(flowruns.object_path(*key))
        except ApiStatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            self._flowruns.pop(key, None)
            return None
        self._flowruns[key] = flowrun
        return flowrun

    async def _create(self, key: Key, flowrun: Manifest, job: Manifest) -> None:
        made, is_new = await self._api.create(f"/apis/batch/v1/namespaces/{key[0]}/jobs", job)
        # The watch tells of it later; until then this is what is known.
        self._jobs[key] = made
        if is_new:
            logger.info("FlowRun %s/%s: driver Job %s created", *key, made["metadata"]["name"])
        elif not is_ours(made, flowrun):
            logger.warning("FlowRun %s/%s: its driver Job's name is taken", *key)

    async def _write(self, key: Key, status: Manifest) -> None:
        try:
            self._flowruns[key] = await self._api.patch(f"{flowruns.object_path(*key)}/status", {"status": status})
        except ApiStatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            self._flowruns.pop(key, None)
            return
        summary = str(status.get("message") or "").partition("\n")[0]
        logger.info("FlowRun %s/%s: %s %s", *key, status.get("phase", ""), summary)

    def _enqueue(self, key: Key) -> None:
        if key not in self._queued:
            self._queued.add(key)
            self._queue.put_nowait(key)

    def _pause(self, key: Key) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * float(2 ** min(failures, 10)))


def _key_of(driver_object: Manifest) -> Key:
    """The FlowRun that a driver's Job or pod says it is of; whether it really is, its owner decides."""
    metadata = driver_object["metadata"]
    return metadata["namespace"], (metadata.get("labels") or {}).get(flowruns.FLOWRUN_LABEL, "")
