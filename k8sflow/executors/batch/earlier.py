"""The jobs that an earlier driver of the run left behind, by the executions that they have (invariant I5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from k8sflow.aws.api import MOST_DESCRIBED, BatchApi
from k8sflow.aws.names import job_prefix
from k8sflow.aws.outcome import CANCELLED
from k8sflow.executors.batch.submission import tasks_of
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
    for queue in dict.fromkeys(queues):
        ids = [str(job["jobId"]) for job in api.jobs_named(queue, job_prefix(flow=flow, run=run))]
        ids = [each for each in ids if ":" not in each and "#" not in each]
        for start in range(0, len(ids), MOST_DESCRIBED):
            for job in api.describe_jobs(ids[start : start + MOST_DESCRIBED]):
                tasks = tasks_of(job)
                if tasks is None or str(job.get("statusReason") or "").startswith(CANCELLED):
                    continue
                size = len(tasks) if tasks.template.nodes == 1 else 1
                for index, task in enumerate(tasks):
                    found[task.name, task.attempt] = EarlierJob(str(job["jobId"]), queue, size, index)
    return found
