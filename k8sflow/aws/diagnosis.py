"""Messages for users about jobs of AWS Batch that failed or wait: a diagnosis for every outcome.

The summary says what happened, the detail is the evidence from AWS, the resolution says what to do. Nothing here looks
at a job; ``outcome`` chooses the diagnosis.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

from k8sflow.flow.decorators.batch_options import BatchOptions, mebibytes
from k8sflow.flow.outcome import Outcome
from k8sflow.task.result import TaskResult, failed
from k8sflow.version import VERSION

_SIGNALLED = 128
_SIGNALS = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 11: "SIGSEGV", 13: "SIGPIPE", 24: "SIGXCPU"}
_CONSOLE = "The job's page in the console of AWS Batch shows more."


def out_of_memory(options: BatchOptions, detail: str) -> TaskResult:
    """The container used more than its memory."""
    assert options.memory is not None, "every job requests memory"
    memory = mebibytes(options.memory)
    step = Decimal(1000 if memory >= 2000 else 100)  # noqa: PLR2004  round numbers
    more = int((memory * Decimal("1.5") / step).to_integral_value(ROUND_CEILING) * step)
    return failed(
        Outcome.OUT_OF_MEMORY,
        f"it ran out of memory: it used more than {memory} MiB, its request and limit.",
        detail,
        f"Request more, for example @resources(memory={more}), or keep less in memory at a time.",
    )


def timed_out(options: BatchOptions, detail: str) -> TaskResult:
    """The job's timeout passed."""
    limit = f" of {options.deadline_seconds} s" if options.deadline_seconds else ""
    return failed(
        Outcome.TIMED_OUT,
        f"it was stopped because its deadline{limit} had passed.",
        detail,
        "Allow more time (deadline_seconds), or split the work.",
    )


def preempted(detail: str) -> TaskResult:
    """A spot instance was reclaimed."""
    return failed(
        Outcome.PREEMPTED,
        "its spot instance was reclaimed.",
        detail,
        "It runs again; a queue of on-demand instances isn't interrupted.",
    )


def host_lost(detail: str) -> TaskResult:
    """The instance ended, with the job."""
    return failed(
        Outcome.NODE_LOST,
        "its instance was lost or terminated.",
        detail,
        "It runs again. An instance ends when its compute environment shrinks or is changed, or when it is replaced.",
    )


def terminated(detail: str) -> TaskResult:
    """Somebody terminated or cancelled the job."""
    return failed(
        Outcome.CANCELLED,
        "its job was terminated externally.",
        detail,
        "Run or resume the flow again if that was a mistake.",
    )


def cancelled() -> TaskResult:
    """The task was stopped because the run was cancelled."""
    return failed(Outcome.CANCELLED, "it was stopped because the run was cancelled.")


def bad_image(image: str, detail: str) -> TaskResult:
    """The image can't be pulled."""
    low = detail.lower()
    if "not found" in low or "manifest unknown" in low or "does not exist" in low or "no such image" in low:
        cause, advice = "it does not exist", "Check the name and the tag; push it to the registry."
    elif any(word in low for word in ("unauthorized", "denied", "forbidden", "no basic auth")):
        cause, advice = "the registry refuses it", "Let the execution role pull it (docs/batch.md has the policy)."
    elif any(word in low for word in ("no such host", "i/o timeout", "connection refused", "dial tcp", "deadline")):
        cause, advice = (
            "the registry can't be reached",
            "The job's subnet needs a public address, a NAT gateway, or endpoints for ECR and S3.",
        )
    elif "exec format" in low or "platform" in low:
        cause, advice = "it has no variant for the instance's architecture", "Build it for that one too."
    else:
        cause, advice = "see below", _CONSOLE
    return failed(
        Outcome.BAD_IMAGE,
        f"the image {image} can't be pulled: {cause}.",
        detail,
        f"{advice} The image is set by @batch(image=…), --with batch:image=… or batch_image.",
    )


def cant_execute(image: str, options: BatchOptions, detail: str) -> TaskResult:
    """The image lacks the program that the container should run."""
    return failed(
        Outcome.BAD_IMAGE,
        f"its image {image} has no {options.executable or 'python3'} that can be executed.",
        detail,
        "Use an image with Python 3.10 or newer as python3 on its PATH, or name it: executable=….",
    )


def no_runtime(image: str, detail: str) -> TaskResult:
    """Python started, but found no k8sflow."""
    return failed(
        Outcome.BAD_IMAGE,
        f"its image {image} doesn't contain the k8sflow runtime.",
        detail,
        f"Build it on the k8sflow image of this version ({VERSION}): AWS Batch copies no runtime into other images.",
        is_final=True,
    )


def other_runtime(image: str, detail: str) -> TaskResult:
    """The runtime in the image is of another version than the driver."""
    return failed(
        Outcome.BAD_IMAGE,
        f"its image {image} runs with another version of k8sflow than {VERSION}, which started the run.",
        detail,
        f"Build the image on the k8sflow image {VERSION}.",
        is_final=True,
    )


def role_refused(detail: str) -> TaskResult:
    """ECS can't use a role of the job."""
    return failed(
        Outcome.NEVER_STARTED,
        "a role of the job can't be used.",
        detail,
        "Check that iam_role and execution_role exist, and that each trusts ecs-tasks.amazonaws.com.",
        is_final=True,
    )


def cant_start(detail: str) -> TaskResult:
    """The container couldn't be started."""
    return failed(Outcome.NEVER_STARTED, "its container couldn't be started.", detail, _CONSOLE)


def never_started(detail: str) -> TaskResult:
    """The job failed, and its container never ran."""
    return failed(Outcome.NEVER_STARTED, "its job failed before its container started.", detail, _CONSOLE)


def job_refused(detail: str, advice: str, *, is_final: bool) -> TaskResult:
    """AWS Batch refused the job."""
    return failed(Outcome.NEVER_STARTED, "its job couldn't be submitted.", detail, advice, is_final=is_final)


def job_missing() -> TaskResult:
    """AWS Batch no longer knows the job."""
    return failed(
        Outcome.NODE_LOST,
        "AWS Batch no longer knows its job.",
        "It keeps finished jobs for at least a day.",
        "It runs again.",
    )


def killed(exit_code: int, detail: str) -> TaskResult:
    """The container was killed by a signal of unknown origin."""
    return failed(
        Outcome.NODE_LOST,
        f"its container was killed externally (exit code {exit_code}); AWS Batch gave no reason.",
        detail,
        "The instance as a whole may have run short of memory.",
    )


def no_result(exit_code: int | None, reason: str, detail: str) -> TaskResult:
    """The container ended, and its agent stored no result anywhere."""
    how = f"its container ended with exit code {exit_code} ({reason or 'no reason given'})"
    if exit_code is None:
        how = f"its container ended ({reason or 'no reason given'})"
    elif (name := _SIGNALS.get(exit_code - _SIGNALLED)) is not None:
        how = f"its container was killed by {name} (exit code {exit_code})"
    return failed(
        Outcome.USER_ERROR,
        f"{how} without a result.",
        detail,
        "See the last lines of its output. A task must not end the process that runs it.",
    )


def unschedulable(reason: str) -> TaskResult:
    """The job waits for something that may never come; the reason is AWS Batch's.

    https://docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable.html
    """
    low = reason.lower()
    if "job_resource_requirement" in low:
        why = "its request is more than any instance of its job queue has."
        advice = "Request fewer vCPUs, less memory or fewer GPUs, or add larger instance types."
    elif "compute_environment_max_resource" in low:
        why, advice = "its compute environment is full.", "Raise maxvCpus of the compute environment, or wait."
    elif "service_role_permissions" in low:
        why, advice = "the service role of its compute environment lacks permissions.", "Repair the service role."
    elif "insufficient_instance_capacity" in low:
        why, advice = "AWS has no such instances free.", "Add other instance types or zones, or wait."
    else:
        why, advice = "AWS Batch doesn't start it.", _CONSOLE
    return failed(Outcome.UNSCHEDULABLE, why, reason, advice)
