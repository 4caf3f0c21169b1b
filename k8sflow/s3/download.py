"""Objects into temporary files: small ones many at a time, large ones one after the other in parallel ranges."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex

from k8sflow.errors import S3Error, S3RangeError, StorageError
from k8sflow.s3.bucket import Bucket
from k8sflow.s3.folder import Folder
from k8sflow.s3.objects import RangeInfo
from k8sflow.s3.urls import Location
from k8sflow.storage.patience import patient
from k8sflow.storage.s3_client import PARALLEL_PARTS, PART_BYTES, Reading, RefusedError

_LARGE_BYTES = 64 << 20
_CHANGED = {"412", "PreconditionFailed"}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class Downloaded:
    """An object in a file.

    Args:
        path: The file; empty as long as the object is large, and its ranges are still to be read.
        size: The number of bytes.
        headers: The headers of the answer.
        range_info: The part of the object.
        folder: The folder of the file.
    """

    path: str
    size: int
    headers: Mapping[str, str]
    range_info: RangeInfo
    folder: Folder

    @property
    def is_complete(self) -> bool:
        """False if its ranges are still to be read."""
        return bool(self.path)


def span_of(offset: int | None, length: int | None) -> str:
    """The header ``Range`` for a part of an object; empty for all of it.

    Raises:
        S3RangeError: There is no such range.
    """
    for number in (offset, length):
        if number is not None and not isinstance(number, SupportsIndex):
            raise S3RangeError(
                f"a range is given in whole bytes, and this is {type(number).__name__}: {number!r:.100}."
            )
    start, is_open = offset or 0, length is None or length < 0
    if length == 0 or (start < 0 and not is_open):
        raise S3RangeError(
            f"a range of {length} bytes from byte {start} on can't be asked for.",
            advice="A range has at least one byte; one that counts from the end of the object has no length.",
        )
    if start < 0:
        return f"bytes={start}"
    if is_open:
        return f"bytes={start}-" if start else ""
    assert length is not None
    return f"bytes={start}-{start + length - 1}"


class Download:
    """Reads objects of a bucket into files of a folder.

    Args:
        bucket: The bucket.
        folder: The folder.
    """

    def __init__(self, bucket: Bucket, folder: Folder) -> None:
        self._bucket = bucket
        self._folder = folder
        self.patience = bucket.patience

    @patient
    def small(self, key: str, span: str) -> Downloaded:
        """An object in a file; if it is large, only the headers are read.

        Raises:
            ObjectNotFoundError: There is no such object.
            S3RangeError: It has none of the bytes.
            S3Error: The file can't be written.
        """
        with self._bucket.translated(key):
            reading = self._bucket.read(key, span)
            part = _part(reading)
            if part is None:
                part = RangeInfo(reading.size, 0, reading.size)
                if not _is_all(span, reading.size):
                    reading.close()
                    raise self._ignored(key, span)
            if reading.size >= _LARGE_BYTES:
                reading.close()
                return Downloaded("", reading.size, reading.headers, part, self._folder)
            with self._file(key, reading.size) as path:
                _save(reading, path, 0)
            return Downloaded(path, reading.size, reading.headers, part, self._folder)

    def large(self, key: str, found: Downloaded) -> Downloaded:
        """A large object in a file."""
        first = found.range_info.request_offset
        with self._file(key, found.size) as path:

            def fetch(position: int) -> None:
                length = min(PART_BYTES, found.size - position)
                span = f"bytes={first + position}-{first + position + length - 1}"
                self._range(key, span, found.headers.get("etag", ""), path, position)

            with ThreadPoolExecutor(PARALLEL_PARTS) as pool:
                list(pool.map(fetch, range(0, found.size, PART_BYTES)))
        return Downloaded(path, found.size, found.headers, found.range_info, self._folder)

    @patient
    def _range(self, key: str, span: str, etag: str, path: str, position: int) -> None:
        with self._bucket.translated(key):
            try:
                reading = self._bucket.read(key, span, etag)
            except RefusedError as error:
                if error.code not in _CHANGED:
                    raise
                url = Location(self._bucket.name, key).url
                raise S3Error(f"{url} was replaced while it was read.", advice="Read it again.") from error
            if _part(reading) is None:
                reading.close()
                raise self._ignored(key, span)
            _save(reading, path, position)

    def _ignored(self, key: str, span: str) -> StorageError:
        return StorageError(
            f"the server ignored the range {span} of {Location(self._bucket.name, key).url}.",
            cause="It answered with all of the object: it, or a proxy in front of it, doesn't support ranges.",
        )

    @contextlib.contextmanager
    def _file(self, key: str, size: int) -> Iterator[str]:
        """A new file, which is deleted if it can't be filled."""
        try:
            path = self._folder.new_file(key)
            try:
                yield path
            except BaseException:
                Path(path).unlink(missing_ok=True)
                raise
        except OSError as error:
            url = Location(self._bucket.name, key).url
            raise S3Error(
                f"{url}, of {size} bytes, can't be written to {self._folder.path}: {error.strerror or error}.",
                advice="Name a folder with more space: S3(tmproot='/path').",
            ) from error


def _save(reading: Reading, path: str, position: int) -> None:
    """Writes what is read to a file, from a position on."""
    with Path(path).open("r+b", buffering=0) as file, contextlib.closing(reading.pieces()) as pieces:
        file.seek(position)
        for piece in pieces:
            written = 0
            while written < len(piece):
                written += file.write(piece[written:])


def _part(reading: Reading) -> RangeInfo | None:
    """The part of the object that the answer has; None if it is an answer with all of it."""
    if found := _CONTENT_RANGE.fullmatch(reading.headers.get("content-range", "")):
        return RangeInfo(int(found[3]), int(found[1]), reading.size)
    return None


def _is_all(span: str, size: int) -> bool:
    """True if a range, as in the header ``Range``, is all of an object of this size."""
    first, _, last = span.removeprefix("bytes=").partition("-")
    if not span or not size:
        return True
    if not first:
        return size <= int(last)
    return int(first) == 0 and (not last or size <= int(last) + 1)
