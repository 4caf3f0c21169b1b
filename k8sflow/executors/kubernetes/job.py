"""One Job of a run: which of its tasks are unfinished, and which of them are to have a pod now."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from k8sflow.errors import ApiStatusError, KubernetesError
from k8sflow.executors.kubernetes.task import Surroundings, TaskOnCluster
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.kubernetes import labels, queue
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.outcome import end_without_pod, is_being_deleted
from k8sflow.kubernetes.reflector import Change
from k8sflow.task.result import TaskResult, ended_with
from k8sflow.task.spec import TaskSpec


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
        indices: How many pods it has.
        parallelism: How many of them run at a time.
        on_finished: Called when one of its tasks has finished.
        tasks: The unfinished tasks, by index.
        is_new: Whether this driver made it, and not an earlier one.
        stays: Whether the Job may stay when it has finished, for people to look at.
    """

    run: Surroundings
    window: Window
    name: str
    options: PodOptions
    indices: int
    parallelism: int
    on_finished: Callable[[JobOnCluster], None]
    tasks: dict[int, TaskOnCluster] = field(default_factory=dict)
    is_new: bool = True
    stays: bool = True
    is_created: bool = False
    _live: set[int] = field(default_factory=set)
    _later: deque[int] = field(default_factory=deque)
    _stopped: set[int] = field(default_factory=set)

    @property
    def path(self) -> str:
        """Its path in the API server."""
        return f"/apis/batch/v1/namespaces/{self.run.namespace}/jobs/{self.name}"

    @property
    def is_indexed(self) -> bool:
        """True if it has more than one pod."""
        return self.indices > 1

    @property
    def wants_room(self) -> bool:
        """True if more of its tasks could have a pod."""
        while self._later and (self._later[0] not in self.tasks or self._later[0] in self._live):
            self._later.popleft()
        return bool(self._later)

    def add(self, index: int, spec: TaskSpec) -> None:
        """Takes the task of an index."""
        self.tasks[index] = TaskOnCluster(self.run, self, spec, index)
        self._later.append(index)
        self._start_pods()

    def created(self) -> None:
        """Takes note that the Job exists."""
        self.is_created = True
        for index in self._live:
            self.tasks[index].created()

    def widen(self, parallelism: int) -> None:
        """Takes note that more pods run at a time."""
        self.parallelism = parallelism
        self._start_pods()

    def pod_changed(self, change: Change, pod: Manifest) -> None:
        """Acts on a change of one of its pods."""
        index = index_of(pod)
        task = self.tasks.get(index)
        if task is not None:
            self._start(task)
            task.pod_changed(change, pod)
        elif index in self._stopped and change is Change.ADDED and not is_being_deleted(pod):
            self.run.spawn(self._delete(self._pod_path(pod)))

    def finished(self, task: TaskOnCluster, result: TaskResult) -> None:
        """Takes note that a task is over: the Job starts the next pod. If tasks run together, a failure ends them."""
        if self.tasks.pop(task.index, None) is None:
            return
        if task.index in self._live:
            self._live.remove(task.index)
            self.window.live -= 1
            self._start_pods()
        if not self.tasks and self._stopped and self.is_indexed:
            self.stays = False  # a pod of a task that was stopped may still come
            self.run.spawn(self._delete(self.path))
        self.on_finished(self)
        if task.spec.nodes > 1 and result.outcome.is_failure and self.tasks:
            self.stop_all(ended_with(task.spec.name))

    def stop(self, task: TaskOnCluster) -> None:
        """Ends a task's pod: other pods of an Indexed Job run on."""
        if not self.is_indexed:
            self.stays = False
            self.run.spawn(self._delete(self.path))
            return
        self._stopped.add(task.index)
        if task.pod is not None and not is_being_deleted(task.pod):
            self.run.spawn(self._delete(self._pod_path(task.pod)))

    def waiting(self) -> Iterator[TaskOnCluster]:
        """The tasks that are to have a pod, and of which no container has started."""
        return (task for index in self._live if (task := self.tasks[index]).is_waiting)

    def stop_all(self, result: TaskResult) -> None:
        """Finishes all of its tasks with a failure, and deletes the Job."""
        self.stays = False
        for task in list(self.tasks.values()):
            task.finish(result)
        self.run.spawn(self._delete(self.path))

    async def look(self) -> None:
        """Finds out why tasks have no pod, if the Job itself says so: it is suspended, over, or deleted."""
        job = await self._get()
        podless = [task for task in self.tasks.values() if task.pod is None]
        for task in podless:
            if (end := end_without_pod(job, task.index)) is not None:
                await task.end_without_pod(end)
        if job is not None and queue.is_suspended(job):
            reason = await queue.why(self.run.api, job)
            for number, task in enumerate(podless):
                task.suspended(reason if number == 0 else None)

    async def is_queued_again(self, task: TaskOnCluster, pod: Manifest) -> bool:
        """True if a queue manager has stopped the Job, and with it a pod, so that the task waits for its next turn."""
        try:
            job = await self._get()
        except KubernetesError:
            return False
        if job is None or self.run.is_cancelling or not queue.was_suspended(job, pod):
            return False
        if queue.is_suspended(job):
            task.suspended(await queue.why(self.run.api, job))
        return True

    async def is_deleted(self) -> bool:
        """True if the Job was deleted."""
        try:
            job = await self._get()
        except KubernetesError:
            return False
        return job is None or is_being_deleted(job)

    def _start_pods(self) -> None:
        while len(self._live) < self.parallelism and self._later:
            if (task := self.tasks.get(self._later.popleft())) is not None:
                self._start(task)

    def _start(self, task: TaskOnCluster) -> None:
        if task.index not in self._live:
            self._live.add(task.index)
            self.window.live += 1
            if self.is_created:
                task.created()

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


def _labels(pod: Manifest) -> Mapping[str, Any]:
    found: Mapping[str, Any] = pod["metadata"].get("labels") or {}
    return found
