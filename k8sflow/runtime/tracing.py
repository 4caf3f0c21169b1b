"""The driver's part of a run's trace: when it submitted each task, what it saw of it, and when it saw its end."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from k8sflow.executors.base import Finished, Reached, Started, TaskEvent
from k8sflow.flow.decorators.policy import Catch
from k8sflow.runtime.core.observer import Observer
from k8sflow.runtime.core.retries import Again
from k8sflow.storage.objects import LogWriter
from k8sflow.storage.records import new_run_id
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.trace import DriverMoment, open_driver_trace
from k8sflow.task.host.uploads import LogUploads
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec

if TYPE_CHECKING:
    from k8sflow.runtime.core.result_cache import Taken

_CLOSE_SECONDS = 5.0
_STREAM = "trace"


class Traced(Observer):
    """Passes everything on to another observer, and writes the moments of tasks to the run's trace.

    A thread of its own writes to the store, so that the driver never waits for it.

    Args:
        observer: The other observer.
        run_store: The run's records.
    """

    def __init__(self, observer: Observer, run_store: RunStore) -> None:
        self._observer = observer
        driver = f"{new_run_id()}-{socket.gethostname()}-{os.getpid()}"
        log = _Untimed(open_driver_trace(run_store, driver))
        self._uploads = LogUploads({_STREAM: log}, patience=lambda: _CLOSE_SECONDS)

    def opened(self, step: str, width: int) -> None:
        self._observer.opened(step, width)

    def submitted(self, group: Sequence[TaskSpec]) -> None:
        """Notes the time for each task."""
        at = time.time()
        for task in group:
            self._note(task, "submitted", at)
        self._observer.submitted(group)

    def event(self, event: TaskEvent) -> None:
        """Notes what happened to a task."""
        match event:
            case Reached(task, stage, at, where):
                self._note(task, stage, at, where)
            case Started(task, where):
                self._note(task, "started", time.time(), where)
            case Finished(task, result):
                self._note(task, "seen", time.time(), result.outcome.value)
            case _:
                pass
        self._observer.event(event)

    def done_before(self, tasks: Sequence[TaskSpec]) -> None:
        """Passes it on: such tasks have no moments in this run."""
        self._observer.done_before(tasks)

    def cached(self, taken: Taken) -> None:
        """Notes that the task is done."""
        self._note(taken.task, "seen", time.time(), "cached")
        self._observer.cached(taken)

    def retried(self, task: TaskSpec, result: TaskResult, again: Again) -> None:
        """Passes it on: the next execution has moments of its own."""
        self._observer.retried(task, result, again)

    def caught(self, task: TaskSpec, result: TaskResult, catch: Catch) -> None:
        self._observer.caught(task, result, catch)

    def close(self) -> None:
        """Writes the rest; what a bucket doesn't take within seconds is missing in the trace."""
        self._uploads.close()

    def _note(self, task: TaskSpec, moment: str, at: float, detail: str = "") -> None:
        found = DriverMoment(task.name.step, task.name.id, task.attempt, moment, at, detail)
        self._uploads.add(_STREAM, found.to_line())


class _Untimed:
    """A log whose lines have their own times."""

    def __init__(self, log: LogWriter) -> None:
        self._log = log

    def write(self, data: bytes, at: float | None = None) -> None:  # noqa: ARG002  the line itself has a time
        """Appends lines."""
        self._log.write(data)

    def flush(self) -> None:
        """Writes what is held back."""
        self._log.flush()

    def close(self) -> None:
        """Writes the rest."""
        self._log.close()

    @property
    def left_out(self) -> str:
        """Nothing."""
        return ""

    @property
    def missing(self) -> int:
        """The number of bytes that readers can't see yet."""
        return self._log.missing
