"""The settings that flows read from ``metaflow.metaflow_config``, as k8sflow has them.

They are read when they are asked for: in the folder of the flow's file, or else in the working folder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from k8sflow import config, roots
from k8sflow.config import Settings
from k8sflow.storage.local_folder import root_for_runs
from k8sflow.user import current_user


def _bucket(settings: Settings) -> str | None:
    return None if settings.s3_bucket is None else f"s3://{settings.s3_bucket}"


def _data(settings: Settings) -> str | None:
    return None if settings.s3_bucket is None else f"s3://{settings.s3_bucket}/data"


def _local(settings: Settings) -> str | None:
    folder = config.working_folder()
    in_bucket = roots.is_bucket(settings.root or "")
    return None if folder is None or in_bucket else root_for_runs(settings, folder, folder)


def _google(settings: Settings) -> str | None:
    return settings.root if roots.kind_of(settings.root or "") == "gs" else None


def _azure(settings: Settings) -> str | None:
    root = settings.root or ""
    return root.removeprefix("az://") if roots.kind_of(root) == "azure" else None


_VALUES: dict[str, Callable[[Settings], Any]] = {
    "BATCH_CONTAINER_IMAGE": lambda settings: settings.batch_image,
    "BATCH_JOB_QUEUE": lambda settings: settings.batch_queue,
    "DATASTORE_LOCAL_DIR": lambda _: config.ROOT_NAME,
    "DATASTORE_SYSROOT_AZURE": _azure,
    "DATASTORE_SYSROOT_GS": _google,
    "DATASTORE_SYSROOT_LOCAL": _local,
    "DATASTORE_SYSROOT_S3": _bucket,
    "DATATOOLS_S3ROOT": _data,
    "DEFAULT_DATASTORE": lambda settings: roots.kind_of(settings.root or ""),
    "DEFAULT_ENVIRONMENT": lambda settings: settings.default_environment or "local",
    "DEFAULT_METADATA": lambda _: "local",
    "DEFAULT_SECRETS_BACKEND_TYPE": lambda settings: settings.default_secrets_backend_type,
    "ECS_FARGATE_EXECUTION_ROLE": lambda settings: settings.batch_execution_role,
    "ECS_S3_ACCESS_IAM_ROLE": lambda settings: settings.batch_job_role,
    "KUBERNETES_CONTAINER_IMAGE": lambda settings: settings.kubernetes_image,
    "KUBERNETES_NAMESPACE": lambda settings: settings.kubernetes_namespace,
    "KUBERNETES_SERVICE_ACCOUNT": lambda settings: settings.kubernetes_service_account,
    "S3_ENDPOINT_URL": lambda settings: settings.endpoint,
    "UI_URL": lambda _: None,  # as where no Metaflow UI is deployed
    "USER": lambda _: current_user(),
}
__all__ = sorted(_VALUES)  # noqa: PLE0605  each is computed by __getattr__


def _settings() -> Settings:
    file = Path(getattr(sys.modules.get("__main__"), "__file__", None) or "")
    is_flow = file.suffix == ".py" and file.name != "__main__.py"  # that of `python -m tool`
    return config.load(file.absolute().parent) if is_flow else config.load_here()


def __getattr__(name: str) -> Any:
    if name in _VALUES:
        return _VALUES[name](_settings())
    if name.isupper():
        raise ImportError(
            f"k8sflow has no setting {name} of metaflow_config. It has {', '.join(__all__)}; `k8sflow config show` "
            "prints all settings of k8sflow.",
            name=__name__,
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
