"""The bucket of a run whose tasks run elsewhere than on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k8sflow.config import Settings
from k8sflow.errors import ConfigurationError
from k8sflow.roots import is_bucket
from k8sflow.s3_options import S3Options
from k8sflow.storage.patience import Patience

if TYPE_CHECKING:
    from k8sflow.storage.s3 import S3Store


def open_bucket(settings: Settings, *, first_seconds: float = 0.0, system: str = "Kubernetes") -> S3Store:
    """The bucket of the settings, for a run: it waits for minutes when the bucket can't be reached.

    Args:
        settings: The settings.
        first_seconds: How long it waits for the first answer; by default a wrong endpoint is an error at once.
        system: Where the run's tasks run, for the error.

    Raises:
        ConfigurationError: None is set.
    """
    from k8sflow.storage.s3 import S3Store  # noqa: PLC0415  boto3 is loaded where a bucket is used

    if not settings.bucket and settings.root:
        raise ConfigurationError(
            f"a run on {system} needs a bucket of S3, and none is set: {settings.root} is "
            + ("a bucket of another kind." if is_bucket(settings.root) else "a folder."),
            cause=f"Code and artifacts travel between this machine and {system} through S3-compatible storage.",
            advice="Give --datastore s3://bucket/prefix, or set K8SFLOW_BUCKET=name for such runs; if --datastore or "
            f"K8SFLOW_DATASTORE names {settings.root}, leave it out.",
        )
    if not settings.bucket:
        raise ConfigurationError(
            f"a run on {system} needs a bucket, and none is set.",
            cause=f"Code and artifacts travel between this machine and {system} through S3-compatible storage.",
            advice='Set K8SFLOW_BUCKET=name (and K8SFLOW_ENDPOINT where it is not AWS), or write bucket = "name" '
            "into k8sflow.toml beside the flow.",
        )
    patience = Patience(settings.storage_patience, first_seconds)
    return S3Store(
        f"s3://{settings.bucket}",
        endpoint=settings.endpoint,
        region=settings.region,
        patience=patience,
        options=S3Options.of(settings),
    )
