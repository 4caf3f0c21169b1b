"""The Job of some tasks of a run, with the command line and the environment of its pod."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k8sflow.executors.agent_arguments import environment, task_arguments
from k8sflow.executors.context import RunContext
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.kubernetes import names
from k8sflow.kubernetes.bucket_keys import BucketKeys
from k8sflow.kubernetes.job import TaskJob
from k8sflow.kubernetes.pod import agent_command
from k8sflow.task.batch import TaskBatch

# How long pods that run together wait for each other.
_PEERS_SECONDS = 600


def job_name(tasks: TaskBatch) -> str:
    """The name of the Job of some tasks."""
    first = tasks.template
    return names.job_name(flow=first.flow, run=first.run, step=first.name.step, task=tasks.ids, attempt=first.attempt)


def task_job(
    context: RunContext,
    name: str,
    tasks: TaskBatch,
    options: PodOptions,
    *,
    parallelism: int = 1,
    owner: Mapping[str, Any] | None = None,
) -> TaskJob:
    """The Job of some tasks of a run; the arguments are those of ``TaskJob``."""
    settings, first = context.settings, tasks.template
    service = names.service_name(flow=first.flow, run=first.run) if first.nodes > 1 else ""
    peers = f"{name}-%d.{service}.{settings.kubernetes_namespace}.svc" if service else ""
    return TaskJob(
        name=name,
        namespace=settings.kubernetes_namespace,
        tasks=tasks,
        options=options,
        runtime_image=settings.kubernetes_runtime_image,
        command=(*agent_command(options), *agent_arguments(context, tasks, peers)),
        per_pod=options.branches_per_pod or 1,
        parallelism=parallelism,
        service=service,
        owner=owner,
        environment=environment(settings, context.record),
        keys=BucketKeys.of(settings),
        ttl_seconds=settings.job_ttl_seconds,
    )


def agent_arguments(context: RunContext, tasks: TaskBatch, peers: str = "") -> list[str]:
    """The arguments of the agent in each pod of a Job.

    Args:
        context: The run.
        tasks: The tasks of the Job.
        peers: The host names of its pods where they run together, with ``%d`` for the index.
    """
    options = context.pods[tasks.template.name.step]
    per_pod, at_a_time = options.branches_per_pod or 1, options.branches_at_a_time or 1
    return [
        *task_arguments(context, tasks),
        *([f"--per-pod={per_pod}", f"--at-a-time={at_a_time}"] if per_pod > 1 and len(tasks) > 1 else []),
        *([f"--termination-grace={options.grace_seconds}"] if options.grace_seconds is not None else []),
        *([f"--peers={peers}", f"--peers-timeout={_peers_seconds(options)}"] if peers else []),
        *([f"--spot={options.spot}"] if options.spot is not None else []),
    ]


def _peers_seconds(options: PodOptions) -> int:
    return options.hostname_resolution_timeout or _PEERS_SECONDS
