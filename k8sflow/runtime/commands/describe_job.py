"""``batch describe``: the jobs of a task on AWS Batch, and what their states mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from k8sflow.aws.document import Document
from k8sflow.aws.outcome import JobEnd, Waiting, job_state
from k8sflow.errors import NotFoundError
from k8sflow.executors.batch.live import LiveJob
from k8sflow.executors.batch.queues import Queues
from k8sflow.executors.batch.results import Results
from k8sflow.runtime.commands.on_batch import OnBatch
from k8sflow.storage.run_store import RunStore
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec


@dataclass(frozen=True)
class DescribedJob:
    """A job, or the child of an array job that has a task.

    Args:
        job: The job.
        document: The description of the job, or of the child.
        task: The task that a person has named; None for all tasks of the job.
        result: How the task ended, or why it waits; None where it runs, or isn't named.
    """

    job: LiveJob
    document: Document
    task: TaskSpec | None = None
    result: TaskResult | None = None

    def facts(self) -> dict[str, Any]:
        """The facts that AWS Batch and the store have, for programs."""
        container = self.document.get("container") or {}
        why = None if self.result is None else self.result.failure
        return {
            "job": str(self.document["jobId"]),
            "name": str(self.document.get("jobName")),
            "queue": self.job.queue,
            "attempt": self.job.tasks.template.attempt,
            "tasks": self.job.tasks.ids if self.task is None else self.task.name.id,
            "state": self.job.state if self.task is None else str(self.document.get("status")).lower(),
            "why": str(self.document.get("statusReason") or "") or None,
            "definition": self.document.get("jobDefinition"),
            "image": container.get("image"),
            "requests": {each["type"]: each["value"] for each in container.get("resourceRequirements") or ()},
            "exit_code": container.get("exitCode"),
            "log_stream": container.get("logStreamName"),
            "outcome": None if self.result is None else self.result.outcome.value,
            "diagnosis": None
            if why is None
            else {"summary": why.summary, "detail": why.detail, "resolution": why.resolution},
        }

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Pairs of a title and a text, for people."""
        why = None if self.result is None else self.result.failure
        facts = self.facts()
        facts["requests"] = ", ".join(f"{value} {kind}" for kind, value in facts["requests"].items())
        facts["diagnosis"] = None if why is None else " ".join(filter(None, [why.summary, why.resolution]))
        for title, found in facts.items():
            if found not in {None, ""}:
                yield title.replace("_", " ").capitalize(), str(found)


def described_jobs(remote: OnBatch, run: RunStore, step: str, task: str | None) -> list[DescribedJob]:
    """The jobs of a task or of a step, the latest attempt last.

    Args:
        remote: The flow's runs.
        run: The run.
        step: The step.
        task: The task's id; None for the jobs of the step as they are.

    Raises:
        NotFoundError: There are none.
    """
    found = [job for job in remote.work(run.run) if job.tasks.template.name.step == step]
    if task is None:
        jobs = [DescribedJob(job, job.document) for job in found]
    else:
        jobs = [made for job in found if (made := _of_task(remote, run, job, task)) is not None]
    if not jobs:
        where = "/".join(filter(None, [run.pathspec, step, task]))
        raise NotFoundError(
            f"{where} has no job on AWS Batch.",
            advice="It hasn't been submitted, or AWS Batch has forgotten it: it keeps jobs for some days after their "
            f"end. `logs {step}` shows its output.",
        )
    return sorted(jobs, key=lambda each: (each.job.tasks.template.name, each.job.tasks.template.attempt))


def _of_task(remote: OnBatch, run: RunStore, job: LiveJob, task: str) -> DescribedJob | None:
    """A task's part of a job; None if the job doesn't have it."""
    spec = next((each for each in job.tasks if each.name.id == task), None)
    if spec is None:
        return None
    document: Document | None = job.document
    if "arrayProperties" in job.document and len(job.tasks) > 1:
        index = [each.name.id for each in job.tasks].index(task)
        document = next(iter(remote.api.describe_jobs([f"{job.id}:{index}"])), None)
    if document is None:
        return None
    options = run.read().batch[spec.name.step]
    state = job_state(document, options, is_spot=Queues(remote.api, "").find(job.queue).is_spot)
    if isinstance(state, JobEnd):
        return DescribedJob(job, document, spec, Results(remote.api, run).of(spec, state, options))
    return DescribedJob(job, document, spec, state.reason if isinstance(state, Waiting) else None)
