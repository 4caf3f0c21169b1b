"""Wakes a selector from another thread, or by a signal."""

from __future__ import annotations

import contextlib
import signal
import socket


class Wakeup:
    """Readable, for a selector, from a call of ``wake`` or a signal until ``clear`` (a pair of connected sockets)."""

    def __init__(self) -> None:
        self._woken, self._waking = socket.socketpair()
        for end in (self._woken, self._waking):
            end.setblocking(False)

    def fileno(self) -> int:
        """The file descriptor that the selector waits for."""
        return self._woken.fileno()

    def wake(self) -> None:
        """Wakes the selector; may be called in any thread."""
        with contextlib.suppress(BlockingIOError):  # it is full of wake-ups that the selector has yet to see
            self._waking.send(b"\0")

    def wake_on_signals(self) -> None:
        """Lets every signal that has a handler wake the selector (signal.set_wakeup_fd)."""
        signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)

    def clear(self) -> None:
        """Takes note of all wake-ups so far."""
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)

    def close(self) -> None:
        """Closes both ends."""
        self._woken.close()
        self._waking.close()
