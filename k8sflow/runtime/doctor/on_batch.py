"""AWS Batch: the credentials, the job queue, the roles, and whether a job of the default size fits."""

from __future__ import annotations

from collections.abc import Iterator

from k8sflow.aws.api import BatchApi, Boto3Api
from k8sflow.aws.queue import Queue
from k8sflow.config import Settings
from k8sflow.errors import BatchError, ConfigurationError, K8sflowError
from k8sflow.executors.batch.queues import Queues
from k8sflow.flow.decorators.batch_options import BatchOptions, mebibytes
from k8sflow.runtime.doctor.checklist import ChecklistRow, Section
from k8sflow.runtime.job_sizes import recorded_jobs
from k8sflow.task.result import Failure

SECTION = Section("AWS Batch")
_PATIENCE_SECONDS = 5.0


def rows(settings: Settings, api: BatchApi | None = None) -> Iterator[ChecklistRow]:
    """The checks of AWS Batch, for settings that name a job queue.

    Args:
        settings: The settings.
        api: AWS Batch, where it isn't that of the settings.
    """
    options = recorded_jobs({"": BatchOptions()}, settings)[""]
    yield _roles(options)
    yield SECTION.ok("image of jobs", str(options.image))
    region = settings.batch_region or settings.region
    try:
        queue = Queues(api or Boto3Api(region, patience_seconds=_PATIENCE_SECONDS), region).find(str(options.queue))
    except BatchError as error:
        yield SECTION.failed("job queue", error)
        return
    if (mistake := queue.mistake()) is not None:
        yield SECTION.failed("job queue", _error(mistake))
        return
    yield SECTION.ok("job queue", f"{queue.name} in {region}: {_described(queue)}")
    size = f"{options.cpu} vCPU and {mebibytes(str(options.memory))} MiB"
    misfit = queue.misfit(options)
    yield (
        SECTION.failed("default job", _error(misfit))
        if misfit is not None
        else SECTION.ok("default job", f"{size} fit")
    )


def _roles(options: BatchOptions) -> ChecklistRow:
    if options.iam_role is None:
        return SECTION.failed(
            "roles",
            ConfigurationError(
                "no IAM role is set with which jobs may use the bucket.",
                advice="Set batch_job_role (K8SFLOW_BATCH_JOB_ROLE) to the ARN of one; docs/batch.md has its policy.",
            ),
        )
    execution = f"; execution role {options.execution_role}" if options.execution_role is not None else ""
    return SECTION.ok("roles", f"{options.iam_role}{execution}")


def _described(queue: Queue) -> str:
    kind = "Fargate" if queue.is_fargate else "EC2"
    spot = ", spot" if queue.is_spot else ""
    most = f", {queue.most_vcpus} vCPUs at most" if queue.most_vcpus is not None else ""
    return f"{kind}{spot}{most}"


def _error(found: Failure) -> K8sflowError:
    return K8sflowError(found.summary, cause=found.detail, advice=found.resolution)
