"""The reports of executors to the driver, in their order; output waits while the driver is behind."""

from __future__ import annotations

import queue
import threading

from k8sflow.executors.base import Output, TaskEvent

# What a piece of output takes beside its bytes, so that many small ones count too.
_PIECE_BYTES = 512


class Inbox:
    """A queue from many threads to one.

    A thread that reports output is blocked while the driver has too much of it: the executor then reads no more,
    and the task that writes waits, as it would for a slow terminal.

    Args:
        most_bytes: How much output may lie here.
    """

    def __init__(self, most_bytes: int = 8 << 20) -> None:
        self._queue: queue.SimpleQueue[TaskEvent | Exception] = queue.SimpleQueue()
        self._most_bytes = most_bytes
        self._held_bytes = 0
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, event: TaskEvent | Exception) -> None:
        """Reports an event, or the error that ends an executor; waits with output only."""
        if isinstance(event, Output):
            with self._changed:
                while self._held_bytes >= self._most_bytes and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    return
                self._held_bytes += len(event.data) + _PIECE_BYTES
        self._queue.put(event)

    def get(self, timeout: float | None = None) -> TaskEvent | Exception:
        """The next event.

        Raises:
            queue.Empty: None came within so many seconds.
        """
        event = self._queue.get(timeout=timeout)
        if isinstance(event, Output):
            with self._changed:
                self._held_bytes -= len(event.data) + _PIECE_BYTES
                self._changed.notify_all()
        return event

    def empty(self) -> bool:
        """True if every report was taken."""
        return self._queue.empty()

    def close(self) -> None:
        """Stops taking events: output is dropped from now on, and no thread waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
