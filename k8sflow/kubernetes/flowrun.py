"""The FlowRun: the object that passes a run to the cluster, and whose status shows its progress.

Its schema is in charts/k8sflow/crds; only this module knows its shape in Python.

    spec:
      flow, run      the run in the bucket
      code           {store, package}: the store with the run's record, and the code that it runs
      settings       the settings that the run was started with, as pods have to use them; in camelCase
      driver         {image, resources}: the driver's pod
    status:
      phase, message, startedAt, finishedAt
      tasks          {total, running, done, failed}: only counters, so that the status stays small
      observedGeneration, driver {job, restarts}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from k8sflow import bucket_servers, roots, s3_options
from k8sflow.config import Settings, variable
from k8sflow.kubernetes import labels, names
from k8sflow.kubernetes.bucket_keys import BucketKeys
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.storage.records import RunRecord

GROUP = "k8sflow.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "FlowRun"
PLURAL = "flowruns"

DRIVER_SERVICE_ACCOUNT = "k8sflow-driver"
TASK_SERVICE_ACCOUNT = "k8sflow-task"
COMPONENT = "k8sflow.dev/component"
DRIVER_COMPONENT = "driver"
FLOWRUN_LABEL = "k8sflow.dev/flowrun"
# The service accounts that tasks may use, separated by commas; read by the driver.
SERVICE_ACCOUNTS_VARIABLE = "K8SFLOW_ALLOWED_SERVICE_ACCOUNTS"
# The guarded options of pods that flows may use, likewise.
OPTIONS_VARIABLE = "K8SFLOW_ALLOWED_OPTIONS"

LONGEST_MESSAGE = 1000
# The settings that a FlowRun carries. The bucket is in code.store, the namespace is the FlowRun's own, and pod options
# are in the run's record.
CARRIED_SETTINGS = (
    "credentials",
    "endpoint",
    "region",
    *s3_options.SETTINGS,
    "kubernetes_runtime_image",
    "storage_patience_seconds",
    "default_secrets_backend_type",
    "compression",
    "log",
    "log_limit_mb",
    "kubernetes_indexed_from",
    "kubernetes_job_ttl_seconds",
)


class Phase(str, Enum):
    """The phase of a FlowRun."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def is_final(self) -> bool:
        """True if no other phase follows."""
        return self in {Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED}


@dataclass(frozen=True)
class TaskCounts:
    """The numbers of a run's tasks that are known so far, by state."""

    total: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0

    def to_document(self) -> dict[str, int]:
        """The counts as they appear in a FlowRun's status."""
        return {"total": self.total, "running": self.running, "done": self.done, "failed": self.failed}


def flowrun_name(flow: str, run: str) -> str:
    """The name of a run's FlowRun, derived from the run alone."""
    return names.owner_name(flow=flow, run=run)


def driver_job_name(name: str) -> str:
    """The name of the Job that runs a FlowRun's driver."""
    return f"{name}-{DRIVER_COMPONENT}"


def collection_path(namespace: str) -> str:
    """The API path of a namespace's FlowRuns."""
    return f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}"


def object_path(namespace: str, name: str) -> str:
    """The API path of a FlowRun."""
    return f"{collection_path(namespace)}/{name}"


def flowrun_manifest(record: RunRecord, settings: Settings, namespace: str, store_url: str) -> Manifest:
    """The FlowRun that passes a run to the controller.

    Args:
        record: The run's record; it names a code package.
        settings: The settings that the run was started with.
        namespace: Namespace of the run.
        store_url: URL of the bucket with the run's records.
    """
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": flowrun_name(record.flow, record.run),
            "namespace": namespace,
            "labels": labels.run_labels(record.flow, record.run),
            "annotations": labels.run_annotations(record.flow, record.run),
        },
        "spec": {
            "flow": record.flow,
            "run": record.run,
            "code": {"store": store_url, "package": record.package},
            "settings": _settings_document(replace(settings.in_cluster(), endpoint=bucket_servers.inside(settings))),
        },
    }


def environment(spec: Mapping[str, Any], namespace: str) -> dict[str, str]:
    """The environment variables that give the driver the settings that the run was started with."""
    carried = spec.get("settings") or {}
    values = {variable(key): str(carried[camel_case(key)]) for key in CARRIED_SETTINGS if carried.get(camel_case(key))}
    store = str(spec["code"]["store"])
    endpoint = values.pop(variable("endpoint"), None)
    return {
        **values,
        **({bucket_servers.variable(store): endpoint} if endpoint else {}),
        variable("bucket"): roots.bucket_of(store),
        variable("kubernetes_namespace"): namespace,
    }


def bucket_keys(spec: Mapping[str, Any]) -> BucketKeys:
    """The source of the keys of the bucket in pods."""
    credentials = (spec.get("settings") or {}).get("credentials") or "service-account"
    return BucketKeys.of(Settings(credentials=credentials, bucket=roots.bucket_of(str(spec["code"]["store"]))))


def owner_reference(flowrun: Manifest, *, is_controller: bool = False) -> Manifest:
    """The reference that makes a FlowRun the owner of an object, so that Kubernetes deletes the object with it."""
    metadata = flowrun["metadata"]
    reference: Manifest = {"apiVersion": API_VERSION, "kind": KIND, "name": metadata["name"], "uid": metadata["uid"]}
    # Blocking would need the right to update finalizers, and only matters for foreground deletion.
    return {**reference, "controller": is_controller, "blockOwnerDeletion": False}


def phase_of(flowrun: Manifest) -> Phase | None:
    """The phase in its status, or None if no controller has accepted it."""
    text = (flowrun.get("status") or {}).get("phase")
    return Phase(text) if text else None


def message_of(*parts: str) -> str:
    """The parts of a message as lines, first the summary, which ``kubectl get`` shows; cut to the maximum length."""
    text = "\n".join(part.strip() for part in parts if part.strip())
    return text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE - 1]}…"


def timestamp(seconds: float) -> str:
    """Seconds since 1970 in the format of Kubernetes."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def camel_case(key: str) -> str:
    """A setting's name as spelled in a FlowRun."""
    first, *rest = key.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _settings_document(settings: Settings) -> dict[str, str]:
    values = {key: getattr(settings, key) for key in CARRIED_SETTINGS}
    return {camel_case(key): value for key, value in values.items() if value is not None}
