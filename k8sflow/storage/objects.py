"""Object stores: a folder or an S3 bucket behind one small interface (invariants I1 and I3).

Objects appear whole or not at all, and ``put_new`` lets exactly one writer win.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol, TypeAlias

from k8sflow.errors import StorageError
from k8sflow.storage.patience import Report

# What the standard library takes as bytes; typing has a name for it from Python 3.12 on.
Buffer: TypeAlias = bytes | bytearray | memoryview
ReadableFile: TypeAlias = BinaryIO | io.RawIOBase


class ObjectNotFoundError(StorageError):
    """There is no object under the key."""


class LogWriter(Protocol):
    """An object that grows while it is written; readers may see it before it is closed."""

    def write(self, data: bytes) -> None:
        """Adds bytes at the end; the first write makes the object, even one of no bytes."""

    def flush(self) -> None:
        """Lets readers see what was written so far."""

    def close(self) -> None:
        """Flushes, and gives back what the writer holds."""

    @property
    def missing(self) -> int:
        """How many of the bytes that were added no reader can see yet."""


class ObjectStore(Protocol):
    """Bytes under keys, one at least. A key is a relative path with forward slashes."""

    # How many reads at once pay off: one where each is a system call, many where each is a round trip.
    parallel_reads: int

    @property
    def url(self) -> str:
        """Where the store is, in the form that ``open_store`` accepts."""

    def get(self, key: str) -> Buffer:
        """The object's bytes, memory-mapped and private where the store can do it.

        Raises:
            ObjectNotFoundError: There is none.
            StorageError: The store can't be reached, or refused.
        """

    def tail(self, key: str, start: int) -> bytes:
        """The object's bytes from an offset on; none where there are no more, or no object."""

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Writes the object as the parts one after the other; an older one under the key is replaced."""

    def put_new(self, key: str, data: bytes) -> bool:
        """Writes the object if there is none under the key; whether this call wrote it."""

    def put_file(self, key: str, file: ReadableFile) -> None:
        """Writes the object from a file of any size, from its start."""

    def exists(self, key: str, size: int | None = None) -> bool:
        """Whether there is an object under the key, and of that size if one is given."""

    def list_keys(self, prefix: str) -> Iterator[str]:
        """All keys that begin with the prefix, which ends with a slash, in ascending order."""

    def list_folders(self, prefix: str) -> Iterator[str]:
        """The names directly below the prefix, which ends with a slash or is empty, that have keys below them."""

    def open_log(self, key: str) -> LogWriter:
        """A writer for an object that grows."""

    def after_fork(self) -> ObjectStore:
        """The same store for a forked process, which can't share its parent's connections."""

    def report_outages(self, report: Report) -> None:
        """Sets the function that is called when a call waits for the server, and when the server answers again."""

    def limit_patience(self, seconds: float) -> None:
        """Lets no call wait longer for a server that can't be reached, as its user is about to leave."""

    def close(self) -> None:
        """Gives back connections."""
