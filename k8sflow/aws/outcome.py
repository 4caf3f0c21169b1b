"""The state of a job, derived from its description by ``DescribeJobs`` alone.

What the agent stored counts before any of this; here is what AWS knows of jobs whose agent stored nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from k8sflow.aws import diagnosis
from k8sflow.aws.document import Document
from k8sflow.flow.decorators.batch_options import BatchOptions
from k8sflow.flow.outcome import Outcome
from k8sflow.task import container_ends
from k8sflow.task.host.launch import OTHER_RUNTIME
from k8sflow.task.result import TaskResult

# The reason with which a run's own jobs are terminated.
CANCELLED = "k8sflow: the run was cancelled"
# That with which a job is terminated that may exist, or run, after its tasks were given up.
REPLACED = "k8sflow: another execution replaces it"
ENDED = {"SUCCEEDED", "FAILED"}
_OUT_OF_MEMORY = "OutOfMemoryError"
LOG_GROUP = "/aws/batch/job"
_TIMED_OUT = ("attempt duration exceeded timeout",)
# https://docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable_time_limit_actions.html
_WAITED_TOO_LONG = ("JobStateTimeLimit action",)
_HOST = ("Host EC2",)
_SPOT = ("Spot Task was interrupted", "SpotInterruption")
_PULL = ("CannotPullContainer", "CannotPullECRContainer", "CannotPullImageManifest", "ImageNotFound")
_START = (
    "CannotCreateContainer",
    "CannotStartContainer",
    "ContainerRuntime",
    "DockerTimeoutError",
    "CannotInspect",
    "CannotCreateVolume",
)
_ROLE = ("unable to assume the role", "is not authorized to perform: sts:AssumeRole", "role is invalid")
_INITIALIZATION = "ResourceInitializationError"


@dataclass(frozen=True)
class Waiting:
    """The job has not started; the reason is given where AWS Batch has one."""

    reason: TaskResult | None = None


@dataclass(frozen=True)
class Running:
    """The job's container runs."""

    where: str


@dataclass(frozen=True)
class JobEnd:
    """The job has ended.

    Args:
        result: What follows from its description; where it succeeded, the result is in the store.
        ran: True if its container ran, so that there may be output.
        log_stream: The stream of its output in CloudWatch; empty where there is none.
        log_group: The log group of the stream.
        has_succeeded: True if its container ended with exit code 0.
    """

    result: TaskResult
    ran: bool = False
    log_stream: str = ""
    log_group: str = LOG_GROUP
    has_succeeded: bool = False


JobState = Waiting | Running | JobEnd


def is_given_up(job: Document) -> bool:
    """True if k8sflow itself has terminated the job, whether or not it has ended yet."""
    return str(job.get("statusReason") or "").startswith((CANCELLED, REPLACED))


def job_state(job: Document, options: BatchOptions, *, is_spot: bool = False) -> JobState:
    """The state of a job, or of a child of an array job.

    Args:
        job: Its description.
        options: Its requests.
        is_spot: Whether its queue has spot instances.
    """
    status = str(job.get("status"))
    if status in ENDED:
        container = _last_container(job)
        ran = container.get("exitCode") is not None or bool(job.get("startedAt"))
        result = _inferred(job, container, options, is_spot=is_spot)
        stream = str(container.get("logStreamName") or "")
        return JobEnd(result, ran, stream, _log_group(container), status == "SUCCEEDED")
    if status == "RUNNING":
        return Running(f"job {job['jobId']}")
    reason = str(job.get("statusReason") or "")
    return Waiting(diagnosis.unschedulable(reason) if reason else None)


def _last_container(job: Document) -> dict[str, Any]:
    """The container of the last attempt: some of it is described in the job, some in the attempt."""
    attempts = [attempt.get("container") or {} for attempt in job.get("attempts") or ()]
    found = {**(attempts[-1] if attempts else {})}
    return found | {name: value for name, value in (job.get("container") or {}).items() if value is not None}


def _log_group(container: dict[str, Any]) -> str:
    options = (container.get("logConfiguration") or {}).get("options") or {}
    return str(options.get("awslogs-group") or LOG_GROUP)


def _inferred(job: Document, container: dict[str, Any], options: BatchOptions, *, is_spot: bool) -> TaskResult:
    """The diagnosis that follows from the description of a job without a result of its own."""
    status, reason = str(job.get("statusReason") or ""), str(container.get("reason") or "")
    code = container.get("exitCode")
    evidence = "\n".join(part for part in (status, reason) if part)
    found = (
        _from_outside(job, status, evidence, options)
        or (diagnosis.out_of_memory(options, evidence) if _OUT_OF_MEMORY in reason else None)
        or _lost(evidence, is_spot=is_spot)
        or _not_started(evidence, str(options.image), options)
    )
    if found is not None:
        return found
    if code is None and not job.get("startedAt"):
        return diagnosis.never_started(evidence)
    if code in container_ends.SIGNALS_FROM_OUTSIDE:
        return diagnosis.killed(int(code), evidence)
    return container_ends.no_result(None if code is None else int(code), reason or status, evidence)


def _from_outside(job: Document, status: str, evidence: str, options: BatchOptions) -> TaskResult | None:
    """The end by AWS Batch or a person, or None."""
    if status.startswith(CANCELLED):
        return container_ends.cancelled()
    if _says(evidence, _TIMED_OUT):
        return container_ends.timed_out(options.deadline_seconds, evidence)
    if _says(evidence, _WAITED_TOO_LONG):
        return diagnosis.waited_too_long(evidence)
    if job.get("isTerminated") or job.get("isCancelled"):
        return diagnosis.terminated(evidence)
    return None


def _lost(evidence: str, *, is_spot: bool) -> TaskResult | None:
    """The end of the job's instance, or None."""
    if _says(evidence, _SPOT) or (is_spot and _says(evidence, _HOST)):
        return diagnosis.preempted(evidence)
    return diagnosis.host_lost(evidence) if _says(evidence, _HOST) else None


def _not_started(evidence: str, image: str, options: BatchOptions) -> TaskResult | None:
    """Why a container could not be started, or None."""
    if _says(evidence, _PULL):
        return diagnosis.bad_image(image, evidence)
    if _says(evidence, _ROLE):
        return diagnosis.role_refused(evidence)
    if _INITIALIZATION in evidence:
        return diagnosis.cant_start(evidence)
    return _start_failure(evidence, image, options) if _says(evidence, _START) else None


def _start_failure(evidence: str, image: str, options: BatchOptions) -> TaskResult:
    if container_ends.cant_be_executed(evidence):
        return diagnosis.wrong_architecture(image, evidence)
    if container_ends.has_no_program(evidence):
        return diagnosis.cant_execute(image, options, evidence)
    return diagnosis.cant_start(evidence)


def with_output(result: TaskResult, image: str, tail: str) -> TaskResult:
    """The result, corrected by the last lines of the output of a container that had none."""
    if result.outcome is not Outcome.USER_ERROR or not tail:
        return result
    if container_ends.was_not_executed(tail):
        return diagnosis.wrong_architecture(image, tail)
    if OTHER_RUNTIME in tail:
        return diagnosis.other_runtime(image, tail)
    if "No module named" in tail and "k8sflow" in tail:
        return diagnosis.no_runtime(image, tail)
    return result


def _says(evidence: str, phrases: tuple[str, ...]) -> bool:
    low = evidence.lower()
    return any(phrase.lower() in low for phrase in phrases)
