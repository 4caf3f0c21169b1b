"""Carries out the decisions of ``reconcile``: a copy of the watched objects, a queue of FlowRuns, one worker.

A FlowRun is never processed twice at once, and any number of changes in the meantime lead to one more pass. A pass that
fails is repeated with growing pauses; it reads only this copy, so repeating it is safe.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus

from k8sflow.controller.flowrun_policy import Policy
from k8sflow.controller.reconcile import Decision, Observed, is_ours, reconcile
from k8sflow.errors import ApiStatusError, KubernetesError
from k8sflow.kubernetes import flowrun as flowruns
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.manifest import Manifest

Key = tuple[str, str]  # namespace and name of a FlowRun

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0

logger = logging.getLogger(__name__)


class ControlLoop:
    """Advances the FlowRuns of some namespaces.

    Args:
        api: The client.
        policy: How drivers are created.
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

    def flowrun_changed(self, flowrun: Manifest, *, is_deleted: bool) -> None:
        """Records a change of a FlowRun."""
        key = (flowrun["metadata"]["namespace"], flowrun["metadata"]["name"])
        if is_deleted:
            self._flowruns.pop(key, None)
            self._failures.pop(key, None)
            return
        self._flowruns[key] = flowrun
        self._enqueue(key)

    def job_changed(self, job: Manifest, *, is_deleted: bool) -> None:
        """Records a change of a driver's Job."""
        key = _key_of(job)
        if not is_deleted:
            self._jobs[key] = job
        elif (known := self._jobs.get(key)) is not None and known["metadata"]["uid"] == job["metadata"]["uid"]:
            del self._jobs[key]
        self._enqueue(key)

    def pod_changed(self, pod: Manifest, *, is_deleted: bool) -> None:
        """Records a change of a driver's pod."""
        key, uid = _key_of(pod), pod["metadata"]["uid"]
        if not is_deleted:
            self._pods.setdefault(key, {})[uid] = pod
        elif key in self._pods:
            self._pods[key].pop(uid, None)
            if not self._pods[key]:
                del self._pods[key]
        self._enqueue(key)

    async def run(self) -> None:
        """Processes the queue until it is cancelled."""
        while True:
            key = await self._queue.get()
            self._queued.discard(key)
            try:
                await self._process(key)
            except Exception:  # the border between FlowRuns: an error in one of them must not stop the others
                pause = self._pause(key)
                logger.exception("FlowRun %s/%s: retrying in %.0f s", *key, pause)
                asyncio.get_running_loop().call_later(pause, self._enqueue, key)
            else:
                self._failures.pop(key, None)

    async def refresh(self, every_seconds: float) -> None:
        """Periodically reads the Jobs of running FlowRuns, until it is cancelled.

        A watch that was interrupted for long enough lists again, and doesn't report deletions in between. Missing the
        deletion of a FlowRun is harmless, since it is read before any action; that of a driver's Job is noticed here.
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

    async def _process(self, key: Key) -> None:
        flowrun = self._flowruns.get(key)
        if flowrun is None:
            return
        decision = self._decide(key, flowrun)
        if decision.create is None and not decision.status:
            return
        # Watches of different kinds are not synchronized, so the FlowRun is read before any action is taken for it.
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
        created, is_new = await self._api.create(f"/apis/batch/v1/namespaces/{key[0]}/jobs", job)
        # Until the watch reports it.
        self._jobs[key] = created
        if is_new:
            logger.info("FlowRun %s/%s: driver Job %s created", *key, created["metadata"]["name"])
        elif not is_ours(created, flowrun):
            logger.warning("FlowRun %s/%s: another Job has the name of its driver's", *key)

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
    """The FlowRun in the labels of a driver's Job or pod; only its owner reference proves it."""
    metadata = driver_object["metadata"]
    return metadata["namespace"], (metadata.get("labels") or {}).get(flowruns.FLOWRUN_LABEL, "")
