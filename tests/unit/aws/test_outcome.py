"""The state of a job, by the descriptions that AWS Batch gives."""

from __future__ import annotations

from typing import Any

import pytest

from k8sflow.aws.outcome import CANCELLED, JobEnd, Running, Waiting, job_state, with_output
from k8sflow.flow.decorators.batch_options import BatchOptions
from k8sflow.flow.outcome import Outcome
from k8sflow.task.host.launch import OTHER_RUNTIME

OPTIONS = BatchOptions(cpu="1", memory="2000M", image="team/app:1")
EXITED = "Essential container in task exited"


def job(status: str = "FAILED", **more: Any) -> dict[str, Any]:
    return {"jobId": "j1", "status": status, **more}


def failed(status_reason: str = EXITED, *, code: int | None = None, reason: str = "", **more: Any) -> dict[str, Any]:
    container = {"exitCode": code, "reason": reason or None}
    ran = {"startedAt": 1} if code is not None else {}
    return job(statusReason=status_reason, attempts=[{"container": container}], **ran, **more)


@pytest.mark.parametrize(
    ("document", "outcome", "words"),
    [
        (failed(code=1), Outcome.USER_ERROR, "exit code 1"),
        (failed(code=139), Outcome.USER_ERROR, "killed by SIGSEGV"),
        (failed(code=137), Outcome.NODE_LOST, "killed externally"),
        (
            failed(code=137, reason="OutOfMemoryError: Container killed due to memory usage"),
            Outcome.OUT_OF_MEMORY, "used more than 2000 MiB",
        ),
        (failed("Host EC2 (instance i-0a1) terminated."), Outcome.NODE_LOST, "instance was lost"),
        (failed("Host EC2 Terminated", code=137), Outcome.NODE_LOST, "instance was lost"),
        (failed("Your Spot Task was interrupted.", code=143), Outcome.PREEMPTED, "spot instance was reclaimed"),
        (failed("Job attempt duration exceeded timeout", code=137), Outcome.TIMED_OUT, "deadline"),
        (
            failed("Task failed to start", reason="CannotPullContainerError: pull image manifest: not found"),
            Outcome.BAD_IMAGE, "the image team/app:1 can't be pulled: it does not exist",
        ),
        (
            failed(
                "Task failed to start",
                reason="CannotPullContainerError: ref pull has been retried 5 time(s): failed to resolve reference "
                '"123456789012.dkr.ecr.eu-west-1.amazonaws.com/app:v9": not found',
            ),
            Outcome.BAD_IMAGE, "it does not exist",
        ),
        (
            failed("Task failed to start", reason="CannotPullECRContainerError: AccessDeniedException: denied"),
            Outcome.BAD_IMAGE, "can't be pulled",
        ),
        (
            failed("Task failed to start", reason="CannotCreateVolumeError: mount of fs-0123456789abcdef0 failed"),
            Outcome.NEVER_STARTED, "container couldn't be started",
        ),
        (
            failed(
                "DockerTimeoutError: Could not transition to created; timed out after waiting 4m0s",
                container={"reason": None},
            ),
            Outcome.NEVER_STARTED, "container couldn't be started",
        ),
        (
            failed("Timeout waiting for network interface provisioning to complete."),
            Outcome.NEVER_STARTED, "before its container started",
        ),
        (
            failed(
                "Canceled by JobStateTimeLimit action due to reason: CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY",
                isCancelled=True, isTerminated=True,
            ),
            Outcome.UNSCHEDULABLE, "it waited too long: AWS has no such instances free",
        ),
        (
            failed("Task failed to start", reason="CannotPullContainerError: pull access denied"),
            Outcome.BAD_IMAGE, "the registry refuses it",
        ),
        (
            failed("CannotPullContainerError: dial tcp 1.2.3.4:443: i/o timeout"),
            Outcome.BAD_IMAGE, "the registry can't be reached",
        ),
        (
            failed("CannotPullContainerError: repository does not exist or may require 'docker login': denied"),
            Outcome.BAD_IMAGE, "the registry refuses it, because it is private or doesn't exist",
        ),
        (
            failed("Task failed to start", reason="CannotStartContainerError: exec python3: exec format error"),
            Outcome.BAD_IMAGE, "programs for another architecture",
        ),
        (
            failed("Task failed to start", reason="CannotStartContainerError: exec: executable file not found"),
            Outcome.BAD_IMAGE, "has no python3",
        ),
        (
            failed(
                "Task failed to start",
                reason="CannotStartContainerError: error gathering device information while adding custom device "
                '"/dev/neuron0": no such file or directory',
            ),
            Outcome.NEVER_STARTED, "container couldn't be started",
        ),
        (
            failed("ECS was unable to assume the role 'arn:aws:iam::1:role/x' that was provided for this task."),
            Outcome.NEVER_STARTED, "a role of the job can't be used",
        ),
        (failed("ResourceInitializationError: unable to pull secrets"), Outcome.NEVER_STARTED, "couldn't be started"),
        (failed("Something new"), Outcome.NEVER_STARTED, "before its container started"),
        (failed("ada was bored", isTerminated=True), Outcome.CANCELLED, "terminated externally"),
        (failed(f"{CANCELLED}", isTerminated=True), Outcome.CANCELLED, "the run was cancelled"),
    ],
)  # fmt: skip
def test_every_end_has_an_outcome_and_a_diagnosis(document: dict[str, Any], outcome: Outcome, words: str) -> None:
    """The evidence of AWS is in the detail."""
    end = job_state(document, OPTIONS)
    assert isinstance(end, JobEnd)
    assert end.result.outcome is outcome
    assert words in end.result.explained.summary
    assert outcome is Outcome.CANCELLED or document["statusReason"] in end.result.explained.detail


def test_a_lost_instance_of_a_spot_queue_was_reclaimed() -> None:
    """EC2 gives the same reason for both."""
    end = job_state(failed("Host EC2 (instance i-0a1) terminated."), OPTIONS, is_spot=True)
    assert isinstance(end, JobEnd)
    assert end.result.outcome is Outcome.PREEMPTED


def test_what_the_job_says_of_its_container_counts_before_the_attempt() -> None:
    document = failed(code=1, container={"exitCode": 2, "reason": None, "logStreamName": "s"})
    end = job_state(document, OPTIONS)
    assert isinstance(end, JobEnd)
    assert ("exit code 2" in end.result.explained.summary, end.log_stream, end.ran) == (True, "s", True)


def test_the_log_group_is_that_of_the_job() -> None:
    """As ``log_options`` may set it."""
    own = {"logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "/team/jobs"}}}
    found = [job_state(failed(code=1, container={"exitCode": 1, **more}), OPTIONS) for more in ({}, own)]
    assert [end.log_group for end in found if isinstance(end, JobEnd)] == ["/aws/batch/job", "/team/jobs"]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - …", "more than any instance"),
        ("MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - …", "is full"),
        ("MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS - …", "lacks permissions"),
        ("CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - …", "no such instances"),
        ("MISCONFIGURATION:EC2_INSTANCE_CONFIGURATION_UNSUPPORTED - …", "can be started with the settings"),
        ("UNDETERMINED - Batch job is blocked, root cause is undetermined.", "doesn't start it"),
        ("ACTION_REQUIRED - something", "doesn't start it"),
    ],
)
def test_a_job_that_is_stuck_says_why(reason: str, words: str) -> None:
    state = job_state(job("RUNNABLE", statusReason=reason), OPTIONS)
    assert isinstance(state, Waiting)
    assert state.reason is not None
    assert words in state.reason.explained.summary


def test_a_job_waits_and_runs() -> None:
    for status in ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING"):
        assert job_state(job(status), OPTIONS) == Waiting()
    assert job_state(job("RUNNING"), OPTIONS) == Running("job j1")


def test_the_output_shows_that_the_image_has_no_runtime() -> None:
    """Or another one."""
    end = job_state(failed(code=1), OPTIONS)
    assert isinstance(end, JobEnd)
    missing = with_output(end.result, "app:1", "ModuleNotFoundError: No module named 'k8sflow'")
    assert (missing.outcome, missing.explained.is_final) == (Outcome.BAD_IMAGE, True)
    other = with_output(end.result, "app:1", f"{OTHER_RUNTIME}0.0.1")
    assert other.outcome is Outcome.BAD_IMAGE
    foreign = with_output(end.result, "app:1", "exec /usr/bin/python3: exec format error")
    assert (foreign.outcome, foreign.explained.is_final) == (Outcome.BAD_IMAGE, True)
    for words in ("Traceback …", "step output\nOSError: exec format error"):
        assert with_output(end.result, "app:1", words) is end.result
