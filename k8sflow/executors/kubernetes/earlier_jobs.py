"""The Jobs that an earlier driver of the run left behind, by the executions that they have (invariant I5)."""

from __future__ import annotations

from dataclasses import dataclass

from k8sflow.executors.kubernetes.run_objects import RunObjects
from k8sflow.kubernetes import labels
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.outcome import is_being_deleted
from k8sflow.task.batch import TaskBatch
from k8sflow.task.spec import TaskName


@dataclass(frozen=True)
class EarlierJob:
    """The Job of an execution.

    Args:
        name: The Job's name.
        batch: Its tasks.
        position: The position of the execution among them.
        per_pod: How many of them share a pod.
        parallelism: How many pods run at a time.
    """

    name: str
    batch: TaskBatch
    position: int
    per_pod: int
    parallelism: int


async def earlier_jobs(api: KubernetesApi, objects: RunObjects) -> dict[tuple[TaskName, int], EarlierJob]:
    """The Jobs of a run, by the name of the task and the number of the attempt."""
    found: dict[tuple[TaskName, int], EarlierJob] = {}
    jobs, _ = await api.list(objects.jobs, label_selector=objects.selector)
    for job in jobs:
        notes = job["metadata"].get("annotations") or {}
        if is_being_deleted(job) or labels.TASKS not in notes:
            continue
        name, batch = job["metadata"]["name"], TaskBatch.from_json(notes[labels.TASKS])
        per_pod, parallelism = int(notes.get(labels.TASKS_PER_POD, 1)), job["spec"]["parallelism"]
        for position, task in enumerate(batch):
            found[task.name, task.attempt] = EarlierJob(name, batch, position, per_pod, parallelism)
    return found
