"""The duty of a container's first process to wait for the children that have ended, also for those it inherits."""

from __future__ import annotations

import contextlib
import os


def reap(child: int) -> int | None:
    """Waits for all children that have ended; the exit status of one of them, if it has."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                found = status
    return found
