"""The driver's time."""

from __future__ import annotations

import queue
import time
from typing import Protocol

from k8sflow.executors.base import TaskEvent
from k8sflow.runtime.core.inbox import Inbox

# A signal that comes while a thread is about to wait for a lock is handled by Python only when the wait is over: Ctrl-C
# would be lost until the next event. So no wait for events is longer than this.
_LOOK_SECONDS = 0.5


class Clock(Protocol):
    """The driver's time; a test has one of its own."""

    def now(self) -> float:
        """Seconds on a clock that is never set back."""

    def wall(self) -> float:
        """Seconds since 1970."""

    def wait(self, inbox: Inbox, seconds: float | None) -> TaskEvent | Exception | None:
        """The next event, or None where none came within so many seconds, or for a while."""


class RealClock:
    """The clock of this machine."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def wait(self, inbox: Inbox, seconds: float | None) -> TaskEvent | Exception | None:
        try:
            return inbox.get(timeout=_LOOK_SECONDS if seconds is None else min(seconds, _LOOK_SECONDS))
        except queue.Empty:
            return None
