"""The store at a URL, whichever kind it is."""

from __future__ import annotations

from k8sflow.storage.folder import FolderStore
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.patience import Patience


def open_store(
    url: str, *, endpoint: str | None = None, region: str | None = None, patience: Patience | None = None
) -> ObjectStore:
    """The store at a URL: ``s3://bucket/prefix``, or the path of a folder.

    Args:
        url: The URL or path.
        endpoint: URL of the S3 server; None for AWS.
        region: Region of the bucket.
        patience: How long calls wait for a server that can't be reached; half a minute by default.
    """
    if url.startswith("s3://"):
        from k8sflow.storage.s3 import S3Store  # noqa: PLC0415  only a bucket needs boto3, which is slow to load

        return S3Store(url, endpoint=endpoint, region=region, patience=patience)
    return FolderStore(url)
