"""Tasks that run, and whose output is not shown: their number, as a line from time to time."""

from __future__ import annotations

import time
from collections.abc import Callable

from k8sflow.executors.base import Finished, Started, TaskEvent
from k8sflow.task.spec import TaskName

_PAUSE_SECONDS = 10.0


class Silent:
    """Counts the tasks that run without being followed.

    Args:
        clock: The time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: dict[TaskName, None] = {}
        self._reported = 0
        self._next = 0.0

    def event(self, event: TaskEvent) -> None:
        """Counts a task that starts without being followed, until it has ended."""
        match event:
            case Started(task, _, is_followed):
                if not is_followed:
                    self._running[task.name] = None
            case Finished(task):
                self._running.pop(task.name, None)
            case _:
                pass

    @property
    def example(self) -> TaskName:
        """The task of these that started last."""
        return next(reversed(self._running))

    def due(self) -> str | None:
        """The number in words, where it has changed and the last line was some seconds ago."""
        count = len(self._running)
        if not count or count == self._reported or self._clock() < self._next:
            return None
        self._reported, self._next = count, self._clock() + _PAUSE_SECONDS
        if count == 1:
            return "1 more task is running; its output"
        return f"{count:,} more tasks are running; the output of one of them"
