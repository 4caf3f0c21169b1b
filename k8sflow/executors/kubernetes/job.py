"""One Job of a run: which of its tasks are unfinished, and which of them are to have a pod now."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from k8sflow.errors import ApiStatusError, ApiUnreachableError, KubernetesError
from k8sflow.executors.kubernetes.pod import PodOnCluster
from k8sflow.executors.kubernetes.pod_context import PodContext
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.outcome import Outcome
from k8sflow.kubernetes import diagnosis, labels, queue, scheduling
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.outcome import end_without_pod, is_being_deleted
from k8sflow.kubernetes.preflight import check_namespace
from k8sflow.kubernetes.reflector import Change, identity_of
from k8sflow.task.batch import TaskBatch
from k8sflow.task.host.gang import MISSING_PEERS
from k8sflow.task.result import TaskResult, ended_with
from k8sflow.task.spec import TaskName, TaskSpec


@dataclass
class Window:
    """The live pods of a run: those that exist and have not ended, or are about to be started.

    Args:
        size: How many there may be.
        live: How many there are.
    """

    size: int
    live: int = 0

    @property
    def room(self) -> int:
        """The number of pods that may be started."""
        return max(0, self.size - self.live)


@dataclass(eq=False)
class JobOnCluster:
    """The state of one Job, fed with the changes of its pods.

    The Job controller starts the pods in the order of their indices, ``parallelism`` at a time.

    Args:
        run: The run.
        window: The live pods of the run.
        name: The Job's name.
        options: The requests of its step.
        batch: All of its tasks.
        per_pod: How many of them share a pod.
        parallelism: How many pods run at a time.
        on_finished: Called when all tasks of a pod have finished.
        pods: Those with unfinished tasks, by index.
        is_new: Whether this driver made it, and not an earlier one.
        stays: Whether the Job may stay when it has finished, for people to look at.
    """

    run: PodContext
    window: Window
    name: str
    options: PodOptions
    batch: TaskBatch
    per_pod: int
    parallelism: int
    on_finished: Callable[[JobOnCluster], None]
    pods: dict[int, PodOnCluster] = field(default_factory=dict)
    is_new: bool = True
    stays: bool = True
    is_created: bool = False
    _live: set[int] = field(default_factory=set)
    _later: deque[int] = field(default_factory=deque)
    _stopped: set[int] = field(default_factory=set)
    _failed: TaskName | None = None
    _is_looking: bool = False
    _is_ending: bool = False

    @property
    def path(self) -> str:
        """Its path in the API server."""
        return f"/apis/batch/v1/namespaces/{self.run.namespace}/jobs/{self.name}"

    @property
    def is_indexed(self) -> bool:
        """True if it has more than one pod."""
        return len(self.batch) > self.per_pod

    @property
    def wants_room(self) -> bool:
        """True if more of its pods could run at a time."""
        while self._later and (self._later[0] not in self.pods or self._later[0] in self._live):
            self._later.popleft()
        return bool(self._later)

    def add(self, position: int, task: TaskSpec) -> None:
        """Takes a task that is to run, by its position among the Job's tasks."""
        index = position // self.per_pod
        if index not in self.pods:
            self.pods[index] = PodOnCluster(self.run, self, index, self.batch.share(index, self.per_pod))
            self._later.append(index)
        self.pods[index].unfinished[task.name.id] = task
        self._start_pods()

    def created(self) -> None:
        """Takes note that the Job exists."""
        self.is_created = True
        for index in list(self._live):  # a pod that waits in vain ends at once
            if (pod := self.pods.get(index)) is not None:
                pod.created()

    def widen(self, parallelism: int) -> None:
        """Takes note that more pods run at a time."""
        self.parallelism = parallelism
        self._start_pods()

    def pod_changed(self, change: Change, manifest: Manifest) -> None:
        """Acts on a change of one of its pods."""
        index = index_of(manifest)
        if (pod := self.pods.get(index)) is not None:
            self._start(pod)
            pod.changed(change, manifest)
        elif index in self._stopped and change is Change.ADDED and not is_being_deleted(manifest):
            self.run.spawn(self._delete(self._pod_path(manifest)))

    def explained(self, result: TaskResult) -> TaskResult:
        """The end of one of its tasks; where it waited in vain for another process, with why that one's pod waits."""
        if result.failure is None or result.failure.error_type != MISSING_PEERS:
            return result
        waiting = next((pod for pod in self.pods.values() if pod.is_waiting and pod.reason is not None), None)
        if waiting is None or waiting.reason is None:
            return result
        unscheduled = waiting.reason.outcome is Outcome.UNSCHEDULABLE and waiting.manifest is not None
        room = self.run.room_for(waiting.manifest) if unscheduled and waiting.manifest is not None else None
        if room is not None and room < len(self.batch):
            return scheduling.gang_without_room(str(waiting.tasks[0].name), len(self.batch), room, waiting.reason)
        return scheduling.missing_peer(result, waiting.reason)

    def finished(self, pod: PodOnCluster, result: TaskResult) -> None:
        """Takes note that the tasks of a pod are over: the Job starts the next pod. A failure ends a gang."""
        if self.pods.pop(pod.index, None) is None:
            return
        if pod.index in self._live:
            self._live.remove(pod.index)
            self.window.live -= 1
            self._start_pods()
        if not self.pods and self._stopped and self.is_indexed:
            self.stays = False  # a pod that was stopped may still come
            self.run.spawn(self._delete(self.path))
        self.on_finished(self)
        if self.batch.template.nodes > 1 and result.outcome.is_failure:
            self._failed = self._failed or pod.tasks[0].name
            self._end_others()

    def _end_others(self) -> None:
        """Ends the processes that run together with one that has failed."""
        if self._failed is None or not self.pods or self._is_looking or self._is_ending:
            return
        self._is_ending = True  # the end of each of them is a failure too
        others = dict(self.pods)
        for pod in others.values():
            pod.finish(ended_with(self._failed))
        self.run.spawn_ending(self._end_pods(others))

    def stop(self, pod: PodOnCluster) -> None:
        """Ends a pod: other pods of an Indexed Job run on."""
        if not self.is_indexed:
            self.stays = False
            self.run.spawn(self._delete(self.path))
            return
        self._stopped.add(pod.index)
        if pod.manifest is not None and not is_being_deleted(pod.manifest):
            self.run.spawn(self._delete(self._pod_path(pod.manifest)))

    def waiting(self) -> Iterator[PodOnCluster]:
        """The pods that are to run, and of which no container has started."""
        return (pod for index in self._live if (pod := self.pods[index]).is_waiting)

    def stop_all(self, result: TaskResult) -> None:
        """Finishes all of its tasks with a failure, and deletes the Job."""
        self.stays = False
        for pod in list(self.pods.values()):
            pod.finish(result)
        self.run.spawn(self._delete(self.path))

    async def end(self) -> None:
        """Ends its unfinished pods. It stays, with the pods that have ended, if there are any.

        Raises:
            KubernetesError: The server refuses.
        """
        if len(self.pods) < -(-len(self.batch) // self.per_pod):
            with contextlib.suppress(KubernetesError):  # a Role or a policy may not allow patches
                await self._fail(set(self.pods))
                return
        self.stays = False
        await self.run.api.delete(self.path)

    async def _end_pods(self, pods: Mapping[int, PodOnCluster]) -> None:
        """Ends some of its pods, at once, and then the Job."""
        manifests = [pod.manifest for pod in pods.values() if pod.manifest is not None]
        await asyncio.gather(*(self._delete(self._pod_path(each)) for each in manifests if not is_being_deleted(each)))
        try:
            await self._fail(pods.keys())
        except KubernetesError:
            await self._delete(self.path)

    async def _fail(self, ending: Collection[int]) -> None:
        """Lets the Job controller end the pods of some indices, and start none: the Job's time is over.

        It would delete a pod that has just ended too, as long as the pod's status doesn't show that.

        Raises:
            KubernetesError: The server refuses.
        """
        await self.run.others_ended(self.name, ending)
        try:
            await self.run.api.patch(self.path, {"spec": {"activeDeadlineSeconds": 1}})
        except ApiStatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    async def look(self) -> None:
        """Finds out why pods are missing, if the Job itself says so: it is suspended, over, or deleted."""
        job = await self._get()
        missing = [pod for pod in self.pods.values() if pod.manifest is None]
        self._is_looking = True  # each process that has lost its pod ends by that, and not because of the others
        try:
            for pod in missing:
                if (end := end_without_pod(job, pod.index)) is not None:
                    await pod.end_without_pod(end)
        finally:
            self._is_looking = False
        self._end_others()
        if job is not None and queue.is_suspended(job):
            reason = await queue.why(self.run.api, job)
            for number, pod in enumerate(missing):
                pod.suspended(reason if number == 0 else None)

    async def is_queued_again(self, pod: PodOnCluster, manifest: Manifest) -> bool:
        """True if a queue manager has stopped the Job, and with it a pod, so that the task waits for its next turn."""
        try:
            job = await self._get()
        except KubernetesError:
            return False
        if job is None or self.run.is_cancelling or not queue.was_suspended(job, manifest):
            return False
        if queue.is_suspended(job):
            pod.suspended(await queue.why(self.run.api, job))
        return True

    async def deletion(self) -> TaskResult | None:
        """The end of its tasks if the Job was deleted, by itself or with its namespace; None if it was not."""
        try:
            job = await self._get()
        except KubernetesError:
            return None
        if job is not None and not is_being_deleted(job):
            return None
        try:
            await check_namespace(self.run.api, self.run.namespace)
        except (ApiStatusError, ApiUnreachableError):
            pass  # it is not known
        except KubernetesError as error:
            return diagnosis.namespace_deleted(error.summary)
        return diagnosis.job_deleted()

    def _start_pods(self) -> None:
        while len(self._live) < self.parallelism and self._later:
            if (pod := self.pods.get(self._later.popleft())) is not None:
                self._start(pod)

    def _start(self, pod: PodOnCluster) -> None:
        if pod.index not in self._live:
            self._live.add(pod.index)
            self.window.live += 1
            if self.is_created:
                pod.created()

    async def _get(self) -> Manifest | None:
        try:
            return await self.run.api.get(self.path)
        except ApiStatusError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def _delete(self, path: str) -> None:
        try:
            await self.run.api.delete(path)
        except KubernetesError:
            # The result is reported already; the owner's end or the pod's own deadline removes it.
            return

    def _pod_path(self, pod: Manifest) -> str:
        return f"/api/v1/namespaces/{self.run.namespace}/pods/{pod['metadata']['name']}"


def index_of(pod: Manifest) -> int:
    """The index of a pod in its Job; 0 where the Job is not indexed."""
    return int(_labels(pod).get(labels.INDEX, 0))


def job_of(pod: Manifest) -> str:
    """The name of a pod's Job."""
    return str(_labels(pod).get(labels.JOB_NAME, ""))


def known_of(pod: Manifest) -> Manifest:
    """The part of a pod to keep: of one that has ended nothing is to come, so not even its Job is needed."""
    return identity_of(pod, () if has_ended(pod) else (labels.JOB_NAME, labels.INDEX))


def has_ended(pod: Manifest) -> bool:
    """True if nothing runs in a pod any more."""
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}


def _labels(pod: Manifest) -> Mapping[str, Any]:
    found: Mapping[str, Any] = pod["metadata"].get("labels") or {}
    return found
