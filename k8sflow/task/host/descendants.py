"""The processes below a task's process, those in sessions of their own included."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass

from k8sflow.parallel.process_tree import stat_fields, tree_below

_START_TIME = 19  # of the fields after the name: proc(5), field 22


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
    return [Process(child, started) for child in tree_below(pid) if (started := _started(child))]


def _started(pid: int) -> str:
    fields = stat_fields(pid)
    return fields[_START_TIME] if fields else ""
