"""An object store in a bucket: of S3, or of Google or Azure, whose clients answer as S3 does."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import mmap
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from k8sflow.debug_log import DebugLog
from k8sflow.errors import AccessError, K8sflowError, OutageError, StorageError
from k8sflow.outages import Report
from k8sflow.s3_options import S3Options
from k8sflow.storage import clouds
from k8sflow.storage.objects import Buffer, ObjectInfo
from k8sflow.storage.patience import Patience, drop_frames, patient
from k8sflow.storage.s3_client import (
    PARALLEL_PARTS,
    PART_BYTES,
    NoAnswerError,
    NoKeysError,
    Page,
    RefusedError,
    StoreClient,
)
from k8sflow.storage.s3_http import plain_client
from k8sflow.storage.s3_log import S3Log, read_log
from k8sflow.storage.s3_parts import (
    LostUploadError,
    ReplacedError,
    accepted_write,
    known_upload,
    least_part_bytes,
    same_version,
    slices,
)
from k8sflow.storage.s3_translation import NO_SUCH_RANGE, NOT_FOUND, TAKEN, UNDECIDED, Translation

_log = DebugLog(__name__)
_MULTIPART_FROM_BYTES = 64 << 20
_TRIES, _REPLACED_TRIES = 8, 3
_PART_PAUSES_SECONDS = (0.3, 1.0)
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
_MOST_DELETED = 1000
_Result = TypeVar("_Result")


class S3Store:
    """Objects in a bucket; calls wait while the server can't be reached.

    Args:
        url: ``s3://bucket`` or ``s3://bucket/prefix``, or the same with ``gs://`` or ``az://``.
        endpoint: URL of the server of S3; None for AWS.
        region: Region of the bucket.
        patience: How long calls wait for the server.
        options: How requests are sent; None for the defaults.
    """

    parallel_reads = 32
    is_shared = True
    poll_seconds = 2.0
    folder = None

    def __init__(
        self,
        url: str,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        patience: Patience | None = None,
        options: S3Options | None = None,
    ) -> None:
        self.scheme, _, path = url.partition("://")
        self.bucket, _, prefix = path.strip("/").partition("/")
        self.prefix = f"{prefix}/" if prefix else ""
        self.endpoint = endpoint = clouds.endpoint_of(self.scheme, endpoint)
        self.region = region
        self._server = endpoint or "AWS S3"
        self._patience = patience or Patience()
        self.options = options or S3Options()
        self._opened = _client(self.bucket, endpoint, region, self.options, self.scheme)
        self._translation = Translation(self.bucket, endpoint, clouds.HINTS[self.scheme])
        self._process = os.getpid()
        _log.debug("Opened %s at %s.", self.url, endpoint or "AWS S3")

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``, or with ``gs://`` or ``az://``."""
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def patience(self) -> Patience:
        """The patience with the server: how long calls wait for it."""
        self._renew_after_fork()
        return self._patience

    @property
    def _client(self) -> StoreClient:
        self._renew_after_fork()
        return self._opened

    def _renew_after_fork(self) -> None:
        """Gives a fork, such as a worker of parallel_map, a client and locks of its own.

        The parent uses the connections, and another thread of it may have held a lock at the moment of the fork.
        """
        if self._process != os.getpid():
            self._patience = self._patience.after_fork()
            self._opened = _client(self.bucket, self.endpoint, self.region, self.options, self.scheme)
            self._process = os.getpid()

    def __reduce__(self) -> tuple[Callable[[], S3Store], tuple[()]]:
        """Pickles the address only: connections and credentials belong to their process."""
        arguments: Any = {"endpoint": self.endpoint, "region": self.region, "options": self.options}
        return functools.partial(S3Store, self.url, **arguments), ()

    def get(self, key: str) -> Buffer:
        """The object's bytes; large ones are read in parallel ranges."""
        for _ in range(_REPLACED_TRIES):
            found = self._read(key)
            if isinstance(found, bytearray):
                return found
            with contextlib.suppress(ReplacedError):  # another task may have written the same content again
                return self._get_ranges(key, *found)
        raise StorageError(f"{self.url}/{key} was replaced {_REPLACED_TRIES} times while it was read.")

    @patient
    def _read(self, key: str) -> bytearray | tuple[int, str]:
        """The bytes of a small object; the size and the ETag of a large one."""
        with self._translated(key):
            found = self._client.read(self.prefix + key)
            if found.size >= _MULTIPART_FROM_BYTES:
                found.close()
                return found.size, found.etag
            content = bytearray(found.size)
            found.read_into(memoryview(content))
            return content

    def tail(self, key: str, start: int, most: int | None = None) -> bytes:
        """The log's bytes from an offset on, by a range request for each object."""
        return read_log(self._rest, key, start, most)

    @patient
    def _rest(self, key: str, start: int, most: int | None) -> bytes:
        """The object's bytes from an offset on."""
        last = "" if most is None else start + most - 1
        with self._translated(key):
            try:
                found = self._client.read(self.prefix + key, f"bytes={start}-{last}")
            except RefusedError as error:
                if error.code in NOT_FOUND | NO_SUCH_RANGE:
                    return b""
                raise
            content = bytearray(found.size)
            found.read_into(memoryview(content))
            return bytes(content)

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Writes the object; a large one in parallel parts."""
        size = sum(len(memoryview(part).cast("B")) for part in parts)
        if size < _MULTIPART_FROM_BYTES:
            self._write(key, b"".join(parts))
            return
        for _ in range(_TRIES):
            try:
                self._upload(key, slices(parts, max(PART_BYTES, least_part_bytes(size))))
            except LostUploadError as error:
                _log.debug("%s/%s: an upload was lost: %s", self.url, key, error)
                drop_frames(error)
                gc.collect()  # botocore's errors may still refer to the parts, which their owner may want to resize
                lost = str(error)
            else:
                return
        raise OutageError(f"{self._server} has lost {_TRIES} uploads of {self.url}/{key} in a row.", cause=lost)

    @patient
    def _write(self, key: str, content: bytes) -> None:
        with self._translated(key), self._write_accepted(key):
            self._client.write(self.prefix + key, content)

    def _upload(self, key: str, parts: Iterator[list[memoryview]]) -> None:
        """Writes an object in parts, each of which is tried again by itself.

        Raises:
            LostUploadError: The server doesn't know the upload any more.
        """
        upload = self._begin_upload(key)
        try:
            with ThreadPoolExecutor(PARALLEL_PARTS) as pool:
                write = functools.partial(self._upload_part, key, upload)
                etags = list(pool.map(write, itertools.count(1), parts))
            self._end_upload(key, upload, etags)
        except BaseException:
            with contextlib.suppress(RefusedError, NoAnswerError, NoKeysError, K8sflowError, ValueError):
                self._client.abandon_upload(self.prefix + key, upload)
            raise

    @patient
    def _begin_upload(self, key: str) -> str:
        with self._translated(key), self._write_accepted(key):
            return self._client.begin_upload(self.prefix + key)

    def _upload_part(self, key: str, upload: str, number: int, part: Sequence[Buffer]) -> str:
        """Writes a part; it doesn't wait long: many servers break the connection if they don't know the upload."""
        pauses = iter(_PART_PAUSES_SECONDS)
        while True:
            started = time.monotonic()
            try:
                with self._translated(key), known_upload():
                    etag = self._client.upload_part(self.prefix + key, upload, number, part)
            except (OutageError, AccessError) as error:
                drop_frames(error)
                if isinstance(error, OutageError):
                    self.patience.failed(error, time.monotonic() - started)
                if (pause := next(pauses, None)) is None:
                    if isinstance(error, AccessError):
                        raise
                    raise LostUploadError(str(error)) from None
                _log.debug("%s/%s, part %d: %s. Retrying in %.1f s.", self.url, key, number, error, pause)
                time.sleep(pause)
            else:
                self.patience.answered()
                return etag

    @patient
    def _end_upload(self, key: str, upload: str, etags: Sequence[str]) -> None:
        with self._translated(key), known_upload():
            self._client.end_upload(self.prefix + key, upload, etags)

    @patient
    def put_new(self, key: str, data: bytes) -> bool:
        """Writes the object with ``If-None-Match: *``
        (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).
        """  # noqa: D205
        with self._translated(key), self._write_accepted(key):
            for pause_seconds in (0.02 * 1.6**i for i in range(_TRIES)):
                try:
                    self._client.write(self.prefix + key, data, is_new=True)
                except RefusedError as error:
                    if error.code in TAKEN:
                        return False
                    if error.code not in UNDECIDED:
                        raise
                    refused = error
                    _log.debug("%s/%s: %s. Retrying in %.2f s.", self.url, key, error.code, pause_seconds)
                else:
                    return True
                time.sleep(pause_seconds)
            raise refused

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes objects, in batches of 1000."""
        for start in range(0, len(keys), _MOST_DELETED):
            self._delete(keys[start : start + _MOST_DELETED])

    @patient
    def _delete(self, keys: Sequence[str]) -> None:
        with self._translated(keys[0]):
            code = self._client.delete([self.prefix + key for key in keys])
        if code:
            raise StorageError(
                f"{self._server} refused to delete {self.url}/{keys[0]} ({code}).",
                advice="Allow s3:DeleteObject below the bucket's prefix." if code == "AccessDenied" else "",
            )

    @patient
    def exists(self, key: str, size: int | None = None) -> bool:
        with self._translated(key):
            try:
                return size in {None, self._client.size(self.prefix + key)}
            except RefusedError as error:
                if error.code in NOT_FOUND:
                    return False
                raise

    @patient
    def age(self, key: str, size: int) -> float | None:
        """Seconds since the object was last written, by the server's clock; None if there is none of this size."""
        with self._translated(key):
            try:
                found = self._client.status(self.prefix + key)
            except RefusedError as error:
                if error.code in NOT_FOUND:
                    return None
                raise
        return found.age if found.size == size else None

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects below a prefix, in pages of 1000."""
        for page in self._pages(prefix, ""):
            for key, status in zip(page.keys, page.statuses, strict=True):
                yield ObjectInfo(key.removeprefix(self.prefix), status.size, status.age)

    def list_keys(self, prefix: str) -> Iterator[str]:
        """All keys below a prefix, in pages of 1000."""
        for page in self._pages(prefix, ""):
            for key in page.keys:
                yield key.removeprefix(self.prefix)

    def list_folders(self, prefix: str) -> Iterator[str]:
        """The common prefixes directly below a prefix."""
        for page in self._pages(prefix, "/"):
            for found in page.prefixes:
                yield found.rstrip("/").rpartition("/")[2]

    @patient
    def request(self, key: str, call: Callable[[StoreClient, str], _Result]) -> _Result:
        """Calls a function with the client and the key in the bucket; its errors are those of the store."""
        with self._translated(key):
            return call(self._client, self.prefix + key)

    def open_log(self, key: str) -> S3Log:
        """A log that is written again as it grows."""
        return S3Log(self, key)

    def after_fork(self) -> S3Store:
        """A store with connections of its own."""
        return S3Store(
            self.url,
            endpoint=self.endpoint,
            region=self.region,
            patience=self._patience.after_fork(),
            options=self.options,
        )

    def report_outages(self, report: Report) -> None:
        self.patience.outage.report = report

    def limit_patience(self, seconds: float) -> None:
        """Limits how long all calls together wait for the server from now on."""
        self.patience.limit(seconds)

    def close(self) -> None:
        self._opened.close()

    @patient
    def check(self) -> None:
        """Checks that the bucket exists and may be read.

        Raises:
            ConfigurationError: It doesn't exist, or the keys are wrong or missing.
            StorageError: The server can't be reached.
        """
        with self._translated(""):
            self._client.page(self.prefix, most=1)

    def _pages(self, prefix: str, delimiter: str) -> Iterator[Page]:
        page = self._page(prefix, delimiter)
        yield page
        while page.next_token:
            page = self._page(prefix, delimiter, page.next_token)
            yield page

    @patient
    def _page(self, prefix: str, delimiter: str, token: str = "") -> Page:
        with self._translated(prefix):
            return self._client.page(self.prefix + prefix, delimiter, token)

    def _get_ranges(self, key: str, size: int, etag: str) -> Buffer:
        # A mapping of its own, so that decompression can free it page by page; a fork doesn't share it.
        target = memoryview(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

        def fetch(start: int) -> None:
            self._read_range(key, start, etag, target[start : start + PART_BYTES])

        with ThreadPoolExecutor(PARALLEL_PARTS) as pool:
            list(pool.map(fetch, range(0, size, PART_BYTES)))
        return target

    @patient
    def _read_range(self, key: str, start: int, etag: str, target: memoryview) -> None:
        with self._translated(key):
            span = f"bytes={start}-{start + len(target) - 1}"
            with same_version(f"{self.url}/{key}"):
                self._client.read(self.prefix + key, span, etag).read_into(target)

    def _write_accepted(self, key: str) -> AbstractContextManager[None]:
        return accepted_write(f"{self._server} can't be used for {self.url}/{key}")

    def _translated(self, key: str) -> AbstractContextManager[None]:
        """Translates the client's errors into k8sflow's."""
        return self._translation.of(self._client, f"{self.url}/{key}".rstrip("/"))


def _client(bucket: str, endpoint: str | None, region: str | None, options: S3Options, scheme: str) -> StoreClient:
    """The simplest client for a bucket."""
    if scheme != "s3":
        return clouds.client(scheme, bucket, endpoint or "", S3Store.parallel_reads, options)
    if client := plain_client(bucket, endpoint, region, S3Store.parallel_reads, os.environ, options):
        return client
    from k8sflow.storage.s3_boto import BotoClient  # noqa: PLC0415  boto3 is loaded where it is needed

    return BotoClient(bucket, endpoint, region, S3Store.parallel_reads, options)
