"""The times of a task's output: marks in an object beside each log, which give the time of every line.

A mark is a line ``offset milliseconds``: the bytes from this offset on were written at this time, since 1970.
"""

from __future__ import annotations

import bisect
import io
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from k8sflow.storage.objects import LogWriter, ObjectStore
from k8sflow.storage.s3_log import append_to_parts

SUFFIX = ".times"
# Writes closer together than this share a mark, so that a chatty task makes at most 100 marks a second.
_RESOLUTION_SECONDS = 0.01
# The last bytes of a log that is longer than its limit, where a failure is explained.
_END_BYTES = 64 << 10
# By so many bytes at its end, the stored beginning of a log is found in the rest of it.
_OVERLAP_BYTES = 4 << 10
_GAP = b"\n[k8sflow] Some output is missing here: the pod was killed, and its node no longer had it.\n"
_LIMIT_REACHED = b"\n[k8sflow] The limit of this log, %d MB (setting log_limit_mb), is reached. Only its end follows.\n"


@dataclass(frozen=True)
class Mark:
    """The bytes from ``offset`` on were written at ``at`` (seconds since 1970)."""

    offset: int
    at: float


class TimedLog:
    """A log with the times of its writes, up to a size: of what is longer, the beginning and the end are kept.

    Args:
        log: The writer of the output.
        times: The writer of the marks.
        limit_bytes: The size; None for any.
    """

    def __init__(self, log: LogWriter, times: LogWriter, limit_bytes: int | None = None) -> None:
        self._log = log
        self._times = times
        self._limit = math.inf if limit_bytes is None else limit_bytes
        self._position = 0
        self._last = 0.0
        self._end = b""
        self._beyond = 0  # bytes after the limit, those of the end among them

    def write(self, data: bytes, at: float | None = None) -> None:
        """Appends output.

        Args:
            data: The bytes.
            at: The time of the output, in seconds since 1970; None for now.
        """
        at = time.time() if at is None else at
        if self._position + len(data) <= self._limit:
            self._append(data, at)
            return
        room = max(0, int(self._limit) - self._position)
        if not self._beyond:
            self._append(data[:room] + _LIMIT_REACHED % _megabytes(self._limit), at)
        self._beyond += len(data) - room
        self._end = (self._end + data[room:])[-_END_BYTES:]

    def _append(self, data: bytes, at: float) -> None:
        offset, self._position = self._position, self._position + len(data)
        try:
            self._log.write(data)
        finally:  # a log in a bucket keeps bytes that it failed to write, so their mark is needed
            if not offset or not 0 <= at - self._last < _RESOLUTION_SECONDS:
                self._last = at
                self._times.write(b"%d %d\n" % (offset, int(at * 1000)))

    @property
    def missing(self) -> int:
        """The number of bytes of output that readers can't see yet."""
        return self._log.missing

    @property
    def left_out(self) -> str:
        """A sentence about the output that was beyond the limit and is not kept; empty if there is none."""
        if self._beyond <= len(self._end):
            return ""
        count = self._beyond - len(self._end)
        return f"{count:,} bytes were left out: the log's limit is {_megabytes(self._limit)} MB (setting log_limit_mb)"

    def flush(self) -> None:
        """Writes what is held back."""
        try:
            self._log.flush()
        finally:
            self._times.flush()

    def close(self) -> None:
        """Writes the end of the output, and gives back what the writers hold."""
        try:
            if self._beyond:
                notice = f"[k8sflow] {self.left_out}.\n".encode() if self.left_out else b""
                self._append(notice + self._end, time.time())
            self._log.close()
        finally:
            self._times.close()


def _megabytes(size: float) -> int:
    return int(size / 1e6)


def marks(data: bytes) -> list[Mark]:
    """The marks in an object, without a truncated last one."""
    found = []
    for line in data.splitlines(keepends=True):
        offset, _, milliseconds = line.partition(b" ")
        if line.endswith(b"\n") and offset.isdigit() and milliseconds.strip().isdigit():
            found.append(Mark(int(offset), int(milliseconds) / 1000))
    return found


def timed_lines(data: bytes, known: Sequence[Mark], start: int = 0) -> Iterator[tuple[float | None, bytes]]:
    """The lines of a piece of a log without line ends, each with the time of its first byte, if known.

    Args:
        data: The piece.
        known: The log's marks.
        start: The piece's offset in the log.
    """
    offsets = [mark.offset for mark in known]
    for line in io.BytesIO(data):  # one at a time: there may be millions
        position = bisect.bisect_right(offsets, start) - 1
        start += len(line)
        yield (known[position].at if position >= 0 else None), line.removesuffix(b"\n")


def missing_end(stored: bytes, start: int, known: bytes) -> bytes:
    """The end of a log that was not stored.

    Args:
        stored: The last bytes that were.
        start: Their offset in the log.
        known: The log up to its end; its beginning may be missing.
    """
    size = start + len(stored)
    if known[start:size] == stored:  # nothing is missing at its beginning
        return known[size:]
    overlap = stored[-_OVERLAP_BYTES:]
    position = known.rfind(overlap)
    return known[position + len(overlap) :] if position >= 0 else _GAP + known


def append(store: ObjectStore, key: str, size: int, data: bytes) -> None:
    """Adds to a log whose writer is dead; ``size`` is that of the log so far."""
    if store.is_shared:  # a bucket
        append_to_parts(store.put, store.tail, key, size, data)
        return
    log = store.open_log(key)
    log.write(data)
    log.close()


def scrub(store: ObjectStore, key: str, user: str) -> bool:
    """Replaces a log with a line that says so; returns False if there is no log.

    The task must have ended: a writer that is still open would restore a log in a bucket.

    Args:
        store: The store of the log.
        key: The log's key.
        user: The user to name in the line.
    """
    if not store.exists(key):
        return False
    now = time.time()
    when = datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    folder, _, stream = key.rpartition("/")
    store.put(key, [f"[k8sflow] {stream} was scrubbed by {user} at {when}\n".encode("utf-8", "replace")])
    store.put(key + SUFFIX, [b"0 %d\n" % int(now * 1000)])
    more = re.compile(re.escape(key) + r"\.\d+")  # further objects of a log in a bucket, which no reader looks for now
    for found in store.list_keys(f"{folder}/"):
        if more.fullmatch(found):
            store.put(found, [b"\n"])
    return True
