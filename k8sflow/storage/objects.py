"""Object stores: a folder or an S3 bucket behind one small interface (invariants I1 and I3).

Objects appear whole or not at all, and ``put_new`` lets exactly one writer win.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from k8sflow.outages import Report

# Bytes in any form that the standard library accepts; typing has a name for it from Python 3.12 on.
Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True)
class ObjectInfo:
    """An object in a listing.

    Args:
        key: Its key.
        size: Its length in bytes.
        age: The seconds since it was last written, by the store's clock.
    """

    key: str
    size: int
    age: float


class LogWriter(Protocol):
    """Writes an object that grows; readers may see it before it is closed."""

    def write(self, data: bytes) -> None:
        """Appends bytes; the first write creates the object, even if it writes no bytes."""

    def flush(self) -> None:
        """Writes what is held back, unless that was done a moment ago; to be called while nothing is written."""

    def close(self) -> None:
        """Writes what is held back, and frees the writer's resources."""

    @property
    def missing(self) -> int:
        """The number of written bytes that readers can't see yet."""


class ObjectStore(Protocol):
    """Objects of at least one byte, under keys. A key is a relative path with forward slashes."""

    # The number of parallel reads that is worthwhile: one if a read is a system call, many if it is a round trip.
    parallel_reads: int
    # Whether other machines and other people's runs use the store too.
    is_shared: bool
    # How long a reader that follows a run waits before it looks for new objects again.
    poll_seconds: float

    @property
    def folder(self) -> Path | None:
        """The folder whose files are the objects; None where they are not files of this machine."""

    @property
    def url(self) -> str:
        """The store's URL or path, as ``open_store`` accepts it."""

    def get(self, key: str) -> Buffer:
        """The object's bytes, memory-mapped and private if the store supports it.

        Raises:
            ObjectNotFoundError: There is no such object.
            StorageError: The store can't be reached, or refused the request.
        """

    def tail(self, key: str, start: int, most: int | None = None) -> bytes:
        """The bytes of an object or a log from an offset on; empty if there are no more, or no object.

        Args:
            key: Its key.
            start: The offset.
            most: The largest number of bytes to return; None for all.
        """

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Writes the parts, joined, as the object; replaces an older one under the key."""

    def put_new(self, key: str, data: bytes) -> bool:
        """Writes the object unless the key is taken; returns True if this call wrote it."""

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes objects; one that doesn't exist is not an error.

        Raises:
            ConfigurationError: The keys of the store don't allow it.
            StorageError: The store can't be reached, or refused the request.
        """

    def exists(self, key: str, size: int | None = None) -> bool:
        """True if there is an object under the key, and it has the size, if one is given."""

    def age(self, key: str, size: int) -> float | None:
        """Seconds since an object was last written, by the store's clock; None if there is none of this size."""

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects with a prefix, which ends with a slash, in ascending order of their keys."""

    def list_keys(self, prefix: str) -> Iterator[str]:
        """All keys with a prefix, which ends with a slash, in ascending order."""

    def list_folders(self, prefix: str) -> Iterator[str]:
        """The names directly below a prefix (empty, or with a slash at the end) that have keys below them."""

    def open_log(self, key: str) -> LogWriter:
        """A writer for an object that grows."""

    def after_fork(self) -> ObjectStore:
        """The same store for a forked process, which can't share the parent's connections."""

    def report_outages(self, report: Report) -> None:
        """Sets the function to call when a call waits for the server, and when the server answers again."""

    def limit_patience(self, seconds: float) -> None:
        """Limits how long all calls together wait for an unreachable server, because this process is about to end."""

    def close(self) -> None:
        """Closes the connections."""
