"""The processes below a task's process, those in sessions of their own included, as proc(5) lists them."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process, also after its id was given to another one.

    Args:
        pid: Its id.
        started: When it was started, in clock ticks since the boot.
    """

    pid: int
    started: str

    def kill(self) -> None:
        """Sends it SIGKILL if it is still there."""
        if _started(self.pid) == self.started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)


def descendants(pid: int) -> list[Process]:
    """The processes below a live one; none where the system has no proc(5)."""
    found = _children(pid)
    for child in found:  # the list grows meanwhile
        found += _children(child)
    return [Process(child, started) for child in found if (started := _started(child))]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):  # it has ended, or the kernel has no such file
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_bytes().split())
    return found


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        return ""
