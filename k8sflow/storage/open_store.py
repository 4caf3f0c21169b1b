"""The store at a URL: the one function that knows every kind of store."""

from __future__ import annotations

from k8sflow import roots
from k8sflow.config import Settings
from k8sflow.s3_options import S3Options
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.patience import Patience


def store_of(settings: Settings, url: str, patience: Patience | None = None) -> ObjectStore:
    """The store at a URL, by the settings for buckets.

    Args:
        settings: The settings.
        url: As ``open_store`` accepts it.
        patience: How long calls wait for a bucket that can't be reached; half a minute by default.

    Raises:
        ConfigurationError: A setting for buckets can't be used.
    """
    return open_store(
        url,
        endpoint=settings.endpoint,
        region=settings.region,
        patience=patience,
        options=S3Options.of(settings) if roots.is_bucket(url) else None,
    )


def open_store(
    url: str,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    patience: Patience | None = None,
    options: S3Options | None = None,
) -> ObjectStore:
    """The store at a URL: ``s3://bucket/prefix``, the same with ``gs://`` or ``az://``, or the path of a folder.

    Args:
        url: Where the store is.
        endpoint: URL of the S3 server; None for AWS.
        region: Region of the bucket.
        patience: How long calls wait for a server that can't be reached; half a minute by default.
        options: How requests are sent.

    Raises:
        ConfigurationError: It is a URL of another kind.
    """
    if roots.is_bucket(url):
        from k8sflow.storage.s3 import S3Store  # noqa: PLC0415  boto3 is loaded where a bucket is used

        return S3Store(url, endpoint=endpoint, region=region, patience=patience, options=options)
    return FolderStore(roots.checked(url, "the store"))
