"""What a run on Kubernetes needs: a bucket, a cluster, and an executor that speaks to it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from k8sflow import config
from k8sflow.config import Settings
from k8sflow.errors import ConfigurationError
from k8sflow.executors.base import Executor
from k8sflow.flow.decorators.policy import StepPolicy
from k8sflow.runtime.core.loop import Report
from k8sflow.runtime.placement import Placement
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.patience import Patience
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.spec import TaskSpec
from k8sflow.task.stored_results import committed_result

if TYPE_CHECKING:
    from k8sflow.storage.s3 import S3Store

# How many Jobs of a run are unfinished at a time, where the user says nothing: enough to keep a cluster busy.
DEFAULT_MAX_JOBS = 100


def open_bucket(settings: Settings, *, first_seconds: float = 0.0) -> S3Store:
    """The bucket of the settings, for a run: it waits for minutes when the bucket can't be reached.

    Args:
        settings: Where it is.
        first_seconds: How long it waits for the first answer; by default a wrong endpoint is an error at once.

    Raises:
        ConfigurationError: None is set.
    """
    from k8sflow.storage.s3 import S3Store  # noqa: PLC0415  boto3 is loaded where a bucket is used

    if not settings.bucket:
        raise ConfigurationError(
            "a run on Kubernetes needs a bucket, and none is set.",
            cause="Code and artifacts travel between this machine and the pods through S3-compatible storage.",
            advice='Set K8SFLOW_BUCKET=name (and K8SFLOW_ENDPOINT where it is not AWS), or write bucket = "name" '
            "into k8sflow.toml beside the flow.",
        )
    patience = Patience(settings.storage_patience, first_seconds)
    return S3Store(f"s3://{settings.bucket}", endpoint=settings.endpoint, region=settings.region, patience=patience)


def check(settings: Settings, placement: Placement, *, is_handed_over: bool) -> S3Store:
    """The run's bucket, after a look at whether bucket and cluster can be used.

    Args:
        settings: Where they are.
        placement: What runs there.
        is_handed_over: Whether the driver runs in the cluster, with rights of its own.

    Raises:
        K8sflowError: One of them can't.
    """
    from k8sflow.kubernetes.preflight import (  # noqa: PLC0415  only such a run needs the API
        OWNER_PERMISSIONS,
        PERMISSIONS,
        check_access,
    )

    store = open_bucket(settings)
    store.check()
    inside = replace(settings, kubernetes_namespace=placement.namespace)
    check_access(inside, permissions=() if is_handed_over else PERMISSIONS + OWNER_PERMISSIONS)
    return store


def executor(
    report: Report,
    record: RunRecord,
    store: ObjectStore,
    placement: Placement,
    settings: Settings,
    max_jobs: int | None,
    owner: dict[str, Any] | None,
) -> Executor:
    """The executor for the steps that run on Kubernetes."""
    from k8sflow.executors.kubernetes import KubernetesExecutor  # noqa: PLC0415  only such a run needs the API

    run_store = RunStore(store, record.flow, record.run)

    def fail(error: BaseException) -> None:
        report(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    return KubernetesExecutor(
        report,
        fail=fail,
        settings=replace(settings, kubernetes_namespace=placement.namespace),
        flow=record.flow,
        run=record.run,
        pod_options=placement.pods.__getitem__,
        agent_arguments=lambda task: agent_arguments(record, store, task),
        committed=lambda task: committed_result(run_store, task),
        environment=_environment(settings),
        owner=owner,
        max_parallel=max_jobs or DEFAULT_MAX_JOBS,
    )


def _environment(settings: Settings) -> dict[str, str]:
    """The settings that a pod needs: its bucket, as seen from there, its patience, its secrets' store and its log."""
    inside = settings.in_cluster().to_environment()
    keys = ("bucket", "endpoint", "region", "storage_patience_seconds", "default_secrets_backend_type", "log")
    return {name: inside[name] for name in map(config.variable, keys) if name in inside}


def agent_arguments(record: RunRecord, store: ObjectStore, task: TaskSpec) -> list[str]:
    """What the agent in a task's pod is told."""
    found = record.policies.get(task.name.step)
    limit = StepPolicy.from_document(found).time_limit if found is not None else None
    return [
        task.to_json(),
        f"--store={store.url}",
        f"--flow={record.flow}",
        f"--package={record.package}",
        f"--file={record.file}",
        *([f"--timeout={limit.seconds:g}", f"--grace={limit.grace_seconds:g}"] if limit is not None else []),
    ]
