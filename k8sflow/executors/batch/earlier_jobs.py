"""The jobs that an earlier driver of the run left behind, by the executions that they have (invariant I5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from k8sflow.aws.api import BatchApi
from k8sflow.aws.names import job_prefix
from k8sflow.aws.outcome import is_given_up
from k8sflow.executors.batch.live import live_jobs
from k8sflow.task.spec import TaskName


@dataclass(frozen=True)
class EarlierJob:
    """The job of an execution.

    Args:
        id: AWS Batch's id of it.
        queue: The name of its queue.
        size: How many children it has; 1 unless it is an array job.
        index: The index of the execution among them.
    """

    id: str
    queue: str
    size: int
    index: int


def earlier_jobs(api: BatchApi, queues: Iterable[str], flow: str, run: str) -> dict[tuple[TaskName, int], EarlierJob]:
    """The jobs of a run, by the name of the task and the number of the attempt."""
    found: dict[tuple[TaskName, int], EarlierJob] = {}
    for job in live_jobs(api, queues, job_prefix(flow=flow, run=run)):
        if is_given_up(job.document):
            continue
        size = len(job.tasks) if job.tasks.template.nodes == 1 else 1
        for index, task in enumerate(job.tasks):
            found[task.name, task.attempt] = EarlierJob(job.id, job.queue, size, index)
    return found
