"""Uploads a task's output to the store while it grows, without holding up the task."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from k8sflow.errors import K8sflowError

_FIRST_SECONDS = 1.0
_CLOSE_SECONDS = 30.0


class TimedWriter(Protocol):
    """A log that keeps when its pieces came."""

    def write(self, data: bytes, at: float | None = None) -> None:
        """Adds bytes that came at a time."""

    def close(self) -> None:
        """Writes what is missing."""


class LogUploads:
    """A thread that writes what was added to the logs; ``add`` never waits.

    A store that refuses is not an error here: the output has reached the terminal and the container's log.

    Args:
        logs: A writer for each stream.
    """

    def __init__(self, logs: Mapping[str, TimedWriter]) -> None:
        self._logs = logs
        self._added: list[tuple[str, bytes, float]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="k8sflow-logs", daemon=True)
        self._thread.start()

    def add(self, stream: str, data: bytes) -> None:
        """Takes output of a stream."""
        with self._changed:
            self._added.append((stream, data, time.time()))
            self._changed.notify()

    def close(self) -> None:
        """Writes the rest; waits for a slow store, but not for ever."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        ending = False
        while not ending:
            with self._changed:
                self._changed.wait_for(lambda: self._added or self._closing)
                # More is likely on its way: one write for all that comes within a second.
                self._changed.wait_for(lambda: self._closing, timeout=_FIRST_SECONDS)
                added, self._added = self._added, []
                ending = self._closing
            writes: list[Callable[[], None]] = [
                partial(self._logs[stream].write, data, at) for stream, data, at in added
            ]
            closes: list[Callable[[], None]] = [log.close for log in self._logs.values()] if ending else []
            for call in (*writes, *closes):
                with contextlib.suppress(K8sflowError):  # a log keeps what the store didn't take, and tries again
                    call()
