"""Metaflow's file of settings, as settings of k8sflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from k8sflow import config
from k8sflow.errors import ConfigurationError

_PREFIX = "METAFLOW_"
# Settings that mean the same, by Metaflow's name.
SAME = {
    "BATCH_CONTAINER_IMAGE": "batch_image",
    "BATCH_JOB_QUEUE": "batch_queue",
    "DEFAULT_CONTAINER_IMAGE": "kubernetes_image",
    "DEFAULT_DECOSPECS": "default_decospecs",
    "DEFAULT_SECRETS_BACKEND_TYPE": "default_secrets_backend_type",
    "ECS_FARGATE_EXECUTION_ROLE": "batch_execution_role",
    "ECS_S3_ACCESS_IAM_ROLE": "batch_job_role",
    "KUBERNETES_ANNOTATIONS": "kubernetes_annotations",
    "KUBERNETES_CONTAINER_IMAGE": "kubernetes_image",
    "KUBERNETES_CPU": "kubernetes_cpu",
    "KUBERNETES_DISK": "kubernetes_disk",
    "KUBERNETES_GPU_VENDOR": "kubernetes_gpu_vendor",
    "KUBERNETES_IMAGE_PULL_POLICY": "kubernetes_image_pull_policy",
    "KUBERNETES_IMAGE_PULL_SECRETS": "kubernetes_image_pull_secrets",
    "KUBERNETES_JOB_TTL_SECONDS_AFTER_FINISHED": "kubernetes_job_ttl_seconds",
    "KUBERNETES_LABELS": "kubernetes_labels",
    "KUBERNETES_MEMORY": "kubernetes_memory",
    "KUBERNETES_NAMESPACE": "kubernetes_namespace",
    "KUBERNETES_NODE_SELECTOR": "kubernetes_node_selector",
    "KUBERNETES_PERSISTENT_VOLUME_CLAIMS": "kubernetes_persistent_volume_claims",
    "KUBERNETES_QOS": "kubernetes_qos",
    "KUBERNETES_SECRETS": "kubernetes_secrets",
    "KUBERNETES_SERVICE_ACCOUNT": "kubernetes_service_account",
    "KUBERNETES_SHARED_MEMORY": "kubernetes_shared_memory",
    "KUBERNETES_TOLERATIONS": "kubernetes_tolerations",
    "S3_ENDPOINT_URL": "endpoint",
}
# Settings whose values are written in another way.
_ENVIRONMENT = "DEFAULT_ENVIRONMENT"
_OTHERWISE = (
    *("DATASTORE_SYSROOT_AZURE", "DATASTORE_SYSROOT_GS", "DATASTORE_SYSROOT_S3", "DEFAULT_DATASTORE"),
    "S3_SERVER_SIDE_ENCRYPTION",
)
# Values that hold here anyway.
_HOLDS = {"DEFAULT_METADATA": "local", "DEFAULT_ENVIRONMENT": "local", "DEFAULT_DATASTORE": "local"}
_SCHEME, _SCHEME_OF_GOOGLE = "s3://", "gs://"


@dataclass(frozen=True)
class Imported:
    """Settings of a file of Metaflow's.

    Args:
        settings: Those of k8sflow.
        left: Those that k8sflow doesn't have, by Metaflow's variable, and why.
    """

    settings: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def default_file(environment: Mapping[str, str]) -> Path:
    """The file that Metaflow reads: ``~/.metaflowconfig/config.json``, or where METAFLOW_HOME and _PROFILE say."""
    profile = environment.get(f"{_PREFIX}PROFILE")
    folder = Path(environment.get(f"{_PREFIX}HOME", "~/.metaflowconfig")).expanduser()
    return folder / (f"config_{profile}.json" if profile else "config.json")


def read(file: Path) -> Imported:
    """The settings in a file of Metaflow's.

    Raises:
        ConfigurationError: It can't be read.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"there is no file {file}.", advice="Name Metaflow's file of settings.") from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} can't be read: {error}.") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{file} is not an object of JSON, as Metaflow's file of settings is.")
    return translated({key: value for key, value in document.items() if value or isinstance(value, int)})


def translated(document: Mapping[str, Any]) -> Imported:
    """Metaflow's settings, by variable, as those of k8sflow."""
    found = Imported()
    for variable, value in sorted(document.items()):  # that for Kubernetes alone is after the default image
        key = variable.removeprefix(_PREFIX)
        if key in SAME and SAME[key] == "endpoint" and "@" in urlsplit(str(value)).netloc:
            found.left[variable] = "its URL contains keys: set the endpoint without them"
        elif key in SAME:
            found.settings[SAME[key]] = value if isinstance(value, str) else json.dumps(value)
        elif key == _ENVIRONMENT and value in config.ENVIRONMENTS:
            if value != _HOLDS[key]:  # where @pypi is refused there, it has its environment here
                found.settings["default_environment"] = value
        elif key == "AZURE_STORAGE_BLOB_SERVICE_ENDPOINT":
            found.left[variable] = "it is the variable AZURE_STORAGE_SERVICE_ENDPOINT, which Azure's tools read too"
        elif key not in _OTHERWISE and _HOLDS.get(key) != value:
            found.left[variable] = "k8sflow has no such setting"
    _take_store(document, found)
    if encryption := document.get(f"{_PREFIX}S3_SERVER_SIDE_ENCRYPTION"):
        found.settings["s3_write_headers"] = f"x-amz-server-side-encryption={encryption}"
    return found


def _take_store(document: Mapping[str, Any], found: Imported) -> None:
    """Adds the bucket, and the root if the default store is one."""
    root = document.get(f"{_PREFIX}DATASTORE_SYSROOT_S3")
    kind = document.get(f"{_PREFIX}DEFAULT_DATASTORE", "local")
    if isinstance(root, str) and root.startswith(_SCHEME):
        found.settings["bucket"] = root.removeprefix(_SCHEME).rstrip("/")
        if kind == "s3":
            found.settings["root"] = root.rstrip("/")
    elif root is not None:
        found.left[f"{_PREFIX}DATASTORE_SYSROOT_S3"] = f"{root!r} is not a URL of S3"
    google = document.get(f"{_PREFIX}DATASTORE_SYSROOT_GS")
    if kind == "gs" and isinstance(google, str) and google.startswith(_SCHEME_OF_GOOGLE):
        found.settings["root"] = google.rstrip("/")
    elif google is not None:
        found.left[f"{_PREFIX}DATASTORE_SYSROOT_GS"] = f"{google!r} is not the URL of the default datastore"
    azure = document.get(f"{_PREFIX}DATASTORE_SYSROOT_AZURE")  # without a scheme: container/prefix
    if kind == "azure" and isinstance(azure, str):
        found.settings["root"] = f"az://{azure.strip('/')}"
    elif azure is not None:
        found.left[f"{_PREFIX}DATASTORE_SYSROOT_AZURE"] = f"{azure!r} is not the container of the default datastore"
    if not isinstance(kind, str) or kind not in {"local", "s3", "gs", "azure"}:
        found.left[f"{_PREFIX}DEFAULT_DATASTORE"] = f"k8sflow keeps runs in folders and buckets, not in {kind!r}"
