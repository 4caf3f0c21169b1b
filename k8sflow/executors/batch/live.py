"""The jobs of runs as AWS Batch lists them: found by their names, described, and ended."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from k8sflow.aws.api import MOST_DESCRIBED, BatchApi
from k8sflow.aws.document import Document
from k8sflow.aws.outcome import CANCELLED, ENDED
from k8sflow.errors import BatchError
from k8sflow.executors.batch.submission import tasks_of
from k8sflow.task.batch import TaskBatch

# Where one job can't be terminated, how long the others are tried.
_SECONDS_AFTER_ERROR = 30.0
_PATIENCE_AFTER_ERROR = 2.0


@dataclass(frozen=True)
class LiveJob:
    """A job with its tasks, as AWS Batch describes it.

    Args:
        tasks: Its tasks.
        document: Its description.
        queue: The queue in which it was found.
    """

    tasks: TaskBatch
    document: Document
    queue: str

    @property
    def id(self) -> str:
        """AWS Batch's id of it."""
        return str(self.document["jobId"])

    @property
    def run(self) -> str:
        """The run's id."""
        return self.tasks.template.run

    @property
    def created(self) -> float:
        """The time of its submission, in seconds since 1970."""
        return float(self.document.get("createdAt") or 0) / 1000

    @property
    def is_over(self) -> bool:
        """True if nothing of it runs or will."""
        counts = self._children
        if any(counts.values()):
            return not any(count for status, count in counts.items() if status not in ENDED)
        return self.document.get("status") in ENDED

    @property
    def state(self) -> str:
        """Its state in lower case; of an array job, the number of children in each."""
        counts = {status: count for status, count in self._children.items() if count}
        if counts:
            return ", ".join(f"{count} {status.lower()}" for status, count in sorted(counts.items()))
        return str(self.document.get("status")).lower()

    @property
    def why(self) -> str:
        """AWS Batch's reason for its state; empty if it has none."""
        return str(self.document.get("statusReason") or "")

    @property
    def _children(self) -> dict[str, int]:
        found: dict[str, int] = (self.document.get("arrayProperties") or {}).get("statusSummary") or {}
        return found


def live_jobs(api: BatchApi, queues: Iterable[str], prefix: str) -> Iterator[LiveJob]:
    """The jobs of runs whose names begin so, also those that ended not long ago."""
    for queue in dict.fromkeys(queues):
        ids = [str(job["jobId"]) for job in _listed(api, queue, prefix)]
        for start in range(0, len(ids), MOST_DESCRIBED):
            for document in api.describe_jobs(ids[start : start + MOST_DESCRIBED]):
                if (tasks := tasks_of(document)) is not None:
                    yield LiveJob(tasks, document, queue)


def end_all(api: BatchApi, ids: Iterable[str]) -> None:
    """Terminates jobs: all of them, even if one may not be terminated.

    Raises:
        BatchError: The first error.
    """
    first: BatchError | None = None
    until = math.inf
    for each in ids:
        if time.monotonic() > until:
            break
        try:
            api.terminate(each, CANCELLED)
        except BatchError as error:
            if first is None:  # an outage isn't waited out for each of a thousand jobs
                first, until = error, time.monotonic() + _SECONDS_AFTER_ERROR
                api.limit_patience(_PATIENCE_AFTER_ERROR)
    if first is not None:
        raise first


def end_named(api: BatchApi, queues: Iterable[str], prefix: str, ended: Collection[str] = ()) -> list[str]:
    """Terminates every job whose name begins so and that isn't over, no matter who submitted it; returns their ids.

    Args:
        api: AWS Batch.
        queues: The queues in which it may be.
        prefix: The beginning of the names.
        ended: The ids of jobs that are terminated already.

    Raises:
        BatchError: The first error; the other jobs are terminated.
    """
    ids = [str(job["jobId"]) for job in unfinished(api, queues, prefix) if job["jobId"] not in ended]
    end_all(api, ids)
    return ids


def unfinished(api: BatchApi, queues: Iterable[str], prefix: str) -> list[Document]:
    """The summaries of the jobs whose names begin so and that aren't over."""
    listed = [job for queue in dict.fromkeys(queues) for job in _listed(api, queue, prefix)]
    return [job for job in listed if job.get("status") not in ENDED]


def _listed(api: BatchApi, queue: str, prefix: str) -> Iterator[Document]:
    """The summaries of jobs, without those of children and nodes."""
    for job in api.jobs_named(queue, prefix):
        if not {":", "#"} & set(str(job["jobId"])):
            yield job
