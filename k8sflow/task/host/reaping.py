"""The duties of a container's first process: it handles signals, and waits for all children, inherited ones too."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
from collections.abc import Callable
from typing import Any


def catch_signals(
    selector: selectors.BaseSelector, ends: tuple[socket.socket, socket.socket], terminate: Callable[..., Any]
) -> None:
    """Lets SIGCHLD and SIGTERM wake a selector.

    Args:
        selector: Gets the first of the ends, for reading.
        ends: A connected pair, set to non-blocking here; signals write to the second one.
        terminate: Handles SIGTERM.
    """
    for end in ends:
        end.setblocking(False)
    signal.set_wakeup_fd(ends[1].fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, terminate)
    selector.register(ends[0], selectors.EVENT_READ)


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
