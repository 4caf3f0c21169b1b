"""The preflight check of a run on Kubernetes: its bucket and its cluster, before anything starts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from k8sflow.config import Settings
from k8sflow.executors.bucket import open_bucket
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.task.batch import TaskBatch
from k8sflow.task.spec import TaskName, TaskSpec

if TYPE_CHECKING:
    from k8sflow.kubernetes.findings import Finding
    from k8sflow.kubernetes.job import TaskJob
    from k8sflow.storage.s3 import S3Store


def check(
    settings: Settings,
    pods: Mapping[str, PodOptions],
    *,
    is_detached: bool,
    flow: str = "",
    has_gangs: bool = False,
) -> tuple[S3Store, list[Finding]]:
    """The run's bucket, once it is known that bucket and cluster can be used, and warnings about the run.

    Args:
        settings: The settings, with the namespace of the run's pods.
        pods: The options of the pods, by step.
        is_detached: Whether the driver runs in the cluster, with rights of its own.
        flow: The flow's name.
        has_gangs: Whether pods of a num_parallel step have to find each other.

    Raises:
        K8sflowError: One of them can't.
    """
    from k8sflow.kubernetes.preflight import (  # noqa: PLC0415  only such a run needs the API
        GRACE_PERMISSIONS,
        OWNER_PERMISSIONS,
        PERMISSIONS,
        SERVICE_PERMISSIONS,
        check_access,
    )

    store = open_bucket(settings)
    store.check()
    has_grace = any(options.grace_seconds is not None for options in pods.values())
    needed = (*PERMISSIONS, *OWNER_PERMISSIONS, *(GRACE_PERMISSIONS if has_grace else ()))
    if has_gangs:
        needed = (*needed, *SERVICE_PERMISSIONS)
    warnings = check_access(
        settings,
        permissions=() if is_detached else needed,
        jobs={step: sample_job(flow, step, options, settings) for step, options in pods.items()},
    )
    return store, warnings


def sample_job(flow: str, step: str, options: PodOptions, settings: Settings) -> TaskJob:
    """A Job of a step under a name that no run has."""
    from k8sflow.executors.agent_arguments import environment  # noqa: PLC0415  as above
    from k8sflow.executors.kubernetes.submission import job_name  # noqa: PLC0415  as above
    from k8sflow.kubernetes.bucket_keys import BucketKeys  # noqa: PLC0415  as above
    from k8sflow.kubernetes.job import TaskJob  # noqa: PLC0415  as above
    from k8sflow.kubernetes.pod import agent_command  # noqa: PLC0415  as above

    tasks = TaskBatch(TaskSpec(flow, f"check-{secrets.token_hex(4)}", TaskName(step)))
    return TaskJob(
        name=job_name(tasks),
        namespace=settings.kubernetes_namespace,
        tasks=tasks,
        options=options,
        runtime_image=settings.kubernetes_runtime_image,
        command=agent_command(options),
        environment=environment(settings),
        keys=BucketKeys.of(settings),
    )
