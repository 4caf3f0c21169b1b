"""Uploads a task's output to the store while it grows, without holding up the task."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from k8sflow.errors import K8sflowError

_FIRST_SECONDS = 1.0
# A task that writes faster than the bucket takes it waits when so much is held, but no longer than this: then output
# is left out, until there is room again.
_MOST_HELD_BYTES = 16 << 20
_LONGEST_STALL_SECONDS = 5.0
_LOOK_SECONDS = 0.5
# A store that answers takes the rest of a log in this time, however little patience there is with one that doesn't.
_LEAST_CLOSE_SECONDS = 3.0
_REPORT_AFTER_SECONDS = 5.0
_LONGEST_REASON = 200


class TimedWriter(Protocol):
    """A log that keeps when its pieces came."""

    def write(self, data: bytes, at: float | None = None) -> None:
        """Adds bytes that came at a time."""

    def flush(self) -> None:
        """Writes what is held back, unless that was done a moment ago."""

    def close(self) -> None:
        """Writes what is missing."""

    @property
    def missing(self) -> int:
        """The number of added bytes that are not written yet."""

    @property
    def left_out(self) -> str:
        """A sentence about output that it doesn't keep; empty if there is none."""


class LogUploads:
    """A thread that writes what was added to the logs.

    While the store refuses, the logs keep what it didn't take and try again with what follows. There is a limit to
    what is kept: then ``add`` waits for a few seconds, and after that output is left out. What is missing in the end,
    ``close`` returns.

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
        self._left_out = dict.fromkeys(logs, 0)  # bytes for which there was no room
        self._hole = dict.fromkeys(logs, 0)  # those of them that the log doesn't mention yet
        self._is_stalled = False
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._main, name="k8sflow-logs", daemon=True)
        self._thread.start()

    def add(self, stream: str, data: bytes) -> None:
        """Takes output of a stream."""
        with self._changed:
            if self._is_full():
                if not self._is_stalled:
                    self._is_stalled = not self._changed.wait_for(lambda: not self._is_full(), _LONGEST_STALL_SECONDS)
                if self._is_stalled and self._is_full():
                    self._left_out[stream] += len(data)
                    self._hole[stream] += len(data)
                    return
            self._is_stalled = False
            if count := self._hole[stream]:
                self._hole[stream] = 0
                self._queue(stream, b"\n[k8sflow] %d bytes are left out here: the bucket was too slow.\n" % count)
            self._queue(stream, data)
            self._changed.notify_all()

    def _queue(self, stream: str, data: bytes) -> None:
        self._added.append((stream, data, time.time()))
        self._unfinished[stream] += len(data)

    def _is_full(self) -> bool:
        held = sum(self._unfinished.values()) + sum(log.missing for log in self._logs.values())
        return held > _MOST_HELD_BYTES

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
        missing = {stream: count + self._left_out.get(stream, 0) for stream, count in missing.items()}
        lost = [f"{count:,} bytes of {stream}" for stream, count in missing.items() if count]
        limits = "; ".join(f"{stream}: {log.left_out}" for stream, log in self._logs.items() if log.left_out)
        if not lost:
            return limits
        reason = next(
            (self._errors[stream] for stream, count in missing.items() if count and stream in self._errors), ""
        )
        return f"{' and '.join(lost)} could not be stored: {reason or self._why()}" + (f"; {limits}" if limits else "")

    def _why(self) -> str:
        return "the bucket was too slow." if any(self._left_out.values()) else "the bucket did not answer in time."

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
                is_held = any(log.missing for log in self._logs.values())
                self._changed.wait_for(lambda: self._added or self._closing, _FIRST_SECONDS if is_held else None)
                if self._added:
                    # More is likely on its way: one write for all that comes within a second.
                    self._changed.wait_for(lambda: self._closing or self._has_much(), timeout=_FIRST_SECONDS)
                added, self._added = self._added, []
                ending = self._closing
            for stream, data, at in added:
                self._write(stream, data, at)
            for stream, log in self._logs.items():
                self._try(stream, log.close if ending else log.flush)
            with self._changed:
                self._changed.notify_all()

    def _has_much(self) -> bool:
        return sum(self._unfinished.values()) > _MOST_HELD_BYTES // 4

    def _write(self, stream: str, data: bytes, at: float) -> None:
        log = self._logs[stream]
        before = log.missing
        with self._changed:
            self._unfinished[stream] -= len(data)
            self._changed.notify_all()
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
