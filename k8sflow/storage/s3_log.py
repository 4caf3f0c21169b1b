"""A log in a bucket, whose objects can't grow: objects of a fixed size, of which only the last is written again.

The object ``KEY`` has the first bytes, ``KEY.1`` the next ones, and so on. So a writer holds little in memory, however
much there is to store, and a reader finds the object of an offset by a division.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from k8sflow.storage.objects import Buffer

PART_BYTES = 4 << 20
_FIRST_PAUSE_SECONDS = 1.0
# What a pod has written longer ago is in the bucket, also if its node is lost.
_LONGEST_PAUSE_SECONDS = 4.0


class Writer(Protocol):
    """The store of the log's objects."""

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Writes an object."""


class S3Log:
    """A log whose last object is rewritten at growing intervals.

    The content is kept as immutable pieces, which a failed write, or one in progress in another thread, may hold on to.

    Args:
        store: The store.
        key: The first object's key.
    """

    def __init__(self, store: Writer, key: str) -> None:
        self._store = store
        self._key = key
        self._part = 0
        self._pieces: list[bytes] = []
        self._size = 0
        self._written = -1
        self._is_started = False
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._next_write = 0.0

    def write(self, data: bytes) -> None:
        """Appends bytes, and writes them if there are enough for an object, or the last write was long enough ago."""
        self._is_started = True
        self._pieces.append(bytes(data))
        self._size += len(data)
        self.flush()

    def flush(self) -> None:
        """Writes what was not written yet, if the last write was long enough ago."""
        is_due = time.monotonic() >= self._next_write
        if self._is_started and (is_due or self._size >= PART_BYTES):
            if is_due:
                self._pause_seconds = min(self._pause_seconds * 1.5, _LONGEST_PAUSE_SECONDS)
                self._next_write = time.monotonic() + self._pause_seconds
            self._put(whole_parts_only=not is_due)

    def close(self) -> None:
        """Writes what is missing."""
        if self._is_started:
            self._put(whole_parts_only=False)

    def _put(self, *, whole_parts_only: bool) -> None:
        content = b"".join(self._pieces)
        self._pieces = [content]
        while self._size >= PART_BYTES:
            self._store.put(part_key(self._key, self._part), [content[:PART_BYTES]])
            content = content[PART_BYTES:]
            self._pieces, self._size = [content], len(content)
            self._part, self._written = self._part + 1, 0
        if self._size > self._written and not whole_parts_only:
            self._store.put(part_key(self._key, self._part), [content])
            self._written = self._size

    @property
    def missing(self) -> int:
        """The number of bytes that are not in the bucket yet."""
        return self._size - max(self._written, 0)


def part_key(key: str, part: int) -> str:
    """The key of one of a log's objects."""
    return f"{key}.{part}" if part else key


def read_log(read: Callable[[str, int, int | None], bytes], key: str, start: int, most: int | None = None) -> bytes:
    """A log's bytes from an offset on.

    Args:
        read: Reads an object from an offset on, at most a number of bytes; empty if there is no object, or no more.
        key: The first object's key.
        start: The offset.
        most: The largest number of bytes to return, at least 1; None for all.
    """
    part, offset = divmod(start, PART_BYTES)
    found: list[bytes] = []
    while True:
        data = read(part_key(key, part), offset, most)
        found.append(data)
        most = None if most is None else most - len(data)
        if offset + len(data) < PART_BYTES or most == 0:
            return b"".join(found)
        part, offset = part + 1, 0


def append_to_parts(
    put: Callable[[str, Sequence[Buffer]], None], tail: Callable[[str, int], bytes], key: str, size: int, data: bytes
) -> None:
    """Adds to a log whose writer is dead.

    Args:
        put: Writes an object.
        tail: Reads the log from an offset on.
        key: The first object's key.
        size: The log's size so far.
        data: What is added.
    """
    part, offset = divmod(size, PART_BYTES)
    content = tail(key, part * PART_BYTES)[:offset] + data
    for start in range(0, len(content), PART_BYTES):
        put(part_key(key, part), [content[start : start + PART_BYTES]])
        part += 1
