"""Uploads a task's output to the store while it grows, without holding up the task."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from k8sflow.errors import K8sflowError

_FIRST_SECONDS = 1.0
_LOOK_SECONDS = 0.5
# A store that answers takes the rest of a log in this time, however little patience there is with one that doesn't.
_LEAST_CLOSE_SECONDS = 3.0
_REPORT_AFTER_SECONDS = 5.0
_LONGEST_REASON = 200


class TimedWriter(Protocol):
    """A log that keeps when its pieces came."""

    def write(self, data: bytes, at: float | None = None) -> None:
        """Adds bytes that came at a time."""

    def close(self) -> None:
        """Writes what is missing."""

    @property
    def missing(self) -> int:
        """The number of added bytes that are not written yet."""


class LogUploads:
    """A thread that writes what was added to the logs; ``add`` never waits.

    While the store refuses, the logs keep what it didn't take and try again with what follows. What is missing in the
    end, ``close`` returns.

    Args:
        logs: A writer for each stream.
        patience: How many seconds ``close`` waits for the store; called again while it waits.
        say: Called with one line when ``close`` has waited for a few seconds.
        trace: A stream whose log is written at once, although it is empty, so that readers see the execution.
    """

    def __init__(
        self,
        logs: Mapping[str, TimedWriter],
        patience: Callable[[], float] = lambda: 30.0,
        say: Callable[[str], None] = lambda _: None,
        trace: str | None = None,
    ) -> None:
        self._logs = logs
        self._trace = trace
        self._patience = patience
        self._say = say
        self._added: list[tuple[str, bytes, float]] = []
        self._unfinished = dict.fromkeys(logs, 0)  # bytes that were added, and not yet given to the log
        self._errors: dict[str, str] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._main, name="k8sflow-logs", daemon=True)
        self._thread.start()

    def add(self, stream: str, data: bytes) -> None:
        """Takes output of a stream."""
        with self._changed:
            self._added.append((stream, data, time.time()))
            self._unfinished[stream] += len(data)
            self._changed.notify()

    def close(self) -> str:
        """Writes the rest, and waits for the store as long as the patience allows.

        Returns:
            A sentence about the output that couldn't be stored; empty where all of it was.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        began, is_reported = time.monotonic(), False
        while self._thread.is_alive():
            self._thread.join(_LOOK_SECONDS)
            waited = time.monotonic() - began
            if waited > max(self._patience(), _LEAST_CLOSE_SECONDS):
                break
            if waited > _REPORT_AFTER_SECONDS and self._thread.is_alive() and not is_reported:
                is_reported = True
                self._say("the rest of the task's log waits for the bucket, which doesn't answer.")
        return self._loss()

    def _loss(self) -> str:
        missing = {stream: log.missing + self._unfinished[stream] for stream, log in self._logs.items()}
        lost = [f"{count:,} bytes of {stream}" for stream, count in missing.items() if count]
        if not lost:
            return ""
        reason = next(
            (self._errors[stream] for stream, count in missing.items() if count and stream in self._errors), ""
        )
        return f"{' and '.join(lost)} could not be stored: {reason or 'the bucket did not answer in time.'}"

    def _main(self) -> None:
        try:
            self._run()
        except Exception as error:  # noqa: BLE001  the thread's border: ``close`` reports its death
            self._errors = dict.fromkeys(self._unfinished, f"{type(error).__name__}: {error}"[:_LONGEST_REASON])

    def _run(self) -> None:
        ending = False
        if self._trace is not None:
            trace = self._trace
            self._try(trace, lambda: self._logs[trace].write(b""))
        while not ending:
            with self._changed:
                self._changed.wait_for(lambda: self._added or self._closing)
                # More is likely on its way: one write for all that comes within a second.
                self._changed.wait_for(lambda: self._closing, timeout=_FIRST_SECONDS)
                added, self._added = self._added, []
                ending = self._closing
            for stream, data, at in added:
                self._write(stream, data, at)
            for stream in self._logs if ending else ():
                self._try(stream, self._logs[stream].close)

    def _write(self, stream: str, data: bytes, at: float) -> None:
        log = self._logs[stream]
        before = log.missing
        with self._changed:
            self._unfinished[stream] -= len(data)
        self._try(stream, lambda: log.write(data, at))
        if stream in self._errors and log.missing < before + len(data):  # the log has not even kept it
            with self._changed:
                self._unfinished[stream] += len(data)

    def _try(self, stream: str, call: Callable[[], None]) -> None:
        try:
            call()
        except K8sflowError as error:
            self._errors[stream] = error.summary[:_LONGEST_REASON]
        except Exception as error:  # noqa: BLE001  the thread's border: without it all that follows would be lost
            self._errors[stream] = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
        else:
            self._errors.pop(stream, None)
