"""The Job of a task of a run, with the command line and the environment of its pod."""

from __future__ import annotations

from typing import Any

from k8sflow import config
from k8sflow.config import Settings
from k8sflow.executors.context import RunContext
from k8sflow.kubernetes import names
from k8sflow.kubernetes.job import TaskJob
from k8sflow.kubernetes.pod import agent_command
from k8sflow.task.spec import TaskSpec


def job_name(task: TaskSpec) -> str:
    """The name of a task's Job."""
    return names.job_name(flow=task.flow, run=task.run, step=task.name.step, task=task.name.id, attempt=task.attempt)


def task_job(context: RunContext, task: TaskSpec, owner: dict[str, Any] | None) -> TaskJob:
    """The Job of a task.

    Args:
        context: The run.
        task: The task.
        owner: The ownerReference of the run's owner; None where the owner doesn't exist yet.
    """
    settings, options = context.settings, context.pods[task.name.step]
    return TaskJob(
        name=job_name(task),
        namespace=settings.kubernetes_namespace,
        task=task,
        options=options,
        runtime_image=settings.kubernetes_runtime_image,
        command=(*agent_command(options), *agent_arguments(context, task)),
        owner=owner,
        environment=environment(settings),
        credentials_secret=settings.credentials_secret,
    )


def agent_arguments(context: RunContext, task: TaskSpec) -> list[str]:
    """The arguments of the agent in a task's pod."""
    record, limit = context.record, context.time_limit(task.name.step)
    return [
        task.to_json(),
        f"--store={context.run_store.store.url}",
        f"--flow={record.flow}",
        f"--package={record.package}",
        f"--file={record.file}",
        *([f"--timeout={limit.seconds:g}", f"--grace={limit.grace_seconds:g}"] if limit is not None else []),
    ]


def environment(settings: Settings) -> dict[str, str]:
    """The settings that a pod needs: the bucket as seen from there, its patience, its secrets' store and its log."""
    inside = settings.in_cluster().to_environment()
    keys = ("bucket", "endpoint", "region", "storage_patience_seconds", "default_secrets_backend_type", "log")
    return {name: inside[name] for name in map(config.variable, keys) if name in inside}
