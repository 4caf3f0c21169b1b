"""The preflight check of a run on AWS Batch: its bucket, queues, roles and sizes, before anything starts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from k8sflow.config import Settings
from k8sflow.errors import ConfigurationError, FlowDefinitionError
from k8sflow.executors.bucket import open_bucket
from k8sflow.flow.decorators.batch_options import BatchOptions
from k8sflow.task.result import Failure

if TYPE_CHECKING:
    from k8sflow.aws.api import BatchApi
    from k8sflow.storage.s3 import S3Store

_PATIENCE_SECONDS = 5.0


def check(
    settings: Settings, jobs: Mapping[str, BatchOptions], together: Collection[str] = (), api: BatchApi | None = None
) -> S3Store:
    """The run's bucket, once it is known that bucket and queues can be used.

    Args:
        settings: The settings.
        jobs: The options of the jobs, by step.
        together: The steps whose tasks run together, as ``num_parallel`` says.
        api: AWS Batch, where it isn't that of the settings.

    Raises:
        K8sflowError: One of them can't.
    """
    store = open_bucket(settings, system="AWS Batch")
    check_options(jobs)
    store.check()
    check_queues(settings, jobs, together, api)
    return store


def check_options(jobs: Mapping[str, BatchOptions]) -> None:
    """Returns if each step has a queue and a role.

    Raises:
        ConfigurationError: One has none.
    """
    for step, options in jobs.items():
        if options.queue is None:
            raise ConfigurationError(
                f"step {step} runs on AWS Batch, and no job queue is set.",
                advice="Set batch_queue (K8SFLOW_BATCH_QUEUE) to the name or the ARN of one, or @batch(queue=…).",
            )
        if options.iam_role is None and options.job_definition is None:
            raise ConfigurationError(
                f"step {step} runs on AWS Batch, and no IAM role is set with which its job may use the bucket.",
                advice="Set batch_job_role (K8SFLOW_BATCH_JOB_ROLE) to the ARN of one, or @batch(iam_role=…); "
                "docs/batch.md has its policy.",
            )


def check_queues(
    settings: Settings, jobs: Mapping[str, BatchOptions], together: Collection[str] = (), api: BatchApi | None = None
) -> None:
    """Returns if the queues exist, run jobs, and can take those of the steps.

    Raises:
        BatchError: AWS Batch can't be used, or a queue doesn't exist.
        ConfigurationError: A queue can't run jobs.
        FlowDefinitionError: A step doesn't fit into its queue.
    """
    from k8sflow.aws.api import Boto3Api  # noqa: PLC0415  only such a run needs boto3
    from k8sflow.executors.batch.queues import Queues  # noqa: PLC0415  as above

    region = settings.batch_region or settings.region
    queues = Queues(api or Boto3Api(region, patience_seconds=_PATIENCE_SECONDS), region)
    for step, options in jobs.items():
        assert options.queue is not None, "it was checked"
        queue = queues.find(options.queue)
        if (mistake := queue.mistake()) is not None:
            raise ConfigurationError(mistake.summary, cause=mistake.detail, advice=mistake.resolution)
        misfit = queue.misfit(options) or queue.misfit_of_growth(options)
        if step in together:
            misfit = misfit or queue.misfit_of_nodes(options)
        if misfit is not None:
            raise _misfit(step, misfit)


def _misfit(step: str, found: Failure) -> FlowDefinitionError:
    return FlowDefinitionError(f"step {step}: {found.summary}", cause=found.detail, advice=found.resolution)
