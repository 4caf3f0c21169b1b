"""The duties of a container's first process: it handles signals, and waits for all children, inherited ones too."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
from collections.abc import Callable
from typing import Any

from k8sflow.task.host.wakeup import Wakeup


def catch_signals(selector: selectors.BaseSelector, wakeup: Wakeup, terminate: Callable[..., Any]) -> None:
    """Lets SIGCHLD and SIGTERM wake a selector.

    Args:
        selector: Gets the wakeup.
        wakeup: Is woken by the signals.
        terminate: Handles SIGTERM.
    """
    wakeup.wake_on_signals()
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, terminate)
    selector.register(wakeup, selectors.EVENT_READ)


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
