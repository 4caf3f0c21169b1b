"""The arguments and the settings of the agent, wherever its container runs."""

from __future__ import annotations

from k8sflow import bucket_servers, config, metaflow_modules, s3_options
from k8sflow.config import Settings
from k8sflow.executors.context import RunContext
from k8sflow.storage.records import RunRecord
from k8sflow.task.batch import TaskBatch


def task_arguments(context: RunContext, tasks: TaskBatch) -> list[str]:
    """The arguments of the agent in each container that has one of some tasks.

    Args:
        context: The run.
        tasks: All tasks of the job.
    """
    record, limit = context.record, context.time_limit(tasks.template.name.step)
    return [
        tasks.to_json(),
        f"--store={context.run_store.store.url}",
        f"--flow={record.flow}",
        f"--package={record.package}",
        f"--file={record.file}",
        *([f"--timeout={limit.seconds:g}", f"--grace={limit.grace_seconds:g}"] if limit is not None else []),
        *(["--environment"] if tasks.template.name.step in record.environments else []),
        *(["--trace"] if record.is_traced else []),
    ]


def environment(settings: Settings, record: RunRecord | None = None) -> dict[str, str]:
    """The settings of the agent: the bucket as seen from there, and those that tasks follow.

    Args:
        settings: The settings of the driver.
        record: The run, whose tasks may import k8sflow under Metaflow's name; None for no run.
    """
    inside = settings.in_cluster().to_environment()
    address = bucket_servers.inside(settings)
    server = {bucket_servers.variable(settings.bucket_url): address} if address else {}
    keys = (
        "bucket",
        "region",
        *s3_options.SETTINGS,
        "storage_patience_seconds",
        "default_secrets_backend_type",
        "compression",
        "log",
        "log_limit_mb",
    )
    hook = {metaflow_modules.VARIABLE: "1"} if record is not None and record.as_metaflow else {}
    return {**{name: inside[name] for name in map(config.variable, keys) if name in inside}, **server, **hook}
