"""The stored output of tasks on this machine: written at once to a folder, and by a thread to a bucket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from k8sflow.storage.log_times import TimedLog
from k8sflow.storage.run_store import RunStore
from k8sflow.task.host.uploads import LogUploads
from k8sflow.task.spec import TaskSpec

_STREAMS = ("stdout", "stderr")


class TaskLogs(Protocol):
    """Takes the output of one execution of a task."""

    def add(self, stream: str, data: bytes) -> None:
        """Adds output of a stream."""

    def finish(self, done: Callable[[str], None]) -> threading.Thread | None:
        """Stores the rest, and calls ``done`` with a sentence about what could not be stored, empty if nothing.

        Returns:
            The thread in which ``done`` will be called; None where it has been called already.
        """


def open_logs(
    run_store: RunStore, task: TaskSpec, patience: Callable[[], float], limit_bytes: int | None = None
) -> TaskLogs:
    """The logs of an execution, and a trace of it: a driver that takes over gives the next one another number.

    Args:
        run_store: The run's records.
        task: The execution.
        patience: How many seconds the rest of its output may wait for a bucket; called again while it waits.
        limit_bytes: How much of each stream is kept; None for all of it.
    """
    name = task.name
    logs = {stream: run_store.open_log(name.step, name.id, task.attempt, stream, limit_bytes) for stream in _STREAMS}
    is_remote = run_store.store.parallel_reads > 1  # each access is a round trip
    return _Uploaded(logs, patience) if is_remote else _Direct(logs)


class _Direct:
    """Logs in a folder, written in the caller's thread."""

    def __init__(self, logs: Mapping[str, TimedLog]) -> None:
        self._logs = logs
        logs["stdout"].write(b"")

    def add(self, stream: str, data: bytes) -> None:
        """Writes output of a stream."""
        self._logs[stream].write(data)

    def finish(self, done: Callable[[str], None]) -> None:
        """Closes the logs, and calls ``done``."""
        for log in self._logs.values():
            log.close()
        done("; ".join(f"{stream}: {log.left_out}" for stream, log in self._logs.items() if log.left_out))


class _Uploaded:
    """Logs in a bucket, which may be out of reach for minutes: no caller waits for it."""

    def __init__(self, logs: Mapping[str, TimedLog], patience: Callable[[], float]) -> None:
        self._uploads = LogUploads(logs, patience, trace="stdout")

    def add(self, stream: str, data: bytes) -> None:
        """Passes output of a stream to the thread that writes it."""
        self._uploads.add(stream, data)

    def finish(self, done: Callable[[str], None]) -> threading.Thread:
        """Waits for the rest in another thread, and calls ``done`` there."""
        thread = threading.Thread(target=lambda: done(self._uploads.close()), name="k8sflow-logs-end", daemon=True)
        thread.start()
        return thread
