"""Writes of many small blobs at a time, where each write is a round trip to a server."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

# A larger blob is written at once, by threads of its own: it is as fast, and its bytes need not be kept.
MOST_BYTES = 1 << 20
# A thread pool is not worthwhile for fewer writes than this.
_FEW = 4
# The bytes that may wait to be written.
_MOST_WAITING_BYTES = 32 << 20


class BlobWrites:
    """Performs writes in threads; at the end of the ``with`` all are done.

    Args:
        parallel: The number of writes at a time; 1 to perform each at once.

    Raises:
        StorageError: At the end of the ``with``, or earlier: a write failed.
    """

    def __init__(self, parallel: int) -> None:
        self._parallel = parallel
        self._first: list[Callable[[], None]] = []
        self._pool: ThreadPoolExecutor | None = None
        self._running: list[Future[None]] = []
        self._waiting_bytes = 0

    def __enter__(self) -> BlobWrites:  # noqa: PYI034  typing has no Self in 3.10
        return self

    def add(self, write: Callable[[], None], size: int) -> None:
        """Performs a write, at some time until the end of the ``with``.

        Args:
            write: Writes a blob.
            size: The length of the blob in bytes.
        """
        if self._parallel == 1 or size > MOST_BYTES:
            write()
            return
        if self._waiting_bytes + size > _MOST_WAITING_BYTES:
            self._finish()
        self._waiting_bytes += size
        if self._pool is None and len(self._first) < _FEW:
            self._first.append(write)
            return
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  it imports logging, and each task waits for logging's atexit handler

            self._pool = ThreadPoolExecutor(self._parallel)
        self._running += [self._pool.submit(each) for each in (*self._first, write)]
        self._first.clear()

    def _finish(self) -> None:
        for write in self._first:
            write()
        for each in self._running:
            each.result()
        self._first.clear()
        self._running.clear()
        self._waiting_bytes = 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
