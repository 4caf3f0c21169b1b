"""Waiting with a deadline, for tests and for the flows that they run; tasks that import it load nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

DEADLINE_SECONDS = 30.0


def wait_for(what: Callable[[], Any], seconds: float = DEADLINE_SECONDS) -> Any:
    """Return the first true value of a condition that no event reports; raise AssertionError when it takes too long."""
    deadline, never = time.monotonic() + seconds, threading.Event()
    while time.monotonic() < deadline:
        if found := what():
            return found
        never.wait(0.01)
    raise AssertionError(f"{what} did not hold within {seconds} s")
