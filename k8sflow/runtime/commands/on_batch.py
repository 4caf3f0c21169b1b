"""``batch list`` and ``kill``: the runs of a flow as AWS Batch has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from k8sflow.aws.api import BatchApi, Boto3Api
from k8sflow.aws.names import flow_prefix, job_prefix
from k8sflow.config import Settings
from k8sflow.errors import ConfigurationError
from k8sflow.executors.batch.live import LiveJob, end_named, live_jobs
from k8sflow.executors.batch.queues import Queues
from k8sflow.flow.compile import checked
from k8sflow.flow.definition import FlowDefinition
from k8sflow.runtime.lookup import Runs, runs_of
from k8sflow.runtime.placement import Placement
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore

_PATIENCE_SECONDS = 10.0


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
        for job in live_jobs(self.api, self.queues, prefix):
            if job.tasks.template.flow == flow and run in {None, job.run}:
                yield job

    def has_steps(self, record: RunRecord) -> bool:
        """True if a step of the run has jobs."""
        return bool(record.batch)

    def check(self, run: RunStore) -> None:
        """Does nothing: the queues have been looked up."""

    def end(self, run: RunStore) -> None:
        """Terminates the run's jobs, also in queues that the flow and the settings no longer name.

        Raises:
            BatchError: One may not be terminated; the others are.
        """
        wanted = {options.queue for options in run.read().batch.values() if options.queue is not None}
        recorded = [name for name in sorted(wanted - {*self.queues}) if self.api.queue(name) is not None]
        end_named(self.api, [*self.queues, *recorded], job_prefix(flow=self.runs.flow, run=run.run))
