"""A log in a bucket, whose objects can't grow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from k8sflow.storage.objects import Buffer

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0


class Writer(Protocol):
    """The store of the log's object."""

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Writes the object."""


class S3Log:
    """A log whose object is rewritten as a whole, at growing intervals.

    The content is kept as immutable pieces, which a failed write, or one in progress in another thread, may hold on to.

    Args:
        store: The store.
        key: The object's key.
    """

    def __init__(self, store: Writer, key: str) -> None:
        self._store = store
        self._key = key
        self._pieces: list[bytes] = []
        self._size = 0
        self._written = -1
        self._is_started = False
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._next_write = 0.0

    def write(self, data: bytes) -> None:
        """Appends bytes, and writes the object if the last write was long enough ago."""
        self._is_started = True
        self._pieces.append(bytes(data))
        self._size += len(data)
        if time.monotonic() >= self._next_write:
            self._pause_seconds = min(self._pause_seconds * 1.5, _LONGEST_PAUSE_SECONDS)
            self._next_write = time.monotonic() + self._pause_seconds
            self._flush()

    def _flush(self) -> None:
        """Writes the object if it has grown."""
        if self._is_started and self._size > self._written:
            content, size = b"".join(self._pieces), self._size
            self._pieces = [content]
            self._store.put(self._key, [content])
            self._written = size

    def close(self) -> None:
        """Writes what is missing."""
        self._flush()

    @property
    def missing(self) -> int:
        """The number of bytes that are not in the bucket yet."""
        return self._size - max(self._written, 0)
