"""The executors by name: a new one is one more case in ``make``, and a package beside this module."""

from __future__ import annotations

import os
import sys

from k8sflow.errors import ConfigurationError, RunError
from k8sflow.executors.base import Executor
from k8sflow.executors.context import RunContext
from k8sflow.parallel.limits import available_cores

LOCAL, KUBERNETES, BATCH = "local", "kubernetes", "batch"
# The executor that forks comes first: others start threads.
EXECUTORS = (LOCAL, KUBERNETES, BATCH)


def check_local(what: str = "steps can't run") -> None:
    """Refuses processes of flows on this machine where there is no fork.

    Args:
        what: The beginning of the message.

    Raises:
        RunError: The system is Windows.
    """
    if not hasattr(os, "fork"):
        raise RunError(
            f"{what} on this machine: local runs need Linux or macOS, and this is {sys.platform}.",
            cause="They need fork and signals, which this system doesn't have.",
            advice="Run every step on a cluster, with `run --with kubernetes`, or use WSL.",
        )


def make(name: str, context: RunContext) -> Executor:
    """Makes the executor of a name."""
    if name == LOCAL:
        return _local(context)
    if name == KUBERNETES:
        from k8sflow.executors.kubernetes.executor import KubernetesExecutor  # noqa: PLC0415  only it needs the API

        return KubernetesExecutor(context)
    if name == BATCH:
        from k8sflow.executors.batch.executor import BatchExecutor  # noqa: PLC0415  only it needs boto3

        return BatchExecutor(context)
    raise ValueError(f"there is no executor {name!r}")


def _local(context: RunContext) -> Executor:
    """The executor of this machine; it forks, so it comes before anything that starts a thread."""
    check_local()
    # A driver in the cluster runs no task itself.
    from k8sflow.executors.environments import pythons  # noqa: PLC0415
    from k8sflow.executors.local import LocalExecutor  # noqa: PLC0415
    from k8sflow.task.inside.task_runner import TaskRunner  # noqa: PLC0415

    assert context.definition is not None, "tasks of this machine need the flow's code"
    return LocalExecutor(
        context.report,
        TaskRunner(
            context.definition,
            context.record,
            context.run_store.store,
            context.run_store.folder,
            compression=context.settings.artifact_compression,
        ),
        context.max_workers or _cores(),
        limit_of=context.time_limit,
        lock=context.lock,
        log_patience=context.settings.storage_patience,
        log_limit_bytes=context.settings.log_limit_bytes,
        python_of=pythons(context.record.environments),
    )


def _cores() -> int:
    """The cores that this process may use, which a container or ``taskset`` may have limited.

    Raises:
        ConfigurationError: K8SFLOW_CPUS is not a number of cores.
    """
    try:
        return available_cores()
    except ValueError as error:
        raise ConfigurationError(f"{error}.") from error
