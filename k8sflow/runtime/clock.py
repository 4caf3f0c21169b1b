"""The driver's time."""

from __future__ import annotations

import queue
import time
from typing import Protocol

from k8sflow.executors.base import TaskEvent
from k8sflow.runtime.inbox import Inbox


class Clock(Protocol):
    """The driver's time; a test has one of its own."""

    def now(self) -> float:
        """Seconds on a clock that is never set back."""

    def wall(self) -> float:
        """Seconds since 1970."""

    def wait(self, inbox: Inbox, seconds: float | None) -> TaskEvent | Exception | None:
        """The next event, or None where none came within so many seconds."""


class RealClock:
    """The clock of this machine."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def wait(self, inbox: Inbox, seconds: float | None) -> TaskEvent | Exception | None:
        try:
            return inbox.get(timeout=seconds)
        except queue.Empty:
            return None
