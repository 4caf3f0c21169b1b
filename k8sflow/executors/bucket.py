"""The bucket of a run whose tasks run elsewhere than on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k8sflow import bucket_servers
from k8sflow.config import Settings
from k8sflow.errors import ConfigurationError
from k8sflow.s3_options import S3Options
from k8sflow.storage.patience import Patience

if TYPE_CHECKING:
    from k8sflow.storage.s3 import S3Store

_BATCH = "AWS Batch"


def open_bucket(settings: Settings, *, first_seconds: float = 0.0, system: str = "Kubernetes") -> S3Store:
    """The bucket of the settings, for a run: it waits for minutes when the bucket can't be reached.

    Args:
        settings: The settings.
        first_seconds: How long it waits for the first answer; by default a wrong endpoint is an error at once.
        system: Where the run's tasks run, for the error.

    Raises:
        ConfigurationError: None is set, or one that tasks on this system have no credentials for.
    """
    from k8sflow.storage.s3 import S3Store  # noqa: PLC0415  boto3 is loaded where a bucket is used

    check_is_set(settings, system)
    url = settings.bucket_url
    assert url is not None, "as was just checked"
    if system == _BATCH and settings.s3_bucket is None:
        raise ConfigurationError(
            f"a run on {system} needs a bucket of S3, and the one that is set is {url}.",
            cause="Jobs have the credentials of an IAM role of AWS, which no other cloud accepts.",
            advice="Give --datastore s3://bucket/prefix, or set K8SFLOW_BUCKET=name for such runs; if --datastore or "
            f"K8SFLOW_DATASTORE names {url}, leave it out.",
        )
    patience = Patience(settings.storage_patience, first_seconds)
    return S3Store(
        url, endpoint=settings.endpoint, region=settings.region, patience=patience, options=S3Options.of(settings)
    )


def check_is_set(settings: Settings, system: str = "Kubernetes") -> None:
    """Refuses settings without a bucket, before any system is asked.

    Args:
        settings: The settings.
        system: Where the run's tasks run, for the error.

    Raises:
        ConfigurationError: None is set.
    """
    if settings.bucket_url is None:
        raise _none(settings, system)


def server_of(settings: Settings, *, in_cluster: bool = False) -> str:
    """The server of the bucket, for people: its URL, or the name of AWS's.

    Args:
        settings: The settings.
        in_cluster: Whether it is that for pods.
    """
    found = (bucket_servers.inside if in_cluster else bucket_servers.outside)(settings)
    return found or bucket_servers.title(settings)


def _none(settings: Settings, system: str) -> ConfigurationError:
    cause = f"Code and artifacts travel between this machine and {system} through a bucket."
    if settings.root:
        return ConfigurationError(
            f"a run on {system} needs a bucket, and none is set: {settings.root} is a folder.",
            cause=cause,
            advice="Give --datastore s3://bucket/prefix (or gs://…, az://…), or set K8SFLOW_BUCKET=name for such runs; "
            f"if --datastore or K8SFLOW_DATASTORE names {settings.root}, leave it out.",
        )
    return ConfigurationError(
        f"a run on {system} needs a bucket, and none is set.",
        cause=cause,
        advice='Set K8SFLOW_BUCKET=name (and K8SFLOW_ENDPOINT where it is not AWS), or write bucket = "name" '
        "into k8sflow.toml beside the flow.",
    )
