"""Messages for users about jobs of AWS Batch that failed or wait: a diagnosis for every outcome.

The summary says what happened, the detail is the evidence from AWS, the resolution says what to do. Nothing here looks
at a job; ``outcome`` chooses the diagnosis.
"""

from __future__ import annotations

from decimal import Decimal

from k8sflow.flow.decorators.batch_options import BatchOptions, mebibytes
from k8sflow.flow.outcome import Outcome
from k8sflow.task import container_ends
from k8sflow.task.container_ends import PullProblem
from k8sflow.task.result import TaskResult, failed
from k8sflow.version import VERSION

_CONSOLE = "The job's page in the console of AWS Batch shows more."
_PULL_ADVICE = {
    PullProblem.ARCHITECTURE: "Build it for that one too.",
    PullProblem.UNREACHABLE: "The job's subnet needs a public address, a NAT gateway, or endpoints for ECR and S3.",
    PullProblem.REFUSED: "Let the execution role pull it (docs/batch.md has the policy).",
    PullProblem.MISSING: "Check the name and the tag; push it to the registry.",
    PullProblem.NAME: "Write it as registry/name:tag.",
    PullProblem.UNKNOWN: _CONSOLE,
}

# https://docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable.html
_WAITING = (
    (
        "JOB_RESOURCE_REQUIREMENT",
        "its request is more than any instance of its job queue has.",
        "Request fewer vCPUs, less memory or fewer GPUs, or add larger instance types.",
    ),
    (
        "COMPUTE_ENVIRONMENT_MAX_RESOURCE",
        "its compute environment is full.",
        "Raise maxvCpus of the compute environment, or wait.",
    ),
    (
        "EC2_INSTANCE_CONFIGURATION_UNSUPPORTED",
        "no instance of its job queue can be started with the settings of its compute environment.",
        "Check the instance types, the AMI and the launch template of the compute environment.",
    ),
    (
        "SERVICE_ROLE_PERMISSIONS",
        "the service role of its compute environment lacks permissions.",
        "Repair the service role.",
    ),
    (
        "INSUFFICIENT_INSTANCE_CAPACITY",
        "AWS has no such instances free.",
        "Add other instance types or zones, or wait.",
    ),
)


def out_of_memory(options: BatchOptions, detail: str) -> TaskResult:
    """The container used more than its memory."""
    assert options.memory is not None, "every job requests memory"
    memory = mebibytes(options.memory)
    more = container_ends.more_memory(Decimal(memory))
    return failed(
        Outcome.OUT_OF_MEMORY,
        f"it ran out of memory: it used more than {memory} MiB, its request and limit.",
        detail,
        f"Request more, for example @resources(memory={more}), or keep less in memory at a time.",
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


def bad_image(image: str, detail: str) -> TaskResult:
    """The image can't be pulled."""
    problem = PullProblem.of(detail, image)
    cause = "the registry can't be reached" if problem is PullProblem.UNREACHABLE else problem.value
    return failed(
        Outcome.BAD_IMAGE,
        f"the image {image} can't be pulled: {cause}.",
        detail,
        f"{_PULL_ADVICE[problem]} The image is set by @batch(image=…), --with batch:image=… or batch_image.",
    )


def wrong_architecture(image: str, detail: str) -> TaskResult:
    """The instance's kernel can't run the image's programs."""
    return container_ends.wrong_architecture(image, detail, ", or use another compute environment")


def cant_execute(image: str, options: BatchOptions, detail: str) -> TaskResult:
    """The image lacks the program that the container should run."""
    return container_ends.cant_execute(image, options.executable, "@batch", detail)


def no_runtime(image: str, detail: str) -> TaskResult:
    """Python started, but found no k8sflow."""
    advice = (
        f"Build it on the k8sflow image of this version ({VERSION}): AWS Batch copies no runtime into other images."
    )
    return container_ends.no_runtime(image, detail, advice, is_final=True)


def other_runtime(image: str, detail: str) -> TaskResult:
    """The runtime in the image is of another version than the driver."""
    return container_ends.other_runtime(image, detail, "", is_final=True)


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


def submit_unknown(detail: str) -> TaskResult:
    """AWS Batch gave no answer to the submit of the job, which may exist."""
    return failed(
        Outcome.NEVER_STARTED,
        "AWS Batch gave no answer to the submit of its job.",
        detail,
        "It runs again; a job that appears nevertheless is terminated.",
    )


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


def unschedulable(reason: str) -> TaskResult:
    """The job waits for something that may never come; the reason is AWS Batch's.

    https://docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable.html
    """
    why, advice = _why_waiting(reason)
    return failed(Outcome.UNSCHEDULABLE, why, reason, advice)


def waited_too_long(reason: str) -> TaskResult:
    """The job's queue has a limit on how long a job may wait, and cancelled it."""
    why, advice = _why_waiting(reason)
    return failed(Outcome.UNSCHEDULABLE, f"its job queue cancelled it, since it waited too long: {why}", reason, advice)


def _why_waiting(reason: str) -> tuple[str, str]:
    """Why a job waits, and what to do."""
    found = ((why, advice) for code, why, advice in _WAITING if code in reason)
    return next(found, ("AWS Batch doesn't start it.", _CONSOLE))
