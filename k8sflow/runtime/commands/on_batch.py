"""``batch list`` and ``kill``: the runs of a flow as AWS Batch has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from k8sflow.aws.api import MOST_DESCRIBED, BatchApi, Boto3Api
from k8sflow.aws.document import Document
from k8sflow.aws.names import flow_prefix, job_prefix
from k8sflow.aws.outcome import CANCELLED
from k8sflow.config import Settings
from k8sflow.errors import ConfigurationError
from k8sflow.executors.batch.queues import Queues
from k8sflow.executors.batch.submission import tasks_of
from k8sflow.flow.compile import checked
from k8sflow.flow.definition import FlowDefinition
from k8sflow.runtime.lookup import Runs, runs_of
from k8sflow.runtime.placement import Placement
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.batch import TaskBatch

_PATIENCE_SECONDS = 10.0
_ENDED = ("SUCCEEDED", "FAILED")


@dataclass(frozen=True)
class LiveJob:
    """A job with its tasks, as AWS Batch describes it.

    Args:
        tasks: Its tasks.
        document: Its description.
    """

    tasks: TaskBatch
    document: Document

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
            return not any(count for status, count in counts.items() if status not in _ENDED)
        return self.document.get("status") in _ENDED

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


@dataclass(frozen=True)
class OnBatch:
    """The runs of a flow, on AWS Batch and in the bucket.

    Args:
        api: AWS Batch.
        queues: The names of the job queues in which they are looked for.
        runs: The records of the runs.
    """

    api: BatchApi
    queues: tuple[str, ...]
    runs: Runs
    system: ClassVar[str] = "AWS Batch"
    command: ClassVar[str] = "batch"
    fate: ClassVar[str] = "its jobs are terminated"

    @staticmethod
    def of(declared: FlowDefinition, settings: Settings) -> OnBatch:
        """The runs of a flow's file, in the queues of its ``@batch`` and of the settings.

        Raises:
            ConfigurationError: No queue is set.
            BatchError: A queue doesn't exist.
        """
        jobs = Placement.of(checked(declared), (), settings).batch.values()
        names = dict.fromkeys(filter(None, [settings.batch_queue, *(options.queue for options in jobs)]))
        if not names:
            raise ConfigurationError(
                "no job queue of AWS Batch is set.", advice="Set batch_queue (K8SFLOW_BATCH_QUEUE)."
            )
        region = settings.batch_region or settings.region
        api = Boto3Api(region, patience_seconds=_PATIENCE_SECONDS)
        known = Queues(api, region)
        for name in names:
            known.find(name)
        return OnBatch(api, tuple(names), runs_of(declared.flow, settings))

    def work(self, run: str | None = None) -> Iterator[LiveJob]:
        """The jobs of one run or of all, also those that ended not long ago."""
        flow = self.runs.flow
        prefix = flow_prefix(flow) if run is None else job_prefix(flow=flow, run=run)
        for queue in self.queues:
            ids = [str(job["jobId"]) for job in self.api.jobs_named(queue, prefix)]
            ids = [each for each in ids if ":" not in each and "#" not in each]
            for start in range(0, len(ids), MOST_DESCRIBED):
                for document in self.api.describe_jobs(ids[start : start + MOST_DESCRIBED]):
                    tasks = tasks_of(document)
                    if tasks is not None and tasks.template.flow == flow and run in {None, tasks.template.run}:
                        yield LiveJob(tasks, document)

    def has_steps(self, record: RunRecord) -> bool:
        """True if a step of the run has jobs."""
        return bool(record.batch)

    def check(self, run: RunStore) -> None:
        """Does nothing: the queues have been looked up."""

    def end(self, run: RunStore) -> None:
        """Terminates the run's jobs.

        Raises:
            BatchError: They may not be terminated.
        """
        for job in self.work(run.run):
            if not job.is_over:
                self.api.terminate(job.id, CANCELLED)
