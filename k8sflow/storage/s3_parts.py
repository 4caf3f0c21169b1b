"""Writes and reads of a bucket: large objects in parts and ranges, and the errors that need more than a message."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from k8sflow.errors import OutageError, StorageError
from k8sflow.storage.objects import Buffer
from k8sflow.storage.s3_client import RefusedError
from k8sflow.storage.s3_translation import NOT_FOUND, TAKEN

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_MOST_PARTS = 10_000


class LostUploadError(Exception):
    """The server no longer knows an upload: a restart lost it, or it was completed and the answer got lost."""


class ReplacedError(StorageError):
    """The object has another version than the one whose size was read."""


@contextlib.contextmanager
def accepted_write(what: str) -> Iterator[None]:
    """Treats "not found", as versitygw has answered writes for a moment, as an outage: a write creates its key.

    Args:
        what: The beginning of the message: the server and the object.

    Raises:
        OutageError: The answer to the write was "not found".
    """
    try:
        yield
    except RefusedError as error:
        if error.code not in NOT_FOUND:
            raise
        raise OutageError(f"{what}: it answers the write with {error.code}.") from error


@contextlib.contextmanager
def known_upload() -> Iterator[None]:
    """Translates the client's error for an unknown upload.

    Raises:
        LostUploadError: The server doesn't know the upload.
    """
    try:
        yield
    except RefusedError as error:
        if error.code not in {"NoSuchUpload", *NOT_FOUND}:
            raise
        raise LostUploadError(str(error)) from error


@contextlib.contextmanager
def same_version(url: str) -> Iterator[None]:
    """Translates the client's error for another version of an object.

    Args:
        url: The object.

    Raises:
        ReplacedError: The object has another version than the one that was asked for.
    """
    try:
        yield
    except RefusedError as error:
        if error.code not in TAKEN:
            raise
        raise ReplacedError(f"{url} was replaced while it was read: {error}") from error


def least_part_bytes(size: int) -> int:
    """The least size of the parts of an object, in bytes, with which they are not too many."""
    return -(-size // _MOST_PARTS)


def slices(parts: Sequence[Buffer], part_bytes: int) -> Iterator[list[memoryview]]:
    """The parts of an upload, of equal size but for the last one; the buffers are not copied.

    Args:
        parts: The buffers.
        part_bytes: The size of a part.
    """
    held: list[memoryview] = []
    room = part_bytes
    for view in (memoryview(part).cast("B") for part in parts):
        rest = view
        while len(rest) >= room:
            yield [*held, rest[:room]]
            rest, held, room = rest[room:], [], part_bytes
        if len(rest):
            held.append(rest)
            room -= len(rest)
    if held:
        yield held
