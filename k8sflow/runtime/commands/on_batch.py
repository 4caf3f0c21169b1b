"""``batch list`` and ``kill``: the runs of a flow as AWS Batch has them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from k8sflow.aws.api import MOST_DESCRIBED, BatchApi, Boto3Api
from k8sflow.aws.document import Document
from k8sflow.aws.names import flow_prefix, job_prefix
from k8sflow.aws.outcome import CANCELLED
from k8sflow.config import Settings
from k8sflow.errors import ConfigurationError, NotFoundError, RunError, StorageError
from k8sflow.executors.batch.queues import Queues
from k8sflow.executors.batch.submission import tasks_of
from k8sflow.flow.compile import checked
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.commands.cancelling import ended_by_driver
from k8sflow.runtime.lookup import Runs, runs_of
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.storage.records import CancelRequest
from k8sflow.storage.run_store import RunStore
from k8sflow.task.batch import TaskBatch
from k8sflow.user import current_user

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

    def jobs(self, run: str | None = None) -> Iterator[LiveJob]:
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


def selected(batch: OnBatch, run: str | None, user: str | None, *, ended: bool) -> list[LiveJob]:
    """The jobs that a person asks for.

    Args:
        batch: The flow's runs.
        run: The run, ``run`` or ``flow/run``; None for all.
        user: Who started the runs; None for everybody.
        ended: Whether jobs that are over count too.

    Raises:
        NotFoundError: There is no such run.
    """
    found = list(batch.jobs(batch.runs.named(run).run if run is not None else None))
    found = [job for job in found if ended or not job.is_over]
    if user is None:
        return found
    users = {name: _user_of(batch.runs, name) for name in {job.run for job in found}}
    return [job for job in found if users[job.run] == user]


def runs_to_kill(batch: OnBatch, run: str | None, user: str | None) -> list[RunStore]:
    """The runs that a person asks to end: one, or all of a user that have unfinished jobs.

    Raises:
        NotFoundError: There is no such run.
        RunError: It has ended.
    """
    if user is not None:
        return [batch.runs[name] for name in sorted({job.run for job in selected(batch, None, user, ended=False)})]
    found = batch.runs.named(run) if run is not None else batch.runs.latest_own()
    outcome = found.read_run_outcome()
    if outcome is not None:
        raise RunError(
            f"{found.pathspec} is over: it {'succeeded' if outcome.outcome is Outcome.SUCCEEDED else 'has ended'}.",
            advice="`batch list` shows the runs that have unfinished jobs.",
        )
    if not found.read().batch:
        raise RunError(f"no step of {found.pathspec} runs on AWS Batch.", advice="Press Ctrl-C where it is driven.")
    return [found]


def kill(batch: OnBatch, run: RunStore, console: Console) -> None:
    """Ends a run: its driver is asked to cancel it, and its jobs are terminated; without a driver, it is marked.

    Raises:
        BatchError: The jobs may not be terminated.
        RunError: Its driver doesn't answer.
    """
    request = CancelRequest(current_user(), socket.gethostname(), time.time())
    run.request_cancel(request)
    for job in batch.jobs(run.run):
        if not job.is_over:
            batch.api.terminate(job.id, CANCELLED)
    if ended_by_driver(run, request, is_detached=False):
        console.say(f"{run.pathspec} was {request.summary}; its jobs are terminated.", Tone.GOOD)
        return
    console.say(f"{run.pathspec} had no driver; it is marked as cancelled, and its jobs are terminated.", Tone.GOOD)


def _user_of(runs: Runs, run: str) -> str | None:
    try:
        return runs[run].read().user
    except (NotFoundError, RunError, StorageError):
        return None
