"""Uploads in parts to S3 that nobody ended, since their writers died: no listing of objects shows them, and they cost.

Azure deletes blocks of that kind by itself after a week; parts in Google Cloud Storage are objects (storage/sweep.py).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from k8sflow.errors import AccessError, ConfigurationError, OutageError, StorageError
from k8sflow.storage import layout
from k8sflow.storage.condemned import GRACE_SECONDS
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.s3_parts import LostUploadError, known_upload

if TYPE_CHECKING:
    from k8sflow.storage.s3 import S3Store
    from k8sflow.storage.s3_client import StoreClient, Upload
    from k8sflow.storage.sweep import Collected


def end_stale_uploads(store: ObjectStore, found: Collected, *, is_dry_run: bool) -> None:
    """Deletes the parts of uploads that were started more than a day ago, of objects of k8sflow.

    Args:
        store: The store.
        found: Where it counts what it deletes; it has the flow.
        is_dry_run: True to delete nothing.

    Raises:
        StorageError: The store can't be reached.
    """
    from k8sflow.storage.s3 import S3Store  # noqa: PLC0415  only where there is a bucket

    if isinstance(store, S3Store):
        try:
            _end_stale(store, found, is_dry_run=is_dry_run)
        except OutageError:
            raise
        except AccessError as error:  # few policies allow it
            found.needed["unfinished uploads"] = f"{error.summary} s3:ListBucketMultipartUploads allows to list them"
        except (ConfigurationError, StorageError) as error:  # some servers lack it
            found.needed["unfinished uploads"] = f"the server doesn't list them: {error.summary}"


def _end_stale(store: S3Store, found: Collected, *, is_dry_run: bool) -> None:
    token: str | None = ""
    while token is not None:
        page, token = store.request(f"{found.flow}/", functools.partial(_page, token=token))
        for upload in page:
            key = upload.key.removeprefix(store.prefix)
            if upload.age > GRACE_SECONDS and (layout.is_blob(key) or layout.is_of_run(key)):
                size = store.request(key, functools.partial(_end, upload=upload.name, is_dry_run=is_dry_run))
                found.uploads += size is not None
                found.upload_bytes += size or 0


def _page(client: StoreClient, prefix: str, token: str) -> tuple[Sequence[Upload], str | None]:
    return client.uploads(prefix, token)


def _end(client: StoreClient, key: str, upload: str, *, is_dry_run: bool) -> int | None:
    """Deletes the parts of an upload; their size, or None if it was ended meanwhile."""
    with contextlib.suppress(LostUploadError), known_upload():
        size = client.upload_size(key, upload)
        if not is_dry_run:
            client.abandon_upload(key, upload)
        return size
    return None
