"""Values and files into objects: small ones in one request each, large ones in parallel parts."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from k8sflow.errors import ObjectNotFoundError, S3Error
from k8sflow.s3.bucket import Bucket
from k8sflow.s3.folder import Folder
from k8sflow.storage.s3_client import PARALLEL_PARTS, PART_BYTES
from k8sflow.storage.s3_parts import least_part_bytes

_LARGE_BYTES = 64 << 20


class Source(NamedTuple):
    """Bytes to write.

    Args:
        size: How many there are.
        read: Returns those from an offset on, of a length.
    """

    size: int
    read: Callable[[int, int], bytes | memoryview]

    @property
    def is_large(self) -> bool:
        """True if they are written in parts."""
        return self.size >= _LARGE_BYTES


def source_of(value: Any, key: str, folder: Callable[[], Folder]) -> Source:
    """The bytes of a text, of bytes, or from the position of an open binary file on.

    Args:
        value: The value.
        key: The object that it is for.
        folder: Where the bytes of a file are kept meanwhile.

    Raises:
        S3Error: It is something else.
    """
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        view = memoryview(value).cast("B")
        return Source(len(view), lambda offset, length: view[offset : offset + length])
    if isinstance(value, io.RawIOBase | io.BufferedIOBase):
        path = folder().new_file(key)
        with Path(path).open("wb") as file:
            shutil.copyfileobj(value, file, 1 << 20)
        return file_source(path, key)
    raise S3Error(
        f"the value for {key!r} is {type(value).__name__}, which S3 can't write: it has no bytes.",
        advice="Give a text, bytes, or a file that is open in binary mode; pickle.dumps makes bytes of an object.",
    )


def file_source(path: Any, key: str) -> Source:
    """The bytes of a file.

    Raises:
        S3Error: It can't be read.
    """
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, io.SEEK_END)
    except (OSError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise S3Error(f"the file {str(path)!r} for {key!r} can't be read: {reason}.") from error

    def read(offset: int, length: int) -> bytes:
        with Path(path).open("rb") as file:
            file.seek(offset)
            found = file.read(length)
        if len(found) != min(length, size - offset):
            raise S3Error(f"the file {str(path)!r} for {key!r} was changed while it was read.")
        return found

    return Source(size, read)


def write(bucket: Bucket, key: str, source: Source, headers: Mapping[str, str], *, overwrite: bool) -> bool:
    """Writes an object.

    Returns:
        False if it exists, and is not to be replaced.
    """
    if not overwrite and _exists(bucket, key):
        return False
    if not source.is_large:
        return bucket.write(key, source.read(0, source.size), headers, is_new=not overwrite)
    upload = bucket.begin_upload(key, headers)
    try:
        is_written = bucket.end_upload(key, upload, _parts(bucket, key, upload, source), is_new=not overwrite)
    except BaseException:
        bucket.abandon_upload(key, upload)
        raise
    if not is_written:
        bucket.abandon_upload(key, upload)
    return is_written


def _parts(bucket: Bucket, key: str, upload: str, source: Source) -> list[str]:
    """Writes the parts; their ETags."""
    part_bytes = max(PART_BYTES, least_part_bytes(source.size))

    def put(number: int) -> str:
        body = source.read((number - 1) * part_bytes, part_bytes)
        return bucket.upload_part(key, upload, number, body)

    with ThreadPoolExecutor(PARALLEL_PARTS) as pool:
        return list(pool.map(put, range(1, -(-source.size // part_bytes) + 1)))


def _exists(bucket: Bucket, key: str) -> bool:
    try:
        bucket.info(key)
    except ObjectNotFoundError:
        return False
    return True
