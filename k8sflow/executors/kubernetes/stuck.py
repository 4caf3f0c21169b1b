"""Looks for tasks that don't start, and reads the events that say why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus

from k8sflow.errors import ApiStatusError, KubernetesError
from k8sflow.executors.kubernetes.job import JobOnCluster
from k8sflow.executors.kubernetes.task import TaskOnCluster
from k8sflow.kubernetes import waiting
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.manifest import Manifest

_FIRST_LOOK_SECONDS = 2.0
_LATE_POD_SECONDS = 3.0
_LONGEST_LOOK_SECONDS = 60.0
_SLOW_START_SECONDS = 5.0  # a pod whose image is there has started by then; the status of others can lag by 20 s
_FEW = 5  # of the tasks that hang are looked at one by one, each time


class StuckTasks:
    """Reports why tasks of a run wait.

    Args:
        api: The client.
        namespace: The run's namespace.
        jobs: The run's unfinished Jobs.
    """

    def __init__(self, api: KubernetesApi, namespace: str, jobs: Callable[[], Iterable[JobOnCluster]]) -> None:
        self._api = api
        self._namespace = namespace
        self._jobs = jobs

    async def run(self) -> None:
        """Reads events for what a pod's status doesn't tell, while there are Jobs without pods and pods that hang.

        It asks the server soon after a task started to hang, then ever more seldom, and not at all while tasks start
        as they should.
        """
        clock = asyncio.get_running_loop().time
        known: set[TaskOnCluster] = set()
        pause = due = 0.0
        while True:
            await asyncio.sleep(_FIRST_LOOK_SECONDS)
            podless, slow = self._late()
            late = {*slow, *(task for _, task in podless)}
            if late - known:
                pause = _FIRST_LOOK_SECONDS
            elif not late or clock() < due:
                continue
            known, due = late, clock() + pause
            pause = min(_LONGEST_LOOK_SECONDS, pause * 2)
            try:
                await self._explain(podless, slow[:_FEW])
            except KubernetesError:
                continue  # the reflector decides whether the server is unreachable for good

    def _late(self) -> tuple[list[tuple[JobOnCluster, TaskOnCluster]], list[TaskOnCluster]]:
        """The tasks that should have a pod by now, with their Jobs, and those whose pods should have started."""
        waiting_tasks = [(job, task) for job in self._jobs() for task in job.waiting()]
        podless = [found for found in waiting_tasks if _is_late(found[1], _LATE_POD_SECONDS) and not found[1].pod]
        slow = [task for _, task in waiting_tasks if _is_late(task, _SLOW_START_SECONDS) and _is_silent(task)]
        return podless, slow

    async def _explain(
        self, podless: Sequence[tuple[JobOnCluster, TaskOnCluster]], slow: Sequence[TaskOnCluster]
    ) -> None:
        if podless:
            reasons = waiting.without_pod(await self._events("involvedObject.kind=Job,reason=FailedCreate"))
            for job, task in podless:
                if task.pod is None and job.name in reasons:
                    task.tell_waiting(reasons[job.name])
            for job in list(dict.fromkeys(job for job, _ in podless if job.name not in reasons))[:_FEW]:
                await job.look()
        for task in slow:
            if task.pod is not None:
                uid = task.pod["metadata"]["uid"]
                events = await self._events(f"involvedObject.uid={uid}")
                if (image := waiting.pulled_image(events)) is not None:
                    task.tell_pulling(image)
                elif (reason := waiting.from_events(events)) is not None:
                    task.tell_waiting(reason)

    async def _events(self, selector: str) -> list[Manifest]:
        """Events of the namespace; none where they may not be read, since they are a courtesy."""
        try:
            return (await self._api.list(f"/api/v1/namespaces/{self._namespace}/events", field_selector=selector))[0]
        except ApiStatusError as error:
            if error.status == HTTPStatus.FORBIDDEN:
                return []
            raise


def _is_silent(task: TaskOnCluster) -> bool:
    """True if the task has a pod whose status doesn't say why it waits."""
    return task.pod is not None and waiting.why(task.pod, task.options) is None


def _is_late(task: TaskOnCluster, seconds: float) -> bool:
    return task.created_at is not None and task.created_at < asyncio.get_running_loop().time() - seconds
